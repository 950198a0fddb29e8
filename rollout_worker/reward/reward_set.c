#include "rollout_worker/reward/reward_set.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/options.h"

typedef struct Member {
    const RewardTable *table;
    void *opened;
    double weight;
} Member;

struct RewardSet {
    Member member[REWARDS_MAX];
    int count;
};

static Status open_member(const cJSON *spec, Member *ret, Error *err)
{
    static const char *const keys[] = {"name", "weight", "options", NULL};
    const char *name = NULL;
    double weight = 1;
    if (cJSON_IsString(spec)) {
        name = spec->valuestring;
        spec = NULL;
    } else {
        TRY(options_check(spec, "list", keys, err));
        TRY(json_string(spec, "name", "reward", &name, err));
        TRY(json_double_or(spec, "weight", name, &weight, err));
    }
    const RewardTable *table = NULL;
    TRY(reward_table_find(name, &table, err));
    if (!isfinite(weight) || weight == 0)
        return error_set(
            err, ERR_INVALID,
            "the weight of reward %s is %g: it would have no effect; expected a number "
            "other than 0, or leave the reward out",
            name, weight);
    void *opened = NULL;
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(spec, "options");
    if (table->open(options, &opened, err) != OK) return error_prefix(err, "reward %s", name);
    *ret = (Member){table, opened, weight};
    return OK;
}

Status reward_set_open(const cJSON *spec, RewardSet **ret, Error *err)
{
    bool list = cJSON_IsArray(spec);
    int count = list ? cJSON_GetArraySize(spec) : 1;
    if (!list && !cJSON_IsObject(spec) && !cJSON_IsString(spec))
        return error_set(err, ERR_INVALID, "rewards are %s, expected a list of objects with a name",
                         json_type_name(spec));
    if (count < 1 || count > REWARDS_MAX)
        return error_set(err, ERR_INVALID, "there are %d rewards, expected 1 to %d", count,
                         REWARDS_MAX);
    RewardSet *set = mem_calloc(1, sizeof *set);
    for (int i = 0; i < count; i++) {
        const cJSON *entry = list ? cJSON_GetArrayItem(spec, i) : spec;
        if (open_member(entry, &set->member[i], err) != OK) {
            reward_set_close(set);
            return err->status;
        }
        set->count++;
    }
    *ret = set;
    return OK;
}

void reward_set_close(RewardSet *set)
{
    if (set == NULL) return;
    for (int i = 0; i < set->count; i++)
        set->member[i].table->close(set->member[i].opened);
    free(set);
}

static void score_member(const Member *member, const RewardRequest *requests, int count,
                         RewardResult *results)
{
    for (int i = 0; i < count; i++)
        results[i] = (RewardResult){0};
    if (member->table->score_group != NULL && count > 1) {
        member->table->score_group(member->opened, requests, count, results);
        return;
    }
    for (int i = 0; i < count; i++)
        member->table->score(member->opened, &requests[i], &results[i]);
}

/* Adds what one reward said of a response to the whole. */
static void add_result(RewardResult *whole, const Member *member, RewardResult *part, bool first,
                       Str *extra)
{
    bool judged = first || reward_outcome_trains(whole->outcome);
    str_printf(extra, "%s", first ? "{" : ", ");
    json_append_string(extra, member->table->name);
    if (reward_outcome_trains(part->outcome))
        str_printf(extra, ": {\"score\": %.17g", part->score);
    else
        str_printf(extra, ": {\"outcome\": \"%s\"", reward_outcome_name(part->outcome));
    if (part->extra != NULL) str_printf(extra, ", \"extra\": %s", part->extra);
    str_putc(extra, '}');
    if (first) {
        memcpy(whole->answer, part->answer, sizeof whole->answer);
        memcpy(whole->reason, part->reason, sizeof whole->reason);
        whole->outcome = part->outcome;
        whole->permanent = part->permanent;
        whole->hopeless = part->hopeless;
        whole->score = reward_outcome_trains(part->outcome) ? member->weight * part->score : 0;
        return;
    }
    whole->hopeless = whole->hopeless || part->hopeless;
    if (!judged) return;
    if (reward_outcome_trains(part->outcome)) {
        whole->score += member->weight * part->score;
        if (whole->reason[0] == '\0') memcpy(whole->reason, part->reason, sizeof whole->reason);
        return;
    }
    whole->outcome = part->outcome;
    whole->permanent = part->permanent;
    whole->score = 0;
    memcpy(whole->reason, part->reason, sizeof whole->reason);
}

void reward_set_score(RewardSet *set, const RewardRequest *requests, int count,
                      RewardResult *results)
{
    CHECK(count >= 1);
    if (set->count == 1) {
        score_member(&set->member[0], requests, count, results);
        for (int i = 0; i < count; i++)
            results[i].score *= set->member[0].weight;
        return;
    }
    RewardResult *parts = mem_calloc((size_t)count, sizeof *parts);
    Str *extra = mem_calloc((size_t)count, sizeof *extra);
    for (int k = 0; k < set->count; k++) {
        score_member(&set->member[k], requests, count, parts);
        for (int i = 0; i < count; i++) {
            if (k == 0) results[i] = (RewardResult){0};
            add_result(&results[i], &set->member[k], &parts[i], k == 0, &extra[i]);
            reward_result_clear(&parts[i]);
        }
    }
    for (int i = 0; i < count; i++) {
        str_putc(&extra[i], '}');
        results[i].extra = str_take(&extra[i]);
    }
    free(extra);
    free(parts);
}

bool reward_set_accepts(RewardSet *set, const RewardRequest *request, RewardResult *ret)
{
    for (int i = 0; i < set->count; i++) {
        const Member *member = &set->member[i];
        RewardResult result = {0};
        if (member->table->check == NULL) continue;
        member->table->check(member->opened, request, &result);
        if (result.permanent) {
            *ret = result;
            return false;
        }
        reward_result_clear(&result);
    }
    return true;
}
