/* Packs: 16 bytes of neighbouring elements, which a thread reads and writes at once. Memory of
 * `alloc` and rows whose width is whole packs are aligned to them; what is not goes element by
 * element, to the same values. */
#ifndef TROUPE_TENSOR_CUDA_PACK_CUH
#define TROUPE_TENSOR_CUDA_PACK_CUH

#include "tensor/cuda/device.cuh"

#define PACK_BYTES 16

/* Neighbours that are read and written at once: a pack of them, or one. */
template <typename T, int count> struct __align__(sizeof(T) * count) Group
{
    T at[count];
};

template <typename T> using Pack = Group<T, PACK_BYTES / (int)sizeof(T)>;

template <int count, typename T>
__device__ __forceinline__ Group<T, count> group_load(const T *from)
{
    return *(const Group<T, count> *)from;
}

template <int count, typename T>
__device__ __forceinline__ void group_store(T *to, const Group<T, count> &group)
{
    *(Group<T, count> *)to = group;
}

template <typename T> __host__ __device__ constexpr int pack_count()
{
    return PACK_BYTES / (int)sizeof(T);
}

template <typename T> __device__ __forceinline__ Pack<T> pack_load(const T *from)
{
    return *(const Pack<T> *)from;
}

template <typename T> __device__ __forceinline__ void pack_store(T *to, const Pack<T> &pack)
{
    *(Pack<T> *)to = pack;
}

/* The same from global to shared memory without the thread's waiting: what has been asked for up to
 * a copies_commit is there for it behind copies_wait, but for the last `pending` commits, and for
 * the block behind a barrier. */
template <typename T> __device__ __forceinline__ void pack_copy_async(T *to_shared, const T *from)
{
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to_shared)),
                 "l"(from)
                 : "memory");
#else
    on_host::copy_later(to_shared, from, PACK_BYTES);
#endif
}

__device__ __forceinline__ void copies_commit()
{
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    on_host::commit_copies();
#endif
}

template <int pending> __device__ __forceinline__ void copies_wait()
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#else
    on_host::wait_for_copies(pending);
#endif
}

static inline bool is_packed(const void *pointer)
{
    return (uintptr_t)pointer % PACK_BYTES == 0;
}

/* Whether rows of `width` elements, each behind the other, begin with packs. */
template <typename T> static inline bool has_packed_rows(const void *data, int64_t width)
{
    return is_packed(data) && width % pack_count<T>() == 0;
}

#endif
