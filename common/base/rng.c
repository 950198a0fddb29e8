#include "base/rng.h"

#include <math.h>

#include "base/error.h"

static RngBlock philox_round(RngBlock in, uint32_t key0, uint32_t key1)
{
    uint64_t product0 = (uint64_t)0xD2511F53u * in.word[0];
    uint64_t product1 = (uint64_t)0xCD9E8D57u * in.word[2];
    return (RngBlock){{
        (uint32_t)(product1 >> 32) ^ in.word[1] ^ key0,
        (uint32_t)product1,
        (uint32_t)(product0 >> 32) ^ in.word[3] ^ key1,
        (uint32_t)product0,
    }};
}

RngBlock rng_block(uint64_t key, uint64_t counter_high, uint64_t counter_low)
{
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    RngBlock block = {{
        (uint32_t)counter_low,
        (uint32_t)(counter_low >> 32),
        (uint32_t)counter_high,
        (uint32_t)(counter_high >> 32),
    }};
    for (int round = 0; round < 10; round++) {
        block = philox_round(block, key0, key1);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return block;
}

float rng_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

void rng_normal_pair(uint32_t a, uint32_t b, float *ret_x, float *ret_y)
{
    double u = ((double)a + 0.5) * 0x1p-32, v = ((double)b + 0.5) * 0x1p-32;
    double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
    *ret_x = (float)(radius * cos(angle));
    *ret_y = (float)(radius * sin(angle));
}

uint64_t rng_below(uint64_t key, uint64_t counter, uint64_t bound)
{
    CHECK(bound > 0);
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    for (uint64_t attempt = 0;; attempt++) {
        RngBlock block = rng_block(key, attempt, counter);
        uint64_t value = (uint64_t)block.word[1] << 32 | block.word[0];
        if (value < limit) return value % bound;
    }
}

uint64_t rng_mix(uint64_t value)
{
    value += 0x9E3779B97F4A7C15u;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 27) * 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

uint64_t rng_key(uint64_t seed, const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (const unsigned char *byte = (const unsigned char *)name; *byte != '\0'; byte++)
        hash = (hash ^ *byte) * 0x100000001B3u;
    return rng_mix(seed ^ rng_mix(hash));
}
