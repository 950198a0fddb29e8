/* What the tests of the sandbox and of the reward `code` share. */
#ifndef TROUPE_TESTS_ROLLOUT_WORKER_REWARD_SANDBOX_STAGE_H
#define TROUPE_TESTS_ROLLOUT_WORKER_REWARD_SANDBOX_STAGE_H

#include <sched.h>
#include <sys/types.h>

#include "base/error.h"

/* That a run was refused as it must be where the machine cannot isolate. */
void assert_refused(Status status, const Error *err);

/* A fork that does not outlive this process. */
pid_t fork_mortal(void);

/* A thread: kills the first process that has `word` (a text) among its arguments, as soon as there
 * is one. */
void *kill_when_seen(void *word);

/* Processes that leave little of one processor, this thread's, to it and to what it starts. */
typedef struct Crowd {
    pid_t pid[8];
    cpu_set_t before; /* where this thread might run */
} Crowd;

void crowd_start(Crowd *crowd);
void crowd_end(Crowd *crowd);

#endif
