/* The remainder of an epoch, dropped or a step of its own, in the make-believe cluster: each batch
 * is of one epoch, which the world checks, and the run is the same whatever strikes, in supervised
 * training and with the weights of the step. */
#include "test.h"

#include <string.h>

#include "sim_jobs.h"

static const RemainderPolicy policies[] = {REMAINDER_DROP, REMAINDER_PAD};

static void keep_epochs(JobConfig *config, RemainderPolicy policy, int64_t batch)
{
    config->data.remainder = policy;
    config->data.bad_records_max = 0;
    config->train.global_batch_size = batch * config->rollout.n_samples_per_prompt;
    config->train.num_steps = 0;
    config->train.num_epochs = 3;
}

/* Records of an epoch that can be trained. */
static int64_t trained_of_epoch(const SimFaults *data)
{
    JobConfig config = make_config(3, 1, 1);
    keep_epochs(&config, REMAINDER_DROP, 1);
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
        keep_epochs(&config, REMAINDER_DROP, batch);
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

/* Nothing is dropped or repeated, also where an epoch is less than a batch or than there are ranks.
 */
static void test_remainder_of_each_epoch_is_a_step(void **state)
{
    (void)state;
    int64_t trained = trained_of_epoch(&no_faults);
    for (int64_t batch = 2; batch <= 120; batch += 1 + batch / 30) {
        JobConfig config = make_config(3, 1, 5);
        keep_epochs(&config, REMAINDER_PAD, batch);
        SimResult result = sim_run(&config, &no_faults, (uint64_t)batch);
        assert_right(&result, (uint64_t)batch);
        assert_int_equal(result.steps, 3 * ((trained + batch - 1) / batch));
        assert_int_equal(result.saved.consumed_samples, 3 * trained);
        assert_true(result.ledger_end > 2 * SIM_RECORDS && result.ledger_end <= 3 * SIM_RECORDS);
        if (trained % batch != 0) assert_int_equal(result.ledger_end, 3 * SIM_RECORDS);
    }
}

static int64_t steps_of(RemainderPolicy policy, int64_t trained, int64_t batch)
{
    return (trained + (policy == REMAINDER_PAD ? batch - 1 : 0)) / batch;
}

static void test_remainder_is_the_same_whatever_strikes(void **state)
{
    (void)state;
    int faults_that_struck = 0;
    for (int64_t batch = 7; batch <= 55; batch += 4) {
        const SimFaults data = {.bad_records = BAD_RECORDS};
        RemainderPolicy policy = policies[batch / 4 % 2];
        JobConfig config = make_config(3, 2, 2);
        keep_epochs(&config, policy, batch);
        SimResult calm = sim_run(&config, &data, 1);
        assert_right(&calm, 1);
        assert_int_equal(calm.steps, 3 * steps_of(policy, trained_of_epoch(&data), batch));
        for (uint64_t seed = 1; seed <= TEST_RUNS(60); seed++) {
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

/* The command given again with another batch, length and remainder goes on at the very position:
 * the world knows what each step is to be. */
static void test_remainder_goes_on_exactly_with_another_batch(void **state)
{
    (void)state;
    int changed = 0;
    for (uint64_t seed = 1; seed <= TEST_RUNS(400); seed++) {
        SimFaults faults = faults_of(seed);
        JobConfig config = make_config(1 + (int)(seed % 4), 1, 2), later;
        faults.bad_eval_records = 0;
        faults.controller_kills = 1 + (int)(seed % 2);
        faults.later = &later;
        keep_epochs(&config, (RemainderPolicy)(seed % 3), 1 + (int64_t)(seed * 7 % 60));
        config.data.bad_records_max = BAD_RECORDS;
        later = config;
        keep_epochs(&later, (RemainderPolicy)(seed / 3 % 3), 1 + (int64_t)(seed * 11 % 60));
        later.data.bad_records_max = BAD_RECORDS;
        later.train.num_epochs = 3 + (int64_t)(seed % 4);
        later.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        bool other = later.train.global_batch_size != config.train.global_batch_size;
        changed += other && result.restarts_of_controller > 0;
    }
    assert_true(changed > TEST_RUNS(100));
}

/* Steps that were made with smaller batches do not stand for records that nobody consumed. */
static void test_remainder_of_larger_batches_ends_where_the_epochs_do(void **state)
{
    (void)state;
    int64_t trained = trained_of_epoch(&no_faults);
    int changed = 0;
    for (uint64_t seed = 1; seed <= TEST_RUNS(40); seed++) {
        SimFaults faults = no_faults;
        JobConfig config = make_config(3, 1, 2), later;
        faults.controller_kills = 1;
        faults.later = &later;
        keep_epochs(&config, REMAINDER_WRAP, 2);
        later = config;
        keep_epochs(&later, REMAINDER_WRAP, 40);
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        changed += result.restarts_of_controller > 0;
        assert_in_range(3 * trained - result.saved.consumed_samples, 0, 39);
    }
    assert_true(changed > TEST_RUNS(10));
}

/* Its epochs are those of the mixture; the world checks what is counted of each source. */
static void test_remainder_of_a_mixture_is_the_same_whatever_strikes(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        JobConfig config = make_config(3, 1, 2);
        keep_epochs(&config, policies[i], 10);
        config.data.sources = three_sources();
        SimResult calm = sim_run(&config, &no_faults, 1);
        assert_right(&calm, 1);
        assert_int_equal(calm.steps, 3 * steps_of(policies[i], trained_of_epoch(&no_faults), 10));
        for (uint64_t seed = 1; seed <= TEST_RUNS(60); seed++) {
            SimFaults faults = faults_of(seed);
            faults.bad_records = faults.bad_eval_records = 0;
            SimResult result = sim_run(&config, &faults, seed);
            assert_right(&result, seed);
            assert_true(result.weights == calm.weights);
            assert_int_equal(result.ledger_end, calm.ledger_end);
        }
    }
}

/* A third of the groups is rejected, and epochs end in every manner. */
static void check_generation(RemainderPolicy policy)
{
    JobConfig config = make_rl_config(3, 2, 2);
    keep_epochs(&config, policy, 10);
    SimResult calm = sim_run(&config, &no_faults, 1);
    assert_right(&calm, 1);
    assert_true(calm.steps > 0 && calm.steps < 3 * (SIM_RECORDS / 10));
    for (uint64_t seed = 1; seed <= TEST_RUNS(150); seed++) {
        SimFaults faults = faults_of(seed);
        faults.bad_records = faults.bad_eval_records = 0;
        config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
        config.rollout.lease_size = 1 + (int64_t)(seed / 5 % 7);
        SimResult result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_true(result.weights == calm.weights);
        assert_int_equal(result.ledger_end, calm.ledger_end);
    }
    for (int staleness = 0; staleness < 3; staleness++)
        for (uint64_t seed = 1; seed <= TEST_RUNS(40); seed++) {
            SimFaults faults = faults_of(seed);
            faults.bad_records = faults.bad_eval_records = 0;
            keep_epochs(&config, policy, 2 + (int64_t)(seed % 40));
            config.rollout.max_staleness = staleness;
            config.rollout.over_sampling = seed % 2 == 0 ? 1 : 1.5;
            config.rollout.too_stale = seed / 2 % 2 == 0 ? TOO_STALE_RECOMPUTE : TOO_STALE_DROP;
            SimResult result = sim_run(&config, &faults, seed);
            assert_right(&result, seed);
            assert_true(result.steps > 0);
        }
}

/* In step with its own weights nobody answers for the next step before this one is trained: what is
 * over must not be waited for. */
static void test_remainder_of_generation_is_not_waited_for(void **state)
{
    (void)state;
    check_generation(REMAINDER_DROP);
}

/* Nor may it be answered for the next step before it is known to make none: the world looks at the
 * age of answers. */
static void test_remainder_of_generation_is_a_step(void **state)
{
    (void)state;
    check_generation(REMAINDER_PAD);
}

/* Which is what is over-sampled and let go of at the end of an epoch, too. */
static void test_remainder_does_not_depend_on_who_over_samples(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        JobConfig config = make_rl_config(3, 1, 1);
        keep_epochs(&config, policies[i / 2], 7);
        config.rollout.over_sampling = 2.2;
        config.rollout.too_stale = i % 2 == 0 ? TOO_STALE_RECOMPUTE : TOO_STALE_DROP;
        SimResult calm = sim_run(&config, &no_faults, 1);
        assert_right(&calm, 1);
        for (uint64_t seed = 1; seed <= TEST_RUNS(60); seed++) {
            SimFaults faults = faults_of(seed);
            faults.bad_records = faults.bad_eval_records = 0;
            config.rollout.num_workers = 1 + (int64_t)(seed / 3 % 5);
            SimResult result = sim_run(&config, &faults, seed);
            assert_right(&result, seed);
            assert_int_equal(result.steps, calm.steps);
            if (result.weights != calm.weights)
                fail_msg("seed %llu: other weights than the undisturbed run",
                         (unsigned long long)seed);
        }
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
    assert_non_null(strstr(result.message, "data.remainder: pad"));
    config.data.remainder = REMAINDER_PAD; /* then each epoch is a step */
    result = sim_run(&config, &no_faults, 1);
    assert_right(&result, 1);
    assert_int_equal(result.steps, config.train.num_steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_remainder_of_each_epoch_is_dropped),
        cmocka_unit_test(test_remainder_of_each_epoch_is_a_step),
        cmocka_unit_test(test_remainder_is_the_same_whatever_strikes),
        cmocka_unit_test(test_remainder_goes_on_exactly_with_another_batch),
        cmocka_unit_test(test_remainder_of_larger_batches_ends_where_the_epochs_do),
        cmocka_unit_test(test_remainder_of_a_mixture_is_the_same_whatever_strikes),
        cmocka_unit_test(test_remainder_of_generation_is_not_waited_for),
        cmocka_unit_test(test_remainder_of_generation_is_a_step),
        cmocka_unit_test(test_remainder_does_not_depend_on_who_over_samples),
        cmocka_unit_test(test_remainder_refuses_an_epoch_that_is_no_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
