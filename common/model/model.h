/* Model: a rank's weights with all that a pass over them needs: the kernels, the tensor-parallel
 * group, the RoPE table. Used by the compute thread. Holds nothing of a batch, so any number of
 * passes may share one. */
#ifndef TROUPE_MODEL_MODEL_H
#define TROUPE_MODEL_MODEL_H

#include "comm/comm.h"
#include "model/weights.h"
#include "tensor/mirror.h"

typedef struct Model {
    const KernelTable *kernels;
    const WeightPlan *plan;
    const Weights *weights; /* borrowed */
    Comm *comm;             /* borrowed; NULL when alone */
    const float *cos_sin; /* [max_positions, head_dim]: cos in the first half, sin in the second */
    Mirror rope;          /* its memory */
    int64_t max_positions;
    int64_t comm_ns;                    /* spent in collectives so far */
    void (*on_progress)(void *context); /* called whenever a pass got on; may be NULL */
    void *progress_context;
} Model;

/* `max_positions`: one more than the largest position of any token. The plan is the weights'. */
Model *model_create(const Weights *weights, Comm *comm, int64_t max_positions);
void model_destroy(Model *model); /* accepts NULL */

int64_t model_rope_bytes(const ModelConfig *config, int64_t max_positions);

/* Sum over the tensor-parallel group, in place; nothing to do when alone. */
Status model_all_reduce(Model *model, Tensor tensor, Error *err);
/* Before what a pass left is taken to the host and believed: whether its sums over the ranks went
 * well (comm_settle). */
Status model_settle(Model *model, Error *err);

/* The backward pass of y = x w^T where w's rows are split over the ranks and x is whole on each:
 * dx = the sum over ranks of dy w, and dw += dy^T x. The sum runs while dw is computed, as in
 * Megatron-LM's column-parallel layer (Shoeybi et al. 2019, the operator f). */
typedef struct SplitProduct {
    Tensor dx, dw; /* written; accumulated */
    Tensor dy, x;
    const Weight *w;
} SplitProduct;

Status model_split_backward(Model *model, const SplitProduct *product, Error *err);
/* out = the ranks' `in`, in rank order. */
Status model_all_gather(Model *model, Tensor out, Tensor in, Error *err);
void model_progress(const Model *model);

#endif
