/* memory.json in a run folder: what the job leaves to the machine. It was decided when the run
 * began, from what was free then; all workers and later sessions keep to it, as long as the job's
 * sizes stay. Of rollout workers: what they have for keys and values where the machine has less
 * than all answers take at their longest. Of train workers on GPUs: the tokens of a micro-batch, on
 * which the last bits of a gradient depend. No state; any thread. */
#ifndef TROUPE_CONFIG_CACHE_PINS_H
#define TROUPE_CONFIG_CACHE_PINS_H

#include "config/job.h"

/* MiB of a worker that were decided for a job of this name and these sizes; 0: nothing was. */
int64_t cache_pins_find(const JobConfig *config);

/* Tokens of a micro-batch; 0: not decided. */
int64_t cache_pins_tokens(const JobConfig *config);

/* Writes down what was decided for the stages (..._decided), beside what stands there already.
 * `run_dir` exists. The file system's errors; what a damaged file said of tokens is not decided
 * anew: ERR_DATA. */
Status cache_pins_keep(const JobStages *stages, const char *run_dir, Error *err);

#endif
