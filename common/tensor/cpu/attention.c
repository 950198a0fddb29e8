/* Causal grouped-query attention, forward: online softmax over key blocks (Milakov & Gimelshein
 * 2018; Dao et al. 2022). For a query row with running maximum m, sum l and output o, a block of
 * scores s with maximum m' a = exp(m - max(m, m')),  p = exp(s - max(m, m')),  l = a l + sum p,  o
 * = a o + p V. */
#include "tensor/cpu/attention.h"

#include <math.h>

#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"

typedef struct AttentionRun {
    TileFormat format;
    void *out;
    float *lse;
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
    float *query;  /* [BLOCK][depth] cells */
    float *output; /* [BLOCK][padded] f32 */
    float *key;    /* [blocks][depth][BLOCK] cells */
    float *value;  /* [blocks][block_depth][padded] cells */
    float max[BLOCK], sum[BLOCK];
    float score[BLOCK *
                BLOCK]; /* [BLOCK][BLOCK] f32, then probabilities [BLOCK][block_depth] cells */
} AttentionTiles;

/* A part of the query rows of a sequence, for the query heads of a kv head. */
typedef struct AttentionUnit {
    const AttentionRun *run;
    const TileFormat *format;
    AttentionTiles *tiles;
    CellRows key, value; /* row p: position p */
    int64_t row;         /* of the batch: the sequence's first */
    int64_t first;       /* its position */
    int64_t end;         /* the position after the last row */
    int64_t packed;      /* key blocks packed so far */
    bool keeps_blocks;   /* one slot per key block, or one slot for all */
} AttentionUnit;

static AttentionTiles *tiles_at(char *memory, const TileFormat *format, int64_t blocks)
{
    AttentionTiles *tiles = (AttentionTiles *)memory;
    tiles->query = (float *)(memory + scratch_round(sizeof *tiles));
    tiles->output = tiles->query + format->block;
    tiles->key = tiles->output + BLOCK * format->padded;
    tiles->value = tiles->key + blocks * format->block;
    return tiles;
}

static size_t tiles_bytes(const TileFormat *format, int64_t blocks)
{
    const int64_t cells = (1 + 2 * blocks) * format->block + BLOCK * format->padded;
    return scratch_round(scratch_round(sizeof(AttentionTiles)) + sizeof(float) * (size_t)cells);
}

/* Asks for the rows of the next block ahead of time: they are short runs far apart, which the
 * processor does not foresee. */
static void prefetch_rows(const CellRows *rows, int64_t first, int64_t end, int64_t bytes)
{
    for (int64_t row = first; row < first + BLOCK && row < end; row++)
        for (int64_t at = 0; at < bytes; at += 64)
            __builtin_prefetch(cells_row(rows, row) + at, 0, 2);
}

/* Packs key block `index` if it is not there yet; blocks are asked for in order. Returns where its
 * slot begins in `key` and `value`. */
static int64_t unit_pack_block(AttentionUnit *unit, int64_t index)
{
    const TileFormat *format = unit->format;
    const int64_t at = unit->keeps_blocks ? index * format->block : 0;
    if (unit->keeps_blocks && index < unit->packed) return at;
    const int64_t first = index * BLOCK;
    const int count = unit->end - first < BLOCK ? (int)(unit->end - first) : BLOCK;
    const int64_t row_bytes = format->dim * (format->dtype == DTYPE_F32 ? 4 : 2);
    prefetch_rows(&unit->key, first + BLOCK, unit->end, row_bytes);
    prefetch_rows(&unit->value, first + BLOCK, unit->end, row_bytes);
    pack_turned(format, unit->tiles->key + at, unit->key, first, count);
    pack_stacked(format, unit->tiles->value + at, unit->value, first, count);
    unit->packed = index + 1;
    return at;
}

/* Turns a row of scores into probabilities, in place; the first `visible` keys of the block do not
 * come after the row's own position. Returns the factor for what was summed before. */
ALWAYS_INLINE float softmax_row(float *score, int visible, float scale, float *max, float *sum,
                                bool pairs)
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
    Lanes total = lanes_set(0);
    for (int j = 0; j < BLOCK / LANES; j++) {
        value[j] = lanes_exp(lanes_sub(value[j], lanes_set(new_max)));
        total = lanes_add(total, value[j]);
    }
    for (int j = 0; j < BLOCK / LANES; j += pairs ? 2 : 1)
        lanes_store(score + (pairs ? j / 2 : j) * LANES,
                    pairs ? lanes_round_neighbours(value[j], value[j + pairs]) : value[j]);
    float factor = 1;
    if (new_max > *max) {
        float first[LANES];
        lanes_store(first, lanes_exp(lanes_set(*max - new_max)));
        factor = first[0];
        *max = new_max;
    }
    *sum = *sum * factor + lanes_sum(total);
    return factor;
}

/* The rows of a block for one or more heads: row i is at position first + i % count, of head + i /
 * count. */
typedef struct QueryRows {
    int head, heads;
    int64_t first;
    int count;
} QueryRows;

static void unit_softmax(const AttentionUnit *unit, const QueryRows *rows, int64_t key_block)
{
    const int padded = unit->format->padded;
    AttentionTiles *tiles = unit->tiles;
    for (int i = 0; i < rows->heads * rows->count; i++) {
        const int64_t after = rows->first + i % rows->count + 1 - key_block * BLOCK;
        const int visible = after < BLOCK ? (int)after : BLOCK;
        float *score = tiles->score + i * BLOCK, factor;
        if (unit->format->pairs)
            factor = softmax_row(score, visible, unit->run->shape->scale, &tiles->max[i],
                                 &tiles->sum[i], true);
        else
            factor = softmax_row(score, visible, unit->run->shape->scale, &tiles->max[i],
                                 &tiles->sum[i], false);
        if (factor == 1) continue;
        float *output = tiles->output + i * padded;
        for (int d = 0; d < padded; d += LANES)
            lanes_store(output + d, lanes_mul(lanes_load(output + d), lanes_set(factor)));
    }
}

static void unit_key_block(AttentionUnit *unit, const QueryRows *rows, int64_t key_block)
{
    const TileFormat *format = unit->format;
    AttentionTiles *tiles = unit->tiles;
    const int64_t at = unit_pack_block(unit, key_block);
    TileProduct scores = {.c = tiles->score,
                          .a = tiles->query,
                          .b = tiles->key + at,
                          .c_row = BLOCK,
                          .a_row = format->depth,
                          .a_step = 1,
                          .b_row = BLOCK,
                          .rows = rows->heads * rows->count,
                          .columns = BLOCK,
                          .depth = format->depth,
                          .pairs = format->pairs};
    TileProduct outputs = {.c = tiles->output,
                           .a = tiles->score,
                           .b = tiles->value + at,
                           .c_row = format->padded,
                           .a_row = BLOCK,
                           .a_step = 1,
                           .b_row = format->padded,
                           .rows = scores.rows,
                           .columns = format->padded,
                           .depth = format->block_depth,
                           .accumulate = true,
                           .pairs = format->pairs};
    if (rows->heads == 1 && key_block == rows->first / BLOCK) {
        scores.mask = TILE_SCORES;
        outputs.mask = TILE_QUERIES;
        scores.diagonal = outputs.diagonal = (int)(rows->first - key_block * BLOCK);
    }
    tile_product(&scores);
    unit_softmax(unit, rows, key_block);
    tile_product(&outputs);
}

static void unit_query_rows(AttentionUnit *unit, const QueryRows *rows)
{
    const AttentionRun *run = unit->run;
    const AttentionShape *shape = run->shape;
    const TileFormat *format = unit->format;
    AttentionTiles *tiles = unit->tiles;
    const int64_t batch_row = unit->row + rows->first - unit->first;
    const int count = rows->count, all = rows->heads * count;
    for (int h = 0; h < rows->heads; h++) {
        const CellRows query = head_rows(format, run->q, shape->q_stride, batch_row,
                                         (int64_t)(rows->head + h) * format->dim);
        pack_rows(format, tiles->query + h * count * format->depth, query, 0, count);
    }
    memset(tiles->output, 0, sizeof(float) * (size_t)(all * format->padded));
    for (int i = 0; i < all; i++) {
        tiles->max[i] = -INFINITY;
        tiles->sum[i] = 0;
    }
    for (int64_t key_block = 0; key_block <= rows->first / BLOCK; key_block++)
        unit_key_block(unit, rows, key_block);
    for (int i = 0; i < all; i++) {
        const int64_t row = batch_row + i % count, head = rows->head + i / count;
        row_narrow(format, run->out, row * shape->out_stride + head * format->dim,
                   tiles->output + i * format->padded, 1.0f / tiles->sum[i]);
        if (run->lse != NULL)
            run->lse[head * run->rows + row] = tiles->max[i] + logf(tiles->sum[i]);
    }
}

static AttentionUnit unit_at(const AttentionRun *run, int sequence, int kv_head)
{
    const AttentionShape *shape = run->shape;
    const SequenceTable *table = run->sequences;
    const TileFormat *format = &run->format;
    AttentionUnit unit = {.run = run, .format = format, .row = table->cu_seqlens[sequence]};
    unit.first = table->first_position == NULL ? 0 : table->first_position[sequence];
    unit.end = unit.first + table->cu_seqlens[sequence + 1] - unit.row;
    const int64_t column = (int64_t)kv_head * format->dim;
    if (run->cache != NULL) {
        const int64_t stride = (int64_t)shape->num_kv_heads * format->dim;
        unit.key = head_rows(format, run->cache->key[sequence], stride, 0, column);
        unit.value = head_rows(format, run->cache->value[sequence], stride, 0, column);
    } else {
        CHECK(unit.first == 0); /* earlier keys can only come from a cache */
        unit.key = head_rows(format, run->k, shape->k_stride, unit.row, column);
        unit.value = head_rows(format, run->v, shape->v_stride, unit.row, column);
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
    unit.tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes, unit.format,
                          unit.keeps_blocks ? first_block + blocks : 1);
    for (int64_t block = begin; block < end; block++) {
        QueryRows rows = {.first = block * BLOCK > unit.first ? block * BLOCK : unit.first};
        const int64_t stop = (block + 1) * BLOCK < unit.end ? (block + 1) * BLOCK : unit.end;
        rows.count = (int)(stop - rows.first);
        const int together = BLOCK / rows.count < group ? BLOCK / rows.count : group;
        for (int h = 0; h < group; h += together) {
            rows.head = kv_head * group + h;
            rows.heads = group - h < together ? group - h : together;
            unit_query_rows(&unit, &rows);
        }
    }
}

void cpu_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences,
                   const KeyValueView *cache)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(shape->num_kv_heads > 0 && shape->num_heads % shape->num_kv_heads == 0);
    CHECK(shape->head_dim > 0);
    AttentionRun run = {.format = tile_format(dtype, shape->head_dim),
                        .out = out,
                        .lse = lse,
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
    run.scratch_bytes = tiles_bytes(&run.format, blocks);
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)threads * run.scratch_bytes);
    parallel_units(units * run.splits, attention_unit, &run);
}
