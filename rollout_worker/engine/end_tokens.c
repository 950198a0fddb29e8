#include "rollout_worker/engine/end_tokens.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

typedef struct Source {
    const char *path;
    int64_t vocab_size;
} Source;

static Status add_id(const Source *source, const cJSON *value, EndTokens *tokens, Error *err)
{
    if (!cJSON_IsNumber(value))
        return error_set(err, ERR_INVALID,
                         "%s: eos_token_id holds %s, expected an id or a list of ids", source->path,
                         json_type_name(value));
    double id = value->valuedouble;
    if (!(id >= 0.0 && id < (double)source->vocab_size) || id != (double)(int64_t)id)
        return error_set(err, ERR_INVALID, "%s: eos_token_id %g is not one of the ids 0 to %lld",
                         source->path, id, (long long)source->vocab_size - 1);
    for (int i = 0; i < tokens->count; i++)
        if (tokens->id[i] == (int32_t)id) return OK;
    if (tokens->count == END_TOKENS_MAX)
        return error_set(err, ERR_INVALID, "%s: eos_token_id has more than %d ids", source->path,
                         END_TOKENS_MAX);
    tokens->id[tokens->count++] = (int32_t)id;
    return OK;
}

static Status read_json(const Source *source, const cJSON *json, EndTokens *tokens, Error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id"), *item;
    if (value == NULL || cJSON_IsNull(value)) return OK;
    if (!cJSON_IsArray(value)) return add_id(source, value, tokens, err);
    cJSON_ArrayForEach(item, value) TRY(add_id(source, item, tokens, err));
    return OK;
}

static Status read_file(const char *path, int64_t vocab_size, EndTokens *tokens, Error *err)
{
    cJSON *json = NULL;
    Source source = {path, vocab_size};
    TRY(json_read(path, CONFIG_BYTES_MAX, &json, err));
    Status status = read_json(&source, json, tokens, err);
    cJSON_Delete(json);
    return status;
}

Status end_tokens_read_file(const char *path, int64_t vocab_size, EndTokens *ret, Error *err)
{
    EndTokens tokens = {.count = 0};
    TRY(read_file(path, vocab_size, &tokens, err));
    *ret = tokens;
    return OK;
}

Status end_tokens_read(const char *folder, int64_t vocab_size, EndTokens *ret, Error *err)
{
    const char *const names[] = {"generation_config.json", "config.json"};
    EndTokens tokens = {.count = 0};
    Status status = OK;
    for (int i = 0; status == OK && tokens.count == 0 && i < 2; i++) {
        char *path = path_join(folder, names[i]);
        if (i > 0 || path_exists(path)) status = read_file(path, vocab_size, &tokens, err);
        free(path);
    }
    if (status == OK) *ret = tokens;
    return status;
}
