/* Activations: the memory of one pass over up to max_rows rows, allocated once. What the forward
 * pass computes never depends on it; a policy says only which results get memory of their own per
 * layer (kept for the backward pass) and which share one buffer between layers, to be computed
 * again, by the same calls and so to the same bits, when the backward pass needs them. Used by the
 * compute thread. */
#ifndef TROUPE_MODEL_ACTIVATIONS_H
#define TROUPE_MODEL_ACTIVATIONS_H

#include "model/weight_plan.h"
#include "tensor/kernels.h"

typedef enum {
    KEEP_ALL,      /* nothing is recomputed */
    KEEP_MATRICES, /* norms and SwiGLU are recomputed: bandwidth only */
    KEEP_RESIDUAL, /* only the residual stream is kept: every layer's inputs to o and down are
                      recomputed */
    KEEP_NOTHING,  /* forward only */
    KEEP_POLICY_COUNT,
} KeepPolicy;

const char *keep_policy_name(KeepPolicy policy); /* "keep all", ... for the memory plan */

/* M rows; H, D, F of the config and heads of this rank as in weights.h. */
typedef struct LayerActivations {
    Tensor x;         /* [M, H] residual stream into the layer */
    Tensor norm1;     /* [M, H] */
    Tensor qkv;       /* [M, (num_heads + 2 num_kv_heads) D] after q/k norm and RoPE */
    Tensor raw_qk;    /* [M, (num_heads + num_kv_heads) D] before them; no data when forward only */
    Tensor attention; /* [M, num_heads D] */
    Tensor x_mid;     /* [M, H] residual stream between attention and MLP */
    Tensor norm2;     /* [M, H] */
    Tensor gate_up;   /* [M, 2F] */
    Tensor swiglu;    /* [M, F] */
    float *rstd1, *rstd2, *lse; /* [M], [M], [num_heads, M]; NULL when forward only */
} LayerActivations;

typedef struct Activations {
    const KernelTable *kernels;
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    KeepPolicy policy;
    int64_t max_rows, rows; /* rows: of the pass under way */
    char *memory;
    LayerActivations *layer; /* [num_hidden_layers] */
    Tensor output;           /* [M, H] residual stream after the last layer */
    Tensor partial;          /* [M, H] a row-parallel product before it joins the residual stream */
    /* backward only */
    Tensor dx;      /* [M, H] gradient of the residual stream */
    Tensor dnorm;   /* [M, H] */
    Tensor dwide;   /* of qkv or gate_up */
    Tensor dnarrow; /* of attention or swiglu */
} Activations;

Activations *activations_create(const WeightPlan *plan, DType dtype, KeepPolicy policy,
                                int64_t max_rows, const KernelTable *kernels);
void activations_destroy(Activations *activations); /* accepts NULL */

/* What activations_create allocates. */
int64_t activations_bytes(const WeightPlan *plan, DType dtype, KeepPolicy policy, int64_t max_rows);

/* Shapes all views for a pass over `rows` <= max_rows rows. */
void activations_set_rows(Activations *activations, int64_t rows);

/* The first rows * columns elements of a buffer as [rows, columns]: dwide and dnarrow serve two
 * shapes each. */
Tensor activations_as(Tensor buffer, int64_t columns);

#endif
