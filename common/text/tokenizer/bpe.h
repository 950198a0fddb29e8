/* Bpe: byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909) as tokenizer.json
 * describes it: merges in order of rank, leftmost first among equals. Words are bytes (byte level)
 * or characters. Const once loaded; encoding needs a BpeScratch per thread. */
#ifndef TROUPE_TEXT_TOKENIZER_BPE_H
#define TROUPE_TEXT_TOKENIZER_BPE_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/str.h"
#include "text/aligned_text.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/vocabulary.h"
#include "text/tokenizer/word_cache.h"

#define BPE_MERGES_MAX ((1u << 24) - 1)
#define BPE_PAGES      (0x110000u / 256)

typedef struct Bpe {
    Vocabulary spelled; /* tokens as the file spells them */
    Vocabulary raw;     /* byte level: tokens as the bytes that they stand for; else empty */
    bool byte_level, ignore_merges, byte_fallback, fuse_unk;
    char *prefix, *suffix;     /* continuing_subword_prefix, end_of_word_suffix; NULL if none */
    char *unk_token;           /* NULL if none */
    uint32_t unk_id;           /* TOKEN_NONE if none */
    uint32_t byte_id[256];     /* byte level: the token of a byte alone, or TOKEN_NONE */
    uint32_t fallback_id[256]; /* <0xNN>, or TOKEN_NONE */
    bool all_bytes_known;      /* byte level, and no byte_id is TOKEN_NONE */

    /* Merges. The pair table is open addressing over 8-byte slots (see bpe_internal.h). */
    uint64_t *pair;
    uint32_t pair_shift; /* 64 - log2 of the number of slots */
    uint64_t *filter; /* a bit for each pair's hash: most pairs are no merge, and this is smaller */
    uint32_t filter_shift;
    uint32_t merge_count;
    uint32_t *left, *right, *merged; /* [merge_count] operands and result of the merge of a rank */
    /* No merge makes a pair of a lower rank than its own: all merges of a rank may be done at once.
     */
    bool ranks_in_order;

    /* Byte level: what a word may begin with instead of bytes, with the same result. */
    uint64_t *whole; /* bit per id: the token's own bytes encode to that token alone */
    uint32_t *char_page[BPE_PAGES]; /* [256] token of a character, or TOKEN_NONE; NULL: none on the
                                       page */
    uint32_t longest;               /* bytes of the longest token */

    /* Not byte level: no token goes on with U+2581 behind another character, so that words may be
     * cut there. Empty: they may not. */
    char cut[4];
} Bpe;

/* A symbol of a word being merged: a token and the bytes of the word that it covers. */
typedef struct BpeSymbol {
    uint32_t id, begin, end;
    uint32_t previous, next; /* indices of the neighbours; UINT32_MAX: none */
} BpeSymbol;

/* A word whose place in the cache is on its way from memory. */
typedef struct PendingWord {
    TextView word;
    WordKey key;
    CachedWord *slot; /* NULL: too long for the cache */
} PendingWord;

#define BPE_BATCH 16

typedef struct BpeScratch {
    BpeSymbol *symbol;
    size_t symbol_capacity;
    uint64_t *heap; /* rank << 32 | index of the left symbol; or ranks alone */
    size_t heap_capacity;
    /* Places where a rank may be merged, a list for each rank. */
    uint32_t *list_head, *list_tail; /* [merge_count], or NULL */
    uint32_t *node_place, *node_next;
    size_t node_capacity;
    uint32_t *sorted;
    size_t sorted_capacity;
    Str unit;
    WordCache *cache; /* NULL: none */
    PendingWord pending[BPE_BATCH];
    int pending_count;
    /* The text that words are cut from: reading a little beyond a word is safe inside it. */
    const char *text_begin, *text_end;
} BpeScratch;

void bpe_scratch_free(BpeScratch *scratch);

/* Loads the "model" object; `byte_level` says that words will be raw bytes. */
Status bpe_load(Bpe *bpe, const cJSON *model, bool byte_level, const char *where, Error *err);
void bpe_free(Bpe *bpe);

/* Appends the tokens of one word. */
Status bpe_encode(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                  Error *err);

/* The same in batches, which hides the wait for memory: words are encoded in order, by bpe_flush at
 * the latest, and must stay where they are until then. */
Status bpe_push(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                Error *err);
Status bpe_flush(const Bpe *bpe, BpeScratch *scratch, Encoding *encoding, Error *err);

void encoding_grow(Encoding *encoding); /* room for one more */

static inline void encoding_append(Encoding *encoding, uint32_t id, ByteOrigin origin)
{
    if (encoding->length == encoding->capacity) encoding_grow(encoding);
    encoding->span[encoding->length++] = (TokenSpan){(int32_t)id, origin.begin, origin.end};
}

/* GPT-2's spelling of bytes as printable characters: byte -> code point (below 0x180), and back. */
uint32_t byte_level_char(unsigned char byte);
int byte_level_byte(uint32_t code_point); /* -1: not a character of that alphabet */

#endif
