/* A tensor-parallel rank of a rollout worker in a process of its own: rollout-0.1 beside rollout-0.
 */
#include "rollout_worker/policy.h"

static Status rank_run(void *shared, void *scratch, const RolloutRecord *record, RolloutGroup *ret,
                       Error *err)
{
    (void)shared, (void)scratch, (void)record, (void)ret;
    return error_set(err, ERR_UNSUPPORTED, "this process is not rank 0 of its rollout worker");
}

static void *rank_open_thread(const void *shared)
{
    (void)shared;
    return NULL;
}

static void rank_close_thread(void *scratch)
{
    (void)scratch;
}

static void rank_close(void *shared)
{
    policy_destroy(shared);
}

static int rank_num_threads(const JobConfig *config)
{
    (void)config;
    return 1;
}

static Status rank_adopt(void *shared, const RolloutWeights *weights, RolloutAdoption *ret,
                         Error *err)
{
    return policy_adopt(shared, weights, ret, err);
}

static Status rank_rest(void *shared, int64_t *ret_bytes, Error *err)
{
    return policy_rest(shared, ret_bytes, err);
}

static Status rank_join(void *shared, const RankGroupId *id, Error *err)
{
    return policy_join(shared, id, err);
}

static void rank_end(void *shared)
{
    policy_end(shared);
}

static void rank_describe(const void *shared, RolloutActivity *ret)
{
    policy_describe_rank(shared, &ret->progress, &ret->working);
}

static void rank_watch(void *shared, EngineLost lost, void *context)
{
    policy_watch(shared, lost, context);
}

static const char *rank_memory_plan(const void *shared)
{
    return policy_memory_plan(shared);
}

Status rollout_rank_open(const JobConfig *config, int tp_rank, void **ret_shared, Error *err)
{
    Policy *policy = NULL;
    TRY(policy_create_rank(config, tp_rank, &policy, err));
    *ret_shared = policy;
    return OK;
}

const RolloutTable rollout_rank = {
    .name = "of a rank other than 0",
    .close = rank_close,
    .open_thread = rank_open_thread,
    .close_thread = rank_close_thread,
    .run = rank_run,
    .num_threads = rank_num_threads,
    .adopt = rank_adopt,
    .rest = rank_rest,
    .join = rank_join,
    .end = rank_end,
    .describe = rank_describe,
    .watch = rank_watch,
    .memory_plan = rank_memory_plan,
};
