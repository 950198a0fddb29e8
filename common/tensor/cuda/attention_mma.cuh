/* What the kernels of attention by tensor cores share: blocks of ATTENTION_WARPS warps, a warp with
 * MMA_M rows of one side of the product of queries and keys, against tiles of KV_PAGE rows of the
 * other side in shared memory. With g = lane / 4 and t = lane % 4, a lane has rows g and g + 8 of
 * its warp's, columns 2t and 2t + 1 of every MMA_N. */
#ifndef TROUPE_TENSOR_CUDA_ATTENTION_MMA_CUH
#define TROUPE_TENSOR_CUDA_ATTENTION_MMA_CUH

#include <math.h>

#include "tensor/cuda/attention.cuh"
#include "tensor/cuda/mma.cuh"
#include "tensor/cuda/pack.cuh"

#define ATTENTION_WARPS   4
#define ATTENTION_THREADS (ATTENTION_WARPS * WARP)
#define ATTENTION_ROWS    (ATTENTION_WARPS * MMA_M)
#define LOG2_E            1.4426950408889634f
#define LN_2              0.6931471805599453f

/* Elements between rows of shared memory, whose beginnings so lie in different banks. */
template <int DIM> __host__ __device__ constexpr int stride_of()
{
    return DIM + 8;
}

template <int DIM> __host__ __device__ constexpr int tile_elements()
{
    return KV_PAGE * stride_of<DIM>();
}

/* Starts copying row_at(0) to row_at(count - 1) into a tile; the rows beyond are zeros. The whole
 * block calls. */
template <int DIM, typename RowAt>
__device__ __forceinline__ void load_tile(Bf16 *tile, int count, RowAt row_at)
{
    const int packs = DIM / pack_count<Bf16>();
    for (int i = (int)threadIdx.x; i < KV_PAGE * packs; i += ATTENTION_THREADS) {
        int at = i / packs, j = i % packs * pack_count<Bf16>();
        Bf16 *to = tile + at * stride_of<DIM>() + j;
        if (at < count)
            pack_copy_async(to, row_at(at) + j);
        else
            pack_store(to, Pack<Bf16>{});
    }
}

/* Of the lane's two rows, as the first operand of products along their columns. */
template <int DIM>
__device__ __forceinline__ void load_words(uint32_t words[][4], const Bf16 *row, const Bf16 *row8)
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int d = 0; d < DIM / MMA_K; d++) {
        const Bf16 *low = row + d * MMA_K + 2 * t, *high = row8 + d * MMA_K + 2 * t;
        words[d][0] = pair_at(low);
        words[d][1] = pair_at(high);
        words[d][2] = pair_at(low + 8);
        words[d][3] = pair_at(high + 8);
    }
}

/* score[KV_PAGE / MMA_N] += the warp's rows' products with the tile's. */
template <int DIM>
__device__ __forceinline__ void multiply_rows(float score[][4], const uint32_t words[][4],
                                              const Bf16 *tile)
{
    UNROLL
    for (int j = 0; j < KV_PAGE / 16; j++) {
        UNROLL
        for (int d = 0; d < DIM / MMA_K; d++) {
            uint32_t pair[4];
            mma_load_rows(pair, tile + j * 16 * stride_of<DIM>() + d * MMA_K, stride_of<DIM>());
            mma_bf16(score[2 * j], words[d], pair);
            mma_bf16(score[2 * j + 1], words[d], pair + 2);
        }
    }
}

/* The same with the warp's MMA_M rows in shared memory too, where registers are wanted for other
 * things. */
template <int DIM>
__device__ __forceinline__ void multiply_shared(float score[][4], const Bf16 *rows,
                                                const Bf16 *tile)
{
    UNROLL
    for (int d = 0; d < DIM / MMA_K; d++) {
        uint32_t block[4];
        mma_load_rows(block, rows + d * MMA_K, stride_of<DIM>());
        uint32_t words[4] = {block[0], block[2], block[1], block[3]};
        UNROLL
        for (int j = 0; j < KV_PAGE / 16; j++) {
            uint32_t pair[4];
            mma_load_rows(pair, tile + j * 16 * stride_of<DIM>() + d * MMA_K, stride_of<DIM>());
            mma_bf16(score[2 * j], words, pair);
            mma_bf16(score[2 * j + 1], words, pair + 2);
        }
    }
}

/* sum[DIM / MMA_N] += the tile's rows, each by its weight, rounded to bf16. */
template <int DIM>
__device__ __forceinline__ void add_rows(float sum[][4], const float weight[][4], const Bf16 *tile)
{
    UNROLL
    for (int k = 0; k < KV_PAGE / MMA_K; k++) {
        const float *low = weight[2 * k], *high = weight[2 * k + 1];
        uint32_t words[4] = {pair_of(low[0], low[1]), pair_of(low[2], low[3]),
                             pair_of(high[0], high[1]), pair_of(high[2], high[3])};
        UNROLL
        for (int c = 0; c < DIM / 16; c++) {
            uint32_t pair[4];
            mma_load_columns(pair, tile + k * MMA_K * stride_of<DIM>() + c * 16, stride_of<DIM>());
            mma_bf16(sum[2 * c], words, pair);
            mma_bf16(sum[2 * c + 1], words, pair + 2);
        }
    }
}

/* Row g (h 0) or g + 8 (h 1) of a warp's sums, times a factor. */
template <int DIM>
__device__ __forceinline__ void store_row(Bf16 *row, const float sum[][4], int h, float factor)
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int c = 0; c < DIM / MMA_N; c++)
        *(uint32_t *)(row + c * MMA_N + 2 * t) =
            pair_of(sum[c][2 * h] * factor, sum[c][2 * h + 1] * factor);
}

#endif
