#include "rollout_worker/serve/thread_generator.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

#define LOOK_US 200

struct ThreadGenerator {
    EngineThread *thread;
    int samples_max;
    atomic_int samples; /* in work or on their way in */
    atomic_int visits;  /* of the engine's thread that are to come or going on: one a request */
};

/* A request in work. */
typedef struct Request {
    ThreadGenerator *generator;
    GenerationSink sink;
    int left;
    bool failed; /* the sink was told, and may be gone */
} Request;

static void on_token(void *context, const TokenEvent *event)
{
    const Request *request = context;
    if (!request->failed) request->sink.on_token(request->sink.context, event);
}

static void fail(Request *request, const Error *why)
{
    Error err = *why;
    log_event(LOG_ERROR, "step_failed", F_STR("error", err.message));
    err.status = ERR_INTERNAL; /* nothing that the client did */
    request->failed = true;
    request->sink.on_failure(request->sink.context, &err);
}

static void on_done(void *context, Generation *generation, const Error *why)
{
    Request *request = context;
    ThreadGenerator *generator = request->generator;
    bool last = --request->left == 0;
    atomic_fetch_sub(&generator->samples, 1);
    if (why != NULL && !request->failed) fail(request, why);
    GenerationSink sink = request->sink;
    bool wanted = !request->failed;
    if (last) free(request);
    if (wanted)
        sink.on_result(sink.context, generation); /* after the last one the sink may be gone */
    else
        generation_clear(generation);
    if (last) atomic_fetch_sub(&generator->visits, 1); /* and now this one, too */
}

static Status submit(void *self, const GenerateRequest *asked, const GenerationSink *sink,
                     uint64_t *ret_id, Error *err)
{
    ThreadGenerator *generator = self;
    int samples = asked->num_samples;
    if (atomic_fetch_add(&generator->samples, samples) + samples > generator->samples_max) {
        atomic_fetch_sub(&generator->samples, samples);
        return error_set(err, ERR_RESOURCE,
                         "too many samples are in work: at most %d are taken at a time. Try again "
                         "later",
                         generator->samples_max);
    }
    Request *request = mem_calloc(1, sizeof *request);
    *request = (Request){.generator = generator, .sink = *sink, .left = samples};
    GenerateSink own = {.on_token = on_token, .on_done = on_done, .context = request};
    atomic_fetch_add(&generator->visits, 1);
    Status status = engine_thread_submit(generator->thread, asked, &own, ret_id, err);
    if (status != OK) {
        atomic_fetch_sub(&generator->samples, samples);
        atomic_fetch_sub(&generator->visits, 1);
        free(request);
    }
    if (status == ERR_CANCELLED) /* the engine's word for its end */
        status = error_set(err, ERR_UNAVAILABLE, "the server is ending");
    return status;
}

static void abort_request(void *self, uint64_t id)
{
    ThreadGenerator *generator = self;
    engine_thread_abort(generator->thread, id);
}

static GeneratorState state_of(void *self)
{
    ThreadGenerator *generator = self;
    int64_t version = engine_thread_version(generator->thread);
    return (GeneratorState){
        .weight_version = version == NO_VERSION ? 0 : version,
        .running = engine_thread_running(generator->thread),
        .waiting =
            engine_thread_working(generator->thread) - engine_thread_running(generator->thread),
        .ready = version != NO_VERSION,
    };
}

ThreadGenerator *thread_generator_create(EngineThread *thread, int samples_max)
{
    ThreadGenerator *generator = mem_calloc(1, sizeof *generator);
    generator->thread = thread;
    generator->samples_max = samples_max;
    return generator;
}

/* Who waited for an answer may be here before the engine's thread is through with the request: of
 * one that failed further samples end after the failure was told. */
void thread_generator_destroy(ThreadGenerator *generator)
{
    while (generator != NULL && atomic_load(&generator->visits) > 0)
        usleep(LOOK_US);
    free(generator);
}

Generator thread_generator_front(ThreadGenerator *generator)
{
    return (Generator){submit, abort_request, state_of, generator};
}
