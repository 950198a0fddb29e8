/* From tokenizer.json to a Tokenizer. "truncation" and "padding" are settings of the package, which
 * transformers resets before it encodes; they are not read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "text/tokenizer/internal.h"

static Status check_version(const cJSON *json, const char *where, Error *err)
{
    const char *version = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected a tokenizer.json object", where,
                         json_type_name(json));
    TRY(json_string_or(json, "version", where, &version, err));
    if (version != NULL && strcmp(version, "1.0") != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: version is \"%.100s\", expected \"1.0\"", where,
                         version);
    return OK;
}

static Status load_model(Tokenizer *tokenizer, const cJSON *json, const char *where, Error *err)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    if (!cJSON_IsObject(model))
        return error_set(err, ERR_DATA, "%s: model is %s, expected an object", where,
                         json_type_name(model));
    const char *type = "BPE"; /* old files leave it out */
    TRY(json_string_or(model, "type", where, &type, err));
    if (strcmp(type, "BPE") != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: model \"%.100s\" is unknown; known: BPE", where,
                         type);
    bool bytes = pretokenizer_ends_in_bytes(&tokenizer->pretokenizer);
    TRY(bpe_load(&tokenizer->bpe, model, bytes, where, err));
    if (tokenizer->bpe.byte_level) pretokenizer_drop_bytes(&tokenizer->pretokenizer);
    return OK;
}

static Status load_parts(Tokenizer *tokenizer, const cJSON *json, const char *where,
                         const TokenizerExtras *extras, Error *err)
{
    char place[512];
    TRY(check_version(json, where, err));
    snprintf(place, sizeof place, "%.400s: normalizer", where);
    TRY(normalizer_load(&tokenizer->normalizer,
                        cJSON_GetObjectItemCaseSensitive(json, "normalizer"), tokenizer->table,
                        place, err));
    snprintf(place, sizeof place, "%.400s: pre_tokenizer", where);
    TRY(pretokenizer_load(&tokenizer->pretokenizer,
                          cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer"), tokenizer->table,
                          place, err));
    TRY(load_model(tokenizer, json, where, err));
    TRY(added_tokens_load(&tokenizer->added, cJSON_GetObjectItemCaseSensitive(json, "added_tokens"),
                          &tokenizer->bpe.spelled, &tokenizer->normalizer, where, err));
    if (extras != NULL)
        TRY(added_tokens_extend(&tokenizer->added, extras, &tokenizer->bpe.spelled,
                                &tokenizer->normalizer, where, err));
    TRY(added_tokens_index(&tokenizer->added, where, err));
    snprintf(place, sizeof place, "%.400s: decoder", where);
    TRY(decoder_load(&tokenizer->decoder, cJSON_GetObjectItemCaseSensitive(json, "decoder"),
                     tokenizer->table, place, err));
    snprintf(place, sizeof place, "%.400s: post_processor", where);
    TRY(postprocessor_load(&tokenizer->post,
                           cJSON_GetObjectItemCaseSensitive(json, "post_processor"), place, err));
    tokenizer->vocab_size = tokenizer->bpe.spelled.id_count;
    for (uint32_t i = 0; i < tokenizer->added.count; i++)
        if (tokenizer->added.token[i].id >= tokenizer->vocab_size)
            tokenizer->vocab_size = tokenizer->added.token[i].id + 1;
    return OK;
}

static Status build_with(const cJSON *json, const char *where, const TokenizerExtras *extras,
                         const UnicodeTable *table, Tokenizer **ret, Error *err)
{
    Tokenizer *tokenizer = mem_calloc(1, sizeof *tokenizer);
    tokenizer->table = table;
    Status status = load_parts(tokenizer, json, where, extras, err);
    if (status == OK)
        *ret = tokenizer;
    else
        tokenizer_destroy(tokenizer);
    return status;
}

Status tokenizer_build(const cJSON *json, const char *where, const TokenizerExtras *extras,
                       Tokenizer **ret, Error *err)
{
    UnicodeTable *table = unicode_table_create();
    Status status = build_with(json, where, extras, table, ret, err);
    if (status == OK)
        (*ret)->own_table = table;
    else
        free(table);
    return status;
}

Status tokenizer_parse_with(const char *json, size_t length, const char *where,
                            const UnicodeTable *table, Tokenizer **ret, Error *err)
{
    cJSON *document = NULL;
    TRY(json_parse(json, length, where, &document, err));
    Status status = build_with(document, where, NULL, table, ret, err);
    cJSON_Delete(document);
    return status;
}

Status tokenizer_parse(const char *json, size_t length, const char *where, Tokenizer **ret,
                       Error *err)
{
    cJSON *document = NULL;
    TRY(json_parse(json, length, where, &document, err));
    Status status = tokenizer_build(document, where, NULL, ret, err);
    cJSON_Delete(document);
    return status;
}

Status tokenizer_load(const char *path, Tokenizer **ret, Error *err)
{
    char *bytes = NULL, *file = NULL;
    size_t length = 0;
    file = path_is_folder(path) ? path_join(path, "tokenizer.json") : mem_strdup(path);
    Status status = file_read(file, JSON_FILE_BYTES_MAX, &bytes, &length, err);
    if (status == OK) status = tokenizer_parse(bytes, length, file, ret, err);
    free(bytes);
    free(file);
    return status;
}

void tokenizer_destroy(Tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    normalizer_free(&tokenizer->normalizer);
    pretokenizer_free(&tokenizer->pretokenizer);
    bpe_free(&tokenizer->bpe);
    added_tokens_free(&tokenizer->added);
    postprocessor_free(&tokenizer->post);
    decoder_free(&tokenizer->decoder);
    free(tokenizer->own_table);
    free(tokenizer);
}
