/* Steps of reinforcement learning against transformers and torch: gradients, norms, losses and
 * weights after three steps, of policy and critic, for every layout. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fixture.h"
#include "golden.h"
#include "model/weights_io.h"
#include "policy_step.h"
#include "ranks.h"
#include "toy.h"
#include "trainer_state.h"

#define TOLERANCE   1e-5
#define STEPS       3
#define SAMPLES_MAX 8
#define WHOLE_MAX   (1 << 15)

static const char *const CASES[] = {"grpo",         "gspo", "cispo",        "reinforce_plus_plus",
                                    "baseline_tis", "ppo",  "mini_batches", "ppo_mini_batches"};
#define NUM_CASES (sizeof CASES / sizeof *CASES)

/* ---- fixtures ---- */

typedef struct CaseStep {
    Sample sample[SAMPLES_MAX];
    SampleMeta meta[SAMPLES_MAX];
    int num_samples;
    double lr, critic_lr;
    double loss, grad_norm, entropy, normaliser, trained_tokens, outside;
    double critic_loss, critic_grad_norm;
} CaseStep;

typedef struct Case {
    const char *name;
    char model[600], reference[600], critic[600];
    ModelConfig config;
    TrainerOptions options;
    AlgorithmConfig algorithm;
    int critic_updates, updates;
    CaseStep step[STEPS];
    SafetensorsReader *expected;
} Case;

static void load_sample(const cJSON *json, float temperature, Sample *sample)
{
    double token[32], mask[32], log_prob[32];
    sample->position = (int64_t)fixture_number(json, "position");
    sample->index = (int32_t)fixture_number(json, "index");
    sample->reward = (float)fixture_number(json, "reward");
    sample->temperature = temperature;
    sample->length = fixture_numbers(json, "token", token, 32);
    fixture_numbers(json, "loss_mask", mask, 32);
    size_t length = (size_t)sample->length;
    sample->token = mem_calloc(length, sizeof *sample->token);
    sample->loss_mask = mem_calloc(length, 1);
    sample->log_prob = mem_calloc(length, sizeof *sample->log_prob);
    int reported = fixture_numbers(json, "log_prob", log_prob, 32), used = 0;
    for (size_t t = 0; t < length; t++) {
        sample->token[t] = (int32_t)token[t];
        sample->loss_mask[t] = (uint8_t)mask[t];
        if (sample->loss_mask[t]) sample->log_prob[t] = (float)log_prob[used++];
    }
    sample->prompt_length = 3;
    assert_int_equal(used, reported);
}

static void load_step(const cJSON *json, const Case *c, CaseStep *step)
{
    const cJSON *samples = fixture_member(json, "samples");
    step->num_samples = cJSON_GetArraySize(samples);
    assert_in_range(step->num_samples, 1, SAMPLES_MAX);
    step->loss = fixture_number(json, "loss");
    step->grad_norm = fixture_number(json, "grad_norm");
    step->entropy = fixture_number(json, "entropy");
    step->normaliser = fixture_number(json, "normaliser");
    step->trained_tokens = fixture_number(json, "trained_tokens");
    step->outside = fixture_number(json, "outside");
    if (c->algorithm.advantage_estimator != ADVANTAGE_PPO) return;
    step->critic_loss = fixture_number(json, "critic_loss");
    step->critic_grad_norm = fixture_number(json, "critic_grad_norm");
}

static AlgorithmConfig load_algorithm(const cJSON *json)
{
    static const char *const olds[] = {"rollout", "current"};
    static const char *const normalizations[] = {"token", "sample", "constant"};
    AlgorithmConfig algorithm = fixture_loss(json);
    algorithm.advantage_estimator = fixture_estimator(json);
    algorithm.std_normalization = fixture_number(json, "std") > 0;
    algorithm.normalize_advantages = fixture_number(json, "whiten") > 0;
    algorithm.gamma = fixture_number(json, "gamma");
    algorithm.gae_lambda = fixture_number(json, "gae_lambda");
    algorithm.kl_coef = fixture_number(json, "kl_coef");
    algorithm.old_log_probs = (OldLogProbs)fixture_choice(json, "old", olds, 2);
    algorithm.loss_normalization =
        (LossNormalization)fixture_choice(json, "normalization", normalizations, 3);
    algorithm.loss_constant = (int64_t)fixture_number(json, "loss_constant");
    algorithm.value_clip = fixture_number(json, "value_clip");
    return algorithm;
}

static void load_folders(const cJSON *json, Case *c)
{
    Error err = {0};
    const char *model = fixture_text(json, "model");
    const char *root = TEST_SOURCE_DIR "/train_worker/golden_policy";
    snprintf(c->model, sizeof c->model, "%s/%s", TEST_SOURCE_DIR,
             fixture_text(json, "model_folder"));
    snprintf(c->reference, sizeof c->reference, "%s/reference/%s", root, model);
    snprintf(c->critic, sizeof c->critic, "%s/critic/%s", root, model);
    assert_ok(model_config_read(c->model, &c->config, &err), &err);
    char *path = mem_printf("%s/%s.safetensors", root, c->name);
    assert_ok(safetensors_open(path, "", &c->expected, &err), &err);
    free(path);
}

static void case_load(Case *c, const char *name)
{
    char file[64];
    *c = (Case){.name = name};
    snprintf(file, sizeof file, "%s.json", name);
    cJSON *json = fixture_load(file);
    load_folders(json, c);
    c->algorithm = load_algorithm(json);
    c->critic_updates = (int)fixture_number(json, "critic_updates");
    c->updates = (int)fixture_number(json, "updates");
    c->options = (TrainerOptions){
        .model = c->config,
        .dtype = DTYPE_F32,
        .max_tokens = 128,
        .max_sequence_length = 16,
        .adam_beta1 = fixture_number(json, "beta1"),
        .adam_beta2 = fixture_number(json, "beta2"),
        .adam_eps = fixture_number(json, "eps"),
        .weight_decay = fixture_number(json, "weight_decay"),
        .clip_grad = fixture_number(json, "clip_grad"),
    };
    float temperature = (float)fixture_number(json, "temperature");
    double lr[STEPS], critic_lr[STEPS];
    fixture_numbers(json, "lr", lr, STEPS);
    fixture_numbers(json, "critic_lr", critic_lr, STEPS);
    const cJSON *steps = fixture_member(json, "steps");
    assert_int_equal(cJSON_GetArraySize(steps), STEPS);
    for (int i = 0; i < STEPS; i++) {
        CaseStep *step = &c->step[i];
        const cJSON *one = cJSON_GetArrayItem(steps, i);
        load_step(one, c, step);
        step->lr = lr[i];
        step->critic_lr = critic_lr[i];
        for (int s = 0; s < step->num_samples; s++) {
            load_sample(cJSON_GetArrayItem(fixture_member(one, "samples"), s), temperature,
                        &step->sample[s]);
            step->meta[s] = sample_meta(&step->sample[s]);
        }
    }
    cJSON_Delete(json);
}

static void case_clear(Case *c)
{
    for (int i = 0; i < STEPS; i++)
        for (int s = 0; s < c->step[i].num_samples; s++)
            sample_clear(&c->step[i].sample[s]);
    safetensors_close(c->expected);
}

/* ---- the run ---- */

/* What the ranks hand back. */
typedef struct Handed {
    PolicyStepResult result[STEPS][4]; /* by data-parallel rank */
    float gradient[WHOLE_MAX], after[WHOLE_MAX], critic[WHOLE_MAX];
} Handed;

typedef struct Job {
    const Case *c;
    int micro_batch_size;
    bool cut; /* the head into chunks of two rows: losses of whole samples then walk twice */
    Handed *handed;
} Job;

static Trainer *make_trainer(const Ranks *ranks, const Case *c, bool critic)
{
    Error err = {0};
    Trainer *trainer = NULL;
    TrainerOptions options = c->options;
    options.kernels = ranks->kernels;
    options.tensor_comm = ranks->tensor_comm;
    options.data_comm = ranks->data_comm;
    options.model.value_head = critic;
    options.with_reference = !critic && algorithm_uses_reference(&c->algorithm);
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_ok(trainer_load_weights(trainer, critic ? c->critic : c->model, &err), &err);
    if (options.with_reference) rank_ok(trainer_load_reference(trainer, c->reference, &err), &err);
    return trainer;
}

static void cut_head(Trainer *trainer)
{
    head_destroy(trainer->head);
    trainer->head = head_create(trainer->model, trainer->options.max_tokens, 2, true);
}

/* This rank's micro-batches, update after update: the first group, then the second. */
static int cut_batch(const Ranks *ranks, const Job *job, const CaseStep *from,
                     const Sample **pointers, MicroBatch *batches)
{
    int updates = job->c->updates, mine = 0, count = 0;
    for (int u = 0, at = 0; u < updates; u++) {
        int begin = mine, first = at;
        for (; at < from->num_samples; at++)
            if (updates > 1 && from->meta[at].position != from->meta[first].position) break;
        for (int s = first + ranks->dp_rank; s < at; s += ranks->dp_size)
            pointers[mine++] = &from->sample[s];
        for (; begin < mine; begin += job->micro_batch_size) {
            int left = mine - begin, size = job->micro_batch_size;
            batches[count++] = (MicroBatch){pointers + begin, left < size ? left : size};
        }
    }
    return count;
}

static void body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    const Case *c = job->c;
    Trainer *policy = make_trainer(ranks, c, false), *critic = NULL;
    if (c->algorithm.advantage_estimator == ADVANTAGE_PPO) critic = make_trainer(ranks, c, true);
    if (job->cut) cut_head(policy);
    for (int i = 0; i < STEPS; i++) {
        const CaseStep *from = &c->step[i];
        const Sample *pointers[SAMPLES_MAX];
        MicroBatch batches[SAMPLES_MAX];
        int count = cut_batch(ranks, job, from, pointers, batches);
        PolicyStep step = {
            .micro_batch = batches,
            .num_micro_batches = count,
            .step = i + 1,
            .trained_tokens = (int64_t)from->trained_tokens,
            .lr = from->lr,
            .batch = from->meta,
            .batch_size = from->num_samples,
            .critic_lr = from->critic_lr,
            .critic_updates = c->critic_updates,
            .groups_of_update = c->updates > 1 ? 1 : 0, /* as cut_batch has it */
        };
        PolicyStepResult result;
        rank_ok(policy_step(policy, critic, &c->algorithm, &step, &result, &err), &err);
        if (ranks->tp_rank == 0) job->handed->result[i][ranks->dp_rank] = result;
        if (i == 0) toy_gather(policy, policy->gradient, DTYPE_F32, job->handed->gradient);
    }
    toy_gather(policy, policy->optimizer->master, DTYPE_F32, job->handed->after);
    if (critic != NULL)
        toy_gather(critic, critic->optimizer->master, DTYPE_F32, job->handed->critic);
    trainer_destroy(policy);
    trainer_destroy(critic);
}

/* ---- comparison ---- */

/* Whole tensors against <prefix><name> of the fixture; the worst error. */
static double compare_whole(const Case *c, const char *prefix, bool critic, const float *found,
                            double scale)
{
    double worst = 0.0;
    Error err = {0};
    ModelConfig config = c->config;
    config.value_head = critic;
    WeightPlan *plan = weight_plan_create(&config, 0, 1);
    for (int s = 0; s < plan->num_specs; s++) {
        const WeightSpec *spec = &plan->spec[s];
        int64_t count = spec->rows * spec->cols;
        float *expected = mem_calloc((size_t)count, sizeof *expected);
        float *scaled = mem_calloc((size_t)count, sizeof *scaled);
        WeightPart part = {.kernels = cpu_kernels(1), .data = expected, .dtype = DTYPE_F32};
        assert_ok(weight_read(c->expected, c->name, plan, spec, prefix, &part, &err), &err);
        for (int64_t i = 0; i < count; i++)
            scaled[i] = (float)(found[i] * scale);
        double error = relative_error(scaled, expected, count);
        if (!(error <= TOLERANCE))
            fail_msg("%s: %s%s off by %g", c->name, prefix, spec->name, error);
        if (error > worst) worst = error;
        found += count;
        free(expected);
        free(scaled);
    }
    weight_plan_destroy(plan);
    return worst;
}

static void assert_close(const Case *c, int step, const char *what, double found, double expected,
                         double bound)
{
    if (!(fabs(found - expected) <= bound * fmax(1.0, fabs(expected))))
        fail_msg("%s step %d: %s is %.9g, expected %.9g", c->name, step + 1, what, found, expected);
}

static void compare_step(const Case *c, int i, const PolicyStepResult *result, int dp_size)
{
    const CaseStep *step = &c->step[i];
    PolicySums sums = {0};
    ValueSums values = {0};
    for (int d = 0; d < dp_size; d++) {
        policy_sums_add(&sums, &result[d].policy.policy);
        value_sums_add(&values, &result[d].critic.value);
        assert_close(c, i, "grad_norm", result[d].policy.grad_norm / step->grad_norm, 1.0,
                     TOLERANCE);
        assert_int_equal(result[d].groups.groups, 2);
    }
    assert_close(c, i, "loss", sums.loss / step->normaliser, step->loss / step->normaliser,
                 TOLERANCE);
    assert_close(c, i, "entropy", sums.entropy, step->entropy, TOLERANCE);
    assert_true(sums.tokens == step->trained_tokens);
    if (c->algorithm.policy_loss == POLICY_LOSS_CISPO)
        assert_true(sums.clipped_low + sums.clipped_high == step->outside);
    if (c->algorithm.advantage_estimator != ADVANTAGE_PPO) return;
    assert_close(c, i, "critic's loss", values.loss, step->critic_loss, TOLERANCE);
    assert_close(c, i, "critic's norm", result->critic.grad_norm / step->critic_grad_norm, 1.0,
                 TOLERANCE);
}

static void check_layout(int tp_size, int dp_size, int micro_batch_size, bool cut)
{
    for (size_t k = 0; k < NUM_CASES; k++) {
        Case c;
        case_load(&c, CASES[k]);
        Job job = {&c, micro_batch_size, cut, shared_alloc(sizeof(Handed))};
        ranks_run(tp_size, dp_size, body, &job);
        for (int i = 0; i < STEPS; i++)
            compare_step(&c, i, job.handed->result[i], dp_size);
        double gradient = 0.0, critic = 0.0;
        if (c.updates == 1) /* of several updates the fixture has the weights alone */
            gradient =
                compare_whole(&c, "grad.", false, job.handed->gradient, 1.0 / c.step[0].normaliser);
        double after = compare_whole(&c, "after.", false, job.handed->after, 1.0);
        if (c.algorithm.advantage_estimator == ADVANTAGE_PPO)
            critic = compare_whole(&c, "critic.", true, job.handed->critic, 1.0);
        print_message("%s tp %d dp %d: gradients within %.1e, weights within %.1e, critic %.1e\n",
                      c.name, tp_size, dp_size, gradient, after, critic);
        shared_free(job.handed, sizeof(Handed));
        case_clear(&c);
    }
}

static void test_policy_steps_equal_torch_on_one_rank(void **state)
{
    (void)state;
    check_layout(1, 1, 8, false);
    check_layout(1, 1, 1, false);
}

static void test_policy_steps_equal_torch_with_a_head_in_chunks(void **state)
{
    (void)state;
    check_layout(1, 1, 8, true);
    check_layout(2, 1, 3, true);
}

static void test_policy_steps_equal_torch_with_tensor_parallelism(void **state)
{
    (void)state;
    check_layout(2, 1, 3, false);
    check_layout(4, 1, 8, false);
}

static void test_policy_steps_equal_torch_with_data_parallelism(void **state)
{
    (void)state;
    check_layout(1, 2, 2, false);
    check_layout(2, 2, 8, false);
    check_layout(1, 4, 1, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy_steps_equal_torch_on_one_rank),
        cmocka_unit_test(test_policy_steps_equal_torch_with_a_head_in_chunks),
        cmocka_unit_test(test_policy_steps_equal_torch_with_tensor_parallelism),
        cmocka_unit_test(test_policy_steps_equal_torch_with_data_parallelism),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
