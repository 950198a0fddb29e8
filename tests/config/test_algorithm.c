/* Tests of the section `algorithm`: what is accepted, and every setting that would change nothing.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/job.h"

static AlgorithmConfig config, defaults;
static AlgorithmFacts facts;

/* What an empty section gives. */
static int fresh(void **state)
{
    (void)state;
    JobConfig *job = NULL;
    Error err = {0};
    const char *yaml = "model: {path: m}\ndata: {train: a}\n";
    assert_ok(job_config_parse(yaml, "job.yaml", "/", &job, &err), &err);
    config = defaults = job->algorithm;
    facts = (AlgorithmFacts){.samples_per_prompt = 8, .max_staleness = 2};
    job_config_destroy(job);
    return 0;
}

static void accept(void)
{
    AlgorithmFault fault = {0};
    if (!algorithm_check(&config, &defaults, &facts, &fault)) fail_msg("refused: %s", fault.text);
    fresh(NULL);
}

static void refuse(const char *key, const char *text)
{
    AlgorithmFault fault = {0};
    if (algorithm_check(&config, &defaults, &facts, &fault)) fail_msg("accepted, not: %s", text);
    assert_string_equal(fault.key, key);
    if (strstr(fault.text, text) == NULL)
        fail_msg("\"%s\" is not in the message:\n%s", text, fault.text);
    fresh(NULL);
}

static void test_defaults_are_grpo_with_nothing_to_refuse(void **state)
{
    (void)state;
    assert_int_equal(config.advantage_estimator, ADVANTAGE_GRPO);
    assert_int_equal(config.policy_loss, POLICY_LOSS_CLIP);
    assert_true(config.std_normalization && !config.normalize_advantages);
    assert_true(config.eps_clip == 0.2 && config.eps_clip_high == 0.2);
    assert_true(config.kl_coef == 0 && config.kl_loss_coef == 0 && config.entropy_coef == 0);
    assert_int_equal(config.old_log_probs, OLD_ROLLOUT);
    assert_null(config.reference);
    accept();
}

static void test_recipes_of_the_papers_are_accepted(void **state)
{
    (void)state;
    config.kl_loss_coef = 0.04; /* GRPO */
    config.kl_estimator = KL_K3;
    config.loss_normalization = NORMALIZE_SAMPLE;
    accept();
    config.std_normalization = false; /* Dr. GRPO */
    config.loss_normalization = NORMALIZE_CONSTANT;
    config.loss_constant = 1024;
    accept();
    config.eps_clip_high = 0.28; /* DAPO */
    config.dynamic_filter = FILTER_ZERO_VARIANCE;
    accept();
    config.policy_loss = POLICY_LOSS_GSPO;
    config.eps_clip = 3e-4;
    config.eps_clip_high = 4e-4;
    accept();
    config.advantage_estimator = ADVANTAGE_PPO;
    config.gae_lambda = 0.95;
    config.kl_coef = 0.05;
    config.critic_updates = 4;
    config.value_clip = 0.2;
    facts.samples_per_prompt = 1;
    accept();
    config.old_log_probs = OLD_CURRENT;
    config.correction = CORRECTION_ICEPOP;
    config.correction_low = 0.5;
    accept();
}

static void test_groups_of_one_are_refused(void **state)
{
    (void)state;
    for (int estimator = ADVANTAGE_GRPO; estimator <= ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE;
         estimator++) {
        config.advantage_estimator = (AdvantageEstimator)estimator;
        facts.samples_per_prompt = 1;
        refuse("algorithm.advantage_estimator", "each prompt gets one");
    }
    config.advantage_estimator = ADVANTAGE_REINFORCE_PLUS_PLUS;
    facts.samples_per_prompt = 1;
    accept();
    config.advantage_estimator = ADVANTAGE_REINFORCE_PLUS_PLUS;
    config.dynamic_filter = FILTER_ZERO_VARIANCE;
    facts.samples_per_prompt = 1;
    refuse("algorithm.dynamic_filter", "every group would be dropped");
}

static void test_estimator_keys_without_effect_are_refused(void **state)
{
    (void)state;
    config.advantage_estimator = ADVANTAGE_RLOO;
    config.std_normalization = false;
    refuse("algorithm.std_normalization", "only advantage_estimator: grpo");
    config.gamma = 0.9;
    refuse("algorithm.gamma", "nothing is discounted");
    config.advantage_estimator = ADVANTAGE_REINFORCE_PLUS_PLUS;
    config.gae_lambda = 0.9;
    refuse("algorithm.gae_lambda", "only advantage_estimator: ppo");
    config.critic_lr = 1e-5;
    refuse("algorithm.critic_lr", "only advantage_estimator: ppo has a critic");
    config.advantage_estimator = ADVANTAGE_PPO;
    config.value_clip = 0.2;
    refuse("algorithm.value_clip", "critic_updates 1");
}

static void test_ratio_keys_without_effect_are_refused(void **state)
{
    (void)state;
    config.policy_loss = POLICY_LOSS_REINFORCE;
    config.eps_clip_high = 0.3;
    refuse("algorithm.eps_clip_high", "no ratio to hold");
    config.policy_loss = POLICY_LOSS_CISPO;
    config.eps_clip_c = 3;
    refuse("algorithm.eps_clip_c", "only policy_loss: clip and gspo");
    config.eps_clip_c = 0.9;
    refuse("algorithm.eps_clip_c", "more than 1");
    config.old_log_probs = OLD_CURRENT;
    config.eps_clip = 0.1;
    config.eps_clip_high = 0.1;
    refuse("algorithm.eps_clip", "every ratio is exactly 1");
    config.old_log_probs = OLD_CURRENT;
    config.policy_loss = POLICY_LOSS_GSPO;
    refuse("algorithm.policy_loss", "every ratio is exactly 1");
    facts.max_staleness = 0;
    config.eps_clip_high = 0.28;
    refuse("algorithm.eps_clip_high", "nothing is stale");
    facts.max_staleness = 0;
    accept();
}

static void test_corrections_without_effect_are_refused(void **state)
{
    (void)state;
    config.correction = CORRECTION_TIS;
    refuse("algorithm.correction", "already to what was sampled");
    config.correction = CORRECTION_TIS;
    config.old_log_probs = OLD_CURRENT;
    facts.max_staleness = 0;
    refuse("algorithm.correction", "nothing is stale");
    config.correction_high = 3;
    refuse("algorithm.correction_high", "without algorithm.correction");
    config.correction_level = LEVEL_SEQUENCE;
    refuse("algorithm.correction_level", "without algorithm.correction");
}

static void test_divergence_keys_without_effect_are_refused(void **state)
{
    (void)state;
    config.kl_estimator = KL_K2;
    refuse("algorithm.kl_estimator", "without kl_coef or kl_loss_coef");
    config.reference = "/models/x";
    refuse("algorithm.reference", "without kl_coef or kl_loss_coef");
    config.kl_coef = 0.1;
    config.unbiased_kl = true;
    refuse("algorithm.unbiased_kl", "without kl_loss_coef");
    config.kl_loss_coef = 0.1;
    config.kl_estimator = KL_K1;
    refuse("algorithm.kl_estimator", "0 on average");
    config.kl_loss_coef = 0.1;
    config.kl_estimator = KL_K1;
    config.unbiased_kl = true;
    accept();
    config.kl_coef = 0.1;
    facts.random_init = true;
    refuse("algorithm.reference", "random weights");
}

static void test_normalization_needs_its_constant_and_only_it(void **state)
{
    (void)state;
    config.loss_normalization = NORMALIZE_CONSTANT;
    refuse("algorithm.loss_normalization", "needs loss_constant");
    config.loss_constant = 100;
    refuse("algorithm.loss_constant", "only loss_normalization: constant");
}

/* ---- as written in job.yaml ---- */

static void expect_refusal(const char *section, const char *text)
{
    JobConfig *job = NULL;
    Error err = {0};
    char yaml[512];
    snprintf(yaml, sizeof yaml, "model: {path: m}\ndata: {train: a}\nalgorithm: {%s}\n", section);
    assert_fails(job_config_parse(yaml, "job.yaml", "/", &job, &err), ERR_INVALID, &err, text);
}

static void test_supervised_job_refuses_every_key_that_is_set(void **state)
{
    (void)state;
    expect_refusal("gamma: 0.9", "job.yaml:3: algorithm.gamma has no effect");
    expect_refusal("kl_loss_coef: 0.1", "rollout.function: sft");
    expect_refusal("eps_clip: 0.1", "algorithm.eps_clip has no effect");
    expect_refusal("reference: x", "algorithm.reference has no effect");
    expect_refusal("correction_low: 2", "from 0 to 1");
    expect_refusal("use_tis: true", "For true write algorithm.correction: tis.");
    expect_refusal("advantage_estimator: gspo", "one of grpo, rloo");
}

static void expect_rollout_refusal(const char *keys, const char *text)
{
    JobConfig *job = NULL;
    Error err = {0};
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "model: {path: m}\ndata: {train: a}\ntrain: {global_batch_size: 16}\nrollout: "
             "{function: generate, reward: gsm8k, n_samples_per_prompt: 4, %s}\n",
             keys);
    if (text != NULL) {
        assert_fails(job_config_parse(yaml, "job.yaml", "/", &job, &err), ERR_INVALID, &err, text);
        return;
    }
    assert_ok(job_config_parse(yaml, "job.yaml", "/", &job, &err), &err);
    job_config_destroy(job);
}

static void test_staleness_keys_without_effect_are_refused(void **state)
{
    (void)state;
    expect_rollout_refusal("prefetch_steps: 3", "rollout.prefetch_steps has no effect");
    expect_rollout_refusal("partial: keep", "rollout.partial has no effect");
    expect_rollout_refusal("too_stale: drop", "rollout.too_stale has no effect");
    expect_rollout_refusal("over_sampling: 0.5", "from 1 to 16");
    expect_rollout_refusal("max_staleness: 1, partial: keep", NULL);
    expect_rollout_refusal("over_sampling: 1.5, too_stale: drop", NULL);
}

/* The effective configuration names every key; reading it again must not find fault with that. */
static void test_effective_text_reads_back(void **state)
{
    (void)state;
    JobConfig *job = NULL, *again = NULL;
    Error err = {0};
    const char *yaml = "model: {path: m}\ndata: {train: a}\nalgorithm: {gamma: 1, eps_clip: 0.2}\n";
    assert_ok(job_config_parse(yaml, "job.yaml", "/", &job, &err), &err);
    char *text = job_config_text(job);
    assert_ok(job_config_parse(text, "effective", "/", &again, &err), &err);
    assert_memory_equal(&job->algorithm, &again->algorithm, sizeof job->algorithm);
    free(text);
    job_config_destroy(job);
    job_config_destroy(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults_are_grpo_with_nothing_to_refuse, fresh),
        cmocka_unit_test_setup(test_recipes_of_the_papers_are_accepted, fresh),
        cmocka_unit_test_setup(test_groups_of_one_are_refused, fresh),
        cmocka_unit_test_setup(test_estimator_keys_without_effect_are_refused, fresh),
        cmocka_unit_test_setup(test_ratio_keys_without_effect_are_refused, fresh),
        cmocka_unit_test_setup(test_corrections_without_effect_are_refused, fresh),
        cmocka_unit_test_setup(test_divergence_keys_without_effect_are_refused, fresh),
        cmocka_unit_test_setup(test_normalization_needs_its_constant_and_only_it, fresh),
        cmocka_unit_test(test_supervised_job_refuses_every_key_that_is_set),
        cmocka_unit_test(test_staleness_keys_without_effect_are_refused),
        cmocka_unit_test(test_effective_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
