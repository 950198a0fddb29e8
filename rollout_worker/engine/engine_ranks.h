/* EngineRanks: the engines of all tensor-parallel ranks, in one process: rank 0's belongs to the
 * thread that makes it and steps it, each further rank has a thread that follows. Private to
 * engine_thread.c, used by that one thread. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_RANKS_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_RANKS_H

#include "rollout_worker/engine/engine.h"

typedef struct EngineRanks EngineRanks;

/* `options` as for rank 0; the others get the same with weights, Comm and no callback of their own.
 * weights[tp_size]. Nothing is left behind on failure. */
Status engine_ranks_create(const EngineOptions *options, const Weights *const *weights, int tp_size,
                           EngineRanks **ret, Error *err);
void engine_ranks_destroy(EngineRanks *ranks); /* accepts NULL */

Engine *engine_ranks_first(const EngineRanks *ranks); /* rank 0's */

/* As engine_step. When a rank is lost the message says what the others failed at, too. */
Status engine_ranks_step(EngineRanks *ranks, bool *ret_busy, Error *err);

/* All ranks go over to weights[tp_size]; with several it takes two steps, whose results are to be
 * taken. *ret_pause_ns: what of it is neither. */
Status engine_ranks_switch(EngineRanks *ranks, const Weights *const *weights, int64_t version,
                           KvPolicy policy, int64_t *ret_pause_ns, Error *err);

/* With several ranks: a step must follow another within this time, also with nothing to do. */
#define ENGINE_RANKS_STEP_MS 1000

#endif
