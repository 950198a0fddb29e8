/* What a Trainer is made of: shared by trainer.c (the work), trainer_pass.c (micro-batches through
 * the network) and trainer_files.c (load and save), by nobody else. */
#ifndef TROUPE_TRAIN_WORKER_TRAINER_STATE_H
#define TROUPE_TRAIN_WORKER_TRAINER_STATE_H

#include "base/memory.h"
#include "memory_plan.h"
#include "model/backward.h"
#include "model/head.h"
#include "model/weights_io.h"
#include "optimizer.h"
#include "trainer.h"

struct Trainer {
    TrainerOptions options;
    int tp_rank, tp_size, dp_rank, dp_size;
    WeightPlan *plan;
    Weights *weights;
    Model *model;
    Optimizer *optimizer;
    float *gradient;        /* [plan->size] */
    ModelTensors gradients; /* views of it */
    Activations *activations;
    Head *head;
    Batch *batch;
    MemoryPlan memory;
    char *memory_text;
    bool ready;  /* the weights are set */
    bool broken; /* a collective failed half-way: ranks no longer agree */
    int64_t step;
    Weights *reference;     /* the reference model's; NULL without one */
    Model *reference_model; /* over them */
    bool reference_ready;
    Arena *arena;    /* of the micro-batch under way */
    int64_t comm_ns; /* in collectives outside of the model's */
    LoadTimes load_times;
};

/* Takes memory for a reference model, unless there is one. */
Status trainer_add_reference(Trainer *trainer, Error *err);

/* Packs the micro-batch into trainer->batch. */
void trainer_fill_batch(Trainer *trainer, const MicroBatch *micro_batch);

/* Forward through model and head, and backward when the pass has gradients, over trainer->batch;
 * adds to *result. */
Status trainer_run(Trainer *trainer, const HeadPass *pass, StepResult *result, Error *err);
Status trainer_run_values(Trainer *trainer, const ValuePass *pass, StepResult *result, Error *err);

/* Micro-batch m of a step with an algorithm: forward, loss, backward. */
Status trainer_run_loss(Trainer *trainer, const TrainStep *step, int m, StepResult *result,
                        Error *err);

static inline double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

#endif
