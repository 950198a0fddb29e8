/* Tokenizer: Hugging Face's tokenizer.json, giving exactly the ids that the `tokenizers` package
 * gives. Loaded once, then const: encode and decode may be called by any number of threads at once,
 * each with its own TokenizerCache. What a file uses and this build does not know is refused by
 * name at load, never guessed.
 *
 * In one case ids are not the package's (0.23.3): where the normalizer puts something before the
 * first character in the place of nothing (a Replace of "^") and ByteLevel follows, the package
 * spells it and leaves it unspelled beside it, or panics where nothing cuts it off. Here it is
 * spelled. */
#ifndef TROUPE_TEXT_TOKENIZER_TOKENIZER_H
#define TROUPE_TEXT_TOKENIZER_TOKENIZER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct Tokenizer Tokenizer;
typedef struct TokenizerCache TokenizerCache; /* words seen before; bounded; one per thread */

/* Loads `path`: a tokenizer.json, or a folder that holds one. */
Status tokenizer_load(const char *path, Tokenizer **ret, Error *err);

/* The same from memory; `where` names the document in messages. */
Status tokenizer_parse(const char *json, size_t length, const char *where, Tokenizer **ret,
                       Error *err);

/* A token that other files than tokenizer.json speak of: a new one, or one that it has with other
 * flags. */
typedef struct ExtraToken {
    const char *content;
    int64_t id; /* as that file states it; -1: it states none */
    bool single_word, lstrip, rstrip, normalized, special;
    bool says_normalized; /* false: `normalized` is no more than what follows from `special` */
} ExtraToken;

typedef struct TokenizerExtras {
    ExtraToken *token; /* [count] added behind those of tokenizer.json, in this order */
    size_t count;
    bool splits_special; /* special tokens match nowhere: their text is text */
} TokenizerExtras;

/* The same from a parsed document, with tokens beside it (NULL: none). A new token gets the next
 * id, as by the package; one that states another is refused. */
Status tokenizer_build(const cJSON *json, const char *where, const TokenizerExtras *extras,
                       Tokenizer **ret, Error *err);
void tokenizer_destroy(Tokenizer *tokenizer); /* accepts NULL */

/* A thread's working memory and its table of words seen before, of at most `bytes_max` bytes: 4 MiB
 * do for most text, and more than the processor's caches hold makes it slower. */
TokenizerCache *tokenizer_cache_create(const Tokenizer *tokenizer, size_t bytes_max);
void tokenizer_cache_destroy(TokenizerCache *cache);

/* 1 + the largest id, added tokens included. */
int32_t tokenizer_vocab_size(const Tokenizer *tokenizer);
int32_t tokenizer_token_id(const Tokenizer *tokenizer, const char *token); /* -1 if unknown */
/* The token as the vocabulary spells it; NULL for an id without one. Borrowed. */
const char *tokenizer_id_token(const Tokenizer *tokenizer, int32_t id);

/* What an id stands for: text, an added token such as "<think>", or one flagged special, which
 * controls the model ("<|im_end|>"). */
typedef enum { TOKEN_KIND_TEXT, TOKEN_KIND_ADDED, TOKEN_KIND_CONTROL } TokenKind;
TokenKind tokenizer_id_kind(const Tokenizer *tokenizer, int32_t id);

/* A token of an encoding: its id and the bytes [begin, end) of the input that it covers. */
typedef struct TokenSpan {
    int32_t id;
    uint32_t begin, end;
} TokenSpan;

/* Special tokens that the text spells where SpecialRanges keep them from matching. */
typedef struct Withheld {
    size_t count;
    TokenSpan first;
} Withheld;

typedef struct Encoding {
    TokenSpan *span;
    size_t length, capacity;
    Withheld withheld; /* counted only with `added_anywhere` */
} Encoding;

void encoding_free(Encoding *encoding);

/* Where added tokens may be recognised in the input: all of it (NULL), or only inside these byte
 * ranges, sorted and disjoint. Text from users and tools is left out of them, so that "<|im_end|>"
 * typed by a user is text and not a control token. With `added_anywhere` the ranges hold for
 * special tokens alone: others ("<think>", Gemma's runs of newlines) are part of how a vocabulary
 * spells text, and match wherever the package matches them. */
typedef struct SpecialRanges {
    const uint32_t (*range)[2];
    size_t count;
    bool added_anywhere;
} SpecialRanges;

/* Appends the ids of `length` bytes of UTF-8 to *encoding (zero-initialise it first). `cache` may
 * be NULL. `add_special_tokens` runs the post-processor (BOS and the like), as the package's encode
 * does. Text that is not UTF-8, or longer than 2 GiB, is ERR_DATA. */
Status tokenizer_encode(const Tokenizer *tokenizer, TokenizerCache *cache, const char *text,
                        size_t length, const SpecialRanges *special, bool add_special_tokens,
                        Encoding *encoding, Error *err);

/* The text of ids, as the package's decode: *ret_text is owned by the caller and NUL-terminated. */
Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special_tokens, char **ret_text, size_t *ret_length, Error *err);

/* Decodes ids one by one, as a model makes them: each step gives the text that has become certain,
 * never half a character, and all steps together give what tokenizer_decode gives for all ids. Not
 * shared between threads; borrows the tokenizer. */
typedef struct DecodeStream DecodeStream;

DecodeStream *decode_stream_create(const Tokenizer *tokenizer, bool skip_special_tokens);
void decode_stream_destroy(DecodeStream *stream); /* accepts NULL */

/* *ret_text is owned by the caller and NUL-terminated; empty while a character is incomplete. */
Status decode_stream_step(DecodeStream *stream, int32_t id, char **ret_text, size_t *ret_length,
                          Error *err);

/* What is left at the end: U+FFFD for bytes that never became a character. */
Status decode_stream_finish(DecodeStream *stream, char **ret_text, size_t *ret_length, Error *err);

#endif
