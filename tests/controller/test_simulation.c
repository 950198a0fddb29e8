/* The controller's core against thousands of random fault schedules: kills, hangs, lost replies,
 * dead agents, dead and restarted controllers, polite stops, full disks. Whatever happens, the run
 * ends with the weights of an undisturbed one, every position is consumed exactly once and in
 * order, and nothing is left running or reserved. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_world.h"

static JobConfig make_config(int workers, int tp, int dp)
{
    static char eval_file[] = "eval";
    static char *eval_list[] = {eval_file};
    JobConfig config = {0};
    config.data.eval = (StringList){eval_list, 1};
    config.data.too_long = POLICY_SKIP;
    config.rollout.num_workers = workers;
    config.rollout.lease_size = 3;
    config.rollout.prefetch_steps = 2;
    config.train.tp_size = tp;
    config.train.dp_size = dp;
    config.train.num_steps = 24;
    config.train.global_batch_size = 8;
    config.train.max_tokens_per_gpu = 128;
    config.eval.interval = 10;
    config.eval.before_train = true;
    config.checkpoint.interval = 5;
    config.cluster.strategy = PACK;
    config.cluster.cpus_per_train_worker = 1;
    config.cluster.cpus_per_rollout_worker = 1;
    config.cluster.cpus_per_data_source = 0.5;
    config.cluster.heartbeat_ms = 500;
    config.cluster.suspect_ms = 3000;
    config.cluster.dead_ms = 10000;
    config.cluster.progress_s = 120;
    config.cluster.restarts_max = 32;
    config.cluster.restarts_window_s = 60;
    return config;
}

static const SimFaults no_faults;

static uint64_t undisturbed_weights(const JobConfig *config)
{
    SimResult result = sim_run(config, &no_faults, 1);
    if (!result.finished || result.status != OK)
        fail_msg("the undisturbed run ended with %s: %s", status_name(result.status),
                 result.message);
    assert_int_equal(result.steps, config->train.num_steps);
    return result.weights;
}

static void test_simulation_batches_do_not_depend_on_workers_or_latencies(void **state)
{
    (void)state;
    JobConfig reference = make_config(1, 2, 1);
    uint64_t expected = undisturbed_weights(&reference);
    for (int workers = 1; workers <= 8; workers++) {
        JobConfig config = make_config(workers, 2, 1);
        config.rollout.lease_size = 1 + workers % 4;
        config.rollout.prefetch_steps = workers % 3;
        SimResult result = sim_run(&config, &no_faults, 100 + (uint64_t)workers);
        assert_true(result.finished && result.status == OK);
        assert_true(result.weights == expected);
    }
}

static void run_schedules(uint64_t first_seed, int count, int *ret_deaths)
{
    JobConfig config = make_config(3, 2, 2);
    uint64_t expected = undisturbed_weights(&config);
    for (uint64_t seed = first_seed; seed < first_seed + (uint64_t)count; seed++) {
        SimFaults faults = {
            .kills = (int)(seed % 6),
            .agent_kills = (int)(seed / 6 % 2),
            .hangs = (int)(seed / 12 % 3),
            .controller_kills = (int)(seed / 36 % 3),
            .stops = (int)(seed / 108 % 2),
            .lost_reply = seed % 5 == 0 ? 0.002 : 0,
            .failed_save = seed % 7 == 0 ? 0.1 : 0,
        };
        SimResult result = sim_run(&config, &faults, seed);
        *ret_deaths += result.deaths + result.restarts_of_controller;
        bool refused_by_disk = faults.failed_save > 0 && result.status == ERR_RESOURCE;
        if (!result.finished || (result.status != OK && !refused_by_disk))
            fail_msg("seed %llu: %s after %lld ms: %s", (unsigned long long)seed,
                     result.finished ? status_name(result.status) : "never ended",
                     (long long)result.end_ms, result.message);
        if (result.leftover_processes != 0 || result.leftover_cpu != 0)
            fail_msg("seed %llu: %d processes and %g CPUs are left", (unsigned long long)seed,
                     result.leftover_processes, result.leftover_cpu);
        if (!refused_by_disk && result.weights != expected)
            fail_msg("seed %llu: other weights than the undisturbed run", (unsigned long long)seed);
    }
}

static void test_simulation_survives_random_faults(void **state)
{
    (void)state;
    const char *seed = getenv("SIM_SEED"), *count = getenv("SIM_COUNT");
    int deaths = 0, schedules = count != NULL ? atoi(count) : 10000;
    run_schedules(seed != NULL ? strtoull(seed, NULL, 10) : 1, schedules, &deaths);
    print_message("%d schedules, %d faults that struck\n", schedules, deaths);
    assert_true(deaths > 0);
}

static void test_simulation_gives_up_past_the_restart_budget(void **state)
{
    (void)state;
    JobConfig config = make_config(1, 1, 1);
    config.train.num_steps = 400;
    config.cluster.restarts_max = 2;
    config.cluster.restarts_window_s = 3600;
    SimFaults faults = {.kills = 200};
    SimResult result = sim_run(&config, &faults, 5);
    assert_true(result.finished);
    assert_int_equal(result.status, ERR_UNAVAILABLE);
    assert_non_null(strstr(result.message, "restarts_max"));
    assert_int_equal(result.leftover_processes, 0);
}

static void test_simulation_refuses_a_group_that_cannot_be_placed(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 4, 8);
    SimResult result = sim_run(&config, &no_faults, 5);
    assert_true(result.finished);
    assert_int_equal(result.status, ERR_RESOURCE);
    assert_true(result.end_ms < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulation_batches_do_not_depend_on_workers_or_latencies),
        cmocka_unit_test(test_simulation_survives_random_faults),
        cmocka_unit_test(test_simulation_gives_up_past_the_restart_budget),
        cmocka_unit_test(test_simulation_refuses_a_group_that_cannot_be_placed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
