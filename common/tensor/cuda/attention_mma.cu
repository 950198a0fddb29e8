/* Causal grouped-query attention forward by tensor cores (Dao 2023, FlashAttention-2, section 3):
 * bf16, heads of 32, 64 or 128.
 *
 * A block has ATTENTION_ROWS rows of one kv head, numbered as in attention.cu, a warp MMA_M of
 * them. Keys come in tiles of KV_PAGE positions from the sequence's first on, one tile on its way
 * while the other is used. Beyond a row's own position its weights are 0, and products with them
 * leave its sums as they are: so what a row becomes depends on its own tiles, not on how far its
 * neighbours see. (A sum of -0 would become +0 that way, which is why results are +0 when they are
 * zero.) Weights are rounded to bf16 for their product with the values, as every kernel of this
 * kind does; their sum is of the unrounded ones.
 *
 * SPLITS. Positions are cut into splits of SPLIT_TILES tiles. What a row becomes is the fold of its
 * splits' sums in ascending order, whoever computes them: one block all of them, or, where rows are
 * too few to fill the device, several blocks each its part (attention_in_parts). */
#include "tensor/cuda/attention_mma.cuh"
#include "tensor/cuda/ops.cuh"

/* Tiles in shared memory. A step of decoding has few rows for each tile and waits for memory: there
 * two are on their way while one is used, elsewhere one, for more blocks side by side. Where a
 * device has not the memory (heads of 128 on an RTX card), there is one stage less: it shows in no
 * bit. With a single one the next keys come while values are used, and the other way round. */
#define STAGES_FEW  3
#define STAGES_MANY 2

/* What every device of compute capability 8.0 or more gives a block. */
#define SHARED_LEAST ((size_t)99 << 10)

#define SPLIT_TILES   4
#define SPLIT         (SPLIT_TILES * KV_PAGE)
#define BLOCKS_WANTED 264 /* on the device: two for each multiprocessor of the largest */

/* A lane's part of two rows, g and g + 8 of the warp's: columns 2t and 2t + 1 of every MMA_N. `sum`
 * is of the lane's own keys. */
template <int DIM> struct RowSums {
    float max[2], sum[2];
    float out[DIM / MMA_N][4];
};

/* Where a tile's keys and values stand. */
struct TileRows {
    const Bf16 *key, *value;
    int64_t key_stride, value_stride;
    int count;
};

/* Keys [begin, end) of a sequence and their values, as far as they fill a tile. */
template <int DIM>
__device__ __forceinline__ TileRows find_tile(const Attention &a, const Bf16 *k, const Bf16 *v,
                                              int sequence, int kv_head, int64_t begin, int64_t end)
{
    TileRows rows = {};
    rows.key_stride = rows.value_stride = DIM;
    rows.count = end - begin < KV_PAGE ? (int)(end - begin) : KV_PAGE;
    if (a.pages.memory != NULL) {
        rows.key = page_key<Bf16>(a.pages, sequence, begin, kv_head, DIM);
        rows.value = rows.key + page_half(a.shape.num_kv_heads, DIM);
    } else {
        int64_t row = a.sequences.cu_seqlens[sequence] + begin;
        rows.key_stride = a.shape.k_stride;
        rows.value_stride = a.shape.v_stride;
        rows.key = k + row * rows.key_stride + (int64_t)kv_head * DIM;
        rows.value = v + row * rows.value_stride + (int64_t)kv_head * DIM;
    }
    return rows;
}

template <int DIM> __device__ __forceinline__ void load_keys(Bf16 *tile, const TileRows &rows)
{
    load_tile<DIM>(tile, rows.count, [&](int at) { return rows.key + at * rows.key_stride; });
}

template <int DIM> __device__ __forceinline__ void load_values(Bf16 *tile, const TileRows &rows)
{
    load_tile<DIM>(tile, rows.count, [&](int at) { return rows.value + at * rows.value_stride; });
}

/* Scores become weights relative to the rows' new maxima, and the sums so far with them. `seen`:
 * how many of the tile's keys each of the lane's rows sees. */
template <int DIM>
__device__ __forceinline__ void weigh(RowSums<DIM> *sums, float score[][4], const int seen[2],
                                      float scale)
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int h = 0; h < 2; h++) {
        float best = -INFINITY;
        UNROLL
        for (int i = 0; i < KV_PAGE / MMA_N * 2; i++) {
            float *x = &score[i / 2][2 * h + i % 2];
            *x = i / 2 * MMA_N + 2 * t + i % 2 < seen[h] ? *x * scale : -INFINITY;
            best = fmaxf(best, *x);
        }
        best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 1));
        best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 2));
        float max = fmaxf(sums->max[h], best), keep = exp2f(sums->max[h] - max), sum = 0.0f;
        UNROLL
        for (int i = 0; i < KV_PAGE / MMA_N * 2; i++) {
            float *x = &score[i / 2][2 * h + i % 2];
            *x = exp2f(*x - max);
            sum += *x;
        }
        sums->max[h] = max;
        sums->sum[h] = sums->sum[h] * keep + sum;
        UNROLL
        for (int c = 0; c < DIM / MMA_N; c++) {
            sums->out[c][2 * h] *= keep;
            sums->out[c][2 * h + 1] *= keep;
        }
    }
}

/* Sums relative to one maximum join those relative to another. */
struct Fold {
    float max, keep, take; /* the factors of the sums so far, and of those that join */
};

__device__ __forceinline__ Fold fold_of(float max, float other)
{
    Fold fold;
    fold.max = fmaxf(max, other);
    fold.keep = exp2f(max - fold.max);
    fold.take = exp2f(other - fold.max);
    return fold;
}

__device__ __forceinline__ float folded(const Fold &fold, float sum, float joins)
{
    return sum * fold.keep + joins * fold.take;
}

/* A row's sum over its four lanes' keys, in each of them. */
template <int DIM> __device__ __forceinline__ void join_lanes(RowSums<DIM> *sums)
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        sums->sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sums->sum[h], 1);
        sums->sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sums->sum[h], 2);
    }
}

/* Floats that a thread keeps of the splits so far: maximum, sum and columns of each row. */
template <int DIM> __host__ __device__ constexpr int total_floats()
{
    return 2 * (2 + DIM / MMA_N * 2);
}

/* A split's sums join the totals of the lane, whose numbers stand `stride` apart in shared memory.
 * A row that does not see the split stays as it is. */
template <int DIM>
__device__ __forceinline__ void fold_split(float *total, int stride, const RowSums<DIM> &sums,
                                           int64_t split, const RowPlace place[2])
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        float *at = total + h * total_floats<DIM>() / 2 * stride, *out = at + 2 * stride;
        if (place[h].position < split * SPLIT) continue;
        Fold fold = {sums.max[h], 0.0f, 1.0f};
        if (split > 0) fold = fold_of(at[0], sums.max[h]);
        at[stride] = split > 0 ? folded(fold, at[stride], sums.sum[h]) : sums.sum[h];
        at[0] = fold.max;
        UNROLL
        for (int c = 0; c < DIM / MMA_N; c++) {
            UNROLL
            for (int i = 0; i < 2; i++) {
                float *column = out + (2 * c + i) * stride, mine = sums.out[c][2 * h + i];
                *column = split > 0 ? folded(fold, *column, mine) : mine;
            }
        }
    }
}

template <int DIM>
__device__ __forceinline__ void take_totals(RowSums<DIM> *sums, const float *total, int stride)
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        const float *at = total + h * total_floats<DIM>() / 2 * stride, *out = at + 2 * stride;
        sums->max[h] = at[0];
        sums->sum[h] = at[stride];
        UNROLL
        for (int c = 0; c < DIM / MMA_N; c++) {
            sums->out[c][2 * h] = out[2 * c * stride];
            sums->out[c][2 * h + 1] = out[(2 * c + 1) * stride];
        }
    }
}

/* Where a split's sums of a row and head stand: DIM columns, maximum, sum. `rows`: of the batch, at
 * most. */
__device__ __forceinline__ float *part_at(const Attention &a, int64_t split, int64_t rows,
                                          int64_t row, int head)
{
    int64_t at = (split * rows + row) * a.shape.num_heads + head;
    return a.pages.parts.memory + at * (a.shape.head_dim + 2);
}

template <int DIM>
__device__ __forceinline__ void store_part(const Attention &a, const RowSums<DIM> &sums,
                                           int64_t split, const RowPlace place[2],
                                           const bool inside[2])
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int h = 0; h < 2; h++) {
        if (!inside[h]) continue;
        float *part = part_at(a, split, gridDim.y, place[h].query, place[h].head);
        UNROLL
        for (int c = 0; c < DIM / MMA_N; c++) {
            part[c * MMA_N + 2 * t] = sums.out[c][2 * h];
            part[c * MMA_N + 2 * t + 1] = sums.out[c][2 * h + 1];
        }
        if (t != 0) continue;
        part[DIM] = sums.max[h];
        part[DIM + 1] = sums.sum[h];
    }
}

template <int DIM>
__device__ __forceinline__ void finish_rows(Bf16 *out, float *lse, const Attention &a,
                                            const RowSums<DIM> &sums, const RowPlace place[2],
                                            const bool inside[2])
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int h = 0; h < 2; h++) {
        float sum = sums.sum[h];
        if (!inside[h]) continue;
        Bf16 *to = out + place[h].query * a.shape.out_stride + (int64_t)place[h].head * DIM + 2 * t;
        UNROLL
        for (int c = 0; c < DIM / MMA_N; c++)
            *(uint32_t *)(to + c * MMA_N) =
                pair_of(sums.out[c][2 * h] / sum + 0.0f, sums.out[c][2 * h + 1] / sum + 0.0f);
        if (lse != NULL && t == 0)
            lse[(int64_t)place[h].head * a.total + place[h].query] = sums.max[h] * LN_2 + logf(sum);
    }
}

__device__ __forceinline__ const Bf16 *row_of(const Bf16 *q, const Attention &a,
                                              const RowPlace &place)
{
    return q + place.query * a.shape.q_stride + (int64_t)place.head * a.shape.head_dim;
}

/* The tile after `tile` of those that a block goes through: every `turns`-th split. */
__device__ __forceinline__ int64_t tile_after(int64_t tile, int64_t turns)
{
    return tile + 1 + ((tile + 1) % SPLIT_TILES == 0 ? (turns - 1) * SPLIT_TILES : 0);
}

template <int DIM> __device__ __forceinline__ RowSums<DIM> no_sums()
{
    RowSums<DIM> sums = {};
    sums.max[0] = sums.max[1] = -INFINITY;
    return sums;
}

/* What a block has to do: a lane's two rows, and the tiles that they go through. */
template <int DIM> struct BlockWork {
    int sequence, kv_head;
    RowPlace place[2];
    bool inside[2]; /* rows beyond the last one are copies of it */
    bool works;     /* the warp has a row; those without one bring tiles alone */
    int64_t tile;   /* the first */
    int64_t count;  /* of the tiles that the block's last row sees */
    int64_t end;    /* positions, as count */
    int64_t turns;  /* blocks that go through the splits */
    uint32_t query[DIM / MMA_K][4];
};

/* The weights of a tile of keys, and the sums so far relative to the rows' new maxima. */
template <int DIM>
__device__ __forceinline__ void take_keys(RowSums<DIM> *sums, float score[][4],
                                          const BlockWork<DIM> &work, const Bf16 *keys,
                                          int64_t tile, float scale)
{
    int64_t begin = tile * KV_PAGE;
    int64_t ahead[2] = {work.place[0].position + 1 - begin, work.place[1].position + 1 - begin};
    int seen[2] = {ahead[0] < KV_PAGE ? (int)ahead[0] : KV_PAGE,
                   ahead[1] < KV_PAGE ? (int)ahead[1] : KV_PAGE};
    multiply_rows<DIM>(score, work.query, keys);
    weigh<DIM>(sums, score, seen, scale);
}

/* Behind a tile: the sums of a split that ends with it are kept, where there are several, and begin
 * anew. */
template <int DIM, bool in_parts>
__device__ __forceinline__ void end_tile(RowSums<DIM> *sums, const Attention &a,
                                         const BlockWork<DIM> &work, int64_t tile, float *total,
                                         int folding)
{
    if (!work.works || (tile % SPLIT_TILES != SPLIT_TILES - 1 && tile != work.count - 1)) return;
    join_lanes(sums);
    if (!in_parts && work.count <= SPLIT_TILES) return; /* the only one, and its last tile */
    if (in_parts)
        store_part<DIM>(a, *sums, tile / SPLIT_TILES, work.place, work.inside);
    else
        fold_split<DIM>(total, folding, *sums, tile / SPLIT_TILES, work.place);
    *sums = no_sums<DIM>();
}

/* Through the tiles, with STAGES - 1 of them on their way. `tiles`: [STAGES, 2, KV_PAGE, stride].
 */
template <int DIM, int STAGES, bool in_parts>
__device__ __forceinline__ void walk_ahead(RowSums<DIM> *sums, Bf16 *tiles, float *total,
                                           int folding, const BlockWork<DIM> &work, const Bf16 *k,
                                           const Bf16 *v, const Attention &a)
{
    int64_t loads = work.tile; /* the next to be brought */
    auto bring = [&](int stage) {
        Bf16 *keys = tiles + stage * 2 * tile_elements<DIM>();
        if (loads < work.count) {
            TileRows rows =
                find_tile<DIM>(a, k, v, work.sequence, work.kv_head, loads * KV_PAGE, work.end);
            load_keys<DIM>(keys, rows);
            load_values<DIM>(keys + tile_elements<DIM>(), rows);
        }
        copies_commit();
        loads = tile_after(loads, work.turns);
    };
    UNROLL
    for (int stage = 0; stage < STAGES - 1; stage++)
        bring(stage);
    int step = 0;
    for (int64_t tile = work.tile; tile < work.count; tile = tile_after(tile, work.turns), step++) {
        const Bf16 *keys = tiles + step % STAGES * 2 * tile_elements<DIM>();
        bring((step + STAGES - 1) % STAGES);
        copies_wait<STAGES - 1>();
        __syncthreads();
        if (work.works) {
            float score[KV_PAGE / MMA_N][4] = {};
            take_keys<DIM>(sums, score, work, keys, tile, a.shape.scale * LOG2_E);
            add_rows<DIM>(sums->out, score, keys + tile_elements<DIM>());
        }
        __syncthreads();
        end_tile<DIM, in_parts>(sums, a, work, tile, total, folding);
    }
}

/* Through the tiles with memory for one: `tiles` [2, KV_PAGE, stride]. */
template <int DIM>
__device__ __forceinline__ void walk_in_turn(RowSums<DIM> *sums, Bf16 *tiles, float *total,
                                             int folding, const BlockWork<DIM> &work, const Bf16 *k,
                                             const Bf16 *v, const Attention &a)
{
    Bf16 *keys = tiles, *values = tiles + tile_elements<DIM>();
    TileRows rows =
        find_tile<DIM>(a, k, v, work.sequence, work.kv_head, work.tile * KV_PAGE, work.end);
    load_keys<DIM>(keys, rows);
    copies_commit();
    load_values<DIM>(values, rows);
    copies_commit();
    for (int64_t tile = work.tile; tile < work.count;) {
        int64_t next = tile_after(tile, work.turns);
        float score[KV_PAGE / MMA_N][4] = {};
        copies_wait<1>(); /* all but the values */
        __syncthreads();
        if (work.works) take_keys<DIM>(sums, score, work, keys, tile, a.shape.scale * LOG2_E);
        __syncthreads();
        if (next < work.count) {
            rows = find_tile<DIM>(a, k, v, work.sequence, work.kv_head, next * KV_PAGE, work.end);
            load_keys<DIM>(keys, rows);
        }
        copies_commit();
        copies_wait<1>(); /* all but the next keys */
        __syncthreads();
        if (work.works) add_rows<DIM>(sums->out, score, values);
        __syncthreads();
        if (next < work.count) load_values<DIM>(values, rows);
        copies_commit();
        end_tile<DIM, false>(sums, a, work, tile, total, folding);
        tile = next;
    }
}

/* blockIdx: tile of a sequence's rows, those that see most first (in parts: which splits);
 * sequence; kv head. `folding` threads have a row. */
template <int DIM, int STAGES, bool in_parts>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_mma_kernel(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                         Attention a, int folding)
{
    SHARED_BYTES(shared);
    Bf16 *tiles = (Bf16 *)shared;
    float *total = (float *)(tiles + STAGES * 2 * tile_elements<DIM>()) + threadIdx.x;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    BlockWork<DIM> work;
    work.sequence = (int)blockIdx.y;
    work.kv_head = (int)blockIdx.z;
    int64_t length =
        a.sequences.cu_seqlens[work.sequence + 1] - a.sequences.cu_seqlens[work.sequence];
    int64_t rows = length * a.group;
    int64_t first = in_parts ? 0 : (int64_t)(gridDim.x - 1 - blockIdx.x) * ATTENTION_ROWS;
    if (first >= rows) return;
    UNROLL
    for (int h = 0; h < 2; h++) {
        int64_t row = first + warp * MMA_M + lane / 4 + h * 8;
        work.inside[h] = row < rows;
        work.place[h] = place_of(a, work.sequence, work.kv_head, row < rows ? row : rows - 1);
    }
    load_words<DIM>(work.query, row_of(q, a, work.place[0]), row_of(q, a, work.place[1]));
    int64_t last_row = first + ATTENTION_ROWS < rows ? first + ATTENTION_ROWS - 1 : rows - 1;
    work.end = place_of(a, work.sequence, work.kv_head, last_row).position + 1;
    work.count = (work.end + KV_PAGE - 1) / KV_PAGE;
    work.turns = in_parts ? gridDim.x : 1;
    work.tile = in_parts ? (int64_t)blockIdx.x * SPLIT_TILES : 0;
    work.works = first + warp * MMA_M < rows;
    RowSums<DIM> sums = no_sums<DIM>();
    static_assert(STAGES > 1 || !in_parts, "parts may be of no tile");
    if constexpr (STAGES > 1)
        walk_ahead<DIM, STAGES, in_parts>(&sums, tiles, total, folding, work, k, v, a);
    else
        walk_in_turn<DIM>(&sums, tiles, total, folding, work, k, v, a);
    if (!work.works || in_parts) return;
    if (work.count > SPLIT_TILES) take_totals<DIM>(&sums, total, folding);
    finish_rows<DIM>(out, lse, a, sums, work.place, work.inside);
}

/* The splits of a sequence's one row. blockIdx: sequence, head; a thread a column. */
template <int DIM> __global__ void fold_parts_kernel(Bf16 *out, Attention a)
{
    int sequence = (int)blockIdx.x, head = (int)blockIdx.y, j = (int)threadIdx.x;
    int64_t row = a.sequences.cu_seqlens[sequence];
    if (a.sequences.cu_seqlens[sequence + 1] == row) return;
    int64_t position = a.sequences.first_position[sequence];
    const float *part = part_at(a, 0, gridDim.x, row, head);
    float max = part[DIM], sum = part[DIM + 1], column = part[j];
    for (int64_t split = 1; split <= position / SPLIT; split++) {
        part = part_at(a, split, gridDim.x, row, head);
        Fold fold = fold_of(max, part[DIM]);
        max = fold.max;
        sum = folded(fold, sum, part[DIM + 1]);
        column = folded(fold, column, part[j]);
    }
    out[row * a.shape.out_stride + (int64_t)head * DIM + j] = from_float<Bf16>(column / sum + 0.0f);
}

bool attention_mma_fits(const AttentionShape *shape)
{
    int dim = shape->head_dim, packed = pack_count<Bf16>();
    return (dim == 32 || dim == 64 || dim == 128) && shape->q_stride % packed == 0 &&
           shape->k_stride % packed == 0 && shape->v_stride % packed == 0 &&
           shape->out_stride % packed == 0;
}

/* Of a block, `folding` of whose threads have a row of totals. */
template <int DIM, int STAGES> constexpr size_t shared_bytes(int folding)
{
    return (size_t)(STAGES * 2 * tile_elements<DIM>()) * sizeof(Bf16) +
           (size_t)(folding * total_floats<DIM>()) * sizeof(float);
}

template <int DIM, int STAGES>
static void launch_whole(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                         const Attention &a, int64_t longest)
{
    int64_t warps = ceil_div(longest * a.group, MMA_M);
    int folding = (warps < ATTENTION_WARPS ? (int)warps : ATTENTION_WARPS) * WARP;
    size_t bytes = shared_bytes<DIM, STAGES>(folding);
    if constexpr (shared_bytes<DIM, STAGES>(ATTENTION_THREADS) > SHARED_LEAST) {
        if (bytes > cuda_shared_max()) {
            launch_whole<DIM, STAGES - 1>(out, lse, q, k, v, a, longest);
            return;
        }
    }
    dim3 grid((unsigned)ceil_div(longest * a.group, ATTENTION_ROWS),
              (unsigned)a.sequences.num_sequences, (unsigned)a.shape.num_kv_heads);
    ALLOW_SHARED((attention_mma_kernel<DIM, STAGES, false>));
    LAUNCH((attention_mma_kernel<DIM, STAGES, false>), grid, ATTENTION_THREADS, bytes, out, lse, q,
           k, v, a, folding);
}

/* Of how many sequences, at most, rows are too few to fill the device. */
static int64_t few_sequences(int num_kv_heads)
{
    return BLOCKS_WANTED / 2 / num_kv_heads;
}

int64_t cuda_kv_parts_bytes(const AttentionShape *shape, int rows, int64_t positions)
{
    int64_t few = few_sequences(shape->num_kv_heads), splits = ceil_div(positions, SPLIT);
    if (!attention_mma_fits(shape) || splits < 2 || few < 1) return 0;
    return (rows < few ? rows : few) * splits * shape->num_heads * (shape->head_dim + 2) *
           (int64_t)sizeof(float);
}

/* Whether several blocks go through a row's positions: it shows in no bit. */
static bool is_for_parts(const Attention &a, const float *lse, int64_t longest)
{
    const KvParts &parts = a.pages.parts;
    return longest == 1 && lse == NULL && a.pages.memory != NULL && parts.memory != NULL &&
           a.sequences.first_position != NULL && a.group <= ATTENTION_ROWS &&
           a.sequences.num_sequences <= parts.rows &&
           a.sequences.num_sequences <= few_sequences(a.shape.num_kv_heads) &&
           parts.positions > SPLIT;
}

template <int DIM, int STAGES>
static void launch_parts(Bf16 *out, const Bf16 *q, const Bf16 *k, const Bf16 *v, const Attention &a)
{
    int64_t splits = ceil_div(a.pages.parts.positions, SPLIT);
    int64_t blocks = BLOCKS_WANTED / (a.sequences.num_sequences * a.shape.num_kv_heads);
    size_t bytes = shared_bytes<DIM, STAGES>(0);
    if constexpr (shared_bytes<DIM, STAGES>(0) > SHARED_LEAST) {
        if (bytes > cuda_shared_max()) {
            launch_parts<DIM, STAGES - 1>(out, q, k, v, a);
            return;
        }
    }
    dim3 grid((unsigned)(blocks < splits ? blocks : splits), (unsigned)a.sequences.num_sequences,
              (unsigned)a.shape.num_kv_heads);
    ALLOW_SHARED((attention_mma_kernel<DIM, STAGES, true>));
    LAUNCH((attention_mma_kernel<DIM, STAGES, true>), grid, ATTENTION_THREADS, bytes, out,
           (float *)NULL, q, k, v, a, 0);
}

template <int DIM>
static void attention_in_parts(Bf16 *out, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                               const Attention &a)
{
    dim3 rows((unsigned)a.sequences.num_sequences, (unsigned)a.shape.num_heads);
    launch_parts<DIM, STAGES_FEW>(out, q, k, v, a);
    LAUNCH(fold_parts_kernel<DIM>, rows, DIM, 0, out, a);
}

/* How tiles come shows in no bit, either. */
template <int DIM>
static void launch(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                   const Attention &a, int64_t longest)
{
    if (is_for_parts(a, lse, longest))
        attention_in_parts<DIM>(out, q, k, v, a);
    else if (longest * a.group <= MMA_M)
        launch_whole<DIM, STAGES_FEW>(out, lse, q, k, v, a, longest);
    else
        launch_whole<DIM, STAGES_MANY>(out, lse, q, k, v, a, longest);
}

void attention_mma(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                   const Attention &a, int64_t longest)
{
    /* Whether they fit may not decide who computes: a row's bits would depend on where it lies. */
    CHECK(is_packed(q) && is_packed(k) && is_packed(v) && is_packed(out));
    switch (a.shape.head_dim) {
    case 32:
        launch<32>(out, lse, q, k, v, a, longest);
        break;
    case 64:
        launch<64>(out, lse, q, k, v, a, longest);
        break;
    default:
        launch<128>(out, lse, q, k, v, a, longest);
    }
}
