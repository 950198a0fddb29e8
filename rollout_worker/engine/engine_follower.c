#include "rollout_worker/engine/engine_follower.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/memory.h"

struct EngineFollower {
    EngineOptions options;
    pthread_t thread;
    atomic_uint_fast64_t progress;
    atomic_bool working;
    pthread_mutex_t mutex; /* of the rest */
    pthread_cond_t changed;
    const Weights *offered; /* NULL: none are */
    int64_t offered_version;
    const Weights *in_use; /* NULL: there is no engine */
    int64_t version;       /* of these */
    bool met;              /* rank 0 has gone over to these; else they give no more than a shape */
    bool made;             /* there is an engine */
    bool ended;
    EngineLost lost; /* NULL: nobody watches */
    void *lost_context;
    Error failure; /* of a group that is broken; status OK: none */
};

/* ---- its thread ---- */

/* Rank 0 has gone over to this version. */
static const Weights *find_weights(void *context, int64_t version)
{
    EngineFollower *follower = context;
    const Weights *found = NULL;
    pthread_mutex_lock(&follower->mutex);
    if (follower->offered != NULL && follower->offered_version == version) {
        follower->in_use = follower->offered;
        follower->version = version;
        follower->offered = NULL;
        follower->met = true;
        found = follower->in_use;
    } else if (follower->offered == NULL && !follower->met && follower->version == version) {
        follower->met = true;
        found = follower->in_use;
    }
    pthread_mutex_unlock(&follower->mutex);
    return found;
}

/* Waits for weights; they give the engine its shape. False: it is to end. */
static bool take_offer(EngineFollower *follower)
{
    pthread_mutex_lock(&follower->mutex);
    while (follower->offered == NULL && !follower->ended)
        pthread_cond_wait(&follower->changed, &follower->mutex);
    bool goes_on = !follower->ended;
    follower->in_use = follower->offered;
    follower->version = follower->offered_version;
    follower->offered = NULL;
    follower->met = false;
    pthread_mutex_unlock(&follower->mutex);
    return goes_on;
}

static void note_engine(EngineFollower *follower, bool made)
{
    pthread_mutex_lock(&follower->mutex);
    follower->made = made;
    if (!made) follower->in_use = NULL;
    pthread_cond_broadcast(&follower->changed);
    pthread_mutex_unlock(&follower->mutex);
}

static Status follow(EngineFollower *follower, Engine *engine, Error *err)
{
    bool done = false;
    while (!done) {
        TRY(engine_follow_wait(engine, err));
        atomic_store(&follower->working, true);
        follower->progress++;
        Status status = engine_follow_work(engine, &done, err);
        follower->progress++;
        atomic_store(&follower->working, false);
        if (status != OK && status != ERR_DATA) return status; /* ERR_DATA: rank 0 says it */
    }
    return OK;
}

/* From the first step of an engine of rank 0's to its last. */
static Status follow_one(EngineFollower *follower, Error *err)
{
    Engine *engine = NULL;
    EngineOptions options = follower->options;
    options.weights = follower->in_use;
    options.weight_version = follower->version;
    Status status = engine_create(&options, &engine, err);
    if (status == OK) {
        note_engine(follower, true);
        status = follow(follower, engine, err);
    }
    engine_destroy(engine);
    return status;
}

/* Whoever offers weights, or waits for that, is told. */
static void fail(EngineFollower *follower, const Error *err)
{
    pthread_mutex_lock(&follower->mutex);
    error_set(&follower->failure, ERR_UNAVAILABLE,
              "a tensor-parallel rank of the generation engine is lost: %s", err->message);
    EngineLost lost = follower->ended ? NULL : follower->lost;
    void *context = follower->lost_context;
    pthread_mutex_unlock(&follower->mutex);
    if (lost != NULL) lost(context, &follower->failure);
}

static void *follower_main(void *argument)
{
    EngineFollower *follower = argument;
    Status status = OK;
    Error err = {0};
    while (status == OK && take_offer(follower)) {
        status = follow_one(follower, &err);
        if (status != OK) {
            comm_abort(follower->options.tensor_comm); /* nobody is to wait for this rank */
            comm_abort(follower->options.plan_comm);
            fail(follower, &err);
        }
        note_engine(follower, false);
    }
    return NULL;
}

/* ---- lifecycle ---- */

EngineFollower *engine_follower_create(const EngineOptions *options)
{
    EngineFollower *follower = mem_calloc(1, sizeof *follower);
    CHECK(options->tensor_comm != NULL && options->plan_comm != NULL);
    follower->options = *options;
    follower->options.on_token = NULL;
    follower->options.find_weights = find_weights;
    follower->options.context = follower;
    pthread_mutex_init(&follower->mutex, NULL);
    pthread_cond_init(&follower->changed, NULL);
    CHECK(pthread_create(&follower->thread, NULL, follower_main, follower) == 0);
    return follower;
}

void engine_follower_end(EngineFollower *follower)
{
    pthread_mutex_lock(&follower->mutex);
    follower->ended = true;
    pthread_cond_broadcast(&follower->changed);
    pthread_mutex_unlock(&follower->mutex);
    comm_abort(follower->options.tensor_comm);
    comm_abort(follower->options.plan_comm);
}

void engine_follower_destroy(EngineFollower *follower)
{
    if (follower == NULL) return;
    engine_follower_end(follower);
    pthread_join(follower->thread, NULL);
    pthread_cond_destroy(&follower->changed);
    pthread_mutex_destroy(&follower->mutex);
    free(follower);
}

void engine_follower_watch(EngineFollower *follower, EngineLost lost, void *context)
{
    pthread_mutex_lock(&follower->mutex);
    follower->lost = lost;
    follower->lost_context = context;
    pthread_mutex_unlock(&follower->mutex);
}

/* ---- weights ---- */

Status engine_follower_offer(EngineFollower *follower, const Weights *weights, int64_t version,
                             Error *err)
{
    pthread_mutex_lock(&follower->mutex);
    follower->offered = weights;
    follower->offered_version = version;
    pthread_cond_broadcast(&follower->changed);
    while (!follower->made && follower->failure.status == OK && !follower->ended)
        pthread_cond_wait(&follower->changed, &follower->mutex);
    Status status = follower->failure.status;
    if (status != OK && err != NULL) *err = follower->failure;
    if (status == OK && follower->ended)
        status = error_set(err, ERR_CANCELLED, "the engine has ended");
    pthread_mutex_unlock(&follower->mutex);
    return status;
}

const Weights *engine_follower_withdraw(EngineFollower *follower)
{
    pthread_mutex_lock(&follower->mutex);
    follower->offered = NULL;
    const Weights *in_use = follower->in_use;
    pthread_mutex_unlock(&follower->mutex);
    return in_use;
}

/* ---- looking ---- */

uint64_t engine_follower_progress(const EngineFollower *follower)
{
    return follower->progress;
}

bool engine_follower_working(const EngineFollower *follower)
{
    return atomic_load(&follower->working);
}
