/* Tests of the thread that owns an engine: many callers at once get what one gets, requests wait
 * for weights, weights change under way and are left alone afterwards, and every way in which a
 * wait ends. */
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../tensor/fenced_kernels.h"
#include "../../tensor/fenced_memory.h"
#include "base/memory.h"
#include "rollout_worker/engine/engine_thread.h"
#include "toy_engine.h"
#include "workload.h"

#define CALLERS  4
#define REQUESTS 40
#define LONG     200 /* tokens of a sample that is to be caught in work */

static const int32_t ENDS[] = {WORKLOAD_END};

/* Toys of all ranks of one engine, in one process. */
typedef struct Stage {
    ToyEngine toy[2];
    int tp_size;
    EngineThreadOptions options;
    EngineThread *thread;
} Stage;

static void stage_open(Stage *stage, const Ranks *ranks, int tp_size)
{
    Error err = {0};
    *stage = (Stage){.tp_size = tp_size, .options.tp_size = tp_size};
    for (int r = tp_size - 1; r >= 0; r--) {
        Ranks rank = {.tp_rank = r, .tp_size = tp_size, .kernels = ranks->kernels};
        toy_engine_init(&stage->toy[r], &rank, 60, &stage->options.engine);
    }
    stage->options.engine.end_token = ENDS;
    stage->options.engine.num_end_tokens = 1;
    if (!ranks->kernels->host_memory) stage->options.engine.pools = fenced_memory();
    rank_ok(engine_thread_create(&stage->options, &stage->thread, &err), &err);
}

static void stage_close(Stage *stage)
{
    engine_thread_destroy(stage->thread);
    for (int r = 0; r < stage->tp_size; r++)
        toy_engine_clear(&stage->toy[r]);
}

/* Generate with the weights of number `which` under the name of `version`. */
static Status adopt_as(Stage *stage, int which, int64_t version, Error *err)
{
    const Weights *weights[2];
    for (int r = 0; r < stage->tp_size; r++)
        weights[r] = stage->toy[r].weights[which];
    return engine_thread_adopt(stage->thread, weights, version, NULL, err);
}

static void adopt(Stage *stage, int version)
{
    Error err = {0};
    rank_ok(adopt_as(stage, version, version, &err), &err);
}

/* ---- the brake ---- */

/* A request whose callback holds each step up: what is to be caught in work is caught, also on a
 * machine that is busy. */
typedef struct Brake {
    atomic_bool on;
    atomic_int left;
} Brake;

static void brake_token(void *context, const TokenEvent *event)
{
    (void)event;
    if (atomic_load(&((Brake *)context)->on)) usleep(20000);
}

static void brake_done(void *context, Generation *generation, const Error *why)
{
    (void)why;
    generation_clear(generation);
    ((Brake *)context)->left--;
}

static void brake_set(Brake *brake, const Stage *stage)
{
    Error err = {0};
    ToyRequest toy;
    uint64_t id;
    GenerateSink sink = {brake_token, brake_done, brake};
    toy_request(&toy, 999, 2, 1, TOY_LENGTH_MAX - 2);
    toy.request.params.ignore_eos = true;
    *brake = (Brake){.on = true, .left = 1};
    rank_ok(engine_thread_submit(stage->thread, &toy.request, &sink, &id, &err), &err);
}

static void brake_release(Brake *brake)
{
    brake->on = false;
    while (brake->left > 0)
        usleep(200);
}

/* What a thing that another thread does comes to. */
static void wait_until_working(const Stage *stage, int count)
{
    while (engine_thread_working(stage->thread) < count)
        usleep(200);
}

static void wait_for_steps(const Stage *stage, uint64_t count)
{
    uint64_t until = engine_thread_progress(stage->thread) + count;
    while (engine_thread_progress(stage->thread) < until)
        usleep(200);
}

static void wait_until_waiting(const Stage *stage, int count)
{
    while (engine_thread_waiting(stage->thread) < count)
        usleep(200);
}

/* ---- a caller in a thread of its own ---- */

typedef struct Caller {
    Stage *stage;
    const Workload *workload;
    int first, step; /* requests first, first + step, ... */
    Outcome *outcome;
    int num_outcomes;
    pthread_t thread;
} Caller;

static void *caller_main(void *argument)
{
    Caller *caller = argument;
    caller->outcome = mem_calloc(REQUESTS * 8, sizeof *caller->outcome);
    for (int n = caller->first; n < REQUESTS; n += caller->step) {
        Error err = {0};
        Spec spec;
        Generation generation[8];
        spec_make(&spec, caller->workload, n);
        rank_ok(
            engine_thread_generate(caller->stage->thread, &spec.request, NULL, generation, &err),
            &err);
        for (int i = 0; i < spec.request.num_samples; i++) {
            rank_check(generation[i].index == (uint32_t)i);
            caller->outcome[caller->num_outcomes++] = (Outcome){n, generation[i]};
        }
    }
    return NULL;
}

static void start_callers(Caller *caller, int count, Stage *stage, const Workload *workload)
{
    for (int i = 0; i < count; i++) {
        caller[i] = (Caller){.stage = stage, .workload = workload, .first = i, .step = count};
        rank_check(pthread_create(&caller[i].thread, NULL, caller_main, &caller[i]) == 0);
    }
}

static bool same_generation(const Generation *a, const Generation *b)
{
    size_t n = (size_t)a->length;
    return a->length == b->length && a->finish == b->finish &&
           (n == 0 || (memcmp(a->token, b->token, n * sizeof *a->token) == 0 &&
                       memcmp(a->log_prob, b->log_prob, n * sizeof *a->log_prob) == 0));
}

/* Moves what callers got into one list by request and index. */
static void gather(Caller *caller, int count, Generation ret[REQUESTS][8])
{
    for (int i = 0; i < count; i++) {
        rank_check(pthread_join(caller[i].thread, NULL) == 0);
        for (int o = 0; o < caller[i].num_outcomes; o++) {
            const Outcome *outcome = &caller[i].outcome[o];
            ret[outcome->number][outcome->generation.index] = outcome->generation;
        }
        free(caller[i].outcome);
    }
}

static void compare_and_clear(Generation a[REQUESTS][8], Generation b[REQUESTS][8])
{
    int64_t tokens = 0;
    for (int n = 0; n < REQUESTS; n++)
        for (int i = 0; i < 8; i++) {
            rank_check(same_generation(&a[n][i], &b[n][i]));
            tokens += a[n][i].length;
            generation_clear(&a[n][i]);
            generation_clear(&b[n][i]);
        }
    rank_check(tokens > 1000);
}

/* ---- a caller that is to be caught in work ---- */

typedef struct LongCall {
    Stage *stage;
    uint64_t key;
    atomic_bool given_up;
    Generation generation[2];
    Status status;
    Error err;
    pthread_t thread;
} LongCall;

static void *long_call_main(void *argument)
{
    LongCall *call = argument;
    ToyRequest toy;
    toy_request(&toy, call->key, 20, 2, LONG);
    toy.request.params.ignore_eos = true;
    call->status = engine_thread_generate(call->stage->thread, &toy.request, &call->given_up,
                                          call->generation, &call->err);
    return NULL;
}

static void long_call_start(LongCall *call, Stage *stage, uint64_t key)
{
    *call = (LongCall){.stage = stage, .key = key};
    rank_check(pthread_create(&call->thread, NULL, long_call_main, call) == 0);
}

static void long_call_join(LongCall *call)
{
    rank_check(pthread_join(call->thread, NULL) == 0);
}

static void long_call_clear(LongCall *call)
{
    for (int i = 0; i < 2; i++)
        generation_clear(&call->generation[i]);
}

/* ---- tests ---- */

static void many_callers(const Ranks *ranks, void *argument)
{
    int tp_size = *(const int *)argument;
    static Generation together[REQUESTS][8], alone[REQUESTS][8];
    Workload workload = {.seed = 4, .with_stops = true};
    Caller caller[CALLERS];
    Stage stage;
    stage_open(&stage, ranks, tp_size);
    start_callers(caller, CALLERS, &stage, &workload);
    wait_until_waiting(&stage, CALLERS); /* for weights */
    rank_check(engine_thread_working(stage.thread) == 0);
    adopt(&stage, 0);
    gather(caller, CALLERS, together);
    rank_check(engine_thread_working(stage.thread) == 0);
    rank_check(engine_thread_progress(stage.thread) > 0);
    start_callers(caller, 1, &stage, &workload);
    gather(caller, 1, alone);
    compare_and_clear(together, alone);
    stage_close(&stage);
}

static void test_many_callers_get_what_one_gets(void **state)
{
    (void)state;
    ranks_run(1, 1, many_callers, &(int){1});
}

static void test_many_callers_of_two_ranks_get_what_one_gets(void **state)
{
    (void)state;
    ranks_run(1, 1, many_callers, &(int){2});
}

/* Of every sample that finished: its tokens have the log-probs of the version that they name. */
static void check_versions(const Stage *stage, const LongCall *call)
{
    ToyRequest toy;
    int32_t token[TOY_LENGTH_MAX];
    float expected[TOY_LENGTH_MAX];
    toy_request(&toy, call->key, 20, 2, LONG);
    for (int s = 0; s < 2; s++) {
        const Generation *g = &call->generation[s];
        int32_t at = 0;
        rank_check(g->length == LONG && g->num_version_runs >= 2);
        memcpy(token, toy.prompt, 20 * sizeof *token);
        memcpy(token + 20, g->token, LONG * sizeof *token);
        for (int r = 0; r < g->num_version_runs; r++) {
            int version = (int)g->version_run[r].version;
            int32_t count = g->version_run[r].count;
            toy_log_probs(&stage->toy[0], version, token, 20 + LONG, 20, expected);
            rank_check(memcmp(expected + at, g->log_prob + at, (size_t)count * sizeof *expected) ==
                       0);
            at += count;
        }
    }
}

static void new_weights(const Ranks *ranks, void *argument)
{
    (void)argument;
    Stage stage;
    Brake brake;
    LongCall call[6];
    stage_open(&stage, ranks, 1);
    adopt(&stage, 0);
    brake_set(&brake, &stage);
    for (int i = 0; i < 6; i++)
        long_call_start(&call[i], &stage, 30 + (uint64_t)i);
    wait_until_working(&stage, 13);
    wait_for_steps(&stage, 2);
    adopt(&stage, 1);
    brake_release(&brake);
    for (int i = 0; i < 6; i++) {
        long_call_join(&call[i]);
        rank_ok(call[i].status, &call[i].err);
        check_versions(&stage, &call[i]);
        long_call_clear(&call[i]);
    }
    Error err = {0};
    rank_check(adopt_as(&stage, 2, 1, &err) == ERR_EXISTS);
    stage_close(&stage);
}

static void test_new_weights_come_between_two_tokens(void **state)
{
    (void)state;
    ranks_run(1, 1, new_weights, NULL);
}

/* The device is somebody else's for a while. */
static void rest(const Stage *stage)
{
    Error err = {0};
    char why[256];
    const DeviceMemory *memory = fenced_memory();
    rank_ok(engine_thread_rest(stage->thread, &err), &err);
    rank_check(engine_thread_rests(stage->thread));
    rank_check(memory->pool_release(POOL_SCRATCH, false) > 0); /* whoever touches it now dies */
    rank_check(memory->pool_release(POOL_STATE, true) > 0);
    const uint64_t steps = engine_thread_progress(stage->thread);
    usleep(50000);
    rank_check(engine_thread_progress(stage->thread) == steps);
    rank_check(memory->pool_restore(POOL_SCRATCH, why, sizeof why));
    rank_check(memory->pool_restore(POOL_STATE, why, sizeof why));
}

static void rested(const Ranks *given, void *argument)
{
    (void)argument;
    Ranks ranks = *given;
    Stage stage;
    Brake brake;
    LongCall call[4];
    ranks.kernels = fenced_kernels(given->kernels, (size_t)64 << 20);
    stage_open(&stage, &ranks, 1);
    adopt(&stage, 0);
    brake_set(&brake, &stage);
    for (int i = 0; i < 4; i++)
        long_call_start(&call[i], &stage, 40 + (uint64_t)i);
    wait_until_working(&stage, 9);
    wait_for_steps(&stage, 2);
    rest(&stage);
    adopt(&stage, 0); /* those that it has: it goes on */
    wait_for_steps(&stage, 2);
    rest(&stage);
    adopt(&stage, 1);
    rank_check(!engine_thread_rests(stage.thread));
    brake_release(&brake);
    for (int i = 0; i < 4; i++) {
        long_call_join(&call[i]);
        rank_ok(call[i].status, &call[i].err);
        check_versions(&stage, &call[i]);
        long_call_clear(&call[i]);
    }
    stage_close(&stage);
}

static void test_what_is_in_work_goes_on_after_a_rest(void **state)
{
    (void)state;
    ranks_run(1, 1, rested, NULL);
}

/* Overwrites the weights that were in use as soon as others are, as who pushes them does. */
static void old_weights(const Ranks *ranks, void *argument)
{
    int tp_size = *(const int *)argument;
    Stage stage;
    Brake brake;
    LongCall call[4];
    stage_open(&stage, ranks, tp_size);
    adopt(&stage, 0);
    brake_set(&brake, &stage);
    for (int i = 0; i < 4; i++)
        long_call_start(&call[i], &stage, 50 + (uint64_t)i);
    wait_until_working(&stage, 9);
    for (int version = 1; version <= 2; version++) {
        adopt(&stage, version);
        for (int r = 0; r < tp_size; r++) {
            Weights *old = stage.toy[r].weights[version - 1];
            for (int64_t i = 0; i < old->plan->size; i++)
                ((float *)old->flat)[i] = NAN;
            weights_prepare(old);
        }
    }
    brake_release(&brake);
    for (int i = 0; i < 4; i++) {
        long_call_join(&call[i]);
        rank_ok(call[i].status, &call[i].err);
        for (int s = 0; s < 2; s++)
            rank_check(call[i].generation[s].length == LONG);
        long_call_clear(&call[i]);
    }
    stage_close(&stage);
}

static void test_nobody_reads_old_weights_once_new_ones_are_adopted(void **state)
{
    (void)state;
    ranks_run(1, 1, old_weights, &(int){1});
    ranks_run(1, 1, old_weights, &(int){2});
}

static void ending(const Ranks *ranks, void *argument)
{
    (void)argument;
    Stage stage;
    LongCall working, waiting, late;
    stage_open(&stage, ranks, 1);
    long_call_start(&waiting, &stage, 1);
    wait_until_waiting(&stage, 1);
    engine_thread_end(stage.thread);
    long_call_join(&waiting);
    rank_check(waiting.status == ERR_CANCELLED);
    stage_close(&stage);

    Brake brake;
    stage_open(&stage, ranks, 2);
    adopt(&stage, 0);
    brake_set(&brake, &stage);
    long_call_start(&working, &stage, 2);
    wait_until_working(&stage, 3);
    engine_thread_end(stage.thread);
    brake_release(&brake);
    long_call_join(&working);
    rank_ok(working.status, &working.err);
    for (int i = 0; i < 2; i++)
        rank_check(working.generation[i].finish == FINISH_ABORT);
    long_call_clear(&working);
    long_call_start(&late, &stage, 3);
    long_call_join(&late);
    rank_check(late.status == ERR_CANCELLED);
    stage_close(&stage);
}

static void test_ending_ends_every_wait(void **state)
{
    (void)state;
    ranks_run(1, 1, ending, NULL);
}

static void giving_up(const Ranks *ranks, void *argument)
{
    (void)argument;
    Stage stage;
    LongCall unwanted, wanted;
    stage_open(&stage, ranks, 1);
    long_call_start(&unwanted, &stage, 1);
    wait_until_waiting(&stage, 1);
    atomic_store(&unwanted.given_up, true);
    long_call_join(&unwanted);
    rank_check(unwanted.status == ERR_CANCELLED);

    Brake brake;
    adopt(&stage, 0);
    brake_set(&brake, &stage);
    long_call_start(&unwanted, &stage, 2);
    long_call_start(&wanted, &stage, 3);
    wait_until_working(&stage, 5);
    atomic_store(&unwanted.given_up, true);
    long_call_join(&unwanted);
    brake_release(&brake);
    long_call_join(&wanted);
    rank_ok(unwanted.status, &unwanted.err);
    rank_ok(wanted.status, &wanted.err);
    for (int i = 0; i < 2; i++) {
        rank_check(unwanted.generation[i].finish == FINISH_ABORT);
        rank_check(wanted.generation[i].length == LONG);
    }
    long_call_clear(&unwanted);
    long_call_clear(&wanted);
    stage_close(&stage);
}

static void test_samples_that_nobody_wants_any_more_end(void **state)
{
    (void)state;
    ranks_run(1, 1, giving_up, NULL);
}

/* ---- a sink ---- */

typedef struct Stream {
    atomic_bool slow;
    atomic_int tokens, samples, aborted;
} Stream;

static void stream_token(void *context, const TokenEvent *event)
{
    Stream *stream = context;
    rank_check(event->token >= 0 && event->log_prob <= 0.0f);
    stream->tokens++;
    if (stream->slow) usleep(20000);
}

static void stream_done(void *context, Generation *generation, const Error *why)
{
    Stream *stream = context;
    rank_check(why == NULL);
    stream->aborted += generation->finish == FINISH_ABORT;
    generation_clear(generation);
    stream->samples++;
}

static void streaming(const Ranks *ranks, void *argument)
{
    (void)argument;
    Stage stage;
    Stream whole = {0}, cut = {.slow = true};
    ToyRequest toy;
    Error err = {0};
    uint64_t id[2];
    stage_open(&stage, ranks, 1);
    adopt(&stage, 0);
    toy_request(&toy, 1, 20, 3, LONG);
    toy.request.params.ignore_eos = true;
    GenerateSink sink = {stream_token, stream_done, &whole};
    rank_ok(engine_thread_submit(stage.thread, &toy.request, &sink, &id[0], &err), &err);
    sink.context = &cut;
    rank_ok(engine_thread_submit(stage.thread, &toy.request, &sink, &id[1], &err), &err);
    rank_check(id[0] != id[1]);
    while (cut.tokens == 0)
        usleep(200);
    engine_thread_abort(stage.thread, id[1]);
    rank_check(cut.samples == 3 && cut.aborted == 3 && cut.tokens < 3 * LONG);
    while (whole.samples < 3)
        usleep(200);
    rank_check(whole.tokens == 3 * LONG && whole.aborted == 0);
    engine_thread_abort(stage.thread, id[0]); /* over: nothing happens */
    toy.request.num_samples = 0;
    rank_check(engine_thread_submit(stage.thread, &toy.request, &sink, &id[0], &err) ==
               ERR_INVALID);
    stage_close(&stage);
}

static void test_tokens_stream_and_a_request_can_be_aborted(void **state)
{
    (void)state;
    ranks_run(1, 1, streaming, NULL);
}

/* ---- trouble ---- */

static void bad_weights(const Ranks *ranks, void *argument)
{
    int tp_size = *(const int *)argument;
    Stage stage;
    LongCall call;
    stage_open(&stage, ranks, tp_size);
    for (int r = 0; r < tp_size; r++) {
        Weights *bad = stage.toy[r].weights[0];
        for (int64_t i = 0; i < bad->plan->size; i++)
            ((float *)bad->flat)[i] = NAN;
        weights_prepare(bad);
    }
    adopt(&stage, 0);
    long_call_start(&call, &stage, 1);
    long_call_join(&call);
    rank_check(call.status == ERR_DATA);
    rank_check(strstr(call.err.message, "weights of version 0") != NULL);
    adopt(&stage, 1);
    long_call_start(&call, &stage, 2);
    long_call_join(&call);
    rank_ok(call.status, &call.err);
    rank_check(call.generation[1].length == LONG);
    long_call_clear(&call);
    stage_close(&stage);
}

static void test_weights_without_finite_logits_fail_requests_until_better_ones_come(void **state)
{
    (void)state;
    ranks_run(1, 1, bad_weights, &(int){1});
    ranks_run(1, 1, bad_weights, &(int){2});
}

/* A trainer that begins again may show other weights under a name that was there before. */
static void reset(const Ranks *ranks, void *argument)
{
    int tp_size = *(const int *)argument;
    Stage stage;
    LongCall before, aborted, after, other;
    Brake brake;
    Error err = {0};
    stage_open(&stage, ranks, tp_size);
    rank_ok(adopt_as(&stage, 0, 7, &err), &err);
    long_call_start(&before, &stage, 1);
    long_call_join(&before);
    brake_set(&brake, &stage);
    long_call_start(&aborted, &stage, 1);
    wait_until_working(&stage, 3);
    rank_ok(engine_thread_reset(stage.thread, &err), &err);
    brake_release(&brake);
    long_call_join(&aborted);
    rank_ok(aborted.status, &aborted.err);
    rank_check(aborted.generation[0].finish == FINISH_ABORT);
    long_call_start(&other, &stage, 1); /* waits: there are none now */
    wait_until_waiting(&stage, 1);
    rank_ok(adopt_as(&stage, 1, 7, &err), &err);
    long_call_join(&other);
    rank_check(!same_generation(&before.generation[0], &other.generation[0]));
    rank_ok(engine_thread_reset(stage.thread, &err), &err);
    rank_ok(adopt_as(&stage, 0, 7, &err), &err);
    long_call_start(&after, &stage, 1);
    long_call_join(&after);
    for (int i = 0; i < 2; i++)
        rank_check(same_generation(&before.generation[i], &after.generation[i]));
    long_call_clear(&before);
    long_call_clear(&aborted);
    long_call_clear(&other);
    long_call_clear(&after);
    stage_close(&stage);
}

typedef struct Watcher {
    atomic_int calls;
    Error why;
} Watcher;

static void note_lost(void *context, const Error *why)
{
    Watcher *watcher = context;
    watcher->why = *why;
    watcher->calls++;
}

/* Only rank 0 has weights of that name: the next step fails on rank 1 alone. */
static Status part_ranks(void *context, Engine *engine, Error *err)
{
    Stage *stage = context;
    engine_stage_weights(engine, stage->toy[0].weights[1], 7);
    return engine_switch_weights(engine, 7, KV_RECOMPUTE, err);
}

static void losing_a_rank(const Ranks *ranks, void *argument)
{
    (void)argument;
    static const char what[] = "tensor-parallel rank of the generation engine is lost";
    Error err = {0};
    Stage stage;
    ToyRequest toy;
    Generation generation;
    Watcher watcher = {0};
    stage_open(&stage, ranks, 2);
    engine_thread_watch(stage.thread, note_lost, &watcher);
    adopt(&stage, 0);
    rank_ok(engine_thread_run(stage.thread, part_ranks, &stage, &err), &err);
    toy_request(&toy, 5, 8, 1, LONG);
    toy.request.params.ignore_eos = true;
    for (int i = 0; i < 2; i++) {
        rank_check(engine_thread_generate(stage.thread, &toy.request, NULL, &generation, &err) ==
                   ERR_UNAVAILABLE);
        rank_check(strstr(err.message, what) != NULL);
    }
    rank_check(watcher.calls == 1);
    rank_check(watcher.why.status == ERR_UNAVAILABLE);
    rank_check(strstr(watcher.why.message, "tensor-parallel rank 1: asked to switch to weights"));
    rank_check(engine_thread_version(stage.thread) == NO_VERSION);
    adopt(&stage, 2);
    rank_ok(engine_thread_generate(stage.thread, &toy.request, NULL, &generation, &err), &err);
    rank_check(generation.length == LONG);
    generation_clear(&generation);
    stage_close(&stage);
}

/* Whoever waits learns of it, the one who watches with the rank that is to blame; nobody who asks
 * afterwards waits; and other weights make the engine anew. */
static void test_an_engine_that_loses_a_rank_says_so_and_fails_at_once(void **state)
{
    (void)state;
    ranks_run(1, 1, losing_a_rank, NULL);
}

static void submitting_without_weights(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    Stage stage;
    ToyRequest toy;
    GenerateSink sink = {0};
    uint64_t id = 0;
    stage_open(&stage, ranks, 1);
    toy_request(&toy, 5, 8, 1, 4);
    for (int i = 0; i < 2; i++) {
        rank_check(engine_thread_submit(stage.thread, &toy.request, &sink, &id, &err) ==
                   ERR_UNAVAILABLE);
        if (i > 0) break;
        adopt(&stage, 0);
        rank_ok(engine_thread_reset(stage.thread, &err), &err);
    }
    stage_close(&stage);
}

/* Who submits cannot be told that nobody wants the answer any more: it must not wait for weights.
 */
static void test_a_submission_without_weights_is_refused_at_once(void **state)
{
    (void)state;
    ranks_run(1, 1, submitting_without_weights, NULL);
}

static void test_after_a_reset_other_weights_may_have_the_same_name(void **state)
{
    (void)state;
    ranks_run(1, 1, reset, &(int){1});
    ranks_run(1, 1, reset, &(int){2});
}

static void no_room(const Ranks *ranks, void *argument)
{
    int tp_size = *(const int *)argument;
    Stage stage;
    Error err = {0};
    stage_open(&stage, ranks, tp_size);
    engine_thread_destroy(stage.thread);
    stage.options.engine.kv_bytes = 1;
    rank_ok(engine_thread_create(&stage.options, &stage.thread, &err), &err);
    rank_check(adopt_as(&stage, 0, 1, &err) == ERR_INVALID);
    rank_check(strstr(err.message, "keys and values") != NULL);
    stage_close(&stage);
}

static void test_an_engine_that_cannot_be_made_is_told_at_the_first_weights(void **state)
{
    (void)state;
    ranks_run(1, 1, no_room, &(int){1});
    ranks_run(1, 1, no_room, &(int){2});
}

static Status count_pages(void *context, Engine *engine, Error *err)
{
    if (engine == NULL) return error_set(err, ERR_NOT_FOUND, "no weights");
    *(int *)context = engine_stats(engine).pages;
    return OK;
}

static void looking(const Ranks *ranks, void *argument)
{
    (void)argument;
    Stage stage;
    Error err = {0};
    int pages = 0;
    stage_open(&stage, ranks, 1);
    rank_check(engine_thread_run(stage.thread, count_pages, &pages, &err) == ERR_NOT_FOUND);
    adopt(&stage, 0);
    rank_ok(engine_thread_run(stage.thread, count_pages, &pages, &err), &err);
    rank_check(pages == 60);
    stage_close(&stage);
}

static void test_work_runs_between_two_steps(void **state)
{
    (void)state;
    ranks_run(1, 1, looking, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_callers_get_what_one_gets),
        cmocka_unit_test(test_many_callers_of_two_ranks_get_what_one_gets),
        cmocka_unit_test(test_new_weights_come_between_two_tokens),
        cmocka_unit_test(test_what_is_in_work_goes_on_after_a_rest),
        cmocka_unit_test(test_nobody_reads_old_weights_once_new_ones_are_adopted),
        cmocka_unit_test(test_ending_ends_every_wait),
        cmocka_unit_test(test_samples_that_nobody_wants_any_more_end),
        cmocka_unit_test(test_tokens_stream_and_a_request_can_be_aborted),
        cmocka_unit_test(test_weights_without_finite_logits_fail_requests_until_better_ones_come),
        cmocka_unit_test(test_an_engine_that_loses_a_rank_says_so_and_fails_at_once),
        cmocka_unit_test(test_a_submission_without_weights_is_refused_at_once),
        cmocka_unit_test(test_after_a_reset_other_weights_may_have_the_same_name),
        cmocka_unit_test(test_an_engine_that_cannot_be_made_is_told_at_the_first_weights),
        cmocka_unit_test(test_work_runs_between_two_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
