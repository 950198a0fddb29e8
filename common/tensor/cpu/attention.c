/* Causal grouped-query attention, forward: online softmax over key blocks (Milakov & Gimelshein
 * 2018; Dao et al. 2022). For a query row with running maximum m, sum l and output o, a block of
 * scores s with maximum m' a = exp(m - max(m, m')),  p = exp(s - max(m, m')),  l = a l + sum p,  o
 * = a o + p V. */
#include "tensor/cpu/attention.h"

#include <math.h>

#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/tile.h"

typedef struct AttentionRun {
    void *out;
    float *lse;
    DType dtype;
    const void *q, *k, *v;
    const AttentionShape *shape;
    const SequenceTable *sequences;
    const KeyValueView *cache;
    int64_t rows;   /* of the whole batch */
    int64_t splits; /* units per sequence and kv head */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} AttentionRun;

/* The memory of a thread. Query rows of several heads are done together when they are few
 * (decoding). */
typedef struct AttentionTiles {
    float *key;    /* [blocks][padded][BLOCK] */
    float *value;  /* [blocks][BLOCK][padded] */
    float *query;  /* [BLOCK][padded] */
    float *output; /* [BLOCK][padded] */
    float *score;  /* [BLOCK][BLOCK] */
    float max[BLOCK], sum[BLOCK];
} AttentionTiles;

/* A sequence and a kv head. */
typedef struct AttentionUnit {
    const AttentionRun *run;
    AttentionTiles *tiles;
    HeadRows key, value; /* row p: position p */
    int64_t row;         /* of the batch: the sequence's first */
    int64_t first;       /* its position */
    int64_t end;         /* the position after the last row */
    int64_t packed;      /* key blocks packed so far */
    bool keeps_blocks;   /* one slot per key block, or one slot for all */
    int kv_head;
} AttentionUnit;

static AttentionTiles *tiles_at(char *memory, int64_t blocks, int head_dim)
{
    const size_t block = (size_t)BLOCK * (size_t)padded_dim(head_dim);
    AttentionTiles *tiles = (AttentionTiles *)memory;
    float *next = (float *)(memory + scratch_round(sizeof *tiles));
    tiles->query = next;
    tiles->output = tiles->query + block;
    tiles->score = tiles->output + block;
    tiles->key = tiles->score + BLOCK * BLOCK;
    tiles->value = tiles->key + (size_t)blocks * block;
    return tiles;
}

static size_t tiles_bytes(int64_t blocks, int head_dim)
{
    const size_t block = (size_t)BLOCK * (size_t)padded_dim(head_dim);
    return scratch_round(scratch_round(sizeof(AttentionTiles)) +
                         sizeof(float) * (block * (size_t)(2 + 2 * blocks) + BLOCK * BLOCK));
}

/* Packs key block `index` if it is not there yet; blocks are asked for in order. Returns its slot.
 */
static int64_t unit_pack_block(AttentionUnit *unit, int64_t index)
{
    const AttentionShape *shape = unit->run->shape;
    const int64_t slot = unit->keeps_blocks ? index : 0;
    if (unit->keeps_blocks && index < unit->packed) return slot;
    const size_t block = (size_t)BLOCK * (size_t)padded_dim(shape->head_dim);
    const int64_t first = index * BLOCK;
    const int count = unit->end - first < BLOCK ? (int)(unit->end - first) : BLOCK;
    float *value = unit->tiles->value + (size_t)slot * block;
    rows_turn(unit->tiles->key + (size_t)slot * block, unit->key, first, count, shape->head_dim);
    memset(value, 0, block * sizeof *value);
    rows_widen(value, unit->value, first, count, shape->head_dim);
    unit->packed = index + 1;
    return slot;
}

/* Turns a row of scores into probabilities, in place; `visible` keys of the block precede or are
 * the row's own position. Returns the factor for what was summed before. */
ALWAYS_INLINE float softmax_row(float *score, int visible, float scale, float *max, float *sum)
{
    Lanes value[BLOCK / LANES];
    Lanes top = lanes_set(-INFINITY);
    for (int j = 0; j < BLOCK / LANES; j++) {
        value[j] = lanes_mul(lanes_load(score + j * LANES), lanes_set(scale));
        value[j] = lanes_keep_first(value[j], visible - j * LANES, -INFINITY);
        top = lanes_max(top, value[j]);
    }
    const float block_max = lanes_max_across(top);
    const float new_max = block_max > *max ? block_max : *max;
    float factor[LANES];
    lanes_store(factor, lanes_exp(lanes_set(*max - new_max)));
    Lanes total = lanes_set(0);
    for (int j = 0; j < BLOCK / LANES; j++) {
        const Lanes p = lanes_exp(lanes_sub(value[j], lanes_set(new_max)));
        lanes_store(score + j * LANES, p);
        total = lanes_add(total, p);
    }
    *max = new_max;
    *sum = *sum * factor[0] + lanes_sum(total);
    return factor[0];
}

/* `count` query rows at positions [first, first + count) of one block, for `heads` heads from
 * `head` on. */
static void unit_query_rows(AttentionUnit *unit, int head, int heads, int64_t first, int count)
{
    const AttentionRun *run = unit->run;
    const AttentionShape *shape = run->shape;
    AttentionTiles *tiles = unit->tiles;
    const int dim = shape->head_dim, padded = padded_dim(dim), rows = heads * count;
    const int64_t batch_row = unit->row + first - unit->first;
    for (int h = 0; h < heads; h++) {
        const HeadRows query =
            head_rows(run->q, run->dtype, shape->q_stride, batch_row, (int64_t)(head + h) * dim);
        rows_widen(tiles->query + h * count * padded, query, 0, count, dim);
    }
    memset(tiles->output, 0, sizeof(float) * (size_t)(rows * padded));
    for (int i = 0; i < rows; i++) {
        tiles->max[i] = -INFINITY;
        tiles->sum[i] = 0;
    }
    for (int64_t index = 0; index <= first / BLOCK; index++) {
        const int64_t at = unit_pack_block(unit, index) * BLOCK * padded;
        const TileProduct scores = {.c = tiles->score,
                                    .a = tiles->query,
                                    .b = tiles->key + at,
                                    .c_row = BLOCK,
                                    .a_row = padded,
                                    .a_step = 1,
                                    .b_row = BLOCK,
                                    .rows = rows,
                                    .columns = BLOCK,
                                    .depth = dim};
        tile_product(&scores);
        for (int i = 0; i < rows; i++) {
            const int64_t visible = first + i % count - index * BLOCK + 1;
            const float factor =
                softmax_row(tiles->score + i * BLOCK, visible < BLOCK ? (int)visible : BLOCK,
                            shape->scale, &tiles->max[i], &tiles->sum[i]);
            float *output = tiles->output + i * padded;
            for (int d = 0; d < padded; d += LANES)
                lanes_store(output + d, lanes_mul(lanes_load(output + d), lanes_set(factor)));
        }
        const TileProduct outputs = {.c = tiles->output,
                                     .a = tiles->score,
                                     .b = tiles->value + at,
                                     .c_row = padded,
                                     .a_row = BLOCK,
                                     .a_step = 1,
                                     .b_row = padded,
                                     .rows = rows,
                                     .columns = padded,
                                     .depth = BLOCK,
                                     .accumulate = true};
        tile_product(&outputs);
    }
    for (int i = 0; i < rows; i++) {
        const int64_t row = batch_row + i % count, query_head = head + i / count;
        row_narrow(run->out, run->dtype, row * shape->out_stride + query_head * dim,
                   tiles->output + i * padded, dim, 1.0f / tiles->sum[i]);
        if (run->lse != NULL)
            run->lse[query_head * run->rows + row] = tiles->max[i] + logf(tiles->sum[i]);
    }
}

static AttentionUnit unit_at(const AttentionRun *run, int sequence, int kv_head)
{
    const AttentionShape *shape = run->shape;
    const SequenceTable *table = run->sequences;
    AttentionUnit unit = {.run = run, .kv_head = kv_head, .row = table->cu_seqlens[sequence]};
    unit.first = table->first_position == NULL ? 0 : table->first_position[sequence];
    unit.end = unit.first + table->cu_seqlens[sequence + 1] - unit.row;
    const int64_t column = (int64_t)kv_head * shape->head_dim;
    if (run->cache != NULL) {
        const int64_t stride = (int64_t)shape->num_kv_heads * shape->head_dim;
        unit.key = head_rows(run->cache->key[sequence], run->dtype, stride, 0, column);
        unit.value = head_rows(run->cache->value[sequence], run->dtype, stride, 0, column);
    } else {
        CHECK(unit.first == 0); /* earlier keys can only come from a cache */
        unit.key = head_rows(run->k, run->dtype, shape->k_stride, unit.row, column);
        unit.value = head_rows(run->v, run->dtype, shape->v_stride, unit.row, column);
    }
    return unit;
}

static void attention_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const AttentionRun *run = context;
    const int64_t split = index % run->splits, kv_heads = run->shape->num_kv_heads;
    const int kv_head = (int)(index / run->splits % kv_heads);
    AttentionUnit unit = unit_at(run, (int)(index / run->splits / kv_heads), kv_head);
    if (unit.end == unit.first) return;
    const int64_t first_block = unit.first / BLOCK;
    const int64_t blocks = (unit.end + BLOCK - 1) / BLOCK - first_block;
    const int64_t begin = first_block + blocks * split / run->splits;
    const int64_t end = first_block + blocks * (split + 1) / run->splits;
    const int group = run->shape->num_heads / run->shape->num_kv_heads;
    /* A few rows of all heads go through the key blocks once (decoding); else they come again. */
    unit.keeps_blocks = end - begin > 1 || (unit.end - unit.first) * group > BLOCK;
    unit.tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes,
                          unit.keeps_blocks ? first_block + blocks : 1, run->shape->head_dim);
    for (int64_t block = begin; block < end; block++) {
        const int64_t first = block * BLOCK > unit.first ? block * BLOCK : unit.first;
        const int64_t stop = (block + 1) * BLOCK < unit.end ? (block + 1) * BLOCK : unit.end;
        const int count = (int)(stop - first);
        const int together = BLOCK / count < group ? BLOCK / count : group;
        for (int h = 0; h < group; h += together)
            unit_query_rows(&unit, kv_head * group + h, group - h < together ? group - h : together,
                            first, count);
    }
}

static void attention_check(const AttentionShape *shape, DType dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(shape->num_kv_heads > 0 && shape->num_heads % shape->num_kv_heads == 0);
    CHECK(shape->head_dim > 0);
}

void cpu_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences,
                   const KeyValueView *cache)
{
    attention_check(shape, dtype);
    AttentionRun run = {.out = out,
                        .lse = lse,
                        .dtype = dtype,
                        .q = q,
                        .k = k,
                        .v = v,
                        .shape = shape,
                        .sequences = sequences,
                        .cache = cache,
                        .rows = sequences->cu_seqlens[sequences->num_sequences]};
    const int threads = parallel_threads();
    const int64_t units = (int64_t)sequences->num_sequences * shape->num_kv_heads;
    if (units == 0) return;
    run.splits = threads == 1 || units >= 4 * threads ? 1 : (4 * threads + units - 1) / units;
    int64_t blocks = 1;
    for (int i = 0; i < sequences->num_sequences; i++) {
        const AttentionUnit unit = unit_at(&run, i, 0);
        const int64_t needed = (unit.end + BLOCK - 1) / BLOCK;
        if (needed > blocks) blocks = needed;
    }
    run.scratch_bytes = tiles_bytes(blocks, shape->head_dim);
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)threads * run.scratch_bytes);
    parallel_units(units * run.splits, attention_unit, &run);
}
