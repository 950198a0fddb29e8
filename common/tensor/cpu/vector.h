/* Lanes: sixteen float32 side by side, whatever the width of the machine's registers. A reduction
 * over a row keeps sixteen partial sums, element i going to lane i % 16, and adds the lanes in one
 * fixed tree (lanes_sum): its order depends on the length of the row alone. Also conversion to and
 * from bf16, and exp. Included only by sources that are compiled per instruction set (isa.h). */
#ifndef TROUPE_TENSOR_CPU_VECTOR_H
#define TROUPE_TENSOR_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "tensor/tensor.h"

#define LANES         16
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "tensor/cpu/vector_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "tensor/cpu/vector_avx2.h"
#else
#include "tensor/cpu/vector_base.h"
#endif

#ifndef TILE_PAIRS
/* Never called: bf16 is widened where there are no products of pairs. */
ALWAYS_INLINE Lanes lanes_dot(Lanes a, Lanes b, Lanes sum)
{
    (void)a;
    (void)b;
    return sum;
}

ALWAYS_INLINE Lanes lanes_round_pairs(Lanes low, Lanes high)
{
    (void)high;
    return low;
}

ALWAYS_INLINE Lanes lanes_round_neighbours(Lanes first, Lanes second)
{
    (void)second;
    return first;
}
#endif

#ifndef LANES_MASKED
/* ---- what masks and wide shuffles do elsewhere; long, so kept out of the loops ---- */

#define APART static __attribute__((noinline, unused))

APART void tail_read(float to[LANES], const void *from, int count, DType dtype)
{
    for (int i = 0; i < LANES; i++)
        to[i] = i >= count           ? 0
                : dtype == DTYPE_F32 ? ((const float *)from)[i]
                                     : bf16_to_f32(((const uint16_t *)from)[i]);
}

APART void tail_write(void *to, const float from[LANES], int count, DType dtype)
{
    for (int i = 0; i < count; i++) {
        if (dtype == DTYPE_F32)
            ((float *)to)[i] = from[i];
        else
            ((uint16_t *)to)[i] = bf16_from_f32(from[i]);
    }
}

ALWAYS_INLINE Lanes lanes_load_first(const void *from, int count, DType dtype)
{
    float buffer[LANES];
    tail_read(buffer, from, count, dtype);
    return lanes_load(buffer);
}

ALWAYS_INLINE void lanes_store_first(void *to, int count, DType dtype, Lanes value)
{
    float buffer[LANES];
    lanes_store(buffer, value);
    tail_write(to, buffer, count, dtype);
}

APART void cells_transpose(float cell[LANES][LANES])
{
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            const float kept = cell[i][j];
            cell[i][j] = cell[j][i];
            cell[j][i] = kept;
        }
}

ALWAYS_INLINE void lanes_transpose(Lanes row[LANES])
{
    float cell[LANES][LANES];
    for (int i = 0; i < LANES; i++)
        lanes_store(cell[i], row[i]);
    cells_transpose(cell);
    for (int i = 0; i < LANES; i++)
        row[i] = lanes_load(cell[i]);
}

APART void cells_interleave(float cell[LANES], const uint16_t *low, const uint16_t *high)
{
    for (int i = 0; i < LANES; i++) {
        const uint32_t bits = (uint32_t)high[i] << 16 | low[i];
        memcpy(&cell[i], &bits, sizeof bits);
    }
}

ALWAYS_INLINE Lanes lanes_interleave_bf16(const uint16_t *low, const uint16_t *high)
{
    float cell[LANES];
    cells_interleave(cell, low, high);
    return lanes_load(cell);
}
#endif

/* ---- loads and stores by type; `dtype` is a constant where these are inlined ---- */

ALWAYS_INLINE Lanes lanes_load_as(const void *base, int64_t index, DType dtype)
{
    if (dtype == DTYPE_F32) return lanes_load((const float *)base + index);
    return lanes_load_bf16((const uint16_t *)base + index);
}

ALWAYS_INLINE void lanes_store_as(void *base, int64_t index, DType dtype, Lanes value)
{
    if (dtype == DTYPE_F32)
        lanes_store((float *)base + index, value);
    else
        lanes_store_bf16((uint16_t *)base + index, value);
}

/* The last `count` < 16 elements of a row; lanes beyond them are 0. None when count is negative. */
ALWAYS_INLINE Lanes lanes_load_tail(const void *base, int64_t index, int count, DType dtype)
{
    const char *from = (const char *)base + index * (dtype == DTYPE_F32 ? 4 : 2);
    return lanes_load_first(from, count, dtype);
}

ALWAYS_INLINE void lanes_store_tail(void *base, int64_t index, int count, DType dtype, Lanes value)
{
    char *to = (char *)base + index * (dtype == DTYPE_F32 ? 4 : 2);
    lanes_store_first(to, count, dtype, value);
}

/* Elements [index, index + 16) of a row that ends at `end`: whole or tail. */
ALWAYS_INLINE Lanes lanes_load_row(const void *base, int64_t index, int64_t end, DType dtype)
{
    if (index + LANES <= end) return lanes_load_as(base, index, dtype);
    return lanes_load_tail(base, index, (int)(end - index), dtype);
}

ALWAYS_INLINE void lanes_store_row(void *base, int64_t index, int64_t end, DType dtype, Lanes value)
{
    if (index + LANES <= end)
        lanes_store_as(base, index, dtype, value);
    else
        lanes_store_tail(base, index, (int)(end - index), dtype, value);
}

/* The value as it would be after a store and a load in this type. */
ALWAYS_INLINE Lanes lanes_round(Lanes value, DType dtype)
{
    return dtype == DTYPE_F32 ? value : lanes_round_bf16(value);
}

/* exp(x), below 2 ulp (tests/tensor/test_kernels.c measures it against libm); +inf above 88.72, 0
 * where the result would be subnormal (x < -87.336), NaN for NaN. x = n ln 2 + r with |r| <= ln 2 /
 * 2 (ln 2 in two parts, Cody & Waite 1980), then e^r = 1 + r + r^2 q(r) with the minimax q of
 * Cephes' expf (Moshier 1989) and a shift of the exponent. */
ALWAYS_INLINE Lanes lanes_exp(Lanes x)
{
    const Lanes bounded = lanes_min(lanes_set(89.0f), lanes_max(lanes_set(-88.0f), x));
    const Lanes n = lanes_nearest(lanes_mul(bounded, lanes_set(1.44269504f)));
    Lanes r = lanes_fma(n, lanes_set(-0.693359375f), bounded);
    r = lanes_fma(n, lanes_set(2.12194440e-4f), r);
    Lanes q = lanes_set(1.9875691500e-4f);
    q = lanes_fma(q, r, lanes_set(1.3981999507e-3f));
    q = lanes_fma(q, r, lanes_set(8.3334519073e-3f));
    q = lanes_fma(q, r, lanes_set(4.1665795894e-2f));
    q = lanes_fma(q, r, lanes_set(1.6666665459e-1f));
    q = lanes_fma(q, r, lanes_set(5.0000001201e-1f));
    const Lanes p = lanes_add(lanes_fma(q, lanes_mul(r, r), r), lanes_set(1.0f));
    return lanes_zero_below(lanes_scale_pow2(p, n), x, -87.3365402f);
}

#endif
