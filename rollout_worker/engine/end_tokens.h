/* The ids with which a model ends what it says, as its folder tells: eos_token_id of
 * generation_config.json (a number or a list: chat models end a turn with another token than a
 * text), else of config.json. Nothing else of generation_config.json is ever used. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_END_TOKENS_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_END_TOKENS_H

#include <stdint.h>

#include "base/error.h"

#define END_TOKENS_MAX 64

typedef struct EndTokens {
    int32_t id[END_TOKENS_MAX];
    int count; /* 0: the folder names none */
} EndTokens;

/* ERR_DATA or ERR_INVALID with file and key where it is neither id, list of ids nor null, or an id
 * is not of the vocabulary. */
Status end_tokens_read(const char *folder, int64_t vocab_size, EndTokens *ret, Error *err);

/* The same of one file, such as a config.json that lies elsewhere. */
Status end_tokens_read_file(const char *path, int64_t vocab_size, EndTokens *ret, Error *err);

#endif
