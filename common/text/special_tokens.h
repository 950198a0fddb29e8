/* SpecialTokens: what the files beside tokenizer.json say about a model's tokens, put together as
 * transformers' AutoTokenizer does it (5.23: PreTrainedTokenizerBase._from_pretrained and the
 * constructors of it and of TokenizersBackend): tokens that tokenizer.json does not have, other
 * flags for those that it has, and the names under which a chat template knows some. Plain data
 * over the parsed files, which must outlive it. */
#ifndef TROUPE_TEXT_SPECIAL_TOKENS_H
#define TROUPE_TEXT_SPECIAL_TOKENS_H

#include <cjson/cJSON.h>

#include "text/tokenizer/tokenizer.h"

/* The parsed files; each but the first may be NULL: the folder has none. */
typedef struct TokenFiles {
    const char *folder;     /* for messages */
    const cJSON *tokenizer; /* tokenizer.json */
    const cJSON *config;    /* tokenizer_config.json */
    const cJSON *map;       /* special_tokens_map.json; both this and the next are read only */
    const cJSON *added;     /* added_tokens.json;       where the config lists no added tokens */
} TokenFiles;

typedef struct SpecialTokens {
    TokenizerExtras extras; /* owned, but not the strings in it */
    cJSON *named;           /* "eos_token": "</s>" and the like: an object of strings; owned */
} SpecialTokens;

/* Fails with ERR_DATA where a member is not what transformers can read. */
Status special_tokens_read(const TokenFiles *files, SpecialTokens *ret, Error *err);
void special_tokens_free(SpecialTokens *tokens);

#endif
