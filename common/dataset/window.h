/* WindowOrder: an order that needs no index of all data before the first record, and reads files in
 * pieces that disks and caches like: which record stands at a position depends on the record counts
 * of those blocks alone that come before it in this order.
 *
 * For each epoch, from (seed, epoch) alone:
 *   1. the files are permuted and taken in groups: of WINDOW_FILES files, or more where these have
 *      less than WINDOW_GROUP_WINDOWS windows; so that a cache of files holds a group of them
 *   2. the blocks (dataset.h) of a group are permuted, and cut into windows: as many blocks as have
 *      `window_bytes` together, at least one. Blocks that make a run (dataset_block_run: the pieces
 *      of a large row group) keep their order: where the permutation has a block of a run, the
 *      next block of one of WINDOW_LANES runs stands, drawn among them; the runs are permuted, and
 *      one that is over makes room for the next. So few of them are being read at once, each of
 *      them once
 *   3. the records of a window are permuted
 * with the permutations of shuffle.h. Records of one block stay within a window; a window has
 * blocks from anywhere in its group. In epoch 0 a file that can only be counted from its beginning
 * on (compressed text) has its turns where 2 puts its blocks, but takes the blocks in their order.
 *
 * While there are blocks that nobody has counted, threads count them, in the order of epoch 0, and
 * a position is waited for as long as it lies beyond what they have reached. What is counted is
 * kept by the data set.
 *
 * Const but for that; any thread. */
#ifndef TROUPE_DATASET_WINDOW_H
#define TROUPE_DATASET_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "dataset/dataset.h"

/* Part of every fingerprint: raised when the order of a given data set and seed changes. */
#define WINDOW_VERSION       1
#define WINDOW_FILES         16
#define WINDOW_GROUP_WINDOWS 4
#define WINDOW_LANES         4

typedef struct WindowOptions {
    const Dataset *dataset; /* opened by blocks; borrowed */
    uint64_t seed, window_bytes;
    ReadWatch *watch; /* ends waiting and counting; NULL: nobody does */
} WindowOptions;

typedef struct WindowOrder WindowOrder;
typedef struct WindowCursor WindowCursor;

WindowOrder *window_order_open(const WindowOptions *options);
/* Ends the counting. No cursor is open. */
void window_order_close(WindowOrder *order); /* accepts NULL */

/* Records of an epoch; 0: not known yet. */
uint64_t window_order_records(WindowOrder *order);
/* Waits for all blocks to be counted. ERR_INVALID when there is no record in them. */
Status window_order_count(WindowOrder *order, uint64_t *ret_records, Error *err);

typedef struct WindowPlace {
    uint64_t epoch;
    uint64_t block, record; /* of the data set, of the block */
} WindowPlace;

/* Of one thread, for positions that mostly ascend. */
WindowCursor *window_cursor_open(WindowOrder *order);
void window_cursor_close(WindowCursor *cursor); /* accepts NULL */
/* What fails is the data set, never one record. */
Status window_cursor_find(WindowCursor *cursor, uint64_t position, WindowPlace *ret, Error *err);

#endif
