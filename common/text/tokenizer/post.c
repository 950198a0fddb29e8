/* Post-processors: which ids stand before and behind a single text. Type ids, pairs of texts and
 * offsets, which they also describe, are not used here. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/tokenizer/internal.h"

#define POST_IDS_MAX 1024

static Status push_id(uint32_t **ids, size_t *count, const cJSON *json, const char *where,
                      Error *err)
{
    double id = cJSON_IsNumber(json) ? json->valuedouble : -1;
    if (!(id >= 0 && id < TOKEN_IDS_MAX) || id != (uint32_t)id)
        return error_set(err, ERR_DATA,
                         "%s: a special token's id is not a whole number from 0 to %u", where,
                         TOKEN_IDS_MAX - 1);
    if (*count == POST_IDS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %d special tokens", where,
                         POST_IDS_MAX);
    *ids = mem_realloc(*ids, *count + 1, sizeof **ids);
    (*ids)[(*count)++] = (uint32_t)id;
    return OK;
}

/* The ids of a template's special token, as its table has them. */
static Status push_special(uint32_t **ids, size_t *count, const cJSON *table, const cJSON *piece,
                           const char *where, Error *err)
{
    const char *name = NULL;
    TRY(json_string(piece, "id", where, &name, err));
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(table, name);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(entry, "ids");
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: special_tokens has no ids for \"%.100s\"", where,
                         name);
    const cJSON *id;
    cJSON_ArrayForEach(id, list) TRY(push_id(ids, count, id, where, err));
    return OK;
}

/* Puts new ids around those that are there: of two post-processors the second stands outside. */
static void wrap(PostProcessor *post, PostProcessor *outer)
{
    size_t before = post->before_count + outer->before_count;
    outer->before = mem_realloc(outer->before, before + 1, sizeof *outer->before);
    if (post->before_count > 0)
        memcpy(outer->before + outer->before_count, post->before,
               post->before_count * sizeof *post->before);
    free(post->before);
    post->before = outer->before;
    post->before_count = before;
    size_t behind = post->behind_count + outer->behind_count;
    post->behind = mem_realloc(post->behind, behind + 1, sizeof *post->behind);
    if (outer->behind_count > 0)
        memcpy(post->behind + post->behind_count, outer->behind,
               outer->behind_count * sizeof *outer->behind);
    post->behind_count = behind;
    free(outer->behind);
    *outer = (PostProcessor){0};
}

static Status read_template(PostProcessor *outer, const cJSON *json, const char *where, Error *err)
{
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(json, "single");
    const cJSON *table = cJSON_GetObjectItemCaseSensitive(json, "special_tokens");
    if (!cJSON_IsArray(single))
        return error_set(err, ERR_DATA, "%s: single is %s, expected a list", where,
                         json_type_name(single));
    bool has_text = false;
    const cJSON *item;
    cJSON_ArrayForEach(item, single)
    {
        const cJSON *sequence = cJSON_GetObjectItemCaseSensitive(item, "Sequence");
        const cJSON *special = cJSON_GetObjectItemCaseSensitive(item, "SpecialToken");
        if (cJSON_IsObject(sequence)) {
            const char *id = NULL;
            TRY(json_string(sequence, "id", where, &id, err));
            if (has_text || strcmp(id, "A") != 0)
                return error_set(err, ERR_UNSUPPORTED, "%s: single holds other than one sequence A",
                                 where);
            has_text = true;
        } else if (!cJSON_IsObject(special)) {
            return error_set(err, ERR_DATA, "%s: single holds neither Sequence nor SpecialToken",
                             where);
        } else if (has_text) {
            TRY(push_special(&outer->behind, &outer->behind_count, table, special, where, err));
        } else {
            TRY(push_special(&outer->before, &outer->before_count, table, special, where, err));
        }
    }
    if (!has_text)
        return error_set(err, ERR_UNSUPPORTED, "%s: single does not hold the text", where);
    return OK;
}

/* Roberta and Bert: ["<s>", 0] before, ["</s>", 2] behind. */
static Status read_pair(PostProcessor *outer, const cJSON *json, const char *where, Error *err)
{
    const cJSON *cls = cJSON_GetObjectItemCaseSensitive(json, "cls");
    const cJSON *sep = cJSON_GetObjectItemCaseSensitive(json, "sep");
    TRY(push_id(&outer->before, &outer->before_count, cJSON_GetArrayItem(cls, 1), where, err));
    return push_id(&outer->behind, &outer->behind_count, cJSON_GetArrayItem(sep, 1), where, err);
}

static Status load_value(PostProcessor *post, const cJSON *json, const char *where, Error *err)
{
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    if (strcmp(type, "ByteLevel") == 0) return OK; /* trims offsets; ids stay as they are */
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "processors"), *item;
        if (!cJSON_IsArray(list))
            return error_set(err, ERR_DATA, "%s: processors is %s, expected a list", where,
                             json_type_name(list));
        cJSON_ArrayForEach(item, list) TRY(load_value(post, item, where, err));
        return OK;
    }
    PostProcessor outer = {0};
    Status status;
    if (strcmp(type, "TemplateProcessing") == 0)
        status = read_template(&outer, json, where, err);
    else if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        status = read_pair(&outer, json, where, err);
    else
        status = error_set(err, ERR_UNSUPPORTED,
                           "%s: post-processor \"%.100s\" is unknown; known: ByteLevel, "
                           "TemplateProcessing, RobertaProcessing, BertProcessing, Sequence",
                           where, type);
    size_t total =
        post->before_count + post->behind_count + outer.before_count + outer.behind_count;
    if (status == OK && total > POST_IDS_MAX)
        status =
            error_set(err, ERR_UNSUPPORTED, "%s: more than %d special tokens", where, POST_IDS_MAX);
    if (status == OK) wrap(post, &outer);
    postprocessor_free(&outer);
    return status;
}

Status postprocessor_load(PostProcessor *post, const cJSON *json, const char *where, Error *err)
{
    if (json == NULL || cJSON_IsNull(json)) return OK;
    return load_value(post, json, where, err);
}

void postprocessor_free(PostProcessor *post)
{
    free(post->before);
    free(post->behind);
    *post = (PostProcessor){0};
}
