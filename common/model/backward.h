/* The backward pass of model_forward: from the gradient of its output to the gradients of all
 * weights. Two sums over the tensor-parallel group per layer. */
#ifndef TROUPE_MODEL_BACKWARD_H
#define TROUPE_MODEL_BACKWARD_H

#include "model/forward.h"

/* activations: of the forward pass over this batch (any policy but KEEP_NOTHING), with
 * activations->dx holding the gradient of its output, [rows, H]; dx is used up. Gradients (f32,
 * views of a flat buffer of the plan's layout) are added to.
 *
 * Afterwards each rank's gradient of what it holds is whole, except: q_norm and k_norm (every rank
 * saw its own heads) and k and v where kv heads are copied; those are partial sums until
 * gradients_sum_replicated has run, once per step. */
Status model_backward(Model *model, const Batch *batch, Activations *activations,
                      ModelTensors *gradients, Error *err);

/* Adds up, over the tensor-parallel group, the gradients of weights that several ranks hold and
 * each saw a part of. `flat` is the gradients' flat buffer. */
Status gradients_sum_replicated(Model *model, float *flat, Error *err);

/* Scratch that gradients_sum_replicated allocates while it runs. */
int64_t gradients_sum_bytes(const WeightPlan *plan);

#endif
