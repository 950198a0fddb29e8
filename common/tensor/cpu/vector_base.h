/* Lanes for a machine of which nothing is known: the compiler's own vectors. Included by vector.h
 * only; the contract of each function is in vector_avx512.h. lanes_fma rounds twice here. */
#ifndef TROUPE_TENSOR_CPU_VECTOR_BASE_H
#define TROUPE_TENSOR_CPU_VECTOR_BASE_H

#include <math.h>

typedef struct Lanes {
    float at[LANES];
} Lanes;

#define LANES_EACH(expression)                                                                     \
    Lanes result;                                                                                  \
    for (int i = 0; i < LANES; i++)                                                                \
        result.at[i] = (expression);                                                               \
    return result

ALWAYS_INLINE Lanes lanes_set(float value)
{
    LANES_EACH(value);
}

ALWAYS_INLINE Lanes lanes_load(const float *from)
{
    LANES_EACH(from[i]);
}

ALWAYS_INLINE void lanes_store(float *to, Lanes value)
{
    memcpy(to, value.at, sizeof value.at);
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
    LANES_EACH(sqrtf(a.at[i]));
}

ALWAYS_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c)
{
    LANES_EACH(a.at[i] * b.at[i] + c.at[i]);
}

ALWAYS_INLINE Lanes lanes_max(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] > b.at[i] ? a.at[i] : b.at[i]);
}

ALWAYS_INLINE Lanes lanes_min(Lanes a, Lanes b)
{
    LANES_EACH(a.at[i] < b.at[i] ? a.at[i] : b.at[i]);
}

/* Adding and taking off 1.5 * 2^23 leaves the nearest whole number, for |a| < 2^22. */
ALWAYS_INLINE Lanes lanes_nearest(Lanes a)
{
    LANES_EACH((a.at[i] + 12582912.0f) - 12582912.0f);
}

/* 2^n for whole n in [-127, 128], in two factors that stay in the range of the exponent. */
ALWAYS_INLINE float pow2_times(float value, float n)
{
    /* A NaN gives some whole number here and stays a NaN in the product. */
    const int whole = n >= -127.0f && n <= 128.0f ? (int)n : 0;
    const int first = whole / 2;
    union {
        uint32_t bits;
        float real;
    } a = {.bits = (uint32_t)(first + 127) << 23},
      b = {.bits = (uint32_t)(whole - first + 127) << 23};
    return value * a.real * b.real;
}

ALWAYS_INLINE Lanes lanes_scale_pow2(Lanes value, Lanes n)
{
    LANES_EACH(pow2_times(value.at[i], n.at[i]));
}

ALWAYS_INLINE Lanes lanes_zero_below(Lanes value, Lanes x, float limit)
{
    LANES_EACH(x.at[i] < limit ? 0.0f : value.at[i]);
}

ALWAYS_INLINE Lanes lanes_keep_first(Lanes value, int count, float other)
{
    LANES_EACH(i < count ? value.at[i] : other);
}

ALWAYS_INLINE float lanes_sum(Lanes a)
{
    for (int half = LANES / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            a.at[i] = a.at[i] + a.at[i + half];
    return a.at[0];
}

ALWAYS_INLINE float lanes_max_across(Lanes a)
{
    for (int half = LANES / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            a.at[i] = a.at[i] > a.at[i + half] ? a.at[i] : a.at[i + half];
    return a.at[0];
}

ALWAYS_INLINE Lanes lanes_load_bf16(const uint16_t *from)
{
    LANES_EACH(bf16_to_f32(from[i]));
}

ALWAYS_INLINE void lanes_store_bf16(uint16_t *to, Lanes value)
{
    for (int i = 0; i < LANES; i++)
        to[i] = bf16_from_f32(value.at[i]);
}

ALWAYS_INLINE Lanes lanes_round_bf16(Lanes value)
{
    LANES_EACH(bf16_to_f32(bf16_from_f32(value.at[i])));
}

ALWAYS_INLINE void lanes_transpose(Lanes row[LANES])
{
    float cell[LANES][LANES], turned[LANES][LANES];
    for (int i = 0; i < LANES; i++)
        lanes_store(cell[i], row[i]);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            turned[j][i] = cell[i][j];
    for (int i = 0; i < LANES; i++)
        row[i] = lanes_load(turned[i]);
}

ALWAYS_INLINE Lanes lanes_interleave_bf16(const uint16_t *low, const uint16_t *high)
{
    float cell[LANES];
    for (int i = 0; i < LANES; i++) {
        const uint32_t bits = (uint32_t)high[i] << 16 | low[i];
        memcpy(&cell[i], &bits, sizeof bits);
    }
    return lanes_load(cell);
}

#endif
