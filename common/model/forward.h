/* The one forward pass: from token ids to the residual stream after the last layer. Training,
 * evaluation, prefill, chunked prefill and decode all call it; nothing in it knows which. Output
 * rows are row-invariant (tensor/kernels.h). Two sums over the tensor-parallel group per layer, and
 * one after the embedding. */
#ifndef TROUPE_MODEL_FORWARD_H
#define TROUPE_MODEL_FORWARD_H

#include "model/activations.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"

/* Places the batch and computes activations->output. `cache` may be NULL (whole sequences); with
 * one, the batch's keys and values are added to it. Token ids and positions must be within the
 * model's. Fails only where a collective does. */
Status model_forward(Model *model, Batch *batch, KvCache *cache, Activations *activations,
                     Error *err);

/* The same for a batch that is on the device already, and without a look at its pages: kernels
 * alone where the model has one rank, so that they can be recorded (tensor/graphs.h). */
Status model_forward_placed(Model *model, const Batch *batch, KvCache *cache,
                            Activations *activations, Error *err);

/* Runs the parts of a layer between its sums again, from its residual stream, where the policy did
 * not keep them. */
void layer_recompute_attention(Model *model, const Batch *batch, Activations *activations,
                               int layer);
void layer_recompute_mlp(Model *model, Activations *activations, int layer);

#endif
