/* What the trainer refuses, skips and plans. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "memory_plan.h"
#include "toy.h"
#include "trainer_state.h"

typedef struct Job {
    ModelConfig config;
    DType dtype;
} Job;

static void expect(Status status, Status expected, const Error *err, const char *text)
{
    if (status != expected || strstr(err->message, text) == NULL)
        rank_fail(__FILE__, __LINE__, text, err->message);
}

static Trainer *ready_trainer(const Ranks *ranks, const Job *job)
{
    Error err = {0};
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 1, &err), &err);
    return trainer;
}

/* ---- refusals ---- */

static void refusals_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    StepResult result;
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    Trainer *trainer = toy_trainer(ranks, &options);
    int32_t token[30] = {1, 2, 3};
    uint8_t mask[30] = {0, 1, 1};
    Sample sample = {.position = 77, .length = 3, .token = token, .loss_mask = mask};
    const Sample *pointers[20];
    for (int i = 0; i < 20; i++)
        pointers[i] = &sample;
    MicroBatch batch = {pointers, 1};
    TrainStep step = {
        .micro_batch = &batch, .num_micro_batches = 1, .step = 1, .trained_tokens = 2, .lr = 1e-3};
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_INVALID, &err, "no weights yet");
    rank_ok(trainer_init_random(trainer, 1, &err), &err);
    token[1] = 131;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_DATA, &err,
           "sample 77 has token id 131 at 1, but the model's vocab_size is 131");
    token[1] = -1;
    expect(trainer_evaluate(trainer, &batch, 1, NULL, &result, &err), ERR_DATA, &err,
           "token id -1");
    token[1] = 130;
    sample.length = 21;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_DATA, &err,
           "sample 77 has 21 tokens, planned for 1 to 20");
    sample.length = 20;
    batch.num_samples = 9;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_INVALID, &err,
           "micro-batch 0 has 180 tokens, planned for 1 to 160");
    batch.num_samples = 1;
    step.step = 2;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_INVALID, &err,
           "asked to make step 2, but the state is at step 0");
    step.step = 1;
    step.trained_tokens = 0;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_INVALID, &err,
           "no trained tokens");
    step.trained_tokens = 2;
    rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
    rank_check(trainer_step(trainer) == 1);
    step.step = 2;
    step.trained_tokens = 3;
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_INTERNAL, &err,
           "step 2 has 2 trained tokens in all, but its plan counts 3");
    rank_check(trainer_step(trainer) == 1);
    trainer_destroy(trainer);
}

static void test_bad_batches_are_refused_before_anything_changes(void **state)
{
    (void)state;
    Job job = {toy_config(4, true), DTYPE_F32};
    ranks_run(1, 1, refusals_body, &job);
}

static void options_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    Trainer *trainer = NULL;
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    options.max_sequence_length = 65;
    expect(trainer_create(&options, &trainer, &err), ERR_INVALID, &err,
           "max_position_embeddings is 64; lower data.max_length");
    options.max_sequence_length = 64;
    options.max_tokens = 63;
    expect(trainer_create(&options, &trainer, &err), ERR_INVALID, &err,
           "cannot hold a sample of 64");
    options.max_tokens = 64;
    options.dtype = DTYPE_F16;
    expect(trainer_create(&options, &trainer, &err), ERR_INVALID, &err, "not f16");
    options.dtype = DTYPE_F32;
    options.memory_bytes_max = 100000;
    expect(trainer_create(&options, &trainer, &err), ERR_RESOURCE, &err,
           "Lower train.max_tokens_per_gpu");
    options.memory_bytes_max = 0;
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_check(strstr(trainer_memory_plan(trainer), "AdamW moments") != NULL);
    rank_check(trainer_memory_bytes(trainer) > 0);
    trainer_destroy(trainer);
}

static void test_impossible_options_are_explained(void **state)
{
    (void)state;
    Job job = {toy_config(4, true), DTYPE_F32};
    ranks_run(1, 1, options_body, &job);
}

/* A device with memory to spare takes the head in larger chunks; it recomputes no more for it. */
static void test_a_device_with_room_has_larger_chunks_of_the_head(void **state)
{
    (void)state;
    KernelTable device = *cpu_kernels(1);
    device.host_memory = false;
    ModelConfig config = toy_config(4, true);
    config.vocab_size = 150000;
    WeightPlan *plan = weight_plan_create(&config, 0, 1), *half = weight_plan_create(&config, 0, 2);
    MemoryRequest request = {
        .plan = plan, .dtype = DTYPE_BF16, .max_tokens = 16384, .max_sequence_length = 64};
    MemoryPlan small, large, tight;
    assert_int_equal(memory_plan_make(&request, &small, NULL), OK);
    assert_int_equal(small.chunk_rows, 864);
    request.kernels = &device;
    assert_int_equal(memory_plan_make(&request, &large, NULL), OK);
    assert_int_equal(large.chunk_rows, 4096);
    assert_true(large.head > small.head + (int64_t)3000 * 150000 * 6);
    request.bytes_max = large.total; /* which would leave nothing */
    assert_int_equal(memory_plan_make(&request, &tight, NULL), OK);
    assert_int_equal(tight.chunk_rows, 864);
    assert_int_equal(tight.policy, KEEP_ALL);
    request.bytes_max = large.total / 7 * 8 + 8;
    assert_int_equal(memory_plan_make(&request, &tight, NULL), OK);
    assert_int_equal(tight.chunk_rows, 4096);
    assert_int_equal(tight.total, large.total);
    request.plan = half; /* the ranks of a group agree without asking */
    assert_int_equal(memory_plan_make(&request, &tight, NULL), OK);
    assert_int_equal(tight.chunk_rows, 1024);
    weight_plan_destroy(plan);
    weight_plan_destroy(half);
}

/* Up to what is asked for, and as memory has room: a quarter stays free. */
static void test_a_device_takes_larger_micro_batches_where_there_is_room(void **state)
{
    (void)state;
    KernelTable device = *cpu_kernels(1);
    device.host_memory = false;
    TrainerOptions options = {
        .model = toy_config(4, true),
        .dtype = DTYPE_BF16,
        .max_tokens = 4096,
        .max_sequence_length = 64,
        .kernels = &device,
    };
    int64_t bytes[3];
    char *text = NULL;
    for (int i = 0; i < 3; i++) { /* of 4096, 8192 and 16384 tokens */
        TrainerOptions wider = options;
        wider.max_tokens <<= i;
        assert_int_equal(trainer_plan(&wider, 1, &bytes[i], NULL, &text, NULL), OK);
        free(text);
    }
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 32768); /* no limit is known */
    assert_int_equal(trainer_plan_tokens(&options, 1, 32767), 16384);
    options.memory_bytes_max = bytes[2] / 3 * 4 + 8;
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 16384);
    options.memory_bytes_max = bytes[2] / 3 * 4 - 8;
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 8192);
    options.memory_bytes_max = bytes[0] + 8;
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 4096);
    options.memory_bytes_max = 1; /* whoever plans for it says so */
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 4096);
    options.memory_bytes_max = 0;
    options.max_tokens = 40000;
    assert_int_equal(trainer_plan_tokens(&options, 1, 32768), 40000);
}

/* ---- a sample without trained tokens ---- */

static void nothing_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Trainer *trainer = ready_trainer(ranks, argument);
    int32_t token[3] = {1, 2, 3};
    uint8_t none[3] = {0, 0, 0}, some[3] = {0, 1, 1};
    Sample untrained = {.length = 3, .token = token, .loss_mask = none};
    Sample trained = {.length = 3, .token = token, .loss_mask = some};
    const Sample *first = &untrained, *second = &trained;
    MicroBatch batches[] = {{&first, 1}, {&second, 1}};
    StepResult with, without;
    rank_ok(trainer_evaluate(trainer, batches, 2, NULL, &with, &err), &err);
    rank_ok(trainer_evaluate(trainer, batches + 1, 1, NULL, &without, &err), &err);
    rank_check(with.loss_sum == without.loss_sum && with.trained_tokens == 2 && with.tokens == 6);
    TrainStep step = {
        .micro_batch = batches, .num_micro_batches = 2, .step = 1, .trained_tokens = 2, .lr = 1e-3};
    rank_ok(trainer_train_step(trainer, &step, &with, &err), &err);
    rank_check(isfinite(with.grad_norm) && with.grad_norm > 0.0);
    trainer_destroy(trainer);
}

static void test_untrained_micro_batch_adds_nothing(void **state)
{
    (void)state;
    Job job = {toy_config(4, true), DTYPE_F32};
    ranks_run(1, 1, nothing_body, &job);
    ranks_run(2, 1, nothing_body, &job);
}

/* ---- gradients that are not finite ---- */

static void not_finite_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Trainer *trainer = ready_trainer(ranks, argument);
    Optimizer *optimizer = trainer->optimizer;
    size_t bytes = (size_t)trainer->plan->size * sizeof(float);
    float *before = mem_alloc(bytes);
    memcpy(before, optimizer->master, bytes);
    /* one weight of one rank goes wrong on its way into the kernels */
    int64_t at = trainer->plan->spec[trainer->plan->layer[1].gate_proj].offset;
    uint16_t *weight = (uint16_t *)trainer->weights->flat + at, kept = *weight;
    if (ranks->tp_rank == ranks->tp_size - 1) *weight = 0x7FC0; /* NaN */
    weights_prepare(trainer->weights);
    Sample samples[TOY_SAMPLES];
    toy_samples_make(samples, 1);
    const Sample *pointer[TOY_SAMPLES];
    for (int s = 0; s < TOY_SAMPLES; s++)
        pointer[s] = &samples[s];
    MicroBatch batch = {pointer, TOY_SAMPLES};
    TrainStep step = {
        .micro_batch = &batch, .num_micro_batches = 1, .step = 1, .trained_tokens = 0, .lr = 1e-3};
    step.trained_tokens = ranks->dp_size * toy_trained_tokens(samples, TOY_SAMPLES);
    StepResult result;
    rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
    rank_check(result.skipped && !isfinite(result.grad_norm));
    rank_check(memcmp(before, optimizer->master, bytes) == 0 && optimizer->updates == 0);
    rank_check(trainer_step(trainer) == 1);
    *weight = kept;
    weights_prepare(trainer->weights);
    step.step = 2;
    rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
    rank_check(!result.skipped && optimizer->updates == 1);
    toy_samples_clear(samples);
    free(before);
    trainer_destroy(trainer);
}

static void test_non_finite_gradient_is_skipped_on_every_rank(void **state)
{
    (void)state;
    Job job = {toy_config(4, false), DTYPE_BF16};
    ranks_run(1, 1, not_finite_body, &job);
    ranks_run(2, 2, not_finite_body, &job);
}

/* ---- a lost rank ---- */

static void lost_rank_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Trainer *trainer = ready_trainer(ranks, argument);
    if (ranks->tp_rank == 1) _exit(0); /* as kill -9 would end it */
    Sample samples[TOY_SAMPLES];
    toy_samples_make(samples, 1);
    const Sample *pointer = &samples[0];
    MicroBatch batch = {&pointer, 1};
    TrainStep step = {
        .micro_batch = &batch, .num_micro_batches = 1, .step = 1, .trained_tokens = 10, .lr = 1e-3};
    StepResult result;
    Status status = trainer_train_step(trainer, &step, &result, &err);
    rank_check(status == ERR_UNAVAILABLE || status == ERR_TIMEOUT);
    rank_check(strstr(err.message, "rank 1") != NULL);
    expect(trainer_train_step(trainer, &step, &result, &err), ERR_UNAVAILABLE, &err, "made anew");
    rank_check(trainer_step(trainer) == 0);
    toy_samples_clear(samples);
    trainer_destroy(trainer);
}

static void test_lost_rank_ends_the_step_with_its_name(void **state)
{
    (void)state;
    Job job = {toy_config(4, true), DTYPE_F32};
    ranks_run(2, 1, lost_rank_body, &job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_batches_are_refused_before_anything_changes),
        cmocka_unit_test(test_impossible_options_are_explained),
        cmocka_unit_test(test_a_device_with_room_has_larger_chunks_of_the_head),
        cmocka_unit_test(test_a_device_takes_larger_micro_batches_where_there_is_room),
        cmocka_unit_test(test_untrained_micro_batch_adds_nothing),
        cmocka_unit_test(test_non_finite_gradient_is_skipped_on_every_rank),
        cmocka_unit_test(test_lost_rank_ends_the_step_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
