/* What the parts of the helper program `sandbox` share: sandbox_main.c reads what is to be run and
 * says what came of it; sandbox_watch.c starts it and watches from outside; sandbox_root.c is
 * process 1 of the new namespaces; sandbox_filter.c knows which system calls are allowed. One
 * thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_SANDBOX_HELPER_H
#define TROUPE_ROLLOUT_WORKER_REWARD_SANDBOX_HELPER_H

#include <linux/filter.h>
#include <sys/types.h>

#include "rollout_worker/reward/sandbox.h"

#define SANDBOX_USER 1000 /* the program's user and group inside */
#define SANDBOX_PID  2    /* its process: the first that process 1 makes */

/* Where process 1 and the program have their ends of pipes. */
typedef struct SandboxPipes {
    int input, output, errors; /* the program's standard ones */
    int trouble; /* a line about what could not be set up; closed when the program runs */
    int status;  /* the program's wait status, four bytes */
    int go;      /* a byte when the user mapping stands; end of file: give up */
    int disk;    /* a socket: a descriptor of the file system that the program may write to */
} SandboxPipes;

/* Process 1 of the new namespaces; never returns. */
_Noreturn void sandbox_root_run(const SandboxRun *run, const SandboxPipes *pipes,
                                const struct sock_fprog *filter);

/* The allow list as a program for the kernel; owned by the caller (free of ->filter). */
Status sandbox_filter_make(struct sock_fprog *ret, Error *err);

/* Starts the program in its namespaces, feeds it, collects, watches the limits, and ends it. */
Status sandbox_watch(const SandboxRun *run, SandboxResult *ret, Error *err);

#endif
