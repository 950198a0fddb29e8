#include "model/kv_cache.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

AttentionShape model_attention_shape(const WeightPlan *plan)
{
    int head_dim = plan->config.head_dim;
    int64_t qkv = (int64_t)(plan->num_heads + 2 * plan->num_kv_heads) * head_dim;
    return (AttentionShape){
        .num_heads = plan->num_heads,
        .num_kv_heads = plan->num_kv_heads,
        .head_dim = head_dim,
        .scale = (float)(1.0 / sqrt((double)head_dim)),
        .q_stride = qkv,
        .k_stride = qkv,
        .v_stride = qkv,
        .out_stride = (int64_t)plan->num_heads * head_dim,
    };
}

int64_t kv_cache_page_bytes(const WeightPlan *plan, DType dtype, const KernelTable *kernels)
{
    return plan->config.num_hidden_layers *
           kernels->kv_page_bytes(dtype, plan->num_kv_heads, plan->config.head_dim);
}

KvCache *kv_cache_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                         int num_pages)
{
    KvCache *cache = mem_calloc(1, sizeof *cache);
    cache->kernels = kernels;
    cache->dtype = dtype;
    cache->num_layers = plan->config.num_hidden_layers;
    cache->num_pages = num_pages;
    cache->page_bytes = kernels->kv_page_bytes(dtype, plan->num_kv_heads, plan->config.head_dim);
    cache->memory = kernels->alloc((size_t)(num_pages * kv_cache_page_bytes(plan, dtype, kernels)));
    return cache;
}

void kv_cache_destroy(KvCache *cache)
{
    if (cache == NULL) return;
    cache->kernels->free(cache->memory);
    cache->kernels->free(cache->parts.memory);
    free(cache);
}

int64_t kv_cache_parts_bytes(const WeightPlan *plan, const KernelTable *kernels, int rows,
                             int64_t positions)
{
    AttentionShape shape = model_attention_shape(plan);
    return kernels->kv_parts_bytes(&shape, rows, positions);
}

void kv_cache_add_parts(KvCache *cache, const WeightPlan *plan, int rows, int64_t positions)
{
    int64_t bytes = kv_cache_parts_bytes(plan, cache->kernels, rows, positions);
    if (bytes == 0) return;
    cache->parts = (KvParts){cache->kernels->alloc((size_t)bytes), rows, positions};
}

static char *layer_memory(const KvCache *cache, int layer)
{
    return cache->memory + (int64_t)layer * cache->num_pages * cache->page_bytes;
}

void kv_cache_check(const KvCache *cache, const Batch *batch)
{
    for (int i = 0; i < batch->num_sequences; i++) {
        int64_t length = batch->cu_seqlens[i + 1] - batch->cu_seqlens[i];
        int64_t positions = batch->first_position[i] + length;
        int32_t pages = batch->first_page[i + 1] - batch->first_page[i];
        CHECKF(positions <= (int64_t)pages * KV_PAGE, "sequence %d: %lld positions, %d pages", i,
               (long long)positions, pages);
    }
    for (int32_t i = 0; i < batch->first_page[batch->num_sequences]; i++)
        CHECKF(batch->page[i] >= 0 && batch->page[i] < cache->num_pages, "page %d of %d",
               batch->page[i], cache->num_pages);
}

KvPages kv_cache_pages(const KvCache *cache, int layer, const Batch *batch)
{
    return (KvPages){.memory = layer_memory(cache, layer),
                     .page_bytes = cache->page_bytes,
                     .page = batch->device.page,
                     .first_page = batch->device.first_page,
                     .slot = batch->device.slot,
                     .parts = cache->parts};
}

void kv_cache_copy_page(KvCache *cache, int32_t from, int32_t to)
{
    for (int l = 0; l < cache->num_layers; l++)
        cache->kernels->copy(layer_memory(cache, l) + to * cache->page_bytes,
                             layer_memory(cache, l) + from * cache->page_bytes,
                             (size_t)cache->page_bytes);
}
