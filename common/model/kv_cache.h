/* KvCache: the keys (after RoPE) and values of earlier positions, per layer, in pages of KV_PAGE
 * positions (tensor/kernels.h). It is memory: which page holds what, for whom and how long is
 * decided by who fills the batch. For chunked prefill and decode. Used by the compute thread. */
#ifndef TROUPE_MODEL_KV_CACHE_H
#define TROUPE_MODEL_KV_CACHE_H

#include "model/batch.h"
#include "model/weight_plan.h"

typedef struct KvCache {
    const KernelTable *kernels;
    DType dtype;
    int num_layers, num_pages;
    int64_t page_bytes; /* of one layer */
    char *memory;       /* [num_layers, num_pages] pages */
    KvParts parts;      /* of no memory before kv_cache_add_parts */
} KvCache;

KvCache *kv_cache_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                         int num_pages);
void kv_cache_destroy(KvCache *cache); /* accepts NULL */

/* Where the device has use for it: memory with which steps of up to `rows` sequences, of up to
 * `positions` each, are faster where they are few. */
void kv_cache_add_parts(KvCache *cache, const WeightPlan *plan, int rows, int64_t positions);
int64_t kv_cache_parts_bytes(const WeightPlan *plan, const KernelTable *kernels, int rows,
                             int64_t positions);

/* Of one page, all layers. */
int64_t kv_cache_page_bytes(const WeightPlan *plan, DType dtype, const KernelTable *kernels);

/* The pages of `layer` that a placed batch has its keys and values in, where kernels find them:
 * valid until the batch changes. */
KvPages kv_cache_pages(const KvCache *cache, int layer, const Batch *batch);

/* Stops the process unless a batch has pages of the cache for every position. */
void kv_cache_check(const KvCache *cache, const Batch *batch);

/* All layers of page `from` to page `to`. */
void kv_cache_copy_page(KvCache *cache, int32_t from, int32_t to);

/* The shape of attention over the fused qkv buffer of this rank. */
AttentionShape model_attention_shape(const WeightPlan *plan);

#endif
