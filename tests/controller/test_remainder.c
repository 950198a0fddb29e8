/* The remainder of an epoch, with data.remainder: drop, in the make-believe cluster: each batch is
 * of one epoch, and what is passed over is the same whatever strikes, in supervised training and
 * with the weights of the step. */
#include "test.h"

#include <string.h>

#include "sim_jobs.h"

static void drop_remainders(JobConfig *config, int64_t batch)
{
    config->data.remainder = REMAINDER_DROP;
    config->data.bad_records_max = 0;
    config->train.global_batch_size = batch * config->rollout.n_samples_per_prompt;
    config->train.num_steps = 0;
    config->train.num_epochs = 3;
}

/* Records of an epoch that can be trained. */
static int64_t trained_of_epoch(const SimFaults *data)
{
    JobConfig config = make_config(3, 1, 1);
    drop_remainders(&config, 1);
    config.train.num_epochs = 1;
    SimResult result = sim_run(&config, data, 1);
    assert_right(&result, 1);
    return result.steps;
}

static void test_remainder_of_each_epoch_is_dropped(void **state)
{
    (void)state;
    int64_t trained = trained_of_epoch(&no_faults);
    assert_true(trained > SIM_RECORDS / 2 && trained < SIM_RECORDS); /* some are too long */
    for (int64_t batch = 2; batch <= 60; batch++) {
        JobConfig config = make_config(3, 2, 2);
        drop_remainders(&config, batch);
        SimResult result = sim_run(&config, &no_faults, (uint64_t)batch);
        assert_right(&result, (uint64_t)batch);
        assert_int_equal(result.steps, 3 * (trained / batch));
        assert_int_equal(result.saved.consumed_samples, result.steps * batch);
        /* All is told of but what the last epoch has behind its last step. */
        assert_true(result.ledger_end > 2 * SIM_RECORDS && result.ledger_end <= 3 * SIM_RECORDS);
        config.data.remainder = REMAINDER_WRAP;
        result = sim_run(&config, &no_faults, (uint64_t)batch);
        assert_right(&result, (uint64_t)batch);
        assert_int_equal(result.steps, 3 * trained / batch);
    }
}

static void test_remainder_is_the_same_whatever_strikes(void **state)
{
    (void)state;
    int faults_that_struck = 0;
    for (int64_t batch = 7; batch <= 31; batch += 4) {
        const SimFaults data = {.bad_records = BAD_RECORDS};
        JobConfig config = make_config(3, 2, 2);
        drop_remainders(&config, batch);
        SimResult calm = sim_run(&config, &data, 1);
        assert_right(&calm, 1);
        assert_int_equal(calm.steps, 3 * (trained_of_epoch(&data) / batch));
        for (uint64_t seed = 1; seed <= 60; seed++) {
            SimFaults faults = faults_of(seed);
            faults.bad_eval_records = 0;
            config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
            config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
            config.rollout.prefetch_steps = 1 + (int64_t)(seed / 7 % 3);
            SimResult result = sim_run(&config, &faults, seed);
            assert_right(&result, seed);
            faults_that_struck += result.deaths + result.restarts_of_controller;
            assert_int_equal(result.steps, calm.steps);
            assert_true(result.weights == calm.weights);
            assert_int_equal(result.ledger_end, calm.ledger_end);
            assert_int_equal(result.saved.rejected_samples, calm.saved.rejected_samples);
            assert_int_equal(result.saved.bad_records, calm.saved.bad_records);
        }
    }
    assert_true(faults_that_struck > 0);
}

/* Its epochs are those of the mixture; the world checks what is counted of each source. */
static void test_remainder_of_a_mixture_is_the_same_whatever_strikes(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 1, 2);
    drop_remainders(&config, 10);
    config.data.sources = three_sources();
    SimResult calm = sim_run(&config, &no_faults, 1);
    assert_right(&calm, 1);
    assert_int_equal(calm.steps, 3 * (trained_of_epoch(&no_faults) / 10));
    for (uint64_t seed = 1; seed <= 60; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_true(result.weights == calm.weights);
        assert_int_equal(result.ledger_end, calm.ledger_end);
    }
}

/* In step with its own weights nobody answers for the next step before this one is trained: what is
 * over must not be waited for. A third of the groups is rejected. */
static void test_remainder_of_generation_is_not_waited_for(void **state)
{
    (void)state;
    JobConfig config = make_rl_config(3, 2, 2);
    drop_remainders(&config, 10);
    SimResult calm = sim_run(&config, &no_faults, 1);
    assert_right(&calm, 1);
    assert_true(calm.steps > 0 && calm.steps < 3 * (SIM_RECORDS / 10));
    for (uint64_t seed = 1; seed <= 150; seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_true(result.weights == calm.weights);
        assert_int_equal(result.ledger_end, calm.ledger_end);
    }
    for (int staleness = 0; staleness < 3; staleness++) /* and ends in every other manner, too */
        for (uint64_t seed = 1; seed <= 40; seed++) {
            SimFaults faults = faults_of(seed);
            faults.bad_records = faults.bad_eval_records = 0;
            config.rollout.max_staleness = staleness;
            config.rollout.over_sampling = seed % 2 == 0 ? 1 : 1.5;
            config.rollout.too_stale = seed / 2 % 2 == 0 ? TOO_STALE_RECOMPUTE : TOO_STALE_DROP;
            SimResult result = sim_run(&config, &faults, seed);
            assert_right(&result, seed);
            assert_true(result.steps > 0);
        }
}

static void test_remainder_refuses_an_epoch_that_is_no_batch(void **state)
{
    (void)state;
    JobConfig config = make_config(1, 1, 1);
    config.data.remainder = REMAINDER_DROP;
    config.train.global_batch_size = SIM_RECORDS + 1;
    SimResult result = sim_run(&config, &no_faults, 1);
    assert_int_equal(result.status, ERR_INVALID);
    assert_non_null(strstr(result.message, "a batch takes 97 records, but an epoch has 96"));
    assert_non_null(strstr(result.message, "data.remainder: wrap"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_remainder_of_each_epoch_is_dropped),
        cmocka_unit_test(test_remainder_is_the_same_whatever_strikes),
        cmocka_unit_test(test_remainder_of_a_mixture_is_the_same_whatever_strikes),
        cmocka_unit_test(test_remainder_of_generation_is_not_waited_for),
        cmocka_unit_test(test_remainder_refuses_an_epoch_that_is_no_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
