/* Steps of reinforcement learning: what on-policy means to the last bit, what is refused, and that
 * critics and reference models survive as policies do. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "policy_step.h"
#include "toy.h"
#include "trainer_state.h"

#define VERSION 4

static PolicyStep step_over(const ToyRollout *rollout, const MicroBatch *batch)
{
    return (PolicyStep){
        .micro_batch = batch,
        .num_micro_batches = 1,
        .step = 1,
        .trained_tokens = rollout->trained_tokens,
        .lr = 1e-2,
        .weight_version = VERSION,
        .batch = rollout->meta,
        .batch_size = TOY_SAMPLES,
    };
}

static AlgorithmConfig grpo(void)
{
    return (AlgorithmConfig){.eps_clip = 0.2, .eps_clip_high = 0.2, .std_normalization = true};
}

typedef struct Job {
    DType dtype;
    ModelConfig config;
    const char *folder;
} Job;

static Trainer *make_trainer(const Ranks *ranks, const Job *job, bool with_reference)
{
    Error err = {0};
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    options.with_reference = with_reference;
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 5, &err), &err);
    return trainer;
}

/* ---- on policy ---- */

static void on_policy_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    ToyRollout rollout;
    AlgorithmConfig algorithm = grpo();
    Trainer *trainer = make_trainer(ranks, argument, false);
    toy_roll_out(trainer, 0.7f, VERSION, &rollout);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = step_over(&rollout, &batch);
    PolicyStepResult result;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    const PolicySums *sums = &result.policy.policy;
    rank_check(result.policy.log_probs_compared == rollout.trained_tokens);
    rank_check(result.policy.log_probs_differ == 0);
    rank_check(sums->ratio_min == 1.0 && sums->ratio_max == 1.0 && sums->old_kl == 0.0);
    rank_check(sums->rollout_difference_max == 0.0 &&
               sums->clipped_low + sums->clipped_high == 0.0);
    rank_check(result.groups.groups == TOY_SAMPLES / 2 && result.groups.zero_variance == 2);
    rank_check(result.policy.grad_norm > 0.0 && trainer_step(trainer) == 1);
    /* Now the weights have moved: the same samples are old, and known to be. */
    step.step = 2;
    step.weight_version = VERSION + 1;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    rank_check(result.policy.log_probs_compared == 0);
    rank_check(sums->ratio_max > 1.0 && sums->ratio_min < 1.0);
    /* Nor are those compared that only have the number of these weights. */
    step.step = 3;
    step.weight_version = VERSION;
    for (int s = 0; s < TOY_SAMPLES; s++)
        rollout.sample[s].other_weights = true;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    rank_check(result.policy.log_probs_compared == 0);
    toy_samples_clear(rollout.sample);
    trainer_destroy(trainer);
}

/* Generation took each sample alone, training takes them packed: the log-probs are equal to the
 * last bit, so every ratio is exactly 1. */
static void test_on_policy_ratios_are_exactly_one(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype, toy_config(2, dtype == DTYPE_BF16), NULL};
        ranks_run(1, 1, on_policy_body, &job);
        ranks_run(2, 1, on_policy_body, &job);
    }
}

static void updates_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    ToyRollout rollout;
    AlgorithmConfig algorithm = grpo();
    algorithm.eps_clip = algorithm.eps_clip_high = 1e-4;
    Trainer *trainer = make_trainer(ranks, argument, false);
    toy_roll_out(trainer, 0.7f, VERSION, &rollout);
    enum { HALF = TOY_SAMPLES / 2 };
    MicroBatch batches[] = {{rollout.pointer, HALF}, {rollout.pointer + HALF, HALF}};
    PolicyStep step = step_over(&rollout, batches);
    PolicyStepResult result;
    step.num_micro_batches = 2;
    step.groups_of_update = TOY_SAMPLES / 4;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    const PolicySums *sums = &result.policy.policy;
    int64_t first = 0;
    for (int s = 0; s < HALF; s++)
        first += rollout.meta[s].trained_tokens;
    /* One step, two updates: the first on policy to the bit, the second by ratios that have moved,
     * so that the bounds decide something. */
    rank_check(trainer_step(trainer) == 1 && trainer->optimizer->updates == 2);
    rank_check(result.policy.trained_tokens == rollout.trained_tokens);
    rank_check(sums->tokens == (double)rollout.trained_tokens);
    rank_check(result.policy.log_probs_compared == first && result.policy.log_probs_differ == 0);
    rank_check(sums->ratio_min < 1.0 && sums->ratio_max > 1.0);
    rank_check(sums->clipped_low + sums->clipped_high > 0.0);
    rank_check(result.groups.groups == TOY_SAMPLES / 2);
    /* Micro-batches of the wrong update would be gradients of the wrong update. */
    step.step = 2;
    MicroBatch turned[] = {batches[1], batches[0]}, joined[] = {{rollout.pointer, TOY_SAMPLES}};
    step.micro_batch = turned;
    rank_check(policy_step(trainer, NULL, &algorithm, &step, &result, &err) == ERR_INTERNAL);
    rank_check(strstr(err.message, "not in their order") != NULL);
    step.micro_batch = joined;
    step.num_micro_batches = 1;
    rank_check(policy_step(trainer, NULL, &algorithm, &step, &result, &err) == ERR_INTERNAL);
    rank_check(trainer_step(trainer) == 1 && trainer->optimizer->updates == 2);
    toy_samples_clear(rollout.sample);
    trainer_destroy(trainer);
}

static void test_several_updates_of_a_step_move_ratios(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, toy_config(2, true), NULL};
    ranks_run(1, 1, updates_body, &job);
    ranks_run(2, 1, updates_body, &job);
}

/* Samples [first, first + count) of the rollout, those of this rank in one micro-batch: none where
 * there are fewer than ranks. */
static MicroBatch my_share(const Ranks *ranks, const ToyRollout *rollout, int first, int count,
                           const Sample **mine)
{
    MicroBatch batch = {mine, 0};
    for (int s = first + ranks->dp_rank; s < first + count; s += ranks->dp_size)
        mine[batch.num_samples++] = &rollout->sample[s];
    return batch;
}

/* A rollout of four groups that trains them three at a time ... */
static void train_in_one_step(const Ranks *ranks, Trainer *trainer, const ToyRollout *rollout,
                              const AlgorithmConfig *algorithm)
{
    Error err = {0};
    const Sample *mine[TOY_SAMPLES];
    PolicyStepResult result;
    MicroBatch first = my_share(ranks, rollout, 0, TOY_SAMPLES - 2, mine);
    MicroBatch last = my_share(ranks, rollout, TOY_SAMPLES - 2, 2, mine + first.num_samples);
    MicroBatch batches[] = {first, last};
    PolicyStep step = step_over(rollout, batches);
    step.num_micro_batches = last.num_samples > 0 ? 2 : 1;
    step.groups_of_update = 3;
    rank_ok(policy_step(trainer, NULL, algorithm, &step, &result, &err), &err);
    rank_check(trainer_step(trainer) == 1 && trainer->optimizer->updates == 2);
    rank_check(result.policy.policy.ratio_min > 0.0); /* where one has none of the last, too */
}

/* ... and one step with three of them, then one with the other. */
static void train_in_two_steps(const Ranks *ranks, Trainer *trainer, const ToyRollout *rollout,
                               const AlgorithmConfig *algorithm)
{
    Error err = {0};
    const int begin[] = {0, TOY_SAMPLES - 2, TOY_SAMPLES};
    for (int i = 0; i < 2; i++) {
        const Sample *mine[TOY_SAMPLES];
        PolicyStepResult result;
        int count = begin[i + 1] - begin[i];
        MicroBatch batch = my_share(ranks, rollout, begin[i], count, mine);
        PolicyStep step = step_over(rollout, &batch);
        step.step = i + 1;
        step.num_micro_batches = batch.num_samples > 0;
        step.batch += begin[i];
        step.batch_size = count;
        step.trained_tokens = toy_trained_tokens(rollout->sample + begin[i], count);
        rank_ok(policy_step(trainer, NULL, algorithm, &step, &result, &err), &err);
        if (batch.num_samples == 0) rank_check(result.policy.policy.tokens == 0);
    }
}

static void left_over_body(const Ranks *ranks, void *argument)
{
    const LossNormalization normalization[] = {NORMALIZE_TOKEN, NORMALIZE_SAMPLE};
    for (int i = 0; i < 2; i++) {
        ToyRollout rollout;
        AlgorithmConfig algorithm = grpo();
        algorithm.loss_normalization = normalization[i];
        Trainer *one = make_trainer(ranks, argument, false);
        Trainer *two = make_trainer(ranks, argument, false);
        toy_roll_out(one, 0.7f, VERSION, &rollout);
        train_in_one_step(ranks, one, &rollout, &algorithm);
        train_in_two_steps(ranks, two, &rollout, &algorithm);
        rank_check(memcmp(one->optimizer->master, two->optimizer->master,
                          (size_t)one->plan->size * sizeof(float)) == 0);
        toy_samples_clear(rollout.sample);
        trainer_destroy(one);
        trainer_destroy(two);
    }
}

/* Three ranks, of which one has none of the two samples that are left. */
static void test_the_last_update_trains_what_is_left(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, toy_config(2, true), NULL};
    ranks_run(1, 1, left_over_body, &job);
    ranks_run(1, 3, left_over_body, &job);
    ranks_run(2, 2, left_over_body, &job);
}

static void mismatch_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    ToyRollout rollout;
    AlgorithmConfig algorithm = grpo();
    Trainer *trainer = make_trainer(ranks, argument, false);
    toy_roll_out(trainer, 1.0f, VERSION, &rollout);
    int first = 0, second;
    while (rollout.meta[first].trained_tokens == 0)
        first++;
    Sample *sample = &rollout.sample[first];
    int32_t t = sample->length - 1, counts = 0;
    while (!sample->loss_mask[t])
        t--;
    uint32_t bits;
    memcpy(&bits, &sample->log_prob[t], sizeof bits);
    bits ^= 1;
    memcpy(&sample->log_prob[t], &bits, sizeof bits);
    /* The first half of another sample is from older weights and is not compared. */
    for (second = first + 1; rollout.meta[second].trained_tokens < 3;)
        second++;
    Sample *mixed = &rollout.sample[second];
    VersionRun runs[] = {{VERSION - 1, mixed->length / 2}, {VERSION, 0}};
    runs[1].count = mixed->length - mixed->prompt_length - runs[0].count;
    mixed->version_run = runs;
    mixed->num_version_runs = 2;
    for (int32_t i = mixed->prompt_length; i < mixed->prompt_length + runs[0].count; i++)
        counts += mixed->loss_mask[i];
    rank_check(counts > 0 && runs[1].count > 0);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = step_over(&rollout, &batch);
    PolicyStepResult result;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    rank_check(result.policy.log_probs_differ == 1);
    rank_check(result.policy.log_probs_compared == rollout.trained_tokens - counts);
    rank_check(result.policy.age == counts && result.policy.age_max == 1);
    rank_check(result.policy.mixed_samples == 1);
    /* With keys of older weights behind it none of its tokens is of a version alone. */
    step.step = 2;
    step.keys_are_kept = true;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    rank_check(result.policy.log_probs_compared ==
               rollout.trained_tokens - rollout.meta[second].trained_tokens);
    mixed->version_run = NULL;
    toy_samples_clear(rollout.sample);
    trainer_destroy(trainer);
}

static void test_one_differing_bit_of_a_log_prob_is_counted(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, toy_config(2, true), NULL};
    ranks_run(1, 1, mismatch_body, &job);
}

/* ---- refusals ---- */

static void expect_refusal(Trainer *trainer, const AlgorithmConfig *algorithm,
                           const PolicyStep *step, Status status, const char *text)
{
    Error err = {0};
    PolicyStepResult result;
    rank_check(policy_step(trainer, NULL, algorithm, step, &result, &err) == status);
    if (strstr(err.message, text) == NULL) rank_fail(__FILE__, __LINE__, text, err.message);
    rank_check(trainer_step(trainer) == 0);
}

static void refusals_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    ToyRollout rollout;
    AlgorithmConfig algorithm = grpo();
    Trainer *trainer = make_trainer(ranks, argument, true);
    toy_roll_out(trainer, 1.0f, VERSION, &rollout);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = step_over(&rollout, &batch);
    float *log_prob = rollout.sample[1].log_prob;
    rollout.sample[1].log_prob = NULL;
    expect_refusal(trainer, &algorithm, &step, ERR_DATA, "sample 0/1 has no log-probs");
    rollout.sample[1].log_prob = log_prob;
    algorithm.kl_loss_coef = 0.1;
    expect_refusal(trainer, &algorithm, &step, ERR_INVALID, "no reference model");
    algorithm.kl_loss_coef = 0.0;
    batch.num_samples--;
    expect_refusal(trainer, &algorithm, &step, ERR_INTERNAL, "is in 0 micro-batches");
    batch.num_samples++;
    rollout.pointer[1] = rollout.pointer[0];
    expect_refusal(trainer, &algorithm, &step, ERR_INTERNAL,
                   "sample 0/0 of step 1's batch is in 2");
    rollout.pointer[1] = &rollout.sample[1];
    step.batch_size--;
    expect_refusal(trainer, &algorithm, &step, ERR_INTERNAL, "sample 3/1 is not in the batch");
    batch.num_samples--;
    step.trained_tokens -= rollout.meta[TOY_SAMPLES - 1].trained_tokens;
    expect_refusal(trainer, &algorithm, &step, ERR_INVALID, "group 3 has one sample");
    algorithm.advantage_estimator = ADVANTAGE_REINFORCE_PLUS_PLUS;
    PolicyStepResult result;
    rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
    toy_samples_clear(rollout.sample);
    trainer_destroy(trainer);
}

static void test_policy_step_refuses_what_is_no_batch(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, toy_config(2, true), NULL};
    ranks_run(1, 1, refusals_body, &job);
}

/* ---- reference ---- */

static void reference_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Error err = {0};
    ToyRollout rollout;
    AlgorithmConfig algorithm = grpo();
    algorithm.kl_estimator = KL_K3;
    algorithm.kl_loss_coef = algorithm.kl_coef = 0.5;
    Trainer *trainer = make_trainer(ranks, job, true);
    toy_save(trainer, job->folder, NULL);
    rank_ok(trainer_load_reference(trainer, job->folder, &err), &err);
    toy_roll_out(trainer, 1.0f, VERSION, &rollout);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = step_over(&rollout, &batch);
    for (step.step = 1; step.step <= 2; step.step++) {
        PolicyStepResult result;
        rank_ok(policy_step(trainer, NULL, &algorithm, &step, &result, &err), &err);
        if (step.step == 1)
            rank_check(result.policy.policy.ref_kl == 0.0 && result.reward_kl == 0.0);
        else
            rank_check(result.policy.policy.ref_kl > 0.0 && result.reward_kl == 0.0);
    }
    toy_samples_clear(rollout.sample);
    trainer_destroy(trainer);
}

/* The policy starts as its own reference: exactly no divergence; and moves away, while the
 * reference stays. */
static void test_reference_of_equal_weights_is_at_no_distance(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype, toy_config(2, true), "reference"};
        toy_fresh_folder(job.folder);
        ranks_run(1, 1, reference_body, &job);
    }
}

/* ---- critic ---- */

/* From a model's weights, or from what a critic saved. */
static Trainer *make_critic(const Ranks *ranks, const Job *job, const char *folder, bool saved)
{
    Error err = {0};
    ModelConfig config = job->config;
    config.value_head = true;
    TrainerOptions options = toy_options(ranks, &config, job->dtype);
    Trainer *critic = toy_trainer(ranks, &options);
    Status status =
        saved ? trainer_load(critic, folder, &err) : trainer_load_weights(critic, folder, &err);
    rank_ok(status, &err);
    return critic;
}

static void values_of(Trainer *critic, const ToyRollout *rollout, float number[TOY_SAMPLES][32])
{
    Error err = {0};
    StepResult result = {0};
    float *numbers[TOY_SAMPLES];
    float *const *lists[] = {numbers};
    MicroBatch batch = {rollout->pointer, TOY_SAMPLES};
    memset(number, 0, sizeof(float[TOY_SAMPLES][32]));
    for (int s = 0; s < TOY_SAMPLES; s++)
        numbers[s] = number[s];
    rank_ok(trainer_values(critic, &batch, 1, lists, &result, &err), &err);
}

static double value_error(float number[TOY_SAMPLES][32], const ToyRollout *rollout)
{
    double error = 0.0;
    for (int s = 0; s < TOY_SAMPLES; s++)
        for (int k = 0; k < rollout->meta[s].trained_tokens; k++)
            error += pow((double)number[s][k] - (double)rollout->sample[s].reward, 2);
    return error;
}

static void critic_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Error err = {0};
    ToyRollout rollout;
    static float before[TOY_SAMPLES][32], after[TOY_SAMPLES][32], again[TOY_SAMPLES][32];
    AlgorithmConfig algorithm = grpo();
    algorithm.advantage_estimator = ADVANTAGE_PPO;
    algorithm.gamma = algorithm.gae_lambda = 1.0;
    Trainer *policy = make_trainer(ranks, job, false);
    toy_save(policy, job->folder, NULL);
    Trainer *critic = make_critic(ranks, job, job->folder, false);
    toy_roll_out(policy, 1.0f, VERSION, &rollout);
    values_of(critic, &rollout, before);
    for (int s = 0; s < TOY_SAMPLES; s++)
        for (int k = 0; k < 32; k++)
            rank_check(before[s][k] == 0.0f);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = step_over(&rollout, &batch);
    step.critic_lr = 1e-2;
    step.critic_updates = 30;
    step.critic_only = true;
    PolicyStepResult result;
    rank_ok(policy_step(policy, critic, &algorithm, &step, &result, &err), &err);
    rank_check(trainer_step(policy) == 1 && policy->optimizer->updates == 0);
    rank_check(result.policy.tokens > 0 && result.policy.trained_tokens == 0);
    rank_check(trainer_step(critic) == 1 && critic->optimizer->updates == 30);
    values_of(critic, &rollout, after);
    rank_check(value_error(after, &rollout) < 0.3 * value_error(before, &rollout));
    /* It survives beside the policy. */
    toy_save(policy, "critic_after", NULL);
    toy_save(critic, "critic_after", NULL);
    trainer_destroy(critic);
    critic = make_critic(ranks, job, "critic_after", true);
    rank_check(trainer_step(critic) == 1 && critic->optimizer->updates == 30);
    values_of(critic, &rollout, again);
    rank_check(memcmp(after, again, sizeof after) == 0);
    toy_samples_clear(rollout.sample);
    trainer_destroy(critic);
    trainer_destroy(policy);
}

/* With returns that are the samples' rewards (gamma = lambda = 1), a critic that is updated often
 * predicts them. */
static void test_critic_learns_returns_and_survives_a_checkpoint(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype, toy_config(2, true), "critic_before"};
        toy_fresh_folder(job.folder);
        toy_fresh_folder("critic_after");
        ranks_run(1, 1, critic_body, &job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_on_policy_ratios_are_exactly_one),
        cmocka_unit_test(test_several_updates_of_a_step_move_ratios),
        cmocka_unit_test(test_the_last_update_trains_what_is_left),
        cmocka_unit_test(test_one_differing_bit_of_a_log_prob_is_counted),
        cmocka_unit_test(test_policy_step_refuses_what_is_no_batch),
        cmocka_unit_test(test_reference_of_equal_weights_is_at_no_distance),
        cmocka_unit_test(test_critic_learns_returns_and_survives_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
