/* Looking at a job before it runs: what makes samples and what trains is no part of the controller,
 * so programs of Troupe are asked that have it (data_inspect, train_inspect), with the job file and
 * the settings that this command was given. What they find wrong they say themselves. */
#ifndef TROUPE_CONTROLLER_LOOK_H
#define TROUPE_CONTROLLER_LOOK_H

#include "config/job.h"

typedef struct JobFile {
    const char *path;
    const char *const *set; /* [num_sets], at most 64 */
    int num_sets;
} JobFile;

/* What is said beside the MiB that were decided. */
#define KV_CACHE_DECIDED                                                                           \
    "less memory is free than all answers take at their longest: those that find no room wait"

/* The GPU that programs which look at a job for GPUs are shown, as none is reserved for them: the
 * one with the most free memory, by its id. "" for the CPU, and where nobody knows. */
#define LOOK_GPU_BYTES 96
void look_for_gpu(const JobConfig *config, char ret[LOOK_GPU_BYTES]);

/* Has a program look at a stage, with arguments of its own ([..., NULL]; NULL: none); its exit
 * code. */
int look_with(const JobFile *file, const JobConfig *config, const char *program,
              const char *const *arguments);

/* Whether this build and this machine have the device that the job asks for; the CPU is there. 0,
 * or the exit code. */
int look_at_device(const JobFile *file, const JobConfig *config);

/* Decides the tokens of a micro-batch where they are what a GPU has memory for (tokens_open). 0, or
 * the exit code. */
int look_at_tokens(const JobFile *file, JobConfig *config);

/* Whether what trains alone fits, where the controller can know that before it starts anything: not
 * of agents that serve other jobs too, whose processes may be gone when this one's turn comes, nor
 * of a run that goes on, which did fit and of which a process may be about to die. What generates
 * is for look_at_function. 0, or the exit code. */
int look_at_room(const JobFile *file, const JobConfig *config);

/* Prints the memory that train workers would take, of this machine or of a GPU. 0, or the exit
 * code: there is not enough. */
int look_at_memory(const JobFile *file, const JobConfig *config);

/* Whether the host's memory has room for what train workers on GPUs keep there: their state, when
 * generation takes the GPUs in its turn, and weights that a GPU cannot share. `tell`: prints it. 0,
 * or the exit code. */
int look_at_host(const JobFile *file, const JobConfig *config, bool tell);

/* Whether what makes the samples of a stage can be opened, and whether its rollout workers and
 * train workers fit this machine's memory, or its GPUs', together: all agents are of this machine,
 * others are refused in cluster.agents. Then rollout.kv_cache_mb is decided where there is less
 * than wanted. Not asked of memory when `live`: the run that the stage is for holds some of it. 0,
 * or the exit code. */
int look_at_function(const JobFile *file, JobConfig *config, bool live);

#endif
