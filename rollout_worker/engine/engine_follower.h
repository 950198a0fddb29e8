/* EngineFollower: a tensor-parallel rank other than 0 whose rank 0 is in another process
 * (engine_thread.h), and the thread that follows it. Weights are offered here first and are used
 * from the step on in which rank 0 goes over to them; until then, and while those in use are read,
 * both are the caller's to keep.
 *
 * When rank 0 lets go of its engine this one's goes, too; another is made when weights are offered
 * again. Any thread may call anything here, but for create and destroy; offers and withdrawals are
 * one thread's. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_FOLLOWER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_FOLLOWER_H

#include "rollout_worker/engine/engine_thread.h"

typedef struct EngineFollower EngineFollower;

/* `options` as for rank 0's, with this rank's two Comms; weights, weight_version and what concerns
 * requests are ignored. It begins when weights are offered. */
EngineFollower *engine_follower_create(const EngineOptions *options);

/* Ends it, aborting its Comms; whoever waits for it returns soon. */
void engine_follower_end(EngineFollower *follower);

/* Ends it and waits for its thread; then the Comms are the caller's to destroy. Accepts NULL. */
void engine_follower_destroy(EngineFollower *follower);

/* As engine_thread_watch: the group is broken, and with it this rank, for good. */
void engine_follower_watch(EngineFollower *follower, EngineLost lost, void *context);

/* The weights that rank 0 will go over to: prepared, of this rank's plan. Returns when they can be:
 * the first ones make the engine. Whoever brought them has waited for the device. ERR_UNAVAILABLE
 * when the group is broken. */
Status engine_follower_offer(EngineFollower *follower, const Weights *weights, int64_t version,
                             Error *err);

/* Takes an offer back that rank 0 has not gone over to. Only while rank 0 cannot do so. Returns the
 * weights that are in use, or that give the engine its shape; NULL: none are. */
const Weights *engine_follower_withdraw(EngineFollower *follower);

uint64_t engine_follower_progress(const EngineFollower *follower); /* steps begun and done */
bool engine_follower_working(const EngineFollower *follower); /* in a step, not waiting for one */

#endif
