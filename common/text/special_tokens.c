#include "text/special_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/tokenizer/vocabulary.h"

static const char *const standard_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                             "pad_token", "cls_token", "mask_token"};

#define NAMES_MAX    1024
#define NUM_STANDARD (sizeof standard_names / sizeof standard_names[0])

/* A token as a file gives it: its text alone, or an object with flags. */
typedef struct Value {
    const char *name; /* under which it stands, NULL for one of a list */
    const cJSON *json;
    bool from_map; /* special_tokens_map.json: special, whatever the object says */
} Value;

typedef struct ValueList {
    Value *value;
    size_t count;
} ValueList;

typedef struct Collector {
    const TokenFiles *files;
    ValueList standard;      /* [NUM_STANDARD], json NULL where there is none */
    ValueList automatic;     /* other names that end in _token and came as objects, or in the map */
    ValueList specific;      /* names of the model's own, which win over those */
    ValueList unnamed;       /* extra_special_tokens */
    bool has_unnamed;        /* extra_special_tokens is there, and is no object */
    const cJSON *additional; /* what counts in its place if not: its older name */
    bool additional_from_map;
    ExtraToken *listed; /* what transformers calls added_tokens_map, in the order of the files */
    size_t num_listed;
    Vocabulary by_content; /* content -> index into listed; the last one counts */
} Collector;

/* ---- values ---- */

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static const char *value_text(const cJSON *json)
{
    if (cJSON_IsObject(json)) json = member(json, "content");
    return cJSON_GetStringValue(json);
}

/* Python's notion of an empty value. */
static bool is_empty(const cJSON *json)
{
    return json == NULL || cJSON_IsNull(json) || cJSON_IsFalse(json) ||
           ((cJSON_IsArray(json) || cJSON_IsObject(json)) && json->child == NULL);
}

static bool is_token_object(const cJSON *json)
{
    const char *type = cJSON_GetStringValue(member(json, "__type"));
    return cJSON_IsObject(json) && type != NULL && strcmp(type, "AddedToken") == 0;
}

static void list_push(ValueList *list, Value value)
{
    if ((list->count & (list->count - 1)) == 0)
        list->value =
            mem_realloc(list->value, list->count == 0 ? 1 : 2 * list->count, sizeof *list->value);
    list->value[list->count++] = value;
}

/* As a Python dict: a name that is there keeps its place. */
static Status list_set(const Collector *collector, ValueList *list, Value value, Error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->value[i].name, value.name) != 0) continue;
        list->value[i] = value;
        return OK;
    }
    if (list->count == NAMES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %d named tokens",
                         collector->files->folder, NAMES_MAX);
    list_push(list, value);
    return OK;
}

static int standard_index(const char *name)
{
    for (size_t i = 0; i < NUM_STANDARD; i++)
        if (strcmp(name, standard_names[i]) == 0) return (int)i;
    return -1;
}

static Status check_value(const TokenFiles *files, const char *name, const cJSON *json, Error *err)
{
    if (value_text(json) != NULL) return OK;
    return error_set(err, ERR_DATA,
                     "%s: %s is %s, expected a token: a text, or an object with content",
                     files->folder, name, json_type_name(json));
}

static bool read_flag(const cJSON *json, const char *key, bool otherwise)
{
    const cJSON *flag = member(json, key);
    return cJSON_IsBool(flag) ? cJSON_IsTrue(flag) : otherwise;
}

/* Unless a token says otherwise, it is looked for in normalized text if it is not special. */
static ExtraToken make_token(const cJSON *json, bool special)
{
    if (cJSON_IsObject(json)) special = special || read_flag(json, "special", false);
    return (ExtraToken){.content = value_text(json),
                        .id = -1,
                        .single_word = read_flag(json, "single_word", false),
                        .lstrip = read_flag(json, "lstrip", false),
                        .rstrip = read_flag(json, "rstrip", false),
                        .normalized = read_flag(json, "normalized", !special),
                        .says_normalized = cJSON_IsBool(member(json, "normalized")),
                        .special = special};
}

/* ---- names ---- */

static Status set_names(Collector *collector, const cJSON *object, Error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        TRY(check_value(collector->files, item->string, item, err));
        TRY(list_set(collector, &collector->specific, (Value){item->string, item, false}, err));
    }
    return OK;
}

static Status set_unnamed(Collector *collector, const char *key, const cJSON *json, bool from_map,
                          Error *err)
{
    if (cJSON_IsObject(json)) return set_names(collector, json, err);
    collector->has_unnamed = true;
    if (is_empty(json)) return OK;
    if (!cJSON_IsArray(json))
        return error_set(err, ERR_DATA, "%s: %s is %s, expected a list of tokens or an object",
                         collector->files->folder, key, json_type_name(json));
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        TRY(check_value(collector->files, key, item, err));
        list_push(&collector->unnamed, (Value){NULL, item, from_map});
    }
    return OK;
}

static Status read_config_names(Collector *collector, Error *err)
{
    const cJSON *config = collector->files->config, *item;
    cJSON_ArrayForEach(item, config)
    {
        int standard = standard_index(item->string);
        if (standard >= 0) {
            collector->standard.value[standard].json = item;
        } else if (str_ends_with(item->string, "_token")) {
            if (cJSON_IsString(item))
                TRY(list_set(collector, &collector->specific, (Value){item->string, item, false},
                             err));
            else if (is_token_object(item))
                TRY(list_set(collector, &collector->automatic, (Value){item->string, item, false},
                             err));
        }
    }
    const cJSON *extra = member(config, "extra_special_tokens");
    const cJSON *additional = member(config, "additional_special_tokens");
    if (is_empty(extra) && additional != NULL)
        TRY(set_unnamed(collector, "additional_special_tokens", additional, false, err));
    else if (extra != NULL)
        TRY(set_unnamed(collector, "extra_special_tokens", extra, false, err));
    collector->additional = additional;
    if (collector->specific.count > 0) return OK;
    return set_names(collector, member(config, "model_specific_special_tokens"), err);
}

/* special_tokens_map.json wins over the config, name by name. */
static Status read_map_names(Collector *collector, Error *err)
{
    const cJSON *item;
    const cJSON *additional = member(collector->files->map, "additional_special_tokens");
    cJSON_ArrayForEach(item, collector->files->map)
    {
        int standard = standard_index(item->string);
        if (standard >= 0)
            collector->standard.value[standard] = (Value){item->string, item, true};
        else if (str_ends_with(item->string, "_token") && value_text(item) != NULL)
            TRY(list_set(collector, &collector->automatic, (Value){item->string, item, true}, err));
        else if (strcmp(item->string, "extra_special_tokens") == 0)
            TRY(set_unnamed(collector, item->string, item, true, err));
    }
    if (additional != NULL) {
        collector->additional = additional;
        collector->additional_from_map = true;
    }
    return OK;
}

/* ---- listed tokens ---- */

static Status push_listed(Collector *collector, ExtraToken token, Error *err)
{
    size_t count = collector->num_listed;
    if (count + 1 >= TOKEN_IDS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %u added tokens",
                         collector->files->folder, TOKEN_IDS_MAX);
    if ((count & (count - 1)) == 0)
        collector->listed =
            mem_realloc(collector->listed, count == 0 ? 1 : 2 * count, sizeof *collector->listed);
    collector->listed[collector->num_listed++] = token;
    vocabulary_add(&collector->by_content, token.content, strlen(token.content), (uint32_t)count);
    return OK;
}

static Status read_id(const TokenFiles *files, const char *what, double number, int64_t *ret,
                      Error *err)
{
    *ret = number >= 0 && number < TOKEN_IDS_MAX ? (int64_t)number : -1;
    if (*ret >= 0 && (double)*ret == number) return OK;
    return error_set(err, ERR_DATA, "%s: %s: the id of a token is not a whole number from 0 to %u",
                     files->folder, what, TOKEN_IDS_MAX - 1);
}

/* {"151643": {"content": "<|endoftext|>", ...}, ...} */
static Status read_decoder(Collector *collector, const cJSON *decoder, Error *err)
{
    static const char name[] = "added_tokens_decoder";
    if (!cJSON_IsObject(decoder))
        return error_set(err, ERR_DATA, "%s: %s is %s, expected an object",
                         collector->files->folder, name, json_type_name(decoder));
    vocabulary_reserve(&collector->by_content, (size_t)cJSON_GetArraySize(decoder));
    const cJSON *item;
    cJSON_ArrayForEach(item, decoder)
    {
        char *end = NULL;
        double number = strtod(item->string, &end);
        int64_t id = 0;
        TRY(read_id(collector->files, name, end != item->string && *end == '\0' ? number : -1, &id,
                    err));
        TRY(check_value(collector->files, name, item, err));
        ExtraToken token = make_token(item, false);
        token.id = id;
        TRY(push_listed(collector, token, err));
    }
    return OK;
}

static void note_content(Vocabulary *vocabulary, const char *text)
{
    if (text != NULL && vocabulary_find(vocabulary, text, strlen(text)) == TOKEN_NONE)
        vocabulary_add(vocabulary, text, strlen(text), vocabulary->count);
}

static bool has_content(const Vocabulary *vocabulary, const char *text)
{
    return vocabulary_find(vocabulary, text, strlen(text)) != TOKEN_NONE;
}

/* {"<mask>": 32000, ...}: special where something names them so. */
static Status read_added(Collector *collector, Error *err)
{
    Vocabulary special = {0};
    Status status = OK;
    vocabulary_reserve(&special, NUM_STANDARD + collector->unnamed.count);
    for (size_t i = 0; i < NUM_STANDARD; i++)
        note_content(&special, value_text(collector->standard.value[i].json));
    for (size_t i = 0; i < collector->unnamed.count; i++)
        note_content(&special, value_text(collector->unnamed.value[i].json));
    const cJSON *item;
    cJSON_ArrayForEach(item, collector->files->added)
    {
        ExtraToken token = {.content = item->string, .says_normalized = true};
        double number = cJSON_IsNumber(item) ? item->valuedouble : -1;
        token.special = has_content(&special, item->string);
        token.normalized = !token.special;
        status = read_id(collector->files, "added_tokens.json", number, &token.id, err);
        if (status == OK) status = push_listed(collector, token, err);
        if (status != OK) break;
    }
    vocabulary_free(&special);
    return status;
}

/* The added tokens of tokenizer.json, which its own reader checks. */
static Status read_tokenizer(Collector *collector, Error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, member(collector->files->tokenizer, "added_tokens"))
    {
        const cJSON *id = member(item, "id");
        if (value_text(item) == NULL || !cJSON_IsNumber(id)) continue;
        ExtraToken token = make_token(item, false);
        TRY(read_id(collector->files, "tokenizer.json", id->valuedouble, &token.id, err));
        TRY(push_listed(collector, token, err));
    }
    return OK;
}

/* A config that lists the added tokens is complete; otherwise the older files are read too. */
static Status read_files(Collector *collector, Error *err)
{
    const TokenFiles *files = collector->files;
    const cJSON *decoder = member(files->config, "added_tokens_decoder");
    TRY(read_config_names(collector, err));
    if (decoder != NULL) return read_decoder(collector, decoder, err);
    const cJSON *own = member(files->tokenizer, "added_tokens");
    vocabulary_reserve(&collector->by_content,
                       (size_t)cJSON_GetArraySize(own) + (size_t)cJSON_GetArraySize(files->added));
    TRY(read_map_names(collector, err));
    TRY(read_added(collector, err));
    return read_tokenizer(collector, err);
}

/* ---- putting them together ---- */

static int by_id(const void *a, const void *b)
{
    const ExtraToken *const *left = a, *const *right = b;
    if ((*left)->id != (*right)->id) return (*left)->id < (*right)->id ? -1 : 1;
    return *left < *right ? -1 : *left > *right;
}

/* The listed tokens in order of their ids; of two with the same id, the later one. */
static size_t order_listed(const Collector *collector, ExtraToken *ret)
{
    const ExtraToken **order = mem_alloc((collector->num_listed + 1) * sizeof *order);
    for (size_t i = 0; i < collector->num_listed; i++)
        order[i] = &collector->listed[i];
    qsort(order, collector->num_listed, sizeof *order, by_id);
    size_t count = 0;
    for (size_t i = 0; i < collector->num_listed; i++)
        if (i + 1 == collector->num_listed || order[i + 1]->id != order[i]->id)
            ret[count++] = *order[i];
    free(order);
    return count;
}

/* All names with their tokens: the standard ones, then the model's own. */
static Status merge_names(const Collector *collector, ValueList *ret, Error *err)
{
    const ValueList *lists[] = {&collector->standard, &collector->automatic, &collector->specific};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (size_t j = 0; j < lists[i]->count; j++) {
            const Value *value = &lists[i]->value[j];
            if (value->json != NULL && !cJSON_IsNull(value->json))
                TRY(check_value(collector->files, value->name, value->json, err));
            TRY(list_set(collector, ret, *value, err));
        }
    return OK;
}

/* What has a name is special. */
static void mark_special(ExtraToken *token, const Vocabulary *named)
{
    if (!has_content(named, token->content)) return;
    token->special = true;
    if (!token->says_normalized) token->normalized = false;
}

static void add_value(const Collector *collector, const Value *value, TokenizerExtras *extras)
{
    const char *text = value_text(value->json);
    uint32_t listed = vocabulary_find(&collector->by_content, text, strlen(text));
    ExtraToken token = make_token(value->json, cJSON_IsString(value->json) || value->from_map);
    if (listed != TOKEN_NONE && value->name != NULL && standard_index(value->name) >= 0)
        token = collector->listed[listed];
    token.id = -1;
    extras->token[extras->count++] = token;
}

static void assemble(const Collector *collector, const ValueList *names, SpecialTokens *ret)
{
    const cJSON *own = member(collector->files->tokenizer, "added_tokens"), *item;
    size_t most = collector->num_listed + names->count + collector->unnamed.count;
    Vocabulary named = {0}, known = {0};
    vocabulary_reserve(&named, names->count);
    vocabulary_reserve(&known, (size_t)cJSON_GetArraySize(own) + collector->num_listed);
    for (size_t i = 0; i < names->count; i++) {
        const char *text = value_text(names->value[i].json);
        note_content(&named, text);
        if (text != NULL) cJSON_AddStringToObject(ret->named, names->value[i].name, text);
    }
    TokenizerExtras *extras = &ret->extras;
    ExtraToken *token = mem_calloc(most + 1, sizeof *token);
    extras->count = order_listed(collector, token);
    extras->token = token;
    cJSON_ArrayForEach(item, own) note_content(&known, value_text(item));
    for (size_t i = 0; i < extras->count; i++)
        note_content(&known, token[i].content);
    for (size_t i = 0; i < names->count + collector->unnamed.count; i++) {
        const Value *value =
            i < names->count ? &names->value[i] : &collector->unnamed.value[i - names->count];
        const char *text = value_text(value->json);
        if (text != NULL && !has_content(&known, text)) add_value(collector, value, extras);
    }
    for (size_t i = 0; i < extras->count; i++)
        mark_special(&token[i], &named);
    extras->splits_special = cJSON_IsTrue(member(collector->files->config, "split_special_tokens"));
    vocabulary_free(&named);
    vocabulary_free(&known);
}

Status special_tokens_read(const TokenFiles *files, SpecialTokens *ret, Error *err)
{
    Collector collector = {.files = files};
    ValueList names = {0};
    for (size_t i = 0; i < NUM_STANDARD; i++)
        list_push(&collector.standard, (Value){standard_names[i], NULL, false});
    const cJSON *padding = member(files->tokenizer, "padding");
    if (member(files->config, "pad_token") == NULL)
        collector.standard.value[standard_index("pad_token")].json = member(padding, "pad_token");
    Status status = read_files(&collector, err);
    if (status == OK && collector.additional != NULL && !collector.has_unnamed)
        status = set_unnamed(&collector, "additional_special_tokens", collector.additional,
                             collector.additional_from_map, err);
    if (status == OK) status = merge_names(&collector, &names, err);
    if (status == OK) {
        *ret = (SpecialTokens){.named = cJSON_CreateObject()};
        assemble(&collector, &names, ret);
    }
    free(names.value);
    free(collector.standard.value);
    free(collector.automatic.value);
    free(collector.specific.value);
    free(collector.unnamed.value);
    free(collector.listed);
    vocabulary_free(&collector.by_content);
    return status;
}

void special_tokens_free(SpecialTokens *tokens)
{
    free(tokens->extras.token);
    cJSON_Delete(tokens->named);
    *tokens = (SpecialTokens){0};
}
