/* KvCache: the keys (after RoPE) and values of earlier positions, per layer and slot, contiguous
 * over positions as the attention kernel reads them. For chunked prefill and decode. Used by the
 * compute thread. */
#ifndef TROUPE_MODEL_KV_CACHE_H
#define TROUPE_MODEL_KV_CACHE_H

#include "model/batch.h"
#include "model/weight_plan.h"

typedef struct KvCache {
    const KernelTable *kernels;
    DType dtype;
    int num_layers, num_slots, kv_width; /* kv_width: num_kv_heads * head_dim of this rank */
    int64_t capacity;                    /* positions per slot */
    char *memory;
    const void **key, **value; /* [view_capacity]: the view of one layer for one batch */
    int view_capacity;
} KvCache;

KvCache *kv_cache_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                         int num_slots, int64_t capacity);
void kv_cache_destroy(KvCache *cache); /* accepts NULL */

int64_t kv_cache_bytes(const WeightPlan *plan, DType dtype, int num_slots, int64_t capacity);

/* Stores the k and v columns of qkv (rows of `batch`, after RoPE) at their positions of `layer`,
 * and returns the view that attention reads: valid until the next call. Positions must fit the
 * capacity. */
KeyValueView kv_cache_store(KvCache *cache, int layer, const Batch *batch, Tensor qkv);

#endif
