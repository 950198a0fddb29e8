#include "rollout_worker/function/process_function.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "rollout_worker/function/pieces.h"

#define PROTOCOL        1
#define LINE_BYTES_MAX  ((int64_t)64 << 20)
#define GENERATIONS_MAX 1024 /* samples of one call */

struct ProcessFunction {
    ProcessPool *pool;
    ProcessFunctionOptions options;
};

/* A task that runs. */
typedef struct Run {
    const ProcessFunction *function;
    const FunctionTask *task;
    const FunctionEngine *engine;
    Exchange *exchange;
    uint64_t id;
    OutputTable outputs;
    PieceContext pieces;
} Run;

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- life ---- */

Status process_function_open(const ProcessFunctionOptions *options, ProcessFunction **ret,
                             Error *err)
{
    ProcessFunction *function = mem_calloc(1, sizeof *function);
    ProcessPoolOptions pool = options->pool;
    pool.line_bytes_max = LINE_BYTES_MAX;
    function->options = *options;
    Status status = process_pool_open(&pool, &function->pool, err);
    if (status == OK)
        *ret = function;
    else
        process_function_close(function);
    return status;
}

void process_function_close(ProcessFunction *function)
{
    if (function == NULL) return;
    process_pool_close(function->pool);
    free(function);
}

void function_sample_clear(FunctionSample *sample)
{
    sample_clear(&sample->sample);
    free(sample->response);
    cJSON_Delete(sample->extra);
    *sample = (FunctionSample){0};
}

/* ---- what the program is told ---- */

static void append_task(Str *out, const Run *run)
{
    const FunctionTask *task = run->task;
    const SamplingParams *params = &task->params;
    str_printf(out, "{\"id\": \"%" PRIu64 "\", \"type\": \"rollout\", \"protocol\": %d", run->id,
               PROTOCOL);
    str_printf(out, ", \"position\": %" PRId64 ", \"samples\": %d, \"evaluation\": %s",
               task->position, task->num_samples, task->evaluation ? "true" : "false");
    str_printf(out, ", \"max_length\": %d, \"model\": ", task->max_length);
    json_append_string(out, run->function->options.model_path);
    str_printf(out,
               ", \"sampling\": {\"temperature\": %g, \"top_p\": %g, \"top_k\": %d, \"min_p\": %g, "
               "\"max_new_tokens\": %d}",
               params->temperature, params->top_p, params->top_k, params->min_p,
               params->max_new_tokens);
    str_puts(out, ", \"record\": ");
    json_append(out, task->record);
    str_puts(out, "}\n");
}

static Status output_text(const Run *run, const Generation *made, char **ret, Error *err)
{
    size_t length = 0;
    bool ended = made->stop_token >= 0;
    return tokenizer_decode(text_model_tokenizer(run->function->options.model), made->token,
                            (size_t)(made->length - ended), false, ret, &length, err);
}

static Status append_output(Str *out, const Run *run, const Output *output, Error *err)
{
    const Generation *made = &output->generation;
    char *text = NULL;
    TRY(output_text(run, made, &text, err));
    str_printf(out, "{\"number\": %d, \"text\": ", output->number);
    json_append_string(out, text);
    str_printf(out, ", \"finish\": \"%s\", \"prompt_length\": %d, \"tokens\": [",
               finish_reason_name(made->finish), output->prompt_length);
    for (int32_t i = 0; i < made->length; i++)
        str_printf(out, "%s%d", i == 0 ? "" : ", ", made->token[i]);
    str_puts(out, "]}");
    free(text);
    return OK;
}

static void begin_reply(Str *out, const Run *run, const char *call)
{
    str_printf(out, "{\"id\": \"%" PRIu64 "\", \"type\": \"generation\", \"call\": ", run->id);
    json_append_string(out, call);
}

/* The program asked for something that cannot be; it may go on. */
static void reply_error(const Run *run, const char *call, const char *message)
{
    Str line = {0};
    begin_reply(&line, run, call);
    str_puts(&line, ", \"error\": ");
    json_append_string(&line, message);
    str_puts(&line, "}\n");
    exchange_send(run->exchange, &line);
}

static Status reply_outputs(const Run *run, const char *call, int first, Error *err)
{
    Str line = {0};
    begin_reply(&line, run, call);
    str_puts(&line, ", \"outputs\": [");
    for (int i = first; i < run->outputs.count; i++) {
        if (i > first) str_puts(&line, ", ");
        Status status = append_output(&line, run, &run->outputs.output[i], err);
        if (status == OK) continue;
        str_free(&line);
        return status;
    }
    str_puts(&line, "]}\n");
    exchange_send(run->exchange, &line);
    return OK;
}

/* ---- generate ---- */

/* Lists of a request's sampling, while it runs. */
typedef struct Stops {
    const char *text[SAMPLING_STOPS_MAX];
    int32_t token[SAMPLING_STOPS_MAX];
} Stops;

static Status read_stops(const cJSON *json, Stops *stops, SamplingParams *ret, Error *err)
{
    const cJSON *texts = member(json, "stop"), *tokens = member(json, "stop_token_ids");
    const cJSON *entry = NULL;
    int count = 0;
    cJSON_ArrayForEach(entry, texts)
    {
        if (!cJSON_IsString(entry) || count == SAMPLING_STOPS_MAX)
            return error_set(err, ERR_INVALID, "stop is no list of at most %d texts",
                             SAMPLING_STOPS_MAX);
        stops->text[count++] = entry->valuestring;
    }
    if (texts != NULL) ret->stop = stops->text, ret->num_stop = count;
    count = 0;
    cJSON_ArrayForEach(entry, tokens)
    {
        if (!cJSON_IsNumber(entry) || count == SAMPLING_STOPS_MAX)
            return error_set(err, ERR_INVALID, "stop_token_ids is no list of at most %d numbers",
                             SAMPLING_STOPS_MAX);
        stops->token[count++] = entry->valueint;
    }
    if (tokens != NULL) ret->stop_token_id = stops->token, ret->num_stop_token_ids = count;
    return OK;
}

static Status read_sampling(const cJSON *json, Stops *stops, SamplingParams *ret, Error *err)
{
    static const char *const known[] = {"temperature", "top_p",          "top_k",
                                        "min_p",       "max_new_tokens", "min_new_tokens",
                                        "stop",        "stop_token_ids", "ignore_eos"};
    static const size_t count = sizeof known / sizeof known[0];
    static const char *const where = "sampling";
    const cJSON *entry = NULL;
    int64_t top_k = ret->top_k, most = ret->max_new_tokens, least = ret->min_new_tokens;
    cJSON_ArrayForEach(entry, json)
    {
        bool found = false;
        for (size_t i = 0; i < count; i++)
            found = found || strcmp(known[i], entry->string) == 0;
        if (found) continue;
        const char *nearest = str_nearest(entry->string, known, count);
        error_set(err, ERR_INVALID, "sampling has no key %s", QUOTED(entry->string));
        if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
        return ERR_INVALID;
    }
    TRY(json_double_or(json, "temperature", where, &ret->temperature, err));
    TRY(json_double_or(json, "top_p", where, &ret->top_p, err));
    TRY(json_double_or(json, "min_p", where, &ret->min_p, err));
    TRY(json_int_or(json, "top_k", where, -1, INT32_MAX, &top_k, err));
    TRY(json_int_or(json, "max_new_tokens", where, 1, INT32_MAX, &most, err));
    TRY(json_int_or(json, "min_new_tokens", where, 0, INT32_MAX, &least, err));
    TRY(json_bool_or(json, "ignore_eos", where, &ret->ignore_eos, err));
    ret->top_k = (int32_t)top_k;
    ret->max_new_tokens = (int32_t)most;
    ret->min_new_tokens = (int32_t)least;
    return read_stops(json, stops, ret, err);
}

/* Which noise a call draws from: its own of the record and the sample; a program that wants
 * another answer to the same question for the same sample says another `draw`. */
static uint64_t noise_of(const FunctionTask *task, int64_t draw)
{
    return draw == 0 ? task->sample : task->sample ^ rng_mix((uint64_t)draw);
}

static Status read_request(const Run *run, const cJSON *message, Stops *stops, GenerateRequest *ret,
                           Error *err)
{
    int64_t index = 0, count = 1, draw = 0;
    static const char *const where = "generate";
    ret->params = run->task->params;
    TRY(json_int_or(message, "index", where, 0, INT32_MAX, &index, err));
    TRY(json_int_or(message, "samples", where, 1, GENERATIONS_MAX, &count, err));
    TRY(json_int_or(message, "draw", where, 0, INT64_MAX >> 11, &draw, err));
    TRY(read_sampling(member(message, "sampling"), stops, &ret->params, err));
    ret->id = run->id;
    ret->sample = noise_of(run->task, draw);
    ret->first_index = (uint32_t)index;
    ret->num_samples = (int)count;
    return OK;
}

static bool has_call(const OutputTable *outputs, const char *call)
{
    for (int i = 0; i < outputs->count; i++)
        if (strcmp(outputs->output[i].call, call) == 0) return true;
    return false;
}

/* The prompt of a request, and how much may be generated from it. */
static Status read_prompt(const Run *run, const cJSON *message, SampleBuilder *prompt,
                          GenerateRequest *request, Error *err)
{
    const Output *last = NULL;
    TRY(pieces_resolve(&run->pieces, member(message, "prompt"), prompt, &last, err));
    int32_t room = run->task->max_length - prompt->length;
    if (prompt->length == 0) return error_set(err, ERR_DATA, "the prompt is empty");
    if (room < 1)
        return error_set(err, ERR_DATA, "the prompt has %d tokens and leaves no room within %d",
                         prompt->length, run->task->max_length);
    if (request->params.max_new_tokens > room) request->params.max_new_tokens = room;
    if (request->params.min_new_tokens > request->params.max_new_tokens)
        request->params.min_new_tokens = request->params.max_new_tokens;
    request->prompt = prompt->token;
    request->prompt_length = prompt->length;
    return OK;
}

static Status generate(Run *run, const cJSON *message, Error *err)
{
    const char *call = cJSON_GetStringValue(member(message, "call"));
    if (call == NULL || has_call(&run->outputs, call))
        return error_set(err, ERR_DATA, "a generate has no call of its own, a text");
    Stops stops;
    SampleBuilder prompt = {0};
    GenerateRequest request = {0};
    Generation *made = NULL;
    Error inner = {0};
    int first = run->outputs.count;
    Status status = read_request(run, message, &stops, &request, &inner);
    if (status == OK) status = read_prompt(run, message, &prompt, &request, &inner);
    if (status != OK) {
        reply_error(run, call, inner.message);
        status = OK;
        goto done;
    }
    made = mem_calloc((size_t)request.num_samples, sizeof *made);
    status = run->engine->generate(run->engine->context, &request, made, &inner);
    if (status == ERR_INVALID || status == ERR_RESOURCE) {
        reply_error(run, call, inner.message);
        status = OK;
        goto done;
    }
    if (status != OK) {
        status = error_set(err, status, "%s", inner.message);
        goto done;
    }
    for (int i = 0; i < request.num_samples; i++)
        output_table_add(&run->outputs, call, i, &made[i], prompt.token, prompt.length);
    status = reply_outputs(run, call, first, err);
done:
    free(made);
    sample_builder_free(&prompt);
    return status;
}

/* ---- done ---- */

static void reject(const char *message, FunctionSample *ret)
{
    ret->sample.status = SAMPLE_REJECTED;
    ret->sample.reject_reason = REJECT_BAD_RECORD;
    ret->sample.reject_message = mem_strdup(message);
}

static Status read_sample(const Run *run, const cJSON *json, FunctionSample *ret, Error *err)
{
    const cJSON *rejected = member(json, "rejected"), *reward = member(json, "reward");
    const cJSON *extra = member(json, "extra");
    const Output *last = NULL;
    SampleBuilder builder = {0};
    if (cJSON_IsString(rejected)) {
        reject(rejected->valuestring, ret);
        return OK;
    }
    if (reward != NULL && (!cJSON_IsNumber(reward) || !isfinite(reward->valuedouble)))
        return error_set(err, ERR_DATA, "reward is %s, expected a number", json_type_name(reward));
    Status status = pieces_resolve(&run->pieces, member(json, "pieces"), &builder, &last, err);
    if (status == OK && last == NULL)
        status = error_set(err, ERR_DATA, "none of the pieces is an output that is trained");
    if (status == OK && builder.length > run->task->max_length)
        status = error_set(err, ERR_DATA, "it has %d tokens, expected at most %d", builder.length,
                           run->task->max_length);
    if (status == OK) status = output_text(run, &last->generation, &ret->response, err);
    if (status == OK) {
        static const SampleStatus statuses[FINISH_COUNT] = {
            [FINISH_STOP] = SAMPLE_COMPLETED,
            [FINISH_LENGTH] = SAMPLE_TRUNCATED,
            [FINISH_ABORT] = SAMPLE_ABORTED,
        };
        sample_builder_to_sample(&builder, &ret->sample);
        ret->sample.status = statuses[last->generation.finish];
        ret->has_reward = reward != NULL;
        if (reward != NULL) ret->sample.reward = (float)reward->valuedouble;
        if (extra != NULL) ret->extra = cJSON_Duplicate(extra, true);
    }
    sample_builder_free(&builder);
    return status;
}

static Status finish(const Run *run, const cJSON *message, FunctionSample *ret, Error *err)
{
    const cJSON *samples = member(message, "samples");
    int count = run->task->num_samples, index = 0;
    if (cJSON_GetArraySize(samples) != count)
        return error_set(err, ERR_DATA, "done has %d samples, expected %d",
                         cJSON_GetArraySize(samples), count);
    for (const cJSON *entry = samples->child; entry != NULL; entry = entry->next, index++) {
        if (read_sample(run, entry, &ret[index], err) != OK)
            return error_prefix(err, "samples[%d]", index);
        ret[index].sample.position = run->task->position;
        ret[index].sample.index = index;
    }
    return OK;
}

/* ---- a task ---- */

static void cancel(const Run *run)
{
    Str line = {0};
    str_printf(&line, "{\"id\": \"%" PRIu64 "\", \"type\": \"cancel\"}\n", run->id);
    exchange_send(run->exchange, &line);
}

/* What a message asks for. *ret_done: the samples are there. */
static Status take_message(Run *run, const cJSON *message, FunctionSample *ret, bool *ret_done,
                           Error *err)
{
    const char *type = cJSON_GetStringValue(member(message, "type"));
    if (type != NULL && strcmp(type, "generate") == 0) return generate(run, message, err);
    if (type != NULL && strcmp(type, "done") == 0) {
        *ret_done = true;
        return finish(run, message, ret, err);
    }
    if (type != NULL && strcmp(type, "failed") == 0) {
        const char *why = cJSON_GetStringValue(member(message, "error"));
        *ret_done = true;
        return error_set(err, ERR_DATA, "the rollout function says: %s", why == NULL ? "" : why);
    }
    return error_set(err, ERR_DATA, "a message has the type %s, expected generate, done or failed",
                     type == NULL ? "of none" : QUOTED(type));
}

static Status serve(Run *run, FunctionSample *ret, Error *err)
{
    for (bool done = false; !done;) {
        cJSON *message = NULL;
        char reason[EXCHANGE_REASON_BYTES];
        ExchangeOutcome outcome = exchange_wait(run->exchange, &message, reason);
        if (outcome != EXCHANGE_MESSAGE)
            return error_set(err, outcome == EXCHANGE_TIMEOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                             "rollout function: %s", reason);
        Status status = take_message(run, message, ret, &done, err);
        cJSON_Delete(message);
        if (status == OK) continue;
        if (!done) cancel(run);
        return error_prefix(err, "record %" PRId64 ", rollout function", run->task->position);
    }
    return OK;
}

Status process_function_run(ProcessFunction *function, const FunctionTask *task,
                            const FunctionEngine *engine, FunctionSample *ret, Error *err)
{
    Run run = {.function = function, .task = task, .engine = engine};
    Str line = {0};
    run.id = process_pool_next_id(function->pool);
    run.pieces = (PieceContext){.model = function->options.model,
                                .template_kwargs = function->options.template_kwargs,
                                .outputs = &run.outputs,
                                .now = task->now};
    memset(ret, 0, (size_t)task->num_samples * sizeof *ret);
    append_task(&line, &run);
    run.exchange = exchange_start(function->pool, run.id, &line, true);
    Status status = serve(&run, ret, err);
    exchange_end(run.exchange);
    for (int i = 0; status != OK && i < task->num_samples; i++)
        function_sample_clear(&ret[i]);
    output_table_clear(&run.outputs);
    return status;
}
