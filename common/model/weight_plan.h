/* WeightPlan: the sharding plan. One table with every tensor of the model under its Hugging Face
 * name: its global shape, how tensor parallelism splits it, and where this rank's part lies in one
 * flat buffer. Weights, masters, gradients and moments are all buffers of this one layout. The
 * split is Megatron's (Shoeybi et al. 2019): q, k, v, gate, up and the vocabulary by rows, o and
 * down by columns, norms replicated.
 *
 * The flat buffer: first all matrices, then all vectors (norm weights). q, k and v of a layer lie
 * one after the other and so form the fused matrix [q; k; v]; gate and up form [gate; up]. Tensors
 * are padded to WEIGHT_ALIGN elements; padding is zero and stays zero. The vocabulary is split as
 * evenly as whole rows allow: no padding rows exist, so none can join a softmax, be trained or be
 * saved. Where there are fewer kv heads than ranks, neighbouring ranks hold copies of the same kv
 * head. Immutable after creation, so any thread may read it. */
#ifndef TROUPE_MODEL_WEIGHT_PLAN_H
#define TROUPE_MODEL_WEIGHT_PLAN_H

#include "model/model_config.h"

#define WEIGHT_NAME_MAX 96
#define WEIGHT_ALIGN    32 /* elements: a cache line of bf16, two of f32 */

typedef enum { SPLIT_NONE, SPLIT_ROWS, SPLIT_COLUMNS } WeightSplit;

typedef struct WeightSpec {
    char name[WEIGHT_NAME_MAX];
    int rank;           /* 1 or 2 dimensions */
    int64_t rows, cols; /* global shape; a vector has cols = 1 */
    WeightSplit split;
    int64_t unit; /* rows or columns that must stay together (a head), in the split dimension */
    int64_t local_rows, local_cols;
    int64_t offset; /* of this rank's part in the flat buffer, in elements */
    bool counted;   /* this rank counts its part in sums over all weights: one rank does for each
                       element */
} WeightSpec;

/* Half-open range of elements of the flat buffer. */
typedef struct WeightRange {
    int64_t first, count;
} WeightRange;

typedef struct LayerPlan {
    /* indices into spec; q_norm and k_norm are -1 where the architecture has none */
    int input_layernorm, q_proj, k_proj, v_proj, q_norm, k_norm, o_proj;
    int post_attention_layernorm, gate_proj, up_proj, down_proj;
} LayerPlan;

typedef struct WeightPlan {
    ModelConfig config;
    int tp_rank, tp_size;
    int num_heads, num_kv_heads; /* of this rank */
    int kv_replicas;             /* ranks that hold a copy of the same kv head; 1: none is copied */
    WeightSpec *spec;
    int num_specs;
    LayerPlan *layer;                /* [num_hidden_layers] */
    int embed_tokens, norm, lm_head; /* lm_head == embed_tokens when tied; a critic's score */
    WeightRange matrices, vectors;   /* decayed and not decayed by AdamW */
    WeightRange qk_norms; /* within vectors: their gradients need a sum over the group, always */
    int64_t size;         /* of the flat buffer, in elements */
} WeightPlan;

/* CHECKs what model_config_check_parallel checks. */
WeightPlan *weight_plan_create(const ModelConfig *config, int tp_rank, int tp_size);
void weight_plan_destroy(WeightPlan *plan); /* accepts NULL */

/* The part of a spec's split dimension that rank `tp_rank` of tp_size holds; all of it for
 * SPLIT_NONE. */
WeightRange weight_spec_part(const WeightSpec *spec, int tp_rank, int tp_size);

/* The one slice function. The rank's part of a spec is `weight_spec_segments` runs of elements that
 * lie together both in the global tensor and in the part; run i begins at *ret_global and at
 * *ret_local (of the part). */
typedef struct WeightSegment {
    int64_t global_first, local_first, count;
} WeightSegment;
int64_t weight_spec_segments(const WeightSpec *spec);
WeightSegment weight_spec_segment(const WeightSpec *spec, int tp_rank, int tp_size, int64_t i);

/* Index of a name, or -1. */
int weight_plan_find(const WeightPlan *plan, const char *name);

#endif
