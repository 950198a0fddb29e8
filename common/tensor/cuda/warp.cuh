/* Sums and maxima over a warp and over a block, in an order fixed by their sizes: by lanes in a
 * butterfly, then by warps in theirs. Every thread of the warp (block) calls, and every one gets
 * the result. */
#ifndef TROUPE_TENSOR_CUDA_WARP_CUH
#define TROUPE_TENSOR_CUDA_WARP_CUH

#include "tensor/cuda/device.cuh"

#define BLOCK_WARPS_MAX 32

__device__ __forceinline__ float warp_sum(float value)
{
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    return value;
}

__device__ __forceinline__ double warp_sum(double value)
{
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value)
{
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
    return value;
}

/* `part` is shared memory of BLOCK_WARPS_MAX; the block is whole warps. */
template <typename T> __device__ __forceinline__ T block_sum(T value, T *part)
{
    int warps = (int)blockDim.x / WARP, warp = (int)threadIdx.x / WARP,
        lane = (int)threadIdx.x % WARP;
    value = warp_sum(value);
    if (warps == 1) return value;
    __syncthreads(); /* who read the last result is done */
    if (lane == 0) part[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : T(0));
}

__device__ __forceinline__ float block_max(float value, float *part)
{
    int warps = (int)blockDim.x / WARP, warp = (int)threadIdx.x / WARP,
        lane = (int)threadIdx.x % WARP;
    value = warp_max(value);
    if (warps == 1) return value;
    __syncthreads();
    if (lane == 0) part[warp] = value;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : -INFINITY);
}

#endif
