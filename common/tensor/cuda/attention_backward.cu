/* The gradient of causal grouped-query attention over packed whole sequences (Dao et al. 2022,
 * algorithm 4), of f32, and of heads that attention_backward_mma.cu does not take: in two passes,
 * so that nothing is added by two blocks: one over keys, which walks through the queries that see
 * them in ascending order, and one over queries, which walks through the keys. */
#include <math.h>

#include "tensor/cuda/attention.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define WARPS        4
#define ROWS         16 /* of a block: keys, or queries of the heads that share a kv head */
#define TILE         32 /* of the other side: one a lane */
#define HEAD_DIM_MAX 256
#define COLUMNS_MAX  (HEAD_DIM_MAX / WARP)

/* ---- delta ---- */

/* A warp a row and head. */
template <typename T>
__global__ void delta_kernel(float *delta, const T *dout, const T *out, AttentionShape shape,
                             int64_t total)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, dim = shape.head_dim;
    int64_t row = (int64_t)blockIdx.x * WARPS + warp;
    if (row >= total) return;
    int64_t at = row * shape.out_stride + (int64_t)blockIdx.y * dim;
    float sum = 0.0f;
    for (int j = lane; j < dim; j += WARP)
        sum = fmaf(to_float(dout[at + j]), to_float(out[at + j]), sum);
    sum = warp_sum(sum);
    if (lane == 0) delta[(int64_t)blockIdx.y * total + row] = sum;
}

/* ---- tiles in shared memory, f32, [count, stride] ---- */

template <typename T>
__device__ void load_rows(float *to, const T *from, int64_t first, int count, int64_t row_stride,
                          int dim, int stride)
{
    for (int i = (int)threadIdx.x; i < count * dim; i += WARPS * WARP)
        to[i / dim * stride + i % dim] = to_float(from[(first + i / dim) * row_stride + i % dim]);
}

__device__ __forceinline__ float dot_of(const float *a, const float *b, int dim)
{
    float sum = 0.0f;
    for (int j = 0; j < dim; j++)
        sum = fmaf(a[j], b[j], sum);
    return sum;
}

/* sum[columns of the lane] += the `count` rows, each by its weight, in their order. */
__device__ __forceinline__ void add_rows(float *sum, const float *rows, const float *weight,
                                         int count, int dim, int stride)
{
    int lane = (int)threadIdx.x % WARP;
    for (int c = 0; c < COLUMNS_MAX && lane + c * WARP < dim; c++)
        for (int i = 0; i < count; i++)
            sum[c] = fmaf(weight[i], rows[i * stride + lane + c * WARP], sum[c]);
}

template <typename T> __device__ __forceinline__ void store_row(T *to, const float *sum, int dim)
{
    int lane = (int)threadIdx.x % WARP;
    for (int c = 0; c < COLUMNS_MAX && lane + c * WARP < dim; c++)
        to[lane + c * WARP] = from_float<T>(sum[c]);
}

/* ---- keys and values ---- */

/* What a block of keys holds in shared memory. */
struct KeyTiles {
    float *keys, *values, *query, *dout; /* ROWS, ROWS, TILE and TILE rows */
    float *p, *ds;                       /* the warp's, [TILE] */
};

/* One key and the tile's `count` queries, of which the first is `before` positions behind the key.
 */
__device__ void take_queries(float *dk, float *dv, const Backward &b, const KeyTiles &tiles,
                             int key, int64_t before, int64_t first_row, int head, int count,
                             int stride)
{
    int lane = (int)threadIdx.x % WARP, dim = b.shape.head_dim;
    float p = 0.0f, ds = 0.0f;
    if (lane < count && before + lane >= 0) {
        int64_t at = (int64_t)head * b.total + first_row + lane;
        p = expf(dot_of(tiles.query + lane * stride, tiles.keys + key * stride, dim) *
                     b.shape.scale -
                 b.lse[at]);
        float dp = dot_of(tiles.dout + lane * stride, tiles.values + key * stride, dim);
        ds = p * (dp - b.delta[at]) * b.shape.scale;
    }
    __syncwarp();
    tiles.p[lane] = p;
    tiles.ds[lane] = ds;
    __syncwarp();
    add_rows(dv, tiles.dout, tiles.p, count, dim, stride);
    add_rows(dk, tiles.query, tiles.ds, count, dim, stride);
}

/* blockIdx: tile of keys, sequence, kv head. */
template <typename T>
__global__ void keys_kernel(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v,
                            Backward b)
{
    SHARED_BYTES(shared);
    int dim = b.shape.head_dim, stride = dim + 1, kv_head = (int)blockIdx.z;
    int warp = (int)threadIdx.x / WARP;
    int64_t begin = b.cu_seqlens[blockIdx.y], length = b.cu_seqlens[blockIdx.y + 1] - begin;
    int64_t first = (int64_t)blockIdx.x * ROWS;
    if (first >= length) return;
    int keys = first + ROWS < length ? ROWS : (int)(length - first);
    KeyTiles tiles;
    tiles.keys = (float *)shared;
    tiles.values = tiles.keys + ROWS * stride;
    tiles.query = tiles.values + ROWS * stride;
    tiles.dout = tiles.query + TILE * stride;
    tiles.p = tiles.dout + TILE * stride + warp * 2 * TILE;
    tiles.ds = tiles.p + TILE;
    float dk_sum[ROWS / WARPS][COLUMNS_MAX] = {}, dv_sum[ROWS / WARPS][COLUMNS_MAX] = {};
    load_rows(tiles.keys, k + kv_head * dim, begin + first, keys, b.shape.k_stride, dim, stride);
    load_rows(tiles.values, v + kv_head * dim, begin + first, keys, b.shape.v_stride, dim, stride);
    for (int64_t at = first / TILE * TILE; at < length; at += TILE) {
        int count = at + TILE < length ? TILE : (int)(length - at);
        for (int g = 0; g < b.group; g++) {
            int head = kv_head * b.group + g;
            __syncthreads();
            load_rows(tiles.query, q + head * dim, begin + at, count, b.shape.q_stride, dim,
                      stride);
            load_rows(tiles.dout, dout + head * dim, begin + at, count, b.shape.out_stride, dim,
                      stride);
            __syncthreads();
            for (int i = 0; i < ROWS / WARPS; i++) {
                int key = warp + i * WARPS;
                if (key < keys)
                    take_queries(dk_sum[i], dv_sum[i], b, tiles, key, at - first - key, begin + at,
                                 head, count, stride);
            }
        }
    }
    for (int i = 0; i < ROWS / WARPS; i++) {
        int64_t row = begin + first + warp + i * WARPS;
        if (warp + i * WARPS >= keys) continue;
        store_row(dk + row * b.shape.k_stride + kv_head * dim, dk_sum[i], dim);
        store_row(dv + row * b.shape.v_stride + kv_head * dim, dv_sum[i], dim);
    }
}

/* ---- queries ---- */

/* blockIdx: tile of queries (by query, then by head of the group), sequence, kv head. */
template <typename T>
__global__ void queries_kernel(T *dq, const T *dout, const T *q, const T *k, const T *v, Backward b)
{
    SHARED_BYTES(shared);
    int dim = b.shape.head_dim, stride = dim + 1, kv_head = (int)blockIdx.z;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t begin = b.cu_seqlens[blockIdx.y], length = b.cu_seqlens[blockIdx.y + 1] - begin;
    int64_t rows = length * b.group, first = (int64_t)blockIdx.x * ROWS;
    if (first >= rows) return;
    int64_t end = first + ROWS < rows ? first + ROWS : rows;
    float *keys = (float *)shared, *values = keys + TILE * stride;
    float *query = values + TILE * stride, *douts = query + ROWS * dim;
    float *ds = douts + ROWS * dim + warp * TILE;
    float sum[ROWS / WARPS][COLUMNS_MAX] = {};
    for (int64_t row = first + warp; row < end; row += WARPS) {
        int64_t at = begin + row / b.group, head = kv_head * b.group + row % b.group;
        for (int j = lane; j < dim; j += WARP) {
            query[(row - first) * dim + j] = to_float(q[at * b.shape.q_stride + head * dim + j]);
            douts[(row - first) * dim + j] =
                to_float(dout[at * b.shape.out_stride + head * dim + j]);
        }
    }
    int64_t last = (end - 1) / b.group;
    for (int64_t at = 0; at <= last; at += TILE) {
        int count = at + TILE <= last + 1 ? TILE : (int)(last + 1 - at);
        __syncthreads();
        load_rows(keys, k + kv_head * dim, begin + at, count, b.shape.k_stride, dim, stride);
        load_rows(values, v + kv_head * dim, begin + at, count, b.shape.v_stride, dim, stride);
        __syncthreads();
        for (int64_t row = first + warp; row < end; row += WARPS) {
            int64_t position = row / b.group, place = row - first;
            int64_t of = ((int64_t)kv_head * b.group + row % b.group) * b.total + begin + position;
            float mine = 0.0f;
            if (lane < count && at + lane <= position) {
                float p =
                    expf(dot_of(query + place * dim, keys + lane * stride, dim) * b.shape.scale -
                         b.lse[of]);
                float dp = dot_of(douts + place * dim, values + lane * stride, dim);
                mine = p * (dp - b.delta[of]) * b.shape.scale;
            }
            __syncwarp();
            ds[lane] = mine;
            __syncwarp();
            int64_t seen = position + 1 - at;
            if (seen > 0)
                add_rows(sum[place / WARPS], keys, ds, seen < count ? (int)seen : count, dim,
                         stride);
        }
    }
    for (int64_t row = first + warp; row < end; row += WARPS) {
        int64_t head = kv_head * b.group + row % b.group;
        store_row(dq + (begin + row / b.group) * b.shape.q_stride + head * dim,
                  sum[(row - first) / WARPS], dim);
    }
}

static int64_t longest_of(const SequenceTable *sequences)
{
    int64_t longest = 0;
    for (int i = 0; i < sequences->num_sequences; i++) {
        int64_t length = sequences->host_cu_seqlens[i + 1] - sequences->host_cu_seqlens[i];
        longest = length > longest ? length : longest;
    }
    return longest;
}

static void run_passes(void *dq, void *dk, void *dv, DType dtype, const void *dout, const void *q,
                       const void *k, const void *v, const Backward &b, int64_t longest,
                       int num_sequences)
{
    unsigned count = (unsigned)num_sequences, heads = (unsigned)b.shape.num_kv_heads;
    int dim = b.shape.head_dim;
    dim3 keys((unsigned)ceil_div(longest, ROWS), count, heads);
    dim3 queries((unsigned)ceil_div(longest * b.group, ROWS), count, heads);
    size_t keys_bytes =
        (size_t)((2 * ROWS + 2 * TILE) * (dim + 1) + WARPS * 2 * TILE) * sizeof(float);
    size_t queries_bytes =
        (size_t)(2 * TILE * (dim + 1) + 2 * ROWS * dim + WARPS * TILE) * sizeof(float);
    DISPATCH(dtype, T, {
        ALLOW_SHARED(keys_kernel<T>);
        ALLOW_SHARED(queries_kernel<T>);
        LAUNCH(keys_kernel<T>, keys, WARPS * WARP, keys_bytes, (T *)dk, (T *)dv, (const T *)dout,
               (const T *)q, (const T *)k, (const T *)v, b);
        LAUNCH(queries_kernel<T>, queries, WARPS * WARP, queries_bytes, (T *)dq, (const T *)dout,
               (const T *)q, (const T *)k, (const T *)v, b);
    });
}

void cuda_attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                             const void *q, const void *k, const void *v, const void *out,
                             const float *lse, const AttentionShape *shape,
                             const SequenceTable *sequences)
{
    Backward b = {};
    int dim = shape->head_dim;
    int64_t longest = longest_of(sequences);
    CHECK(dim > 0 && dim <= HEAD_DIM_MAX && shape->num_heads % shape->num_kv_heads == 0);
    if (longest == 0) return;
    b.shape = *shape;
    b.cu_seqlens = sequences->cu_seqlens;
    b.group = shape->num_heads / shape->num_kv_heads;
    b.total = sequences->host_cu_seqlens[sequences->num_sequences];
    b.lse = lse;
    float *delta = (float *)cuda_scratch((size_t)(b.total * shape->num_heads) * sizeof *delta);
    b.delta = delta;
    dim3 rows((unsigned)ceil_div(b.total, WARPS), (unsigned)shape->num_heads);
    DISPATCH(dtype, T, {
        LAUNCH(delta_kernel<T>, rows, WARPS * WARP, 0, delta, (const T *)dout, (const T *)out,
               *shape, b.total);
    });
    if (dtype == DTYPE_BF16 && attention_mma_fits(shape))
        attention_backward_mma((Bf16 *)dq, (Bf16 *)dk, (Bf16 *)dv, (const Bf16 *)dout,
                               (const Bf16 *)q, (const Bf16 *)k, (const Bf16 *)v, b, longest,
                               sequences->num_sequences);
    else
        run_passes(dq, dk, dv, dtype, dout, q, k, v, b, longest, sequences->num_sequences);
}
