/* The reward `random`: 0 or 1 by a coin that belongs to (seed, position, index), so that a sample
 * that is scored again gets the same. For measuring what training does when the reward means
 * nothing. */
#include <stdlib.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

typedef struct Random {
    uint64_t key;
    double share; /* of ones */
} Random;

static Status random_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"seed", "share", NULL};
    int64_t seed = 0;
    double share = 0.5;
    TRY(options_check(options, "random", keys, err));
    TRY(json_int_or(options, "seed", "random", 0, INT64_MAX, &seed, err));
    TRY(json_double_or(options, "share", "random", &share, err));
    if (!(share >= 0 && share <= 1))
        return error_set(err, ERR_INVALID, "option share of reward random is %g, expected 0 to 1",
                         share);
    Random *self = mem_alloc(sizeof *self);
    *self = (Random){rng_key((uint64_t)seed, "reward"), share};
    *ret_self = self;
    return OK;
}

static void random_close(void *self)
{
    free(self);
}

static void random_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    const Random *options = self;
    RngBlock block = rng_block(options->key, (uint64_t)request->position, (uint64_t)request->index);
    bool one = rng_uniform(block.word[0]) < options->share;
    reward_judge(ret, one, one, (Slice){0});
}

const RewardTable reward_random = {"random", random_open, random_close, random_score, NULL, NULL};
