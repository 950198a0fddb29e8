/* Interleave: in which order the sources of a mixture take turns, as a pure function of seed,
 * weights and position: so a run may stand anywhere and jump anywhere with nothing but its
 * position kept. Knows nothing of what a source holds.
 *
 * A source of share p is due once in every stretch of 1/p positions, at a place in it that a hash
 * of (seed, name, number of the stretch) decides (stratified sampling, also called jittered: Cook,
 * "Stochastic sampling in computer graphics", ACM TOG 1986); the mixture is all that is due, in its
 * order. So what a source has had after q positions differs from p * q by less than 1 + p * (n - 2)
 * for n > 1 sources, for ever: less than 1 for two, and nothing drifts. All of it is computed in
 * whole numbers, the same on every machine. Const once made; any thread. */
#ifndef TROUPE_DATASET_INTERLEAVE_H
#define TROUPE_DATASET_INTERLEAVE_H

#include <stdint.h>

#define INTERLEAVE_SOURCES_MAX 64

/* Part of every fingerprint of a mixture: raised when the order of given weights changes. */
#define INTERLEAVE_VERSION 1

/* Shares are multiples of 1 / INTERLEAVE_UNIT. */
#define INTERLEAVE_UNIT (UINT64_C(1) << 32)

typedef struct Interleave {
    int count;
    uint64_t share[INTERLEAVE_SOURCES_MAX]; /* the sum is INTERLEAVE_UNIT */
    uint64_t key[INTERLEAVE_SOURCES_MAX];
} Interleave;

/* `weight`s are finite and above 0, in any unit; `name`s tell the sources apart and are not kept.
 * Returns -1, or the first source whose share is too small to be one. */
int interleave_make(uint64_t seed, const char *const *name, const double *weight, int count,
                    Interleave *ret);

typedef struct InterleavePlace {
    int source;
    uint64_t position; /* in the source's own stream */
} InterleavePlace;

/* Who is due at a position below 2^62. O(n^2) for n sources. */
InterleavePlace interleave_at(const Interleave *mix, uint64_t position);

/* The position at which a source is due for the time `number`, from 0. O(n). */
uint64_t interleave_position(const Interleave *mix, int source, uint64_t number);

/* What an epoch of several sources is: until the first or the last of them has been gone through
 * (the words are those of `interleave_datasets` of Hugging Face's datasets). */
typedef enum { EPOCH_FIRST_EXHAUSTED, EPOCH_ALL_EXHAUSTED } EpochEnd;

/* How many positions it has, of sources with records[i] records each; 0 where one of these is 0. */
uint64_t interleave_epoch(const Interleave *mix, const uint64_t *records, EpochEnd end);

/* A reader of consecutive positions, for which the next costs O(n). */
typedef struct InterleaveCursor {
    const Interleave *mix;                  /* borrowed */
    uint64_t position;                      /* of the next */
    uint64_t taken[INTERLEAVE_SOURCES_MAX]; /* of each source below `position` */
} InterleaveCursor;

/* Stands at `position`: taken[] tells what each source has had. */
InterleaveCursor interleave_cursor(const Interleave *mix, uint64_t position);
InterleavePlace interleave_next(InterleaveCursor *cursor);

#endif
