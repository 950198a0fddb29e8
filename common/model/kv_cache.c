#include "model/kv_cache.h"

#include <stdlib.h>

#include "base/memory.h"

int64_t kv_cache_bytes(const WeightPlan *plan, DType dtype, int num_slots, int64_t capacity)
{
    int64_t width = (int64_t)plan->num_kv_heads * plan->config.head_dim;
    return 2 * plan->config.num_hidden_layers * num_slots * capacity * width *
           (int64_t)dtype_size(dtype);
}

KvCache *kv_cache_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                         int num_slots, int64_t capacity)
{
    KvCache *cache = mem_calloc(1, sizeof *cache);
    cache->kernels = kernels;
    cache->dtype = dtype;
    cache->num_layers = plan->config.num_hidden_layers;
    cache->num_slots = num_slots;
    cache->kv_width = plan->num_kv_heads * plan->config.head_dim;
    cache->capacity = capacity;
    cache->memory = kernels->alloc((size_t)kv_cache_bytes(plan, dtype, num_slots, capacity));
    return cache;
}

void kv_cache_destroy(KvCache *cache)
{
    if (cache == NULL) return;
    cache->kernels->free(cache->memory);
    free(cache->key);
    free(cache->value);
    free(cache);
}

/* First position of a slot; keys and values of a slot lie apart, so that each is contiguous. */
static char *slot_memory(const KvCache *cache, int layer, int slot, int is_value)
{
    size_t row = (size_t)cache->kv_width * dtype_size(cache->dtype);
    size_t index = ((size_t)layer * 2 + (size_t)is_value) * (size_t)cache->num_slots + (size_t)slot;
    return cache->memory + index * (size_t)cache->capacity * row;
}

static void reserve_view(KvCache *cache, int count)
{
    if (count <= cache->view_capacity) return;
    cache->key = mem_realloc(cache->key, (size_t)count, sizeof *cache->key);
    cache->value = mem_realloc(cache->value, (size_t)count, sizeof *cache->value);
    cache->view_capacity = count;
}

KeyValueView kv_cache_store(KvCache *cache, int layer, const Batch *batch, Tensor qkv)
{
    reserve_view(cache, batch->num_sequences);
    size_t size = dtype_size(cache->dtype);
    int64_t width = cache->kv_width, columns = qkv.shape[1];
    for (int i = 0; i < batch->num_sequences; i++) {
        int64_t first = batch->first_position[i], begin = batch->cu_seqlens[i];
        int64_t length = batch->cu_seqlens[i + 1] - begin;
        int slot = batch->cache_slot[i];
        CHECKF(slot >= 0 && slot < cache->num_slots && first + length <= cache->capacity,
               "slot %d of %d, position %lld of %lld", slot, cache->num_slots,
               (long long)(first + length), (long long)cache->capacity);
        char *key = slot_memory(cache, layer, slot, 0), *value = slot_memory(cache, layer, slot, 1);
        char *rows = (char *)qkv.data + (size_t)(begin * columns) * size;
        size_t offset = (size_t)(first * width) * size;
        Tensor from = tensor_2d(rows, cache->dtype, length, columns);
        cache->kernels->copy_columns(tensor_2d(key + offset, cache->dtype, length, width), from,
                                     columns - 2 * width);
        cache->kernels->copy_columns(tensor_2d(value + offset, cache->dtype, length, width), from,
                                     columns - width);
        cache->key[i] = key;
        cache->value[i] = value;
    }
    return (KeyValueView){.key = cache->key, .value = cache->value};
}
