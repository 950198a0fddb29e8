/* What a Trainer is made of: shared by trainer.c (the work) and trainer_files.c (load and save), by
 * nobody else. */
#ifndef TROUPE_TRAIN_WORKER_TRAINER_STATE_H
#define TROUPE_TRAIN_WORKER_TRAINER_STATE_H

#include "memory_plan.h"
#include "model/backward.h"
#include "model/head.h"
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
    float temperature;
    int64_t comm_ns; /* in collectives outside of the model's */
};

#endif
