#include "rollout_worker/chat_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/record.h"

/* "prompt", "answer", "id" and 2 more; for the message about a missing key. */
static void list_keys(const cJSON *object, Str *out)
{
    int count = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        if (count < 8) str_printf(out, "%s\"%.40s\"", count > 0 ? ", " : "", member->string);
        count++;
    }
    if (count > 8) str_printf(out, " and %d more", count - 8);
}

static Status refuse_missing(const cJSON *record, const char *source, const char *key, Error *err)
{
    Str found = {0}, what = {0}, remedy = {0};
    str_printf(&what, "key \"%.60s\" is missing", key);
    str_puts(&found, record->child != NULL ? "the keys " : "no key at all");
    list_keys(record, &found);
    const char *names[64];
    size_t count = 0;
    for (const cJSON *member = record->child; member != NULL && count < 64; member = member->next)
        names[count++] = member->string;
    const char *nearest = str_nearest(key, names, count);
    if (nearest != NULL)
        str_printf(&remedy, "did you mean \"%.60s\"? Name it in data.input_key", nearest);
    else
        str_puts(&remedy, "name the key that holds the conversation in data.input_key");
    record_refuse(err, source, what.data, found.data,
                  "a list of messages, as in [{\"role\": \"user\", \"content\": \"...\"}, ...]",
                  remedy.data);
    str_free(&what);
    str_free(&found);
    str_free(&remedy);
    return ERR_DATA;
}

static Status refuse_type(const char *source, const char *key, const cJSON *value,
                          const char *expected, const char *remedy, Error *err)
{
    char what[128];
    snprintf(what, sizeof what, "key \"%.60s\" is %s", key, json_type_name(value));
    return record_refuse(err, source, what, NULL, expected, remedy);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that occurs twice would be read in one way here and in another by Python. */
static Status check_keys_once(const cJSON *object, const char *source, const char *place,
                              Error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(object), i = 0;
    const char **name = mem_calloc(count, sizeof *name);
    for (const cJSON *member = object->child; member != NULL; member = member->next)
        name[i++] = member->string;
    qsort(name, count, sizeof *name, compare_names);
    Status status = OK;
    for (i = 1; i < count && status == OK; i++) {
        if (strcmp(name[i - 1], name[i]) != 0) continue;
        char what[160];
        snprintf(what, sizeof what, "key \"%.60s\" occurs twice%s", name[i], place);
        status = record_refuse(err, source, what, NULL, "each key once", "remove one of them");
    }
    free(name);
    return status;
}

static Status find_messages(const JobConfig *config, const cJSON *record, const char *source,
                            const cJSON **ret, Error *err)
{
    const char *key = config->data.input_key;
    TRY(check_keys_once(record, source, "", err));
    const cJSON *messages = cJSON_GetObjectItemCaseSensitive(record, key);
    if (messages == NULL) return refuse_missing(record, source, key, err);
    if (!cJSON_IsArray(messages))
        return refuse_type(
            source, key, messages,
            "a list of messages, as in [{\"role\": \"user\", \"content\": \"...\"}, ...]",
            "convert the record, or name another key in data.input_key", err);
    int index = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next) {
        char place[128];
        snprintf(place, sizeof place, " in %.60s[%d]", key, index++);
        if (cJSON_IsObject(message)) TRY(check_keys_once(message, source, place, err));
    }
    *ret = messages;
    return OK;
}

/* The tools stand at the tool key of the record, or at "tools" in its metadata; null is as good as
 * absent. */
static Status find_tools(const JobConfig *config, const cJSON *record, const char *source,
                         const cJSON **ret, Error *err)
{
    const char *key = config->data.tool_key;
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(record, key);
    if (tools == NULL || cJSON_IsNull(tools)) {
        const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(record, config->data.metadata_key);
        key = "metadata.tools";
        tools =
            cJSON_IsObject(metadata) ? cJSON_GetObjectItemCaseSensitive(metadata, "tools") : NULL;
    }
    if (tools != NULL && cJSON_IsNull(tools)) tools = NULL;
    if (tools != NULL && !cJSON_IsArray(tools) && !cJSON_IsString(tools))
        return refuse_type(source, key, tools,
                           "a list of tools, or a string with such a list in JSON",
                           "convert it, or name another key in data.tool_key", err);
    *ret = tools;
    return OK;
}

Status chat_record_find(const JobConfig *config, const cJSON *record, const char *source,
                        ChatRecord *ret, Error *err)
{
    ChatRecord found = {0};
    TRY(find_messages(config, record, source, &found.messages, err));
    TRY(find_tools(config, record, source, &found.tools, err));
    *ret = found;
    return OK;
}
