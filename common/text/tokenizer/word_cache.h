/* WordCache: tokens of words seen before, in a table of fixed size: a new word takes the place of
 * the old one in its slot, so memory is bounded and nothing is ever cleaned up. One per thread. An
 * entry is a cache line: words of up to 23 bytes and up to 8 tokens, which are nearly all. */
#ifndef TROUPE_TEXT_TOKENIZER_WORD_CACHE_H
#define TROUPE_TEXT_TOKENIZER_WORD_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CACHED_WORD_BYTES  23
#define CACHED_WORD_TOKENS 8

/* A word as numbers: its bytes, zeros, and its length in the last byte. */
typedef struct WordKey {
    uint64_t part[3];
} WordKey;

typedef struct CachedWord {
    WordKey key;
    uint8_t count;
    uint8_t end[CACHED_WORD_TOKENS - 1]; /* of each token but the last */
    uint32_t id[CACHED_WORD_TOKENS];
} CachedWord;

typedef struct WordCache {
    CachedWord *slot;
    size_t mask;
    void *memory;
} WordCache;

/* At most `bytes_max` bytes, at least one slot. */
WordCache *word_cache_create(size_t bytes_max);
void word_cache_destroy(WordCache *cache); /* accepts NULL */

extern const uint64_t word_key_mask[CACHED_WORD_BYTES + 1][3];

/* The key of a word of 1 to CACHED_WORD_BYTES bytes. `padded`: 24 bytes may be read. */
static inline WordKey word_key(const char *bytes, uint32_t length, bool padded)
{
    char copy[24];
    if (!padded) {
        memset(copy, 0, sizeof copy);
        memcpy(copy, bytes, length);
        bytes = copy;
    }
    WordKey key;
    memcpy(&key, bytes, sizeof key);
    const uint64_t *mask = word_key_mask[length];
    key.part[0] &= mask[0];
    key.part[1] &= mask[1];
    key.part[2] = (key.part[2] & mask[2]) | (uint64_t)length << 56;
    return key;
}

static inline CachedWord *word_cache_slot(const WordCache *cache, WordKey key)
{
    uint64_t h = key.part[0] * 0x9E3779B97F4A7C15u;
    h ^= (key.part[1] + (h >> 29)) * 0xD6E8FEB86659FD93u;
    h ^= (key.part[2] + (h >> 31)) * 0xA0761D6478BD642Fu;
    return &cache->slot[(h ^ h >> 32) & cache->mask];
}

static inline bool word_key_equal(WordKey a, WordKey b)
{
    return ((a.part[0] ^ b.part[0]) | (a.part[1] ^ b.part[1]) | (a.part[2] ^ b.part[2])) == 0;
}

#endif
