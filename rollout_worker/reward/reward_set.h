/* RewardSet: the rewards of a job with their weights. The score of a response is the weighted sum
 * of what each reward says; its outcome is that of the first reward, the one that tells right from
 * wrong (pass@k counts it), unless any reward could not judge: then the whole is not judged and no
 * score is made up from the rest.
 *
 * Written as JSON, in the job file or elsewhere:
 *     [{"name": "math"}, {"name": "format", "weight": 0.1, "options": {"shape": "think"}}]
 * a single object or a single name in quotes is a list of one. Weights are finite and not 0,
 * default 1. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_REWARD_SET_H
#define TROUPE_ROLLOUT_WORKER_REWARD_REWARD_SET_H

#include "config/reward_names.h"
#include "rollout_worker/reward/reward.h"

typedef struct RewardSet RewardSet;

/* Opens all rewards of `spec`, which need not outlive the call. */
Status reward_set_open(const cJSON *spec, RewardSet **ret, Error *err);
void reward_set_close(RewardSet *set); /* accepts NULL */

/* What its rewards are called, where there are several; borrowed. */
const RewardNames *reward_set_names(const RewardSet *set);

/* process_pool_watch of the programs among them; names the reward whose program has ended. */
Status reward_set_watch(RewardSet *set, int64_t until_ms, Error *err);

/* Judges `count` responses to one prompt (a group; 1 for one alone). Blocks while processes and
 * servers work, each up to its timeout. Any thread, concurrently. results[i] belongs to
 * requests[i]; it is overwritten, and cleared by the caller afterwards. With more than one reward,
 * `part` has the score of each, and `extra` is an object of what they added, by name. */
void reward_set_score(RewardSet *set, const RewardRequest *requests, int count,
                      RewardResult *results);

/* Whether label and metadata can be used, as far as that can be told before there is a response
 * (the request's is empty). False: *ret is the refusal of the first reward that cannot use them. */
bool reward_set_accepts(RewardSet *set, const RewardRequest *request, RewardResult *ret);

#endif
