/* From a job's configuration to a trainer's options: the same for a rank of a run and for whoever
 * only wants to know what one would need. */
#ifndef TROUPE_TRAIN_WORKER_JOB_OPTIONS_H
#define TROUPE_TRAIN_WORKER_JOB_OPTIONS_H

#include "config/job.h"
#include "tensor/device.h"
#include "trainer.h"

DType job_dtype(const JobConfig *config);
DeviceKind job_device(const JobConfig *config);

/* Compute threads of a train worker, where they are the CPU's. */
int job_threads(const JobConfig *config);

/* Opens the job's device. The message begins with the key `device`. */
Status job_open_device(const JobConfig *config, const KernelTable **ret, DeviceInfo *ret_info,
                       Error *err);

bool job_learns_by_rewards(const JobConfig *config);

/* What a rank may take of the `memory_bytes` that its device has free: on a CPU for all ranks of
 * the job, which are all on this machine; a GPU has but one, and train.memory_gb does not count
 * where it has less. What is left over serves everything else there. 0: no limit. */
int64_t job_memory_share(const JobConfig *config, int64_t memory_bytes);

/* ERR_RESOURCE when train.memory_gb asks more of each GPU than the `memory_bytes` that are free on
 * one. For whoever looks before anything starts: a rank that starts again beside others plans with
 * what is left, as long as that does. */
Status job_check_memory(const JobConfig *config, int64_t memory_bytes, Error *err);

/* Sets of weights that lie on a train worker's GPU for rollout workers to read. */
int job_shown_weights(const JobConfig *config);

/* Whether a critic is there, or may come with a later stage. */
bool job_has_room_for_critic(const JobConfig *config);

/* Of the policy, with half of the share where there is to be a critic. Reads the model's
 * config.json. Kernels, communicators and callbacks are the caller's to add. */
Status job_trainer_options(const JobConfig *config, int64_t memory_bytes, TrainerOptions *ret,
                           Error *err);

/* The same of the critic, which gets what `taken` bytes of the rank's share leave. */
Status job_critic_options(const JobConfig *config, int64_t memory_bytes, int64_t taken,
                          TrainerOptions *ret, Error *err);

#endif
