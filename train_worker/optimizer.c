#include "optimizer.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

Optimizer *optimizer_create(Weights *weights, const AdamWOptions *options)
{
    const KernelTable *kernels = weights->kernels;
    size_t bytes = (size_t)weights->plan->size * sizeof(float);
    Optimizer *optimizer = mem_calloc(1, sizeof *optimizer);
    optimizer->options = *options;
    optimizer->weights = weights;
    optimizer->master = weights->dtype == DTYPE_F32 ? weights->flat : kernels->alloc(bytes);
    optimizer->exp_avg = kernels->alloc(bytes);
    optimizer->exp_avg_sq = kernels->alloc(bytes);
    return optimizer;
}

void optimizer_destroy(Optimizer *optimizer)
{
    if (optimizer == NULL) return;
    const KernelTable *kernels = optimizer->weights->kernels;
    if (optimizer->master != optimizer->weights->flat) kernels->free(optimizer->master);
    kernels->free(optimizer->exp_avg);
    kernels->free(optimizer->exp_avg_sq);
    free(optimizer);
}

void optimizer_publish(Optimizer *optimizer)
{
    Weights *weights = optimizer->weights;
    if (optimizer->master != weights->flat)
        weights->kernels->cast(tensor_1d(weights->flat, weights->dtype, weights->plan->size),
                               tensor_1d(optimizer->master, DTYPE_F32, weights->plan->size));
    weights_prepare(weights);
}

static void update_range(Optimizer *optimizer, const float *gradient, WeightRange range,
                         const AdamWParams *params)
{
    Weights *weights = optimizer->weights;
    int64_t at = range.first;
    char *weight = (char *)weights->flat + (size_t)at * dtype_size(weights->dtype);
    weights->kernels->adamw(optimizer->master + at, optimizer->exp_avg + at,
                            optimizer->exp_avg_sq + at, gradient + at, weight, weights->dtype,
                            range.count, params);
}

void optimizer_update(Optimizer *optimizer, const float *gradient, double lr, double grad_scale)
{
    const AdamWOptions *options = &optimizer->options;
    double step = (double)++optimizer->updates;
    AdamWParams params = {
        .lr = lr,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .eps = options->eps,
        .weight_decay = options->weight_decay,
        .bias_correction1 = 1.0 - pow(options->beta1, step),
        .bias_correction2 = 1.0 - pow(options->beta2, step),
        .grad_scale = grad_scale,
    };
    update_range(optimizer, gradient, optimizer->weights->plan->matrices, &params);
    params.weight_decay = 0.0;
    update_range(optimizer, gradient, optimizer->weights->plan->vectors, &params);
    weights_prepare(optimizer->weights);
}
