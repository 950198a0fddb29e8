/* PolicyStep: one step of reinforcement learning on one rank. From the samples of its micro-batches
 * and the rewards of the whole batch to advantages, then an update of the critic, where there is
 * one, and of the policy. Passes over the model, of which a step makes as few as it can:
 *
 *   values            with a critic: forward
 *   reference         with kl_coef or kl_loss_coef: forward through the second set of weights
 *   old log-probs     only with old_log_probs: current and kl_coef: forward. Otherwise they are
 * what generation reported, or what the update's own forward pass gives: the same bits, since a
 * log-prob does not depend on the batch it is in critic, policy    forward and backward
 *
 * With groups_of_update a step trains its batch in several optimizer steps, one after the other:
 * whole groups by position (update_of_group), in the last those that are left, with advantages of
 * the whole batch and old log-probs of before the first. So the later ones learn from answers of
 * other weights, and ratios move.
 *
 * Used by the compute thread. */
#ifndef TROUPE_TRAIN_WORKER_POLICY_STEP_H
#define TROUPE_TRAIN_WORKER_POLICY_STEP_H

#include "advantage.h"
#include "trainer.h"

typedef struct PolicyStep {
    const MicroBatch *micro_batch; /* of this rank's data-parallel index, update after update */
    int num_micro_batches;
    int groups_of_update;   /* groups of an optimizer step of the policy; 0: the whole batch */
    int64_t step;           /* the one this makes */
    int64_t trained_tokens; /* of the global batch */
    double lr;
    int64_t weight_version; /* by which generation knows the policy's weights; 0: by none */
    bool keys_are_kept;     /* as of TrainStep */
    /* The global batch, by position and index: which samples it has, their rewards. Equal on all
     * ranks. A group is what it holds of one position. */
    const SampleMeta *batch;
    int batch_size;
    /* with a critic */
    double critic_lr;
    int critic_updates; /* passes of the critic over the batch, each in the same optimizer steps */
    bool critic_only;   /* the policy stays as it is: the critic warms up */
} PolicyStep;

/* As StepResult: over this rank's data-parallel share, except groups. Norms of gradients are means
 * over updates; one that was skipped makes the step one. */
typedef struct PolicyStepResult {
    StepResult policy;  /* where it stays as it was, 0 but for `tokens`: the critic's */
    StepResult critic;  /* times and FLOPs of all its passes; the rest of the last */
    StepResult passes;  /* times and FLOPs of what came before the updates */
    GroupCounts groups; /* of the global batch */
    double reward_kl;   /* sum of the estimates that the rewards were charged for */
} PolicyStepResult;

/* What the sum of weighted losses is divided by. */
double policy_normaliser(const AlgorithmConfig *algorithm, const PolicyStep *step);

/* `critic` is NULL but for ADVANTAGE_PPO. ERR_DATA when a sample cannot be trained as a policy's,
 * ERR_INVALID when groups cannot be compared, ERR_INTERNAL when the micro-batches of all ranks are
 * not the batch; nothing was changed then. Else as trainer_train_step. */
Status policy_step(Trainer *policy, Trainer *critic, const AlgorithmConfig *algorithm,
                   const PolicyStep *step, PolicyStepResult *ret, Error *err);

#endif
