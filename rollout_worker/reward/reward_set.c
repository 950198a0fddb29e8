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
    RewardNames names;
};

/* Of an entry that is an object: `name` is its name where it has one, else "without a name". */
static Status check_keys(const cJSON *spec, const char *name, Error *err)
{
    static const char *const keys[] = {"name", "weight", "options", NULL};
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, spec)
    {
        bool known = false;
        for (size_t i = 0; keys[i] != NULL; i++)
            known = known || strcmp(keys[i], entry->string) == 0;
        if (known) continue;
        error_set(err, ERR_INVALID, "reward %s has no key %s", name, QUOTED(entry->string));
        return options_append_names(entry->string, keys, err);
    }
    return OK;
}

static Status read_spec(const cJSON *spec, const char **ret_name, double *ret_weight, Error *err)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(spec, "name"));
    const cJSON *weight = cJSON_GetObjectItemCaseSensitive(spec, "weight");
    if (!cJSON_IsObject(spec))
        return error_set(err, ERR_INVALID,
                         "a reward is %s, expected its name, or {name: gsm8k, weight: 1}",
                         json_type_name(spec));
    TRY(check_keys(spec, name != NULL ? name : "without a name", err));
    if (name == NULL)
        return error_set(err, ERR_INVALID,
                         "a reward has no name, expected for example {name: gsm8k, weight: 1}");
    if (weight != NULL && !cJSON_IsNumber(weight))
        return error_set(err, ERR_INVALID, "the weight of reward %s is %s, expected a number", name,
                         cJSON_IsString(weight) ? QUOTED(weight->valuestring)
                                                : json_type_name(weight));
    *ret_name = name;
    if (weight != NULL) *ret_weight = weight->valuedouble;
    return OK;
}

/* How a reward is written that cannot do without options; NULL: its name does. */
static const char *example_of(const RewardTable *table)
{
    if (table == &reward_http)
        return "{name: http, options: {url: \"http://127.0.0.1:8000/score\"}}";
    if (table == &reward_process)
        return "{name: process, options: {command: [python3, scorer.py]}}";
    if (table == &reward_plugin_table) return "{name: plugin, options: {path: ./brevity.so}}";
    return NULL;
}

/* What failed says which reward it is, once, and how one like it is written. */
static Status name_reward(const RewardTable *table, Error *err)
{
    const char *example = example_of(table);
    const Error why = *err;
    size_t length = strlen(table->name);
    if (str_starts_with(why.message, table->name) && why.message[length] == ':')
        error_set(err, why.status, "reward %s", why.message);
    else if (strstr(why.message, "reward ") == NULL)
        error_prefix(err, "reward %s", table->name);
    if (example != NULL)
        error_append(err, "Write for example %s; docs/rewards.md has all options.", example);
    return err->status;
}

static Status open_member(const cJSON *spec, Member *ret, Error *err)
{
    const char *name = NULL;
    double weight = 1;
    if (cJSON_IsString(spec)) {
        name = spec->valuestring;
        spec = NULL;
    } else {
        TRY(read_spec(spec, &name, &weight, err));
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
    if (table->open(options, &opened, err) != OK) return name_reward(table, err);
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
        return error_set(err, ERR_INVALID, "there are %d rewards, expected 1 to %d%s", count,
                         REWARDS_MAX, count == 0 ? ", for example gsm8k" : "");
    RewardSet *set = mem_calloc(1, sizeof *set);
    set->names = reward_names_of(spec);
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

Status reward_set_watch(RewardSet *set, int64_t until_ms, Error *err)
{
    for (int i = 0; i < set->count; i++) {
        const Member *member = &set->member[i];
        if (member->table != &reward_process) continue;
        if (reward_process_watch(member->opened, until_ms, err) != OK)
            return error_prefix(err, "reward %s", member->table->name);
    }
    return OK;
}

const RewardNames *reward_set_names(const RewardSet *set)
{
    return &set->names;
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

/* What was not judged says which of several rewards it is. */
static void name_part(const RewardTable *table, RewardResult *part)
{
    char reason[REWARD_REASON_BYTES];
    memcpy(reason, part->reason, sizeof reason);
    reward_explain(part, "reward %s: %s", table->name, reason);
}

/* Adds what a reward had to say beside its score. */
static void add_extra(const char *name, const char *extra, Str *all)
{
    if (extra == NULL) return;
    str_puts(all, all->length == 0 ? "{" : ", ");
    json_append_string(all, name);
    str_printf(all, ": %s", extra);
}

/* Adds what one reward said of a response to the whole. */
static void add_result(RewardResult *whole, const Member *member, RewardResult *part, bool first)
{
    if (!reward_outcome_trains(part->outcome)) name_part(member->table, part);
    bool judged = first || reward_outcome_trains(whole->outcome);
    bool judges = reward_outcome_trains(part->outcome);
    whole->part[whole->num_parts++] = judges ? part->score : (double)NAN;
    if (first) {
        memcpy(whole->answer, part->answer, sizeof whole->answer);
        memcpy(whole->reason, part->reason, sizeof whole->reason);
        whole->outcome = part->outcome;
        whole->permanent = part->permanent;
        whole->of_record = part->of_record;
        whole->told = part->told;
        whole->hopeless = part->hopeless;
        whole->score = judges ? member->weight * part->score : 0;
        return;
    }
    whole->hopeless = whole->hopeless || part->hopeless;
    if (!judged) return;
    if (judges) {
        whole->score += member->weight * part->score;
        if (whole->reason[0] == '\0') memcpy(whole->reason, part->reason, sizeof whole->reason);
        return;
    }
    whole->outcome = part->outcome;
    whole->permanent = part->permanent;
    whole->of_record = part->of_record;
    whole->told = part->told;
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
            add_result(&results[i], &set->member[k], &parts[i], k == 0);
            add_extra(set->names.name[k], parts[i].extra, &extra[i]);
            reward_result_clear(&parts[i]);
        }
    }
    for (int i = 0; i < count; i++) {
        if (extra[i].length == 0) continue;
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
            if (set->count > 1) /* which of them it is */
                reward_refuse(ret, "reward %s: %s", member->table->name, result.reason);
            return false;
        }
        reward_result_clear(&result);
    }
    return true;
}
