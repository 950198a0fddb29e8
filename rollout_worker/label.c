#include "rollout_worker/label.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/chat_messages.h"
#include "rollout_worker/record.h"

static const char own_key[] = "label";

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool is_named(const ChatRecord *chat)
{
    return strcmp(chat->label_key, own_key) != 0;
}

char *label_take(const ChatRecord *chat, int num_prompt)
{
    int at = 0;
    const cJSON *message;
    if (cJSON_IsString(chat->label)) return mem_strdup(chat->label->valuestring);
    if (chat->label != NULL) {
        char *json = cJSON_PrintUnformatted(chat->label), *text = mem_strdup(json);
        cJSON_free(json);
        return text;
    }
    if (is_named(chat)) return NULL;
    cJSON_ArrayForEach(message, chat->conversation.messages)
    {
        const cJSON *content = member(message, "content");
        if (at++ >= num_prompt && message_has_role(message, "assistant") && cJSON_IsString(content))
            return mem_strdup(content->valuestring);
    }
    return NULL;
}

/* ---- where the label may stand ---- */

#define SEARCH_DEPTH 3

/* Names under which data sets keep a reference answer. */
static bool is_likely(const cJSON *value)
{
    static const char *const names[] = {
        "label",          "answer",       "ground_truth",     "solution",
        "target",         "gold",         "reference_answer", "expected_answer",
        "correct_answer", "final_answer", "gold_answer",      "reference"};
    if (!cJSON_IsString(value) && !cJSON_IsNumber(value)) return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(value->string, names[i]) == 0) return true;
    return false;
}

/* The path of the first likely label, nearer ones first; false: there is none. */
static bool find_likely(const cJSON *object, const char *prefix, int depth, Str *ret)
{
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        if (!is_likely(item)) continue;
        str_printf(ret, "%s%s", prefix, item->string);
        return true;
    }
    for (const cJSON *item = object->child; item != NULL && depth > 1; item = item->next) {
        if (!cJSON_IsObject(item)) continue;
        char *path = mem_printf("%s%.60s.", prefix, item->string);
        bool found = find_likely(item, path, depth - 1, ret);
        free(path);
        if (found) return true;
    }
    return false;
}

/* ---- refusals ---- */

/* "data.label_key", or the key of the evaluation set, or of the source. */
static void key_name(const RolloutRecord *record, const char *key, char ret[160])
{
    bool own = record->set != NULL && strcmp(record->set, "eval") != 0;
    if (record->part != NULL)
        snprintf(ret, 160, "data.sources.%.100s.%s", record->part, key);
    else
        snprintf(ret, 160, "%s%.100s.%s", own ? "eval.sets." : "", own ? record->set : "data", key);
}

static void list_keys(const cJSON *object, Str *out)
{
    int count = 0;
    str_puts(out, object->child != NULL ? "the keys " : "no key at all");
    for (const cJSON *item = object->child; item != NULL; item = item->next, count++)
        if (count < 8) str_printf(out, "%s%s", count > 0 ? ", " : "", QUOTED(item->string));
    if (count > 8) str_printf(out, " and %d more", count - 8);
}

static Status refuse_missing(const RolloutRecord *record, const cJSON *json, const ChatRecord *chat,
                             Error *err)
{
    Str found = {0}, remedy = {0}, likely = {0};
    const char *names[64], *nearest;
    size_t count = 0;
    char key[160], what[240];
    key_name(record, "label_key", key);
    for (const cJSON *item = json->child; item != NULL && count < 64; item = item->next)
        names[count++] = item->string;
    nearest = is_named(chat) ? str_nearest(chat->label_key, names, count) : NULL;
    list_keys(json, &found);
    if (nearest != NULL)
        str_printf(&remedy, "did you mean %s? Name it in %s", QUOTED(nearest), key);
    else if (find_likely(json, "", SEARCH_DEPTH, &likely))
        str_printf(&remedy, "if %s is it, say so, as in %s: %s", QUOTED(str_text(&likely)), key,
                   str_text(&likely));
    else
        str_printf(&remedy, "add it, or name the key under which it stands in %s", key);
    const cJSON *null = cJSON_GetObjectItemCaseSensitive(json, chat->label_key);
    snprintf(what, sizeof what, "the record has no label: key \"%.60s\" (%s) is %s",
             chat->label_key, key, cJSON_IsNull(null) ? "null" : "missing");
    record_refuse(err, record->source, what, str_text(&found),
                  "the reference answer that the reward compares with", str_text(&remedy));
    str_free(&found);
    str_free(&remedy);
    str_free(&likely);
    return ERR_DATA;
}

static Status refuse_unusable(const RolloutRecord *record, const RewardResult *result, Error *err)
{
    char label[160], metadata[160], remedy[480];
    bool of_metadata = strstr(result->reason, "metadata") != NULL;
    key_name(record, "label_key", label);
    key_name(record, "metadata_key", metadata);
    snprintf(remedy, sizeof remedy,
             "correct or drop the record, or name the key where it stands in %s%s%s",
             of_metadata && strstr(result->reason, "label") == NULL ? metadata : label,
             of_metadata && strstr(result->reason, "label") != NULL ? " or " : "",
             of_metadata && strstr(result->reason, "label") != NULL ? metadata : "");
    return record_refuse(
        err, record->source, "an answer to the record could not be judged, whatever it is",
        result->reason, "what the reward reads of a record (docs/rewards.md)", remedy);
}

Status label_check(RewardSet *rewards, const RolloutRecord *record, const cJSON *json,
                   const ChatRecord *chat, const char *label, Error *err)
{
    RewardRequest request = {.label = slice_from(label != NULL ? label : ""),
                             .metadata = chat->metadata,
                             .position = record->position};
    RewardResult result = {0};
    bool absent = is_named(chat) && record_find(json, chat->label_key) == NULL;
    if (absent) return refuse_missing(record, json, chat, err);
    if (reward_set_accepts(rewards, &request, &result)) return OK;
    Status status = label == NULL && strstr(result.reason, "label") != NULL
                        ? refuse_missing(record, json, chat, err)
                        : refuse_unusable(record, &result, err);
    reward_result_clear(&result);
    return status;
}
