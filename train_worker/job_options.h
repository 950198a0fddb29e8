/* From a job's configuration to a trainer's options: the same for a rank of a run and for whoever
 * only wants to know what one would need. */
#ifndef TROUPE_TRAIN_WORKER_JOB_OPTIONS_H
#define TROUPE_TRAIN_WORKER_JOB_OPTIONS_H

#include "config/job.h"
#include "trainer.h"

DType job_dtype(const JobConfig *config);

/* `memory_bytes` is what the machine has free for all ranks of the job, which are all on it; what
 * is left over serves everything else there. Reads the model's config.json. Kernels, communicators
 * and callbacks are the caller's to add. */
Status job_trainer_options(const JobConfig *config, int64_t memory_bytes, TrainerOptions *ret,
                           Error *err);

#endif
