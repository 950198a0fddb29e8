/* What a user of the engine sees: prompts computed once, samples that break off and go on, weights
 * that change under way, what is refused and why. That samples are right is test_engine_exact. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "toy_engine.h"

static void submit(ToyEngine *toy, const ToyRequest *request)
{
    Error err = {0};
    rank_ok(engine_submit(toy->engine, &request->request, &err), &err);
}

static void step(ToyEngine *toy, int count)
{
    Error err = {0};
    bool busy = true;
    for (int i = 0; i < count; i++)
        rank_ok(engine_step(toy->engine, &busy, &err), &err);
}

/* Takes and frees all results; returns how many. */
static int drop_results(ToyEngine *toy)
{
    Generation generation;
    int count = 0;
    for (; engine_take(toy->engine, &generation); count++)
        generation_clear(&generation);
    return count;
}

/* ---- prompts and pages ---- */

/* Groups of 16 at prompts that end anywhere in a page: each prompt is computed once, and a sample
 * costs at most one page more at first. */
static void group_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    EngineOptions options;
    toy_engine_init(&toy, ranks, 200, &options);
    toy_engine_start(&toy, &options);
    for (int32_t length = 1; length <= 200; length += length % 64 < 62 ? 21 : 1) {
        ToyRequest request;
        toy_request(&request, (uint64_t)length, length, 16, 30);
        submit(&toy, &request);
        EngineStats before = engine_stats(toy.engine), after = before;
        while (after.generated_tokens == before.generated_tokens) {
            step(&toy, 1);
            after = engine_stats(toy.engine);
        }
        rank_check(after.generated_tokens == before.generated_tokens + 16);
        rank_check(after.pages_held <= (length + KV_PAGE - 1) / KV_PAGE + 15);
        toy_finish(&toy);
        rank_check(drop_results(&toy) == 16);
    }
    EngineStats stats = engine_stats(toy.engine);
    rank_check(stats.prompt_tokens_computed * 100 <= stats.prompt_tokens * 101);
    rank_check(stats.other_tokens_computed == 0);
    toy_engine_clear(&toy);
}

static void test_a_group_computes_its_prompt_once(void **state)
{
    (void)state;
    ranks_run(1, 1, group_body, NULL);
}

/* Groups that are larger than what runs at a time still compute a prompt once, but for a token or
 * so of each late sample. */
static void large_group_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    toy_engine_init(&toy, ranks, 60, &options);
    options.max_samples = 4;
    toy_engine_start(&toy, &options);
    toy_request(&request, 3, 150, 20, 25);
    submit(&toy, &request);
    toy_finish(&toy);
    rank_check(drop_results(&toy) == 20);
    EngineStats stats = engine_stats(toy.engine);
    rank_check(stats.prompt_tokens_computed <= 150 + 16 * (150 % KV_PAGE));
    toy_engine_clear(&toy);
}

static void test_a_group_may_be_larger_than_what_runs_at_a_time(void **state)
{
    (void)state;
    ranks_run(1, 1, large_group_body, NULL);
}

/* A second turn: the first one's sequence and some new tokens. */
static void turn_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation first;
    toy_engine_init(&toy, ranks, 30, &options);
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 100, 1, 60);
    submit(&toy, &request);
    toy_finish(&toy);
    rank_check(engine_take(toy.engine, &first));
    memcpy(request.prompt + 100, first.token, 60 * sizeof(int32_t));
    generation_clear(&first);
    for (int i = 0; i < 15; i++)
        request.prompt[160 + i] = i;
    request.request.prompt_length = 175;
    EngineStats before = engine_stats(toy.engine);
    submit(&toy, &request);
    toy_finish(&toy);
    EngineStats after = engine_stats(toy.engine);
    /* The last token of the first turn was drawn, never fed. */
    rank_check(after.prompt_tokens_computed - before.prompt_tokens_computed == 16);
    rank_check(after.prompt_tokens_found - before.prompt_tokens_found == 159);
    rank_check(drop_results(&toy) == 1);
    toy_engine_clear(&toy);
}

static void test_a_next_turn_computes_only_what_is_new(void **state)
{
    (void)state;
    ranks_run(1, 1, turn_body, NULL);
}

/* ---- abort and resume ---- */

static void resume_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation whole, part, rest;
    toy_engine_init(&toy, ranks, 30, &options);
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 90, 2, 80);
    submit(&toy, &request);
    step(&toy, 20);
    rank_check(engine_abort(toy.engine, 1, 1) == 1);
    rank_check(engine_abort(toy.engine, 1, 1) == 0); /* it has ended */
    rank_check(engine_abort(toy.engine, 99, -1) == 0);
    rank_check(engine_take(toy.engine, &part));
    rank_check(part.finish == FINISH_ABORT && part.index == 1);
    rank_check(part.length > 10 && part.length < 80 && part.version_run[0].count == part.length);
    PartialSample partial = {part.token, part.log_prob, part.version_run, part.length, 1};
    EngineStats before = engine_stats(toy.engine);
    request.request.id = 2;
    request.request.first_index = 1;
    request.request.num_samples = 1;
    request.request.partial = &partial;
    submit(&toy, &request);
    step(&toy, 1);
    EngineStats after = engine_stats(toy.engine);
    rank_check(after.prompt_tokens_computed == before.prompt_tokens_computed);
    rank_check(after.other_tokens_computed == before.other_tokens_computed);
    toy_finish(&toy);
    rank_check(engine_take(toy.engine, &whole) && whole.request == 1 && whole.index == 0);
    rank_check(engine_take(toy.engine, &rest) && rest.request == 2 && rest.length == 80);
    rank_check(rest.num_version_runs == 1 && rest.version_run[0].count == 80);
    rank_check(memcmp(rest.token, part.token, (size_t)part.length * sizeof(int32_t)) == 0);
    rank_check(memcmp(rest.log_prob, part.log_prob, (size_t)part.length * sizeof(float)) == 0);
    generation_clear(&part);
    generation_clear(&rest);
    generation_clear(&whole);
    toy_engine_clear(&toy);
}

static void test_an_aborted_sample_goes_on_without_computing_again(void **state)
{
    (void)state;
    ranks_run(1, 1, resume_body, NULL);
}

static void abort_all_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 60, &options);
    options.max_samples = 3;
    toy_engine_start(&toy, &options);
    for (uint64_t key = 1; key <= 4; key++) {
        ToyRequest request;
        toy_request(&request, key, 40, 2, 50);
        submit(&toy, &request);
    }
    step(&toy, 5);
    rank_check(engine_abort_all(toy.engine) == 8);
    rank_check(engine_stats(toy.engine).pages_held == 0);
    int with_tokens = 0, count = 0;
    for (; engine_take(toy.engine, &generation); count++) {
        ToyRequest request;
        Sample sample;
        toy_request(&request, generation.request, 40, 2, 50);
        generation_to_sample(&generation, request.prompt, &sample);
        rank_check(sample.status == SAMPLE_ABORTED && sample.length == 40 + generation.length);
        with_tokens += generation.length > 0;
        sample_clear(&sample);
        generation_clear(&generation);
    }
    rank_check(count == 8 && with_tokens == 3);
    toy_engine_clear(&toy);
}

static void test_abort_all_leaves_nothing(void **state)
{
    (void)state;
    ranks_run(1, 1, abort_all_body, NULL);
}

/* ---- weights ---- */

/* Tokens of a result against whole sequences by the versions that its runs name. */
static void check_versions(const ToyEngine *toy, const ToyRequest *request,
                           const Generation *generation)
{
    int32_t prompt = request->request.prompt_length, at = 0;
    int32_t token[TOY_LENGTH_MAX];
    float expected[TOY_LENGTH_MAX];
    memcpy(token, request->prompt, (size_t)prompt * sizeof *token);
    memcpy(token + prompt, generation->token, (size_t)generation->length * sizeof *token);
    for (int r = 0; r < generation->num_version_runs; r++) {
        VersionRun run = generation->version_run[r];
        toy_log_probs(toy, (int)run.version, token, prompt + generation->length, prompt + at,
                      expected);
        rank_check(
            memcmp(expected, generation->log_prob + at, (size_t)run.count * sizeof *expected) == 0);
        at += run.count;
    }
    rank_check(at == generation->length);
}

static void switch_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 60, &options);
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 100, 4, 60);
    submit(&toy, &request);
    for (int version = 1; version <= 2; version++) {
        step(&toy, 20);
        rank_check(engine_switch_weights(toy.engine, version, KV_RECOMPUTE, &err) == ERR_INVALID);
        engine_stage_weights(toy.engine, toy.weights[version], version);
        rank_ok(engine_switch_weights(toy.engine, version, KV_RECOMPUTE, &err), &err);
        rank_check(engine_weight_version(toy.engine) == version);
    }
    EngineStats before = engine_stats(toy.engine);
    toy_finish(&toy);
    EngineStats after = engine_stats(toy.engine);
    /* The prompt again, once for all four; then what each had generated. */
    rank_check(after.prompt_tokens_computed - before.prompt_tokens_computed <= 104);
    for (int i = 0; i < 4; i++) {
        rank_check(engine_take(toy.engine, &generation) && generation.length == 60);
        rank_check(generation.num_version_runs == 3);
        check_versions(&toy, &request, &generation);
        generation_clear(&generation);
    }
    toy_engine_clear(&toy);
}

static void test_tokens_after_a_switch_are_those_of_the_new_weights(void **state)
{
    (void)state;
    ranks_run(1, 1, switch_body, NULL);
}

static void keep_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 60, &options);
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 100, 1, 60);
    submit(&toy, &request);
    step(&toy, 20);
    EngineStats before = engine_stats(toy.engine);
    engine_stage_weights(toy.engine, toy.weights[1], 1);
    rank_ok(engine_switch_weights(toy.engine, 1, KV_KEEP, &err), &err);
    request.request.id = 2; /* the same prompt: what stands in pages is of no use to it */
    submit(&toy, &request);
    toy_finish(&toy);
    EngineStats after = engine_stats(toy.engine);
    rank_check(after.other_tokens_computed == before.other_tokens_computed);
    rank_check(after.prompt_tokens_computed - before.prompt_tokens_computed == 100);
    rank_check(engine_take(toy.engine, &generation) && generation.request == 1);
    rank_check(generation.num_version_runs == 2 && generation.length == 60);
    generation_clear(&generation);
    rank_check(engine_take(toy.engine, &generation) && generation.request == 2);
    check_versions(&toy, &request, &generation);
    generation_clear(&generation);
    toy_engine_clear(&toy);
}

static void test_kept_keys_cost_nothing_and_serve_nobody_else(void **state)
{
    (void)state;
    ranks_run(1, 1, keep_body, NULL);
}

/* A prompt that is half in pages when the weights change: its answer is of one version, exactly. */
static void keep_prompt_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 60, &options);
    options.max_step_tokens = 40;
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 100, 2, 20);
    submit(&toy, &request);
    step(&toy, 2);
    rank_check(engine_stats(toy.engine).prompt_tokens_computed > 0);
    engine_stage_weights(toy.engine, toy.weights[1], 1);
    rank_ok(engine_switch_weights(toy.engine, 1, KV_KEEP, &err), &err);
    toy_finish(&toy);
    for (int i = 0; i < 2; i++) {
        rank_check(engine_take(toy.engine, &generation));
        rank_check(generation.num_version_runs == 1 && generation.version_run[0].version == 1);
        check_versions(&toy, &request, &generation);
        generation_clear(&generation);
    }
    toy_engine_clear(&toy);
}

static void test_what_has_no_token_yet_is_of_the_new_weights_alone(void **state)
{
    (void)state;
    ranks_run(1, 1, keep_prompt_body, NULL);
}

/* Weights that diverged: said, not sampled from; others help. */
static void broken_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    bool busy = false;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 60, &options);
    ((float *)toy.weights[1]->tensors.layer[1].input_layernorm.data)[3] = NAN;
    toy_engine_start(&toy, &options);
    toy_request(&request, 1, 30, 2, 20);
    submit(&toy, &request);
    step(&toy, 5);
    engine_stage_weights(toy.engine, toy.weights[1], 1);
    rank_ok(engine_switch_weights(toy.engine, 1, KV_RECOMPUTE, &err), &err);
    rank_check(engine_step(toy.engine, &busy, &err) == ERR_DATA);
    rank_check(strstr(err.message, "weights of version 1") != NULL);
    rank_check(strstr(err.message, "not finite") != NULL);
    engine_stage_weights(toy.engine, toy.weights[2], 2);
    rank_ok(engine_switch_weights(toy.engine, 2, KV_RECOMPUTE, &err), &err);
    toy_finish(&toy);
    for (int i = 0; i < 2; i++) {
        rank_check(engine_take(toy.engine, &generation) && generation.length == 20);
        check_versions(&toy, &request, &generation);
        generation_clear(&generation);
    }
    toy_engine_clear(&toy);
}

static void test_weights_without_finite_logits_are_an_error_that_passes(void **state)
{
    (void)state;
    ranks_run(1, 1, broken_body, NULL);
}

/* Both ranks change weights at the same step; a rank without them says so to all. */
static void parallel_switch_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    bool busy = false, done = false;
    toy_engine_init(&toy, ranks, 60, &options);
    toy_engine_start(&toy, &options);
    engine_stage_weights(toy.engine, toy.weights[1], 1);
    if (ranks->tp_rank == 0) {
        toy_request(&request, 1, 30, 2, 20);
        submit(&toy, &request);
        step(&toy, 5);
        rank_ok(engine_switch_weights(toy.engine, 1, KV_RECOMPUTE, &err), &err);
        toy_finish(&toy);
        rank_check(drop_results(&toy) == 2);
        engine_stage_weights(toy.engine, toy.weights[2], 2); /* here only */
        rank_ok(engine_switch_weights(toy.engine, 2, KV_RECOMPUTE, &err), &err);
        submit(&toy, &request);
        rank_check(engine_step(toy.engine, &busy, &err) == ERR_CANCELLED);
        rank_check(engine_step(toy.engine, &busy, &err) == ERR_UNAVAILABLE);
    } else {
        Status status = OK;
        while (status == OK && !done)
            status = engine_follow(toy.engine, &done, &err);
        rank_check(engine_weight_version(toy.engine) == 1 && status == ERR_INVALID);
        rank_check(strstr(err.message, "asked to switch to weights of version 2") != NULL);
    }
    toy_engine_clear(&toy);
}

static void test_ranks_change_weights_together(void **state)
{
    (void)state;
    ranks_run(2, 1, parallel_switch_body, NULL);
}

/* ---- limits, refusals, streaming ---- */

static void limits_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    toy_engine_init(&toy, ranks, 4, &options); /* exactly one longest sequence */
    toy_engine_start(&toy, &options);
    for (uint64_t key = 1; key <= 3; key++) { /* more than fit together: they take turns */
        toy_request(&request, key, 200, 1, 1000);
        submit(&toy, &request);
    }
    toy_finish(&toy);
    for (int i = 0; i < 3; i++) {
        rank_check(engine_take(toy.engine, &generation));
        rank_check(generation.finish == FINISH_LENGTH && generation.length == TOY_LENGTH_MAX - 200);
        rank_check(generation.stop_token == -1 && generation.stop_string == -1);
        generation_clear(&generation);
    }
    toy_engine_clear(&toy);
}

static void test_sequences_end_at_the_longest(void **state)
{
    (void)state;
    ranks_run(1, 1, limits_body, NULL);
}

static void check_refused(ToyEngine *toy, const ToyRequest *request, const char *message)
{
    Error err = {0};
    Status status = engine_submit(toy->engine, &request->request, &err);
    if (status != ERR_INVALID || strstr(err.message, message) == NULL)
        rank_fail(__FILE__, __LINE__, message, err.message);
}

static void refusals_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    ToyEngine toy;
    ToyRequest request, good;
    EngineOptions options, wrong;
    Engine *none = NULL;
    toy_engine_init(&toy, ranks, 8, &options);
    wrong = options;
    wrong.kv_bytes /= 4;
    rank_check(engine_create(&wrong, &none, &err) == ERR_INVALID);
    rank_check(strstr(err.message, "one sequence of 256 tokens takes 4") != NULL);
    wrong = options;
    wrong.max_length = 300;
    rank_check(engine_create(&wrong, &none, &err) == ERR_INVALID);
    rank_check(strstr(err.message, "max_position_embeddings") != NULL);
    wrong = options;
    wrong.max_step_tokens = 31;
    rank_check(engine_create(&wrong, &none, &err) == ERR_INVALID);
    options.tokenizer = NULL;
    toy_engine_start(&toy, &options);
    rank_check(strstr(engine_memory_plan(toy.engine), "keys and values") != NULL);
    rank_check(engine_memory_bytes(toy.engine) > options.kv_bytes);
    toy_request(&good, 1, 20, 1, 10);
    submit(&toy, &good);
    check_refused(&toy, &good, "request 1 is in work already");
    good.request.id = 2;
    request = good;
    request.request.prompt = request.prompt;
    request.prompt[3] = TINY_VOCAB;
    check_refused(&toy, &request, "prompt[3] is id 131, the model's ids are 0 to 130");
    request.request.prompt = good.prompt;
    request.request.prompt_length = 256;
    check_refused(&toy, &request, "the prompt has 256 tokens, allowed are 1 to 255");
    request.request.prompt_length = 0;
    check_refused(&toy, &request, "the prompt has 0 tokens");
    request = good;
    request.request.num_samples = 0;
    check_refused(&toy, &request, "0 samples asked for");
    request = good;
    request.request.params.top_p = 2.0;
    check_refused(&toy, &request, "top_p is 2");
    const char *const stop[] = {"x"};
    request = good;
    request.request.params.stop = stop;
    request.request.params.num_stop = 1;
    check_refused(&toy, &request, "stop strings need a tokenizer");
    int32_t tokens[10] = {0};
    float log_probs[10] = {0};
    VersionRun run = {0, 9};
    PartialSample partial = {tokens, log_probs, &run, 10, 1};
    request = good;
    request.request.partial = &partial;
    check_refused(&toy, &request, "partial sample 0 has 10 tokens, but its versions count 9");
    run.count = 10;
    check_refused(&toy, &request, "partial sample 0 has 10 tokens already, of max_new_tokens 10");
    toy_finish(&toy);
    rank_check(drop_results(&toy) == 1);
    toy_engine_clear(&toy);
}

static void test_what_cannot_be_is_refused_with_the_reason(void **state)
{
    (void)state;
    ranks_run(1, 1, refusals_body, NULL);
}

typedef struct Stream {
    TokenEvent event[64];
    int count;
} Stream;

static void keep_event(void *context, const TokenEvent *event)
{
    Stream *stream = context;
    stream->event[stream->count++] = *event;
}

static void stream_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    ToyEngine toy;
    ToyRequest request;
    EngineOptions options;
    Generation generation;
    Stream stream = {.count = 0};
    toy_engine_init(&toy, ranks, 8, &options);
    options.on_token = keep_event;
    options.context = &stream;
    toy_engine_start(&toy, &options);
    toy_request(&request, 7, 20, 2, 12);
    submit(&toy, &request);
    toy_finish(&toy);
    rank_check(stream.count == 24);
    while (engine_take(toy.engine, &generation)) {
        int32_t at = 0;
        for (int i = 0; i < stream.count; i++) {
            const TokenEvent *event = &stream.event[i];
            if (event->index != generation.index) continue;
            rank_check(event->request == 7 && event->token == generation.token[at]);
            rank_check(event->log_prob == generation.log_prob[at++]);
        }
        rank_check(at == generation.length);
        rank_check(generation.total_ns >= generation.first_token_ns);
        rank_check(generation.first_token_ns >= generation.queued_ns);
        generation_clear(&generation);
    }
    toy_engine_clear(&toy);
}

static void test_tokens_are_told_as_they_come(void **state)
{
    (void)state;
    ranks_run(1, 1, stream_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_group_computes_its_prompt_once),
        cmocka_unit_test(test_a_group_may_be_larger_than_what_runs_at_a_time),
        cmocka_unit_test(test_a_next_turn_computes_only_what_is_new),
        cmocka_unit_test(test_an_aborted_sample_goes_on_without_computing_again),
        cmocka_unit_test(test_abort_all_leaves_nothing),
        cmocka_unit_test(test_tokens_after_a_switch_are_those_of_the_new_weights),
        cmocka_unit_test(test_kept_keys_cost_nothing_and_serve_nobody_else),
        cmocka_unit_test(test_what_has_no_token_yet_is_of_the_new_weights_alone),
        cmocka_unit_test(test_weights_without_finite_logits_are_an_error_that_passes),
        cmocka_unit_test(test_ranks_change_weights_together),
        cmocka_unit_test(test_sequences_end_at_the_longest),
        cmocka_unit_test(test_what_cannot_be_is_refused_with_the_reason),
        cmocka_unit_test(test_tokens_are_told_as_they_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
