/* Sandbox: runs a program that nobody vouches for (code that a model wrote) so that it can harm
 * nothing but its own result. The work is done by a helper program, `sandbox`, beside the
 * executable that calls: a process of its own, so that a worker with many threads and gigabytes of
 * memory is never forked.
 *
 * The program gets: user, process, mount, network, IPC, host name and cgroup namespaces of its own;
 * a read-only root with nothing in it but /usr, its libraries, a few devices and what `readable`
 * names; two private folders in memory, /box, where it starts, and /tmp, gone afterwards; no
 * /proc, no network, no capabilities, no way to new privileges; the system calls of an allow list;
 * limits on time, memory, processes, files and output. When the program ends, is stopped, or this
 * process dies, the kernel kills everything that it started.
 *
 * Where any of this cannot be had, nothing is run: sandbox_run fails with ERR_UNSUPPORTED and says
 * what was refused. There is no weaker mode. Any thread, concurrently; blocks until the end of the
 * run. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_SANDBOX_H
#define TROUPE_ROLLOUT_WORKER_REWARD_SANDBOX_H

#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "rollout_worker/process/wanted.h"
#include "rollout_worker/reward/slice.h"

#define SANDBOX_READABLE_MAX 64

typedef struct SandboxLimits {
    int64_t wall_ms;      /* from start to end */
    int64_t cpu_ms;       /* of all processes together, looked at every 10 ms */
    int64_t memory_bytes; /* of all processes and of what is in /box and /tmp, looked at every
                             10 ms; a process may reserve four times as much, which is the bound
                             between two looks */
    int64_t disk_bytes;   /* of /box and /tmp together, which are memory and count above too */
    int64_t output_bytes; /* of standard output and of standard error each */
    int64_t processes;    /* and threads, at a time */
    int64_t open_files;   /* of each process */
} SandboxLimits;

extern const SandboxLimits sandbox_limits_default; /* 30 s, 10 s, 512 MiB, 64 MiB, 64 KiB, 32, 64 */

typedef struct SandboxFile {
    const char *name; /* in /box; no '/' in it */
    Slice text;
} SandboxFile;

typedef struct SandboxRun { /* all borrowed */
    const char *const
        *command;             /* ends with NULL; [0] is a path, or a name looked for in /usr/bin */
    Slice input;              /* standard input */
    const SandboxFile *files; /* written to /box before the start */
    int num_files;
    const char *const *readable; /* more paths of this machine, read-only, at most
                                    SANDBOX_READABLE_MAX; ends with NULL, or NULL */
    SandboxLimits limits;
    const Wanted *wanted; /* NULL: for ever */
    const char *helper;   /* path of the helper; NULL: `sandbox` beside the running executable */
    const char *machine;  /* the helper's own (its --machine): in front of /proc and /sys where it
                             reads of kills for want of memory; NULL: nothing */
} SandboxRun;

/* How a run ended. All but the last two are the program's doing. */
typedef enum {
    SANDBOX_EXITED,
    SANDBOX_KILLED, /* by a signal, whoever sent it */
    SANDBOX_WALL_LIMIT,
    SANDBOX_CPU_LIMIT,
    SANDBOX_MEMORY_LIMIT,
    SANDBOX_OUTPUT_LIMIT,
    SANDBOX_STARVED,        /* the wall limit, after the machine had kept it waiting for a processor
                               or a disk for at least half of the time */
    SANDBOX_KILLED_OUTSIDE, /* SIGKILL, while the kernel killed for want of memory (oom_kills) */
    SANDBOX_END_COUNT,
} SandboxEnd;

const char *sandbox_end_name(SandboxEnd end); /* "exited", "wall_limit" ... */

typedef struct SandboxResult {
    SandboxEnd end;
    int code; /* exit status of SANDBOX_EXITED, signal of SANDBOX_KILLED */
    int64_t wall_ms, cpu_ms;
    int64_t starved_ms; /* of wall_ms, in which it wanted to go on and the machine did not let it */
    int64_t oom_kills;  /* processes that the kernel killed meanwhile for want of memory, in the
                           worker's control group where that tells, else anywhere on this machine:
                           what is wrong with the output may come from that */
    Str output;         /* owned; at most output_bytes, whatever the program wrote */
    Str errors;         /* owned; the same */
} SandboxResult;

void sandbox_result_clear(SandboxResult *result);

/* Runs to the end. ERR_UNSUPPORTED: this machine cannot isolate. ERR_NOT_FOUND: there is no such
 * program in the sandbox. ERR_INVALID: a file name or path that cannot be. ERR_TIMEOUT, ERR_IO,
 * ERR_RESOURCE: the helper itself failed. ERR_CANCELLED: nobody wants it any more. *ret is cleared
 * by the caller. */
Status sandbox_run(const SandboxRun *run, SandboxResult *ret, Error *err);

#endif
