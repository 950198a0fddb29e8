/* The sum over ranks (streams.h), with the bits of the CPU's comm_reduce_sources: each element's
 * parts in their order, in f32, rounded once. */
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"
#include "tensor/cuda/table.h"

#define THREADS 256

/* A NaN on either side wins. */
template <bool maximum> __device__ __forceinline__ float joined(float acc, float x)
{
    if (!maximum) return acc + x;
    return x > acc || x != x ? x : acc;
}

/* One group of elements a thread; `groups` of them, and `stride` elements between parts. */
template <typename T, int count, bool maximum>
__global__ void reduce_parts_kernel(T *out, const T *parts, int num_parts, int64_t groups,
                                    int64_t stride)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= groups) return;
    float acc[count];
    Group<T, count> group = group_load<count>(parts + i * count);
    for (int k = 0; k < count; k++)
        acc[k] = to_float(group.at[k]);
    for (int p = 1; p < num_parts; p++) {
        group = group_load<count>(parts + p * stride + i * count);
        for (int k = 0; k < count; k++)
            acc[k] = joined<maximum>(acc[k], to_float(group.at[k]));
    }
    for (int k = 0; k < count; k++)
        group.at[k] = from_float<T>(acc[k]);
    group_store<count>(out + i * count, group);
}

/* Of `n` elements from `first` on, in groups of `count`, which divides them. */
template <typename T, int count>
static void reduce_range(void *stream, const PartReduction *r, int64_t first, int64_t n)
{
    T *out = (T *)r->out + first;
    const T *parts = (const T *)r->parts + first;
    int64_t groups = n / count;
    if (groups == 0) return;
    unsigned blocks = (unsigned)ceil_div(groups, THREADS);
    if (r->maximum)
        LAUNCH_ON(stream, (reduce_parts_kernel<T, count, true>), blocks, THREADS, 0, out, parts,
                  r->num_parts, groups, r->stride);
    else
        LAUNCH_ON(stream, (reduce_parts_kernel<T, count, false>), blocks, THREADS, 0, out, parts,
                  r->num_parts, groups, r->stride);
}

void cuda_reduce_parts(void *stream, const PartReduction *reduction)
{
    const PartReduction *r = reduction;
    CHECK(r->num_parts > 0 && r->count >= 0 && (r->stride >= r->count || r->num_parts == 1));
    DISPATCH(r->dtype, T, {
        const int count = pack_count<T>();
        bool packed = is_packed(r->out) && has_packed_rows<T>(r->parts, r->stride);
        int64_t whole = packed ? r->count / count * count : 0;
        reduce_range<T, count>(stream, r, 0, whole);
        reduce_range<T, 1>(stream, r, whole, r->count - whole);
    });
}
