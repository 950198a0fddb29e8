#include "rollout_worker/engine/engine_ranks.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

/* A step with a long prompt of a large model takes seconds; a rank that is missing for so long is
 * lost. */
#define STEP_TIMEOUT_MS 300000
#define JOIN_TIMEOUT_MS 30000
#define STAGING_BYTES   (256u << 10)

/* A rank other than 0. Guarded by the mutex, but for what its own thread alone uses. */
typedef struct Follower {
    EngineRanks *ranks;
    EngineOptions options;
    int rank;
    pthread_t thread;
    bool ready, ended; /* its engine is made; its thread is over */
    int64_t steps;     /* finished */
    const Weights *next_weights;
    int64_t next_version;
    Status status; /* of what ended it */
    Error err;
} Follower;

struct EngineRanks {
    Engine *first;
    Comm *comm; /* rank 0's; NULL: alone */
    CommId comm_id;
    int tp_size;
    bool has_processes; /* of the ranks other than 0: there are no followers here */
    int64_t steps;      /* of rank 0 */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* of a follower */
    Follower *follower;     /* [tp_size - 1] */
    int num_followers;      /* whose threads were started */
};

/* ---- a follower's thread ---- */

static Status follower_open(Follower *follower, Comm **ret_comm, Engine **ret, Error *err)
{
    const EngineRanks *ranks = follower->ranks;
    TRY(comm_create(COMM_SHM, &ranks->comm_id, follower->rank, ranks->tp_size, JOIN_TIMEOUT_MS,
                    ret_comm, err));
    comm_set_timeout(*ret_comm, STEP_TIMEOUT_MS);
    follower->options.tensor_comm = *ret_comm;
    Status status = engine_create(&follower->options, ret, err);
    if (status != OK) comm_abort(*ret_comm); /* rank 0 must not wait for a step of this one */
    return status;
}

/* After a step, and before the first. Weights that are to be the next ones are staged here, between
 * two steps, as rank 0 does it. */
static void follower_note(Follower *follower, Engine *engine, int64_t steps)
{
    pthread_mutex_lock(&follower->ranks->mutex);
    follower->ready = true;
    follower->steps = steps;
    if (follower->next_weights != NULL)
        engine_stage_weights(engine, follower->next_weights, follower->next_version);
    follower->next_weights = NULL;
    pthread_cond_broadcast(&follower->ranks->changed);
    pthread_mutex_unlock(&follower->ranks->mutex);
}

static void *follower_main(void *argument)
{
    Follower *follower = argument;
    Comm *comm = NULL;
    Engine *engine = NULL;
    Error err = {0};
    bool done = false;
    Status status = follower_open(follower, &comm, &engine, &err);
    for (int64_t steps = 0; status == OK && !done; steps++) {
        follower_note(follower, engine, steps);
        status = engine_follow(engine, &done, &err);
        if (status == ERR_DATA) status = OK; /* rank 0 sees the same, and says it */
    }
    engine_destroy(engine);
    comm_destroy(comm);
    pthread_mutex_lock(&follower->ranks->mutex);
    follower->ended = true;
    follower->status = status;
    follower->err = err;
    pthread_cond_broadcast(&follower->ranks->changed);
    pthread_mutex_unlock(&follower->ranks->mutex);
    return NULL;
}

/* ---- rank 0 ---- */

/* Until all followers have finished as many steps as rank 0, or one of them has ended. Bounded by
 * the Comm's deadline: whoever loses a rank ends. */
static Status wait_for_followers(EngineRanks *ranks, Error *err)
{
    Status status = OK;
    pthread_mutex_lock(&ranks->mutex);
    for (int i = 0; i < ranks->num_followers && status == OK; i++) {
        Follower *follower = &ranks->follower[i];
        while (!follower->ended && !(follower->ready && follower->steps == ranks->steps))
            pthread_cond_wait(&ranks->changed, &ranks->mutex);
        if (!follower->ended) continue;
        status = follower->status != OK ? follower->status : ERR_INTERNAL;
        if (err != NULL) *err = follower->err;
        error_prefix(err, "tensor-parallel rank %d", follower->rank);
    }
    pthread_mutex_unlock(&ranks->mutex);
    return status;
}

static void start_followers(EngineRanks *ranks, const EngineOptions *options,
                            const Weights *const *weights)
{
    ranks->follower = mem_calloc((size_t)ranks->tp_size, sizeof *ranks->follower);
    for (int rank = 1; rank < ranks->tp_size; rank++) {
        Follower *follower = &ranks->follower[ranks->num_followers++];
        follower->ranks = ranks;
        follower->rank = rank;
        follower->options = *options;
        follower->options.weights = weights[rank];
        follower->options.on_token = NULL;
        CHECK(pthread_create(&follower->thread, NULL, follower_main, follower) == 0);
    }
}

static bool has_processes(const EngineOptions *options)
{
    return options->plan_comm != NULL;
}

static Status open_ranks(EngineRanks *ranks, const EngineOptions *options,
                         const Weights *const *weights, Error *err)
{
    EngineOptions first = *options;
    first.weights = weights[0];
    if (ranks->tp_size > 1 && !has_processes(options)) {
        TRY(comm_id_create(COMM_SHM, ranks->tp_size, STAGING_BYTES, &ranks->comm_id, err));
        start_followers(ranks, &first, weights);
        TRY(comm_create(COMM_SHM, &ranks->comm_id, 0, ranks->tp_size, JOIN_TIMEOUT_MS, &ranks->comm,
                        err));
        comm_set_timeout(ranks->comm, STEP_TIMEOUT_MS);
        first.tensor_comm = ranks->comm;
    }
    TRY(engine_create(&first, &ranks->first, err));
    return has_processes(options) ? engine_meet(ranks->first, err) : wait_for_followers(ranks, err);
}

Status engine_ranks_create(const EngineOptions *options, const Weights *const *weights, int tp_size,
                           EngineRanks **ret, Error *err)
{
    EngineRanks *ranks = mem_calloc(1, sizeof *ranks);
    ranks->tp_size = tp_size;
    ranks->has_processes = has_processes(options);
    pthread_mutex_init(&ranks->mutex, NULL);
    pthread_cond_init(&ranks->changed, NULL);
    Status status = open_ranks(ranks, options, weights, err);
    if (status == OK) {
        *ret = ranks;
        return OK;
    }
    if (ranks->comm != NULL) comm_abort(ranks->comm);
    engine_ranks_destroy(ranks);
    return status;
}

void engine_ranks_destroy(EngineRanks *ranks)
{
    if (ranks == NULL) return;
    engine_destroy(ranks->first); /* tells the followers */
    for (int i = 0; i < ranks->num_followers; i++)
        pthread_join(ranks->follower[i].thread, NULL);
    comm_destroy(ranks->comm);
    pthread_cond_destroy(&ranks->changed);
    pthread_mutex_destroy(&ranks->mutex);
    free(ranks->follower);
    free(ranks);
}

Engine *engine_ranks_first(const EngineRanks *ranks)
{
    return ranks->first;
}

/* After a step that left the engine unusable. Rank 0 often knows no more than that another has
 * left; why is what that one says, which ends soon, as rank 0 has aborted their Comm. */
static void add_why_of_followers(EngineRanks *ranks, Error *err)
{
    pthread_mutex_lock(&ranks->mutex);
    for (int i = 0; i < ranks->num_followers; i++) {
        Follower *follower = &ranks->follower[i];
        while (!follower->ended)
            pthread_cond_wait(&ranks->changed, &ranks->mutex);
        if (follower->status != OK && err != NULL)
            error_append(err, "tensor-parallel rank %d: %s", follower->rank, follower->err.message);
    }
    pthread_mutex_unlock(&ranks->mutex);
}

Status engine_ranks_step(EngineRanks *ranks, bool *ret_busy, Error *err)
{
    Status status = engine_step(ranks->first, ret_busy, err);
    ranks->steps++;
    if (engine_is_broken(ranks->first)) add_why_of_followers(ranks, err);
    return status;
}

/* Weights that give no finite logits fail the step, on all ranks alike, and may be just those that
 * are to be replaced. */
static Status step_over_bad_weights(EngineRanks *ranks, Error *err)
{
    bool busy;
    Status status = engine_ranks_step(ranks, &busy, err);
    return status == ERR_DATA ? OK : status;
}

Status engine_ranks_switch(EngineRanks *ranks, const Weights *const *weights, int64_t version,
                           KvPolicy policy, int64_t *ret_pause_ns, Error *err)
{
    int64_t began = clock_ns(), stepping = 0;
    engine_stage_weights(ranks->first, weights[0], version);
    if (ranks->num_followers > 0) {
        pthread_mutex_lock(&ranks->mutex);
        for (int i = 0; i < ranks->num_followers; i++) {
            ranks->follower[i].next_weights = weights[i + 1];
            ranks->follower[i].next_version = version;
        }
        pthread_mutex_unlock(&ranks->mutex);
        stepping -= clock_ns();
        TRY(step_over_bad_weights(ranks, err)); /* after it they have staged them */
        stepping += clock_ns();
        TRY(wait_for_followers(ranks, err));
    }
    TRY(engine_switch_weights(ranks->first, version, policy, err));
    if (ranks->num_followers > 0) {
        stepping -= clock_ns();
        TRY(step_over_bad_weights(ranks, err)); /* in it they switch */
        stepping += clock_ns();
        TRY(wait_for_followers(ranks, err));
    }
    if (ranks->has_processes) TRY(engine_meet(ranks->first, err)); /* in it they switch */
    *ret_pause_ns = clock_ns() - began - stepping;
    return OK;
}

Status engine_ranks_rest(EngineRanks *ranks, Error *err)
{
    CHECKF(ranks->num_followers == 0, "threads of several ranks do not rest");
    if (ranks->has_processes) TRY(engine_meet(ranks->first, err));
    engine_rest(ranks->first);
    return OK;
}

bool engine_ranks_must_step(const EngineRanks *ranks)
{
    return ranks->num_followers > 0;
}
