#include "rollout_worker/reward/scorer_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"

void scorer_append_text(Str *out, Slice text)
{
    str_putc(out, '"');
    for (size_t i = 0; i < text.length;) {
        unsigned char byte = (unsigned char)text.data[i];
        uint32_t code = 0;
        int bytes = utf8_decode(text.data + i, text.length - i, &code);
        if (bytes == 0)
            str_puts(out, "\xef\xbf\xbd");
        else if (byte == '"' || byte == '\\')
            str_printf(out, "\\%c", byte);
        else if (byte == '\n')
            str_puts(out, "\\n");
        else if (byte < 0x20 || byte == 0x7f)
            str_printf(out, "\\u%04x", byte);
        else
            str_append(out, text.data + i, (size_t)bytes);
        i += bytes == 0 ? 1 : (size_t)bytes;
    }
    str_putc(out, '"');
}

static void append_responses(Str *out, const RewardRequest *requests, int count)
{
    str_puts(out, ", \"responses\": [");
    for (int i = 0; i < count; i++) {
        if (i > 0) str_puts(out, ", ");
        scorer_append_text(out, requests[i].response);
    }
    str_putc(out, ']');
}

static void append_place(Str *out, const RewardRequest *requests, int count, bool group)
{
    char *metadata =
        requests[0].metadata == NULL ? NULL : cJSON_PrintUnformatted(requests[0].metadata);
    str_printf(out, ", \"metadata\": %s, \"position\": %" PRId64 ", ",
               metadata == NULL ? "{}" : metadata, requests[0].position);
    free(metadata);
    if (!group) {
        str_printf(out, "\"index\": %d", requests[0].index);
        return;
    }
    str_puts(out, "\"indices\": [");
    for (int i = 0; i < count; i++)
        str_printf(out, "%s%d", i == 0 ? "" : ", ", requests[i].index);
    str_putc(out, ']');
}

void scorer_append_request(Str *out, const char *id, const RewardRequest *requests, int count,
                           bool group, bool full)
{
    str_putc(out, '{');
    if (id != NULL) str_printf(out, "\"id\": \"%s\", ", id);
    str_puts(out, "\"prompt\": ");
    scorer_append_text(out, requests[0].prompt);
    if (group) {
        append_responses(out, requests, count);
    } else {
        str_puts(out, ", \"response\": ");
        scorer_append_text(out, requests[0].response);
    }
    str_puts(out, ", \"label\": ");
    scorer_append_text(out, requests[0].label);
    if (full) append_place(out, requests, count, group);
}

static Slice member_text(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? slice_from(value->valuestring) : (Slice){0};
}

/* The outcome that the scorer names. False when it names one that there is not. */
static bool read_outcome(Slice name, RewardOutcome *ret)
{
    for (int i = 0; i < REWARD_OUTCOME_COUNT; i++) {
        if (!slice_equal(name, slice_from(reward_outcome_name((RewardOutcome)i)))) continue;
        *ret = (RewardOutcome)i;
        return true;
    }
    return false;
}

static void keep_extra(const cJSON *extra, RewardResult *ret)
{
    if (extra == NULL) return;
    free(ret->extra);
    ret->extra = cJSON_PrintUnformatted(extra);
}

void scorer_read_answer(const cJSON *answer, const char *key, double right_above, RewardResult *ret)
{
    const cJSON *score = answer;
    Slice named = {0}, reason = {0};
    if (cJSON_IsObject(answer)) {
        score = cJSON_GetObjectItemCaseSensitive(answer, key == NULL ? "score" : key);
        named = member_text(answer, "outcome");
        reason = member_text(answer, "reason");
        if (member_text(answer, "error").length > 0) {
            reward_fail(ret, REWARD_INFRA_ERROR, "the scorer says: %s",
                        cJSON_GetObjectItemCaseSensitive(answer, "error")->valuestring);
            return;
        }
    }
    RewardOutcome outcome = REWARD_OK;
    if (named.length > 0 && !read_outcome(named, &outcome)) {
        reward_fail(ret, REWARD_INFRA_ERROR,
                    "the scorer's outcome is %s, expected ok, wrong, infra_error or timeout",
                    QUOTED(named.data));
        return;
    }
    if (named.length > 0 && !reward_outcome_trains(outcome)) {
        reward_fail(ret, outcome, "%s", reason.length > 0 ? reason.data : "the scorer says so");
        return;
    }
    if (!cJSON_IsNumber(score) || !isfinite(score->valuedouble)) {
        reward_fail(ret, REWARD_INFRA_ERROR, "the scorer's %s is %s, expected a number",
                    key == NULL || !cJSON_IsObject(answer) ? "score" : key,
                    score == NULL ? "missing" : json_type_name(score));
        return;
    }
    bool right = named.length > 0 ? outcome == REWARD_OK : score->valuedouble > right_above;
    reward_judge(ret, right, score->valuedouble, member_text(answer, "answer"));
    if (reason.length > 0) reward_explain(ret, "%s", reason.data);
    keep_extra(cJSON_GetObjectItemCaseSensitive(answer, "extra"), ret);
}

void scorer_read_answers(const cJSON *answer, const char *key, double right_above, int count,
                         RewardResult *ret)
{
    const cJSON *list = answer;
    if (cJSON_IsObject(answer)) list = cJSON_GetObjectItemCaseSensitive(answer, "scores");
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != count) {
        RewardResult one = {0};
        if (cJSON_IsObject(answer) && member_text(answer, "error").length > 0)
            scorer_read_answer(answer, key, right_above, &one);
        for (int i = 0; i < count; i++) {
            if (one.reason[0] != '\0')
                reward_fail(&ret[i], REWARD_INFRA_ERROR, "%s", one.reason);
            else
                reward_fail(&ret[i], REWARD_INFRA_ERROR,
                            "the scorer gave %d scores for a group of %d",
                            cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0, count);
        }
        return;
    }
    const cJSON *extras =
        cJSON_IsObject(answer) ? cJSON_GetObjectItemCaseSensitive(answer, "extra") : NULL;
    const cJSON *entry = list->child;
    const cJSON *extra = cJSON_GetArraySize(extras) == count ? extras->child : NULL;
    for (int i = 0; i < count; i++) {
        scorer_read_answer(entry, key, right_above, &ret[i]);
        keep_extra(extra, &ret[i]);
        entry = entry->next;
        if (extra != NULL) extra = extra->next;
    }
}

void scorer_name(const char *who, RewardResult *ret)
{
    char reason[REWARD_REASON_BYTES];
    if (reward_outcome_trains(ret->outcome)) return;
    memcpy(reason, ret->reason, sizeof reason);
    reward_explain(ret, "%s: %s", who, reason);
}
