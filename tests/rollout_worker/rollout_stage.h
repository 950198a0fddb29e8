/* A data source, a rollout worker with any rollout function, and their caller, on one loop over
 * real sockets. */
#ifndef TROUPE_TESTS_ROLLOUT_STAGE_H
#define TROUPE_TESTS_ROLLOUT_STAGE_H

#include "actor/actor.h"
#include "base/limits.h"
#include "data_source/service.h"
#include "rollout_worker/service.h"
#include "tests/data_source/ask.h"

/* Zero-initialise, set config and table, then stage_begin. */
typedef struct Stage {
    JobConfig config;
    const RolloutTable *table;
    void (*lost)(void *context, const Error *why); /* of the service, with the stage */
    char *train_path, *run_dir;                    /* whoever sets them frees them */
    char source_endpoint[ENDPOINT_MAX], worker_endpoint[ENDPOINT_MAX];
    Loop *loop;
    DataService *source;
    Actor *source_actor;
    ActorIdentity worker;
    RolloutService *service;
    Actor *worker_actor;
    Handle *handle; /* to the worker */
} Stage;

void stage_begin(Stage *stage); /* the loop and the data source */
void stage_end(Stage *stage);   /* after worker_stop */

Actor *make_actor(Stage *stage, const char *name, const char *endpoint, const ActorMethod *methods,
                  int num_methods, void *self);
void source_start(Stage *stage);
void source_stop(Stage *stage);
void worker_start(Stage *stage, size_t store_bytes_max);
void worker_stop(Stage *stage);

Troupe__LeaseRequest lease_of(const Stage *stage, uint64_t first, uint32_t count);

/* Runs a lease as the controller does: again when the data source was not there, as its caller may
 * still have to notice that an earlier one at this place is gone. */
void run_lease(Stage *stage, uint64_t first, uint32_t count, Troupe__LeaseReply **ret);

void release(Stage *stage, uint64_t below);

/* The packed sample of a position, index 0, or NULL with the answer's error. */
char *fetch_one(Stage *stage, uint64_t position, size_t *ret_length, Answer *answer);

#endif
