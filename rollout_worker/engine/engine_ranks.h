/* EngineRanks: the engines of all tensor-parallel ranks: rank 0's belongs to the thread that makes
 * it and steps it. Each further rank has a thread of this process that follows, or, where the
 * options bring the Comms, a process of its own (engine_follower.h), to which weights come by
 * another way and before they do here. Private to engine_thread.c, used by that one thread. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_RANKS_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_RANKS_H

#include "rollout_worker/engine/engine.h"

typedef struct EngineRanks EngineRanks;

/* `options` as for rank 0; the others get the same with weights, Comm and no callback of their own.
 * weights[tp_size]; of ranks in processes of their own weights[0] alone is looked at, and this
 * returns when they are ready, too. Nothing is left behind on failure. */
Status engine_ranks_create(const EngineOptions *options, const Weights *const *weights, int tp_size,
                           EngineRanks **ret, Error *err);
void engine_ranks_destroy(EngineRanks *ranks); /* accepts NULL */

Engine *engine_ranks_first(const EngineRanks *ranks); /* rank 0's */

/* As engine_step. When a rank is lost the message says what the others failed at, too. */
Status engine_ranks_step(EngineRanks *ranks, bool *ret_busy, Error *err);

/* All ranks go over to weights[tp_size]; with threads of several it takes two steps, whose results
 * are to be taken. *ret_pause_ns: what of it is neither. */
Status engine_ranks_switch(EngineRanks *ranks, const Weights *const *weights, int64_t version,
                           KvPolicy policy, int64_t *ret_pause_ns, Error *err);

/* As engine_rest; when it returns no other rank computes either. */
Status engine_ranks_rest(EngineRanks *ranks, Error *err);

/* Whether a step must follow another within ENGINE_RANKS_STEP_MS, also with nothing to do: threads
 * look for news between steps. */
bool engine_ranks_must_step(const EngineRanks *ranks);
#define ENGINE_RANKS_STEP_MS 1000

#endif
