/* Causal grouped-query attention forward by tensor cores (Dao 2023, FlashAttention-2, section 3):
 * bf16, heads of 32, 64 or 128.
 *
 * A block has ATTENTION_ROWS rows of one kv head, numbered as in attention.cu, a warp MMA_M of
 * them. Keys come in tiles of KV_PAGE positions from the sequence's first on, one tile on its way
 * while the other is used. Beyond a row's own position its weights are 0, and products with them
 * leave its sums as they are: so what a row becomes depends on its own tiles, not on how far its
 * neighbours see. (A sum of -0 would become +0 that way, which is why results are +0 when they are
 * zero.) Weights are rounded to bf16 for their product with the values, as every kernel of this
 * kind does; their sum is of the unrounded ones. */
#include "tensor/cuda/attention_mma.cuh"
#include "tensor/cuda/ops.cuh"

/* Tiles in shared memory. A step of decoding has few rows for each tile and waits for memory: there
 * two are on their way while one is used, elsewhere one, for more blocks side by side. */
#define STAGES_FEW  3
#define STAGES_MANY 2

/* A lane's part of two rows, g and g + 8 of the warp's: columns 2t and 2t + 1 of every MMA_N. `sum`
 * is of the lane's own keys. */
template <int DIM> struct RowSums {
    float max[2], sum[2];
    float out[DIM / MMA_N][4];
};

/* Keys [begin, end) of a sequence and their values, as far as they fill a tile. */
template <int DIM>
__device__ __forceinline__ void load_keys(Bf16 *keys, const Attention &a, const Bf16 *k,
                                          const Bf16 *v, int sequence, int kv_head, int64_t begin,
                                          int64_t end)
{
    const Bf16 *key, *value;
    int64_t key_stride = DIM, value_stride = DIM;
    int count = end - begin < KV_PAGE ? (int)(end - begin) : KV_PAGE;
    if (a.pages.memory != NULL) {
        key = page_key<Bf16>(a.pages, sequence, begin, kv_head, DIM);
        value = key + page_half(a.shape.num_kv_heads, DIM);
    } else {
        int64_t row = a.sequences.cu_seqlens[sequence] + begin;
        key_stride = a.shape.k_stride;
        value_stride = a.shape.v_stride;
        key = k + row * key_stride + (int64_t)kv_head * DIM;
        value = v + row * value_stride + (int64_t)kv_head * DIM;
    }
    load_tile<DIM>(keys, count, [&](int at) { return key + at * key_stride; });
    load_tile<DIM>(keys + tile_elements<DIM>(), count,
                   [&](int at) { return value + at * value_stride; });
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

template <int DIM>
__device__ __forceinline__ void finish_rows(Bf16 *out, float *lse, const Attention &a,
                                            const RowSums<DIM> &sums, const RowPlace place[2],
                                            const bool inside[2])
{
    int t = (int)threadIdx.x % 4;
    UNROLL
    for (int h = 0; h < 2; h++) {
        float sum = sums.sum[h];
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
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

/* blockIdx: tile of a sequence's rows, those that see most first; sequence; kv head. Warps without
 * a row bring tiles alone. */
template <int DIM, int STAGES>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_mma_kernel(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                         Attention a)
{
    SHARED_BYTES(shared);
    Bf16 *tiles = (Bf16 *)shared; /* [STAGES, 2, KV_PAGE, stride] */
    int sequence = (int)blockIdx.y, kv_head = (int)blockIdx.z;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t length = a.sequences.cu_seqlens[sequence + 1] - a.sequences.cu_seqlens[sequence];
    int64_t rows = length * a.group, first = (int64_t)(gridDim.x - 1 - blockIdx.x) * ATTENTION_ROWS;
    if (first >= rows) return;
    RowPlace place[2];
    bool inside[2];
    UNROLL
    for (int h = 0; h < 2; h++) { /* rows beyond the last one are copies of it */
        int64_t row = first + warp * MMA_M + lane / 4 + h * 8;
        inside[h] = row < rows;
        place[h] = place_of(a, sequence, kv_head, inside[h] ? row : rows - 1);
    }
    uint32_t query[DIM / MMA_K][4];
    load_words<DIM>(query, row_of(q, a, place[0]), row_of(q, a, place[1]));
    RowSums<DIM> sums = {};
    sums.max[0] = sums.max[1] = -INFINITY;
    int64_t last_row = first + ATTENTION_ROWS < rows ? first + ATTENTION_ROWS - 1 : rows - 1;
    int64_t end = place_of(a, sequence, kv_head, last_row).position + 1;
    bool works = first + warp * MMA_M < rows;
    UNROLL
    for (int ahead = 0; ahead < STAGES - 1; ahead++) {
        if (ahead * KV_PAGE < end)
            load_keys<DIM>(tiles + ahead * 2 * tile_elements<DIM>(), a, k, v, sequence, kv_head,
                           ahead * KV_PAGE, end);
        copies_commit();
    }
    for (int64_t begin = 0; begin < end; begin += KV_PAGE) {
        int64_t tile = begin / KV_PAGE;
        Bf16 *keys = tiles + tile % STAGES * 2 * tile_elements<DIM>();
        int64_t later = begin + (STAGES - 1) * KV_PAGE;
        if (later < end)
            load_keys<DIM>(tiles + (tile + STAGES - 1) % STAGES * 2 * tile_elements<DIM>(), a, k, v,
                           sequence, kv_head, later, end);
        copies_commit();
        copies_wait<STAGES - 1>();
        __syncthreads();
        if (works) {
            float score[KV_PAGE / MMA_N][4] = {};
            int64_t ahead[2] = {place[0].position + 1 - begin, place[1].position + 1 - begin};
            int seen[2] = {ahead[0] < KV_PAGE ? (int)ahead[0] : KV_PAGE,
                           ahead[1] < KV_PAGE ? (int)ahead[1] : KV_PAGE};
            multiply_rows<DIM>(score, query, keys);
            weigh<DIM>(&sums, score, seen, a.shape.scale * LOG2_E);
            add_rows<DIM>(sums.out, score, keys + tile_elements<DIM>());
        }
        __syncthreads();
    }
    if (works) finish_rows<DIM>(out, lse, a, sums, place, inside);
}

bool attention_mma_fits(const AttentionShape *shape)
{
    int dim = shape->head_dim, packed = pack_count<Bf16>();
    return (dim == 32 || dim == 64 || dim == 128) && shape->q_stride % packed == 0 &&
           shape->k_stride % packed == 0 && shape->v_stride % packed == 0 &&
           shape->out_stride % packed == 0;
}

template <int DIM, int STAGES>
static void launch_in(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                      const Attention &a, int64_t longest)
{
    size_t bytes = (size_t)(STAGES * 2 * tile_elements<DIM>()) * sizeof(Bf16);
    dim3 grid((unsigned)ceil_div(longest * a.group, ATTENTION_ROWS),
              (unsigned)a.sequences.num_sequences, (unsigned)a.shape.num_kv_heads);
    ALLOW_SHARED((attention_mma_kernel<DIM, STAGES>), bytes);
    LAUNCH((attention_mma_kernel<DIM, STAGES>), grid, ATTENTION_THREADS, bytes, out, lse, q, k, v,
           a);
}

/* How tiles come shows in no bit. */
template <int DIM>
static void launch(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                   const Attention &a, int64_t longest)
{
    if (longest * a.group <= MMA_M)
        launch_in<DIM, STAGES_FEW>(out, lse, q, k, v, a, longest);
    else
        launch_in<DIM, STAGES_MANY>(out, lse, q, k, v, a, longest);
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
