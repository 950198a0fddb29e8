/* Learner: what a train rank trains, as a job's configuration says: the policy, and for PPO its
 * critic; supervised or by rewards. It turns the configuration into Trainers and each step into one
 * call of them, and knows nothing of sockets or protobuf. Used by the compute thread. */
#ifndef TROUPE_TRAIN_WORKER_LEARNER_H
#define TROUPE_TRAIN_WORKER_LEARNER_H

#include "config/job.h"
#include "dataset/interleave.h"
#include "policy_step.h"

typedef struct LearnerOptions {
    const JobConfig *config; /* borrowed, until learner_configure gives another */
    const KernelTable *kernels;
    const DeviceMemory *memory;    /* of the device; NULL: the host's */
    Comm *tensor_comm, *data_comm; /* as of TrainerOptions */
    int64_t memory_bytes;          /* as of job_options.h; 0: no limit */
    const char *stage_start; /* checkpoint with which the stage began, for the creation; NULL: with
                                what the run began with */
    int64_t first_seed;      /* of the run's first stage: random weights are drawn from it */
    void (*on_progress)(void *context);
    void (*on_disk_wait)(void *context, bool waits);
    void *context;
} LearnerOptions;

typedef struct Learner Learner;

/* Makes the Trainers and sets their weights: from the checkpoint, or, when it is NULL, as the
 * run began (model.init, options->first_seed). Where the reference model is what the stage began
 * with, that is options->stage_start. */
Status learner_create(const LearnerOptions *options, const char *checkpoint, Learner **ret,
                      Error *err);
void learner_destroy(Learner *learner); /* accepts NULL */

Trainer *learner_policy(const Learner *learner);
const char *learner_memory_plan(const Learner *learner); /* for people; borrowed */
int64_t learner_memory_bytes(const Learner *learner);
LoadTimes learner_load_times(const Learner *learner); /* of all that it has read so far */

/* With rollout.offload: where all that the Trainers have on the device can be given back between
 * their calls, POOL_STATE with what is in it and POOL_SCRATCH without. NULL: it stays. */
const DeviceMemory *learner_pools(const Learner *learner);

/* From the next step on the job is another, and a stage begins: supervised training becomes
 * reinforcement learning, or the other way round, with other rates and coefficients. Weights,
 * optimizer state and steps stay; a reference model and a critic are made when they are wanted and
 * were not there, and a critic that is not wanted goes. The model, its split and the sizes that
 * memory was planned for must be the same. All ranks call it together. */
Status learner_configure(Learner *learner, const JobConfig *config, Error *err);

typedef struct LearnerStep {
    const MicroBatch *micro_batch; /* of this rank's data-parallel index */
    int num_micro_batches;
    int64_t step, trained_tokens;
    int64_t first_step, total_steps; /* the schedules begin behind it, and are so long */
    /* Of a mixture: which source each sample is of, micro-batch after micro-batch. NULL: there is
     * none. Supervised training alone looks at it. */
    const int *source;
    /* Reinforcement learning: as of PolicyStep. NULL and 0 in supervised training. */
    const SampleMeta *batch;
    int batch_size;
    int64_t weight_version;
} LearnerStep;

/* Of this rank's samples of one source. */
typedef struct SourceLoss {
    double loss_sum;
    int64_t trained_tokens;
} SourceLoss;

typedef struct LearnerResult {
    PolicyStepResult result; /* supervised: only `policy` */
    double lr, normaliser;   /* the policy's loss is its sum over the normaliser */
    SourceLoss source[INTERLEAVE_SOURCES_MAX];
} LearnerResult;

/* ERR_INVALID when rewards come to a supervised job, or none to the other kind. */
Status learner_step(Learner *learner, const LearnerStep *step, LearnerResult *ret, Error *err);

/* The checkpoint files of policy and critic; as trainer_save. */
Status learner_save(Learner *learner, const char *folder, SavedFiles *ret, Error *err);

#endif
