/* Worker: what a train_worker process does. The loop thread answers calls and pulls samples; one
 * compute thread owns the trainer, its communicators and the device, and works through tasks one at
 * a time in the order in which they came. */
#ifndef TROUPE_TRAIN_WORKER_WORKER_H
#define TROUPE_TRAIN_WORKER_WORKER_H

#include "config/job.h"
#include "plan_store.h"

typedef struct Worker Worker;

typedef struct WorkerOptions {
    const JobConfig *config;
    Loop *loop;
    const ActorIdentity *self;
    int tp_rank, tp_size, dp_rank, dp_size;
    void (*on_progress)(void *context);                /* from the compute thread */
    void (*on_doing)(void *context, const char *text); /* from the loop thread: "step 12", "idle" */
    void *context;
} WorkerOptions;

Worker *worker_create(const WorkerOptions *options);
void worker_destroy(Worker *worker); /* waits for the task in work; accepts NULL */

/* What the compute thread waits for in a collective, or "". Loop thread. */
void worker_describe_wait(const Worker *worker, char *text, size_t size);

/* Tasks that the compute thread has not done. Loop thread. */
int worker_working(const Worker *worker);
/* Progress besides the compute thread's own, for the beat that is sent now: while the compute
 * thread waits for the disk alone, the loop thread vouches for it. Loop thread. */
uint64_t worker_vouch(Worker *worker);

/* train.bootstrap, start, configure, fetch, step, evaluate, publish, save: `self` is the Worker. */
extern const ActorMethod worker_methods[];
extern const int worker_num_methods;

#endif
