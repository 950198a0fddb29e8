/* Lanes for a machine of which nothing is known: four of the compiler's own vectors of four.
 * Included by vector.h only; the contract of each function is in vector_avx512.h. lanes_fma rounds
 * twice here. */
#ifndef TROUPE_TENSOR_CPU_VECTOR_BASE_H
#define TROUPE_TENSOR_CPU_VECTOR_BASE_H

#include <math.h>

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadBits __attribute__((vector_size(16)));

typedef struct Lanes {
    Quad at[4];
} Lanes;

#define LANES_EACH(expression)                                                                     \
    Lanes result;                                                                                  \
    for (int i = 0; i < 4; i++)                                                                    \
        result.at[i] = (expression);                                                               \
    return result

ALWAYS_INLINE Quad quad_set(float value)
{
    return (Quad){value, value, value, value};
}

/* a where the mask is set, else b. */
ALWAYS_INLINE Quad quad_choose(QuadBits mask, Quad a, Quad b)
{
    return (Quad)((mask & (QuadBits)a) | (~mask & (QuadBits)b));
}

ALWAYS_INLINE Lanes lanes_set(float value)
{
    LANES_EACH(quad_set(value));
}

ALWAYS_INLINE Lanes lanes_load(const float *from)
{
    Lanes result;
    memcpy(&result, from, sizeof result);
    return result;
}

ALWAYS_INLINE void lanes_store(float *to, Lanes value)
{
    memcpy(to, &value, sizeof value);
}

ALWAYS_INLINE Lanes lanes_add(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] + b.at[i]);
}

ALWAYS_INLINE Lanes lanes_sub(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] - b.at[i]);
}

ALWAYS_INLINE Lanes lanes_mul(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] * b.at[i]);
}

ALWAYS_INLINE Lanes lanes_div(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] / b.at[i]);
}

ALWAYS_INLINE Lanes lanes_sqrt(Lanes a)
{
    float value[LANES];
    lanes_store(value, a);
    for (int i = 0; i < LANES; i++)
        value[i] = sqrtf(value[i]);
    return lanes_load(value);
}

ALWAYS_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c)
{
    LANES_EACH(a.at[i] * b.at[i] + c.at[i]);
}

ALWAYS_INLINE Lanes lanes_max(Lanes a, Lanes b)
{
    LANES_EACH(quad_choose(a.at[i] > b.at[i], a.at[i], b.at[i]));
}

ALWAYS_INLINE Lanes lanes_min(Lanes a, Lanes b)
{
    LANES_EACH(quad_choose(a.at[i] < b.at[i], a.at[i], b.at[i]));
}

/* Adding and taking off 1.5 * 2^23 leaves the nearest whole number, for |a| < 2^22. */
ALWAYS_INLINE Lanes lanes_nearest(Lanes a)
{
    LANES_EACH((a.at[i] + 12582912.0f) - 12582912.0f);
}

/* In two steps, so that neither power leaves the range of the exponent. 1.5 * 2^23 + n holds n in
 * its lowest bits; for NaN they hold something, and the product stays NaN. */
ALWAYS_INLINE Quad quad_scale_pow2(Quad value, Quad n)
{
    const QuadBits whole = ((QuadBits)(n + 12582912.0f) - 0x4B400000) << 22 >> 22;
    const QuadBits first = whole >> 1, second = whole - first;
    return value * (Quad)((first + 127) << 23) * (Quad)((second + 127) << 23);
}

ALWAYS_INLINE Lanes lanes_scale_pow2(Lanes value, Lanes n)
{
    LANES_EACH(quad_scale_pow2(value.at[i], n.at[i]));
}

ALWAYS_INLINE Lanes lanes_zero_below(Lanes value, Lanes x, float limit)
{
    LANES_EACH(quad_choose(x.at[i] < limit, quad_set(0), value.at[i]));
}

ALWAYS_INLINE Lanes lanes_keep_first(Lanes value, int count, float other)
{
    const QuadBits index = {0, 1, 2, 3};
    LANES_EACH(quad_choose(index + 4 * i < count, value.at[i], quad_set(other)));
}

ALWAYS_INLINE float lanes_sum(Lanes a)
{
    const Quad quad = (a.at[0] + a.at[2]) + (a.at[1] + a.at[3]);
    return (quad[0] + quad[2]) + (quad[1] + quad[3]);
}

ALWAYS_INLINE float lanes_max_across(Lanes a)
{
    float value[LANES], max;
    lanes_store(value, a);
    max = value[0];
    for (int i = 1; i < LANES; i++)
        max = max > value[i] ? max : value[i];
    return max;
}

ALWAYS_INLINE Lanes lanes_load_bf16(const uint16_t *from)
{
    float value[LANES];
    for (int i = 0; i < LANES; i++)
        value[i] = bf16_to_f32(from[i]);
    return lanes_load(value);
}

/* As bf16_from_f32 (tensor.h), without its shift. */
ALWAYS_INLINE QuadBits quad_bf16_bits(Quad value)
{
    const QuadBits bits = (QuadBits)value, nan = value != value;
    return (nan & (bits | 0x400000)) | (~nan & (bits + 0x7FFF + (bits >> 16 & 1)));
}

ALWAYS_INLINE void lanes_store_bf16(uint16_t *to, Lanes value)
{
    for (int i = 0; i < 4; i++) {
        const QuadBits bits = quad_bf16_bits(value.at[i]);
        for (int j = 0; j < 4; j++)
            to[4 * i + j] = (uint16_t)((uint32_t)bits[j] >> 16);
    }
}

ALWAYS_INLINE Lanes lanes_round_bf16(Lanes value)
{
    LANES_EACH((Quad)(quad_bf16_bits(value.at[i]) & (int32_t)0xFFFF0000));
}

#endif
