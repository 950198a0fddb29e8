/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of (key, counter), so the value
 * that belongs to a weight, a sample or a token position is the same whoever computes it, in
 * whatever order, on however many ranks. There is no state to save and none to share between
 * threads. */
#ifndef TROUPE_BASE_RNG_H
#define TROUPE_BASE_RNG_H

#include <stdint.h>

typedef struct RngBlock {
    uint32_t word[4];
} RngBlock;

/* The four words that belong to (key, counter_high, counter_low). */
RngBlock rng_block(uint64_t key, uint64_t counter_high, uint64_t counter_low);

/* Uniform in [0, 1): 24 bits of a word, exact in float32. */
float rng_uniform(uint32_t word);

/* Two independent standard normals from two words (Box-Muller). */
void rng_normal_pair(uint32_t a, uint32_t b, float *ret_x, float *ret_y);

/* Uniform in [0, bound), bound > 0, unbiased (rejection over the block sequence of this counter).
 */
uint64_t rng_below(uint64_t key, uint64_t counter, uint64_t bound);

/* A key derived from a seed and a name ("init", "shuffle", "sampling"), so that uses never share
 * draws: FNV-1a of the name mixed with the seed (splitmix64 finaliser). */
uint64_t rng_key(uint64_t seed, const char *name);

/* A 64-bit finaliser (splitmix64): equal inputs give equal outputs, near inputs far ones. */
uint64_t rng_mix(uint64_t value);

#endif
