/* RewardRetry: what becomes of a sample whose reward was not judged, and when a run has seen enough
 * of that. Counts only: no clock, no threads, no random numbers; the caller waits and calls again.
 * One object per rollout worker (or per run, where one process sees all outcomes), used by one
 * thread at a time. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_RETRY_H
#define TROUPE_ROLLOUT_WORKER_REWARD_RETRY_H

#include <stdint.h>

#include "base/error.h"
#include "rollout_worker/reward/reward.h"

typedef struct RewardRetryLimits {
    int attempts_max;   /* per sample, the first one included; at least 1 */
    int64_t backoff_ms; /* before the second attempt; doubled for each further one */
    int64_t backoff_ms_max;
    int64_t given_up_max; /* samples given up of the last RETRY_WINDOW before the run stops: at the
                             next one it stops */
    int64_t never_max; /* the same from the start on, while none was ever judged, if it is less */
    int64_t in_a_row_max; /* attempts that fail with none judged between them: the same */
} RewardRetryLimits;

#define RETRY_WINDOW 1000 /* samples: a run may be as long as it likes, and faults be as rare */

extern const RewardRetryLimits reward_retry_defaults; /* 4, 500 ms, 30 s, 32, 16, 256 */

typedef enum {
    REWARD_ACCEPT,  /* the outcome trains */
    REWARD_RETRY,   /* score it again after the delay */
    REWARD_GIVE_UP, /* drop the sample: it is counted, it does not train */
    REWARD_STOP,    /* end the run with the message of reward_retry_stop */
} RewardAction;

typedef struct RewardRetry {
    RewardRetryLimits limits;
    int64_t outcomes[REWARD_OUTCOME_COUNT]; /* attempts by how they ended */
    int64_t retried;                        /* attempts that were asked for again */
    int64_t given_up;                       /* samples, from the start */
    int64_t given_up_lately;                /* of the last RETRY_WINDOW that were judged or not */
    bool lost[RETRY_WINDOW];                /* which of them */
    int64_t samples;                        /* judged or given up, from the start */
    int64_t in_a_row;                       /* attempts not judged since the last judged one */
    char last_reason[REWARD_REASON_BYTES];  /* of the last attempt that was not judged */
} RewardRetry;

/* Fails with ERR_INVALID for limits that make no sense. */
Status reward_retry_init(RewardRetry *retry, const RewardRetryLimits *limits, Error *err);

/* Notes the result of attempt number `attempt` (1 for the first) of some sample and says what to
 * do; *ret_delay_ms is set with REWARD_RETRY, and 0 otherwise. */
RewardAction reward_retry_next(RewardRetry *retry, const RewardResult *result, int attempt,
                               int64_t *ret_delay_ms);

/* Nothing was ever judged, and too much was given up for that. */
bool reward_retry_never_worked(const RewardRetry *retry);

/* Fills *err with why the run stops: which limit, the counts, the last reason, what to look at.
 * Returns ERR_UNAVAILABLE. */
Status reward_retry_stop(const RewardRetry *retry, Error *err);

#endif
