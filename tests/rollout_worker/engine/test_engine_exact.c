/* Samples are what they are, however they are made: to the bit the trainer's log-probs, and the
 * same ids as alone, over random batches, chunk cuts, prefix hits, forks, aborts, resumes and
 * preemptions, on one and two ranks, in f32 and bf16. -DSCALE=n makes n times as many. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/weights_io.h"
#include "rollout_worker/engine/engine_thread.h"
#include "trainer_state.h"
#include "workload.h"

#ifndef SCALE
#define SCALE 1
#endif
#define REQUESTS (50 * SCALE)

typedef struct Job {
    DType dtype;
    int64_t *checked; /* [2] samples and tokens, shared with the parent */
} Job;

static ModelConfig config(void)
{
    return (ModelConfig){
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = TINY_VOCAB,
        .hidden_size = 48,
        .intermediate_size = 40,
        .num_hidden_layers = 2,
        .num_attention_heads = 8,
        .num_key_value_heads = 4,
        .head_dim = 16,
        .max_position_embeddings = WORKLOAD_LENGTH_MAX,
        .rope_theta = 10000.0,
        .rms_norm_eps = 1e-6f,
        .initializer_range = 0.25f,
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
}

static Trainer *make_trainer(const Ranks *ranks, DType dtype)
{
    Error err = {0};
    Trainer *trainer = NULL;
    TrainerOptions options = {
        .model = config(),
        .dtype = dtype,
        .max_tokens = 2 * WORKLOAD_LENGTH_MAX,
        .max_sequence_length = WORKLOAD_LENGTH_MAX,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .kernels = ranks->kernels,
        .tensor_comm = ranks->tensor_comm,
    };
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_ok(trainer_init_random(trainer, 3, &err), &err);
    return trainer;
}

/* Engines of different narrowness: pages, samples and tokens of a step. */
typedef struct Shape {
    int pages, max_samples, max_step_tokens;
    bool forgets;
} Shape;

static const Shape SHAPES[] = {
    {120, 24, 64, false}, /* roomy */
    {16, 12, 33, false},  /* preempts all the time */
    {40, 3, 200, false},  /* few at a time, whole prompts */
    {16, 8, 8, true},     /* shortest chunks, nothing found again */
};
#define NUM_SHAPES ((int)(sizeof SHAPES / sizeof *SHAPES))
static const Shape ALONE = {4, 1, WORKLOAD_LENGTH_MAX, true};

static Engine *make_engine(const Ranks *ranks, const Trainer *trainer, const Shape *shape,
                           const Tokenizer *tokenizer)
{
    static const int32_t ends[] = {WORKLOAD_END};
    Error err = {0};
    Engine *engine = NULL;
    int64_t page = kv_cache_page_bytes(trainer->plan, trainer->weights->dtype, ranks->kernels);
    EngineOptions options = {
        .weights = trainer->weights,
        .weight_version = 12,
        .tensor_comm = ranks->tensor_comm,
        .max_length = WORKLOAD_LENGTH_MAX,
        .max_samples = shape->max_samples,
        .max_step_tokens = shape->max_step_tokens,
        .kv_bytes = shape->pages * page,
        .tokenizer = tokenizer,
        .end_token = ends,
        .num_end_tokens = 1,
        .forgets_prefixes = shape->forgets,
    };
    rank_ok(engine_create(&options, &engine, &err), &err);
    return engine;
}

/* ---- the same alone ---- */

static void check_alone(Engine *engine, const Workload *workload, const Outcome *outcome)
{
    Error err = {0};
    Spec spec;
    Generation alone;
    const Generation *g = &outcome->generation;
    spec_make(&spec, workload, outcome->number);
    spec.request.first_index = g->index;
    spec.request.num_samples = 1;
    rank_ok(engine_submit(engine, &spec.request, &err), &err);
    for (bool busy = true; busy;)
        rank_ok(engine_step(engine, &busy, &err), &err);
    rank_check(engine_take(engine, &alone));
    rank_check(g->finish == FINISH_ABORT ? alone.length >= g->length : alone.length == g->length);
    size_t n = (size_t)g->length;
    rank_check(n == 0 || memcmp(alone.token, g->token, n * sizeof *g->token) == 0);
    rank_check(n == 0 || memcmp(alone.log_prob, g->log_prob, n * sizeof *g->log_prob) == 0);
    rank_check(g->finish == FINISH_ABORT || alone.finish == g->finish);
    generation_clear(&alone);
}

/* ---- the same in the trainer ---- */

/* Rank 0's sample on every rank. */
static void share_sample(const Ranks *ranks, Sample *sample)
{
    Error err = {0};
    int32_t sizes[] = {sample->length, sample->prompt_length};
    if (ranks->tp_size == 1) return;
    rank_ok(comm_broadcast(ranks->tensor_comm, tensor_1d(sizes, DTYPE_I32, 2), 0, &err), &err);
    rank_ok(
        comm_broadcast(ranks->tensor_comm, tensor_1d(&sample->temperature, DTYPE_F32, 1), 0, &err),
        &err);
    if (ranks->tp_rank > 0) {
        sample->length = sizes[0];
        sample->prompt_length = sizes[1];
        sample->token = mem_calloc((size_t)sizes[0], sizeof *sample->token);
        sample->loss_mask = mem_calloc((size_t)sizes[0], 1);
        memset(sample->loss_mask + sizes[1], 1, (size_t)(sizes[0] - sizes[1]));
    }
    rank_ok(
        comm_broadcast(ranks->tensor_comm, tensor_1d(sample->token, DTYPE_I32, sizes[0]), 0, &err),
        &err);
}

/* Log-probs of a sample as the trainer evaluates it; compared where rank 0 knows the engine's. */
static void check_trainer(const Ranks *ranks, Trainer *trainer, Sample *sample)
{
    Error err = {0};
    StepResult result;
    float value[WORKLOAD_LENGTH_MAX], *values[] = {value};
    const Sample *pointer = sample;
    MicroBatch batch = {.sample = &pointer, .num_samples = 1};
    share_sample(ranks, sample);
    rank_ok(trainer_evaluate(trainer, &batch, 1, (float *const *const[]){values}, &result, &err),
            &err);
    if (ranks->tp_rank > 0) return;
    for (int32_t t = sample->prompt_length; t < sample->length; t++)
        rank_check(memcmp(&value[t], &sample->log_prob[t], sizeof(float)) == 0);
}

static void check_log_probs(const Ranks *ranks, Trainer *trainer, const Workload *workload,
                            int64_t checked[2])
{
    Error err = {0};
    int32_t count = workload->num_outcomes;
    if (ranks->tp_size > 1)
        rank_ok(comm_broadcast(ranks->tensor_comm, tensor_1d(&count, DTYPE_I32, 1), 0, &err), &err);
    for (int i = 0; i < count; i++) {
        Sample sample = {0};
        if (ranks->tp_rank == 0) {
            Spec spec;
            spec_make(&spec, workload, workload->outcome[i].number);
            generation_to_sample(&workload->outcome[i].generation, spec.prompt, &sample);
            rank_ok(sample_check_policy(&sample, &err), &err);
            checked[0]++;
            checked[1] += workload->outcome[i].generation.length;
        }
        check_trainer(ranks, trainer, &sample);
        sample_clear(&sample);
    }
}

static void exact_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Trainer *trainer = make_trainer(ranks, job->dtype);
    Tokenizer *tokenizer = tiny_tokenizer();
    for (int shape = 0; shape < NUM_SHAPES; shape++) {
        Workload workload = {.seed = 100 + (uint64_t)shape,
                             .num_requests = REQUESTS / ranks->tp_size,
                             .in_work_max = 8,
                             .abort_one_in = shape == 1 ? 20 : 4,
                             .resume_percent = 80,
                             .with_stops = true,
                             .long_samples = shape == 1};
        Engine *engine = make_engine(ranks, trainer, &SHAPES[shape], tokenizer);
        if (ranks->tp_rank == 0)
            workload_run(&workload, engine);
        else
            follow(engine);
        if (ranks->tp_rank == 0) {
            EngineStats stats = engine_stats(engine);
            rank_check(workload.num_aborted > 0 && workload.num_resumed > 0);
            rank_check(shape != 1 || stats.preemptions > 0);
            rank_check(stats.prompt_tokens_found > 0);
        }
        engine_destroy(engine);
        engine = make_engine(ranks, trainer, &ALONE, tokenizer);
        for (int i = 0; i < workload.num_outcomes; i++) {
            outcome_check(&workload, &workload.outcome[i], tokenizer);
            check_alone(engine, &workload, &workload.outcome[i]);
        }
        if (ranks->tp_rank > 0) follow(engine);
        engine_destroy(engine);
        check_log_probs(ranks, trainer, &workload, job->checked);
        workload_clear(&workload);
    }
    tokenizer_destroy(tokenizer);
    trainer_destroy(trainer);
}

static void check_exact(int tp_size)
{
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype, shared_alloc(2 * sizeof(int64_t))};
        ranks_run(tp_size, 1, exact_body, &job);
        print_message("%s, tp %d: %lld samples, %lld tokens, 0 bits apart\n", dtype_name(dtype),
                      tp_size, (long long)job.checked[0], (long long)job.checked[1]);
        shared_free(job.checked, 2 * sizeof(int64_t));
    }
}

/* ---- ranks that are threads of one process ---- */

/* What the trainers' ranks hold, made here for each of them; rank 0's are compared. */
static void make_weights(const Trainer *trainer, int rank, Weights **ret)
{
    WeightPlan *plan = weight_plan_create(&trainer->plan->config, rank, trainer->plan->tp_size);
    Weights *weights = weights_create(plan, DTYPE_F32, trainer->weights->kernels);
    for (int i = 0; i < plan->num_specs; i++)
        weight_init_random(plan, &plan->spec[i], 3,
                           weight_view(plan, i, weights->flat, DTYPE_F32).data);
    weights_prepare(weights);
    rank_check(rank > 0 || memcmp(weights->flat, trainer->weights->flat,
                                  (size_t)plan->size * sizeof(float)) == 0);
    *ret = weights;
}

static void run_in_threads(const Trainer *trainer, Workload *workload)
{
    static const int32_t ends[] = {WORKLOAD_END};
    Error err = {0};
    Weights *weights[2];
    EngineThread *thread = NULL;
    for (int r = 0; r < 2; r++)
        make_weights(trainer, r, &weights[r]);
    int64_t page = kv_cache_page_bytes(trainer->plan, DTYPE_F32, trainer->weights->kernels);
    EngineThreadOptions options = {
        .engine = {.max_length = WORKLOAD_LENGTH_MAX,
                   .max_samples = 24,
                   .max_step_tokens = 64,
                   .kv_bytes = 120 * page,
                   .end_token = ends,
                   .num_end_tokens = 1},
        .tp_size = 2,
    };
    rank_ok(engine_thread_create(&options, &thread, &err), &err);
    rank_ok(engine_thread_adopt(thread, (const Weights *const *)weights, 1, NULL, &err), &err);
    workload->outcome = mem_calloc((size_t)workload->num_requests * 6, sizeof *workload->outcome);
    for (int n = 0; n < workload->num_requests; n++) {
        Spec spec;
        Generation generation[6];
        spec_make(&spec, workload, n);
        rank_ok(engine_thread_generate(thread, &spec.request, NULL, generation, &err), &err);
        for (int i = 0; i < spec.request.num_samples; i++)
            workload->outcome[workload->num_outcomes++] = (Outcome){n, generation[i]};
    }
    engine_thread_destroy(thread);
    for (int r = 0; r < 2; r++) {
        WeightPlan *plan = (WeightPlan *)weights[r]->plan;
        weights_destroy(weights[r]);
        weight_plan_destroy(plan);
    }
}

static void threads_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Trainer *trainer = make_trainer(ranks, job->dtype);
    Workload workload = {.seed = 9, .num_requests = REQUESTS / 2};
    if (ranks->tp_rank == 0) run_in_threads(trainer, &workload);
    check_log_probs(ranks, trainer, &workload, job->checked);
    workload_clear(&workload);
    trainer_destroy(trainer);
}

static void test_samples_of_two_ranks_in_one_process_are_the_trainers(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, shared_alloc(2 * sizeof(int64_t))};
    ranks_run(2, 1, threads_body, &job);
    assert_true(job.checked[0] >= REQUESTS / 2 && job.checked[1] > 10 * REQUESTS / 2);
    shared_free(job.checked, 2 * sizeof(int64_t));
}

static void test_samples_are_the_trainers_and_the_same_alone(void **state)
{
    (void)state;
    check_exact(1);
}

static void test_samples_of_two_ranks_are_the_trainers_and_the_same_alone(void **state)
{
    (void)state;
    check_exact(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_are_the_trainers_and_the_same_alone),
        cmocka_unit_test(test_samples_of_two_ranks_are_the_trainers_and_the_same_alone),
        cmocka_unit_test(test_samples_of_two_ranks_in_one_process_are_the_trainers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
