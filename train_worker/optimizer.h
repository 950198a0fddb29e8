/* Optimizer: AdamW with float32 masters and moments, in flat buffers of the plan's layout. Norm
 * weights are not decayed. Loshchilov & Hutter 2019, in torch.optim.AdamW's order of operations.
 * Used by the compute thread. */
#ifndef TROUPE_TRAIN_WORKER_OPTIMIZER_H
#define TROUPE_TRAIN_WORKER_OPTIMIZER_H

#include "model/weights.h"

typedef struct AdamWOptions {
    double beta1, beta2, eps, weight_decay;
} AdamWOptions;

typedef struct Optimizer {
    AdamWOptions options;
    Weights *weights;            /* borrowed */
    float *master;               /* [plan->size]; the weights themselves when they are f32 */
    float *exp_avg, *exp_avg_sq; /* [plan->size] */
    int64_t updates;             /* made so far: what the bias correction counts */
} Optimizer;

Optimizer *optimizer_create(Weights *weights, const AdamWOptions *options);
void optimizer_destroy(Optimizer *optimizer); /* accepts NULL */

/* Masters were set (drawn or loaded): rounds them into the weights and makes these ready to use. */
void optimizer_publish(Optimizer *optimizer);

/* One update with gradients `gradient` [plan->size] times grad_scale; then as optimizer_publish. */
void optimizer_update(Optimizer *optimizer, const float *gradient, double lr, double grad_scale);

#endif
