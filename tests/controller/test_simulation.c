/* The controller's core against thousands of random fault schedules: kills, hangs, stuck threads,
 * lost replies, dead agents on one node and on several, grants that are refused, dead and restarted
 * controllers, polite stops, full disks, commits that land late. Whatever happens, the run ends
 * (with the same command again where a message asks for it) with the weights of an undisturbed one,
 * every position is consumed exactly once and in order, nothing stands still without a reason, and
 * nothing is left running or reserved. */
#include "test.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_jobs.h"

#define KEPT_BYTES (64 << 20)

static uint64_t undisturbed_weights(const JobConfig *config, const SimFaults *data)
{
    SimResult result = sim_run(config, data, 1);
    assert_right(&result, 1);
    assert_int_equal(result.steps, config->train.num_steps);
    return result.weights;
}

static void test_simulation_batches_do_not_depend_on_workers_or_latencies(void **state)
{
    (void)state;
    JobConfig reference = make_config(1, 2, 1);
    uint64_t expected = undisturbed_weights(&reference, &no_faults);
    for (int workers = 1; workers <= 8; workers++) {
        JobConfig config = make_config(workers, 2, 1);
        config.rollout.lease_size = 1 + workers % 4;
        config.rollout.prefetch_steps = workers % 3;
        SimResult result = sim_run(&config, &no_faults, 100 + (uint64_t)workers);
        assert_right(&result, 100 + (uint64_t)workers);
        assert_true(result.weights == expected);
    }
}

static void test_simulation_keeps_the_books_of_a_mixture(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 1, 2);
    config.data.sources = three_sources();
    uint64_t expected = undisturbed_weights(&config, &no_faults);
    for (uint64_t seed = 0; seed < 150; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_true(result.weights == expected);
        int64_t samples = 0;
        for (int i = 0; i < SIM_SOURCES; i++)
            samples += result.saved.source[i].samples;
        assert_int_equal(samples, result.saved.consumed_samples);
    }
}

/* How many seeds are tried: SIM_COUNT, for a long search; else some thousands together. */
static uint64_t count_or(int usual)
{
    const char *count = getenv("SIM_COUNT");
    return (uint64_t)(count != NULL ? atoi(count) : usual);
}

#define REMAINDERS 3

static RemainderPolicy remainder_of(uint64_t seed)
{
    return (RemainderPolicy)(seed / 4 % REMAINDERS);
}

/* Of undisturbed runs: three different ones. */
static void weights_by_remainder(const JobConfig *config, const SimFaults *data,
                                 uint64_t ret[REMAINDERS])
{
    for (int i = 0; i < REMAINDERS; i++) {
        JobConfig one = *config;
        one.data.remainder = (RemainderPolicy)i;
        ret[i] = undisturbed_weights(&one, data);
    }
    assert_true(ret[0] != ret[1] && ret[1] != ret[2] && ret[2] != ret[0]);
}

typedef struct Tally {
    int faults, ended[STATUS_COUNT];
} Tally;

static void run_schedules(uint64_t first_seed, int count, Tally *ret)
{
    const SimFaults data = {.bad_records = BAD_RECORDS, .bad_eval_records = BAD_RECORDS};
    JobConfig config = make_config(3, 2, 2);
    uint64_t expected[REMAINDERS];
    weights_by_remainder(&config, &data, expected);
    for (uint64_t seed = first_seed; seed < first_seed + (uint64_t)count; seed++) {
        SimFaults faults = faults_of(seed);
        config.data.remainder = remainder_of(seed);
        config.cluster.restarts_max = seed % 17 == 0 ? 1 : 32;
        config.eval.before_train = seed % 2 == 0;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        config.device = seed / 2 % 2 == 0 ? JOB_CPU : JOB_CUDA;
        config.rollout.colocate = seed % 3 != 0;
        config.rollout.prefetch_steps = 1 + (int64_t)(seed / 7 % 3);
        SimResult result = sim_run(&config, &faults, seed);
        ret->faults += result.deaths + result.restarts_of_controller;
        for (Status status = 0; status < STATUS_COUNT; status++)
            ret->ended[status] += result.ended[status];
        assert_right(&result, seed);
        if (result.weights != expected[config.data.remainder])
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
        if (result.saved.bad_records != BAD_RECORDS)
            fail_msg("seed %llu: %lld bad records are counted", (unsigned long long)seed,
                     (long long)result.saved.bad_records);
    }
}

static void test_simulation_survives_random_faults(void **state)
{
    (void)state;
    const char *seed = getenv("SIM_SEED");
    Tally tally = {0};
    int schedules = (int)count_or(300);
    run_schedules(seed != NULL ? strtoull(seed, NULL, 10) : 1, schedules, &tally);
    print_message("%d schedules, %d faults that struck; same command again after: %d stops, %d "
                  "full disks, %d spent budgets\n",
                  schedules, tally.faults, tally.ended[ERR_CANCELLED], tally.ended[ERR_RESOURCE],
                  tally.ended[ERR_UNAVAILABLE]);
    if (getenv("SIM_COUNT") != NULL) return;
    assert_true(tally.faults > 0);
    assert_true(tally.ended[ERR_CANCELLED] > 0);
    assert_true(tally.ended[ERR_RESOURCE] > 0);
    assert_true(tally.ended[ERR_UNAVAILABLE] > 0);
}

/* ---- reinforcement learning ---- */

/* In step with its own weights a run repeats itself, whatever strikes and whoever answers. */
static void test_simulation_generates_with_the_weights_of_the_step(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 2, 2);
    config.train.global_batch_size = 20; /* enough to come to the end of an epoch */
    uint64_t expected[REMAINDERS];
    weights_by_remainder(&config, &no_faults, expected);
    int faults_that_struck = 0;
    for (uint64_t seed = 1, count = count_or(125); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        config.data.remainder = remainder_of(seed);
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        config.rollout.prefetch_steps = 1 + (int64_t)(seed / 7 % 3);
        config.eval.before_train = seed % 2 == 0;
        SimResult result = sim_run(&config, &faults, seed);
        faults_that_struck += result.deaths + result.restarts_of_controller;
        assert_right(&result, seed);
        if (result.weights != expected[config.data.remainder])
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
    assert_true(faults_that_struck > 0);
}

/* With turns on a GPU nothing else comes out, and nobody is told to use what another one holds,
 * whatever strikes. */
static void test_simulation_takes_turns_on_gpus(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 1, 2);
    uint64_t expected = undisturbed_weights(&config, &no_faults);
    int faults_that_struck = 0;
    config.device = JOB_CUDA;
    config.rollout.colocate = true;
    config.rollout.offload = OFFLOAD_ON;
    assert_true(undisturbed_weights(&config, &no_faults) == expected);
    for (uint64_t seed = 1, count = count_or(125); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.over_sampling = seed % 4 == 0 ? 2 : 1;
        config.eval.before_train = seed % 2 == 0;
        SimResult result = sim_run(&config, &faults, seed);
        faults_that_struck += result.deaths + result.restarts_of_controller;
        assert_right(&result, seed);
        if (result.weights != expected)
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
    assert_true(faults_that_struck > 0);
}

/* Rollout workers of other hosts have their weights sent, in groups whose members do not see each
 * other die: nothing else comes out, whoever is killed at whatever moment, and nobody waits for the
 * dead. */
static void test_simulation_sends_weights_to_other_hosts(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 1, 1);
    uint64_t expected = undisturbed_weights(&config, &no_faults);
    SimResult sum = {0};
    config.device = JOB_CUDA;
    config.rollout.colocate = false;
    config.cluster.strategy = SPREAD;
    for (uint64_t seed = 1, count = count_or(125); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        faults.nodes = 2 + (int)(seed % 3);
        faults.hosts = seed % 2 == 0 ? 2 : faults.nodes;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.over_sampling = seed % 4 == 0 ? 2 : 1;
        config.eval.before_train = seed % 2 == 0;
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        sum.deaths += result.deaths;
        sum.received += result.received;
        sum.abandoned += result.abandoned;
        sum.met += result.met;
        if (result.weights != expected)
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
    print_message("%lld received, in %lld groups; %lld broken off\n", (long long)sum.received,
                  (long long)sum.met, (long long)sum.abandoned);
    assert_true(sum.deaths > 0 && sum.abandoned > 0 && sum.received > 4 * sum.met);
}

/* One group serves a whole run, unless one of its members is lost. */
static void test_simulation_joins_once_where_nobody_is_lost(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(4, 1, 1);
    config.device = JOB_CUDA;
    config.cluster.strategy = SPREAD;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        SimResult result = sim_run(&config, &(SimFaults){.nodes = 3, .hosts = 3}, seed);
        assert_right(&result, seed);
        assert_int_equal(result.met, 1);
        assert_true(result.received >= result.steps);
        assert_int_equal(result.abandoned, 0);
    }
}

/* On CPUs nothing reaches another host. */
static void test_simulation_refuses_weights_to_other_hosts_on_cpus(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 1, 1);
    config.cluster.strategy = SPREAD;
    SimResult result = sim_run(&config, &(SimFaults){.nodes = 2, .hosts = 2}, 3);
    assert_true(result.finished && result.violation[0] == '\0');
    assert_int_equal(result.status, ERR_UNSUPPORTED);
    assert_non_null(strstr(result.message, "is on host host-"));
    assert_non_null(strstr(result.message, "cluster.strategy: strict_pack"));
    assert_int_equal(result.leftover_processes, 0);
}

/* Ranks that are processes read weights on their host; on that of the train ranks they do. */
static void test_simulation_refuses_weights_to_ranks_of_other_hosts(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 2, 1);
    config.device = JOB_CUDA;
    config.rollout.colocate = false;
    config.rollout.num_workers = 1;
    config.cluster.strategy = SPREAD;
    SimResult result = sim_run(&config, &(SimFaults){.nodes = 2, .hosts = 2}, 3);
    assert_true(result.finished && result.violation[0] == '\0');
    assert_int_equal(result.status, ERR_UNSUPPORTED);
    assert_non_null(strstr(result.message, "train.tp_size: rollout-0 is on host host-"));
    assert_non_null(strstr(result.message, "reads weights on its own host alone"));
    assert_non_null(strstr(result.message, "cluster.strategy: strict_pack"));
    assert_int_equal(result.leftover_processes, 0);
    config.cluster.strategy = STRICT_PACK;
    result = sim_run(&config, &(SimFaults){.nodes = 2, .hosts = 2}, 3);
    assert_right(&result, 3);
}

/* Rollout workers whose ranks are processes: whoever of them is lost, and when, the worker goes
 * over to weights with ranks of its own group that have just these, with turns on a GPU and
 * without. */
static void test_simulation_starts_ranks_of_a_rollout_worker_together(void **state)
{
    (void)state;
    const JobConfig threads[2] = {make_rl_config(3, 2, 1), make_rl_config(3, 2, 2)};
    const uint64_t expected[2] = {undisturbed_weights(&threads[0], &no_faults),
                                  undisturbed_weights(&threads[1], &no_faults)};
    int faults_that_struck = 0;
    for (uint64_t seed = 0, count = count_or(125); seed < count; seed++) {
        bool turns = seed % 3 == 0, apart = seed % 3 == 1; /* apart: a node has four GPUs */
        JobConfig config = threads[!apart];
        config.rollout.ranks = RANKS_PROCESSES;
        config.device = turns || apart ? JOB_CUDA : JOB_CPU;
        config.rollout.colocate = !apart;
        config.rollout.offload = turns ? OFFLOAD_ON : OFFLOAD_OFF;
        config.rollout.num_workers = apart ? 1 : 1 + (int64_t)(seed / 3 % 4);
        SimFaults faults = faults_of(seed);
        if (seed < 3) faults = no_faults;
        faults.bad_records = faults.bad_eval_records = 0;
        SimResult result = sim_run(&config, &faults, seed);
        faults_that_struck += result.deaths + result.restarts_of_controller;
        assert_right(&result, seed);
        if (result.weights != expected[!apart])
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
    assert_true(faults_that_struck > 0);
}

/* What is over-sampled, and how many workers answer, is nothing to the batches: they take the first
 * groups that pass. Answered again, what was left over gives the same ones; dropped, it gives
 * others, which are the same under all faults. */
static void check_over_sampling(double factor, TooStalePolicy policy, uint64_t expected)
{
    JobConfig config = make_rl_config(3, 2, 1);
    config.rollout.over_sampling = factor;
    config.rollout.too_stale = policy;
    int64_t let_go_of = 0;
    for (uint64_t seed = 1, count = count_or(125); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        config.eval.before_train = seed % 2 == 0;
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        let_go_of += policy == TOO_STALE_DROP ? result.dropped : result.recomputed;
        if (result.weights != expected)
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
    assert_true(let_go_of > 0);
}

static void test_simulation_over_samples_without_a_trace_in_the_batches(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(1, 1, 1);
    uint64_t expected = undisturbed_weights(&config, &no_faults);
    check_over_sampling(1.5, TOO_STALE_RECOMPUTE, expected);
    check_over_sampling(3, TOO_STALE_RECOMPUTE, expected);
    config.rollout.over_sampling = 2.2;
    config.rollout.too_stale = TOO_STALE_DROP;
    uint64_t dropped = undisturbed_weights(&config, &no_faults);
    assert_true(dropped != expected);
    check_over_sampling(2.2, TOO_STALE_DROP, dropped);
}

/* A third of the groups is rejected: with others at hand nobody waits for their replacement. */
static void test_simulation_is_sooner_done_with_over_sampling(void **state)
{
    (void)state;
    int64_t plain_ms = 0, over_sampled_ms = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        JobConfig config = make_rl_config(8, 1, 1);
        SimResult plain = sim_run(&config, &no_faults, seed);
        config.rollout.over_sampling = 2;
        SimResult over_sampled = sim_run(&config, &no_faults, seed);
        assert_right(&plain, seed);
        assert_right(&over_sampled, seed);
        plain_ms += plain.end_ms;
        over_sampled_ms += over_sampled.end_ms;
    }
    assert_true(over_sampled_ms < plain_ms);
}

/* (max_staleness + 1) batches are ahead of what the weights have learnt: all of them, and not one
 * group more. */
static void test_simulation_leases_what_the_staleness_allows(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        JobConfig config = make_rl_config(1 + (int)(seed % 4), 1, 1);
        config.algorithm.dynamic_filter = FILTER_NONE;
        config.algorithm.advantage_estimator = ADVANTAGE_REINFORCE_PLUS_PLUS;
        config.rollout.max_staleness = (int64_t)(seed / 4 % 5);
        config.rollout.prefetch_steps = 1;
        config.train.num_steps_per_rollout = 1 + (int64_t)(seed / 3 % 3);
        SimResult result =
            sim_run(&config, seed % 2 == 0 ? &no_faults : &(SimFaults){.kills = 4}, seed);
        assert_right(&result, seed);
        int64_t groups = job_samples_per_step(&config) / config.rollout.n_samples_per_prompt;
        assert_int_equal(result.most_ahead, (config.rollout.max_staleness + 1) * groups);
    }
}

/* Asynchronous: no answer is older than allowed, nothing stands still. */
static void test_simulation_keeps_answers_within_the_staleness(void **state)
{
    (void)state;
    int64_t dropped = 0, recomputed = 0;
    for (uint64_t seed = 1, count = count_or(250); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        JobConfig config = make_rl_config(1 + (int)(seed % 5), 1 + (int)(seed % 2), 1);
        config.rollout.max_staleness = 1 + (int64_t)(seed % 3);
        config.rollout.over_sampling = 1 + (double)(seed / 2 % 4) / 2;
        config.rollout.too_stale = seed / 8 % 2 == 0 ? TOO_STALE_RECOMPUTE : TOO_STALE_DROP;
        config.train.global_batch_size = seed % 2 == 0 ? 8 : 20;
        config.data.remainder = remainder_of(seed);
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        dropped += result.dropped;
        recomputed += result.recomputed;
        if (config.rollout.over_sampling == 1) /* there is nothing that could be too old */
            assert_int_equal(result.dropped + result.recomputed, 0);
    }
    assert_true(dropped > 0 && recomputed > 0);
}

/* ---- stages ---- */

/* Supervised, by rewards with other groups and more workers, supervised again. */
static void make_stages(JobConfig stage[3], const JobConfig *list[3], uint64_t seed)
{
    stage[0] = make_config(1 + (int)(seed % 3), 2, 2);
    stage[1] = make_rl_config(1 + (int)(seed / 3 % 5), 2, 2);
    stage[2] = make_config(1 + (int)(seed / 7 % 2), 2, 2);
    static char by_loss[] = "eval/loss", by_reward[] = "more/reward";
    stage[0].eval.best_metric = by_loss;
    stage[0].eval.best_mode = BEST_MIN;
    stage[1].eval.best_metric = by_reward;
    stage[1].eval.best_mode = BEST_MAX;
    stage[0].checkpoint.keep_best = stage[1].checkpoint.keep_best = (int64_t)(seed % 2);
    stage[0].train.num_steps = 12;
    stage[1].train.num_steps = 7;
    stage[1].eval.before_train = seed % 2 == 0;
    stage[2].train.num_steps = 5;
    stage[2].train.global_batch_size = 4;
    stage[2].data.eval.count = 0;
    for (int i = 0; i < 3; i++) {
        stage[i].data.bad_records_max = 0;
        stage[i].rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        list[i] = &stage[i];
    }
}

static void test_simulation_goes_through_stages_whatever_strikes(void **state)
{
    (void)state;
    JobConfig stage[3];
    const JobConfig *list[3];
    make_stages(stage, list, 1);
    SimResult first = sim_run_stages(list, 3, &no_faults, 1);
    assert_right(&first, 1);
    assert_int_equal(first.steps, 24);
    assert_int_equal(first.stages, 3);
    assert_int_equal(first.train_processes, 4); /* the same from the first step to the last */
    /* Data source and rollout workers of the first two stages went by themselves. */
    int workers = (int)(stage[0].rollout.num_workers + stage[1].rollout.num_workers);
    assert_int_equal(first.left, 2 + workers);
    assert_int_equal(first.killed_amid, 0);
    assert_int_equal(first.saved.stage, 2);
    assert_int_equal(first.saved.stage_begin, 19);
    for (uint64_t seed = 1, count = count_or(250); seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        faults.never_leaves = seed % 3 == 0 ? 0.3 : 0;
        make_stages(stage, list, seed);
        SimResult result = sim_run_stages(list, 3, &faults, seed);
        assert_right(&result, seed);
        if (result.weights != first.weights)
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
}

/* Whenever it is asked for, a swap comes about after the step in work, once, and stays. */
static void test_simulation_swaps_a_stage_while_it_runs(void **state)
{
    (void)state;
    int swapped = 0;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        JobConfig config = make_config(1 + (int)(seed % 3), 2, 1), later = make_rl_config(3, 2, 1);
        config.cluster.rollout_workers_max = 3;
        config.data.bad_records_max = 0;
        later.train.num_steps = 6;
        faults.swap = &later;
        const JobConfig *list = &config;
        SimResult result = sim_run_stages(&list, 1, &faults, seed);
        assert_right(&result, seed);
        if (result.saved.stage == 0) continue; /* it was over before anybody asked */
        swapped++;
        assert_true(result.steps <= 24 + 6);
        assert_int_equal(result.steps, result.saved.stage_begin + 6);
    }
    assert_true(swapped > 125);
}

/* Near to what it begins with, which must stand in a checkpoint: also where a save of that step
 * failed before anybody asked for the swap. */
static void test_simulation_swaps_with_the_checkpoint_that_a_stage_needs(void **state)
{
    (void)state;
    static char start[] = REFERENCE_START;
    int swapped = 0;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        SimFaults faults = {.kills = (int)(seed % 4), .failed_save = 0.5};
        JobConfig config = make_config(1 + (int)(seed % 3), 2, 1), later = make_rl_config(3, 2, 1);
        config.cluster.rollout_workers_max = 3;
        config.data.bad_records_max = 0;
        config.checkpoint.interval = config.eval.interval = 2;
        later.train.num_steps = 6;
        later.algorithm.kl_loss_coef = 0.1;
        later.algorithm.reference = start;
        faults.swap = &later;
        const JobConfig *list = &config;
        SimResult result = sim_run_stages(&list, 1, &faults, seed);
        assert_right(&result, seed);
        swapped += result.saved.stage > 0;
    }
    assert_true(swapped > 75);
}

/* ---- half runs ---- */

/* Nothing is trained and nothing saved, every prompt is answered with the first weights, and the
 * run ends, whatever strikes. */
static void test_simulation_generates_without_training(void **state)
{
    (void)state;
    static char folder[] = "answers";
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        JobConfig config = make_rl_config(1 + (int)(seed % 4), 2, 1);
        SimFaults faults = seed == 1 ? no_faults : faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        faults.failed_append = 0;
        config.rollout.only = true;
        config.rollout.save = folder;
        config.train.num_steps = 0;
        config.train.num_epochs = 1;
        config.train.global_batch_size = 20; /* 5 prompts: the last batch is smaller */
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_int_equal(result.steps_begun, 0);
        assert_int_equal(result.saved.step, 0);
        if (result.ledger_end != SIM_RECORDS)
            fail_msg("seed %llu: answers up to position %lld", (unsigned long long)seed,
                     (long long)result.ledger_end);
    }
}

/* ---- the best checkpoints ---- */

static void assert_same_best(const BestList *a, const BestList *b, uint64_t seed)
{
    bool same = a->count == b->count;
    for (int i = 0; same && i < a->count; i++)
        same = a->item[i].step == b->item[i].step && a->item[i].value == b->item[i].value;
    if (!same) fail_msg("seed %llu: other best checkpoints", (unsigned long long)seed);
}

/* Whatever strikes, the same evaluations are the best ones, with the same values, and each has its
 * checkpoint (the make-believe disk sees to that). A save that the disk refuses is not kept. */
static void check_best(JobConfig *config, const char *metric, BestMode mode)
{
    static char text[32];
    uint64_t count = count_or(125);
    snprintf(text, sizeof text, "%s", metric);
    config->eval.best_metric = text;
    config->eval.best_mode = mode;
    config->eval.interval = 3;
    config->checkpoint.keep_best = 2;
    SimResult quiet = sim_run(config, &no_faults, 1);
    assert_right(&quiet, 1);
    assert_int_equal(quiet.saved.best.count, 2);
    assert_int_equal(quiet.saved.evaluated, quiet.steps);
    double first = quiet.saved.best.item[0].value, second = quiet.saved.best.item[1].value;
    assert_true(mode == BEST_MAX ? first >= second : first <= second);
    for (uint64_t seed = 1; seed <= count; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        faults.failed_save = faults.failed_append = 0;
        config->rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config->eval.before_train = seed % 2 == 0;
        SimResult result = sim_run(config, &faults, seed);
        assert_right(&result, seed);
        if (result.saved.evaluated == quiet.steps) /* not stopped politely in its last evaluation */
            assert_same_best(&result.saved.best, &quiet.saved.best, seed);
        else
            assert_true(faults.stops > 0);
    }
    for (uint64_t seed = 1; seed <= count / 10; seed++) { /* a save fails: it goes on */
        SimResult result = sim_run(config, &(SimFaults){.failed_save = 0.2, .kills = 1}, seed);
        assert_right(&result, seed);
    }
}

static void test_simulation_keeps_the_best_checkpoints_whatever_strikes(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 2, 2);
    check_best(&config, "eval/loss", BEST_MIN);
    config = make_rl_config(3, 2, 1);
    check_best(&config, "more/pass@2", BEST_MAX);
}

static void test_simulation_gives_up_past_the_restart_budget(void **state)
{
    (void)state;
    JobConfig config = make_config(1, 1, 1);
    config.train.num_steps = 400;
    config.cluster.restarts_max = 2;
    config.cluster.restarts_window_s = 3600;
    int gave_up = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        SimResult result = sim_run(&config, &(SimFaults){.kills = 30}, seed);
        assert_right(&result, seed); /* every session that ended did so with the right message */
        gave_up += result.ended[ERR_UNAVAILABLE];
    }
    assert_true(gave_up > 0);
}

/* A commit that lands while the run is ending does not bring it back. */
static void test_simulation_ends_though_a_commit_lands_late(void **state)
{
    (void)state;
    JobConfig config = make_config(2, 1, 1);
    config.data.eval.count = config.eval.sets.count = 0;
    config.train.num_steps = 100;
    config.checkpoint.interval = 1;
    config.cluster.restarts_max = 0;
    config.cluster.restarts_window_s = 600;
    int gave_up = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        SimFaults faults = {.kills = 1, .stops = 1, .late_commit = 0.3};
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        gave_up += result.ended[ERR_UNAVAILABLE];
    }
    assert_true(gave_up > 0);
}

/* A budget above 32 counts so far. */
/* That the last step was the last is known when its data is over, which may be behind its save: one
 * that failed is made up for, or it is told. */
static void test_simulation_saves_the_last_step_of_data_that_ends_early(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 1, 1);
    config.train.num_steps = 0;
    config.train.num_epochs = 1; /* of twelve batches, if none of its records were rejected */
    config.data.bad_records_max = 0;
    int failed = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        SimFaults faults = {.failed_save = 0.4, .late_commit = seed % 3 == 0 ? 0.4 : 0};
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_int_equal(result.steps, 2 * config.checkpoint.interval);
        failed += result.ended[ERR_RESOURCE];
    }
    assert_true(failed > 0);
}

static void test_simulation_restarts_as_often_as_the_budget_says(void **state)
{
    (void)state;
    JobConfig config = make_config(6, 1, 1);
    config.train.num_steps = 5000;
    config.cluster.restarts_max = 70;
    config.cluster.restarts_window_s = 100000;
    SimResult result = sim_run(&config, &(SimFaults){.kills = 70}, 3);
    assert_right(&result, 3);
    assert_int_equal(result.ended[ERR_UNAVAILABLE], 0);
    assert_true(result.deaths > 60);
}

/* One death of an agent is one cause, however many workers die with it. */
static void test_simulation_survives_an_agent_with_more_workers_than_restarts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        JobConfig config = make_config(9, 2, 1);
        config.cluster.restarts_max = 1;
        SimResult result = sim_run(&config, &(SimFaults){.agent_kills = 1}, seed);
        assert_right(&result, seed);
        assert_int_equal(result.ended[ERR_UNAVAILABLE], 0);
    }
}

static void test_simulation_refuses_a_group_that_cannot_be_placed(void **state)
{
    (void)state;
    for (int nodes = 1; nodes <= 2; nodes++) {
        JobConfig config = make_config(3, 8, 8);
        SimResult result = sim_run(&config, &(SimFaults){.nodes = nodes}, 5);
        assert_true(result.finished);
        assert_int_equal(result.status, ERR_RESOURCE);
        assert_true(result.end_ms < 10000);
    }
}

/* ---- what is waited for ---- */

/* However long the files are: as long as the data source gets on with them, nobody is impatient. */
static void test_simulation_waits_for_a_data_source_that_gets_on(void **state)
{
    (void)state;
    JobConfig config = make_config(2, 1, 1);
    config.cluster.restarts_max = 0;
    SimResult result = sim_run(&config, &(SimFaults){.open_ms = 20 * 60 * 1000}, 3);
    assert_right(&result, 3);
    assert_true(result.end_ms > 20 * 60 * 1000);
    assert_int_equal(result.ended[ERR_UNAVAILABLE], 0);
}

/* What rollout workers try in vain reaches the terminal at once, and not at each beat. */
static void test_simulation_tells_what_is_tried_in_vain(void **state)
{
    (void)state;
    JobConfig config = make_config(1, 1, 1);
    SimFaults faults = {.trouble = "rollout.reward: http://x: refused (3 tries in 4 s)",
                        .open_ms = 10000};
    SimResult result = sim_run(&config, &faults, 3);
    assert_right(&result, 3);
    assert_string_equal(result.trouble,
                        "rollout-0: rollout.reward: http://x: refused (3 tries in 4 s)");
    assert_in_range(result.troubles_told, 1, 1 + result.end_ms / 30000);
    assert_int_equal(sim_run(&config, &no_faults, 3).troubles_told, 0);
}

/* ---- the same run folder, another job ---- */

static void test_simulation_ends_when_the_checkpoint_is_past_the_last_step(void **state)
{
    (void)state;
    JobConfig config = make_config(2, 1, 1), later = config;
    later.train.num_steps = 3;
    int past = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        SimResult result = sim_run(&config, &(SimFaults){.stops = 1, .later = &later}, seed);
        assert_right(&result, seed);
        assert_true(result.steps >= 3);
        past += result.restarts_of_controller > 0 && result.steps > 3;
    }
    assert_true(past > 0);
}

static void test_simulation_never_destroys_a_checkpoint_it_may_not_use(void **state)
{
    (void)state;
    JobConfig config = make_config(2, 1, 1), later = config;
    later.checkpoint.resume = RESUME_NEVER;
    int refused = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        SimResult result = sim_run(&config, &(SimFaults){.stops = 1, .later = &later}, seed);
        assert_string_equal(result.violation, "");
        assert_true(result.finished);
        if (result.status == OK) continue; /* stopped before its first checkpoint, or never */
        assert_int_equal(result.status, ERR_EXISTS);
        assert_non_null(strstr(result.message, "checkpoint.resume"));
        assert_true(result.steps > 0);
        refused++;
    }
    assert_true(refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulation_batches_do_not_depend_on_workers_or_latencies),
        cmocka_unit_test(test_simulation_survives_random_faults),
        cmocka_unit_test(test_simulation_keeps_the_books_of_a_mixture),
        cmocka_unit_test(test_simulation_generates_with_the_weights_of_the_step),
        cmocka_unit_test(test_simulation_takes_turns_on_gpus),
        cmocka_unit_test(test_simulation_sends_weights_to_other_hosts),
        cmocka_unit_test(test_simulation_joins_once_where_nobody_is_lost),
        cmocka_unit_test(test_simulation_refuses_weights_to_other_hosts_on_cpus),
        cmocka_unit_test(test_simulation_refuses_weights_to_ranks_of_other_hosts),
        cmocka_unit_test(test_simulation_starts_ranks_of_a_rollout_worker_together),
        cmocka_unit_test(test_simulation_over_samples_without_a_trace_in_the_batches),
        cmocka_unit_test(test_simulation_is_sooner_done_with_over_sampling),
        cmocka_unit_test(test_simulation_leases_what_the_staleness_allows),
        cmocka_unit_test(test_simulation_keeps_answers_within_the_staleness),
        cmocka_unit_test(test_simulation_goes_through_stages_whatever_strikes),
        cmocka_unit_test(test_simulation_swaps_a_stage_while_it_runs),
        cmocka_unit_test(test_simulation_swaps_with_the_checkpoint_that_a_stage_needs),
        cmocka_unit_test(test_simulation_generates_without_training),
        cmocka_unit_test(test_simulation_keeps_the_best_checkpoints_whatever_strikes),
        cmocka_unit_test(test_simulation_gives_up_past_the_restart_budget),
        cmocka_unit_test(test_simulation_ends_though_a_commit_lands_late),
        cmocka_unit_test(test_simulation_saves_the_last_step_of_data_that_ends_early),
        cmocka_unit_test(test_simulation_restarts_as_often_as_the_budget_says),
        cmocka_unit_test(test_simulation_survives_an_agent_with_more_workers_than_restarts),
        cmocka_unit_test(test_simulation_refuses_a_group_that_cannot_be_placed),
        cmocka_unit_test(test_simulation_waits_for_a_data_source_that_gets_on),
        cmocka_unit_test(test_simulation_tells_what_is_tried_in_vain),
        cmocka_unit_test(test_simulation_ends_when_the_checkpoint_is_past_the_last_step),
        cmocka_unit_test(test_simulation_never_destroys_a_checkpoint_it_may_not_use),
    };
    /* Each run takes what the one before gave back: not from the kernel, page by page. */
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
