#include "rollout_worker/generate/failures.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "rollout_worker/reward/retry.h"

#define ATTEMPTS_MAX   4
#define BACKOFF_MS     250
#define BACKOFF_MS_MAX 8000
#define NEVER_MAX      4 /* given up while nothing has ever gone well, where more may be */

struct Failures {
    FailuresOf of;
    Trouble *trouble;
    pthread_mutex_t mutex;
    RewardRetry retry; /* the counts; its outcomes: ok, infra_error and timeout */
    int64_t broken;    /* of the failures: the protocol */
};

Failures *failures_create(FailuresOf of, const JobConfig *config)
{
    Failures *failures = mem_calloc(1, sizeof *failures);
    RewardRetryLimits limits = {.attempts_max = ATTEMPTS_MAX,
                                .backoff_ms = BACKOFF_MS,
                                .backoff_ms_max = BACKOFF_MS_MAX,
                                .given_up_max = config->rollout.failures_max,
                                .never_max = NEVER_MAX,
                                .in_a_row_max = INT64_MAX};
    CHECK(reward_retry_init(&failures->retry, &limits, NULL) == OK);
    pthread_mutex_init(&failures->mutex, NULL);
    failures->of = of;
    failures->trouble = trouble_create(of.key, (int64_t)(config->rollout.failing_s * 1000));
    return failures;
}

void failures_destroy(Failures *failures)
{
    if (failures == NULL) return;
    pthread_mutex_destroy(&failures->mutex);
    trouble_destroy(failures->trouble);
    free(failures);
}

Trouble *failures_trouble(const Failures *failures)
{
    return failures->trouble;
}

bool failures_are_of(Status status)
{
    return status == ERR_UNAVAILABLE || status == ERR_TIMEOUT || status == ERR_INVALID;
}

void failures_note_success(Failures *failures)
{
    RewardResult fine = {.outcome = REWARD_OK};
    int64_t delay_ms;
    trouble_end(failures->trouble);
    pthread_mutex_lock(&failures->mutex);
    (void)reward_retry_next(&failures->retry, &fine, 1, &delay_ms);
    pthread_mutex_unlock(&failures->mutex);
}

static Status stop(const Failures *failures, const Error *why, Error *err)
{
    const RewardRetry *retry = &failures->retry;
    int64_t lost = retry->outcomes[REWARD_INFRA_ERROR] - failures->broken;
    if (reward_retry_never_worked(retry))
        error_set(err, ERR_RESOURCE,
                  "%s failed at each of %" PRId64 " samples or records, each tried %d times: it "
                  "has never gone well (limit: %" PRId64 " then, later rollout.failures_max)",
                  failures->of.what, retry->given_up, ATTEMPTS_MAX, retry->limits.never_max);
    else
        error_set(err, ERR_RESOURCE,
                  "%s failed at %" PRId64 " samples or records, each tried %d times (limit: "
                  "rollout.failures_max %" PRId64 ")",
                  failures->of.what, retry->given_up_lately, ATTEMPTS_MAX,
                  retry->limits.given_up_max);
    error_append(err,
                 "attempts: %" PRId64 " went well, %" PRId64 " ended or were not reached, %" PRId64
                 " were silent, %" PRId64 " broke the protocol",
                 retry->outcomes[REWARD_OK], lost, retry->outcomes[REWARD_TIMEOUT],
                 failures->broken);
    error_append(err, "last: %s", why->message);
    return error_append(err, "to do: mend it (%s) and start again", failures->of.key);
}

Status failures_note(Failures *failures, const Error *why, int attempt, const Wanted *wanted,
                     bool *ret_again, Error *err)
{
    RewardResult result = {.outcome =
                               why->status == ERR_TIMEOUT ? REWARD_TIMEOUT : REWARD_INFRA_ERROR};
    int64_t delay_ms = 0;
    Status status = OK;
    *ret_again = false;
    TRY(wanted_check(wanted, err)); /* its end may be why it failed */
    trouble_note(failures->trouble, why->message);
    TRY(trouble_check(failures->trouble, err));
    pthread_mutex_lock(&failures->mutex);
    failures->broken += why->status == ERR_INVALID;
    RewardAction action = reward_retry_next(&failures->retry, &result, attempt, &delay_ms);
    if (action == REWARD_STOP) status = stop(failures, why, err);
    pthread_mutex_unlock(&failures->mutex);
    if (status != OK) return status;
    if (action != REWARD_RETRY)
        log_event(LOG_WARN, "given_up", F_STR("what", failures->of.what), F_INT("tries", attempt),
                  F_STR("why", why->message));
    if (action != REWARD_RETRY) return OK;
    *ret_again = true;
    return wanted_pause(wanted, delay_ms, err);
}
