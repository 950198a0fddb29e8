/* Child: a program that this process talks to through its standard input and output, in a process
 * group of its own, killed with all of it. It dies with the thread that started it (the kernel
 * sends SIGKILL when that thread ends), so it is started from a thread that lives as long as it is
 * needed. Not shared between threads. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_CHILD_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_CHILD_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

typedef struct Child {
    pid_t pid;  /* 0: none */
    int input;  /* what it reads; all three non-blocking and closed on exec */
    int output; /* what it writes */
    int errors; /* what it writes to standard error */
} Child;

#define CHILD_NONE ((Child){.input = -1, .output = -1, .errors = -1})

/* argv[0] is a path, or a name that is looked for in PATH; argv ends with NULL. Fails when the
 * program cannot be started, with what the system said. */
Status child_start(char *const *argv, Child *ret, Error *err);

/* Closes the pipes, which tells a well-behaved child to end, gives it `grace_ms` for that, kills
 * the group and waits; *ret_status, which may be NULL, gets its wait status. Leaves CHILD_NONE. */
void child_stop(Child *child, int64_t grace_ms, int *ret_status);

/* "exited with status 1", "was killed by signal 9 (Killed)". Returns `buffer`. */
#define CHILD_END_BYTES 64
char *child_end(int status, char buffer[CHILD_END_BYTES]);

#define CHILD_NAME_BYTES 80

/* A command as messages name it: its words, and of a long one the end. */
const char *child_name(char *const *argv, char ret[CHILD_NAME_BYTES]);

#endif
