/* The gradient of attention by tensor cores: bf16, heads of 32, 64 or 128, whole sequences. Two
 * passes as in attention_backward.cu, so that nothing is added by two blocks: over keys, with the
 * queries that see them as tiles, and over queries, with the keys that they see. Each makes the
 * weights anew from the rows' log-sum-exp. Tiles are counted from the block's first key, or from
 * the sequence's: a sequence's gradients are the same whatever it is packed with. */
#include "tensor/cuda/attention_mma.cuh"
#include "tensor/cuda/ops.cuh"

/* Of one row of queries: where it stands, and what its weights are made from. */
struct QueryRow {
    int64_t row; /* of the batch */
    int head;
    int position;
    float lse, delta; /* lse in bits */
};

__device__ __forceinline__ QueryRow query_row(const Backward &b, int64_t begin, int kv_head, int at)
{
    QueryRow row;
    row.position = at / b.group;
    row.row = begin + row.position;
    row.head = kv_head * b.group + at % b.group;
    int64_t place = (int64_t)row.head * b.total + row.row;
    row.lse = b.lse[place] * LOG2_E;
    row.delta = b.delta[place];
    return row;
}

/* Weight and slope of a score; `seen` false: 0. `dp` is the product of the row's dout with the
 * value. */
__device__ __forceinline__ void weigh(float *score, float *dp, bool seen, float scale, float lse,
                                      float delta)
{
    float p = seen ? exp2f(*score * scale - lse) : 0.0f;
    *score = p;
    *dp = seen ? p * (*dp - delta) : 0.0f;
}

/* ---- keys and values ---- */

/* What stands in a tile of queries, found while the tile before it or its own copies are under way:
 * divisions by the group, and the rows' statistics. */
struct TileRows {
    int64_t query[KV_PAGE], dout[KV_PAGE]; /* where the rows begin, in elements */
    float lse[KV_PAGE], delta[KV_PAGE];
    int position[KV_PAGE]; /* -1: no row */
};

/* A block's shared memory: its keys and values, and a tile of rows of queries and of dout, with
 * what stands in it and in the next. */
template <int DIM> struct KeyBlock {
    Bf16 keys[tile_elements<DIM>()], values[tile_elements<DIM>()];
    Bf16 queries[tile_elements<DIM>()], douts[tile_elements<DIM>()];
    TileRows rows[2];
};

/* Rows [first, first + KV_PAGE) of the sequence's and kv head's queries. The whole block calls. */
template <int DIM>
__device__ __forceinline__ void find_rows(TileRows *tile, const Backward &b, int64_t begin,
                                          int kv_head, int first, int rows)
{
    for (int i = (int)threadIdx.x; i < KV_PAGE; i += ATTENTION_THREADS) {
        QueryRow row = {};
        row.position = -1;
        if (first + i < rows) row = query_row(b, begin, kv_head, first + i);
        tile->query[i] = row.row * b.shape.q_stride + (int64_t)row.head * DIM;
        tile->dout[i] = row.row * b.shape.out_stride + (int64_t)row.head * DIM;
        tile->lse[i] = row.lse;
        tile->delta[i] = row.delta;
        tile->position[i] = row.position;
    }
}

/* Starts copying `count` rows that have been found. The whole block calls. */
template <int DIM>
__device__ __forceinline__ void load_queries(KeyBlock<DIM> *block, const TileRows &rows,
                                             const Bf16 *dout, const Bf16 *q, int count)
{
    load_tile<DIM>(block->queries, count, [&](int at) { return q + rows.query[at]; });
    load_tile<DIM>(block->douts, count, [&](int at) { return dout + rows.dout[at]; });
}

/* The warp's keys, the first of them at `key` of the block and lane's first at `position`, take a
 * tile of queries. */
template <int DIM>
__device__ __forceinline__ void take_queries(float dk[][4], float dv[][4],
                                             const KeyBlock<DIM> &block, const TileRows &rows,
                                             int key, int position, float scale)
{
    int t = (int)threadIdx.x % 4;
    float score[KV_PAGE / MMA_N][4] = {}, dp[KV_PAGE / MMA_N][4] = {};
    multiply_shared<DIM>(score, block.keys + key * stride_of<DIM>(), block.queries);
    multiply_shared<DIM>(dp, block.values + key * stride_of<DIM>(), block.douts);
    UNROLL
    for (int i = 0; i < KV_PAGE / MMA_N * 2; i++) {
        int at = i / 2 * MMA_N + 2 * t + i % 2;
        float lse = rows.lse[at], delta = rows.delta[at];
        int query = rows.position[at];
        weigh(&score[i / 2][i % 2], &dp[i / 2][i % 2], query >= position, scale, lse, delta);
        weigh(&score[i / 2][2 + i % 2], &dp[i / 2][2 + i % 2], query >= position + 8, scale, lse,
              delta);
    }
    add_rows<DIM>(dv, score, block.douts);
    add_rows<DIM>(dk, dp, block.queries);
}

/* blockIdx: tile of a sequence's keys, sequence, kv head. */
template <int DIM>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    keys_mma_kernel(Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *q, const Bf16 *k,
                    const Bf16 *v, Backward b)
{
    SHARED_BYTES(shared);
    KeyBlock<DIM> *block = (KeyBlock<DIM> *)shared;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, kv_head = (int)blockIdx.z;
    int64_t begin = b.cu_seqlens[blockIdx.y];
    int length = (int)(b.cu_seqlens[blockIdx.y + 1] - begin);
    int first = (int)blockIdx.x * KV_PAGE, rows = length * b.group;
    if (first >= length) return;
    int count = length - first < KV_PAGE ? length - first : KV_PAGE;
    load_tile<DIM>(block->keys, count, [&](int at) {
        return k + (begin + first + at) * b.shape.k_stride + (int64_t)kv_head * DIM;
    });
    load_tile<DIM>(block->values, count, [&](int at) {
        return v + (begin + first + at) * b.shape.v_stride + (int64_t)kv_head * DIM;
    });
    float dk_sum[DIM / MMA_N][4] = {}, dv_sum[DIM / MMA_N][4] = {};
    int row = first * b.group;
    find_rows<DIM>(&block->rows[0], b, begin, kv_head, row, rows);
    __syncthreads();
    for (int turn = 0; row < rows; row += KV_PAGE, turn ^= 1) {
        load_queries<DIM>(block, block->rows[turn], dout, q, rows - row);
        copies_commit();
        find_rows<DIM>(&block->rows[turn ^ 1], b, begin, kv_head, row + KV_PAGE, rows);
        copies_wait<0>();
        __syncthreads();
        take_queries<DIM>(dk_sum, dv_sum, *block, block->rows[turn], warp * MMA_M,
                          first + warp * MMA_M + lane / 4, b.shape.scale * LOG2_E);
        __syncthreads();
    }
    UNROLL
    for (int h = 0; h < 2; h++) {
        int key = first + warp * MMA_M + lane / 4 + h * 8;
        if (key >= length) continue;
        store_row<DIM>(dk + (begin + key) * b.shape.k_stride + (int64_t)kv_head * DIM, dk_sum, h,
                       b.shape.scale);
        store_row<DIM>(dv + (begin + key) * b.shape.v_stride + (int64_t)kv_head * DIM, dv_sum, h,
                       1.0f);
    }
}

/* ---- queries ---- */

/* A warp's rows take a tile of keys, of which each of the lane's rows sees `seen`. */
template <int DIM>
__device__ __forceinline__ void take_keys(float dq[][4], const uint32_t query[][4],
                                          const uint32_t douts[][4], const Bf16 *keys,
                                          const QueryRow row[2], const int seen[2], float scale)
{
    int t = (int)threadIdx.x % 4;
    float score[KV_PAGE / MMA_N][4] = {}, dp[KV_PAGE / MMA_N][4] = {};
    multiply_rows<DIM>(score, query, keys);
    multiply_rows<DIM>(dp, douts, keys + tile_elements<DIM>());
    UNROLL
    for (int i = 0; i < KV_PAGE / MMA_N * 4; i++) {
        int h = i / 2 % 2, at = i / 4 * MMA_N + 2 * t + i % 2;
        weigh(&score[i / 4][i % 4], &dp[i / 4][i % 4], at < seen[h], scale, row[h].lse,
              row[h].delta);
    }
    add_rows<DIM>(dq, dp, keys);
}

/* blockIdx: tile of a sequence's rows, those that see most first; sequence; kv head. */
template <int DIM>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    queries_mma_kernel(Bf16 *dq, const Bf16 *dout, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                       Backward b)
{
    SHARED_BYTES(shared);
    Bf16 *tile = (Bf16 *)shared; /* keys, then values */
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, kv_head = (int)blockIdx.z;
    int64_t begin = b.cu_seqlens[blockIdx.y];
    int rows = (int)(b.cu_seqlens[blockIdx.y + 1] - begin) * b.group;
    int first = (int)(gridDim.x - 1 - blockIdx.x) * ATTENTION_ROWS;
    if (first >= rows) return;
    QueryRow row[2];
    const Bf16 *from[2], *dout_from[2];
    UNROLL
    for (int h = 0; h < 2; h++) { /* rows beyond the last one are copies of it */
        int at = first + warp * MMA_M + lane / 4 + h * 8;
        row[h] = query_row(b, begin, kv_head, at < rows ? at : rows - 1);
        from[h] = q + row[h].row * b.shape.q_stride + (int64_t)row[h].head * DIM;
        dout_from[h] = dout + row[h].row * b.shape.out_stride + (int64_t)row[h].head * DIM;
    }
    uint32_t query[DIM / MMA_K][4], douts[DIM / MMA_K][4];
    load_words<DIM>(query, from[0], from[1]);
    load_words<DIM>(douts, dout_from[0], dout_from[1]);
    float sum[DIM / MMA_N][4] = {};
    int last_row = first + ATTENTION_ROWS < rows ? first + ATTENTION_ROWS - 1 : rows - 1;
    int end = last_row / b.group + 1;
    for (int at = 0; at < end; at += KV_PAGE) {
        int count = end - at < KV_PAGE ? end - at : KV_PAGE;
        const Bf16 *key = k + (begin + at) * b.shape.k_stride + (int64_t)kv_head * DIM;
        const Bf16 *value = v + (begin + at) * b.shape.v_stride + (int64_t)kv_head * DIM;
        load_tile<DIM>(tile, count, [&](int i) { return key + i * b.shape.k_stride; });
        load_tile<DIM>(tile + tile_elements<DIM>(), count,
                       [&](int i) { return value + i * b.shape.v_stride; });
        copies_commit();
        copies_wait<0>();
        __syncthreads();
        int seen[2] = {row[0].position + 1 - at, row[1].position + 1 - at};
        take_keys<DIM>(sum, query, douts, tile, row, seen, b.shape.scale * LOG2_E);
        __syncthreads();
    }
    UNROLL
    for (int h = 0; h < 2; h++)
        if (first + warp * MMA_M + lane / 4 + h * 8 < rows)
            store_row<DIM>(dq + row[h].row * b.shape.q_stride + (int64_t)row[h].head * DIM, sum, h,
                           b.shape.scale);
}

template <int DIM>
static void launch(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *q, const Bf16 *k,
                   const Bf16 *v, const Backward &b, int64_t longest, int num_sequences)
{
    unsigned count = (unsigned)num_sequences, heads = (unsigned)b.shape.num_kv_heads;
    size_t tile_bytes = 2 * tile_elements<DIM>() * sizeof(Bf16);
    ALLOW_SHARED(keys_mma_kernel<DIM>);
    ALLOW_SHARED(queries_mma_kernel<DIM>);
    LAUNCH(keys_mma_kernel<DIM>, dim3((unsigned)ceil_div(longest, KV_PAGE), count, heads),
           ATTENTION_THREADS, sizeof(KeyBlock<DIM>), dk, dv, dout, q, k, v, b);
    LAUNCH(queries_mma_kernel<DIM>,
           dim3((unsigned)ceil_div(longest * b.group, ATTENTION_ROWS), count, heads),
           ATTENTION_THREADS, tile_bytes, dq, dout, q, k, v, b);
}

void attention_backward_mma(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *q,
                            const Bf16 *k, const Bf16 *v, const Backward &b, int64_t longest,
                            int num_sequences)
{
    CHECK(is_packed(q) && is_packed(k) && is_packed(v) && is_packed(dout) && is_packed(dq) &&
          is_packed(dk) && is_packed(dv));
    CHECK((longest + KV_PAGE) * b.group + ATTENTION_ROWS <= INT32_MAX); /* rows of a sequence */
    switch (b.shape.head_dim) {
    case 32:
        launch<32>(dq, dk, dv, dout, q, k, v, b, longest, num_sequences);
        break;
    case 64:
        launch<64>(dq, dk, dv, dout, q, k, v, b, longest, num_sequences);
        break;
    default:
        launch<128>(dq, dk, dv, dout, q, k, v, b, longest, num_sequences);
    }
}
