#include "dataset/numpy_rng.h"

#include "base/error.h"

#define POOL_WORDS 4
#define WORD_MASK  UINT64_C(0xFFFFFFFF)

/* ---- SeedSequence ---- */

/* The constants of numpy's SeedSequence, which takes them from O'Neill's seed_seq_fe. */
enum { XSHIFT = 16 };
#define INIT_A     0x43b0d7e5u
#define MULT_A     0x931e8875u
#define INIT_B     0x8b51f9ddu
#define MULT_B     0x58f38dedu
#define MIX_MULT_L 0xca01f9ddu
#define MIX_MULT_R 0x4973f715u

static uint32_t hash_word(uint32_t value, uint32_t *constant)
{
    value ^= *constant;
    *constant *= MULT_A;
    value *= *constant;
    return value ^ value >> XSHIFT;
}

static uint32_t mix_words(uint32_t x, uint32_t y)
{
    uint32_t value = MIX_MULT_L * x - MIX_MULT_R * y;
    return value ^ value >> XSHIFT;
}

/* generate_state(4, uint64) of SeedSequence(seed). */
static void seed_state(uint64_t seed, uint64_t ret[4])
{
    uint32_t pool[POOL_WORDS], constant = INIT_A;
    /* A seed below 2^32 is one word of entropy; the words that are missing count as 0. */
    for (int i = 0; i < POOL_WORDS; i++)
        pool[i] = hash_word(i < 2 ? (uint32_t)(seed >> 32 * i) : 0, &constant);
    for (int from = 0; from < POOL_WORDS; from++)
        for (int to = 0; to < POOL_WORDS; to++)
            if (from != to) pool[to] = mix_words(pool[to], hash_word(pool[from], &constant));
    constant = INIT_B;
    for (int i = 0; i < 8; i++) {
        uint32_t value = pool[i % POOL_WORDS] ^ constant;
        constant *= MULT_B;
        value *= constant;
        value ^= value >> XSHIFT;
        ret[i / 2] = i % 2 == 0 ? value : ret[i / 2] | (uint64_t)value << 32;
    }
}

/* ---- PCG64 ---- */

static unsigned __int128 join(uint64_t high, uint64_t low)
{
    return (unsigned __int128)high << 64 | low;
}

static void step(NumpyRng *rng)
{
    unsigned __int128 multiplier =
        join(UINT64_C(2549297995355413924), UINT64_C(4865540595714422341));
    rng->state = rng->state * multiplier + rng->increment;
}

NumpyRng numpy_rng(uint64_t seed)
{
    uint64_t word[4];
    seed_state(seed, word);
    NumpyRng rng = {.increment = join(word[2], word[3]) << 1 | 1};
    step(&rng);
    rng.state += join(word[0], word[1]);
    step(&rng);
    return rng;
}

static uint64_t next_64(NumpyRng *rng)
{
    step(rng);
    uint64_t value = (uint64_t)(rng->state >> 64) ^ (uint64_t)rng->state;
    int turn = (int)(rng->state >> 122);
    return value >> turn | value << (-turn & 63);
}

static uint32_t next_32(NumpyRng *rng)
{
    if (rng->has_half) {
        rng->has_half = false;
        return rng->half;
    }
    uint64_t value = next_64(rng);
    rng->half = (uint32_t)(value >> 32);
    rng->has_half = true;
    return (uint32_t)value;
}

/* ---- what is made of it ---- */

uint32_t numpy_rng_below(NumpyRng *rng, uint64_t bound)
{
    CHECK(bound > 0 && bound <= WORD_MASK + 1);
    if (bound == 1) return 0; /* without a draw */
    if (bound == WORD_MASK + 1) return next_32(rng);
    uint64_t product = next_32(rng) * bound;
    if ((product & WORD_MASK) < bound) {
        uint64_t threshold = (WORD_MASK + 1 - bound) % bound;
        while ((product & WORD_MASK) < threshold)
            product = next_32(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

uint64_t numpy_rng_63_bits(NumpyRng *rng)
{
    return next_64(rng) >> 1;
}

void numpy_rng_shuffle(NumpyRng *rng, uint64_t *value, uint64_t count)
{
    CHECK(count <= WORD_MASK + 1);
    for (uint64_t i = count; i-- > 1;) {
        uint32_t mask = UINT32_MAX >> __builtin_clz((uint32_t)i), other;
        do {
            other = next_32(rng) & mask;
        } while (other > i);
        uint64_t swap = value[i];
        value[i] = value[other];
        value[other] = swap;
    }
}
