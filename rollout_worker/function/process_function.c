#include "rollout_worker/function/process_function.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

#define PROTOCOL       1
#define LINE_BYTES_MAX ((int64_t)64 << 20)

struct ProcessFunction {
    ProcessPool *pool;
    FunctionHost host;
};

/* A record that a program has. */
typedef struct Talk {
    FunctionRun run;
    Exchange *exchange;
    uint64_t id;
} Talk;

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- life ---- */

Status process_function_open(const ProcessPoolOptions *pool, const FunctionHost *host,
                             ProcessFunction **ret, Error *err)
{
    ProcessFunction *function = mem_calloc(1, sizeof *function);
    ProcessPoolOptions options = *pool;
    options.line_bytes_max = LINE_BYTES_MAX;
    function->host = *host;
    Status status = process_pool_open(&options, &function->pool, err);
    if (status == OK)
        *ret = function;
    else
        process_function_close(function);
    return status;
}

Status process_function_watch(ProcessFunction *function, int64_t until_ms, Error *err)
{
    return process_pool_watch(function->pool, until_ms, err);
}

void process_function_close(ProcessFunction *function)
{
    if (function == NULL) return;
    process_pool_close(function->pool);
    free(function);
}

/* ---- what the program is told ---- */

static void append_task(Str *out, const Talk *talk)
{
    str_printf(out, "{\"id\": \"%" PRIu64 "\", \"type\": \"rollout\", \"protocol\": %d", talk->id,
               PROTOCOL);
    function_run_describe(&talk->run, out);
    str_puts(out, "}\n");
}

static Status append_output(Str *out, const FunctionRun *run, const Output *output, Error *err)
{
    const Generation *made = &output->generation;
    char *text = NULL;
    size_t bytes = 0;
    TRY(function_run_text(run, output, &text, &bytes, err));
    str_printf(out, "{\"number\": %d, \"text\": ", output->number);
    json_append_string(out, text);
    str_printf(out, ", \"finish\": \"%s\", \"prompt_length\": %d, \"tokens\": [",
               finish_reason_name(made->finish), output->prompt_length);
    for (int32_t i = 0; i < made->length; i++)
        str_printf(out, "%s%d", i == 0 ? "" : ", ", made->token[i]);
    str_puts(out, "], \"log_probs\": [");
    for (int32_t i = 0; i < made->length; i++)
        str_printf(out, "%s%.9g", i == 0 ? "" : ", ", (double)made->log_prob[i]);
    str_puts(out, "]}");
    free(text);
    return OK;
}

static Status append_reply(Str *out, const Talk *talk, const char *call,
                           const FunctionOutputs *outputs, Error *err)
{
    str_printf(out, "{\"id\": \"%" PRIu64 "\", \"type\": \"generation\", \"call\": ", talk->id);
    json_append_string(out, call);
    if (outputs->refusal != NULL) {
        str_puts(out, ", \"error\": ");
        json_append_string(out, outputs->refusal);
        str_puts(out, "}\n");
        return OK;
    }
    str_puts(out, ", \"outputs\": [");
    for (int i = 0; i < outputs->count; i++) {
        if (i > 0) str_puts(out, ", ");
        TRY(append_output(out, &talk->run, &talk->run.outputs.output[outputs->first + i], err));
    }
    str_puts(out, "]}\n");
    return OK;
}

static void cancel(const Talk *talk)
{
    Str line = {0};
    str_printf(&line, "{\"id\": \"%" PRIu64 "\", \"type\": \"cancel\"}\n", talk->id);
    exchange_send(talk->exchange, &line);
}

/* ---- what it says ---- */

static Status generate(Talk *talk, const cJSON *message, Error *err)
{
    FunctionOutputs outputs = {0};
    Str line = {0};
    TRY(function_run_generate(&talk->run, message, &outputs, err));
    const char *call = cJSON_GetStringValue(member(message, "call"));
    Status status = append_reply(&line, talk, call, &outputs, err);
    if (status == OK) exchange_send(talk->exchange, &line);
    str_free(&line);
    free(outputs.refusal);
    return status;
}

/* What a message asks for. *ret_done: it is the last one. */
static Status take_message(Talk *talk, const cJSON *message, Answer *ret, bool *ret_done,
                           Error *err)
{
    const char *type = cJSON_GetStringValue(member(message, "type"));
    if (type != NULL && strcmp(type, "generate") == 0) return generate(talk, message, err);
    if (type != NULL && strcmp(type, "done") == 0) {
        *ret_done = true;
        return function_run_finish(&talk->run, member(message, "samples"), ret, err);
    }
    if (type != NULL && strcmp(type, "failed") == 0) {
        const char *why = cJSON_GetStringValue(member(message, "error"));
        *ret_done = true;
        return error_set(err, ERR_DATA, "the rollout function says: %s", why == NULL ? "" : why);
    }
    return error_set(err, ERR_INVALID,
                     "a message has the type %s, expected generate, done or failed",
                     type == NULL ? "of none" : QUOTED(type));
}

static Status say_lost(ExchangeOutcome outcome, const char *reason, Error *err)
{
    if (outcome == EXCHANGE_UNWANTED) return error_set(err, ERR_CANCELLED, "%s", reason);
    return error_set(err,
                     outcome == EXCHANGE_TIMEOUT  ? ERR_TIMEOUT
                     : outcome == EXCHANGE_BROKEN ? ERR_INVALID
                                                  : ERR_UNAVAILABLE,
                     "rollout function: %s", reason);
}

/* *ret_disturbed: the program ended, perhaps over another record. */
static Status serve(Talk *talk, Answer *ret, bool *ret_disturbed, Error *err)
{
    for (bool done = false; !done;) {
        cJSON *message = NULL;
        char reason[EXCHANGE_REASON_BYTES];
        ExchangeOutcome outcome = exchange_wait(talk->exchange, &message, reason);
        if (outcome == EXCHANGE_UNWANTED) cancel(talk);
        *ret_disturbed = outcome == EXCHANGE_DISTURBED;
        if (outcome != EXCHANGE_MESSAGE) return say_lost(outcome, reason, err);
        Status status = take_message(talk, message, ret, &done, err);
        cJSON_Delete(message);
        if (status == OK) continue;
        if (!done) cancel(talk);
        return error_prefix(err, "record %" PRId64 ", rollout function", talk->run.task->position);
    }
    return OK;
}

/* The whole dialogue about a record. */
static Status talk_about(ProcessFunction *function, const FunctionTask *task,
                         const FunctionEngine *engine, unsigned flags, Answer *ret,
                         bool *ret_disturbed, Error *err)
{
    Talk talk = {.id = process_pool_next_id(function->pool)};
    Str line = {0};
    memset(ret, 0, (size_t)task->num_samples * sizeof *ret);
    function_run_begin(&talk.run, &function->host, task, engine);
    append_task(&line, &talk);
    talk.exchange = exchange_start(function->pool, talk.id, &line, flags);
    exchange_watch(talk.exchange, task->wanted);
    Status status = serve(&talk, ret, ret_disturbed, err);
    exchange_end(talk.exchange);
    for (int i = 0; status != OK && i < task->num_samples; i++)
        answer_clear(&ret[i]);
    function_run_end(&talk.run);
    return status;
}

Status process_function_run(ProcessFunction *function, const FunctionTask *task,
                            const FunctionEngine *engine, Answer *ret, Error *err)
{
    bool disturbed = false;
    unsigned flags = EXCHANGE_DIALOGUE;
    Status status = talk_about(function, task, engine, flags, ret, &disturbed, err);
    if (!disturbed) return status;
    flags |= EXCHANGE_ALONE;
    return talk_about(function, task, engine, flags, ret, &disturbed, err);
}
