/* Causal grouped-query attention over packed sequences of any length, forward, by f32 sums (Dao et
 * al. 2022, algorithm 1). Keys are taken in tiles of KV_PAGE positions, counted from the sequence's
 * first, each row's in ascending order and up to its own position, so that what a row becomes does
 * not depend on the rows it is computed with: alone in a decode step, in a chunk, or in a whole
 * prompt.
 *
 * A block has ROWS rows of one kv head: queries of the heads that share it, so that a tile of keys
 * and values is read once for all. A warp a row at a time: lanes hold keys for the products with
 * the query, columns for the sum of values. Keys and values of a tile take turns in one piece of
 * shared memory, so that heads of HEAD_DIM_MAX run where a block has 99 KB of it. */
#include <math.h>

#include "tensor/cuda/attention.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define WARPS        4
#define ROWS         16
#define HEAD_DIM_MAX 256
#define COLUMNS_MAX  (HEAD_DIM_MAX / WARP) /* of a lane */
#define KEYS_OF_LANE (KV_PAGE / WARP)

/* One row's sums so far. */
struct RowState {
    float max, sum, out[COLUMNS_MAX];
};

/* Keys, or values, at positions [begin, begin + count) in f32: [KV_PAGE, stride]. `rows`: the
 * batch's. The whole block calls. */
template <typename T>
__device__ void load_tile(float *tile, const Attention &a, const T *rows, bool values, int sequence,
                          int kv_head, int64_t begin, int count, int stride)
{
    int dim = a.shape.head_dim;
    int64_t row_stride = values ? a.shape.v_stride : a.shape.k_stride;
    int64_t half = values ? page_half(a.shape.num_kv_heads, dim) : 0;
    for (int i = (int)threadIdx.x; i < count * dim; i += WARPS * WARP) {
        int at = i / dim, j = i % dim;
        const T *from;
        if (a.pages.memory != NULL)
            from = page_key<T>(a.pages, sequence, begin + at, kv_head, dim) + half;
        else
            from = rows + (a.sequences.cu_seqlens[sequence] + begin + at) * row_stride +
                   (int64_t)kv_head * dim;
        tile[at * stride + j] = to_float(from[j]);
    }
}

/* A row's weights of the first `count` keys of a tile, [KV_PAGE], and its sums so far relative to
 * the new maximum. */
__device__ void take_keys(RowState *state, float *weight, const float *query, const float *keys,
                          int count, int dim, int stride, float scale)
{
    int lane = (int)threadIdx.x % WARP;
    float score[KEYS_OF_LANE], best = -INFINITY;
    for (int i = 0; i < KEYS_OF_LANE; i++) {
        int key = lane + i * WARP;
        float dot = 0.0f;
        for (int j = 0; j < dim && key < count; j++)
            dot = fmaf(query[j], keys[key * stride + j], dot);
        score[i] = key < count ? dot * scale : -INFINITY;
        best = fmaxf(best, score[i]);
    }
    float max = fmaxf(state->max, warp_max(best)), keep = expf(state->max - max), sum = 0.0f;
    for (int i = 0; i < KEYS_OF_LANE; i++) {
        float p = expf(score[i] - max);
        weight[lane + i * WARP] = p;
        sum += p;
    }
    state->sum = state->sum * keep + warp_sum(sum);
    state->max = max;
    for (int c = 0; c < COLUMNS_MAX && lane + c * WARP < dim; c++)
        state->out[c] *= keep;
}

__device__ void take_values(RowState *state, const float *weight, const float *values, int count,
                            int dim, int stride)
{
    int lane = (int)threadIdx.x % WARP;
    for (int c = 0; c < COLUMNS_MAX && lane + c * WARP < dim; c++) {
        float out = state->out[c];
        for (int key = 0; key < count; key++)
            out = fmaf(weight[key], values[key * stride + lane + c * WARP], out);
        state->out[c] = out;
    }
}

template <typename T>
__device__ void finish_row(T *out, float *lse, const Attention &a, const RowPlace &place,
                           const RowState &state)
{
    int lane = (int)threadIdx.x % WARP, dim = a.shape.head_dim;
    T *to = out + place.query * a.shape.out_stride + (int64_t)place.head * dim;
    for (int c = 0; c < COLUMNS_MAX && lane + c * WARP < dim; c++)
        to[lane + c * WARP] = from_float<T>(state.out[c] / state.sum);
    if (lse != NULL && lane == 0)
        lse[(int64_t)place.head * a.total + place.query] = state.max + logf(state.sum);
}

/* blockIdx: tile of rows, sequence, kv head: a grid is widest in its first direction. */
template <typename T>
__global__ void attention_kernel(T *out, float *lse, const T *q, const T *k, const T *v,
                                 Attention a)
{
    SHARED_BYTES(shared);
    int sequence = (int)blockIdx.y, kv_head = (int)blockIdx.z, dim = a.shape.head_dim,
        stride = dim + 1;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t length = a.sequences.cu_seqlens[sequence + 1] - a.sequences.cu_seqlens[sequence];
    int64_t rows = length * a.group, first = (int64_t)blockIdx.x * ROWS;
    if (first >= rows) return;
    int64_t end = first + ROWS < rows ? first + ROWS : rows;
    float *tile = (float *)shared, *query = tile + KV_PAGE * stride;
    float *weight = query + ROWS * dim; /* [ROWS, KV_PAGE] */
    RowState state[ROWS / WARPS];
    for (int i = 0; i < ROWS / WARPS; i++) {
        state[i].max = -INFINITY;
        state[i].sum = 0.0f;
        for (int c = 0; c < COLUMNS_MAX; c++)
            state[i].out[c] = 0.0f;
        int64_t row = first + warp + i * WARPS;
        if (row >= end) continue;
        RowPlace place = place_of(a, sequence, kv_head, row);
        const T *from = q + place.query * a.shape.q_stride + (int64_t)place.head * dim;
        for (int j = lane; j < dim; j += WARP)
            query[(warp + i * WARPS) * dim + j] = to_float(from[j]);
    }
    int64_t last = place_of(a, sequence, kv_head, end - 1).position;
    for (int64_t begin = 0; begin <= last; begin += KV_PAGE) {
        int count = last + 1 - begin < KV_PAGE ? (int)(last + 1 - begin) : KV_PAGE;
        int seen[ROWS / WARPS]; /* of the tile, by each row */
        __syncthreads();
        load_tile(tile, a, k, false, sequence, kv_head, begin, count, stride);
        __syncthreads();
        for (int i = 0; i < ROWS / WARPS; i++) {
            int at = warp + i * WARPS;
            int64_t row = first + at;
            int64_t ahead =
                row < end ? place_of(a, sequence, kv_head, row).position + 1 - begin : 0;
            seen[i] = ahead < count ? (int)ahead : count;
            if (seen[i] > 0)
                take_keys(&state[i], weight + at * KV_PAGE, query + at * dim, tile, seen[i], dim,
                          stride, a.shape.scale);
        }
        __syncthreads();
        load_tile(tile, a, v, true, sequence, kv_head, begin, count, stride);
        __syncthreads();
        for (int i = 0; i < ROWS / WARPS; i++)
            if (seen[i] > 0)
                take_values(&state[i], weight + (warp + i * WARPS) * KV_PAGE, tile, seen[i], dim,
                            stride);
    }
    for (int i = 0; i < ROWS / WARPS; i++) {
        int64_t row = first + warp + i * WARPS;
        if (row < end) finish_row(out, lse, a, place_of(a, sequence, kv_head, row), state[i]);
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

void cuda_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                    const AttentionShape *shape, const SequenceTable *sequences,
                    const KvPages *pages)
{
    Attention a = {};
    int dim = shape->head_dim;
    CHECK(dim > 0 && dim <= HEAD_DIM_MAX && shape->num_heads % shape->num_kv_heads == 0);
    int64_t longest = longest_of(sequences);
    if (longest == 0) return;
    a.shape = *shape;
    a.sequences = *sequences;
    if (pages != NULL) a.pages = *pages;
    a.group = shape->num_heads / shape->num_kv_heads;
    a.total = sequences->host_cu_seqlens[sequences->num_sequences];
    if (dtype == DTYPE_BF16 && attention_mma_fits(shape)) {
        attention_mma((Bf16 *)out, lse, (const Bf16 *)q, (const Bf16 *)k, (const Bf16 *)v, a,
                      longest);
        return;
    }
    dim3 grid((unsigned)ceil_div(longest * a.group, ROWS), (unsigned)sequences->num_sequences,
              (unsigned)shape->num_kv_heads);
    size_t floats = (size_t)(KV_PAGE * (dim + 1) + ROWS * dim + ROWS * KV_PAGE);
    DISPATCH(dtype, T, {
        ALLOW_SHARED(attention_kernel<T>);
        LAUNCH(attention_kernel<T>, grid, WARPS * WARP, floats * sizeof(float), (T *)out, lse,
               (const T *)q, (const T *)k, (const T *)v, a);
    });
}

/* ---- pages ---- */

int64_t cuda_kv_page_bytes(DType dtype, int num_kv_heads, int head_dim)
{
    return 2 * page_half(num_kv_heads, head_dim) * (int64_t)dtype_size(dtype);
}

/* blockIdx: row of a sequence, sequence; threads: elements of all kv heads. */
template <typename T> __global__ void kv_store_kernel(const T *k, const T *v, Attention a)
{
    int sequence = (int)blockIdx.y, dim = a.shape.head_dim;
    int64_t begin = a.sequences.cu_seqlens[sequence], row = begin + blockIdx.x;
    if (row >= a.sequences.cu_seqlens[sequence + 1]) return;
    int64_t first = a.sequences.first_position != NULL ? a.sequences.first_position[sequence] : 0;
    for (int i = (int)threadIdx.x; i < a.shape.num_kv_heads * dim; i += (int)blockDim.x) {
        T *key = page_key<T>(a.pages, sequence, first + blockIdx.x, i / dim, dim);
        key[i % dim] = k[row * a.shape.k_stride + i];
        key[page_half(a.shape.num_kv_heads, dim) + i % dim] = v[row * a.shape.v_stride + i];
    }
}

void cuda_kv_store(const KvPages *pages, DType dtype, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences)
{
    Attention a = {};
    int64_t longest = longest_of(sequences);
    if (longest == 0) return;
    a.shape = *shape;
    a.sequences = *sequences;
    a.pages = *pages;
    dim3 grid((unsigned)longest, (unsigned)sequences->num_sequences);
    DISPATCH(dtype, T,
             { LAUNCH(kv_store_kernel<T>, grid, 256, 0, (const T *)k, (const T *)v, a); });
}
