#include "rollout_worker/generate/judge.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/reward/retry.h"

struct Judge {
    RewardSet *rewards;
    char *key;
    Trouble *trouble;
    pthread_mutex_t mutex; /* of the retries */
    RewardRetry retry;
    atomic_int waiting; /* threads */
};

void judge_close(Judge *judge)
{
    if (judge == NULL) return;
    reward_set_close(judge->rewards);
    pthread_mutex_destroy(&judge->mutex);
    trouble_destroy(judge->trouble);
    free(judge->key);
    free(judge);
}

Status judge_open(const char *spec, const char *key, const JobConfig *config, Judge **ret,
                  Error *err)
{
    cJSON *json = NULL;
    RewardRetryLimits limits = reward_retry_defaults;
    limits.given_up_max = config->rollout.unjudged_max;
    TRY(json_parse(spec, strlen(spec), key, &json, err));
    Judge *judge = mem_calloc(1, sizeof *judge);
    judge->key = mem_strdup(key);
    judge->trouble = trouble_create(key, (int64_t)(config->rollout.failing_s * 1000));
    pthread_mutex_init(&judge->mutex, NULL);
    Status status = reward_retry_init(&judge->retry, &limits, err);
    if (status == OK) status = reward_set_open(json, &judge->rewards, err);
    cJSON_Delete(json);
    if (status == OK) {
        *ret = judge;
        return OK;
    }
    judge_close(judge);
    return error_prefix(err, "%s", key);
}

RewardSet *judge_rewards(const Judge *judge)
{
    return judge == NULL ? NULL : judge->rewards;
}

Trouble *judge_trouble(const Judge *judge)
{
    return judge == NULL ? NULL : judge->trouble;
}

const char *judge_key(const Judge *judge)
{
    return judge == NULL ? NULL : judge->key;
}

int judge_waiting(const Judge *judge)
{
    return judge == NULL ? 0 : atomic_load(&judge->waiting);
}

/* Whether an earlier attempt has said all that is to be said. */
static bool is_settled(const RewardResult *result, int attempt)
{
    return attempt > 1 && (reward_outcome_trains(result->outcome) || result->permanent);
}

/* A record's fault is no trouble of whatever judges. */
static void note_trouble(Judge *judge, const RewardResult *fresh)
{
    if (reward_outcome_trains(fresh->outcome))
        trouble_end(judge->trouble);
    else if (!fresh->of_record && !fresh->told)
        trouble_note(judge->trouble, fresh->reason);
}

/* What is to be done after an attempt: *ret_delay_ms is how long until the next one, -1 when all
 * samples are judged or given up. ERR_RESOURCE, which ends the run, past the limits: another worker
 * would meet the same verifier. */
static Status note_results(Judge *judge, const RewardResult *result, const RewardResult *fresh,
                           int count, int attempt, int64_t *ret_delay_ms, Error *err)
{
    Status status = OK;
    *ret_delay_ms = -1;
    pthread_mutex_lock(&judge->mutex);
    for (int i = 0; i < count && status == OK; i++) {
        int64_t delay_ms;
        if (is_settled(&result[i], attempt)) continue;
        if (fresh[i].hopeless) {
            status = error_set(err, ERR_RESOURCE, "rewards: %s", fresh[i].reason);
            break;
        }
        note_trouble(judge, &fresh[i]);
        RewardAction action = reward_retry_next(&judge->retry, &fresh[i], attempt, &delay_ms);
        if (action == REWARD_RETRY && delay_ms > *ret_delay_ms) *ret_delay_ms = delay_ms;
        if (action == REWARD_STOP) status = reward_retry_stop(&judge->retry, err);
    }
    pthread_mutex_unlock(&judge->mutex);
    if (status == OK) return trouble_check(judge->trouble, err);
    if (err != NULL) err->status = ERR_RESOURCE;
    error_prefix(err, "%s", judge->key);
    return ERR_RESOURCE;
}

/* One attempt at all of them; what was judged before stays as it is. */
static Status try_once(Judge *judge, const RewardGroup *group, int attempt, int64_t *delay_ms,
                       RewardResult *result, Error *err)
{
    size_t count = (size_t)group->count;
    RewardResult *fresh = mem_calloc(count, sizeof *fresh);
    Status status = wanted_pause(group->wanted, *delay_ms, err);
    if (status == OK) {
        reward_set_score(judge->rewards, group->request, group->count, fresh);
        status = wanted_check(group->wanted, err); /* its end may be why they are not judged */
    }
    if (status == OK) {
        status = note_results(judge, result, fresh, group->count, attempt, delay_ms, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (status != OK || is_settled(&result[i], attempt)) {
            reward_result_clear(&fresh[i]);
            continue;
        }
        reward_result_clear(&result[i]);
        result[i] = fresh[i];
    }
    free(fresh);
    return status;
}

Status judge_group(Judge *judge, const RewardGroup *group, RewardResult *ret, int *ret_attempts,
                   Error *err)
{
    Status status = OK;
    int64_t delay_ms = 0;
    int attempt = 0;
    atomic_fetch_add(&judge->waiting, 1);
    while (status == OK && delay_ms >= 0)
        status = try_once(judge, group, ++attempt, &delay_ms, ret, err);
    atomic_fetch_sub(&judge->waiting, 1);
    *ret_attempts = attempt;
    return status;
}
