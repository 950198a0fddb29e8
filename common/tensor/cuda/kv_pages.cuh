/* A page of keys and values on a GPU: [2, num_kv_heads, KV_PAGE, head_dim], keys first. */
#ifndef TROUPE_TENSOR_CUDA_KV_PAGES_CUH
#define TROUPE_TENSOR_CUDA_KV_PAGES_CUH

#include "tensor/cuda/device.cuh"

/* Where position `p` of a sequence has its key of head `head`; its value stands page_half elements
 * later. */
template <typename T>
__device__ __forceinline__ T *page_key(const KvPages &pages, int sequence, int64_t p, int head,
                                       int head_dim)
{
    int64_t page = pages.page[pages.first_page[sequence] + p / KV_PAGE];
    T *at = (T *)(pages.memory + page * pages.page_bytes);
    return at + ((int64_t)head * KV_PAGE + p % KV_PAGE) * head_dim;
}

__host__ __device__ __forceinline__ int64_t page_half(int num_heads, int head_dim)
{
    return (int64_t)num_heads * KV_PAGE * head_dim;
}

#endif
