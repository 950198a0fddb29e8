/* Products of any shape: what cuBLASLt has no algorithm for, and what its results are compared
 * with. A block makes a tile of c and takes r in steps of STEP from 0 on, whatever m and n are;
 * beyond the ends it adds zeros. bf16 by tensor cores, MMA_K products an instruction; f32 by one
 * fused multiply-add after the other. */
#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/mma.cuh"
#include "tensor/cuda/pack.cuh"

#define TILE 64 /* rows and columns of a block */
#define STEP 32

__device__ __forceinline__ void store(float *c, float sum, bool accumulate)
{
    *c = accumulate ? *c + sum : sum;
}

__device__ __forceinline__ void store(Bf16 *c, float sum, bool)
{
    *c = from_float<Bf16>(sum);
}

/* Rows [first, first + TILE) at [begin, begin + STEP) as tile[TILE, stride]. Neighbouring threads
 * read neighbours in memory. The whole block calls. */
template <typename T>
__device__ __forceinline__ void load_operand(T *tile, int stride, const Operand &from,
                                             int64_t first, int64_t rows, int64_t begin,
                                             int64_t end)
{
    const T *data = (const T *)from.data;
    for (int i = (int)threadIdx.x; i < TILE * STEP; i += (int)blockDim.x) {
        int row = from.step == 1 ? i / STEP : i % TILE, r = from.step == 1 ? i % STEP : i / TILE;
        bool inside = first + row < rows && begin + r < end;
        tile[row * stride + r] =
            inside ? data[(first + row) * from.row + (begin + r) * from.step] : from_float<T>(0.0f);
    }
}

/* The same in whole packs; step is 1, and rows begin with packs and end with them. */
template <typename T>
__device__ __forceinline__ void load_packs(T *tile, int stride, const Operand &from, int64_t first,
                                           int64_t rows, int64_t begin, int64_t end)
{
    const int count = pack_count<T>(), packs = STEP / count;
    const T *data = (const T *)from.data;
    for (int i = (int)threadIdx.x; i < TILE * packs; i += (int)blockDim.x) {
        int row = i / packs, r = i % packs * count;
        Pack<T> pack = {};
        if (first + row < rows && begin + r < end)
            pack = pack_load(data + (first + row) * from.row + begin + r);
        pack_store(tile + row * stride + r, pack);
    }
}

template <typename T> struct __align__(PACK_BYTES) Tiles
{
    static const int stride =
        STEP + pack_count<T>(); /* rows begin in other banks, and with packs */
    T a[TILE * stride], b[TILE * stride];
};

template <typename T>
__device__ __forceinline__ void load_tiles(Tiles<T> *tiles, const Product &p, bool packs_a,
                                           bool packs_b, int64_t begin)
{
    int64_t row = (int64_t)blockIdx.x * TILE, column = (int64_t)blockIdx.y * TILE;
    if (packs_a)
        load_packs(tiles->a, tiles->stride, p.a, row, p.m, begin, p.r);
    else
        load_operand(tiles->a, tiles->stride, p.a, row, p.m, begin, p.r);
    if (packs_b)
        load_packs(tiles->b, tiles->stride, p.b, column, p.n, begin, p.r);
    else
        load_operand(tiles->b, tiles->stride, p.b, column, p.n, begin, p.r);
}

/* ---- bf16: four warps, each half the tile's rows and half its columns ---- */

#define HALF    (TILE / 2)
#define WARPS   4
#define M_PARTS (HALF / MMA_M)
#define N_PARTS (HALF / MMA_N)

/* One instruction's depth: the warp's part of c takes MMA_K of both operands. */
__device__ __forceinline__ void take_step(float sum[M_PARTS][N_PARTS][4], const Bf16 *a,
                                          const Bf16 *b, int stride)
{
    int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    uint32_t right[N_PARTS][2];
    for (int j = 0; j < N_PARTS; j++) {
        const Bf16 *at = b + (j * MMA_N + g) * stride + 2 * t;
        right[j][0] = pair_at(at);
        right[j][1] = pair_at(at + 8);
    }
    for (int i = 0; i < M_PARTS; i++) {
        const Bf16 *at = a + (i * MMA_M + g) * stride + 2 * t;
        uint32_t left[4] = {pair_at(at), pair_at(at + 8 * stride), pair_at(at + 8),
                            pair_at(at + 8 * stride + 8)};
        for (int j = 0; j < N_PARTS; j++)
            mma_bf16(sum[i][j], left, right[j]);
    }
}

template <typename C> __global__ void bf16_kernel(C *c, Product p, bool packs_a, bool packs_b)
{
    __shared__ Tiles<Bf16> tiles;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int row = warp / 2 * HALF, column = warp % 2 * HALF;
    float sum[M_PARTS][N_PARTS][4] = {};
    for (int64_t begin = 0; begin < p.r; begin += STEP) {
        __syncthreads();
        load_tiles(&tiles, p, packs_a, packs_b, begin);
        __syncthreads();
        for (int k = 0; k < STEP; k += MMA_K)
            take_step(sum, tiles.a + row * tiles.stride + k, tiles.b + column * tiles.stride + k,
                      tiles.stride);
    }
    for (int i = 0; i < M_PARTS; i++)
        for (int j = 0; j < N_PARTS; j++)
            for (int e = 0; e < 4; e++) {
                int64_t y = (int64_t)blockIdx.x * TILE + row + i * MMA_M + lane / 4 + e / 2 * 8;
                int64_t x = (int64_t)blockIdx.y * TILE + column + j * MMA_N + lane % 4 * 2 + e % 2;
                if (y < p.m && x < p.n) store(&c[y * p.n + x], sum[i][j][e], p.accumulate);
            }
}

/* ---- f32: a thread has PART x PART elements, a row and a column apart by SIDE ---- */

#define SIDE 16
#define PART (TILE / SIDE)

__global__ void f32_kernel(float *c, Product p, bool packs_a, bool packs_b)
{
    __shared__ Tiles<float> tiles;
    int row = (int)threadIdx.x / SIDE, column = (int)threadIdx.x % SIDE;
    float sum[PART][PART] = {};
    for (int64_t begin = 0; begin < p.r; begin += STEP) {
        int count = p.r - begin < STEP ? (int)(p.r - begin) : STEP;
        __syncthreads();
        load_tiles(&tiles, p, packs_a, packs_b, begin);
        __syncthreads();
        for (int r = 0; r < count; r++) {
            float left[PART], right[PART];
            for (int i = 0; i < PART; i++) {
                left[i] = tiles.a[(row + i * SIDE) * tiles.stride + r];
                right[i] = tiles.b[(column + i * SIDE) * tiles.stride + r];
            }
            for (int i = 0; i < PART; i++)
                for (int j = 0; j < PART; j++)
                    sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
        }
    }
    for (int i = 0; i < PART; i++)
        for (int j = 0; j < PART; j++) {
            int64_t y = (int64_t)blockIdx.x * TILE + row + i * SIDE;
            int64_t x = (int64_t)blockIdx.y * TILE + column + j * SIDE;
            if (y < p.m && x < p.n) store(&c[y * p.n + x], sum[i][j], p.accumulate);
        }
}

template <typename T> static bool has_packs(const Operand *operand, int64_t r)
{
    return operand->step == 1 && has_packed_rows<T>(operand->data, operand->row) &&
           r % pack_count<T>() == 0;
}

void gemm_tile(const Product *product)
{
    const Product &p = *product;
    dim3 grid((unsigned)ceil_div(p.m, TILE), (unsigned)ceil_div(p.n, TILE));
    if (p.type == DTYPE_F32) {
        CHECK(p.c_type == DTYPE_F32);
        LAUNCH(f32_kernel, grid, SIDE * SIDE, 0, (float *)p.c, p, has_packs<float>(&p.a, p.r),
               has_packs<float>(&p.b, p.r));
        return;
    }
    bool packs_a = has_packs<Bf16>(&p.a, p.r), packs_b = has_packs<Bf16>(&p.b, p.r);
    DISPATCH(p.c_type, C,
             { LAUNCH(bf16_kernel<C>, grid, WARPS * WARP, 0, (C *)p.c, p, packs_a, packs_b); });
}
