#include "text/tokenizer/word_cache.h"

#include <stdlib.h>

#include "base/memory.h"

/* The first n of eight bytes. */
#define M(n) ((n) <= 0 ? 0 : (n) >= 8 ? UINT64_MAX : ((uint64_t)1 << (8 * ((n)&7))) - 1)
#define ROW(n)                                                                                     \
    {                                                                                              \
        M(n), M((n)-8), M((n)-16)                                                                  \
    }
const uint64_t word_key_mask[CACHED_WORD_BYTES + 1][3] = {
    ROW(0),  ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
    ROW(8),  ROW(9),  ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15),
    ROW(16), ROW(17), ROW(18), ROW(19), ROW(20), ROW(21), ROW(22), ROW(23),
};

WordCache *word_cache_create(size_t bytes_max)
{
    size_t count = 1;
    while (2 * count * sizeof(CachedWord) <= bytes_max)
        count *= 2;
    WordCache *cache = mem_calloc(1, sizeof *cache);
    cache->memory = mem_calloc(count + 1, sizeof(CachedWord));
    size_t line = sizeof(CachedWord);
    cache->slot = (CachedWord *)(((uintptr_t)cache->memory + line - 1) / line * line);
    cache->mask = count - 1;
    return cache;
}

void word_cache_destroy(WordCache *cache)
{
    if (cache == NULL) return;
    free(cache->memory);
    free(cache);
}
