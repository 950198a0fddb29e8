/* RolloutService: the rollout worker's answers: rollout.run (lease.h), rollout.fetch,
 * rollout.release, and, where a policy generates, rollout.adopt. A tensor-parallel rank other than
 * 0 that is a process of its own answers the last and its like alone. The samples stay here until
 * they are released; a train rank fetches them straight from this process. Loop thread. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVICE_H
#define TROUPE_ROLLOUT_WORKER_SERVICE_H

#include "actor/actor.h"
#include "config/job.h"
#include "net/loop.h"
#include "rollout_worker/rollout.h"

typedef struct RolloutService RolloutService;

typedef struct RolloutServiceOptions {
    Loop *loop;
    const ActorIdentity *identity; /* of this process; borrowed for the service's life */
    const JobConfig *config;       /* the same */
    const RolloutTable *table;     /* the rollout function */
    int threads; /* that run the rollout function, at least 1; where it does not say itself */
    size_t store_bytes_max; /* of samples held */
    int index;              /* of this worker: "rollout-3" is 3 */
    int tp_rank;            /* above 0: a rank of it other than the first, "rollout-3.1" is 1 */
    /* What generates is lost for good: the process is to end. On the loop; may be NULL. */
    void (*lost)(void *context, const Error *why);
    void *context;
} RolloutServiceOptions;

/* Loads what the rollout function needs (a tokenizer of 150,000 entries takes a few tenths of a
 * second) and starts the threads. */
Status rollout_service_create(const RolloutServiceOptions *options, RolloutService **ret,
                              Error *err);
/* After the loop has stopped. */
void rollout_service_destroy(RolloutService *service); /* accepts NULL */

extern const ActorMethod rollout_service_methods[]; /* their `self` is the RolloutService */
extern const int rollout_service_num_methods;

/* What the rollout function will take of memory, for people; NULL: nothing to speak of. Borrowed.
 */
const char *rollout_service_memory_plan(const RolloutService *service);

/* Where HTTP requests are answered (rollout.serve_port); NULL: nowhere. Borrowed. */
const char *rollout_service_url(const RolloutService *service);

uint64_t rollout_service_progress(RolloutService *service); /* what was done; any thread */
/* Work in hand that waits for nobody: records (in generation samples that are generated): while
 * there are some, the progress must change. Loop thread. */
int rollout_service_working(const RolloutService *service);
/* What it does, and what it waits for (""): for heartbeats. */
void rollout_service_describe(const RolloutService *service, char *ret_doing, size_t doing_bytes,
                              char *ret_waiting, size_t waiting_bytes);
/* What rewards, tools or the rollout function fail at now, or "": the same. */
void rollout_service_trouble(const RolloutService *service, char *ret, size_t bytes);

#endif
