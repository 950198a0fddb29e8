/* The trainer against itself: layouts, micro-batches, recomputation and precision must not change
 * what is learnt. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "golden.h"
#include "toy.h"
#include "trainer_state.h"

#define WHOLE_MAX (1 << 16) /* elements of a toy model */

typedef struct Outcome {
    double loss; /* mean over steps */
    KeepPolicy policy;
    int64_t memory_bytes;
    float gradient[WHOLE_MAX], weights[WHOLE_MAX];
} Outcome;

typedef struct Job {
    ModelConfig config;
    DType dtype;
    int steps, micro_batch_size;
    KeepPolicy policy; /* forced through the memory limit */
    Outcome *outcome;
} Job;

/* A memory limit under which the plan chooses the policy. */
static int64_t limit_for(const TrainerOptions *options, int tp_rank, int tp_size, KeepPolicy policy)
{
    if (policy == KEEP_ALL) return 0;
    WeightPlan *plan = weight_plan_create(&options->model, tp_rank, tp_size);
    MemoryRequest request = {.plan = plan,
                             .kernels = options->kernels,
                             .dtype = options->dtype,
                             .max_tokens = options->max_tokens,
                             .max_sequence_length = options->max_sequence_length};
    MemoryPlan memory;
    rank_check(memory_plan_make(&request, &memory, NULL) == OK);
    int64_t bytes = memory.total - memory.activations +
                    activations_bytes(plan, options->dtype, policy, options->max_tokens);
    weight_plan_destroy(plan);
    return bytes;
}

static void body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    double loss = 0.0;
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    options.memory_bytes_max = limit_for(&options, ranks->tp_rank, ranks->tp_size, job->policy);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 7, &err), &err);
    toy_train(trainer, ranks, 1, job->steps, job->micro_batch_size, &loss);
    if (ranks->tp_rank == 0 && ranks->dp_rank == 0) {
        job->outcome->loss = loss / job->steps;
        job->outcome->policy = trainer->memory.policy;
    }
    toy_gather(trainer, trainer->gradient, DTYPE_F32, job->outcome->gradient);
    toy_gather(trainer, trainer->optimizer->master, DTYPE_F32, job->outcome->weights);
    trainer_destroy(trainer);
}

static Outcome *run(Job job, int tp_size, int dp_size)
{
    assert_true(model_config_parameters(&job.config) <= WHOLE_MAX);
    job.outcome = shared_alloc(sizeof *job.outcome);
    ranks_run(tp_size, dp_size, body, &job);
    return job.outcome;
}

static void release(Outcome *outcome)
{
    shared_free(outcome, sizeof *outcome);
}

/* The worst relative error over tensors of whole buffers. */
static double worst_error(const ModelConfig *config, const float *found, const float *expected)
{
    double worst = 0.0;
    WeightPlan *plan = weight_plan_create(config, 0, 1);
    for (int s = 0; s < plan->num_specs; s++) {
        int64_t count = plan->spec[s].rows * plan->spec[s].cols;
        double error = relative_error(found, expected, count);
        if (error > worst) worst = error;
        found += count;
        expected += count;
    }
    weight_plan_destroy(plan);
    return worst;
}

/* One kv head on four ranks, two on eight: copies whose gradients must be summed. */
static void test_layouts_agree_where_kv_heads_are_copied(void **state)
{
    (void)state;
    for (int kv_heads = 1; kv_heads <= 2; kv_heads++) {
        Job job = {toy_config(kv_heads, true), DTYPE_F32, 1, TOY_SAMPLES, KEEP_ALL, NULL};
        Outcome *alone = run(job, 1, 1), *split = run(job, 4 * kv_heads, 1);
        assert_true(fabs(split->loss / alone->loss - 1.0) < 1e-6);
        assert_true(worst_error(&job.config, split->gradient, alone->gradient) < 1e-5);
        release(alone);
        release(split);
    }
}

static void test_micro_batch_size_does_not_change_training(void **state)
{
    (void)state;
    Job job = {toy_config(4, false), DTYPE_F32, 1, TOY_SAMPLES, KEEP_ALL, NULL};
    Outcome *whole = run(job, 1, 1);
    for (int size = 1; size <= 3; size += 2) {
        job.micro_batch_size = size;
        Outcome *pieces = run(job, 1, 1);
        assert_true(fabs(pieces->loss / whole->loss - 1.0) < 1e-6);
        assert_true(worst_error(&job.config, pieces->gradient, whole->gradient) < 1e-5);
        release(pieces);
    }
    release(whole);
}

static void test_data_parallel_ranks_may_have_nothing_to_do(void **state)
{
    (void)state;
    Job job = {toy_config(4, false), DTYPE_F32, 3, TOY_SAMPLES, KEEP_ALL, NULL};
    Outcome *alone = run(job, 1, 1);
    Outcome *split = run(job, 1, TOY_SAMPLES + 1); /* the last rank gets no sample */
    assert_true(fabs(split->loss / alone->loss - 1.0) < 1e-6);
    assert_true(worst_error(&job.config, split->weights, alone->weights) < 1e-4);
    release(alone);
    release(split);
}

static void test_recomputation_changes_no_bit(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {toy_config(4, false), dtype, 2, 3, KEEP_ALL, NULL};
        Outcome *all = run(job, 2, 1);
        for (int policy = KEEP_MATRICES; policy <= KEEP_RESIDUAL; policy++) {
            job.policy = (KeepPolicy)policy;
            Outcome *some = run(job, 2, 1);
            assert_int_equal(some->policy, policy);
            assert_memory_equal(some->weights, all->weights, sizeof all->weights);
            assert_true(some->loss == all->loss);
            release(some);
        }
        release(all);
    }
}

static void test_same_run_gives_same_bits(void **state)
{
    (void)state;
    Job job = {toy_config(2, true), DTYPE_BF16, 3, 3, KEEP_ALL, NULL};
    Outcome *first = run(job, 2, 2), *second = run(job, 2, 2);
    assert_memory_equal(first->weights, second->weights, sizeof first->weights);
    release(first);
    release(second);
}

/* ---- what several ranks hold ---- */

typedef struct Held {
    int64_t vectors, kv;       /* elements of each part */
    float part[8][2][1 << 12]; /* by rank of the group: norm weights; k and v of a layer */
} Held;

static void held_body(const Ranks *ranks, void *argument)
{
    Held *held = argument;
    Error err = {0};
    ModelConfig config = toy_config(2, true);
    TrainerOptions options = toy_options(ranks, &config, DTYPE_BF16);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 7, &err), &err);
    toy_train(trainer, ranks, 1, 4, 3, NULL);
    const WeightPlan *plan = trainer->plan;
    const WeightSpec *k = &plan->spec[plan->layer[1].k_proj];
    held->vectors = plan->vectors.count;
    held->kv = 2 * k->local_rows * k->local_cols;
    rank_check(held->vectors <= 1 << 12 && held->kv <= 1 << 12);
    const float *master = trainer->optimizer->master;
    memcpy(held->part[ranks->tp_rank][0], master + plan->vectors.first,
           (size_t)held->vectors * sizeof(float));
    memcpy(held->part[ranks->tp_rank][1], master + k->offset, (size_t)held->kv * sizeof(float));
    trainer_destroy(trainer);
}

/* Two kv heads on eight ranks: ranks 0 to 3 hold one, 4 to 7 the other; all hold the norms. */
static void test_copies_stay_equal_to_the_last_bit(void **state)
{
    (void)state;
    Held *held = shared_alloc(sizeof *held);
    ranks_run(8, 1, held_body, held);
    for (int r = 1; r < 8; r++) {
        assert_memory_equal(held->part[r][0], held->part[0][0],
                            (size_t)held->vectors * sizeof(float));
        assert_memory_equal(held->part[r][1], held->part[r / 4 * 4][1],
                            (size_t)held->kv * sizeof(float));
    }
    assert_memory_not_equal(held->part[4][1], held->part[0][1], (size_t)held->kv * sizeof(float));
    shared_free(held, sizeof *held);
}

/* ---- threads ---- */

typedef struct Threads {
    int count;
    DType dtype;
    float *weights; /* [1 << 20] */
} Threads;

static void threads_body(const Ranks *ranks, void *argument)
{
    const Threads *threads = argument;
    Error err = {0};
    ModelConfig config = toy_config(4, true);
    config.hidden_size = 128;
    config.intermediate_size = 384;
    config.head_dim = 32;
    config.vocab_size = 1000;
    TrainerOptions options = toy_options(ranks, &config, threads->dtype);
    options.kernels = cpu_kernels(threads->count);
    options.max_tokens = 600;
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 7, &err), &err);
    int32_t token[20];
    uint8_t mask[20];
    Sample sample = {.length = 20, .token = token, .loss_mask = mask};
    const Sample *pointers[30];
    for (int i = 0; i < 20; i++) {
        token[i] = i * 37 % 1000;
        mask[i] = i > 4;
    }
    for (int i = 0; i < 30; i++)
        pointers[i] = &sample;
    MicroBatch batch = {pointers, 30};
    for (int i = 1; i <= 2; i++) {
        TrainStep step = {.micro_batch = &batch, .num_micro_batches = 1, .step = i, .lr = 1e-2};
        step.trained_tokens = 30 * 15;
        StepResult result;
        rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
    }
    rank_check(trainer->plan->size <= 1 << 20);
    memcpy(threads->weights, trainer->optimizer->master,
           (size_t)trainer->plan->size * sizeof(float));
    trainer_destroy(trainer);
}

static void test_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    size_t bytes = sizeof(float) << 20;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Threads one = {1, dtype, shared_alloc(bytes)}, three = {3, dtype, shared_alloc(bytes)};
        ranks_run(1, 1, threads_body, &one);
        ranks_run(1, 1, threads_body, &three);
        assert_memory_equal(one.weights, three.weights, bytes);
        shared_free(one.weights, bytes);
        shared_free(three.weights, bytes);
    }
}

/* On models of this kind torch's own bf16 gradient is 2e-2 from its f32 one. */
static void test_bf16_stays_near_f32(void **state)
{
    (void)state;
    Job job = {toy_config(4, false), DTYPE_F32, 1, TOY_SAMPLES, KEEP_ALL, NULL};
    Outcome *exact = run(job, 1, 1);
    job.dtype = DTYPE_BF16;
    Outcome *alone = run(job, 1, 1), *split = run(job, 4, 1);
    int64_t count = model_config_parameters(&job.config);
    assert_true(fabs(alone->loss / exact->loss - 1.0) < 5e-3);
    assert_true(fabs(split->loss / exact->loss - 1.0) < 5e-3);
    assert_true(relative_error(alone->gradient, exact->gradient, count) < 4e-2);
    assert_true(relative_error(split->gradient, exact->gradient, count) < 4e-2);
    assert_true(relative_error(split->gradient, alone->gradient, count) < 2e-2);
    release(exact);
    release(alone);
    release(split);
}

static void learn_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    Sample samples[TOY_SAMPLES];
    const Sample *pointers[TOY_SAMPLES];
    toy_samples_make(samples, 3);
    for (int s = 0; s < TOY_SAMPLES; s++)
        pointers[s] = &samples[s];
    int64_t trained = toy_trained_tokens(samples, TOY_SAMPLES);
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 7, &err), &err);
    MicroBatch batch = {pointers, TOY_SAMPLES};
    double first = 0.0, last = 0.0;
    for (int i = 1; i <= 40; i++) {
        StepResult result;
        TrainStep step = {.micro_batch = &batch, .num_micro_batches = 1, .step = i, .lr = 1e-2};
        step.trained_tokens = trained;
        rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
        if (i == 1) first = result.loss_sum;
        last = result.loss_sum;
    }
    rank_check(last < 0.2 * first);
    toy_samples_clear(samples);
    trainer_destroy(trainer);
}

static void test_a_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {.config = toy_config(2, true), .dtype = dtype};
        ranks_run(1, 1, learn_body, &job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_agree_where_kv_heads_are_copied),
        cmocka_unit_test(test_micro_batch_size_does_not_change_training),
        cmocka_unit_test(test_data_parallel_ranks_may_have_nothing_to_do),
        cmocka_unit_test(test_recomputation_changes_no_bit),
        cmocka_unit_test(test_same_run_gives_same_bits),
        cmocka_unit_test(test_copies_stay_equal_to_the_last_bit),
        cmocka_unit_test(test_number_of_threads_changes_no_bit),
        cmocka_unit_test(test_bf16_stays_near_f32),
        cmocka_unit_test(test_a_batch_is_learnt_by_heart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
