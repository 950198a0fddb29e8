#include "rollout_worker/saved_group.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "rollout_worker/reward/scorer_json.h"

#define FILE_BYTES_MAX (1u << 30)

char *saved_group_root(const char *folder, int generating_before)
{
    if (generating_before == 0) return mem_strdup(folder);
    return mem_printf("%s/stage_%d", folder, generating_before + 1);
}

char *saved_group_path(const char *folder, const char *set, int64_t version, int64_t position)
{
    char kind[SET_NAME_BYTES + 24] = "train";
    if (set != NULL) snprintf(kind, sizeof kind, "%s-step%lld", set, (long long)version - 1);
    return mem_printf("%s/%s/%06lld/%09lld.jsonl", folder, kind, (long long)(position / 1000),
                      (long long)position);
}

/* ---- writing ---- */

/* NULs, which our own reader refuses, become U+FFFD. */
static void put_text(Str *out, const char *key, Slice text)
{
    char *copy = mem_strndup(text.data != NULL ? text.data : "", text.length);
    for (size_t i = 0; i < text.length; i++)
        if (copy[i] == '\0') copy[i] = '\xFF';
    str_printf(out, ", \"%s\": ", key);
    scorer_append_text(out, (Slice){copy, text.length});
    free(copy);
}

static void put_arrays(Str *out, const Sample *sample)
{
    str_printf(out, ", \"temperature\": %.9g, \"prompt_length\": %d, \"tokens\": [",
               (double)sample->temperature, sample->prompt_length);
    for (int32_t t = 0; t < sample->length; t++)
        str_printf(out, "%s%d", t > 0 ? ", " : "", sample->token[t]);
    str_puts(out, "], \"loss_mask\": [");
    for (int32_t t = 0; t < sample->length; t++)
        str_printf(out, "%s%d", t > 0 ? ", " : "", sample->loss_mask[t]);
    str_puts(out, "], \"log_probs\": [");
    for (int32_t t = 0; t < sample->length; t++)
        str_printf(out, "%s%.9g", t > 0 ? ", " : "", (double)sample->log_prob[t]);
    str_puts(out, "], \"versions\": [");
    for (int32_t r = 0; r < sample->num_version_runs; r++)
        str_printf(out, "%s[%lld, %d]", r > 0 ? ", " : "",
                   (long long)sample->version_run[r].version, sample->version_run[r].count);
    str_putc(out, ']');
}

/* What each reward of a weighted sum said. */
static void put_parts(Str *out, const SampleWork *work, const RewardNames *names)
{
    int count = names == NULL || names->count < work->num_parts ? 0 : work->num_parts;
    for (int i = 0; i < count; i++) {
        str_puts(out, i == 0 ? ", \"rewards\": {" : ", ");
        json_append_string(out, names->name[i]);
        str_printf(out, ": %.9g", (double)work->part[i]);
    }
    if (count > 0) str_putc(out, '}');
}

/* What reward and rollout function had to say beside, in their own form. */
static void put_extra(Str *out, const char *of_reward, const cJSON *of_function)
{
    if (of_reward == NULL && of_function == NULL) return;
    bool both = of_reward != NULL && of_function != NULL;
    str_puts(out, both ? ", \"extra\": {\"function\": " : ", \"extra\": ");
    if (of_function != NULL) json_append(out, of_function);
    if (both) str_puts(out, ", \"reward\": ");
    if (of_reward != NULL) str_puts(out, of_reward);
    if (both) str_putc(out, '}');
}

static void put_origin(Str *out, const SavedTexts *texts, int i)
{
    cJSON *rewards = texts->judged_by != NULL ? cJSON_Parse(texts->judged_by) : NULL;
    if (rewards != NULL && !(texts->has_reward != NULL && texts->has_reward[i])) {
        str_puts(out, ", \"judged_by\": ");
        json_append(out, rewards);
    }
    cJSON_Delete(rewards);
    if (texts->weights != NULL && texts->weights[i] != 0)
        str_printf(out, ", \"weights\": \"%016" PRIx64 "\"", texts->weights[i]);
}

static void put_sample(Str *out, const Sample *sample, const SavedTexts *texts, int i)
{
    str_printf(out, "{\"position\": %lld, \"index\": %d, \"status\": \"%s\"",
               (long long)sample->position, sample->index, sample_status_name(sample->status));
    if (sample->status == SAMPLE_REJECTED) {
        str_printf(out, ", \"reject_reason\": \"%s\"", reject_reason_name(sample->reject_reason));
        put_text(out, "reject_message", slice_from(sample->reject_message));
    } else {
        str_printf(out, ", \"reward\": %.9g, \"right\": %s", (double)sample->reward,
                   sample->right ? "true" : "false");
        put_parts(out, &sample->work, texts->rewards);
        put_origin(out, texts, i);
        put_arrays(out, sample);
    }
    put_text(out, "prompt", texts->prompt);
    put_text(out, "label", texts->label);
    put_text(out, "response", texts->response[i]);
    if (texts->judged != NULL && texts->judged[i] != NULL)
        put_text(out, "judged", slice_from(texts->judged[i]));
    put_text(out, "answer", slice_from(texts->result[i].answer));
    put_text(out, "reason", slice_from(texts->result[i].reason));
    put_extra(out, texts->result[i].extra, texts->extra != NULL ? texts->extra[i] : NULL);
    str_puts(out, "}\n");
}

Status saved_group_write(const char *path, const RolloutGroup *group, const SavedTexts *texts,
                         Error *err)
{
    Str out = {0};
    char *folder = path_folder(path);
    for (int i = 0; i < group->count; i++)
        put_sample(&out, &group->sample[i], texts, i);
    Status status = folder_create(folder, err);
    if (status == OK) status = file_write_atomic(path, out.data, out.length, err);
    free(folder);
    str_free(&out);
    return status;
}

/* ---- reading ---- */

typedef struct Line {
    const cJSON *json;
    const char *where; /* "file:line" */
} Line;

static Status find_list(const Line *line, const char *key, int length, const cJSON **ret,
                        Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(line->json, key);
    int found = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (found < 1 || (length > 0 && found != length))
        return error_set(err, ERR_DATA, "%s: \"%s\" is not a list of %d numbers, as \"tokens\" is",
                         line->where, key, length);
    *ret = list;
    return OK;
}

static Status read_numbers(const Line *line, Sample *sample, Error *err)
{
    const cJSON *tokens = NULL, *mask = NULL, *log_probs = NULL, *item;
    TRY(find_list(line, "tokens", 0, &tokens, err));
    sample->length = cJSON_GetArraySize(tokens);
    TRY(find_list(line, "loss_mask", sample->length, &mask, err));
    TRY(find_list(line, "log_probs", sample->length, &log_probs, err));
    size_t length = (size_t)sample->length, t = 0;
    sample->token = mem_calloc(length, sizeof *sample->token);
    sample->loss_mask = mem_calloc(length, sizeof *sample->loss_mask);
    sample->log_prob = mem_calloc(length, sizeof *sample->log_prob);
    cJSON_ArrayForEach(item, tokens) sample->token[t++] = item->valueint;
    t = 0;
    cJSON_ArrayForEach(item, mask) sample->loss_mask[t++] = item->valueint != 0;
    t = 0;
    cJSON_ArrayForEach(item, log_probs) sample->log_prob[t++] = (float)item->valuedouble;
    return OK;
}

static Status read_versions(const Line *line, Sample *sample, Error *err)
{
    const cJSON *list = NULL, *item;
    int64_t counted = 0;
    TRY(find_list(line, "versions", 0, &list, err));
    sample->version_run = mem_calloc((size_t)cJSON_GetArraySize(list), sizeof(VersionRun));
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *version = cJSON_GetArrayItem(item, 0), *count = cJSON_GetArrayItem(item, 1);
        if (!cJSON_IsNumber(version) || !cJSON_IsNumber(count) || count->valueint < 1)
            return error_set(err, ERR_DATA, "%s: \"versions\" is not a list of [version, count]",
                             line->where);
        sample->version_run[sample->num_version_runs++] =
            (VersionRun){(int64_t)version->valuedouble, count->valueint};
        counted += count->valueint;
    }
    if (counted != sample->length - sample->prompt_length)
        return error_set(err, ERR_DATA, "%s: \"versions\" count %lld tokens, but %d were generated",
                         line->where, (long long)counted, sample->length - sample->prompt_length);
    sample->weight_version = sample->version_run[0].version;
    return OK;
}

static void read_parts(const Line *line, SampleWork *work)
{
    const cJSON *parts = cJSON_GetObjectItemCaseSensitive(line->json, "rewards"), *part = NULL;
    cJSON_ArrayForEach(part, parts) if (cJSON_IsNumber(part) && work->num_parts < REWARDS_MAX)
        work->part[work->num_parts++] = (float)part->valuedouble;
}

static Status read_trained(const Line *line, Sample *sample, Error *err)
{
    double reward = 0, temperature = 0;
    int64_t prompt_length = 0;
    TRY(json_double(line->json, "reward", line->where, &reward, err));
    TRY(json_double(line->json, "temperature", line->where, &temperature, err));
    TRY(json_bool(line->json, "right", line->where, &sample->right, err));
    read_parts(line, &sample->work);
    sample->reward = (float)reward;
    sample->temperature = (float)temperature;
    TRY(read_numbers(line, sample, err));
    TRY(json_int(line->json, "prompt_length", line->where, 1, sample->length, &prompt_length, err));
    sample->prompt_length = (int32_t)prompt_length;
    TRY(read_versions(line, sample, err));
    Status status = sample_check_policy(sample, err);
    return status == OK ? OK : error_prefix(err, "%s", line->where);
}

static int find_name(const char *name, const char *(*name_of)(int), int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(name, name_of(i)) == 0) return i;
    return -1;
}

static const char *status_at(int i)
{
    return sample_status_name((SampleStatus)i);
}

static const char *reason_at(int i)
{
    return reject_reason_name((RejectReason)i);
}

static Status read_any(const Line *line, Sample *sample, Error *err)
{
    const char *name = NULL, *message = NULL;
    TRY(json_string(line->json, "status", line->where, &name, err));
    int status = find_name(name, status_at, SAMPLE_STATUS_COUNT);
    if (status < 0) return error_set(err, ERR_DATA, "%s: status \"%.40s\"", line->where, name);
    if (status != SAMPLE_REJECTED) {
        sample->status = (SampleStatus)status;
        return read_trained(line, sample, err);
    }
    TRY(json_string(line->json, "reject_reason", line->where, &name, err));
    TRY(json_string(line->json, "reject_message", line->where, &message, err));
    int reason = find_name(name, reason_at, REJECT_REASON_COUNT);
    if (reason < 0)
        return error_set(err, ERR_DATA, "%s: reject_reason \"%.40s\"", line->where, name);
    rollout_reject(sample, (RejectReason)reason, message);
    return OK;
}

Status saved_sample_read(const cJSON *json, const char *where, Sample *ret, Error *err)
{
    return read_any(&(Line){json, where}, ret, err);
}

void saved_notes_free(SavedNote *note, int count)
{
    for (int i = 0; note != NULL && i < count; i++) {
        free(note[i].judged);
        cJSON_Delete(note[i].judged_by);
    }
    free(note);
}

static SavedNote read_note(cJSON *json)
{
    const cJSON *judged = cJSON_GetObjectItemCaseSensitive(json, "judged");
    if (judged == NULL) judged = cJSON_GetObjectItemCaseSensitive(json, "response");
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(json, "weights");
    return (SavedNote){
        .judged = mem_strdup(cJSON_IsString(judged) ? judged->valuestring : ""),
        .judged_by = cJSON_DetachItemFromObjectCaseSensitive(json, "judged_by"),
        .weights = cJSON_IsString(weights) ? strtoull(weights->valuestring, NULL, 16) : 0,
    };
}

static Status read_line(const char *text, size_t length, const char *where, Sample *sample,
                        SavedNote *note, Error *err)
{
    cJSON *json = NULL;
    TRY(json_parse(text, length, where, &json, err));
    Status status = saved_sample_read(json, where, sample, err);
    *note = read_note(json);
    cJSON_Delete(json);
    return status;
}

Status saved_group_read(const char *path, const RolloutRecord *record, RolloutGroup *ret,
                        SavedNote **ret_note, Error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    Status status = OK;
    TRY(file_read(path, FILE_BYTES_MAX, &text, &bytes, err));
    const char *at = text, *end = text + bytes;
    for (int line = 1; at < end && status == OK; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline != NULL ? newline : end) - at);
        char *where = mem_printf("%s:%d", path, line);
        Sample *sample = rollout_group_add(ret, record);
        *ret_note = mem_realloc(*ret_note, (size_t)ret->count, sizeof **ret_note);
        SavedNote *note = &(*ret_note)[ret->count - 1];
        *note = (SavedNote){0};
        status = read_line(at, length, where, sample, note, err);
        free(where);
        at += length + 1;
    }
    free(text);
    return status;
}
