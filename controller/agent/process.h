/* AgentProcess: one actor process of this node, from spawn to the last of its group. Its stdout and
 * stderr go through pipes into a log file that is rotated, the last bytes are kept for the death
 * notice. It runs in a session of its own, so that its whole group can be killed; its own children
 * that leave the group are adopted by the agent (a subreaper) and killed (agent/strays.h). Loop
 * thread: the main thread, because the parent-death signal follows the thread that forks. */
#ifndef TROUPE_CONTROLLER_AGENT_PROCESS_H
#define TROUPE_CONTROLLER_AGENT_PROCESS_H

#include <sched.h>

#include "net/loop.h"

typedef struct AgentProcess AgentProcess;

typedef struct ProcessDeath {
    int pid, exit_code; /* exit_code is -1 when a signal ended it */
    int signal;
    const char *reason;      /* "exited with code 3", "killed by signal 9 (SIGKILL)" */
    const char *output_tail; /* the last lines that it printed */
} ProcessDeath;

typedef struct ProcessOrder {
    Loop *loop;
    const char *program;         /* absolute path */
    const char *const *argument; /* without the program's own name */
    int num_arguments;
    const char *visible_gpus; /* CUDA_VISIBLE_DEVICES of it; NULL: as ours */
    const cpu_set_t *cpus;    /* on which it runs, as far as we may; NULL or none: on all of ours */
    const char *log_path;     /* created, appended to */
    /* Once, when the process is gone and its output is read to the end (or soon after); destroy it
     * then. */
    void (*on_death)(void *context, AgentProcess *process, const ProcessDeath *death);
    void *context;
} ProcessOrder;

Status agent_process_spawn(const ProcessOrder *order, AgentProcess **ret, Error *err);
int agent_process_pid(const AgentProcess *process);

void agent_process_kill(AgentProcess *process); /* SIGKILL to the whole group */

void agent_process_destroy(AgentProcess *process); /* only after on_death; accepts NULL */

#endif
