#include "rollout_worker/engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "rollout_worker/engine/runner.h"
#include "rollout_worker/engine/scheduler.h"

/* A result that was not taken yet. */
typedef struct Finished {
    Generation generation;
    struct Finished *next;
} Finished;

struct Engine {
    EngineOptions options;
    int32_t *end_token;
    EngineMemory memory;
    char *memory_text;
    Runner *runner;
    StepPlan *plan;
    bool broken; /* a collective failed: ranks no longer agree */
    /* rank 0's */
    Scheduler *scheduler;
    Request *requests;
    uint64_t next_order;
    Finished *first_finished, *last_finished;
};

/* What a step does goes by this one. */
static Comm *plan_comm(const Engine *engine)
{
    Comm *comm = engine->options.plan_comm;
    return comm != NULL ? comm : engine->options.tensor_comm;
}

/* ---- lifecycle ---- */

static Status check_options(const EngineOptions *options, Error *err)
{
    int64_t positions = options->weights->plan->config.max_position_embeddings;
    if (options->max_length < 2 || options->max_length > positions)
        return error_set(err, ERR_INVALID,
                         "sequences of at most %d tokens, but the model takes 2 to %lld "
                         "(max_position_embeddings)",
                         options->max_length, (long long)positions);
    if (options->max_samples < 1 || options->max_step_tokens < options->max_samples)
        return error_set(err, ERR_INVALID,
                         "%d samples at a time and %d tokens a step: at least 1, and a token for "
                         "each sample",
                         options->max_samples, options->max_step_tokens);
    return OK;
}

Status engine_create(const EngineOptions *options, Engine **ret, Error *err)
{
    EngineMemory memory;
    TRY(check_options(options, err));
    TRY(engine_memory_plan_make(options, &memory, err));
    Engine *engine = mem_calloc(1, sizeof *engine);
    engine->options = *options;
    engine->memory = memory;
    engine->memory_text = engine_memory_plan_text(&memory);
    size_t ends = (size_t)options->num_end_tokens;
    engine->end_token = mem_calloc(ends + 1, sizeof *engine->end_token);
    if (ends > 0) memcpy(engine->end_token, options->end_token, ends * sizeof *options->end_token);
    engine->options.end_token = engine->end_token;
    engine->runner = runner_create(options, &memory);
    engine->plan = step_plan_create();
    if (options->weights->plan->tp_rank == 0)
        engine->scheduler = scheduler_create(options, memory.num_pages);
    *ret = engine;
    return OK;
}

void generation_clear(Generation *generation)
{
    free(generation->token);
    free(generation->log_prob);
    free(generation->version_run);
    *generation = (Generation){0};
}

void engine_destroy(Engine *engine)
{
    Generation generation;
    if (engine == NULL) return;
    if (engine->scheduler != NULL && !engine->broken) {
        step_plan_clear(engine->plan);
        engine->plan->stop = true;
        (void)step_plan_share(engine->plan, plan_comm(engine), NULL);
    }
    while (engine_take(engine, &generation))
        generation_clear(&generation);
    while (engine->requests != NULL) {
        Request *request = engine->requests;
        engine->requests = request->next_request;
        request_destroy(request);
    }
    scheduler_destroy(engine->scheduler);
    step_plan_destroy(engine->plan);
    runner_destroy(engine->runner);
    free(engine->end_token);
    free(engine->memory_text);
    free(engine);
}

const char *engine_memory_plan(const Engine *engine)
{
    return engine->memory_text;
}

int64_t engine_memory_bytes(const Engine *engine)
{
    return engine->memory.total;
}

/* ---- requests ---- */

static Status check_tokens(const Engine *engine, const int32_t *token, int32_t count,
                           const char *what, Error *err)
{
    int64_t vocab = engine->options.weights->plan->config.vocab_size;
    for (int32_t i = 0; i < count; i++)
        if (token[i] < 0 || token[i] >= vocab)
            return error_set(err, ERR_INVALID, "%s[%d] is id %d, the model's ids are 0 to %lld",
                             what, i, token[i], (long long)vocab - 1);
    return OK;
}

static Status check_partial(const Engine *engine, const GenerateRequest *request, int i, Error *err)
{
    const PartialSample *partial = &request->partial[i];
    int64_t counted = 0;
    for (int32_t r = 0; r < partial->num_version_runs; r++)
        counted += partial->version_run[r].count;
    if (partial->length < 0 || counted != partial->length)
        return error_set(err, ERR_INVALID,
                         "partial sample %d has %d tokens, but its versions count %lld", i,
                         partial->length, (long long)counted);
    if (partial->length >= request->params.max_new_tokens)
        return error_set(err, ERR_INVALID,
                         "partial sample %d has %d tokens already, of max_new_tokens %d", i,
                         partial->length, request->params.max_new_tokens);
    if ((int64_t)request->prompt_length + partial->length >= engine->options.max_length)
        return error_set(err, ERR_INVALID,
                         "the prompt has %d tokens and partial sample %d has %d: no room is left "
                         "in %d",
                         request->prompt_length, i, partial->length, engine->options.max_length);
    return check_tokens(engine, partial->token, partial->length, "partial sample", err);
}

static Status check_request(const Engine *engine, const GenerateRequest *request, Error *err)
{
    const EngineOptions *options = &engine->options;
    for (const Request *r = engine->requests; r != NULL; r = r->next_request)
        if (r->id == request->id)
            return error_set(err, ERR_INVALID, "request %llu is in work already",
                             (unsigned long long)request->id);
    if (request->num_samples < 1)
        return error_set(err, ERR_INVALID, "%d samples asked for, at least 1 is",
                         request->num_samples);
    if (request->prompt_length < 1 || request->prompt_length >= options->max_length)
        return error_set(
            err, ERR_INVALID,
            "the prompt has %d tokens, allowed are 1 to %d (sequences have at most %d)",
            request->prompt_length, options->max_length - 1, options->max_length);
    TRY(sampling_check(&request->params, options->weights->plan->config.vocab_size, err));
    if (request->params.num_stop > 0 && options->tokenizer == NULL)
        return error_set(err, ERR_INVALID, "stop strings need a tokenizer, and there is none");
    TRY(check_tokens(engine, request->prompt, request->prompt_length, "prompt", err));
    for (int i = 0; request->partial != NULL && i < request->num_samples; i++)
        TRY(check_partial(engine, request, i, err));
    return OK;
}

Status engine_submit(Engine *engine, const GenerateRequest *from, Error *err)
{
    Request *request = NULL;
    CHECK(engine->scheduler != NULL);
    TRY(check_request(engine, from, err));
    TRY(request_create(from, &engine->options, engine->next_order, &request, err));
    engine->next_order += (uint64_t)from->num_samples;
    request->next_request = engine->requests;
    engine->requests = request;
    for (int i = 0; i < request->num_members; i++)
        scheduler_add(engine->scheduler, request->member[i]);
    EngineStats *stats = &engine->scheduler->stats;
    stats->requests++;
    stats->prompt_tokens += from->prompt_length;
    return OK;
}

const char *finish_reason_name(FinishReason reason)
{
    static const char *const NAMES[FINISH_COUNT] = {
        [FINISH_STOP] = "stop", [FINISH_LENGTH] = "length", [FINISH_ABORT] = "abort"};
    return NAMES[reason];
}

/* ---- results ---- */

static void remove_request(Engine *engine, Request *request)
{
    Request **link = &engine->requests;
    while (*link != request)
        link = &(*link)->next_request;
    *link = request->next_request;
    request_destroy(request);
}

/* Takes an ended sequence out and makes its result. */
static void finish(Engine *engine, Sequence *sequence)
{
    Request *request = sequence->request;
    Finished *finished = mem_calloc(1, sizeof *finished);
    scheduler_remove(engine->scheduler, sequence);
    sequence_to_generation(sequence, clock_ns(), &finished->generation);
    *(engine->last_finished != NULL ? &engine->last_finished->next : &engine->first_finished) =
        finished;
    engine->last_finished = finished;
    engine->scheduler->stats.samples++;
    int i = 0;
    while (request->member[i] != sequence)
        i++;
    request->member[i] = NULL;
    sequence_destroy(sequence);
    if (--request->num_left == 0) remove_request(engine, request);
}

bool engine_take(Engine *engine, Generation *ret)
{
    Finished *finished = engine->first_finished;
    if (finished == NULL) return false;
    *ret = finished->generation;
    engine->first_finished = finished->next;
    if (engine->first_finished == NULL) engine->last_finished = NULL;
    free(finished);
    return true;
}

void generation_to_sample(const Generation *generation, const int32_t *prompt, Sample *ret)
{
    static const SampleStatus STATUS[FINISH_COUNT] = {
        [FINISH_STOP] = SAMPLE_COMPLETED,
        [FINISH_LENGTH] = SAMPLE_TRUNCATED,
        [FINISH_ABORT] = SAMPLE_ABORTED,
    };
    size_t before = (size_t)generation->prompt_length, made = (size_t)generation->length;
    size_t runs = (size_t)generation->num_version_runs;
    Sample sample = {
        .status = STATUS[generation->finish],
        .length = generation->prompt_length + generation->length,
        .prompt_length = generation->prompt_length,
        .temperature = generation->temperature,
        .num_version_runs = generation->num_version_runs,
    };
    sample.token = mem_calloc(before + made, sizeof *sample.token);
    sample.loss_mask = mem_calloc(before + made, sizeof *sample.loss_mask);
    sample.log_prob = mem_calloc(before + made, sizeof *sample.log_prob);
    memcpy(sample.token, prompt, before * sizeof *prompt);
    if (made > 0) {
        memcpy(sample.token + before, generation->token, made * sizeof *sample.token);
        memcpy(sample.log_prob + before, generation->log_prob, made * sizeof *sample.log_prob);
        memset(sample.loss_mask + before, 1, made);
    }
    if (runs > 0) {
        sample.version_run = mem_calloc(runs, sizeof *sample.version_run);
        memcpy(sample.version_run, generation->version_run, runs * sizeof *sample.version_run);
        sample.weight_version = sample.version_run[0].version;
    }
    *ret = sample;
}

/* ---- abort ---- */

static int abort_members(Engine *engine, Request *request, int64_t index)
{
    int count = 0, members = request->num_members;
    for (int i = 0; i < members; i++) {
        Sequence *member = request->member[i];
        if (member == NULL || (index >= 0 && member->index != (uint64_t)index)) continue;
        bool last = request->num_left == 1;
        member->finish = FINISH_ABORT;
        finish(engine, member);
        count++;
        if (last) break; /* the request is gone */
    }
    return count;
}

int engine_abort(Engine *engine, uint64_t request, int64_t index)
{
    for (Request *r = engine->requests; r != NULL; r = r->next_request)
        if (r->id == request) return abort_members(engine, r, index);
    return 0;
}

int engine_abort_all(Engine *engine)
{
    int count = 0;
    while (engine->requests != NULL)
        count += abort_members(engine, engine->requests, -1);
    return count;
}

/* ---- work ---- */

/* The plan's draws become tokens of their sequences. */
static Status append_tokens(Engine *engine, Error *err)
{
    const StepPlan *plan = engine->plan;
    const Runner *runner = engine->runner;
    for (int i = 0; i < plan->num_draws; i++) {
        Sequence *sequence = plan->drawer[i];
        Drawn drawn = runner->drawn[i];
        bool ended = false;
        TRY(sequence_append(sequence, drawn, runner->weight_version, engine->options.max_length,
                            &ended, err));
        if (engine->options.on_token != NULL) {
            TokenEvent event = {sequence->request->id, sequence->index, drawn.token,
                                drawn.log_prob};
            engine->options.on_token(engine->options.context, &event);
        }
        if (ended) finish(engine, sequence);
    }
    return OK;
}

static Status check_usable(const Engine *engine, Error *err)
{
    if (!engine->broken) return OK;
    return error_set(err, ERR_UNAVAILABLE,
                     "a collective failed before: this engine must be made anew");
}

bool engine_is_broken(const Engine *engine)
{
    return engine->broken;
}

void engine_lose_rank(Engine *engine)
{
    comm_abort(engine->options.tensor_comm);
    comm_abort(plan_comm(engine));
}

/* Goes over to the weights of rank 0. */
static Status keep_up(Engine *engine, Error *err)
{
    Runner *runner = engine->runner;
    const StepPlan *plan = engine->plan;
    const EngineOptions *options = &engine->options;
    if (plan->stop || plan->switches == runner->switches) return OK;
    if (options->find_weights != NULL) {
        runner->model->weights->kernels->synchronize(); /* steps before this one read the others */
        const Weights *weights = options->find_weights(options->context, plan->weight_version);
        if (weights != NULL) runner_stage(runner, weights, plan->weight_version);
        runner->weight_version = NO_WEIGHTS; /* these may be others under the same name */
    }
    TRY(runner_switch(runner, plan->weight_version, err));
    runner->switches = plan->switches;
    return OK;
}

static Status meet(Engine *engine, Error *err)
{
    if (!engine->plan->meet) return OK;
    engine->runner->model->weights->kernels->synchronize();
    return comm_barrier(plan_comm(engine), err);
}

static Status carry_out(Engine *engine, Error *err)
{
    TRY(keep_up(engine, err));
    TRY(runner_run(engine->runner, engine->plan, err));
    return meet(engine, err);
}

/* A rank that cannot go on takes the others with it. ERR_DATA: all see it alike. */
static Status break_unless(Engine *engine, Status status)
{
    Comm *comm = engine->options.tensor_comm;
    if (status == OK || status == ERR_DATA || comm == NULL) return status;
    engine->broken = true;
    comm_abort(comm);
    comm_abort(plan_comm(engine));
    return status;
}

/* Shares the plan and carries it out. */
static Status run_plan(Engine *engine, Error *err)
{
    Status status = step_plan_share(engine->plan, plan_comm(engine), err);
    if (status == OK) status = carry_out(engine, err);
    return break_unless(engine, status);
}

/* Which weights the plan is for. */
static void put_weights(Engine *engine)
{
    engine->plan->weight_version = engine->runner->weight_version;
    engine->plan->switches = engine->runner->switches;
}

Status engine_step(Engine *engine, bool *ret_busy, Error *err)
{
    Scheduler *scheduler = engine->scheduler;
    CHECK(scheduler != NULL);
    TRY(check_usable(engine, err));
    step_plan_clear(engine->plan);
    scheduler_plan(scheduler, engine->plan);
    put_weights(engine);
    Status status = run_plan(engine, err);
    if (status != OK) {
        scheduler_retreat(scheduler);
        return error_prefix(err, "a step with weights of version %lld",
                            (long long)engine->runner->weight_version);
    }
    scheduler_commit(scheduler, engine->plan);
    TRY(append_tokens(engine, err));
    *ret_busy = scheduler->num_running + scheduler->num_waiting > 0;
    return OK;
}

Status engine_follow_wait(Engine *engine, Error *err)
{
    CHECK(engine->scheduler == NULL);
    TRY(check_usable(engine, err));
    return break_unless(engine, step_plan_share(engine->plan, plan_comm(engine), err));
}

Status engine_follow_work(Engine *engine, bool *ret_done, Error *err)
{
    TRY(break_unless(engine, carry_out(engine, err)));
    *ret_done = engine->plan->stop;
    return OK;
}

Status engine_follow(Engine *engine, bool *ret_done, Error *err)
{
    TRY(engine_follow_wait(engine, err));
    return engine_follow_work(engine, ret_done, err);
}

Status engine_meet(Engine *engine, Error *err)
{
    CHECK(engine->scheduler != NULL);
    TRY(check_usable(engine, err));
    step_plan_clear(engine->plan);
    engine->plan->meet = true;
    put_weights(engine);
    return run_plan(engine, err);
}

/* ---- weights ---- */

void engine_stage_weights(Engine *engine, const Weights *weights, int64_t version)
{
    runner_stage(engine->runner, weights, version);
}

Status engine_switch_weights(Engine *engine, int64_t version, KvPolicy policy, Error *err)
{
    CHECK(engine->scheduler != NULL);
    if (version == engine->runner->weight_version) return OK;
    TRY(runner_switch(engine->runner, version, err));
    engine->runner->switches++;
    if (policy == KV_RECOMPUTE) {
        scheduler_retreat(engine->scheduler);
        page_pool_forget(engine->scheduler->pool);
    } else {
        scheduler_mix(engine->scheduler);
    }
    return OK;
}

void engine_rest(Engine *engine)
{
    CHECK(engine->scheduler != NULL);
    scheduler_retreat(engine->scheduler);
    page_pool_forget(engine->scheduler->pool);
    engine->runner->weight_version = NO_WEIGHTS;
}

int64_t engine_weight_version(const Engine *engine)
{
    return engine->runner->weight_version;
}

EngineStats engine_stats(const Engine *engine)
{
    const Scheduler *scheduler = engine->scheduler;
    CHECK(scheduler != NULL);
    EngineStats stats = scheduler->stats;
    stats.running = scheduler->num_running;
    stats.waiting = scheduler->num_waiting;
    stats.pages_held = page_pool_held(scheduler->pool);
    stats.graph_steps = decode_graphs_launches(engine->runner->graphs);
    stats.graphs = decode_graphs_recorded(engine->runner->graphs);
    stats.no_graphs = decode_graphs_failure(engine->runner->graphs);
    return stats;
}
