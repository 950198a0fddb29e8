#include "rollout_worker/serve/engine_host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"

#define COMMANDS_MAX 4096 /* that the compute thread has not seen yet */

typedef enum { COMMAND_SUBMIT, COMMAND_ABORT, COMMAND_STOP } CommandKind;

/* A request in work, in the order of arrival; engine requests are named by its id. */
typedef struct Entry {
    uint64_t id;
    GenerationSink sink;
    int samples_left;
    struct Entry *next;
} Entry;

typedef struct Command {
    CommandKind kind;
    uint64_t id;
    GenerateRequest request; /* owns its arrays */
    GenerationSink sink;
} Command;

struct EngineHost {
    Engine *engine;
    pthread_t thread;
    Queue *commands;
    int waiting_max;
    _Atomic uint64_t next_id;
    _Atomic int samples; /* in work or on their way in */
    _Atomic bool stopping;
    _Atomic int64_t weight_version;
    _Atomic int running;
    Entry *entries; /* the compute thread's */
};

/* ---- commands ---- */

static void command_destroy(Command *command)
{
    free((int32_t *)command->request.prompt);
    sampling_clear(&command->request.params);
    free(command);
}

static Status host_submit(void *self, const GenerateRequest *request, const GenerationSink *sink,
                          uint64_t *ret_id, Error *err)
{
    EngineHost *host = self;
    int samples = request->num_samples;
    if (atomic_load(&host->stopping))
        return error_set(err, ERR_UNAVAILABLE, "the server is ending");
    if (atomic_fetch_add(&host->samples, samples) + samples > host->waiting_max) {
        atomic_fetch_sub(&host->samples, samples);
        return error_set(err, ERR_RESOURCE,
                         "too many samples are in work: at most %d are taken at a time. Try again "
                         "later",
                         host->waiting_max);
    }
    Command *command = mem_calloc(1, sizeof *command);
    *command = (Command){COMMAND_SUBMIT, atomic_fetch_add(&host->next_id, 1), *request, *sink};
    size_t bytes = (size_t)request->prompt_length * sizeof *request->prompt;
    int32_t *prompt = mem_alloc(bytes);
    memcpy(prompt, request->prompt, bytes);
    command->request.prompt = prompt;
    command->request.id = command->id;
    sampling_copy(&command->request.params, &request->params);
    uint64_t id = command->id;
    if (!queue_put(host->commands, command)) {
        command_destroy(command);
        atomic_fetch_sub(&host->samples, samples);
        return error_set(err, ERR_UNAVAILABLE, "the server is ending");
    }
    *ret_id = id;
    return OK;
}

static void host_abort(void *self, uint64_t id)
{
    EngineHost *host = self;
    Command *command = mem_calloc(1, sizeof *command);
    *command = (Command){.kind = COMMAND_ABORT, .id = id};
    if (!queue_put(host->commands, command)) command_destroy(command);
}

static GeneratorState host_state(void *self)
{
    EngineHost *host = self;
    int running = atomic_load(&host->running), samples = atomic_load(&host->samples);
    return (GeneratorState){
        .weight_version = atomic_load(&host->weight_version),
        .running = running,
        .waiting = samples > running ? samples - running : 0,
        .ready = !atomic_load(&host->stopping),
    };
}

/* ---- the compute thread ---- */

static Entry **find_entry(EngineHost *host, uint64_t id)
{
    Entry **link = &host->entries;
    while (*link != NULL && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

static void remove_entry(EngineHost *host, Entry **link)
{
    Entry *entry = *link;
    atomic_fetch_sub(&host->samples, entry->samples_left);
    *link = entry->next;
    free(entry);
}

static void on_token(void *context, const TokenEvent *event)
{
    const Entry *entry = *find_entry(context, event->request);
    entry->sink.on_token(entry->sink.context, event);
}

static void give_results(EngineHost *host)
{
    Generation generation;
    while (engine_take(host->engine, &generation)) {
        Entry **link = find_entry(host, generation.request);
        Entry *entry = *link;
        if (entry == NULL) { /* it failed before */
            generation_clear(&generation);
            continue;
        }
        /* The sink may be gone after its last call. */
        GenerationSink sink = entry->sink;
        atomic_fetch_sub(&host->samples, 1);
        if (--entry->samples_left == 0) remove_entry(host, link);
        sink.on_result(sink.context, &generation);
    }
}

static void take_request(EngineHost *host, const Command *command)
{
    Error err = {0};
    if (engine_submit(host->engine, &command->request, &err) != OK) {
        atomic_fetch_sub(&host->samples, command->request.num_samples);
        command->sink.on_failure(command->sink.context, &err);
        return;
    }
    Entry *entry = mem_calloc(1, sizeof *entry);
    *entry = (Entry){command->id, command->sink, command->request.num_samples, NULL};
    *find_entry(host, command->id) = entry;
}

/* Does what the command says; false: it was to stop. */
static bool obey(EngineHost *host, Command *command)
{
    bool on = command->kind != COMMAND_STOP;
    if (command->kind == COMMAND_SUBMIT) take_request(host, command);
    if (command->kind == COMMAND_ABORT) engine_abort(host->engine, command->id, -1);
    command_destroy(command);
    return on;
}

/* A step that failed takes everybody in work with it. */
static void fail_all(EngineHost *host, Error *err)
{
    log_event(LOG_ERROR, "step_failed", F_STR("error", err->message));
    err->status = ERR_INTERNAL; /* nothing that the clients did */
    while (host->entries != NULL) {
        GenerationSink sink = host->entries->sink;
        remove_entry(host, &host->entries);
        sink.on_failure(sink.context, err);
    }
    engine_abort_all(host->engine);
    give_results(host);
}

static void *run(void *argument)
{
    EngineHost *host = argument;
    bool busy = false, on = true;
    while (on) {
        Command *command = queue_take(host->commands, busy ? 0 : -1);
        while (on && command != NULL) {
            on = obey(host, command);
            command = on ? queue_take(host->commands, 0) : NULL;
        }
        if (!on) break;
        Error err = {0};
        if (engine_step(host->engine, &busy, &err) != OK) {
            fail_all(host, &err);
            busy = false;
        }
        give_results(host);
        atomic_store(&host->running, engine_stats(host->engine).running);
    }
    /* Nothing comes after the stop: the queue is closed. */
    for (Command *late; (late = queue_take(host->commands, 0)) != NULL;)
        obey(host, late);
    engine_abort_all(host->engine);
    give_results(host);
    return NULL;
}

/* ---- lifecycle ---- */

Status engine_host_start(const EngineOptions *options, int waiting_max, EngineHost **ret,
                         Error *err)
{
    EngineHost *host = mem_calloc(1, sizeof *host);
    EngineOptions own = *options;
    own.on_token = on_token;
    own.context = host;
    Status status = engine_create(&own, &host->engine, err);
    if (status != OK) {
        free(host);
        return status;
    }
    host->commands = queue_create(COMMANDS_MAX);
    host->waiting_max = waiting_max;
    host->weight_version = options->weight_version;
    host->next_id = 1;
    int failed = pthread_create(&host->thread, NULL, run, host);
    if (failed != 0) {
        queue_destroy(host->commands);
        engine_destroy(host->engine);
        free(host);
        return error_set_errno(err, failed, "could not start the compute thread");
    }
    *ret = host;
    return OK;
}

void engine_host_stop(EngineHost *host)
{
    if (host == NULL) return;
    atomic_store(&host->stopping, true);
    Command *command = mem_calloc(1, sizeof *command);
    *command = (Command){.kind = COMMAND_STOP};
    queue_put(host->commands, command);
    queue_close(host->commands);
    pthread_join(host->thread, NULL);
    queue_destroy(host->commands);
    engine_destroy(host->engine);
    free(host);
}

Generator engine_host_generator(EngineHost *host)
{
    return (Generator){host_submit, host_abort, host_state, host};
}

const char *engine_host_memory_plan(const EngineHost *host)
{
    return engine_memory_plan(host->engine);
}
