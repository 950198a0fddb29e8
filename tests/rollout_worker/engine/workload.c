#include "workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

/* A number below `bound` that belongs to (seed, what, index). */
static uint64_t draw(uint64_t seed, const char *what, uint64_t index, uint64_t bound)
{
    return rng_below(rng_key(seed, what), index, bound);
}

/* ---- requests ---- */

/* One of four beginnings, cut anywhere, and an end of its own. */
static int32_t make_prompt(int32_t *prompt, uint64_t seed, uint64_t number)
{
    uint64_t family = draw(seed, "family", number, 4);
    uint64_t shared = draw(seed, "shared", number, 150), own = 1 + draw(seed, "own", number, 20);
    if (draw(seed, "short", number, 3) == 0) shared = 0;
    for (uint64_t i = 0; i < shared; i++)
        prompt[i] = (int32_t)draw(seed + family, "beginning", i, TINY_VOCAB);
    for (uint64_t i = 0; i < own; i++)
        prompt[shared + i] = (int32_t)draw(seed + number * 31, "end", i, TINY_VOCAB);
    return (int32_t)(shared + own);
}

static void make_params(Spec *spec, const Workload *workload, uint64_t number)
{
    static const double temperatures[] = {1.0, 1.0, 0.7, 1.4, 0.0};
    static const char *const stops[] = {"\u00e9a", "ab", "\n", "d\u4f60", "ca", "\U0001F600"};
    uint64_t seed = workload->seed;
    SamplingParams *p = &spec->request.params;
    *p = sampling_defaults();
    p->seed = 77;
    p->temperature = temperatures[draw(seed, "temperature", number, 5)];
    if (draw(seed, "top_k", number, 3) == 0) p->top_k = 9;
    if (draw(seed, "top_p", number, 3) == 0) p->top_p = 0.8;
    if (draw(seed, "min_p", number, 4) == 0) p->min_p = 0.05;
    if (draw(seed, "penalties", number, 4) == 0) {
        p->repetition_penalty = 1.2;
        p->frequency_penalty = 0.3;
        p->presence_penalty = -0.2;
    }
    p->max_new_tokens = 1 + (int32_t)draw(seed, "max", number, workload->long_samples ? 200 : 40);
    if (draw(seed, "some min", number, 3) == 0)
        p->min_new_tokens = (int32_t)draw(seed, "min", number, (uint64_t)p->max_new_tokens + 1);
    p->num_stop_token_ids = (int)draw(seed, "stop ids", number, 3);
    p->stop_token_id = spec->stop_ids;
    for (uint64_t i = 0; i < 2; i++) {
        spec->stop_ids[i] = (int32_t)draw(seed, "stop id", 2 * number + i, TINY_VOCAB);
        spec->stop[i] = stops[draw(seed, "stop", 2 * number + i, 6)];
    }
    p->stop = spec->stop;
    p->num_stop = (int)draw(seed, "stops", number, 3);
    p->ignore_eos = draw(seed, "ignore", number, 2) == 0;
    if (!workload->with_stops) p->num_stop = 0;
    if (workload->long_samples) p->min_new_tokens = p->max_new_tokens / 2;
}

void spec_make(Spec *spec, const Workload *workload, int number)
{
    uint64_t n = (uint64_t)number, seed = workload->seed;
    *spec = (Spec){.request = {.id = n, .sample = 1000 + n, .prompt = spec->prompt}};
    spec->request.prompt_length = make_prompt(spec->prompt, seed, n);
    spec->request.num_samples = 1 + (int)draw(seed, "samples", n, 6);
    make_params(spec, workload, n);
}

/* ---- the driver ---- */

/* Ids say whose a result is: number, and, for resumed samples, a count above. */
#define NUMBERS ((uint64_t)1 << 32)

static void submit_new(const Workload *workload, Engine *engine, int number)
{
    Error err = {0};
    Spec spec;
    spec_make(&spec, workload, number);
    rank_ok(engine_submit(engine, &spec.request, &err), &err);
}

static void submit_again(Workload *workload, Engine *engine, int number,
                         const Generation *generation)
{
    Error err = {0};
    Spec spec;
    spec_make(&spec, workload, number);
    PartialSample partial = {generation->token, generation->log_prob, generation->version_run,
                             generation->length, generation->num_version_runs};
    spec.request.id = (uint64_t)number + NUMBERS * (uint64_t)++workload->num_resumed;
    spec.request.first_index = generation->index;
    spec.request.num_samples = 1;
    spec.request.partial = &partial;
    rank_ok(engine_submit(engine, &spec.request, &err), &err);
}

static void keep_outcome(Workload *workload, int number, const Generation *generation)
{
    if (workload->num_outcomes == workload->capacity) {
        workload->capacity = workload->capacity * 2 + 64;
        workload->outcome =
            mem_realloc(workload->outcome, (size_t)workload->capacity, sizeof *workload->outcome);
    }
    workload->outcome[workload->num_outcomes++] = (Outcome){number, *generation};
}

/* Takes results; aborted ones may go on. Returns how many were not resubmitted. */
static int take_results(Workload *workload, Engine *engine, uint64_t step)
{
    Generation generation;
    int taken = 0;
    while (engine_take(engine, &generation)) {
        int number = (int)(generation.request % NUMBERS);
        bool resume = generation.finish == FINISH_ABORT &&
                      draw(workload->seed + step, "resume", (uint64_t)taken, 100) <
                          (uint64_t)workload->resume_percent;
        workload->num_aborted += generation.finish == FINISH_ABORT;
        if (resume) {
            submit_again(workload, engine, number, &generation);
            generation_clear(&generation);
        } else {
            keep_outcome(workload, number, &generation);
        }
        taken++;
    }
    return taken;
}

static void abort_some(const Workload *workload, Engine *engine, uint64_t step, int submitted)
{
    uint64_t seed = workload->seed;
    if (workload->abort_one_in == 0 ||
        draw(seed, "abort", step, (uint64_t)workload->abort_one_in) != 0 || submitted == 0)
        return;
    if (draw(seed, "abort all", step, 40) == 0) {
        engine_abort_all(engine);
        return;
    }
    int back = (int)draw(seed, "abort whom", step, (uint64_t)workload->in_work_max);
    int number = submitted - 1 - back;
    int64_t index = (int64_t)draw(seed, "abort which", step, 7) - 1; /* -1: all of them */
    if (number >= 0) engine_abort(engine, (uint64_t)number, index);
}

void workload_run(Workload *workload, Engine *engine)
{
    Error err = {0};
    int submitted = 0;
    bool busy = true;
    for (uint64_t step = 0; busy || submitted < workload->num_requests; step++) {
        EngineStats stats = engine_stats(engine);
        while (submitted < workload->num_requests &&
               stats.running + stats.waiting < 3 * workload->in_work_max &&
               draw(workload->seed + step, "submit", (uint64_t)submitted, 3) > 0) {
            submit_new(workload, engine, submitted++);
            stats = engine_stats(engine);
        }
        abort_some(workload, engine, step, submitted);
        rank_ok(engine_step(engine, &busy, &err), &err);
        take_results(workload, engine, step);
        stats = engine_stats(engine);
        busy = stats.running + stats.waiting > 0;
    }
    EngineStats stats = engine_stats(engine);
    rank_check(stats.pages_held == 0); /* nothing leaks */
    rank_check(stats.requests == workload->num_requests + workload->num_resumed);
}

void workload_clear(Workload *workload)
{
    for (int i = 0; i < workload->num_outcomes; i++)
        generation_clear(&workload->outcome[i].generation);
    free(workload->outcome);
    workload->outcome = NULL;
    workload->num_outcomes = workload->capacity = 0;
}

void follow(Engine *engine)
{
    Error err = {0};
    for (bool done = false; !done;)
        rank_ok(engine_follow(engine, &done, &err), &err);
}

/* ---- what holds of every result ---- */

static bool ends_sample(const SamplingParams *params, int32_t token)
{
    bool ends = !params->ignore_eos && token == WORKLOAD_END;
    for (int i = 0; i < params->num_stop_token_ids; i++)
        ends = ends || params->stop_token_id[i] == token;
    return ends;
}

/* The text of the first `count` tokens, without what may still become a character. Owned by the
 * caller. */
static char *certain_text(const Tokenizer *tokenizer, const int32_t *token, int32_t count)
{
    Error err = {0};
    char *text = NULL;
    size_t length = 0;
    rank_ok(tokenizer_decode(tokenizer, token, (size_t)count, false, &text, &length, &err), &err);
    while (length >= 3 && memcmp(text + length - 3, "\xEF\xBF\xBD", 3) == 0)
        text[length -= 3] = '\0';
    return text;
}

/* Whether a stop string ends in what token `count` - 1 adds to the text. */
static bool stops_at(const Tokenizer *tokenizer, const SamplingParams *params, const int32_t *token,
                     int32_t count)
{
    bool found = false;
    char *before = certain_text(tokenizer, token, count - 1);
    char *text = certain_text(tokenizer, token, count);
    for (int i = 0; i < params->num_stop; i++)
        for (const char *at = text; (at = strstr(at, params->stop[i])) != NULL; at++)
            found = found || (size_t)(at - text) + strlen(params->stop[i]) > strlen(before);
    free(before);
    free(text);
    return found;
}

void outcome_check(const Workload *workload, const Outcome *outcome, const Tokenizer *tokenizer)
{
    Spec spec;
    spec_make(&spec, workload, outcome->number);
    SamplingParams *params = &spec.request.params;
    const Generation *g = &outcome->generation;
    int32_t counted = 0;
    for (int i = 0; i < g->num_version_runs; i++)
        counted += g->version_run[i].count;
    rank_check(counted == g->length && g->length <= params->max_new_tokens);
    rank_check(g->prompt_length == spec.request.prompt_length);
    rank_check((g->finish == FINISH_STOP) == (g->stop_token >= 0 || g->stop_string >= 0));
    if (g->finish == FINISH_LENGTH)
        rank_check(g->length == params->max_new_tokens ||
                   g->prompt_length + g->length == WORKLOAD_LENGTH_MAX);
    for (int32_t i = 0; i < g->length; i++) {
        bool last = i + 1 == g->length, armed = i + 1 >= params->min_new_tokens;
        bool by_id = ends_sample(params, g->token[i]);
        bool by_text =
            params->num_stop > 0 && armed && stops_at(tokenizer, params, g->token, i + 1);
        rank_check(g->log_prob[i] <= 0.0f);
        rank_check(!(by_id && i < params->min_new_tokens)); /* forbidden so far */
        if (last && g->finish == FINISH_STOP)
            rank_check(g->stop_token >= 0 ? by_id && g->stop_token == g->token[i] : by_text);
        else
            rank_check(!by_id && !by_text);
    }
}
