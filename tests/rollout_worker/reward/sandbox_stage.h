/* What the tests of the sandbox and of the reward `code` share. */
#ifndef TROUPE_TESTS_ROLLOUT_WORKER_REWARD_SANDBOX_STAGE_H
#define TROUPE_TESTS_ROLLOUT_WORKER_REWARD_SANDBOX_STAGE_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* That a run was refused as it must be where the machine cannot isolate. */
void assert_refused(Status status, const Error *err);

/* A fork that does not outlive this process. */
pid_t fork_mortal(void);

/* A machine whose kernel kills processes of the worker's control group for want of memory again and
 * again, as far as the sandbox of `helper` is told: of a folder `bin` below the current one, where
 * a program finds that helper that stands there too. */
typedef struct OutOfMemory {
    char folder[64];
    char *helper;
    pthread_t thread;
    bool over;
} OutOfMemory;

void out_of_memory_start(OutOfMemory *machine);
void out_of_memory_end(OutOfMemory *machine);

/* Processes that leave little of one processor, this thread's, to it and to what it starts. */
typedef struct Crowd {
    pid_t pid[8];
    cpu_set_t before; /* where this thread might run */
} Crowd;

void crowd_start(Crowd *crowd);
void crowd_end(Crowd *crowd);

#endif
