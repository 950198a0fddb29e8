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

/* How many bytes from `bytes` on stand for themselves in a JSON string: up to the first quote,
 * backslash or control character. */
static inline size_t json_plain_length(const char *bytes, size_t length)
{
    size_t at = 0;
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i last_control = _mm_set1_epi8(0x1F);
    for (; at + 16 <= length; at += 16) {
        __m128i chunk = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
        __m128i control = _mm_cmpeq_epi8(_mm_max_epu8(chunk, last_control), last_control);
        __m128i other =
            _mm_or_si128(_mm_cmpeq_epi8(chunk, quote), _mm_cmpeq_epi8(chunk, backslash));
        unsigned found = (unsigned)_mm_movemask_epi8(_mm_or_si128(control, other));
        if (found != 0) return at + (size_t)__builtin_ctz(found);
    }
#endif
    while (at < length && json_is_plain((unsigned char)bytes[at]))
        at++;
    return at;
}

#endif
