/* RolloutPool: the threads of a rollout worker that run its rollout function. Tasks go in from the
 * loop thread and come back to it, in any order. */
#ifndef TROUPE_ROLLOUT_WORKER_POOL_H
#define TROUPE_ROLLOUT_WORKER_POOL_H

#include "net/loop.h"
#include "rollout_worker/rollout.h"

typedef struct RolloutPool RolloutPool;

/* A record to be worked on; the caller's, untouched by it from submit until `done` is called on the
 * loop thread. */
typedef struct RolloutTask {
    RolloutRecord record;
    RolloutGroup group; /* the result: `done` takes it; empty where there is an error */
    Error *error;       /* why there is none; NULL, or owned by whom `done` leaves it to */
    void (*done)(struct RolloutTask *task);
    void *argument;
} RolloutTask;

#define ROLLOUT_TASKS_MAX (1 << 18) /* submitted and not done */

RolloutPool *rollout_pool_create(Loop *loop, const RolloutTable *table, void *shared, int threads);
/* After the loop has stopped: tasks that are not done are not touched any more once this returns.
 * Waits for those in work; the table's `end` makes that short. */
void rollout_pool_destroy(RolloutPool *pool); /* accepts NULL */

/* At most ROLLOUT_TASKS_MAX tasks at a time. */
void rollout_pool_submit(RolloutPool *pool, RolloutTask *task);

uint64_t rollout_pool_progress(RolloutPool *pool); /* records finished by the threads; any thread */

#endif
