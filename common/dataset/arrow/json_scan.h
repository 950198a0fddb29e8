/* Plain stretches of texts that become JSON strings, sixteen bytes at a time where there is SSE2:
 * what writing rows as JSON spends its time on. Pure. */
#ifndef TROUPE_DATASET_ARROW_JSON_SCAN_H
#define TROUPE_DATASET_ARROW_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static inline bool json_is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\';
}

#if defined(__SSE2__)
/* A bit for each of sixteen bytes that does not stand for itself. */
static inline unsigned json_special_bytes(__m128i chunk)
{
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i last_control = _mm_set1_epi8(0x1F);
    __m128i control = _mm_cmpeq_epi8(_mm_max_epu8(chunk, last_control), last_control);
    __m128i other = _mm_or_si128(_mm_cmpeq_epi8(chunk, quote), _mm_cmpeq_epi8(chunk, backslash));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(control, other));
}
#endif

/* Copies the bytes that stand for themselves in a JSON string: up to the first quote, backslash or
 * control character, whose place it returns, or `length`. One look at each, as texts are larger
 * than the processor's nearest caches. `out` has room for `length`; what is behind the place is
 * written over. */
static inline size_t json_copy_plain(char *out, const char *bytes, size_t length)
{
    size_t at = 0;
#if defined(__SSE2__)
    for (; at + 16 <= length; at += 16) {
        __m128i chunk = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
        _mm_storeu_si128((__m128i *)(void *)(out + at), chunk);
        unsigned found = json_special_bytes(chunk);
        if (found != 0) return at + (size_t)__builtin_ctz(found);
    }
#endif
    for (; at < length && json_is_plain((unsigned char)bytes[at]); at++)
        out[at] = bytes[at];
    return at;
}

#endif
