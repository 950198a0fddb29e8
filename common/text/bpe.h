/* Bpe: byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909) as tokenizer.json
 * describes it: merges in order of rank, leftmost first among equals. Words are bytes (byte level)
 * or characters. Const once loaded; encoding needs a BpeScratch per thread. */
#ifndef TROUPE_TEXT_BPE_H
#define TROUPE_TEXT_BPE_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/str.h"
#include "text/aligned_text.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

#define BPE_MERGES_MAX ((1u << 24) - 1)

typedef struct Bpe {
    Vocabulary spelled; /* tokens as the file spells them */
    /* Byte level: tokens as the bytes that they stand for; every word is raw bytes. Else unused. */
    Vocabulary raw;
    bool byte_level, ignore_merges, byte_fallback, fuse_unk;
    char *prefix, *suffix;     /* continuing_subword_prefix, end_of_word_suffix; NULL if none */
    char *unk_token;           /* NULL if none */
    uint32_t unk_id;           /* TOKEN_NONE if none */
    uint32_t byte_id[256];     /* byte level: the token of a byte alone, or TOKEN_NONE */
    uint32_t fallback_id[256]; /* <0xNN>, or TOKEN_NONE */
    bool all_bytes_known;      /* byte level, and no byte_id is TOKEN_NONE */
    uint64_t *pair;            /* merge table: see bpe.c */
    uint32_t pair_shift;       /* 64 - log2 of the number of slots */
    uint32_t *merged;          /* [merge_count] token made by the merge of a rank */
    uint32_t merge_count;
} Bpe;

/* A symbol of a word being merged: a token and the bytes of the word that it covers. */
typedef struct BpeSymbol {
    uint32_t id, begin, end;
    uint32_t previous, next; /* indices of the neighbours; UINT32_MAX: none */
} BpeSymbol;

typedef struct BpeScratch {
    BpeSymbol *symbol;
    size_t symbol_capacity;
    uint64_t *heap; /* rank << 32 | index of the left symbol */
    size_t heap_capacity;
    Str unit;
} BpeScratch;

void bpe_scratch_free(BpeScratch *scratch);

/* Loads the "model" object; `byte_level` says that words will be raw bytes. */
Status bpe_load(Bpe *bpe, const cJSON *model, bool byte_level, const char *where, Error *err);
void bpe_free(Bpe *bpe);

/* Appends the tokens of one word. */
Status bpe_encode(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                  Error *err);

void encoding_append(Encoding *encoding, uint32_t id, ByteOrigin origin);

/* GPT-2's spelling of bytes as printable characters: byte -> code point (below 0x180), and back. */
uint32_t byte_level_char(unsigned char byte);
int byte_level_byte(uint32_t code_point); /* -1: not a character of that alphabet */

#endif
