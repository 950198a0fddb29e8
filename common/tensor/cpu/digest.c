/* Digest and copy take turns, a piece at a time: the copy finds in the cache what the digest has
 * read from memory, and writes past it, so that no line is read only to be overwritten. */
#define XXH_INLINE_ALL /* one copy per instruction set */
#include <xxhash.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/vector.h"
#include "tensor/digest.h"

#define PIECE DIGEST_PIECE

#if defined(__AVX512F__)
#define LINE_STORES 1
typedef __m512i Store;
#define store_load(from)     _mm512_loadu_si512(from)
#define store_out(to, value) _mm512_stream_si512((void *)(to), value)
#define stores_done()        _mm_sfence()
#elif defined(__AVX2__)
#define LINE_STORES          2
typedef __m256i Store;
#define store_load(from)     _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define store_out(to, value) _mm256_stream_si256((__m256i *)(void *)(to), value)
#define stores_done()        _mm_sfence()
#elif defined(__SSE2__)
#include <emmintrin.h>
#define LINE_STORES          4
typedef __m128i Store;
#define store_load(from)     _mm_loadu_si128((const __m128i *)(const void *)(from))
#define store_out(to, value) _mm_stream_si128((__m128i *)(void *)(to), value)
#define stores_done()        _mm_sfence()
#endif

#define LINE 64 /* bytes that go out together */

/* As memcpy. */
static void copy_piece(char *to, const char *from, size_t bytes)
{
    size_t at = 0;
#ifdef LINE_STORES
    if ((uintptr_t)to % LINE == 0)
        for (; at + LINE <= bytes; at += LINE) {
            Store part[LINE_STORES];
            for (size_t i = 0; i < LINE_STORES; i++)
                part[i] = store_load(from + at + i * sizeof(Store));
            for (size_t i = 0; i < LINE_STORES; i++)
                store_out(to + at + i * sizeof(Store), part[i]);
        }
#endif
    memcpy(to + at, from + at, bytes - at);
}

/* Of up to a piece; what a short one lacks are zeros. */
static uint64_t digest_piece(const void *from, size_t bytes)
{
    char padded[PIECE];
    if (bytes == PIECE) return XXH3_64bits(from, PIECE);
    memcpy(padded, from, bytes);
    memset(padded + bytes, 0, PIECE - bytes);
    return XXH3_64bits(padded, PIECE);
}

static void add_piece(XXH3_state_t *state, const void *from, size_t bytes)
{
    uint64_t digest = digest_piece(from, bytes);
    XXH3_64bits_update(state, &digest, sizeof digest);
}

static uint64_t finish(XXH3_state_t *state, size_t bytes)
{
    uint64_t length = bytes;
    XXH3_64bits_update(state, &length, sizeof length);
    return XXH3_64bits_digest(state);
}

static size_t piece_at(size_t at, size_t bytes)
{
    return bytes - at < PIECE ? bytes - at : PIECE;
}

uint64_t cpu_digest_copy(void *to, const void *from, size_t bytes)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    for (size_t at = 0, piece; at < bytes; at += piece) {
        piece = piece_at(at, bytes);
        add_piece(&state, (const char *)from + at, piece);
        if (to != NULL) copy_piece((char *)to + at, (const char *)from + at, piece);
    }
#ifdef LINE_STORES
    if (to != NULL) stores_done(); /* what follows is seen after the copy */
#endif
    return finish(&state, bytes);
}

/* The other way round: each piece is copied first, and what is digested is read where it was
 * written to, while it is still in the cache. */
uint64_t cpu_copy_digest(void *to, const void *from, size_t bytes)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    for (size_t at = 0, piece; at < bytes; at += piece) {
        piece = piece_at(at, bytes);
        memcpy((char *)to + at, (const char *)from + at, piece);
        __asm__ volatile("" ::: "memory"); /* what was written is read, not what was copied */
        add_piece(&state, (char *)to + at, piece);
    }
    return finish(&state, bytes);
}

void cpu_digest_pieces(uint64_t *digest, const void *x, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PIECE)
        *digest++ = digest_piece((const char *)x + at, piece_at(at, bytes));
}

uint64_t cpu_digest_join(const uint64_t *digest, size_t bytes)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, digest, digest_num_pieces(bytes) * sizeof *digest);
    return finish(&state, bytes);
}
