/* What tokenizer*.c share; nobody else includes this. */
#ifndef TROUPE_TEXT_TOKENIZER_INTERNAL_H
#define TROUPE_TEXT_TOKENIZER_INTERNAL_H

#include <cjson/cJSON.h>

#include "text/tokenizer/bpe.h"
#include "text/tokenizer/pretokenize.h"
#include "text/tokenizer/token_trie.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/unicode_table.h"
#include "text/tokenizer/vocabulary.h"

/* ---- normalizer ---- */

#define NORMALIZER_STEPS_MAX 32

typedef enum {
    NORMALIZE_NFC,
    NORMALIZE_NFKC,
    NORMALIZE_NFD,
    NORMALIZE_NFKD,
    NORMALIZE_PREPEND,
    NORMALIZE_REPLACE,
    NORMALIZE_STRIP,
    NORMALIZE_LOWERCASE,
    NORMALIZE_BYTE_LEVEL,
} NormalizeKind;

typedef struct NormalizeStep {
    NormalizeKind kind;
    Matcher matcher;  /* replace: what */
    char *text;       /* replace: by what; prepend: what */
    bool left, right; /* strip: at which ends */
} NormalizeStep;

typedef struct Normalizer {
    const UnicodeTable *table; /* borrowed */
    NormalizeStep step[NORMALIZER_STEPS_MAX];
    int count;
} Normalizer;

typedef struct NormalizeScratch {
    AlignedText text[2]; /* steps read one and write the other */
    int32_t *code_point; /* of a run being composed */
    int32_t *sorted;
    size_t capacity;
    MatchScratch match;
} NormalizeScratch;

void normalize_scratch_free(NormalizeScratch *scratch);
Status normalizer_load(Normalizer *normalizer, const cJSON *json, const UnicodeTable *table,
                       const char *where, Error *err);
void normalizer_free(Normalizer *normalizer);

/* *ret is the input itself where nothing changes, or a view into `scratch`. */
Status normalize(const Normalizer *normalizer, NormalizeScratch *scratch, const TextView *text,
                 TextView *ret, Error *err);

/* ---- added tokens ---- */

typedef struct AddedToken {
    char *content;
    char *pattern; /* what is looked for: the content, normalized if `normalized` */
    uint32_t pattern_length;
    char *spelling; /* what it is decoded as; NULL: the pattern */
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} AddedToken;

typedef struct AddedTokens {
    AddedToken *token;
    uint32_t count;
    Vocabulary name; /* content -> index into token */
    uint32_t *by_id; /* [id_count] index into token, or TOKEN_NONE */
    uint32_t id_count;
    bool splits_special;  /* special tokens match nowhere */
    TokenTrie raw;        /* looked for in the input */
    TokenTrie normalized; /* looked for in normalized text */
} AddedTokens;

/* First the list of tokenizer.json, then perhaps what other files add to it, then the index. */
Status added_tokens_load(AddedTokens *added, const cJSON *list, const Vocabulary *vocabulary,
                         const Normalizer *normalizer, const char *where, Error *err);
Status added_tokens_extend(AddedTokens *added, const TokenizerExtras *extras,
                           const Vocabulary *vocabulary, const Normalizer *normalizer,
                           const char *where, Error *err);
Status added_tokens_index(AddedTokens *added, const char *where, Error *err);
void added_tokens_free(AddedTokens *added);
const AddedToken *added_token_of(const AddedTokens *added, uint32_t id); /* NULL if none */
uint32_t added_token_id(const AddedTokens *added, const char *content);  /* TOKEN_NONE */
bool added_token_is_special(const AddedTokens *added, const char *content);

/* A piece of text between added tokens (token NULL), or one of them. */
typedef Status (*SegmentSink)(void *context, const TextView *text, const AddedToken *token,
                              Error *err);

/* What is looked for, where it may match, and what was withheld (NULL: nobody counts). */
typedef struct AddedSearch {
    const AddedTokens *added;
    bool in_normalized; /* for the tokens that are looked for in normalized text */
    const UnicodeTable *table;
    const SpecialRanges *special; /* NULL: tokens match everywhere */
    Withheld *withheld;
    TokenSites *sites; /* memory of this search alone */
} AddedSearch;

/* Cuts `text` at the tokens that it spells. */
Status added_tokens_split(const AddedSearch *search, const TextView *text, SegmentSink sink,
                          void *context, Error *err);

/* ---- post-processor ---- */

/* Ids put before and behind an encoding. */
typedef struct PostProcessor {
    uint32_t *before, *behind;
    size_t before_count, behind_count;
} PostProcessor;

Status postprocessor_load(PostProcessor *post, const cJSON *json, const char *where, Error *err);
void postprocessor_free(PostProcessor *post);

/* ---- decoder ---- */

#define DECODER_STEPS_MAX 32

typedef enum {
    DECODE_BYTE_LEVEL,
    DECODE_FUSE,
    DECODE_REPLACE,
    DECODE_BYTE_FALLBACK,
    DECODE_STRIP,
    DECODE_METASPACE,
    DECODE_BPE_SUFFIX,
} DecodeKind;

typedef struct DecodeStep {
    DecodeKind kind;
    Matcher matcher;       /* replace: what */
    char *text;            /* replace: by what; BPE suffix: the suffix */
    char character[5];     /* strip, metaspace */
    uint32_t left, right;  /* strip: how many at most */
    bool drop_first_space; /* metaspace: the first token loses its replacements */
} DecodeStep;

typedef struct Decoder {
    DecodeStep step[DECODER_STEPS_MAX];
    int count;
    bool present; /* without a decoder, tokens are joined by spaces */
} Decoder;

Status decoder_load(Decoder *decoder, const cJSON *json, const UnicodeTable *table,
                    const char *where, Error *err);
void decoder_free(Decoder *decoder);

struct Tokenizer {
    const UnicodeTable *table;
    UnicodeTable *own_table; /* the same, or NULL if it is somebody else's */
    Normalizer normalizer;
    PreTokenizer pretokenizer;
    Bpe bpe;
    AddedTokens added;
    PostProcessor post;
    Decoder decoder;
    uint32_t vocab_size;
};

struct TokenizerCache {
    NormalizeScratch normalize;
    PreTokenizeScratch pretokenize;
    BpeScratch bpe;
    TokenSites raw, normalized; /* of the searches for added tokens */
};

/* As tokenizer_parse, with a table that the caller keeps: a fuzzer loads many files. */
Status tokenizer_parse_with(const char *json, size_t length, const char *where,
                            const UnicodeTable *table, Tokenizer **ret, Error *err);

#endif
