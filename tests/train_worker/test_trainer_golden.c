/* The trainer against transformers and torch: logits, losses, every gradient, three AdamW steps,
 * for every layout. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "golden.h"
#include "model/weights_io.h"
#include "ranks.h"
#include "trainer_state.h"

#define TOLERANCE 1e-5

static const char *const CASES[] = {"tied_gqa", "untied_mha", "llama_mqa"};
#define NUM_CASES (sizeof CASES / sizeof *CASES)

/* What the ranks hand back: whole tensors, one after the other in the order of the plan. */
typedef struct Handed {
    StepResult result[GOLDEN_STEPS][8]; /* by data-parallel rank */
    float logits[64 * 64];
    float gradient[1 << 16], after[1 << 16];
} Handed;

typedef struct Job {
    const Golden *golden;
    int micro_batch_size;
    Handed *handed;
} Job;

static void append(void *context, const void *bytes, size_t length)
{
    char **at = context;
    memcpy(*at, bytes, length);
    *at += length;
}

/* Whole tensors of a flat buffer, written by rank 0 of the first group. */
static void hand_whole(const Trainer *trainer, const float *flat, float *out)
{
    Error err = {0};
    char *at = (char *)out;
    if (trainer->dp_rank != 0) return;
    WeightGather gather = {
        trainer->options.kernels, trainer->plan, trainer->options.tensor_comm, 0, append, &at};
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        rank_ok(weight_gather(&gather, spec, flat + spec->offset, DTYPE_F32, &err), &err);
    }
}

static Trainer *make_trainer(const Ranks *ranks, const Golden *golden)
{
    Error err = {0};
    Trainer *trainer = NULL;
    TrainerOptions options = golden->options;
    options.kernels = ranks->kernels;
    options.tensor_comm = ranks->tensor_comm;
    options.data_comm = ranks->data_comm;
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_ok(trainer_load(trainer, golden->folder, &err), &err);
    return trainer;
}

static void train_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    Trainer *trainer = make_trainer(ranks, job->golden);
    for (int i = 0; i < GOLDEN_STEPS; i++) {
        const GoldenStep *from = &job->golden->step[i];
        const Sample *pointers[GOLDEN_SAMPLES_MAX];
        MicroBatch batches[GOLDEN_SAMPLES_MAX];
        TrainStep step = {.micro_batch = batches, .step = i + 1, .lr = from->lr};
        step.num_micro_batches = golden_micro_batches(from, ranks->dp_rank, ranks->dp_size,
                                                      job->micro_batch_size, pointers, batches);
        step.trained_tokens = from->trained_tokens;
        StepResult result;
        rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
        if (ranks->tp_rank == 0) job->handed->result[i][ranks->dp_rank] = result;
        if (i == 0) hand_whole(trainer, trainer->gradient, job->handed->gradient);
    }
    hand_whole(trainer, trainer->optimizer->master, job->handed->after);
    trainer_destroy(trainer);
}

/* Compares whole tensors with those of the fixture under <prefix><name>; `scale` first. Returns the
 * worst error. */
static double compare_whole(const Golden *golden, const char *prefix, const float *found,
                            double scale)
{
    double worst = 0.0;
    WeightPlan *plan = weight_plan_create(&golden->config, 0, 1);
    for (int s = 0; s < plan->num_specs; s++) {
        Error err = {0};
        const WeightSpec *spec = &plan->spec[s];
        int64_t count = spec->rows * spec->cols;
        float *expected = mem_calloc((size_t)count, sizeof *expected);
        float *scaled = mem_calloc((size_t)count, sizeof *scaled);
        WeightPart part = {.kernels = cpu_kernels(1), .data = expected, .dtype = DTYPE_F32};
        assert_ok(weight_read(golden->expected, golden->folder, plan, spec, prefix, &part, &err),
                  &err);
        for (int64_t i = 0; i < count; i++)
            scaled[i] = (float)(found[i] * scale);
        double error = relative_error(scaled, expected, count);
        if (!(error <= TOLERANCE)) fail_msg("%s%s is off by %g", prefix, spec->name, error);
        if (error > worst) worst = error;
        found += count;
        free(expected);
        free(scaled);
    }
    weight_plan_destroy(plan);
    return worst;
}

static void compare_results(const Golden *golden, const Handed *handed, int dp_size)
{
    for (int i = 0; i < GOLDEN_STEPS; i++) {
        const GoldenStep *step = &golden->step[i];
        StepResult sum = {0};
        for (int d = 0; d < dp_size; d++) {
            const StepResult *part = &handed->result[i][d];
            sum.loss_sum += part->loss_sum;
            sum.trained_tokens += part->trained_tokens;
            sum.tokens += part->tokens;
            sum.correct += part->correct;
            assert_true(fabs(part->grad_norm / step->grad_norm - 1.0) <= TOLERANCE);
            assert_false(part->skipped);
        }
        assert_true(fabs(sum.loss_sum / step->loss_sum - 1.0) <= 2e-6);
        assert_int_equal(sum.trained_tokens, step->trained_tokens);
        assert_int_equal(sum.tokens, step->rows);
        assert_int_equal(sum.correct, step->correct);
    }
}

static void check_layout(int tp_size, int dp_size, int micro_batch_size)
{
    for (size_t c = 0; c < NUM_CASES; c++) {
        Golden golden;
        golden_load(&golden, CASES[c]);
        Job job = {&golden, micro_batch_size, shared_alloc(sizeof(Handed))};
        ranks_run(tp_size, dp_size, train_body, &job);
        compare_results(&golden, job.handed, dp_size);
        double gradient = compare_whole(&golden, "grad.", job.handed->gradient,
                                        1.0 / (double)golden.step[0].trained_tokens);
        double after = compare_whole(&golden, "after.", job.handed->after, 1.0);
        print_message("%s tp %d dp %d: gradients within %.1e, weights after 3 steps within %.1e\n",
                      CASES[c], tp_size, dp_size, gradient, after);
        shared_free(job.handed, sizeof(Handed));
        golden_clear(&golden);
    }
}

static void test_training_equals_torch_on_one_rank(void **state)
{
    (void)state;
    const int sizes[] = {1, 3, 8};
    for (size_t i = 0; i < 3; i++)
        check_layout(1, 1, sizes[i]);
}

static void test_training_equals_torch_with_tensor_parallelism(void **state)
{
    (void)state;
    check_layout(2, 1, 8);
    check_layout(4, 1, 3);
}

static void test_training_equals_torch_with_data_parallelism(void **state)
{
    (void)state;
    check_layout(1, 2, 8);
    check_layout(2, 2, 1);
}

/* ---- logits and log-probs ---- */

static void logits_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    Trainer *trainer = make_trainer(ranks, job->golden);
    const GoldenStep *step = &job->golden->step[0];
    for (int s = 0; s < step->num_samples; s++)
        batch_add(trainer->batch, step->sample[s].token, NULL, step->sample[s].length);
    rank_ok(model_forward(trainer->model, trainer->batch, NULL, trainer->activations, &err), &err);
    int32_t row[64];
    for (int i = 0; i < 64; i++)
        row[i] = i;
    const WeightSpec *spec = &trainer->plan->spec[trainer->plan->lm_head];
    WeightRange columns = weight_spec_part(spec, ranks->tp_rank, ranks->tp_size);
    Tensor logits = head_logits(trainer->head, trainer->activations->output, row, NULL, step->rows);
    const float *local = logits.data;
    for (int64_t r = 0; r < step->rows; r++)
        memcpy(job->handed->logits + r * spec->rows + columns.first, local + r * columns.count,
               (size_t)columns.count * sizeof *local);
    trainer_destroy(trainer);
}

static void test_logits_equal_transformers(void **state)
{
    (void)state;
    for (size_t c = 0; c < NUM_CASES; c++)
        for (int tp_size = 1; tp_size <= 4; tp_size *= 2) {
            Golden golden;
            Error err = {0};
            golden_load(&golden, CASES[c]);
            Job job = {&golden, 8, shared_alloc(sizeof(Handed))};
            ranks_run(tp_size, 1, logits_body, &job);
            int64_t count = golden.step[0].rows * golden.config.vocab_size;
            float *expected = mem_calloc((size_t)count, sizeof *expected);
            assert_ok(safetensors_read(golden.expected, "logits", 0, count, expected, &err), &err);
            double error = relative_error(job.handed->logits, expected, count);
            if (!(error <= 2e-6)) fail_msg("%s tp %d: logits off by %g", CASES[c], tp_size, error);
            free(expected);
            shared_free(job.handed, sizeof(Handed));
            golden_clear(&golden);
        }
}

static void evaluate_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    const GoldenStep *step = &job->golden->step[0];
    Trainer *trainer = make_trainer(ranks, job->golden);
    float memory[GOLDEN_SAMPLES_MAX][16], *log_prob[GOLDEN_SAMPLES_MAX];
    for (int s = 0; s < step->num_samples; s++)
        log_prob[s] = memory[s];
    float *const *per_batch[] = {log_prob};
    MicroBatch batch = {.sample = (const Sample *const *)step->pointer};
    batch.num_samples = step->num_samples;
    StepResult result;
    rank_ok(trainer_evaluate(trainer, &batch, 1, per_batch, &result, &err), &err);
    rank_check(fabs(result.loss_sum / step->loss_sum - 1.0) <= 2e-6);
    rank_check(result.correct == step->correct && result.trained_tokens == step->trained_tokens);
    int64_t i = 0;
    for (int s = 0; s < step->num_samples; s++)
        for (int t = 1; t < step->sample[s].length; t++)
            if (step->sample[s].loss_mask[t])
                rank_check(fabs(log_prob[s][t] - step->log_prob[i++]) <= 2e-5);
    rank_check(i == step->trained_tokens);
    trainer_destroy(trainer);
}

static void test_evaluation_and_log_probs_equal_transformers(void **state)
{
    (void)state;
    for (size_t c = 0; c < NUM_CASES; c++) {
        Golden golden;
        golden_load(&golden, CASES[c]);
        Job job = {.golden = &golden};
        ranks_run(1, 1, evaluate_body, &job);
        ranks_run(2, 1, evaluate_body, &job);
        golden_clear(&golden);
    }
}

/* ---- temperature ---- */

/* A step whose samples were generated at a temperature; borrows everything else. */
static void heat(const GoldenStep *from, float temperature, GoldenStep *ret)
{
    *ret = *from;
    for (int s = 0; s < ret->num_samples; s++) {
        ret->sample[s].temperature = temperature;
        ret->pointer[s] = &ret->sample[s];
    }
}

/* log p(target) under the softmax of logits / temperature, in double. */
static double tempered_log_prob(const float *logits, int64_t vocab, int32_t target, double by)
{
    double sum = 0.0;
    for (int64_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] / by);
    return (double)logits[target] / by - log(sum);
}

static void tempered_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    const Golden *golden = job->golden;
    const GoldenStep *step = &golden->step[0];
    const float temperatures[] = {0.5f, 0.7f, 3.0f};
    int64_t vocab = golden->config.vocab_size;
    float *logits = mem_calloc((size_t)(step->rows * vocab), sizeof *logits);
    rank_ok(safetensors_read(golden->expected, "logits", 0, step->rows * vocab, logits, &err),
            &err);
    Trainer *trainer = make_trainer(ranks, golden);
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++) {
        float memory[GOLDEN_SAMPLES_MAX][16], *log_prob[GOLDEN_SAMPLES_MAX];
        for (int s = 0; s < step->num_samples; s++)
            log_prob[s] = memory[s];
        float *const *per_batch[] = {log_prob};
        GoldenStep heated;
        heat(step, temperatures[i], &heated);
        MicroBatch batch = {.sample = (const Sample *const *)heated.pointer};
        batch.num_samples = step->num_samples;
        StepResult result;
        rank_ok(trainer_evaluate(trainer, &batch, 1, per_batch, &result, &err), &err);
        const float *row = logits;
        for (int s = 0; s < step->num_samples; row += step->sample[s++].length * vocab)
            for (int t = 1; t < step->sample[s].length; t++) {
                double expected = tempered_log_prob(row + (t - 1) * vocab, vocab,
                                                    step->sample[s].token[t], temperatures[i]);
                if (step->sample[s].loss_mask[t])
                    rank_check(fabs(log_prob[s][t] - expected) <= 5e-5);
            }
    }
    free(logits);
    trainer_destroy(trainer);
}

static void test_log_probs_are_those_of_logits_over_temperature(void **state)
{
    (void)state;
    for (size_t c = 0; c < NUM_CASES; c++) {
        Golden golden;
        golden_load(&golden, CASES[c]);
        Job job = {.golden = &golden};
        ranks_run(1, 1, tempered_body, &job);
        ranks_run(2, 1, tempered_body, &job);
        golden_clear(&golden);
    }
}

/* The gradients of one step at a temperature; with `halved`, from a model whose last norm is halved
 * instead. */
static float *gradients_at(const Ranks *ranks, const Golden *golden, float temperature, bool halved,
                           WeightRange *ret_norm, int64_t *ret_size)
{
    Error err = {0};
    Trainer *trainer = make_trainer(ranks, golden);
    const WeightSpec *norm = &trainer->plan->spec[trainer->plan->norm];
    if (halved)
        for (int64_t i = 0; i < norm->local_rows; i++)
            trainer->optimizer->master[norm->offset + i] *= 0.5f;
    optimizer_publish(trainer->optimizer);
    GoldenStep heated;
    heat(&golden->step[0], temperature, &heated);
    const Sample *pointers[GOLDEN_SAMPLES_MAX];
    MicroBatch batches[GOLDEN_SAMPLES_MAX];
    TrainStep step = {.micro_batch = batches, .step = 1, .lr = 0.0};
    step.num_micro_batches = golden_micro_batches(&heated, 0, 1, 8, pointers, batches);
    step.trained_tokens = golden->step[0].trained_tokens;
    StepResult result;
    rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
    float *copy = mem_calloc((size_t)trainer->plan->size, sizeof *copy);
    memcpy(copy, trainer->gradient, (size_t)trainer->plan->size * sizeof *copy);
    *ret_norm = (WeightRange){norm->offset, norm->local_rows};
    *ret_size = trainer->plan->size;
    trainer_destroy(trainer);
    return copy;
}

/* Halving the last norm's weights halves all logits exactly: the same function, but for that norm's
 * own gradient, as temperature 2. */
static void gradient_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    WeightRange norm = {0};
    int64_t size = 0;
    float *tempered = gradients_at(ranks, job->golden, 2.0f, false, &norm, &size);
    float *halved = gradients_at(ranks, job->golden, 1.0f, true, &norm, &size);
    for (int64_t i = 0; i < size; i++)
        rank_check(tempered[i] ==
                   (i >= norm.first && i < norm.first + norm.count ? 0.5f * halved[i] : halved[i]));
    free(tempered);
    free(halved);
}

static void test_gradients_are_those_of_logits_over_temperature(void **state)
{
    (void)state;
    for (size_t c = 0; c < NUM_CASES; c++) {
        Golden golden;
        golden_load(&golden, CASES[c]);
        Job job = {.golden = &golden};
        ranks_run(1, 1, gradient_body, &job);
        ranks_run(2, 1, gradient_body, &job);
        golden_clear(&golden);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_equal_transformers),
        cmocka_unit_test(test_evaluation_and_log_probs_equal_transformers),
        cmocka_unit_test(test_log_probs_are_those_of_logits_over_temperature),
        cmocka_unit_test(test_gradients_are_those_of_logits_over_temperature),
        cmocka_unit_test(test_training_equals_torch_on_one_rank),
        cmocka_unit_test(test_training_equals_torch_with_tensor_parallelism),
        cmocka_unit_test(test_training_equals_torch_with_data_parallelism),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
