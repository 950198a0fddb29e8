/* Weights out of nothing, for tests of what is computed from them. */
#ifndef TROUPE_TESTS_MODEL_DRAW_H
#define TROUPE_TESTS_MODEL_DRAW_H

#include "model/weights.h"
#include "model/weights_io.h"

/* This rank's part of spec `i`, in the weights' memory. */
static inline WeightPart part_of(const Weights *weights, int i)
{
    Tensor view = weight_view(weights->plan, i, weights->flat, weights->dtype);
    return (WeightPart){.kernels = weights->kernels, .data = view.data, .dtype = weights->dtype};
}

/* As trainer_init_random draws them; rounded where the weights are bf16. */
static inline void draw_weights(Weights *weights, int64_t seed)
{
    for (int i = 0; i < weights->plan->num_specs; i++) {
        WeightPart part = part_of(weights, i);
        weight_init_random(weights->plan, &weights->plan->spec[i], seed, &part);
    }
    weights_prepare(weights);
}

#endif
