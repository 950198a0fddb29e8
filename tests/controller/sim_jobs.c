#include "sim_jobs.h"

#include "test.h"

const SimFaults no_faults;

/* Besides data.eval a set of its own, with more answers to a prompt. */
static RowList more_sets(void)
{
    static JobConfig *job;
    Error err = {0};
    if (job == NULL)
        assert_ok(job_config_parse("model: {path: m}\ndata: {train: t}\n"
                                   "rollout: {function: generate, reward: random, "
                                   "n_samples_per_prompt: 4}\n"
                                   "eval: {sets: {more: {path: e, n_samples_per_prompt: 3}}}\n",
                                   "job.yaml", "/", &job, &err),
                  &err);
    return job->eval.sets;
}

JobConfig make_config(int workers, int tp, int dp)
{
    static char eval_file[] = "eval";
    static char *eval_list[] = {eval_file};
    JobConfig config = {0};
    config.data.eval = (StringList){eval_list, 1};
    config.data.too_long = POLICY_SKIP;
    config.data.bad_record = POLICY_SKIP;
    config.data.bad_records_max = BAD_RECORDS;
    config.rollout.num_workers = workers;
    config.rollout.lease_size = 3;
    config.rollout.prefetch_steps = 2;
    config.rollout.n_samples_per_prompt = config.eval.n_samples_per_prompt = 1;
    config.rollout.over_sampling = 1;
    config.train.tp_size = tp;
    config.train.dp_size = dp;
    config.train.num_steps = 24;
    config.train.global_batch_size = 8;
    config.train.num_steps_per_rollout = 1;
    config.train.max_tokens_per_gpu = 128;
    config.eval.interval = 10;
    config.eval.before_train = true;
    config.eval.sets = more_sets();
    config.checkpoint.interval = 5;
    config.cluster.strategy = PACK;
    config.cluster.cpus_per_train_worker = 1;
    config.cluster.cpus_per_rollout_worker = 1;
    config.cluster.cpus_per_data_source = 0.5;
    config.cluster.heartbeat_ms = 500;
    config.cluster.suspect_ms = 3000;
    config.cluster.dead_ms = 10000;
    config.cluster.progress_s = 30;
    config.cluster.restarts_max = 32;
    config.cluster.restarts_window_s = 60;
    return config;
}

void assert_right(const SimResult *result, uint64_t seed)
{
    if (result->violation[0] != '\0')
        fail_msg("seed %llu: %s", (unsigned long long)seed, result->violation);
    if (!result->finished || result->status != OK)
        fail_msg("seed %llu: %s after %lld ms: %s", (unsigned long long)seed,
                 result->finished ? status_name(result->status) : "never ended",
                 (long long)result->end_ms, result->message);
    int64_t skipped = 0;
    for (int i = 0; i < REJECT_REASON_COUNT; i++)
        skipped += result->saved.tally.rejected[i];
    if (skipped != result->saved.rejected_samples)
        fail_msg("seed %llu: %lld records skipped for some reason, %lld in all",
                 (unsigned long long)seed, (long long)skipped,
                 (long long)result->saved.rejected_samples);
    if (result->leftover_processes != 0 || result->leftover_cpu != 0)
        fail_msg("seed %llu: %d processes and %g CPUs are left", (unsigned long long)seed,
                 result->leftover_processes, result->leftover_cpu);
}

SimFaults faults_of(uint64_t seed)
{
    return (SimFaults){
        .nodes = seed % 4 == 3 ? 2 + (int)(seed / 4 % 3) : 1,
        .kills = (int)(seed % 6),
        .agent_kills = (int)(seed / 6 % 3),
        .hangs = (int)(seed / 12 % 3),
        .stuck = (int)(seed / 10 % 2),
        .controller_kills = (int)(seed / 36 % 3),
        .stops = (int)(seed / 108 % 2),
        .impatient = seed % 2 == 0,
        .lost_reply = seed % 5 == 0 ? 0.002 : 0,
        .failed_save = seed % 7 == 0 ? 0.1 : 0,
        .failed_append = seed % 11 == 0 ? 0.01 : 0,
        .late_commit = seed % 3 == 0 ? 0.4 : 0,
        .refused_grant = seed % 13 == 0 ? 0.2 : 0,
        .deaf_read = seed % 2 == 0 ? 0.5 : 0,
        .bad_records = BAD_RECORDS,
        .bad_eval_records = BAD_RECORDS,
    };
}

JobConfig make_rl_config(int workers, int tp, int dp)
{
    JobConfig config = make_config(workers, tp, dp);
    config.rollout.function = ROLLOUT_GENERATE;
    config.rollout.n_samples_per_prompt = 4;
    config.eval.n_samples_per_prompt = 2;
    config.algorithm.advantage_estimator = ADVANTAGE_GRPO;
    config.algorithm.dynamic_filter = FILTER_ZERO_VARIANCE;
    config.data.bad_records_max = 0;
    return config;
}

/* A mixture of three sources, of which one does not say how many records it has. */
RowList three_sources(void)
{
    static JobConfig *job;
    Error err = {0};
    if (job == NULL)
        assert_ok(job_config_parse("model: {path: m}\n"
                                   "data: {sources: {a: {path: a, weight: 5}, b: {path: b}, "
                                   "c: {path: c, weight: 3}}}\n",
                                   "job.yaml", "/", &job, &err),
                  &err);
    return job->data.sources;
}
