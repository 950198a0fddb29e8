/* What bpe*.c share; nobody else includes this. */
#ifndef TROUPE_TEXT_TOKENIZER_BPE_INTERNAL_H
#define TROUPE_TEXT_TOKENIZER_BPE_INTERNAL_H

#include "text/tokenizer/bpe.h"

/* The merge table's slots: left id (20 bits) | right id (20) | rank (24), so that a vocabulary of
 * 150,000 needs 2 MiB. */
#define PAIR_EMPTY UINT64_MAX
#define RANK_BITS  24
#define RANK_NONE  UINT32_MAX

static inline uint64_t pair_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 20 | right;
}

static inline uint64_t pair_hash(uint64_t key)
{
    return key * 0x9E3779B97F4A7C15u;
}

static inline uint32_t pair_rank(const Bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t key = pair_key(left, right), hash = pair_hash(key);
    size_t bit = (size_t)(hash >> bpe->filter_shift);
    if (!(bpe->filter[bit / 64] >> (bit % 64) & 1)) return RANK_NONE;
    size_t mask = ((size_t)1 << (64 - bpe->pair_shift)) - 1;
    for (size_t at = (size_t)(hash >> bpe->pair_shift);; at = (at + 1) & mask) {
        uint64_t slot = bpe->pair[at];
        if (slot >> RANK_BITS == key) return (uint32_t)slot & ((1u << RANK_BITS) - 1);
        if (slot == PAIR_EMPTY) return RANK_NONE;
    }
}

/* Merges of at most BPE_SHORT symbols go through plain arrays. */
#define BPE_SHORT 64

typedef struct ShortWord {
    uint32_t id[BPE_SHORT];
    uint32_t end[BPE_SHORT]; /* bytes of the word up to the end of each symbol */
    uint32_t rank[BPE_SHORT];
    uint32_t count;
} ShortWord;

/* Merges in place; *ret_last_rank, if not NULL, becomes the highest rank merged (0 if none). */
void merge_short(const Bpe *bpe, ShortWord *word, uint32_t *ret_last_rank);

/* Merges scratch->symbol[0..count) in place; symbols that are gone have id TOKEN_NONE. */
void merge_long(const Bpe *bpe, BpeScratch *scratch, size_t count);

#endif
