/* Lanes as one 512-bit register. Included by vector.h only. */
#ifndef TROUPE_TENSOR_CPU_VECTOR_AVX512_H
#define TROUPE_TENSOR_CPU_VECTOR_AVX512_H

#include <immintrin.h>

typedef __m512 Lanes;

ALWAYS_INLINE Lanes lanes_set(float value)
{
    return _mm512_set1_ps(value);
}

ALWAYS_INLINE Lanes lanes_load(const float *from)
{
    return _mm512_loadu_ps(from);
}

ALWAYS_INLINE void lanes_store(float *to, Lanes value)
{
    _mm512_storeu_ps(to, value);
}

ALWAYS_INLINE Lanes lanes_add(Lanes a, Lanes b)
{
    return _mm512_add_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_sub(Lanes a, Lanes b)
{
    return _mm512_sub_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_mul(Lanes a, Lanes b)
{
    return _mm512_mul_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_div(Lanes a, Lanes b)
{
    return _mm512_div_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_sqrt(Lanes a)
{
    return _mm512_sqrt_ps(a);
}

/* a * b + c, rounded once where the machine can. */
ALWAYS_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* The second operand where either is NaN. */
ALWAYS_INLINE Lanes lanes_max(Lanes a, Lanes b)
{
    return _mm512_max_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_min(Lanes a, Lanes b)
{
    return _mm512_min_ps(a, b);
}

ALWAYS_INLINE Lanes lanes_nearest(Lanes a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* value * 2^n for whole n in [-127, 128]. */
ALWAYS_INLINE Lanes lanes_scale_pow2(Lanes value, Lanes n)
{
    return _mm512_scalef_ps(value, n);
}

/* value, or 0 in the lanes where x < limit. */
ALWAYS_INLINE Lanes lanes_zero_below(Lanes value, Lanes x, float limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, lanes_set(limit), _CMP_NLT_UQ), value);
}

ALWAYS_INLINE float lanes_sum(Lanes a)
{
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); /* i + i+8 */
    __m128 quad = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quad = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

ALWAYS_INLINE float lanes_max_across(Lanes a)
{
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 quad = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quad = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_max_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

ALWAYS_INLINE Lanes lanes_load_bf16(const uint16_t *from)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* The rounding of bf16_from_f32 (tensor.h), bit for bit: the conversion instruction would lose
 * subnormals. */
ALWAYS_INLINE __m512i lanes_bf16_bits(Lanes value)
{
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}

ALWAYS_INLINE void lanes_store_bf16(uint16_t *to, Lanes value)
{
    const __m512i bits = _mm512_srli_epi32(lanes_bf16_bits(value), 16);
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(bits));
}

ALWAYS_INLINE Lanes lanes_round_bf16(Lanes value)
{
    const __m512i bits = lanes_bf16_bits(value);
    return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xFFFF0000)));
}

#define LANES_MASKED

ALWAYS_INLINE __mmask16 first_lanes(int count)
{
    return (__mmask16)(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
}

/* Lanes 0 .. count-1 of value, `other` in the rest. */
ALWAYS_INLINE Lanes lanes_keep_first(Lanes value, int count, float other)
{
    return _mm512_mask_mov_ps(lanes_set(other), first_lanes(count), value);
}

/* The first `count` elements at `from`, the other lanes 0: nothing beyond them is read. */
ALWAYS_INLINE Lanes lanes_load_first(const void *from, int count, DType dtype)
{
    const __mmask16 mask = first_lanes(count);
    if (dtype == DTYPE_F32) return _mm512_maskz_loadu_ps(mask, from);
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

ALWAYS_INLINE void lanes_store_first(void *to, int count, DType dtype, Lanes value)
{
    const __mmask16 mask = first_lanes(count);
    if (dtype == DTYPE_F32) {
        _mm512_mask_storeu_ps(to, mask, value);
        return;
    }
    const __m512i bits = _mm512_srli_epi32(lanes_bf16_bits(value), 16);
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtepi32_epi16(bits));
}

/* Sixteen rows of sixteen lanes become their columns: four rounds of interleaving pairs of rows by
 * 1, 2, 4 and 8 lanes. */
ALWAYS_INLINE void lanes_transpose(Lanes row[16])
{
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m512d low = _mm512_castps_pd(a[i + j]), high = _mm512_castps_pd(a[i + j + 2]);
            b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            a[i + j] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0x88);
            a[i + j + 4] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0xDD);
        }
    for (int j = 0; j < 8; j++) {
        row[j] = _mm512_shuffle_f32x4(a[j], a[j + 8], 0x88);
        row[j + 8] = _mm512_shuffle_f32x4(a[j], a[j + 8], 0xDD);
    }
}

/* The 32-bit cells (low[i], high[i]) of two rows of bf16. */
ALWAYS_INLINE Lanes lanes_interleave_bf16(const uint16_t *low, const uint16_t *high)
{
    const __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)low));
    const __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)high));
    return _mm512_castsi512_ps(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}

#ifdef __AVX512BF16__
#define TILE_PAIRS

/* sum + a.low * b.low + a.high * b.high of the bf16 pairs in each lane. */
ALWAYS_INLINE Lanes lanes_dot(Lanes a, Lanes b, Lanes sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* Cells (low[i], high[i]), rounded; subnormals become 0. */
ALWAYS_INLINE Lanes lanes_round_pairs(Lanes low, Lanes high)
{
    const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    const __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return _mm512_castsi512_ps(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}

/* The sixteen cells (first[0], first[1]), ..., (second[14], second[15]), rounded alike. */
ALWAYS_INLINE Lanes lanes_round_neighbours(Lanes first, Lanes second)
{
    return (Lanes)_mm512_cvtne2ps_pbh(second, first);
}
#endif

#endif
