#include "rollout_worker/chat_messages.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "rollout_worker/record.h"

static const char a_list[] =
    "a list of messages, as in [{\"role\": \"user\", \"content\": \"...\"}, ...]";

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static void add_reference(cJSON *object, const char *key, const cJSON *value)
{
    cJSON_AddItemReferenceToObject(object, key, (cJSON *)value);
}

Status refuse_type(const RecordPlace *place, const cJSON *value, const char *expected,
                   const char *remedy, Error *err)
{
    char what[STR_QUOTED_BYTES + 40];
    snprintf(what, sizeof what, "key %s is %s", QUOTED(place->key), json_type_name(value));
    return record_refuse(err, place->source, what, NULL, expected, remedy);
}

/* ---- the forms ---- */

static bool has_from(const cJSON *message)
{
    return cJSON_IsObject(message) && member(message, "from") != NULL;
}

static bool has_role(const cJSON *message)
{
    return cJSON_IsObject(message) && member(message, "role") != NULL;
}

bool messages_have_from(const cJSON *list)
{
    for (const cJSON *message = list->child; message != NULL; message = message->next)
        if (has_from(message)) return true;
    return false;
}

bool messages_are_likely(const cJSON *value)
{
    return cJSON_IsArray(value) && (has_from(value->child) || has_role(value->child));
}

bool message_has_role(const cJSON *message, const char *role)
{
    const char *name = cJSON_GetStringValue(member(message, "role"));
    return name != NULL && strcmp(name, role) == 0;
}

void messages_append_one(cJSON *list, const char *role, const cJSON *content)
{
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", role);
    add_reference(message, "content", content);
    cJSON_AddItemToArray(list, message);
}

/* ---- from ShareGPT's form ---- */

/* What stands after `from`, and the role that it is. */
static const struct {
    const char *from, *role;
    bool calls; /* the value is a function call */
} speakers[] = {
    {"human", "user", false},          {"gpt", "assistant", false},
    {"user", "user", false},           {"assistant", "assistant", false},
    {"system", "system", false},       {"observation", "tool", false},
    {"tool", "tool", false},           {"function_call", "assistant", true},
    {"tool_call", "assistant", true},  {"function_response", "tool", false},
    {"tool_response", "tool", false},  {"function", "tool", false},
    {"developer", "developer", false}, {"chatgpt", "assistant", false},
    {"bing", "assistant", false},      {"bard", "assistant", false},
    {"model", "assistant", false},
};

#define NUM_SPEAKERS (int)(sizeof speakers / sizeof speakers[0])

/* The speaker of that name; '-' does for '_'. -1: there is none. */
static int find_speaker(const char *from)
{
    for (int i = 0; i < NUM_SPEAKERS; i++) {
        const char *a = speakers[i].from, *b = from;
        while (*a != '\0' && (*a == *b || (*a == '_' && *b == '-')))
            a++, b++;
        if (*a == '\0' && *b == '\0') return i;
    }
    return -1;
}

static Status refuse_speaker(const cJSON *from, const RecordPlace *place, int index, Error *err)
{
    const char *names[NUM_SPEAKERS];
    char what[STR_QUOTED_BYTES + 100], remedy[160] = "correct it, or drop the record";
    for (int i = 0; i < NUM_SPEAKERS; i++)
        names[i] = speakers[i].from;
    if (cJSON_IsString(from)) {
        const char *nearest = str_nearest(from->valuestring, names, NUM_SPEAKERS);
        snprintf(what, sizeof what, "%.60s[%d].from is %s", place->key, index,
                 QUOTED(from->valuestring));
        if (nearest != NULL) snprintf(remedy, sizeof remedy, "did you mean \"%s\"?", nearest);
    } else {
        snprintf(what, sizeof what, "%.60s[%d].from is %s", place->key, index,
                 json_type_name(from));
    }
    return record_refuse(err, place->source, what, NULL,
                         "one of human, gpt, system, function_call, observation, tool", remedy);
}

/* {"name", "arguments"} as a tool call, taking both out of `call`. False: it is not of that form.
 */
static bool take_call(cJSON *call, cJSON *calls)
{
    cJSON *inner = cJSON_GetObjectItemCaseSensitive(call, "function");
    if (cJSON_IsObject(inner)) call = inner;
    if (!cJSON_IsObject(call) || !cJSON_IsString(member(call, "name"))) return false;
    cJSON *wrapped = cJSON_CreateObject(), *function = cJSON_CreateObject();
    cJSON_AddStringToObject(wrapped, "type", "function");
    cJSON_AddItemToObject(wrapped, "function", function);
    cJSON_AddItemToObject(function, "name", cJSON_DetachItemFromObjectCaseSensitive(call, "name"));
    cJSON *arguments = cJSON_DetachItemFromObjectCaseSensitive(call, "arguments");
    cJSON_AddItemToObject(function, "arguments",
                          arguments != NULL ? arguments : cJSON_CreateObject());
    cJSON_AddItemToArray(calls, wrapped);
    return true;
}

/* The tool calls that a value spells, or NULL. */
static cJSON *read_calls(const cJSON *value)
{
    Error ignored;
    cJSON *json = NULL;
    if (!cJSON_IsString(value))
        json = cJSON_Duplicate(value, true);
    else if (json_parse(value->valuestring, strlen(value->valuestring), "", &json, &ignored) != OK)
        return NULL;
    cJSON *calls = cJSON_CreateArray();
    bool good = cJSON_IsArray(json) ? json->child != NULL : take_call(json, calls);
    if (cJSON_IsArray(json))
        for (cJSON *call = json->child; call != NULL && good; call = call->next)
            good = take_call(call, calls);
    cJSON_Delete(json);
    if (good) return calls;
    cJSON_Delete(calls);
    return NULL;
}

static Status append_from(cJSON *list, const cJSON *message, const RecordPlace *place, int index,
                          Error *err)
{
    const cJSON *from = member(message, "from"), *value = member(message, "value");
    int speaker = cJSON_IsString(from) ? find_speaker(from->valuestring) : -1;
    if (speaker < 0) return refuse_speaker(from, place, index, err);
    cJSON *calls = NULL;
    if (speakers[speaker].calls && (calls = read_calls(value)) == NULL) {
        char what[160];
        snprintf(what, sizeof what, "%.60s[%d].value is not a function call", place->key, index);
        return record_refuse(err, place->source, what, json_type_name(value),
                             "the JSON text of {\"name\": ..., \"arguments\": {...}}, or of a list "
                             "of such",
                             "correct it, or drop the record");
    }
    cJSON *converted = cJSON_CreateObject();
    cJSON_AddStringToObject(converted, "role", speakers[speaker].role);
    for (const cJSON *item = message->child; item != NULL; item = item->next) {
        if (item == from || (item == value && calls != NULL)) continue;
        add_reference(converted, item == value ? "content" : item->string, item);
    }
    if (calls != NULL) cJSON_AddItemToObject(converted, "tool_calls", calls);
    cJSON_AddItemToArray(list, converted);
    return OK;
}

/* ---- from OpenAI's older form ---- */

static const cJSON *function_call_of(const cJSON *message)
{
    const cJSON *call = member(message, "function_call");
    bool newer = cJSON_GetArraySize(member(message, "tool_calls")) > 0;
    return cJSON_IsObject(message) && cJSON_IsObject(call) && !newer ? call : NULL;
}

bool messages_have_function_call(const cJSON *list)
{
    for (const cJSON *message = list->child; message != NULL; message = message->next)
        if (function_call_of(message) != NULL) return true;
    return false;
}

/* Appends a message of a list that has function calls. */
static Status append_older(cJSON *list, const cJSON *message, const RecordPlace *place, int index,
                           Error *err)
{
    const cJSON *call = function_call_of(message);
    bool result = message_has_role(message, "function");
    cJSON *calls = call != NULL ? read_calls(call) : NULL;
    if (call != NULL && calls == NULL) {
        char what[160];
        snprintf(what, sizeof what, "%.60s[%d].function_call names no function", place->key, index);
        return record_refuse(err, place->source, what, NULL, "{\"name\": ..., \"arguments\": ...}",
                             "correct the record, or drop it");
    }
    cJSON *converted = cJSON_CreateObject();
    for (const cJSON *item = message->child; item != NULL; item = item->next) {
        if (call != NULL && (item == call || strcmp(item->string, "tool_calls") == 0)) continue;
        if (result && strcmp(item->string, "role") == 0)
            cJSON_AddStringToObject(converted, "role", "tool");
        else
            add_reference(converted, item->string, item);
    }
    if (calls != NULL) cJSON_AddItemToObject(converted, "tool_calls", calls);
    cJSON_AddItemToArray(list, converted);
    return OK;
}

/* ---- lists ---- */

static Status refuse_mixed_forms(const RecordPlace *place, int index, const char *form, Error *err)
{
    char what[160];
    snprintf(what, sizeof what, "%.60s mixes two forms of messages", place->key);
    char found[160];
    snprintf(found, sizeof found, "%.60s[%d] has \"%s\", as the ones before it have not",
             place->key, index, form);
    return record_refuse(
        err, place->source, what, found,
        "\"role\" and \"content\" in all messages, or \"from\" and \"value\" in all",
        "write the record in one form");
}

static Status append_list(cJSON *list, const cJSON *value, const RecordPlace *place, Error *err)
{
    bool roles = false, froms = false, older = messages_have_function_call(value);
    int index = 0;
    for (const cJSON *message = value->child; message != NULL; message = message->next, index++) {
        bool role = has_role(message), from = has_from(message);
        if ((from && (roles || role)) || (role && froms))
            return refuse_mixed_forms(place, index, from ? "from" : "role", err);
        roles = roles || role;
        froms = froms || from;
        if (from)
            TRY(append_from(list, message, place, index, err));
        else if (older && cJSON_IsObject(message))
            TRY(append_older(list, message, place, index, err));
        else
            cJSON_AddItemReferenceToArray(list, (cJSON *)message);
    }
    return OK;
}

Status messages_append(cJSON *list, const cJSON *value, const char *role, const RecordPlace *place,
                       Error *err)
{
    if (cJSON_IsArray(value)) return append_list(list, value, place, err);
    if (has_from(value)) return append_from(list, value, place, 0, err);
    if (has_role(value)) {
        cJSON_AddItemReferenceToArray(list, (cJSON *)value);
        return OK;
    }
    if (role == NULL || !cJSON_IsString(value))
        return refuse_type(place, value, a_list,
                           "convert the record, or name another key in "
                           "data.input_key",
                           err);
    messages_append_one(list, role, value);
    return OK;
}
