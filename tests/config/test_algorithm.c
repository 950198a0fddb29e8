/* Tests of the section `algorithm`: what is accepted, and every setting that would change nothing.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
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

/* ---- the table of methods in docs/algorithms.md ---- */

/* What stands between the braces of `section: {...}` in a row, "" without it. Owned. */
static char *inside(const char *row, const char *section)
{
    char *open = mem_printf("`%s: {", section);
    const char *at = strstr(row, open), *end = at != NULL ? strstr(at, "}`") : NULL;
    if (end != NULL) at += strlen(open);
    char *text = end != NULL ? mem_printf("%.*s", (int)(end - at), at) : mem_strdup("");
    free(open);
    return text;
}

/* The job of a row, as somebody would write it who copies its keys. */
static JobConfig *job_of_row(const char *row)
{
    JobConfig *job = NULL;
    Error err = {0};
    char *algorithm = inside(row, "algorithm"), *train = inside(row, "train");
    char *rollout = inside(row, "rollout");
    if (algorithm[0] == '\0') fail_msg("no keys in: %s", row);
    char *yaml = mem_printf("model: {path: m}\ndata: {train: a}\n"
                            "rollout: {function: generate, reward: gsm8k, n_samples_per_prompt: 8, "
                            "%s}\ntrain: {global_batch_size: 64, %s}\nalgorithm: {%s}\n",
                            rollout, train, algorithm);
    if (job_config_parse(yaml, "job.yaml", "/", &job, &err) != OK)
        fail_msg("%s\nin the row: %s", err.message, row);
    free(yaml);
    free(algorithm);
    free(train);
    free(rollout);
    return job;
}

typedef struct Method {
    const char *name;
    AdvantageEstimator estimator;
    PolicyLoss loss;
    LossNormalization normalization;
    double low, high; /* of the ratio; 0: it is 1 */
    double kl_coef, kl_loss_coef;
    KlEstimator kl;
    OffPolicyCorrection correction;
    int64_t updates;
    double correction_low, correction_high;
} Method;

/* As their authors have them. */
static const Method methods[] = {
    {"GRPO", ADVANTAGE_GRPO, POLICY_LOSS_CLIP, NORMALIZE_SAMPLE, .kl_loss_coef = 0.04, .kl = KL_K3},
    {"Dr. GRPO", ADVANTAGE_GRPO, POLICY_LOSS_CLIP, NORMALIZE_CONSTANT, .low = 0},
    {"DAPO", ADVANTAGE_GRPO, POLICY_LOSS_CLIP, NORMALIZE_TOKEN, 0.8, 1.28, .updates = 16},
    {"GSPO", ADVANTAGE_GRPO, POLICY_LOSS_GSPO, NORMALIZE_SAMPLE, 1 - 3e-4, 1 + 4e-4, .updates = 4},
    {"CISPO", ADVANTAGE_GRPO, POLICY_LOSS_CISPO, NORMALIZE_TOKEN, 0, 5, .updates = 16},
    {"RLOO", ADVANTAGE_RLOO, POLICY_LOSS_REINFORCE, NORMALIZE_CONSTANT, .kl_coef = 0.03},
    {"REINFORCE++", ADVANTAGE_REINFORCE_PLUS_PLUS, POLICY_LOSS_CLIP, NORMALIZE_TOKEN,
     .kl_coef = 0.01},
    {"REINFORCE++ baseline", ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE, POLICY_LOSS_CLIP,
     NORMALIZE_TOKEN, .kl_loss_coef = 0.001, .kl = KL_K2},
    {"PPO", ADVANTAGE_PPO, POLICY_LOSS_CLIP, NORMALIZE_TOKEN, 0.8, 1.2, .kl_coef = 0.02,
     .updates = 8},
    {"TIS", ADVANTAGE_GRPO, POLICY_LOSS_CLIP, NORMALIZE_TOKEN, .correction = CORRECTION_TIS,
     .correction_low = 0, .correction_high = 2},
    {"IcePop", ADVANTAGE_GRPO, POLICY_LOSS_CLIP, NORMALIZE_TOKEN, .correction = CORRECTION_ICEPOP,
     .correction_low = 0.5, .correction_high = 5},
};
enum { NUM_METHODS = sizeof methods / sizeof *methods };

static void check_method(const Method *method, const JobConfig *job)
{
    const AlgorithmConfig *c = &job->algorithm;
    bool plus_plus = method->estimator == ADVANTAGE_REINFORCE_PLUS_PLUS ||
                     method->estimator == ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE;
    assert_int_equal(c->advantage_estimator, method->estimator);
    assert_int_equal(c->policy_loss, method->loss);
    assert_int_equal(c->loss_normalization, method->normalization);
    assert_int_equal(c->correction, method->correction);
    assert_int_equal(c->normalize_advantages, plus_plus || method->estimator == ADVANTAGE_PPO);
    assert_int_equal(c->std_normalization, strcmp(method->name, "Dr. GRPO") != 0);
    assert_true(c->kl_coef == method->kl_coef && c->kl_loss_coef == method->kl_loss_coef);
    assert_int_equal(c->kl_estimator, method->kl);
    assert_int_equal(job->train.num_steps_per_rollout, method->updates > 0 ? method->updates : 1);
    if (method->high > 0)
        assert_true(1 - c->eps_clip == method->low && 1 + c->eps_clip_high == method->high);
    if (method->correction != CORRECTION_NONE)
        assert_true(c->correction_low == method->correction_low &&
                    c->correction_high == method->correction_high);
}

/* "| NAME (Authors ..." */
static const Method *method_of_row(const char *row)
{
    for (int i = 0; i < NUM_METHODS; i++) {
        char *begin = mem_printf("| %s (", methods[i].name);
        bool same = strncmp(row, begin, strlen(begin)) == 0;
        free(begin);
        if (same) return &methods[i];
    }
    fail_msg("not known: %s", row);
    return NULL;
}

static void test_documented_methods_are_accepted_and_mean_the_papers(void **state)
{
    (void)state;
    Error err = {0};
    char *text = NULL, *rest = NULL;
    size_t length = 0;
    int seen = 0;
    assert_ok(file_read(PROJECT_SOURCE_DIR "/docs/algorithms.md", 1 << 20, &text, &length, &err),
              &err);
    char *table = strstr(text, "## Methods by name");
    assert_non_null(table);
    *strstr(table + 3, "\n## ") = '\0';
    for (char *row = strtok_r(table, "\n", &rest); row; row = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(row, "| ", 2) != 0 || strncmp(row, "| method ", 9) == 0) continue;
        JobConfig *job = job_of_row(row);
        check_method(method_of_row(row), job);
        job_config_destroy(job);
        seen++;
    }
    assert_int_equal(seen, NUM_METHODS);
    free(text);
}

/* Bounds that were chosen stay, whatever the method. */
static void test_chosen_bounds_replace_those_of_the_method(void **state)
{
    (void)state;
    JobConfig *job = job_of_row("`algorithm: {policy_loss: gspo, eps_clip: 0.01}` "
                                "`rollout: {max_staleness: 2}`");
    assert_true(job->algorithm.eps_clip == 0.01 && job->algorithm.eps_clip_high == 0.01);
    job_config_destroy(job);
    job = job_of_row("`algorithm: {policy_loss: cispo, eps_clip_high: 0.5}` "
                     "`rollout: {max_staleness: 2}`");
    assert_true(job->algorithm.eps_clip == 1 && job->algorithm.eps_clip_high == 0.5);
    job_config_destroy(job);
}

/* Several optimizer steps on a rollout move the ratios, stale or not. */
static void test_updates_of_a_rollout_give_ratios_a_meaning(void **state)
{
    (void)state;
    facts.max_staleness = 0;
    facts.updates = 2;
    config.eps_clip = config.eps_clip_high = 0.1;
    accept();
    facts.max_staleness = 0;
    facts.updates = 2;
    config.policy_loss = POLICY_LOSS_GSPO;
    config.old_log_probs = OLD_CURRENT;
    accept();
    facts.updates = 2;
    config.advantage_estimator = ADVANTAGE_PPO;
    config.value_clip = 0.2;
    accept();
    expect_rollout_refusal("}\nalgorithm: {policy_loss: gspo", "num_steps_per_rollout");
    expect_refusal("}\ntrain: {num_steps_per_rollout: 2",
                   "train.num_steps_per_rollout has no effect");
    JobConfig *job = NULL;
    Error err = {0};
    const char *yaml = "model: {path: m}\ndata: {train: a}\n"
                       "train: {num_steps_per_rollout: 1024, global_batch_size: 2048}\n"
                       "rollout: {function: generate, reward: gsm8k, n_samples_per_prompt: 8}\n";
    assert_fails(job_config_parse(yaml, "job.yaml", "/", &job, &err), ERR_INVALID, &err,
                 "makes 2097152 answers in a rollout");
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
        cmocka_unit_test(test_documented_methods_are_accepted_and_mean_the_papers),
        cmocka_unit_test(test_chosen_bounds_replace_those_of_the_method),
        cmocka_unit_test_setup(test_updates_of_a_rollout_give_ratios_a_meaning, fresh),
        cmocka_unit_test(test_effective_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
