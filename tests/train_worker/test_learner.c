/* What a job's configuration makes of a train rank: supervised, by rewards, and one after the other
 * with everything learnt kept. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "learner.h"
#include "toy.h"
#include "trainer_state.h"

#define FIRST_SEED 42 /* of the runs, whatever their later stages say */

static const char model_json[] =
    "{\"model_type\": \"qwen3\", \"vocab_size\": 131, \"hidden_size\": 48, \"intermediate_size\": "
    "40,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 8, \"num_key_value_heads\": 2,"
    " \"head_dim\": 6, \"max_position_embeddings\": 64, \"rope_theta\": 10000.0,"
    " \"rms_norm_eps\": 1e-6, \"initializer_range\": 0.2, \"tie_word_embeddings\": true,"
    " \"hidden_act\": \"silu\", \"attention_bias\": false}";

static const char job_yaml[] =
    "model: {path: /nowhere, init: random, config: %s/config.json}\n"
    "data: {train: x, max_length: 20}\n"
    "train: {max_tokens_per_gpu: 160, lr: 1e-2, lr_schedule: constant}\n";

/* A job; by rewards, where nothing of generation needs to be said to a train rank. */
static JobConfig *make_config(const char *folder, bool rewards)
{
    Error err = {0};
    JobConfig *config = NULL;
    char *yaml = mem_printf(job_yaml, folder);
    rank_ok(job_config_parse(yaml, "job.yaml", ".", &config, &err), &err);
    if (rewards) config->rollout.function = (RolloutFunction)(ROLLOUT_SFT + 1);
    free(yaml);
    return config;
}

static Learner *make_learner(const Ranks *ranks, const JobConfig *config, const char *checkpoint)
{
    Error err = {0};
    Learner *learner = NULL;
    LearnerOptions options = {
        .config = config, .kernels = ranks->kernels, .first_seed = FIRST_SEED};
    rank_ok(learner_create(&options, checkpoint, &learner, &err), &err);
    return learner;
}

/* A step over toy samples, with rewards or without. */
static Status make_step(Learner *learner, bool rewards, LearnerResult *ret, Error *err)
{
    ToyRollout rollout;
    int64_t next = trainer_step(learner_policy(learner)) + 1;
    toy_roll_out(learner_policy(learner), 1.0f, next, &rollout);
    enum { HALF = TOY_SAMPLES / 2 };
    MicroBatch halves[] = {{rollout.pointer, HALF}, {rollout.pointer + HALF, HALF}};
    LearnerStep step = {
        .micro_batch = halves,
        .num_micro_batches = 2,
        .step = next,
        .trained_tokens = rollout.trained_tokens,
        .total_steps = 100,
    };
    if (rewards) {
        step.batch = rollout.meta;
        step.batch_size = TOY_SAMPLES;
        step.weight_version = next;
    }
    Status status = learner_step(learner, &step, ret, err);
    toy_samples_clear(rollout.sample);
    return status;
}

static uint64_t digest(const Learner *learner)
{
    const Trainer *policy = learner_policy(learner);
    const unsigned char *bytes = policy->weights->flat;
    uint64_t sum = 1469598103934665603u;
    for (size_t i = 0; i < (size_t)policy->plan->size * dtype_size(policy->weights->dtype); i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static void save(Learner *learner, const char *folder)
{
    static const char *const stems[] = {"model", "optimizer", "critic_model", "critic_optimizer"};
    Error err = {0};
    SavedFiles files = {0};
    rank_ok(learner_save(learner, folder, &files, &err), &err);
    for (int i = 0; i < files.num_files; i++)
        rank_ok(toy_write_index(folder, stems[i], &err), &err);
    saved_files_clear(&files);
}

static void fresh_model(const char *folder)
{
    Error err = {0};
    char *path = path_join(folder, "config.json");
    toy_fresh_folder(folder);
    assert_ok(file_write_atomic(path, model_json, strlen(model_json), &err), &err);
    free(path);
}

/* ---- the sources of a mixture ---- */

/* One step with samples of three sources, of which source 1 has none; `told`: it is said which. */
static LearnerResult step_of_sources(Learner *learner, const ToyRollout *rollout, bool told)
{
    static const int source[TOY_SAMPLES] = {2, 0, 0, 2, 0, 2, 2, 0};
    enum { FIRST = 3 };
    Error err = {0};
    LearnerResult result;
    MicroBatch batches[] = {{rollout->pointer, FIRST},
                            {rollout->pointer + FIRST, TOY_SAMPLES - FIRST}};
    LearnerStep step = {.micro_batch = batches,
                        .num_micro_batches = 2,
                        .step = 1,
                        .trained_tokens = rollout->trained_tokens,
                        .total_steps = 100,
                        .source = told ? source : NULL};
    rank_ok(learner_step(learner, &step, &result, &err), &err);
    for (int s = 0; told && s < TOY_SAMPLES; s++) /* take off what each sample is known to add */
        for (int32_t t = 1; t < rollout->sample[s].length; t++) {
            if (!rollout->sample[s].loss_mask[t]) continue;
            result.source[source[s]].loss_sum += (double)rollout->sample[s].log_prob[t];
            result.source[source[s]].trained_tokens--;
        }
    return result;
}

/* The log-probs of before the step are those that a sample has alone: what is left is rounding. */
static void sources_body(const Ranks *ranks, void *argument)
{
    ToyRollout rollout;
    JobConfig *config = make_config(argument, false);
    Learner *untold = make_learner(ranks, config, NULL), *told = make_learner(ranks, config, NULL);
    toy_roll_out(learner_policy(told), 1.0f, 1, &rollout);
    LearnerResult without = step_of_sources(untold, &rollout, false);
    LearnerResult with = step_of_sources(told, &rollout, true);
    for (int i = 0; i < INTERLEAVE_SOURCES_MAX; i++) {
        rank_check(without.source[i].trained_tokens == 0 && without.source[i].loss_sum == 0.0);
        rank_check(with.source[i].trained_tokens == 0);
        rank_check(fabs(with.source[i].loss_sum) < 1e-12);
    }
    /* Nothing else is another number for it. */
    rank_check(with.result.policy.loss_sum == without.result.policy.loss_sum);
    rank_check(with.result.policy.grad_norm == without.result.policy.grad_norm);
    rank_check(digest(told) == digest(untold));
    toy_samples_clear(rollout.sample);
    learner_destroy(untold);
    learner_destroy(told);
    job_config_destroy(config);
}

static void test_loss_is_told_by_source_and_changes_nothing(void **state)
{
    (void)state;
    fresh_model("sources");
    ranks_run(1, 1, sources_body, "sources");
}

/* ---- supervised, then by rewards ---- */

static void swap_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    LearnerResult result;
    JobConfig *sft = make_config("swap", false), *rl = make_config("swap", true);
    Learner *learner = make_learner(ranks, sft, NULL);
    rank_ok(make_step(learner, false, &result, &err), &err);
    rank_ok(make_step(learner, false, &result, &err), &err);
    save(learner, "swap_sft");
    rank_check(make_step(learner, true, &result, &err) == ERR_INVALID);
    rank_check(strstr(err.message, "step 3 comes with rewards") != NULL);
    uint64_t before = digest(learner);
    int64_t memory = learner_memory_bytes(learner);
    rl->algorithm.advantage_estimator = ADVANTAGE_PPO;
    rl->algorithm.kl_loss_coef = 0.1;
    rl->algorithm.kl_estimator = KL_K3;
    rl->algorithm.reference = mem_strdup("swap_sft");
    rank_ok(learner_configure(learner, rl, &err), &err);
    rank_check(digest(learner) == before && trainer_step(learner_policy(learner)) == 2);
    rank_check(learner_memory_bytes(learner) > 2 * memory);
    rank_check(strstr(learner_memory_plan(learner), "reference model") != NULL);
    rank_check(make_step(learner, false, &result, &err) == ERR_INVALID);
    rank_check(strstr(err.message, "step 3 comes without rewards") != NULL);
    rank_ok(make_step(learner, true, &result, &err), &err);
    const PolicyStepResult *step = &result.result;
    rank_check(step->policy.log_probs_compared > 0 && step->policy.log_probs_differ == 0);
    rank_check(step->policy.policy.ref_kl == 0.0 && step->critic.value.tokens > 0.0);
    rank_check(digest(learner) != before && trainer_step(learner_policy(learner)) == 3);
    save(learner, "swap_rl");
    before = digest(learner);
    LearnerResult next, again;
    rank_ok(make_step(learner, true, &next, &err), &err);
    uint64_t after = digest(learner);
    learner_destroy(learner);
    /* Started again between the two, from the checkpoint of supervised training: the same step. */
    double loss = result.result.critic.value.loss;
    learner = make_learner(ranks, rl, "swap_sft");
    rank_ok(make_step(learner, true, &again, &err), &err);
    rank_check(digest(learner) == before && again.result.critic.value.loss == loss);
    learner_destroy(learner);
    /* Resumed, critic and all, it makes the same step. */
    learner = make_learner(ranks, rl, "swap_rl");
    rank_check(digest(learner) == before && trainer_step(learner_policy(learner)) == 3);
    rank_ok(make_step(learner, true, &again, &err), &err);
    rank_check(digest(learner) == after);
    rank_check(again.result.critic.value.loss == next.result.critic.value.loss);
    learner_destroy(learner);
    job_config_destroy(sft);
    job_config_destroy(rl);
}

static void test_rewards_take_over_from_supervision_and_resume(void **state)
{
    (void)state;
    fresh_model("swap");
    toy_fresh_folder("swap_sft");
    toy_fresh_folder("swap_rl");
    ranks_run(1, 1, swap_body, NULL);
}

/* ---- near to what the stage begins with ---- */

static Learner *resume_in_stage(const Ranks *ranks, const JobConfig *config, const char *checkpoint,
                                const char *stage_start)
{
    Error err = {0};
    Learner *learner = NULL;
    LearnerOptions options = {.config = config,
                              .kernels = ranks->kernels,
                              .stage_start = stage_start,
                              .first_seed = FIRST_SEED};
    rank_ok(learner_create(&options, checkpoint, &learner, &err), &err);
    return learner;
}

/* What two steps of a stage end with. */
typedef struct StageEnd {
    uint64_t digest;
    double ref_kl;
} StageEnd;

/* A learner that goes on from a checkpoint behind `done` of the stage's steps ends alike. */
static void check_resumed(Learner *learner, int done, const StageEnd *expected)
{
    Error err = {0};
    LearnerResult result;
    for (int step = done; step < 2; step++)
        rank_ok(make_step(learner, true, &result, &err), &err);
    rank_check(digest(learner) == expected->digest);
    rank_check(result.result.policy.policy.ref_kl == expected->ref_kl);
    learner_destroy(learner);
}

/* In memory, from the checkpoint with which it began, and from one amid the stage. */
static void start_body(const Ranks *ranks, void *argument)
{
    ModelDType dtype = *(const ModelDType *)argument;
    Error err = {0};
    LearnerResult result;
    JobConfig *sft = make_config("start", false), *rl = make_config("start", true);
    sft->model.dtype = rl->model.dtype = dtype;
    rl->algorithm.kl_loss_coef = 0.5;
    rl->algorithm.kl_estimator = KL_K3;
    rl->algorithm.reference = mem_strdup(REFERENCE_START);
    Learner *learner = make_learner(ranks, sft, NULL);
    rank_ok(make_step(learner, false, &result, &err), &err);
    save(learner, "start_sft");
    rank_ok(learner_configure(learner, rl, &err), &err);
    rank_ok(make_step(learner, true, &result, &err), &err);
    rank_check(result.result.policy.policy.ref_kl == 0.0);
    save(learner, "start_rl");
    rank_ok(make_step(learner, true, &result, &err), &err);
    rank_check(result.result.policy.policy.ref_kl != 0.0);
    StageEnd end = {digest(learner), result.result.policy.policy.ref_kl};
    learner_destroy(learner);
    check_resumed(resume_in_stage(ranks, rl, "start_sft", "start_sft"), 0, &end);
    check_resumed(resume_in_stage(ranks, rl, "start_rl", "start_sft"), 1, &end);
    job_config_destroy(sft);
    job_config_destroy(rl);
}

static void test_reference_is_what_the_stage_began_with(void **state)
{
    (void)state;
    for (ModelDType dtype = MODEL_F32; dtype <= MODEL_BF16; dtype++) {
        fresh_model("start");
        toy_fresh_folder("start_sft");
        toy_fresh_folder("start_rl");
        ranks_run(1, 1, start_body, &dtype);
    }
}

/* A stage that came before the first step begins with what the run began with: a checkpoint of that
 * there is none, and the stage's own seed draws other weights. */
static void before_first_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    LearnerResult result;
    JobConfig *sft = make_config("early", false), *rl = make_config("early", true);
    rl->seed = FIRST_SEED + 1;
    rl->algorithm.kl_loss_coef = 0.5;
    rl->algorithm.kl_estimator = KL_K3;
    rl->algorithm.reference = mem_strdup(REFERENCE_START);
    Learner *learner = make_learner(ranks, sft, NULL);
    rank_ok(learner_configure(learner, rl, &err), &err);
    rank_ok(make_step(learner, true, &result, &err), &err);
    save(learner, "early_rl");
    rank_ok(make_step(learner, true, &result, &err), &err);
    rank_check(result.result.policy.policy.ref_kl != 0.0);
    StageEnd end = {digest(learner), result.result.policy.policy.ref_kl};
    learner_destroy(learner);
    check_resumed(resume_in_stage(ranks, rl, NULL, NULL), 0, &end);
    check_resumed(resume_in_stage(ranks, rl, "early_rl", NULL), 1, &end);
    job_config_destroy(sft);
    job_config_destroy(rl);
}

static void test_stage_before_the_first_step_begins_as_the_run_did(void **state)
{
    (void)state;
    fresh_model("early");
    toy_fresh_folder("early_rl");
    ranks_run(1, 1, before_first_body, NULL);
}

/* ---- the critic alone ---- */

static void critic_only_body(const Ranks *ranks, void *argument)
{
    const int *updates = argument;
    Error err = {0};
    LearnerResult result;
    JobConfig *config = make_config("critic_only", true);
    config->train.num_steps_per_rollout = *updates;
    config->train.global_batch_size = TOY_SAMPLES / *updates;
    config->rollout.n_samples_per_prompt = 2;
    config->algorithm.advantage_estimator = ADVANTAGE_PPO;
    config->algorithm.critic_updates = 3;
    config->algorithm.critic_only_steps = 2;
    Learner *learner = make_learner(ranks, config, NULL);
    uint64_t before = digest(learner);
    for (int step = 1; step <= 4; step++) {
        rank_ok(make_step(learner, true, &result, &err), &err);
        rank_check((digest(learner) == before) == (step <= 2));
        rank_check(trainer_step(learner_policy(learner)) == step);
    }
    rank_check(learner_policy(learner)->optimizer->updates == 2 * *updates);
    learner_destroy(learner);
    job_config_destroy(config);
}

static void test_policy_waits_while_the_critic_warms_up(void **state)
{
    (void)state;
    fresh_model("critic_only");
    for (int updates = 1; updates <= 2; updates++)
        ranks_run(1, 1, critic_only_body, &updates);
}

/* A critic's steps are steps in whatever stage it made them, of however many updates. */
static void critic_swap_body(const Ranks *ranks, void *argument)
{
    const int64_t *updates = argument; /* of the critic in the first stage, and in the second */
    Error err = {0};
    LearnerResult result;
    JobConfig *config = make_config("critic_swap", true), *next = make_config("critic_swap", true);
    config->algorithm.advantage_estimator = next->algorithm.advantage_estimator = ADVANTAGE_PPO;
    config->algorithm.critic_updates = updates[0];
    next->algorithm.critic_updates = updates[1];
    next->algorithm.critic_only_steps = 3;
    Learner *learner = make_learner(ranks, config, NULL);
    for (int step = 1; step <= 2; step++)
        rank_ok(make_step(learner, true, &result, &err), &err);
    rank_ok(learner_configure(learner, next, &err), &err);
    uint64_t before = digest(learner);
    for (int step = 3; step <= 4; step++) { /* the third of the critic, and the fourth */
        rank_ok(make_step(learner, true, &result, &err), &err);
        rank_check((digest(learner) == before) == (step == 3));
    }
    learner_destroy(learner);
    job_config_destroy(config);
    job_config_destroy(next);
}

static void test_warm_up_counts_steps_through_a_swap(void **state)
{
    (void)state;
    static const int64_t updates[][2] = {{1, 3}, {3, 1}};
    fresh_model("critic_swap");
    for (int i = 0; i < 2; i++)
        ranks_run(1, 1, critic_swap_body, (void *)updates[i]);
}

/* ---- refusals ---- */

static void refuse(Learner *learner, const JobConfig *config, Status status, const char *text)
{
    Error err = {0};
    rank_check(learner_configure(learner, config, &err) == status);
    if (strstr(err.message, text) == NULL) rank_fail(__FILE__, __LINE__, text, err.message);
}

static void refusals_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    LearnerResult result;
    JobConfig *sft = make_config("refusals", false), *other = make_config("refusals", true);
    Learner *learner = make_learner(ranks, sft, NULL);
    other->data.max_length = 21;
    refuse(learner, other, ERR_INVALID, "samples of 20 tokens");
    other->data.max_length = 20;
    other->train.tp_size = 2;
    refuse(learner, other, ERR_INVALID, "cannot change");
    other->train.tp_size = 1;
    other->algorithm.kl_coef = 0.1;
    other->algorithm.reference = mem_strdup("/nowhere");
    refuse(learner, other, ERR_NOT_FOUND, "/nowhere");
    other->algorithm.kl_coef = 0.0;
    other->algorithm.advantage_estimator = ADVANTAGE_PPO;
    other->algorithm.critic = mem_strdup("/nowhere");
    refuse(learner, other, ERR_NOT_FOUND, "/nowhere");
    refuse(learner, other, ERR_NOT_FOUND, "/nowhere"); /* nothing half made is taken for whole */
    rank_ok(make_step(learner, false, &result, &err), &err); /* it goes on as it was */
    learner_destroy(learner);
    job_config_destroy(sft);
    job_config_destroy(other);
}

static void test_configuration_that_cannot_be_taken_changes_nothing(void **state)
{
    (void)state;
    fresh_model("refusals");
    ranks_run(1, 1, refusals_body, NULL);
}

/* A limit that holds the policy but nothing beside it. */
static void limit_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    JobConfig *sft = make_config("limit", false), *rl = make_config("limit", true);
    Learner *learner = make_learner(ranks, sft, NULL);
    LearnerOptions options = {.config = sft, .kernels = ranks->kernels};
    options.memory_bytes = (learner_memory_bytes(learner) + 1000) / 9 * 10;
    save(learner, "limit_model");
    learner_destroy(learner);
    rank_ok(learner_create(&options, NULL, &learner, &err), &err);
    rl->algorithm.kl_coef = 0.1;
    rl->algorithm.reference = mem_strdup("limit_model");
    refuse(learner, rl, ERR_RESOURCE, "a reference model would take");
    rl->algorithm.kl_coef = 0.0;
    rl->algorithm.advantage_estimator = ADVANTAGE_PPO;
    refuse(learner, rl, ERR_RESOURCE, "may use 0.00 GiB");
    learner_destroy(learner);
    job_config_destroy(sft);
    job_config_destroy(rl);
}

static void test_what_does_not_fit_beside_the_policy_is_refused(void **state)
{
    (void)state;
    fresh_model("limit");
    toy_fresh_folder("limit_model");
    ranks_run(1, 1, limit_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_told_by_source_and_changes_nothing),
        cmocka_unit_test(test_rewards_take_over_from_supervision_and_resume),
        cmocka_unit_test(test_reference_is_what_the_stage_began_with),
        cmocka_unit_test(test_stage_before_the_first_step_begins_as_the_run_did),
        cmocka_unit_test(test_policy_waits_while_the_critic_warms_up),
        cmocka_unit_test(test_warm_up_counts_steps_through_a_swap),
        cmocka_unit_test(test_configuration_that_cannot_be_taken_changes_nothing),
        cmocka_unit_test(test_what_does_not_fit_beside_the_policy_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
