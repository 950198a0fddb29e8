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
    Sample sample; /* the result: `done` takes it */
    void (*done)(struct RolloutTask *task);
    void *argument;
} RolloutTask;

#define ROLLOUT_TASKS_MAX (1 << 18) /* submitted and not done */

RolloutPool *rollout_pool_create(Loop *loop, const RolloutTable *table, const void *shared,
                                 int threads);
/* After the loop has stopped: tasks that are not done are not touched any more once this returns.
 */
void rollout_pool_destroy(RolloutPool *pool); /* accepts NULL */

/* At most ROLLOUT_TASKS_MAX tasks at a time. */
void rollout_pool_submit(RolloutPool *pool, RolloutTask *task);

uint64_t rollout_pool_progress(RolloutPool *pool); /* records finished by the threads; any thread */

#endif
