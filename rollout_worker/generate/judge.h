/* Judge: the rewards of a job at work: the answers to one prompt are judged together, what could
 * not be judged is tried again after a while (the whole group, as a reward may compare), then given
 * up, and the run ends where that is too often (reward/retry.h). Any number of threads. */
#ifndef TROUPE_ROLLOUT_WORKER_GENERATE_JUDGE_H
#define TROUPE_ROLLOUT_WORKER_GENERATE_JUDGE_H

#include "config/job.h"
#include "rollout_worker/process/wanted.h"
#include "rollout_worker/reward/reward_set.h"

typedef struct Judge Judge;

/* Opens rewards, JSON text as rollout.reward is; `key` is where they stand in the job, for messages
 * (copied). The limits are the configuration's rollout.unjudged_max and rollout.failing_s. */
Status judge_open(const char *spec, const char *key, const JobConfig *config, Judge **ret,
                  Error *err);
void judge_close(Judge *judge); /* accepts NULL */

RewardSet *judge_rewards(const Judge *judge); /* borrowed; of NULL: NULL */
Trouble *judge_trouble(const Judge *judge);   /* what it has now; the same */
const char *judge_key(const Judge *judge);    /* of one; the same */

int judge_waiting(const Judge *judge); /* threads in judge_group; NULL: 0 */

/* All borrowed. */
typedef struct RewardGroup {
    const RewardRequest *request; /* [count] */
    int count;                    /* at least 1 */
    const Wanted *wanted;         /* of the requests too; with judge_trouble */
} RewardGroup;

/* Blocks until each is judged or given up. ret[count], zeroed before, is to be cleared by the
 * caller in any case. ERR_CANCELLED: nobody wants them any more; ERR_RESOURCE: too many were given
 * up, or none was judged for too long, and the run ends. */
Status judge_group(Judge *judge, const RewardGroup *group, RewardResult *ret, int *ret_attempts,
                   Error *err);

#endif
