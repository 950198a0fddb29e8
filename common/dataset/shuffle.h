/* Shuffle: the order of the records of an epoch as a pure function of (seed, epoch), so that where
 * the stream stands is one integer and any place of it costs the same to reach. A seeded
 * permutation of [0, records) is a Feistel network (Luby and Rackoff, "How to construct
 * pseudorandom permutations from pseudorandom functions", 1988) over the next power of two above
 * `records`, with cycle walking to stay inside (Black and Rogaway, "Ciphers with arbitrary finite
 * domains", CT-RSA 2002): under two walks on average. Sets of at most 256 records, for which so few
 * bits mix badly, get a table instead (Fisher and Yates, in Durstenfeld's form). Nothing is stored;
 * any thread. */
#ifndef TROUPE_DATASET_SHUFFLE_H
#define TROUPE_DATASET_SHUFFLE_H

#include <stdbool.h>
#include <stdint.h>

#define SHUFFLE_ROUNDS    8
#define SHUFFLE_TABLE_MAX 256

/* Part of every fingerprint: raised when the permutation of a given (seed, epoch, records) changes.
 */
#define SHUFFLE_VERSION 1

typedef struct Permutation {
    uint64_t size;
    int low_bits, high_bits;
    uint64_t key[SHUFFLE_ROUNDS];
    uint8_t table[SHUFFLE_TABLE_MAX]; /* used when size <= SHUFFLE_TABLE_MAX */
} Permutation;

/* The permutation of [0, size) that belongs to (seed, epoch); size > 0. */
Permutation permutation_of(uint64_t seed, uint64_t epoch, uint64_t size);
/* Where `index` < size goes: each value of [0, size) comes exactly once. */
uint64_t permutation_at(const Permutation *permutation, uint64_t index);

/* The endless stream of a data set: epoch after epoch, each in its own order. */
typedef struct RecordOrder {
    uint64_t records; /* of one epoch, > 0 */
    uint64_t seed;
    bool shuffle; /* false: every epoch is in the order of the files */
} RecordOrder;

/* A reader of consecutive positions: keeps the permutation of the epoch that it stands in. */
typedef struct OrderCursor {
    RecordOrder order;
    uint64_t epoch; /* of `permutation` */
    Permutation permutation;
} OrderCursor;

OrderCursor order_cursor(RecordOrder order);
/* The record at `position`, and the epoch it falls into. */
uint64_t order_record(OrderCursor *cursor, uint64_t position, uint64_t *ret_epoch);

#endif
