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

struct Failures {
    const char *what;
    pthread_mutex_t mutex;
    RewardRetry retry; /* the counts; its outcomes: ok, infra_error and timeout */
    int64_t broken;    /* of the failures: the protocol */
};

Failures *failures_create(const char *what, int64_t given_up_max)
{
    Failures *failures = mem_calloc(1, sizeof *failures);
    RewardRetryLimits limits = {.attempts_max = ATTEMPTS_MAX,
                                .backoff_ms = BACKOFF_MS,
                                .backoff_ms_max = BACKOFF_MS_MAX,
                                .given_up_max = given_up_max,
                                .in_a_row_max = INT64_MAX};
    CHECK(reward_retry_init(&failures->retry, &limits, NULL) == OK);
    pthread_mutex_init(&failures->mutex, NULL);
    failures->what = what;
    return failures;
}

void failures_destroy(Failures *failures)
{
    if (failures == NULL) return;
    pthread_mutex_destroy(&failures->mutex);
    free(failures);
}

bool failures_are_of(Status status)
{
    return status == ERR_UNAVAILABLE || status == ERR_TIMEOUT || status == ERR_INVALID;
}

void failures_note_success(Failures *failures)
{
    RewardResult fine = {.outcome = REWARD_OK};
    int64_t delay_ms;
    pthread_mutex_lock(&failures->mutex);
    (void)reward_retry_next(&failures->retry, &fine, 1, &delay_ms);
    pthread_mutex_unlock(&failures->mutex);
}

static Status stop(const Failures *failures, const Error *why, Error *err)
{
    const RewardRetry *retry = &failures->retry;
    int64_t lost = retry->outcomes[REWARD_INFRA_ERROR] - failures->broken;
    error_set(err, ERR_RESOURCE,
              "%s failed at %" PRId64 " samples or records, each tried %d times (limit: "
              "rollout.failures_max %" PRId64 ")",
              failures->what, retry->given_up_lately, ATTEMPTS_MAX, retry->limits.given_up_max);
    error_append(err,
                 "attempts: %" PRId64 " went well, %" PRId64 " ended or were not reached, %" PRId64
                 " were silent, %" PRId64 " broke the protocol",
                 retry->outcomes[REWARD_OK], lost, retry->outcomes[REWARD_TIMEOUT],
                 failures->broken);
    error_append(err, "last: %s", why->message);
    return error_append(err, "to do: mend it and start again; the run resumes from its last "
                             "committed step");
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
    pthread_mutex_lock(&failures->mutex);
    failures->broken += why->status == ERR_INVALID;
    RewardAction action = reward_retry_next(&failures->retry, &result, attempt, &delay_ms);
    if (action == REWARD_STOP) status = stop(failures, why, err);
    pthread_mutex_unlock(&failures->mutex);
    if (status != OK) return status;
    log_event(LOG_WARN, action == REWARD_RETRY ? "tried_again" : "given_up",
              F_STR("what", failures->what), F_INT("attempt", attempt), F_STR("why", why->message));
    if (action != REWARD_RETRY) return OK;
    *ret_again = true;
    return wanted_pause(wanted, delay_ms, err);
}
