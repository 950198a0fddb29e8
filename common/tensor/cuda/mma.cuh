/* The tensor cores' product of a warp: c[16, 8] += a[16, 16] b[8, 16]^T, bf16 with sums in f32.
 * With g = lane / 4 and t = lane % 4, a lane holds of a  rows g, g + 8, g, g + 8 at columns 2t, 2t,
 * 2t + 8, 2t + 8, a pair of columns each; b  row g at columns 2t and 2t + 8, a pair each; c  row g
 * at columns 2t and 2t + 1, then row g + 8 at the same. One instruction adds the 16 products of an
 * element in an order of the hardware's own, the same for every element: so a sum is fixed by the
 * order of the calls. */
#ifndef TROUPE_TENSOR_CUDA_MMA_CUH
#define TROUPE_TENSOR_CUDA_MMA_CUH

#include "tensor/cuda/device.cuh"

#define MMA_M 16
#define MMA_N 8
#define MMA_K 16

__device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    on_host::mma_bf16(c, a, b);
#endif
}

/* ---- operands from shared memory, two instructions' at once; rows begin with packs ---- */

/* A block of 16 rows and 16 columns: r[0] and r[1] are b of its rows 0 to 7, r[2] and r[3] of 8
 * to 15. */
__device__ __forceinline__ void mma_load_rows(uint32_t r[4], const Bf16 *block, int stride)
{
    int lane = (int)threadIdx.x % WARP;
#ifdef __CUDACC__
    const Bf16 *row = block + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
#else
    for (int i = 0; i < 4; i++)
        memcpy(&r[i], block + (lane / 4 + i / 2 * 8) * stride + lane % 4 * 2 + i % 2 * 8,
               sizeof r[i]);
#endif
}

/* The same of a block that stands the other way round, [column, row]. */
__device__ __forceinline__ void mma_load_columns(uint32_t r[4], const Bf16 *block, int stride)
{
    int lane = (int)threadIdx.x % WARP;
#ifdef __CUDACC__
    const Bf16 *row = block + lane % 16 * stride + lane / 16 * 8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
#else
    for (int i = 0; i < 4; i++) {
        const Bf16 *at = block + (lane % 4 * 2 + i % 2 * 8) * stride + lane / 4 + i / 2 * 8;
        r[i] = (uint32_t)at[0].bits | (uint32_t)at[stride].bits << 16;
    }
#endif
}

/* Two neighbours as one word, the first in its lower half. Of numbers pair_of gives from_float's
 * bits; a NaN becomes the instruction's own. */
__device__ __forceinline__ uint32_t pair_at(const Bf16 *at)
{
    return *(const uint32_t *)at;
}

__device__ __forceinline__ uint32_t pair_of(float first, float second)
{
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return (uint32_t)from_float<Bf16>(first).bits | (uint32_t)from_float<Bf16>(second).bits << 16;
#endif
}

#endif
