#include "rollout_worker/reward/retry.h"

#include <inttypes.h>
#include <string.h>

const RewardRetryLimits reward_retry_defaults = {
    .attempts_max = 4,
    .backoff_ms = 500,
    .backoff_ms_max = 30000,
    .given_up_max = 32,
    .never_max = 16,
    .in_a_row_max = 256,
};

Status reward_retry_init(RewardRetry *retry, const RewardRetryLimits *limits, Error *err)
{
    if (limits->attempts_max < 1)
        return error_set(err, ERR_INVALID, "attempts_max is %d, expected at least 1",
                         limits->attempts_max);
    if (limits->backoff_ms < 0 || limits->backoff_ms_max < limits->backoff_ms)
        return error_set(err, ERR_INVALID,
                         "backoff_ms is %" PRId64 " and backoff_ms_max %" PRId64
                         ", expected 0 <= backoff_ms <= backoff_ms_max",
                         limits->backoff_ms, limits->backoff_ms_max);
    if (limits->given_up_max < 0 || limits->never_max < 0 || limits->in_a_row_max < 0)
        return error_set(err, ERR_INVALID,
                         "given_up_max is %" PRId64 ", never_max %" PRId64
                         " and in_a_row_max %" PRId64 ", expected none below 0",
                         limits->given_up_max, limits->never_max, limits->in_a_row_max);
    *retry = (RewardRetry){.limits = *limits};
    return OK;
}

static int64_t delay_before(const RewardRetryLimits *limits, int attempt)
{
    int64_t delay = limits->backoff_ms;
    for (int i = 2; i < attempt && delay < limits->backoff_ms_max; i++)
        delay *= 2;
    return delay < limits->backoff_ms_max ? delay : limits->backoff_ms_max;
}

/* A sample is judged, or given up. */
static void note_sample(RewardRetry *retry, bool lost)
{
    bool *place = &retry->lost[retry->samples++ % RETRY_WINDOW];
    retry->given_up += lost;
    retry->given_up_lately += lost - *place;
    *place = lost;
}

bool reward_retry_never_worked(const RewardRetry *retry)
{
    const RewardRetryLimits *limits = &retry->limits;
    return limits->never_max < limits->given_up_max && retry->given_up == retry->samples &&
           retry->given_up > limits->never_max;
}

RewardAction reward_retry_next(RewardRetry *retry, const RewardResult *result, int attempt,
                               int64_t *ret_delay_ms)
{
    CHECK(attempt >= 1);
    *ret_delay_ms = 0;
    retry->outcomes[result->outcome]++;
    if (reward_outcome_trains(result->outcome)) {
        retry->in_a_row = 0;
        note_sample(retry, false);
        return REWARD_ACCEPT;
    }
    memcpy(retry->last_reason, result->reason, sizeof retry->last_reason);
    retry->in_a_row++;
    bool last = result->permanent || attempt >= retry->limits.attempts_max;
    if (last) note_sample(retry, true);
    if (retry->given_up_lately > retry->limits.given_up_max || reward_retry_never_worked(retry) ||
        retry->in_a_row > retry->limits.in_a_row_max)
        return REWARD_STOP;
    if (last) return REWARD_GIVE_UP;
    retry->retried++;
    *ret_delay_ms = delay_before(&retry->limits, attempt + 1);
    return REWARD_RETRY;
}

Status reward_retry_stop(const RewardRetry *retry, Error *err)
{
    const RewardRetryLimits *limits = &retry->limits;
    if (reward_retry_never_worked(retry))
        error_set(err, ERR_UNAVAILABLE,
                  "the reward could not be computed for any of the first %" PRId64
                  " samples of this worker (limit: %" PRId64
                  " then, later rollout.unjudged_max, %" PRId64 " of %d)",
                  retry->given_up, limits->never_max, limits->given_up_max, RETRY_WINDOW);
    else if (retry->given_up_lately > limits->given_up_max)
        error_set(err, ERR_UNAVAILABLE,
                  "the reward could not be computed for %" PRId64 " of the last %" PRId64
                  " samples of this worker (limit: rollout.unjudged_max, %" PRId64 " of %d)",
                  retry->given_up_lately,
                  retry->samples < RETRY_WINDOW ? retry->samples : RETRY_WINDOW,
                  limits->given_up_max, RETRY_WINDOW);
    else
        error_set(err, ERR_UNAVAILABLE,
                  "the reward failed %" PRId64 " times in a row (limit: %" PRId64 ")",
                  retry->in_a_row, limits->in_a_row_max);
    error_append(err,
                 "attempts: %" PRId64 " ok, %" PRId64 " wrong, %" PRId64 " infra_error, %" PRId64
                 " timeout; %" PRId64 " were retries",
                 retry->outcomes[REWARD_OK], retry->outcomes[REWARD_WRONG],
                 retry->outcomes[REWARD_INFRA_ERROR], retry->outcomes[REWARD_TIMEOUT],
                 retry->retried);
    if (retry->last_reason[0] != '\0') error_append(err, "last: %s", retry->last_reason);
    return error_append(err, "to do: mend the verifier and start again");
}
