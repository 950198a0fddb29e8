/* EngineThread: the thread that owns an Engine, and the way to it for everybody else: HTTP threads,
 * threads that run a rollout function, the thread that brings new weights. With tensor parallelism
 * all ranks of an engine live in this one process: one more thread per rank, each with its rank's
 * weights, joined by a shared-memory Comm. Or, once engine_thread_join has brought the Comms, each
 * other rank is a process of its own (engine_follower.h).
 *
 * It begins without weights: requests wait until engine_thread_adopt brings some. What is asked of
 * it is done between two steps, in the order in which it was asked. Callbacks run on its thread:
 * they must be short and must not call back.
 *
 * Any thread may call anything here at any time, but for create and destroy. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_THREAD_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_THREAD_H

#include <stdatomic.h>

#include "rollout_worker/engine/engine.h"

#define ENGINE_RANKS_MAX 64

typedef struct EngineThread EngineThread;

typedef struct EngineThreadOptions {
    /* Of every rank. weights, weight_version, both Comms and all callbacks are ignored; end_token
     * is copied, tokenizer borrowed. */
    EngineOptions engine;
    int tp_size;        /* 1 to ENGINE_RANKS_MAX */
    KvPolicy kv_policy; /* when weights take the place of others */
} EngineThreadOptions;

Status engine_thread_create(const EngineThreadOptions *options, EngineThread **ret, Error *err);

/* Everything in work, and what is asked from now on, ends: requests as aborted, calls with
 * ERR_CANCELLED. Returns before that is done; calls that block return soon. */
void engine_thread_end(EngineThread *thread);

/* Ends it and waits for its threads. Nobody may be in a call by then. Accepts NULL. */
void engine_thread_destroy(EngineThread *thread);

/* A tensor-parallel rank was lost, and with it the engine; `why` says what happened. It can be made
 * anew only by new weights, which may never come: a process that has nothing else to do ends. On
 * the engine's thread, before what is in work ends (with ERR_UNAVAILABLE). */
typedef void (*EngineLost)(void *context, const Error *why);
void engine_thread_watch(EngineThread *thread, EngineLost lost, void *context);

/* The other ranks are processes of their own, with which this one has these two Comms, as rank 0 of
 * them (EngineOptions); borrowed. Before there are any weights. */
Status engine_thread_join(EngineThread *thread, Comm *tensor_comm, Comm *plan_comm, Error *err);

/* ---- requests ---- */

/* Where the results of a request go; called on the engine's thread. */
typedef struct GenerateSink {
    void (*on_token)(void *context, const TokenEvent *event); /* may be NULL */
    /* Once for each sample; takes the generation's arrays. `why` is NULL, or says what went wrong
     * with the engine where the sample was aborted for that. */
    void (*on_done)(void *context, Generation *generation, const Error *why);
    void *context;
} GenerateSink;

/* Hands a request in. Blocks until a step is over, and never for weights: without them it fails
 * with ERR_UNAVAILABLE, as nobody could tell it that they are not waited for any more. *ret_id is
 * the id that names it from now on (request->id is ignored). Fails as engine_submit does, or with
 * ERR_CANCELLED; then the sink is never called. on_token can come before this returns. */
Status engine_thread_submit(EngineThread *thread, const GenerateRequest *request,
                            const GenerateSink *sink, uint64_t *ret_id, Error *err);

/* Its samples end as aborted, with what they have. Unknown ids are none in work any more. */
void engine_thread_abort(EngineThread *thread, uint64_t id);

/* Blocks until there are weights, and all samples of the request: ret[i] is that of index
 * first_index + i, to be cleared by the caller. *given_up (NULL: never) becomes true when nobody
 * wants them any more: then they end as aborted, and one that waits for weights is ERR_CANCELLED.
 * Fails as engine_thread_submit, or with what went wrong with the engine; then nothing is returned.
 */
Status engine_thread_generate(EngineThread *thread, const GenerateRequest *request,
                              const atomic_bool *given_up, Generation *ret, Error *err);

/* ---- weights ---- */

/* Generate with these from now on: weights[tp_size], prepared, of every rank in order (of ranks
 * that are processes only weights[0]: they have been offered theirs), over one plan each for the
 * life of the engine; borrowed until others have taken their place. When it returns nobody reads
 * the earlier ones any more. What is in work goes on; its keys and values are computed anew, or
 * kept, as the options say. The first ones make the engine, so that options and memory are judged
 * here. *ret_pause_s (may be NULL): while no rank could generate. ERR_EXISTS when this version is
 * in use, unless it rests: other weights under its name need engine_thread_reset. After a failure
 * there are none. */
Status engine_thread_adopt(EngineThread *thread, const Weights *const *weights, int64_t version,
                           double *ret_pause_s, Error *err);

/* Ends everything in work as aborted and lets go of engine and weights: it is as new. */
Status engine_thread_reset(EngineThread *thread, Error *err);

/* Stops between two steps until weights are adopted, also those that it has: what is in work waits
 * and computes its keys and values anew then. Of the weights nothing is read any more but plan and
 * type. The memory of options.engine.pools is the caller's to
 * give back when this returns, and must be there again before it adopts. Not with several ranks in
 * this process. */
Status engine_thread_rest(EngineThread *thread, Error *err);

/* ---- looking ---- */

/* Runs `work` between two steps, on the engine's thread, and returns what it returns. `engine` is
 * rank 0's, NULL while there are no weights. */
typedef Status (*EngineWork)(void *context, Engine *engine, Error *err);
Status engine_thread_run(EngineThread *thread, EngineWork work, void *context, Error *err);

#define NO_VERSION INT64_MIN
int64_t engine_thread_version(const EngineThread *thread);   /* of the weights; or NO_VERSION */
uint64_t engine_thread_progress(const EngineThread *thread); /* rises with every step in work */
bool engine_thread_rests(const EngineThread *thread);
int engine_thread_working(const EngineThread *thread); /* samples in the engine ... */
int engine_thread_running(const EngineThread *thread); /* ... of which so many are generated now */
int engine_thread_waiting(const EngineThread *thread); /* requests that wait for weights */

#endif
