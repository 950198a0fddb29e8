/* Lanes as two 256-bit registers. Included by vector.h only; the contract of each function is in
 * vector_avx512.h. */
#ifndef TROUPE_TENSOR_CPU_VECTOR_AVX2_H
#define TROUPE_TENSOR_CPU_VECTOR_AVX2_H

#include <immintrin.h>

typedef struct Lanes {
    __m256 low, high;
} Lanes;

ALWAYS_INLINE Lanes lanes_set(float value)
{
    return (Lanes){_mm256_set1_ps(value), _mm256_set1_ps(value)};
}

ALWAYS_INLINE Lanes lanes_load(const float *from)
{
    return (Lanes){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}

ALWAYS_INLINE void lanes_store(float *to, Lanes value)
{
    _mm256_storeu_ps(to, value.low);
    _mm256_storeu_ps(to + 8, value.high);
}

ALWAYS_INLINE Lanes lanes_add(Lanes a, Lanes b)
{
    return (Lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

ALWAYS_INLINE Lanes lanes_sub(Lanes a, Lanes b)
{
    return (Lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

ALWAYS_INLINE Lanes lanes_mul(Lanes a, Lanes b)
{
    return (Lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

ALWAYS_INLINE Lanes lanes_div(Lanes a, Lanes b)
{
    return (Lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

ALWAYS_INLINE Lanes lanes_sqrt(Lanes a)
{
    return (Lanes){_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)};
}

ALWAYS_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c)
{
    return (Lanes){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

ALWAYS_INLINE Lanes lanes_max(Lanes a, Lanes b)
{
    return (Lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

ALWAYS_INLINE Lanes lanes_min(Lanes a, Lanes b)
{
    return (Lanes){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}

ALWAYS_INLINE __m256 half_nearest(__m256 a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

ALWAYS_INLINE Lanes lanes_nearest(Lanes a)
{
    return (Lanes){half_nearest(a.low), half_nearest(a.high)};
}

/* In two steps, so that neither power leaves the range of the exponent. */
ALWAYS_INLINE __m256 half_scale_pow2(__m256 value, __m256 n)
{
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i first = _mm256_srai_epi32(whole, 1);
    const __m256i second = _mm256_sub_epi32(whole, first);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(first, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(second, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(value, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

ALWAYS_INLINE Lanes lanes_scale_pow2(Lanes value, Lanes n)
{
    return (Lanes){half_scale_pow2(value.low, n.low), half_scale_pow2(value.high, n.high)};
}

ALWAYS_INLINE __m256 half_zero_below(__m256 value, __m256 x, float limit)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLT_UQ), value);
}

ALWAYS_INLINE Lanes lanes_zero_below(Lanes value, Lanes x, float limit)
{
    return (Lanes){half_zero_below(value.low, x.low, limit),
                   half_zero_below(value.high, x.high, limit)};
}

ALWAYS_INLINE __m256 half_keep_first(__m256 value, int count, float other)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), index);
    return _mm256_blendv_ps(_mm256_set1_ps(other), value, _mm256_castsi256_ps(keep));
}

ALWAYS_INLINE Lanes lanes_keep_first(Lanes value, int count, float other)
{
    return (Lanes){half_keep_first(value.low, count, other),
                   half_keep_first(value.high, count - 8, other)};
}

ALWAYS_INLINE float lanes_sum(Lanes a)
{
    const __m256 half = _mm256_add_ps(a.low, a.high);
    __m128 quad = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quad = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

ALWAYS_INLINE float lanes_max_across(Lanes a)
{
    const __m256 half = _mm256_max_ps(a.low, a.high);
    __m128 quad = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quad = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_max_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

ALWAYS_INLINE __m256 half_load_bf16(const uint16_t *from)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

ALWAYS_INLINE Lanes lanes_load_bf16(const uint16_t *from)
{
    return (Lanes){half_load_bf16(from), half_load_bf16(from + 8)};
}

ALWAYS_INLINE __m256i half_bf16_bits(__m256 value)
{
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
}

ALWAYS_INLINE void lanes_store_bf16(uint16_t *to, Lanes value)
{
    const __m256i low = _mm256_srli_epi32(half_bf16_bits(value.low), 16);
    const __m256i high = _mm256_srli_epi32(half_bf16_bits(value.high), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
    _mm256_storeu_si256((__m256i *)to, packed);
}

ALWAYS_INLINE __m256 half_round_bf16(__m256 value)
{
    const __m256i upper = _mm256_set1_epi32((int)0xFFFF0000);
    return _mm256_castsi256_ps(_mm256_and_si256(half_bf16_bits(value), upper));
}

ALWAYS_INLINE Lanes lanes_round_bf16(Lanes value)
{
    return (Lanes){half_round_bf16(value.low), half_round_bf16(value.high)};
}

#endif
