/* HfOrder: the order in which the package `datasets` streams records,
 * load_dataset(..., streaming=True).shuffle(seed, buffer_size) with set_epoch(epoch), read by one
 * process. Each release that is named here has an algorithm of its own (hf_order.c); all choose by
 * counts alone, never by what a record contains. So what stands at a position is found by replaying
 * integers from the beginning of its epoch, some ten nanoseconds a record, or from one of the
 * points on the way that were kept: no buffer has to be saved, while the package's own state leaves
 * its buffer out.
 *
 * Any thread; one at a time replays. */
#ifndef TROUPE_DATASET_HF_ORDER_H
#define TROUPE_DATASET_HF_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "base/data_order.h"
#include "base/error.h"
#include "base/limits.h"
#include "dataset/watch.h"

/* Part of every fingerprint: raised when the order of a release, seed and buffer changes here. */
#define HF_ORDER_VERSION 1

typedef struct HfOptions {
    HfRelease release;
    uint64_t buffer_size; /* of the shuffle; 1 to HF_BUFFER_MAX */
    ReadWatch *watch;     /* of the replay; NULL: nobody watches */
} HfOptions;

typedef struct HfOrder HfOrder;

const char *hf_release_name(HfRelease release); /* "5.2" */

/* `records` [num_files] are those of each file, in the order in which the files were named; not all
 * are 0. Copied. */
HfOrder *hf_order_create(const HfOptions *options, uint64_t seed, const uint64_t *records,
                         size_t num_files);
void hf_order_destroy(HfOrder *order); /* accepts NULL */

/* The record at `place` of an epoch, place < the sum of all records, counted from 0 over all files
 * in the order in which they were named. ERR_CANCELLED: the watch says so. */
Status hf_order_record(HfOrder *order, uint64_t epoch, uint64_t place, uint64_t *ret, Error *err);

#endif
