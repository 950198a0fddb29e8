/* What a train rank answers of a step or of a piece of an evaluation: its figures as a StepReply of
 * proto/train.proto. Pure; any thread. */
#ifndef TROUPE_TRAIN_WORKER_STEP_REPLY_H
#define TROUPE_TRAIN_WORKER_STEP_REPLY_H

#include "actor/typed.h"
#include "learner.h"

/* `rewarded`: it was learnt from rewards; else from given answers. `peak_flops`: the rank's matrix
 * rate as measured. The message is the caller's. */
PackedMessage step_reply_of_step(const LearnerResult *result, bool rewarded, double peak_flops);
PackedMessage step_reply_of_evaluation(const StepResult *result, double peak_flops);

#endif
