/* reward_try: scores responses as a job would, to see what a reward says before a run depends on
 * it.
 *
 *     reward_try REWARDS <responses.jsonl
 *
 * REWARDS is a name ("math"), JSON (what job.yaml would have), or a file with such JSON. A line of
 * input is an object with `response` (a text) or `responses` (a list: a group), and `prompt`,
 * `label`, `metadata` as the reward needs them. A line of output for each response: its outcome,
 * score (and those of several rewards), answer, reason and extra. Ends with 0 when all were judged,
 * with 4 when some were not. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/reward_set.h"
#include "rollout_worker/reward/scorer_json.h"

static Status open_rewards(const char *argument, RewardSet **ret, Error *err)
{
    cJSON *spec = NULL;
    Status status;
    if (argument[0] == '[' || argument[0] == '{')
        status = json_parse(argument, strlen(argument), "the rewards", &spec, err);
    else if (path_exists(argument))
        status = json_read(argument, CONFIG_BYTES_MAX, &spec, err);
    else {
        spec = cJSON_CreateString(argument);
        status = OK;
    }
    if (status == OK) status = reward_set_open(spec, ret, err);
    cJSON_Delete(spec);
    return status;
}

static Slice text_member(const cJSON *line, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, key);
    if (cJSON_IsString(value)) return slice_from(value->valuestring);
    return (Slice){0};
}

static void put_parts(const RewardNames *names, const RewardResult *result, Str *out)
{
    for (int i = 0; i < result->num_parts; i++) {
        str_puts(out, i == 0 ? ", \"rewards\": {" : ", ");
        json_append_string(out, names->name[i]);
        if (isfinite(result->part[i]))
            str_printf(out, ": %.17g", result->part[i]);
        else
            str_puts(out, ": null");
    }
    if (result->num_parts > 0) str_putc(out, '}');
}

static void print_result(const RewardNames *names, const RewardResult *result, int64_t line,
                         int index)
{
    Str out = {0};
    str_printf(&out, "{\"line\": %" PRId64 ", \"index\": %d, \"outcome\": \"%s\"", line, index,
               reward_outcome_name(result->outcome));
    if (reward_outcome_trains(result->outcome))
        str_printf(&out, ", \"score\": %.17g", result->score);
    put_parts(names, result, &out);
    str_puts(&out, ", \"answer\": ");
    scorer_append_text(&out, slice_from(result->answer));
    str_puts(&out, ", \"reason\": ");
    scorer_append_text(&out, slice_from(result->reason));
    if (result->extra != NULL) str_printf(&out, ", \"extra\": %s", result->extra);
    printf("%s}\n", str_text(&out));
    str_free(&out);
}

/* The responses of a line as requests, or ERR_DATA. */
static Status read_requests(const cJSON *json, int64_t line, RewardRequest **ret, int *ret_count,
                            Error *err)
{
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(json, "responses"), *entry = NULL;
    const cJSON *one = cJSON_GetObjectItemCaseSensitive(json, "response");
    int count = group != NULL ? cJSON_GetArraySize(group) : 1, index = 0;
    bool valid = group != NULL ? cJSON_IsArray(group) && count > 0 : cJSON_IsString(one);
    cJSON_ArrayForEach(entry, group) valid = valid && cJSON_IsString(entry);
    if (!valid)
        return error_set(
            err, ERR_DATA,
            "line %" PRId64 ": expected response (a text) or responses (a list of texts)", line);
    RewardRequest *requests = mem_calloc((size_t)count, sizeof *requests);
    for (entry = group != NULL ? group->child : one; index < count; index++) {
        const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json, "metadata");
        requests[index] = (RewardRequest){.prompt = text_member(json, "prompt"),
                                          .response = slice_from(entry->valuestring),
                                          .label = text_member(json, "label"),
                                          .metadata = cJSON_IsObject(metadata) ? metadata : NULL,
                                          .position = line - 1,
                                          .index = index};
        entry = entry->next;
    }
    *ret = requests;
    *ret_count = count;
    return OK;
}

/* A label that is no text is read as JSON, as in a run. */
static void make_label_text(cJSON *json)
{
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(json, "label");
    if (label == NULL || cJSON_IsString(label) || cJSON_IsNull(label)) return;
    char *text = cJSON_PrintUnformatted(label);
    cJSON_ReplaceItemInObjectCaseSensitive(json, "label", cJSON_CreateString(text));
    cJSON_free(text);
}

static Status score_line(RewardSet *set, const char *text, size_t length, int64_t line,
                         int64_t counts[REWARD_OUTCOME_COUNT], Error *err)
{
    char where[32];
    cJSON *json = NULL;
    RewardRequest *requests = NULL;
    int count = 0;
    snprintf(where, sizeof where, "line %" PRId64, line);
    Status status = json_parse(text, length, where, &json, err);
    if (status == OK) make_label_text(json);
    if (status == OK) status = read_requests(json, line, &requests, &count, err);
    if (status == OK) {
        RewardResult *results = mem_calloc((size_t)count, sizeof *results);
        reward_set_score(set, requests, count, results);
        for (int i = 0; i < count; i++) {
            print_result(reward_set_names(set), &results[i], line, i);
            counts[results[i].outcome]++;
            reward_result_clear(&results[i]);
        }
        free(results);
    }
    free(requests);
    cJSON_Delete(json);
    return status;
}

static Status score_all(RewardSet *set, int64_t counts[REWARD_OUTCOME_COUNT], Error *err)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    Status status = OK;
    for (int64_t line = 1; status == OK && (length = getline(&text, &capacity, stdin)) > 0; line++)
        if (slice_trim((Slice){text, (size_t)length}).length > 0)
            status = score_line(set, text, (size_t)length, line, counts, err);
    free(text);
    return status;
}

static void print_usage(FILE *out)
{
    fprintf(out, "usage: reward_try REWARDS <responses.jsonl\n"
                 "       scores answers as a job would, and prints a line of JSON for each\n"
                 "\n"
                 "REWARDS: a name, JSON as in a job file, or a file with such JSON.\n"
                 "Names:");
    for (int i = 0; reward_table_at(i) != NULL; i++)
        fprintf(out, " %s", reward_table_at(i)->name);
    fprintf(out,
            "\nA line of input: {\"response\": \"...\", \"label\": \"...\"} or\n"
            "{\"responses\": [...], ...}, with prompt and metadata as needed.\n"
            "\n"
            "Exit codes: 0 all were judged, 2 usage, 3 a line is malformed, 4 some could not be "
            "judged.\n");
}

int main(int argc, char **argv)
{
    if (argc != 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(argc == 2 ? stdout : stderr);
        return argc == 2 ? 0 : 2;
    }
    Error err = {0};
    RewardSet *set = NULL;
    int64_t counts[REWARD_OUTCOME_COUNT] = {0};
    Status status = open_rewards(argv[1], &set, &err);
    if (status == OK) status = score_all(set, counts, &err);
    reward_set_close(set);
    if (status != OK) {
        fprintf(stderr, "reward_try: %s\n", err.message);
        return status_exit_code(status);
    }
    for (int i = 0; i < REWARD_OUTCOME_COUNT; i++)
        fprintf(stderr, "%s%" PRId64 " %s", i == 0 ? "" : ", ", counts[i],
                reward_outcome_name((RewardOutcome)i));
    fprintf(stderr, "\n");
    return counts[REWARD_INFRA_ERROR] + counts[REWARD_TIMEOUT] > 0 ? 4 : 0;
}
