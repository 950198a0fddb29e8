/* Samples are what they are, however they are made: to the bit the trainer's log-probs, and the
 * same ids as alone, over random batches, chunk cuts, prefix hits, forks, aborts, resumes and
 * preemptions, on one and two ranks, in f32 and bf16. -DSCALE=n makes n times as many, 0 a few. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/engine/engine_thread.h"
#include "../../model/draw.h"
#include "mismatch.h"
#include "trainer_state.h"

#ifndef SCALE
#define SCALE 1
#endif
#define REQUESTS       (SCALE > 0 ? 50 * SCALE : 8)
#define ROUND_REQUESTS (SCALE > 0 ? 20 * SCALE : 8)

typedef struct Job {
    DType dtype;
    MismatchCount *count; /* of shared_alloc */
} Job;

static const EngineShape SHAPES[] = {
    {120, 24, 64, false}, /* roomy */
    {16, 12, 33, false},  /* preempts all the time */
    {40, 3, 200, false},  /* few at a time, whole prompts */
    {16, 8, 8, true},     /* shortest chunks, nothing found again */
};
#define NUM_SHAPES ((int)(sizeof SHAPES / sizeof *SHAPES))
static const EngineShape ALONE = {4, 1, WORKLOAD_LENGTH_MAX, true};

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

/* ---- random requests ---- */

static void exact_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Trainer *trainer = mismatch_trainer(ranks, MISMATCH_SMALL, job->dtype);
    Tokenizer *tokenizer = tiny_tokenizer();
    for (int shape = 0; shape < NUM_SHAPES; shape++) {
        Workload workload = {.seed = 100 + (uint64_t)shape,
                             .num_requests = REQUESTS / ranks->tp_size,
                             .in_work_max = 8,
                             .abort_one_in = shape == 1 ? 20 : 4,
                             .resume_percent = 80,
                             .with_stops = true,
                             .long_samples = shape == 1};
        Engine *engine = mismatch_engine(ranks, trainer, &SHAPES[shape], tokenizer);
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
        engine = mismatch_engine(ranks, trainer, &ALONE, tokenizer);
        for (int i = 0; i < workload.num_outcomes; i++) {
            outcome_check(&workload, &workload.outcome[i], tokenizer);
            check_alone(engine, &workload, &workload.outcome[i]);
        }
        if (ranks->tp_rank > 0) follow(engine);
        engine_destroy(engine);
        mismatch_compare(ranks, trainer, &workload, workload.seed, job->count);
        workload_clear(&workload);
    }
    tokenizer_destroy(tokenizer);
    trainer_destroy(trainer);
}

static void check_exact(int tp_size)
{
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype, shared_alloc(sizeof(MismatchCount))};
        ranks_run(tp_size, 1, exact_body, &job);
        print_message("%s, tp %d: %lld samples, %lld tokens, %lld bits apart\n", dtype_name(dtype),
                      tp_size, (long long)job.count->samples, (long long)job.count->tokens,
                      (long long)job.count->mismatches);
        assert_true(job.count->samples > REQUESTS && job.count->tokens > 10 * REQUESTS);
        assert_int_equal(job.count->mismatches, 0);
        shared_free(job.count, sizeof *job.count);
    }
}

/* ---- ranks that are threads of one process ---- */

/* What the trainers' ranks hold, made here for each of them; rank 0's are compared. */
static void make_weights(const Trainer *trainer, int rank, Weights **ret)
{
    WeightPlan *plan = weight_plan_create(&trainer->plan->config, rank, trainer->plan->tp_size);
    Weights *weights = weights_create(plan, DTYPE_F32, trainer->weights->kernels);
    draw_weights(weights, 3);
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
    Trainer *trainer = mismatch_trainer(ranks, MISMATCH_SMALL, job->dtype);
    Workload workload = {.seed = 9, .num_requests = REQUESTS / 2};
    if (ranks->tp_rank == 0) run_in_threads(trainer, &workload);
    mismatch_compare(ranks, trainer, &workload, workload.seed, job->count);
    workload_clear(&workload);
    trainer_destroy(trainer);
}

static void test_samples_of_two_ranks_in_one_process_are_the_trainers(void **state)
{
    (void)state;
    Job job = {DTYPE_F32, shared_alloc(sizeof(MismatchCount))};
    ranks_run(2, 1, threads_body, &job);
    assert_true(job.count->samples >= REQUESTS / 2 && job.count->tokens > 10 * REQUESTS / 2);
    assert_int_equal(job.count->mismatches, 0);
    shared_free(job.count, sizeof *job.count);
}

/* ---- random engines and models ---- */

static void test_random_rounds_of_every_model_are_the_trainers(void **state)
{
    (void)state;
    MismatchCount *count = shared_alloc(sizeof *count);
    for (int model = 0; model < MISMATCH_MODELS; model++) {
        MismatchRound round = {.seed = 50 + (uint64_t)model,
                               .model = (MismatchModel)model,
                               .dtype = model % 2 == 0 ? DTYPE_BF16 : DTYPE_F32,
                               .num_requests = model == MISMATCH_WIDE ? 2 : ROUND_REQUESTS,
                               .count = count};
        ranks_run(1 + model % 2, 1, mismatch_round, &round);
    }
    assert_int_equal(count->mismatches, 0);
    assert_true(count->samples > 100 && count->found_tokens > 0 && count->resumed > 0);
    shared_free(count, sizeof *count);
}

/* One bit of one log-prob, so that nobody need wonder whether the others were looked at. */
static void flipped_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Trainer *trainer = mismatch_trainer(ranks, MISMATCH_SMALL, job->dtype);
    Engine *engine = mismatch_engine(ranks, trainer, &SHAPES[0], NULL);
    Workload workload = {.seed = 4, .num_requests = 4, .in_work_max = 4};
    uint32_t bits;
    workload_run(&workload, engine);
    engine_destroy(engine);
    Generation *g = &workload.outcome[workload.num_outcomes - 1].generation;
    float *last = &g->log_prob[g->length - 1];
    memcpy(&bits, last, sizeof bits);
    bits ^= 1;
    memcpy(last, &bits, sizeof bits);
    mismatch_compare(ranks, trainer, &workload, 1, job->count);
    workload_clear(&workload);
    trainer_destroy(trainer);
}

static void test_one_bit_in_one_log_prob_is_found(void **state)
{
    (void)state;
    Job job = {DTYPE_BF16, shared_alloc(sizeof(MismatchCount))};
    ranks_run(1, 1, flipped_body, &job);
    assert_int_equal(job.count->mismatches, 1);
    assert_true(job.count->worst > 0.0 && job.count->worst < 1e-5);
    shared_free(job.count, sizeof *job.count);
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
        cmocka_unit_test(test_random_rounds_of_every_model_are_the_trainers),
        cmocka_unit_test(test_one_bit_in_one_log_prob_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
