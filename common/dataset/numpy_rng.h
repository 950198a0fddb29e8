/* NumpyRng: the random numbers of numpy's default_rng(seed), draw for draw, which the order `hf`
 * repeats (hf_order.h). The generator is PCG64 XSL-RR (O'Neill, "PCG: a family of simple fast
 * space-efficient statistically good algorithms for random number generation", 2014) with 128 bits
 * of state, seeded through numpy's SeedSequence. Numpy promises its bits for a bit generator, not
 * what is made of them, from release to release: tests/dataset/hf_orders.py has compared them with
 * the releases that it names. A plain value: a copy goes its own way. */
#ifndef TROUPE_DATASET_NUMPY_RNG_H
#define TROUPE_DATASET_NUMPY_RNG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct NumpyRng {
    unsigned __int128 state, increment;
    uint32_t half; /* the upper half of the last 64 bits, when `has_half` */
    bool has_half;
} NumpyRng;

/* numpy.random.default_rng(seed) */
NumpyRng numpy_rng(uint64_t seed);

/* One draw of integers(0, bound), 0 < bound <= 2^32: Lemire, "Fast random integer generation in an
 * interval", 2019, on 32 bits. */
uint32_t numpy_rng_below(NumpyRng *rng, uint64_t bound);
/* integers(0, 2**63) */
uint64_t numpy_rng_63_bits(NumpyRng *rng);
/* shuffle(value), and with the numbers from 0 on in it permutation(count), count <= 2^32: Fisher
 * and Yates from the end, each index by masks and rejection. */
void numpy_rng_shuffle(NumpyRng *rng, uint64_t *value, uint64_t count);

#endif
