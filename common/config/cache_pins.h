/* memory.json in a run folder: what rollout workers have for keys and values where the job leaves
 * that to the machine and the machine has less than all answers take at their longest. It was
 * decided when the run began, from what was free then; all workers and later sessions keep to it,
 * as long as the job's sizes stay. No state; any thread. */
#ifndef TROUPE_CONFIG_CACHE_PINS_H
#define TROUPE_CONFIG_CACHE_PINS_H

#include "config/job.h"

/* MiB of a worker that were decided for a job of this name and these sizes; 0: nothing was. */
int64_t cache_pins_find(const JobConfig *config);

/* Writes down what was decided for the stages (kv_cache_decided), beside what stands there already.
 * `run_dir` exists. The file system's errors. */
Status cache_pins_keep(const JobStages *stages, const char *run_dir, Error *err);

#endif
