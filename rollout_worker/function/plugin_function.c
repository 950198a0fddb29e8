#include "rollout_worker/function/plugin_function.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/function/rollout_plugin.h"
#include "rollout_worker/process/plugin_guard.h"

#define MESSAGE_BYTES 512

struct PluginFunction {
    void *library;
    const RolloutPlugin *table;
    void *opened;
    FunctionHost host;
    PluginGuard *guard;
};

/* Pieces in the making, as a program would write them. */
struct RolloutSequence {
    RolloutPluginRun *run;
    cJSON *pieces; /* owned */
    RolloutSequence *next;
};

/* A call of run. It may outlive who asked for it: the task and the engine of `run`, which are that
 * one's, are used only where the guard lets it enter. */
struct RolloutPluginRun {
    FunctionRun run;
    PluginFunction *function;
    GuardedCall *call;
    RolloutPluginRecord record;
    int num_samples;
    int outcome; /* of the plugin's run, and what it says */
    char message[MESSAGE_BYTES];
    RolloutSequence *sequences;
    cJSON **sample;   /* [num_samples] as a program would say it; owned; NULL: not set yet */
    StringList texts; /* of outputs, and of what the record is told with */
    char *refusal;    /* of the last generate; owned; or NULL */
    char *fault;      /* the first thing that the plugin did wrong; owned; or NULL */
    Status lost;      /* what the engine ended with; OK: it has not */
    Error why_lost;
};

/* ---- life ---- */

void plugin_function_close(PluginFunction *function)
{
    if (function == NULL) return;
    if (!plugin_guard_destroy(function->guard)) return; /* what hangs in it may use it still */
    if (function->table != NULL) function->table->close(function->opened);
    if (function->library != NULL) dlclose(function->library);
    free(function);
}

static Status check_table(const char *path, const RolloutPlugin *table, Error *err)
{
    if (table == NULL)
        return error_set(err, ERR_INVALID, "%s exports no rollout_plugin, expected what %s says",
                         QUOTED(path), "rollout_plugin.h");
    if (table->abi != ROLLOUT_PLUGIN_ABI)
        return error_set(
            err, ERR_UNSUPPORTED,
            "rollout plugin %s is made for interface %u, this build has %d: compile it "
            "with this build's rollout_plugin.h",
            QUOTED(path), table->abi, ROLLOUT_PLUGIN_ABI);
    if (table->name == NULL || table->open == NULL || table->close == NULL || table->run == NULL)
        return error_set(err, ERR_INVALID, "rollout plugin %s lacks its name, open, close or run",
                         QUOTED(path));
    return OK;
}

static Status load(const char *path, void **ret_library, const RolloutPlugin **ret, Error *err)
{
    const RolloutPlugin *(*entry)(void) = NULL;
    *ret_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*ret_library == NULL)
        return error_set(err, ERR_NOT_FOUND, "cannot load rollout plugin %s: %s", QUOTED(path),
                         dlerror());
    void *symbol = dlsym(*ret_library, "rollout_plugin");
    memcpy(&entry, &symbol, sizeof entry);
    *ret = symbol == NULL ? NULL : entry();
    return check_table(path, *ret, err);
}

static Status open_loaded(PluginFunction *function, const RolloutPlugin *table, Error *err)
{
    char message[MESSAGE_BYTES] = "";
    char *options = function->host.options == NULL ? mem_strdup("{}")
                                                   : cJSON_PrintUnformatted(function->host.options);
    int failed = table->open(options, &function->opened, message, sizeof message);
    free(options);
    message[sizeof message - 1] = '\0';
    if (failed == 0) return OK;
    return error_set(err, ERR_INVALID, "rollout plugin %s: %s", QUOTED(table->name),
                     message[0] == '\0' ? "it did not open and says nothing" : message);
}

Status plugin_function_open(const char *path, const FunctionHost *host, int64_t timeout_ms,
                            PluginFunction **ret, Error *err)
{
    PluginFunction *function = mem_calloc(1, sizeof *function);
    const RolloutPlugin *table = NULL;
    function->host = *host;
    Status status = load(path, &function->library, &table, err);
    if (status == OK) status = open_loaded(function, table, err);
    if (status == OK) {
        function->table = table; /* to be closed, now that it is open */
        function->guard = plugin_guard_create(table->name, timeout_ms);
        *ret = function;
    } else {
        plugin_function_close(function);
    }
    return status;
}

/* ---- what the plugin calls ---- */

static void note_fault(RolloutPluginRun *run, const char *what)
{
    if (run->fault == NULL) run->fault = mem_strdup(what);
}

static void add_piece(RolloutSequence *sequence, cJSON *piece)
{
    cJSON_AddItemToArray(sequence->pieces, piece);
}

/* Adds JSON that the plugin wrote; what is none is its fault. NULL adds nothing. */
static void add_json(RolloutPluginRun *run, cJSON *object, const char *key, const char *text)
{
    cJSON *value = NULL;
    Error err;
    if (text == NULL) return;
    if (json_parse(text, strlen(text), key, &value, &err) == OK)
        cJSON_AddItemToObject(object, key, value);
    else
        note_fault(run, err.message);
}

static RolloutSequence *make_sequence(RolloutPluginRun *run, const RolloutSequence *like)
{
    RolloutSequence *sequence = mem_calloc(1, sizeof *sequence);
    sequence->run = run;
    sequence->pieces = like == NULL ? cJSON_CreateArray() : cJSON_Duplicate(like->pieces, true);
    sequence->next = run->sequences;
    run->sequences = sequence;
    return sequence;
}

static void add_messages(RolloutSequence *sequence, const char *messages, const char *tools,
                         const char *template_kwargs)
{
    cJSON *piece = cJSON_CreateObject();
    add_json(sequence->run, piece, "messages", messages);
    add_json(sequence->run, piece, "tools", tools);
    add_json(sequence->run, piece, "template_kwargs", template_kwargs);
    add_piece(sequence, piece);
}

static void add_follow(RolloutSequence *sequence, const char *messages)
{
    cJSON *piece = cJSON_CreateObject();
    add_json(sequence->run, piece, "follow", messages);
    add_piece(sequence, piece);
}

static void add_text(RolloutSequence *sequence, const char *text, int special)
{
    cJSON *piece = cJSON_CreateObject();
    cJSON_AddStringToObject(piece, "text", text);
    cJSON_AddBoolToObject(piece, "special", special != 0);
    add_piece(sequence, piece);
}

static void add_tokens(RolloutSequence *sequence, const int32_t *token, int32_t count)
{
    cJSON *piece = cJSON_CreateObject();
    cJSON_AddItemToObject(piece, "tokens", cJSON_CreateIntArray(token, count));
    add_piece(sequence, piece);
}

static void add_output(RolloutSequence *sequence, int32_t id, int trained)
{
    const OutputTable *outputs = &sequence->run->run.outputs;
    if (id < 0 || id >= outputs->count) {
        note_fault(sequence->run, "add_output names an output that there is not");
        return;
    }
    cJSON *piece = cJSON_CreateObject(), *name = cJSON_AddArrayToObject(piece, "output");
    cJSON_AddItemToArray(name, cJSON_CreateString(outputs->output[id].call));
    cJSON_AddItemToArray(name, cJSON_CreateNumber(outputs->output[id].number));
    cJSON_AddBoolToObject(piece, "trained", trained != 0);
    add_piece(sequence, piece);
}

static cJSON *request_of(RolloutPluginRun *run, const RolloutSequence *prompt,
                         const RolloutPluginRequest *request)
{
    char call[32];
    cJSON *json = cJSON_CreateObject();
    snprintf(call, sizeof call, "%d", run->run.outputs.count); /* never the same twice */
    cJSON_AddStringToObject(json, "call", call);
    cJSON_AddItemToObject(json, "prompt", cJSON_Duplicate(prompt->pieces, true));
    cJSON_AddNumberToObject(json, "samples", request->samples == 0 ? 1 : request->samples);
    cJSON_AddNumberToObject(json, "index", request->index);
    cJSON_AddNumberToObject(json, "draw", (double)request->draw);
    add_json(run, json, "sampling", request->sampling);
    return json;
}

static Status show_output(RolloutPluginRun *run, int id, RolloutOutput *ret, Error *err)
{
    const Output *output = &run->run.outputs.output[id];
    const Generation *made = &output->generation;
    char *text = NULL;
    size_t bytes = 0;
    TRY(function_run_text(&run->run, output, &text, &bytes, err));
    *ret = (RolloutOutput){.id = id,
                           .finish = made->finish == FINISH_LENGTH ? ROLLOUT_FINISH_LENGTH
                                                                   : ROLLOUT_FINISH_STOP,
                           .text_bytes = bytes,
                           .token = made->token,
                           .log_prob = made->log_prob,
                           .length = made->length};
    run->texts.item =
        mem_realloc(run->texts.item, (size_t)run->texts.count + 1, sizeof *run->texts.item);
    ret->text = run->texts.item[run->texts.count++] = text;
    return OK;
}

static int generate(RolloutPluginRun *run, const RolloutSequence *prompt,
                    const RolloutPluginRequest *request, RolloutOutput *ret)
{
    FunctionOutputs outputs = {0};
    if (run->lost != OK || run->fault != NULL) return ROLLOUT_PLUGIN_OVER;
    cJSON *json = request_of(run, prompt, request);
    run->lost = function_run_generate(&run->run, json, &outputs, &run->why_lost);
    cJSON_Delete(json);
    for (int i = 0; i < outputs.count && run->lost == OK; i++)
        run->lost = show_output(run, outputs.first + i, &ret[i], &run->why_lost);
    if (run->lost != OK) return ROLLOUT_PLUGIN_OVER;
    free(run->refusal);
    run->refusal = outputs.refusal;
    return outputs.refusal == NULL ? ROLLOUT_PLUGIN_OK : ROLLOUT_PLUGIN_REFUSED;
}

static const char *host_error(const RolloutPluginRun *run)
{
    return run->refusal == NULL ? "" : run->refusal;
}

static void set(RolloutPluginRun *run, int32_t index, cJSON *sample)
{
    if (index >= 0 && index < run->run.task->num_samples && run->sample[index] == NULL) {
        run->sample[index] = sample;
        return;
    }
    cJSON_Delete(sample);
    note_fault(run, "a sample is set twice, or has a number that there is not");
}

static void set_sample(RolloutPluginRun *run, int32_t index, const RolloutSequence *sequence,
                       const double *reward, int right, const char *extra)
{
    cJSON *sample = cJSON_CreateObject();
    cJSON_AddItemToObject(sample, "pieces", cJSON_Duplicate(sequence->pieces, true));
    if (reward != NULL) {
        cJSON_AddNumberToObject(sample, "reward", *reward);
        cJSON_AddBoolToObject(sample, "right", right != 0);
    }
    add_json(run, sample, "extra", extra);
    set(run, index, sample);
}

static void reject_sample(RolloutPluginRun *run, int32_t index, const char *why)
{
    cJSON *sample = cJSON_CreateObject();
    cJSON_AddStringToObject(sample, "rejected", why);
    set(run, index, sample);
}

/* ---- the same for the plugin: each use of the worker is none of its time ---- */

#define WITHIN(run, what)                                                                          \
    do {                                                                                           \
        plugin_guard_enter((run)->call);                                                           \
        what;                                                                                      \
        plugin_guard_leave((run)->call);                                                           \
    } while (0)

static RolloutSequence *host_sequence(RolloutPluginRun *run, const RolloutSequence *like)
{
    RolloutSequence *sequence = NULL;
    WITHIN(run, sequence = make_sequence(run, like));
    return sequence;
}

static void host_add_messages(RolloutSequence *sequence, const char *messages, const char *tools,
                              const char *template_kwargs)
{
    WITHIN(sequence->run, add_messages(sequence, messages, tools, template_kwargs));
}

static void host_add_follow(RolloutSequence *sequence, const char *messages)
{
    WITHIN(sequence->run, add_follow(sequence, messages));
}

static void host_add_text(RolloutSequence *sequence, const char *text, int special)
{
    WITHIN(sequence->run, add_text(sequence, text, special));
}

static void host_add_tokens(RolloutSequence *sequence, const int32_t *token, int32_t count)
{
    WITHIN(sequence->run, add_tokens(sequence, token, count));
}

static void host_add_output(RolloutSequence *sequence, int32_t id, int trained)
{
    WITHIN(sequence->run, add_output(sequence, id, trained));
}

static int host_generate(RolloutPluginRun *run, const RolloutSequence *prompt,
                         const RolloutPluginRequest *request, RolloutOutput *ret)
{
    int outcome = ROLLOUT_PLUGIN_OVER;
    WITHIN(run, outcome = generate(run, prompt, request, ret));
    return outcome;
}

static void host_set_sample(RolloutPluginRun *run, int32_t index, const RolloutSequence *sequence,
                            const double *reward, int right, const char *extra)
{
    WITHIN(run, set_sample(run, index, sequence, reward, right, extra));
}

static void host_reject_sample(RolloutPluginRun *run, int32_t index, const char *why)
{
    WITHIN(run, reject_sample(run, index, why));
}

static const RolloutPluginHost plugin_host = {
    .abi = ROLLOUT_PLUGIN_ABI,
    .sequence = host_sequence,
    .add_messages = host_add_messages,
    .add_follow = host_add_follow,
    .add_text = host_add_text,
    .add_tokens = host_add_tokens,
    .add_output = host_add_output,
    .generate = host_generate,
    .error = host_error,
    .set_sample = host_set_sample,
    .reject_sample = host_reject_sample,
};

/* ---- a record ---- */

/* A member of what the function is told, as JSON; NULL for null. Lives as long as the run. */
static const char *told(RolloutPluginRun *run, const cJSON *whole, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(whole, key);
    Str text = {0};
    if (value == NULL || cJSON_IsNull(value)) return NULL;
    if (cJSON_IsString(value))
        str_puts(&text, value->valuestring);
    else
        json_append(&text, value);
    string_list_append(&run->texts, str_text(&text));
    str_free(&text);
    return run->texts.item[run->texts.count - 1];
}

static Status describe(RolloutPluginRun *run, Error *err)
{
    const FunctionTask *task = run->run.task;
    Str text = {0};
    cJSON *whole = NULL;
    str_puts(&text, "{\"type\": \"rollout\"");
    function_run_describe(&run->run, &text);
    str_putc(&text, '}');
    Status status = json_parse(text.data, text.length, "the record", &whole, err);
    if (status == OK)
        run->record = (RolloutPluginRecord){.position = task->position,
                                            .samples = task->num_samples,
                                            .max_length = task->max_length,
                                            .evaluation = task->evaluation,
                                            .messages = told(run, whole, "messages"),
                                            .label = told(run, whole, "label"),
                                            .metadata = told(run, whole, "metadata"),
                                            .tools = told(run, whole, "tools"),
                                            .sampling = told(run, whole, "sampling"),
                                            .record = told(run, whole, "record")};
    cJSON_Delete(whole);
    str_free(&text);
    return status;
}

/* The samples that were set, as a program would list them. */
static Status finish(RolloutPluginRun *run, Answer *ret, Error *err)
{
    cJSON *list = cJSON_CreateArray();
    Status status = OK;
    for (int i = 0; i < run->run.task->num_samples && status == OK; i++) {
        if (run->sample[i] == NULL)
            status = error_set(err, ERR_INVALID, "sample %d was not set", i);
        else
            cJSON_AddItemToArray(list, run->sample[i]);
        run->sample[i] = NULL;
    }
    if (status == OK) status = function_run_finish(&run->run, list, ret, err);
    cJSON_Delete(list);
    return status;
}

static void plugin_run_destroy(void *argument)
{
    RolloutPluginRun *run = argument;
    for (RolloutSequence *sequence = run->sequences, *next; sequence != NULL; sequence = next) {
        next = sequence->next;
        cJSON_Delete(sequence->pieces);
        free(sequence);
    }
    for (int i = 0; i < run->num_samples; i++)
        cJSON_Delete(run->sample[i]);
    free(run->sample);
    string_list_free(&run->texts);
    free(run->refusal);
    free(run->fault);
    function_run_end(&run->run);
    free(run);
}

static void call_plugin(void *argument, GuardedCall *call)
{
    RolloutPluginRun *run = argument;
    const PluginFunction *function = run->function;
    run->call = call;
    run->outcome = function->table->run(function->opened, &plugin_host, run, &run->record,
                                        run->message, sizeof run->message);
}

static Status take_outcome(RolloutPluginRun *run, Answer *ret, Error *err)
{
    run->message[sizeof run->message - 1] = '\0';
    if (run->lost != OK) return error_set(err, run->lost, "%s", run->why_lost.message);
    if (run->fault != NULL) return error_set(err, ERR_INVALID, "%s", run->fault);
    switch (run->outcome) {
    case ROLLOUT_PLUGIN_OK:
        return finish(run, ret, err);
    case ROLLOUT_PLUGIN_REFUSED:
        return error_set(err, ERR_DATA, "the rollout function says: %s", run->message);
    case ROLLOUT_PLUGIN_FAILED:
        return error_set(err, ERR_UNAVAILABLE, "%s", run->message);
    default:
        return error_set(err, ERR_INVALID, "run returned %d, which the interface has not",
                         run->outcome);
    }
}

Status plugin_function_run(PluginFunction *function, const FunctionTask *task,
                           const FunctionEngine *engine, Answer *ret, Error *err)
{
    RolloutPluginRun *run = mem_calloc(1, sizeof *run);
    run->function = function;
    run->num_samples = task->num_samples;
    run->sample = mem_calloc((size_t)task->num_samples, sizeof *run->sample);
    memset(ret, 0, (size_t)task->num_samples * sizeof *ret);
    function_run_begin(&run->run, &function->host, task, engine);
    Status status = describe(run, err);
    bool mine = status != OK; /* else the call's */
    if (status == OK) {
        const PluginWork work = {call_plugin, plugin_run_destroy, run};
        status = plugin_guard_call(function->guard, &work, err);
        mine = status == OK;
    }
    if (status == OK) status = take_outcome(run, ret, err);
    if (status != OK)
        error_prefix(err, "record %" PRId64 ", rollout plugin %s", task->position,
                     QUOTED(function->table->name));
    for (int i = 0; status != OK && i < task->num_samples; i++)
        answer_clear(&ret[i]);
    if (mine) plugin_run_destroy(run);
    return status;
}
