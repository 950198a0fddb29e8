/* Steps of decoding that are recorded and launched as one, over a device that records
 * (recorded_kernels.h): how many launches, uploads and downloads a step takes, and that its tokens
 * are those of the kernels one by one when sequences, pages, sampling and weights change between
 * launches. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "../../tensor/fenced_kernels.h"
#include "../../tensor/recorded_kernels.h"
#include "model/kv_cache.h"
#include "toy_engine.h"

#define DEVICE_BYTES ((size_t)512 << 20)
#define NUM_LAYERS   2
#define PROMPT       100 /* tokens: a full page and a part of one */
#define SAMPLES      5

/* An engine over a device that records, in a process of its own. */
static void start(ToyEngine *toy, const Ranks *given, EngineOptions *options)
{
    Ranks ranks = *given;
    ranks.kernels = recorded_kernels(fenced_kernels(given->kernels, DEVICE_BYTES));
    toy_engine_init(toy, &ranks, 64, options);
}

static void step(ToyEngine *toy)
{
    Error err = {0};
    bool busy;
    rank_ok(engine_step(toy->engine, &busy, &err), &err);
}

static void submit(ToyEngine *toy, ToyRequest *request)
{
    Error err = {0};
    rank_ok(engine_submit(toy->engine, &request->request, &err), &err);
}

static RecordedCounts since(const RecordedCounts *before)
{
    RecordedCounts now = recorded_counts();
    return (RecordedCounts){
        .kernels = now.kernels - before->kernels,
        .uploads = now.uploads - before->uploads,
        .downloads = now.downloads - before->downloads,
        .waits = now.waits - before->waits,
        .graphs = now.graphs - before->graphs,
        .launches = now.launches - before->launches,
        .launched = now.launched - before->launched,
        .uploaded = now.uploaded - before->uploaded,
        .downloaded = now.downloaded - before->downloaded,
        .copied = now.copied - before->copied,
    };
}

/* ---- what a step takes ---- */

/* Of a layer: q/k/v, q/k norm with RoPE and store, attention, o, sum with norm, gate/up, SwiGLU,
 * down, sum with norm. Beside them: embedding, first norm; last norm, output matrix, temperature,
 * statistics, their joining, segments, draw. */
#define KERNELS_OF_A_STEP (9 * NUM_LAYERS + 2 + 7)

static void count_steps(const Ranks *ranks, void *argument)
{
    const bool eager = *(const bool *)argument;
    ToyEngine toy;
    EngineOptions options;
    static ToyRequest request;
    start(&toy, ranks, &options);
    options.enforce_eager = eager;
    toy_engine_start(&toy, &options);
    toy_request(&request, 3, PROMPT, SAMPLES, 30);
    submit(&toy, &request);
    for (int i = 0; i < 3; i++) /* the prompt, a first step, and one that is recorded */
        step(&toy);
    for (int i = 0; i < 10; i++) {
        RecordedCounts before = recorded_counts();
        step(&toy);
        RecordedCounts counts = since(&before);
        rank_check(counts.waits == 0 && counts.copied == 0 && counts.graphs == 0);
        rank_check(counts.downloads == 1 && counts.downloaded <= 4 * 3 * options.max_samples);
        if (eager) {
            rank_check(counts.launches == 0 && counts.uploads == 2);
            rank_check(counts.kernels == KERNELS_OF_A_STEP + 1); /* rows are gathered */
        } else {
            rank_check(counts.kernels == 0 && counts.launches == 1 && counts.uploads == 1);
            rank_check(counts.launched == KERNELS_OF_A_STEP);
            rank_check(counts.uploaded < 36 * (options.max_samples + 2) + 4 * 3 * SAMPLES);
        }
    }
    toy_engine_clear(&toy);
}

static void test_a_decode_step_is_one_upload_one_launch_and_one_download(void **state)
{
    (void)state;
    bool eager = false;
    ranks_run(1, 1, count_steps, &eager);
    eager = true;
    ranks_run(1, 1, count_steps, &eager);
}

/* ---- a group ---- */

/* Copies of pages that a group of samples of a prompt of `length` tokens makes, in bytes. */
static int64_t copied_by_a_group(ToyEngine *toy, int32_t length, uint64_t key)
{
    static ToyRequest request;
    RecordedCounts before = recorded_counts();
    toy_request(&request, key, length, SAMPLES, 4);
    submit(toy, &request);
    toy_finish(toy);
    return since(&before).copied;
}

static void fork_groups(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    EngineOptions options;
    start(&toy, ranks, &options);
    toy_engine_start(&toy, &options);
    int64_t page = kv_cache_page_bytes(toy.plan, DTYPE_F32, toy.kernels);
    int64_t pages = engine_stats(toy.engine).pages_held;
    rank_check(pages == 0);
    rank_check(copied_by_a_group(&toy, KV_PAGE + 36, 1) == (SAMPLES - 1) * page);
    rank_check(copied_by_a_group(&toy, 3 * KV_PAGE + 1, 2) == (SAMPLES - 1) * page);
    rank_check(copied_by_a_group(&toy, 2 * KV_PAGE, 3) == 0); /* all pages are whole */
    EngineStats stats = engine_stats(toy.engine);
    rank_check(stats.prompt_tokens_computed == KV_PAGE + 36 + 3 * KV_PAGE + 1 + 2 * KV_PAGE);
    toy_engine_clear(&toy);
}

static void test_samples_of_a_prompt_copy_its_last_page_alone(void **state)
{
    (void)state;
    ranks_run(1, 1, fork_groups, NULL);
}

/* ---- what changes between launches ---- */

typedef enum { ON_CPU, RECORDED, BROKEN_BEGIN, BROKEN_END, NUM_WAYS } Way;

#define RESULT_MAX (1 << 16)

typedef struct Run {
    Way way;
    KvPolicy policy;
    size_t *length;
    char *result; /* [RESULT_MAX] */
} Run;

static void put_results(Run *run, ToyEngine *toy)
{
    Generation generation;
    while (engine_take(toy->engine, &generation)) {
        size_t tokens = (size_t)generation.length * sizeof *generation.token;
        rank_check(*run->length + 2 * tokens < RESULT_MAX);
        memcpy(run->result + *run->length, generation.token, tokens);
        memcpy(run->result + *run->length + tokens, generation.log_prob, tokens);
        *run->length += 2 * tokens;
        generation_clear(&generation);
    }
}

static void switch_to(ToyEngine *toy, KvPolicy policy, int version)
{
    Error err = {0};
    /* Whose memory is another's each time: weights alone say which version it is. */
    engine_stage_weights(toy->engine, toy->weights[version % 3], version);
    rank_ok(engine_switch_weights(toy->engine, version, policy, &err), &err);
}

/* Groups that come one after the other, so that steps have 1 to 20 rows, sampled in several ways,
 * while two and then three sets of weights take turns. */
static void generate(const Ranks *given, void *argument)
{
    Run *run = argument;
    ToyEngine toy;
    EngineOptions options;
    static ToyRequest request[6];
    if (run->way == ON_CPU)
        toy_engine_init(&toy, given, 64, &options);
    else
        start(&toy, given, &options);
    toy_engine_start(&toy, &options);
    if (run->way == BROKEN_BEGIN) recorded_fail(FAILS_TO_BEGIN);
    if (run->way == BROKEN_END) recorded_fail(FAILS_TO_END);
    for (int i = 0; i < 6; i++) {
        toy_request(&request[i], (uint64_t)i + 1, 20 + 13 * i, 1 + i, 40 + 5 * i);
        request[i].request.params.temperature = i % 3 == 1 ? 0 : i % 3 == 2 ? 0.7 : 1;
        if (i == 4) request[i].request.params.top_k = 7; /* the device does not draw by itself */
        if (i == 5) request[i].request.params.min_new_tokens = 12; /* nor at first */
        submit(&toy, &request[i]);
        for (int j = 0; j < 9; j++)
            step(&toy);
        if (i >= 2) switch_to(&toy, run->policy, i < 5 ? 1 + i % 2 * 2 : 5);
    }
    for (int version = 6; version < 12; version++) {
        for (int j = 0; j < 5; j++)
            step(&toy);
        switch_to(&toy, run->policy, version);
    }
    toy_finish(&toy);
    put_results(run, &toy);
    EngineStats stats = engine_stats(toy.engine);
    rank_check((stats.graph_steps > 20) == (run->way == RECORDED));
    rank_check((stats.no_graphs != NULL) == (run->way >= BROKEN_BEGIN));
    if (run->way == BROKEN_END) rank_check(strcmp(stats.no_graphs, "it does not end") == 0);
    toy_engine_clear(&toy);
    rank_check(recorded_counts().graphs_left == 0);
}

static void check_ways(KvPolicy policy)
{
    char *results = shared_alloc(NUM_WAYS * RESULT_MAX);
    size_t *lengths = shared_alloc(NUM_WAYS * sizeof *lengths);
    for (int way = 0; way < NUM_WAYS; way++) {
        Run run = {(Way)way, policy, &lengths[way], results + way * RESULT_MAX};
        ranks_run(1, 1, generate, &run);
        assert_true(lengths[way] > 5000);
        assert_int_equal(lengths[way], lengths[ON_CPU]);
        assert_memory_equal(results, run.result, lengths[way]);
    }
    shared_free(lengths, NUM_WAYS * sizeof *lengths);
    shared_free(results, NUM_WAYS * RESULT_MAX);
}

static void test_launched_steps_equal_kernels_one_by_one(void **state)
{
    (void)state;
    check_ways(KV_RECOMPUTE);
    check_ways(KV_KEEP);
}

/* ---- memory ---- */

/* Rows of every number, and pages up to the longest sequence, are in the block; graphs are no more
 * than the plan counts. */
static void fill_up(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    EngineOptions options, eager;
    static ToyRequest request[40];
    start(&toy, ranks, &options);
    options.max_samples = 13;
    options.max_step_tokens = 64;
    toy_engine_start(&toy, &options);
    int64_t planned = engine_memory_bytes(toy.engine);
    for (int i = 0; i < 40; i++) {
        int32_t prompt = 1 + i * 31 % 200;
        toy_request(&request[i], (uint64_t)i + 1, prompt, 1, TOY_LENGTH_MAX);
        submit(&toy, &request[i]);
    }
    toy_finish(&toy);
    EngineStats stats = engine_stats(toy.engine);
    rank_check(stats.graphs <= 2 * 6); /* of 1, 2, 4, 8, 12 and 13 rows */
    rank_check(stats.graphs >= 3);
    engine_destroy(toy.engine);
    eager = options;
    eager.enforce_eager = true;
    toy_engine_start(&toy, &eager);
    rank_check(engine_memory_bytes(toy.engine) < planned);
    rank_check(strstr(engine_memory_plan(toy.engine), "graphs") == NULL);
    toy_engine_clear(&toy);
}

static void test_graphs_are_few_and_planned_for(void **state)
{
    (void)state;
    ranks_run(1, 1, fill_up, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_decode_step_is_one_upload_one_launch_and_one_download),
        cmocka_unit_test(test_samples_of_a_prompt_copy_its_last_page_alone),
        cmocka_unit_test(test_launched_steps_equal_kernels_one_by_one),
        cmocka_unit_test(test_graphs_are_few_and_planned_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
