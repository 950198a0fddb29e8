/* Weights: this rank's part of the model in the type it computes in, and views of any flat buffer
 * by part. Used by the compute thread. */
#ifndef TROUPE_MODEL_WEIGHTS_H
#define TROUPE_MODEL_WEIGHTS_H

#include "model/weight_plan.h"
#include "tensor/kernels.h"

/* Views into a flat buffer of the plan's layout: weights, or their gradients. H hidden, D head_dim,
 * F and V of this rank. */
typedef struct LayerTensors {
    Tensor input_layernorm;          /* [H] */
    Tensor qkv;                      /* [(num_heads + 2 num_kv_heads) D, H] */
    Tensor q_norm, k_norm;           /* [D]; data is NULL where the architecture has none */
    Tensor o;                        /* [H, num_heads D] */
    Tensor post_attention_layernorm; /* [H] */
    Tensor gate_up;                  /* [2F, H] */
    Tensor down;                     /* [H, F] */
} LayerTensors;

typedef struct ModelTensors {
    Tensor embed_tokens; /* [V, H] */
    Tensor norm;         /* [H] */
    Tensor lm_head;      /* [V, H]; embed_tokens when tied */
    LayerTensors *layer; /* [num_hidden_layers], owned */
} ModelTensors;

/* The view of one spec's part: [local_rows, local_cols], or [local_rows] of a vector. */
Tensor weight_view(const WeightPlan *plan, int spec, void *flat, DType dtype);
void model_tensors_init(ModelTensors *tensors, const WeightPlan *plan, void *flat, DType dtype);
void model_tensors_clear(ModelTensors *tensors);

typedef struct LayerWeights {
    Weight qkv, o, gate_up, down;
} LayerWeights;

typedef struct Weights {
    const KernelTable *kernels;
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    void *flat;    /* [plan->size] */
    bool borrowed; /* flat is somebody else's */
    ModelTensors tensors;
    LayerWeights *layer; /* the matrices as matmul wants them */
    Weight lm_head;
} Weights;

Weights *weights_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels);
/* Over `flat` of the plan's layout, which is device memory of `kernels`: borrowed. */
Weights *weights_create_at(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                           void *flat);
void weights_destroy(Weights *weights); /* accepts NULL */

/* After every change of `flat`: refreshes what the kernels keep of it. */
void weights_prepare(Weights *weights);

#endif
