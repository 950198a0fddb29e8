#include "rollout_worker/engine/engine_thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/condition.h"
#include "base/memory.h"
#include "rollout_worker/engine/engine_ranks.h"

/* While a request waits for weights its given_up flag is looked at so often. */
#define LOOK_MS 100

/* Something asked of the thread; lives on the stack of whoever asks and waits. */
typedef struct Job {
    Status (*run)(EngineThread *thread, struct Job *job, Error *err);
    void *argument;
    bool needs_weights;
    const atomic_bool *given_up; /* may be NULL */
    Status status;
    Error *err;
    bool done;
    pthread_cond_t answered;
    struct Job *prev, *next;
} Job;

/* A request in the engine. The thread's own. */
typedef struct Work {
    uint64_t id;
    int left; /* samples */
    GenerateSink sink;
    const atomic_bool *given_up; /* may be NULL */
    struct Work *prev, *next;
} Work;

struct EngineThread {
    EngineOptions options;
    int32_t *end_token;
    int tp_size;
    KvPolicy kv_policy;
    pthread_t thread;
    /* shared */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    Job *jobs;
    bool ended;
    EngineLost lost; /* NULL: nobody watches */
    void *lost_context;
    atomic_uint_fast64_t progress;
    atomic_int working, waiting, running;
    _Atomic int64_t version; /* NO_VERSION: no weights */
    atomic_bool rests;       /* until weights are adopted */
    /* the thread's own */
    EngineRanks *ranks; /* NULL: no weights */
    bool busy;          /* samples are in work */
    Work *works;
    uint64_t next_id;
    Error failure;    /* of an engine that had to be let go; status OK: none */
    const Error *why; /* samples that are delivered were aborted for this */
};

/* ---- asking ---- */

static void job_init(Job *job, Status (*run)(EngineThread *, Job *, Error *), void *argument,
                     Error *err)
{
    *job = (Job){.run = run, .argument = argument, .err = err};
    pthread_cond_init(&job->answered, NULL);
}

/* Waits until it was run. */
static Status ask(EngineThread *thread, Job *job)
{
    pthread_mutex_lock(&thread->mutex);
    if (thread->ended) {
        job->status = error_set(job->err, ERR_CANCELLED, "the engine has ended");
    } else {
        DL_APPEND(thread->jobs, job);
        pthread_cond_signal(&thread->changed);
        while (!job->done)
            pthread_cond_wait(&job->answered, &thread->mutex);
    }
    pthread_mutex_unlock(&thread->mutex);
    pthread_cond_destroy(&job->answered);
    return job->status;
}

/* With the mutex held; the job may be gone when it is let go of. */
static void answer(EngineThread *thread, Job *job, Status status)
{
    DL_DELETE(thread->jobs, job);
    job->status = status;
    job->done = true;
    pthread_cond_signal(&job->answered);
}

static bool is_given_up(const atomic_bool *given_up)
{
    return given_up != NULL && atomic_load(given_up);
}

/* ---- results ---- */

static void deliver(EngineThread *thread)
{
    Generation generation;
    Work *work = NULL;
    while (thread->ranks != NULL && engine_take(engine_ranks_first(thread->ranks), &generation)) {
        DL_SEARCH_SCALAR(thread->works, work, id, generation.request);
        CHECK(work != NULL);
        thread->working--;
        work->sink.on_done(work->sink.context, &generation, thread->why);
        if (--work->left > 0) continue;
        DL_DELETE(thread->works, work);
        free(work);
    }
}

static void abort_all(EngineThread *thread, const Error *why)
{
    if (thread->ranks == NULL) return;
    thread->why = why;
    deliver(thread); /* nothing, unless a step ended some before it failed */
    engine_abort_all(engine_ranks_first(thread->ranks));
    deliver(thread);
    thread->why = NULL;
    thread->busy = false;
}

static void let_go_of_engine(EngineThread *thread, const Error *why)
{
    abort_all(thread, why);
    engine_ranks_destroy(thread->ranks);
    thread->ranks = NULL;
    thread->version = NO_VERSION;
    thread->running = 0;
    thread->rests = false;
}

/* Whoever asked for anything may ask again elsewhere, or here when this is made anew; whatever the
 * status of a collective that broke, what it says of the request is that. */
static void lose_engine(EngineThread *thread, const Error *why)
{
    Error *failure = &thread->failure;
    *failure = (Error){0};
    error_set(failure, ERR_UNAVAILABLE,
              "a tensor-parallel rank of the generation engine is lost: %s", why->message);
    pthread_mutex_lock(&thread->mutex);
    EngineLost lost = thread->lost;
    void *context = thread->lost_context;
    pthread_mutex_unlock(&thread->mutex);
    if (lost != NULL) lost(context, failure);
    let_go_of_engine(thread, failure);
}

static void on_token(void *context, const TokenEvent *event)
{
    EngineThread *thread = context;
    Work *work = NULL;
    DL_SEARCH_SCALAR(thread->works, work, id, event->request);
    if (work != NULL && work->sink.on_token != NULL) work->sink.on_token(work->sink.context, event);
}

/* ---- work ---- */

static void abort_given_up(EngineThread *thread)
{
    for (Work *work = thread->works; work != NULL; work = work->next)
        if (is_given_up(work->given_up))
            engine_abort(engine_ranks_first(thread->ranks), work->id, -1);
}

static void step(EngineThread *thread)
{
    Error err = {0};
    abort_given_up(thread);
    Status status = engine_ranks_step(thread->ranks, &thread->busy, &err);
    if (thread->works != NULL) thread->progress++;
    thread->running = engine_stats(engine_ranks_first(thread->ranks)).running;
    if (status == OK) {
        deliver(thread);
    } else if (status == ERR_DATA || thread->tp_size == 1) {
        abort_all(thread, &err); /* other weights may help */
    } else {
        lose_engine(thread, &err);
    }
}

/* With the mutex held: the first job that can be run, or is given up. */
static Job *next_job(EngineThread *thread)
{
    Job *job = NULL;
    int waiting = 0;
    bool has_weights = thread->ranks != NULL || thread->failure.status != OK;
    DL_FOREACH(thread->jobs, job)
    {
        if (!job->needs_weights || has_weights || is_given_up(job->given_up)) break;
        waiting++;
    }
    thread->waiting = waiting;
    return job;
}

static bool must_beat(const EngineThread *thread)
{
    return thread->ranks != NULL && engine_ranks_must_step(thread->ranks);
}

/* With the mutex held. */
static void wait_for_news(EngineThread *thread)
{
    bool looks = thread->jobs != NULL, steps = must_beat(thread);
    if (!looks && !steps)
        pthread_cond_wait(&thread->changed, &thread->mutex);
    else
        condition_wait_for(&thread->changed, &thread->mutex,
                           looks ? LOOK_MS : ENGINE_RANKS_STEP_MS);
}

static Status run_job(EngineThread *thread, Job *job)
{
    if (is_given_up(job->given_up))
        return error_set(job->err, ERR_CANCELLED, "nobody wants these samples any more");
    return job->run(thread, job, job->err);
}

/* Everything that was asked for. False: it is to end. */
static bool take_jobs(EngineThread *thread)
{
    pthread_mutex_lock(&thread->mutex);
    bool waited = thread->busy && !thread->rests;
    while (!thread->ended) {
        Job *job = next_job(thread);
        if (job == NULL && waited) break;
        if (job == NULL) {
            wait_for_news(thread);
            waited = true;
            continue;
        }
        pthread_mutex_unlock(&thread->mutex);
        Status status = run_job(thread, job);
        pthread_mutex_lock(&thread->mutex);
        answer(thread, job, status);
        waited = true;
    }
    bool goes_on = !thread->ended;
    pthread_mutex_unlock(&thread->mutex);
    return goes_on;
}

static void cancel_jobs(EngineThread *thread)
{
    pthread_mutex_lock(&thread->mutex);
    while (thread->jobs != NULL) {
        error_set(thread->jobs->err, ERR_CANCELLED, "the engine has ended");
        answer(thread, thread->jobs, ERR_CANCELLED);
    }
    pthread_mutex_unlock(&thread->mutex);
}

static void *thread_main(void *argument)
{
    EngineThread *thread = argument;
    while (take_jobs(thread)) {
        bool must_step = thread->busy || thread->works != NULL || must_beat(thread);
        if (thread->ranks != NULL && must_step && !thread->rests) step(thread);
    }
    let_go_of_engine(thread, NULL);
    cancel_jobs(thread);
    return NULL;
}

/* ---- lifecycle ---- */

Status engine_thread_create(const EngineThreadOptions *options, EngineThread **ret, Error *err)
{
    if (options->tp_size < 1 || options->tp_size > ENGINE_RANKS_MAX)
        return error_set(err, ERR_INVALID, "%d tensor-parallel ranks; at most %d fit a process",
                         options->tp_size, ENGINE_RANKS_MAX);
    EngineThread *thread = mem_calloc(1, sizeof *thread);
    size_t ends = (size_t)options->engine.num_end_tokens;
    thread->options = options->engine;
    thread->tp_size = options->tp_size;
    thread->kv_policy = options->kv_policy;
    thread->end_token = mem_calloc(ends + 1, sizeof *thread->end_token);
    if (ends > 0)
        memcpy(thread->end_token, options->engine.end_token, ends * sizeof *thread->end_token);
    thread->options.end_token = thread->end_token;
    thread->version = NO_VERSION;
    thread->options.on_token = on_token;
    thread->options.context = thread;
    thread->options.tensor_comm = thread->options.plan_comm = NULL;
    thread->options.find_weights = NULL;
    condition_init(&thread->changed);
    pthread_mutex_init(&thread->mutex, NULL);
    CHECK(pthread_create(&thread->thread, NULL, thread_main, thread) == 0);
    *ret = thread;
    return OK;
}

void engine_thread_end(EngineThread *thread)
{
    pthread_mutex_lock(&thread->mutex);
    thread->ended = true;
    pthread_cond_signal(&thread->changed);
    pthread_mutex_unlock(&thread->mutex);
}

void engine_thread_destroy(EngineThread *thread)
{
    if (thread == NULL) return;
    engine_thread_end(thread);
    pthread_join(thread->thread, NULL);
    pthread_cond_destroy(&thread->changed);
    pthread_mutex_destroy(&thread->mutex);
    free(thread->end_token);
    free(thread);
}

void engine_thread_watch(EngineThread *thread, EngineLost lost, void *context)
{
    pthread_mutex_lock(&thread->mutex);
    thread->lost = lost;
    thread->lost_context = context;
    pthread_mutex_unlock(&thread->mutex);
}

static Status run_join(EngineThread *thread, Job *job, Error *err)
{
    Comm *const *comm = job->argument;
    (void)err;
    CHECK(thread->ranks == NULL);
    thread->options.tensor_comm = comm[0];
    thread->options.plan_comm = comm[1];
    return OK;
}

Status engine_thread_join(EngineThread *thread, Comm *tensor_comm, Comm *plan_comm, Error *err)
{
    Job job;
    Comm *comm[] = {tensor_comm, plan_comm};
    CHECK(tensor_comm != NULL && plan_comm != NULL && comm_size(plan_comm) == thread->tp_size);
    job_init(&job, run_join, comm, err);
    return ask(thread, &job);
}

/* ---- requests ---- */

typedef struct Submission {
    const GenerateRequest *request;
    const GenerateSink *sink;
    uint64_t id;
} Submission;

static Status run_submit(EngineThread *thread, Job *job, Error *err)
{
    Submission *submission = job->argument;
    GenerateRequest request = *submission->request;
    if (thread->ranks == NULL && thread->failure.status == OK)
        return error_set(err, ERR_UNAVAILABLE, "there are no weights to answer with yet");
    if (thread->ranks == NULL) {
        if (err != NULL) *err = thread->failure;
        return thread->failure.status;
    }
    request.id = ++thread->next_id;
    TRY(engine_submit(engine_ranks_first(thread->ranks), &request, err));
    Work *work = mem_calloc(1, sizeof *work);
    *work = (Work){.id = request.id,
                   .left = request.num_samples,
                   .sink = *submission->sink,
                   .given_up = job->given_up};
    DL_APPEND(thread->works, work);
    thread->working += request.num_samples;
    thread->busy = true;
    submission->id = request.id;
    return OK;
}

Status engine_thread_submit(EngineThread *thread, const GenerateRequest *request,
                            const GenerateSink *sink, uint64_t *ret_id, Error *err)
{
    Submission submission = {.request = request, .sink = sink};
    Job job;
    job_init(&job, run_submit, &submission, err);
    TRY(ask(thread, &job));
    *ret_id = submission.id;
    return OK;
}

static Status run_abort(EngineThread *thread, Job *job, Error *err)
{
    (void)err;
    if (thread->ranks == NULL) return OK;
    engine_abort(engine_ranks_first(thread->ranks), *(const uint64_t *)job->argument, -1);
    deliver(thread);
    return OK;
}

void engine_thread_abort(EngineThread *thread, uint64_t id)
{
    Job job;
    job_init(&job, run_abort, &id, NULL);
    (void)ask(thread, &job); /* an engine that has ended aborts everything itself */
}

/* A caller of engine_thread_generate. Guarded by the thread's mutex. */
typedef struct Waiter {
    EngineThread *thread;
    uint32_t first_index;
    Generation *ret;
    int left;
    Status status;
    Error *err;
    pthread_cond_t complete;
} Waiter;

static void on_waiter_done(void *context, Generation *generation, const Error *why)
{
    Waiter *waiter = context;
    pthread_mutex_lock(&waiter->thread->mutex);
    waiter->ret[generation->index - waiter->first_index] = *generation;
    if (why != NULL) {
        waiter->status = why->status;
        if (waiter->err != NULL) *waiter->err = *why;
    }
    if (--waiter->left == 0) pthread_cond_signal(&waiter->complete);
    pthread_mutex_unlock(&waiter->thread->mutex);
}

Status engine_thread_generate(EngineThread *thread, const GenerateRequest *request,
                              const atomic_bool *given_up, Generation *ret, Error *err)
{
    Waiter waiter = {.thread = thread,
                     .first_index = request->first_index,
                     .ret = mem_calloc((size_t)request->num_samples, sizeof *ret),
                     .left = request->num_samples,
                     .err = err};
    GenerateSink sink = {.on_done = on_waiter_done, .context = &waiter};
    Submission submission = {.request = request, .sink = &sink};
    pthread_cond_init(&waiter.complete, NULL);
    waiter.status = OK;
    Job job;
    job_init(&job, run_submit, &submission, err);
    job.needs_weights = true;
    job.given_up = given_up;
    Status status = ask(thread, &job);
    if (status == OK) {
        pthread_mutex_lock(&thread->mutex);
        while (waiter.left > 0)
            pthread_cond_wait(&waiter.complete, &thread->mutex);
        pthread_mutex_unlock(&thread->mutex);
        status = waiter.status;
    }
    for (int i = 0; i < request->num_samples; i++) {
        if (status == OK)
            ret[i] = waiter.ret[i];
        else
            generation_clear(&waiter.ret[i]);
    }
    pthread_cond_destroy(&waiter.complete);
    free(waiter.ret);
    return status;
}

/* ---- weights ---- */

typedef struct Adoption {
    const Weights *const *weights;
    int64_t version, pause_ns;
} Adoption;

static Status run_adopt(EngineThread *thread, Job *job, Error *err)
{
    Adoption *adoption = job->argument;
    if (thread->ranks == NULL) {
        EngineOptions options = thread->options;
        options.weight_version = adoption->version;
        thread->failure = (Error){0};
        TRY(engine_ranks_create(&options, adoption->weights, thread->tp_size, &thread->ranks, err));
        thread->version = adoption->version;
        return OK;
    }
    thread->rests = false;
    if (engine_weight_version(engine_ranks_first(thread->ranks)) == adoption->version)
        return error_set(err, ERR_EXISTS, "weights of version %lld are in use already",
                         (long long)adoption->version);
    Error why = {0};
    Status status = engine_ranks_switch(thread->ranks, adoption->weights, adoption->version,
                                        thread->kv_policy, &adoption->pause_ns, &why);
    if (status == OK) {
        adoption->weights[0]->kernels->synchronize(); /* the earlier ones are read no more */
        deliver(thread);
        thread->version = adoption->version;
        return OK;
    }
    lose_engine(thread, &why);
    if (err != NULL) *err = thread->failure;
    return thread->failure.status;
}

Status engine_thread_adopt(EngineThread *thread, const Weights *const *weights, int64_t version,
                           double *ret_pause_s, Error *err)
{
    Job job;
    Adoption adoption = {.weights = weights, .version = version};
    job_init(&job, run_adopt, &adoption, err);
    weights[0]->kernels->synchronize(); /* who brings them has called kernels that write them */
    TRY(ask(thread, &job));
    if (ret_pause_s != NULL) *ret_pause_s = (double)adoption.pause_ns / 1e9;
    return OK;
}

static Status run_reset(EngineThread *thread, Job *job, Error *err)
{
    (void)job, (void)err;
    thread->failure = (Error){0};
    let_go_of_engine(thread, NULL);
    return OK;
}

Status engine_thread_reset(EngineThread *thread, Error *err)
{
    Job job;
    job_init(&job, run_reset, NULL, err);
    return ask(thread, &job);
}

static Status run_rest(EngineThread *thread, Job *job, Error *err)
{
    (void)job;
    if (thread->ranks == NULL) return OK; /* it has nothing */
    Error why = {0};
    if (engine_ranks_rest(thread->ranks, &why) == OK) {
        thread->rests = true;
        thread->running = 0;
        return OK;
    }
    lose_engine(thread, &why);
    if (err != NULL) *err = thread->failure;
    return thread->failure.status;
}

Status engine_thread_rest(EngineThread *thread, Error *err)
{
    Job job;
    job_init(&job, run_rest, NULL, err);
    return ask(thread, &job);
}

bool engine_thread_rests(const EngineThread *thread)
{
    return thread->rests;
}

/* ---- looking ---- */

typedef struct Visit {
    EngineWork work;
    void *context;
} Visit;

static Status run_visit(EngineThread *thread, Job *job, Error *err)
{
    const Visit *visit = job->argument;
    Engine *engine = thread->ranks != NULL ? engine_ranks_first(thread->ranks) : NULL;
    return visit->work(visit->context, engine, err);
}

Status engine_thread_run(EngineThread *thread, EngineWork work, void *context, Error *err)
{
    Job job;
    Visit visit = {work, context};
    job_init(&job, run_visit, &visit, err);
    return ask(thread, &job);
}

int64_t engine_thread_version(const EngineThread *thread)
{
    return thread->version;
}

int engine_thread_running(const EngineThread *thread)
{
    return thread->running;
}

uint64_t engine_thread_progress(const EngineThread *thread)
{
    return thread->progress;
}

int engine_thread_working(const EngineThread *thread)
{
    return thread->working;
}

int engine_thread_waiting(const EngineThread *thread)
{
    return thread->waiting;
}
