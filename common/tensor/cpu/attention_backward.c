/* Causal grouped-query attention, backward (Dao et al. 2022, algorithm 4): with p = exp(s - lse)
 * recomputed tile by tile and delta = sum over d of dout * out, dv += p^T dout,  dp = dout V^T,  ds
 * = p (dp - delta) scale,  dq += ds K,  dk += ds^T Q. The gradients of a key block are summed over
 * the heads that read it and over query blocks, those of a query row over key blocks, always in
 * ascending order. A unit of work is a sequence and a kv head. */
#include "tensor/cpu/attention.h"

#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"

typedef struct BackwardRun {
    TileFormat format;
    void *dq, *dk, *dv;
    const void *dout, *q, *k, *v, *out;
    const float *lse;
    const AttentionShape *shape;
    const SequenceTable *sequences;
    int64_t rows;       /* of the whole batch */
    int64_t blocks_max; /* of the longest sequence */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} BackwardRun;

/* The memory of a thread, for one sequence, kv head and query head. Cells, block by block: */
typedef struct BackwardTiles {
    float *key_turned, *value_turned; /* [depth][BLOCK] */
    float *key;                       /* [block_depth][padded] */
    float *query_rows, *dout_rows;    /* [BLOCK][depth] */
    float *query, *dout;              /* [block_depth][padded]; without pairs the rows themselves */
    float *dquery, *dkey, *dvalue;    /* f32 [BLOCK][padded] */
    float *delta, *lse;               /* f32 [BLOCK] */
    float score[BLOCK * BLOCK];       /* f32 [query][key]; p as cells [block_depth][key] */
    float dscore[BLOCK * BLOCK];      /* the same of dp and ds */
    float dscore_rows[BLOCK * BLOCK]; /* ds as cells [query][block_depth]; without pairs unused */
} BackwardTiles;

typedef struct BackwardUnit {
    const BackwardRun *run;
    const TileFormat *format;
    BackwardTiles *tiles;
    int64_t row, length; /* the sequence's rows in the batch */
} BackwardUnit;

static size_t tiles_bytes(const TileFormat *format, int64_t blocks)
{
    const int64_t cells = blocks * (7 * format->block + BLOCK * (3 * format->padded + 2));
    return scratch_round(scratch_round(sizeof(BackwardTiles)) + sizeof(float) * (size_t)cells);
}

static BackwardTiles *tiles_at(char *memory, const TileFormat *format, int64_t blocks)
{
    BackwardTiles *tiles = (BackwardTiles *)memory;
    float *next = (float *)(memory + scratch_round(sizeof *tiles));
    float **cells[] = {&tiles->key_turned, &tiles->value_turned, &tiles->key, &tiles->query_rows,
                       &tiles->dout_rows,  &tiles->query,        &tiles->dout};
    float **sums[] = {&tiles->dquery, &tiles->dkey, &tiles->dvalue};
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++, next += blocks * format->block)
        *cells[i] = next;
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++)
        *sums[i] = next + (int64_t)i * blocks * BLOCK * format->padded;
    next += 3 * blocks * BLOCK * format->padded;
    tiles->delta = next;
    tiles->lse = next + blocks * BLOCK;
    if (!format->pairs) {
        tiles->query = tiles->query_rows;
        tiles->dout = tiles->dout_rows;
    }
    return tiles;
}

static int rows_in(const BackwardUnit *unit, int64_t block)
{
    const int64_t left = unit->length - block * BLOCK;
    return left < BLOCK ? (int)left : BLOCK;
}

static void unit_load_keys(const BackwardUnit *unit, int kv_head)
{
    const BackwardRun *run = unit->run;
    const TileFormat *format = unit->format;
    BackwardTiles *tiles = unit->tiles;
    const int64_t column = (int64_t)kv_head * format->dim;
    const CellRows key = head_rows(format, run->k, run->shape->k_stride, unit->row, column);
    const CellRows value = head_rows(format, run->v, run->shape->v_stride, unit->row, column);
    for (int64_t block = 0; block * BLOCK < unit->length; block++) {
        const int64_t at = block * format->block, first = block * BLOCK;
        const int count = rows_in(unit, block);
        pack_turned(format, tiles->key_turned + at, key, first, count);
        pack_turned(format, tiles->value_turned + at, value, first, count);
        pack_stacked(format, tiles->key + at, key, first, count);
    }
    const size_t bytes = sizeof(float) * (size_t)(unit->length * format->padded);
    memset(tiles->dkey, 0, bytes);
    memset(tiles->dvalue, 0, bytes);
}

ALWAYS_INLINE float row_dot(const TileFormat *format, const char *a, const char *b, DType dtype)
{
    Lanes sum = lanes_set(0);
    for (int d = 0; d < format->dim; d += LANES)
        sum = lanes_fma(lanes_load_row(a, d, format->dim, dtype),
                        lanes_load_row(b, d, format->dim, dtype), sum);
    return lanes_sum(sum);
}

static void unit_load_head(const BackwardUnit *unit, int head)
{
    const BackwardRun *run = unit->run;
    const TileFormat *format = unit->format;
    const AttentionShape *shape = run->shape;
    BackwardTiles *tiles = unit->tiles;
    const int64_t column = (int64_t)head * format->dim;
    const CellRows query = head_rows(format, run->q, shape->q_stride, unit->row, column);
    const CellRows dout = head_rows(format, run->dout, shape->out_stride, unit->row, column);
    const CellRows out = head_rows(format, run->out, shape->out_stride, unit->row, column);
    for (int64_t i = 0; i < unit->length; i++) {
        const char *a = dout.data + i * dout.stride, *b = out.data + i * out.stride;
        tiles->delta[i] = format->dtype == DTYPE_F32 ? row_dot(format, a, b, DTYPE_F32)
                                                     : row_dot(format, a, b, DTYPE_BF16);
        tiles->lse[i] = run->lse[head * run->rows + unit->row + i];
    }
    for (int64_t block = 0; block * BLOCK < unit->length; block++) {
        const int64_t at = block * format->block, first = block * BLOCK;
        const int count = rows_in(unit, block);
        pack_rows(format, tiles->query_rows + at, query, first, count);
        pack_rows(format, tiles->dout_rows + at, dout, first, count);
        if (!format->pairs) continue;
        pack_stacked(format, tiles->query + at, query, first, count);
        pack_stacked(format, tiles->dout + at, dout, first, count);
    }
    memset(tiles->dquery, 0, sizeof(float) * (size_t)(unit->length * format->padded));
}

/* p and ds of sixteen keys of a row, from its scores and dp. */
ALWAYS_INLINE Lanes probability(const float *score, int visible, float scale, float lse)
{
    const Lanes value = lanes_mul(lanes_load(score), lanes_set(scale));
    return lanes_keep_first(lanes_exp(lanes_sub(value, lanes_set(lse))), visible, 0);
}

ALWAYS_INLINE Lanes score_gradient(Lanes p, const float *dscore, int visible, float scale,
                                   float delta)
{
    const Lanes difference = lanes_sub(lanes_load(dscore), lanes_set(delta));
    const Lanes value = lanes_mul(lanes_mul(p, difference), lanes_set(scale));
    return lanes_keep_first(value, visible, 0);
}

/* Rows 2i and 2i + 1, of which the second may not exist, into cells. */
ALWAYS_INLINE void softmax_rows(const BackwardUnit *unit, int64_t row, int i, int64_t key_first,
                                bool pairs)
{
    BackwardTiles *tiles = unit->tiles;
    const float scale = unit->run->shape->scale;
    Lanes p[2][BLOCK / LANES], ds[2][BLOCK / LANES];
    for (int side = 0; side < (pairs ? 2 : 1); side++) {
        const bool exists = row + side < unit->length;
        const int64_t after = row + side + 1 - key_first;
        const int visible = !exists ? 0 : after < BLOCK ? (int)after : BLOCK;
        const float *score = tiles->score + (i + side) * BLOCK;
        const float *dscore = tiles->dscore + (i + side) * BLOCK;
        const float lse = exists ? tiles->lse[row + side] : 0;
        const float delta = exists ? tiles->delta[row + side] : 0;
        for (int j = 0; j < BLOCK / LANES; j++) {
            p[side][j] = probability(score + j * LANES, visible - j * LANES, scale, lse);
            ds[side][j] =
                score_gradient(p[side][j], dscore + j * LANES, visible - j * LANES, scale, delta);
        }
    }
    for (int j = 0; j < BLOCK / LANES; j++) {
        const int at = (pairs ? i / 2 : i) * BLOCK + j * LANES;
        lanes_store(tiles->score + at, pairs ? lanes_round_pairs(p[0][j], p[1][j]) : p[0][j]);
        lanes_store(tiles->dscore + at, pairs ? lanes_round_pairs(ds[0][j], ds[1][j]) : ds[0][j]);
    }
    if (!pairs) return;
    for (int side = 0; side < 2; side++)
        for (int j = 0; j < BLOCK / LANES; j += 2)
            lanes_store(tiles->dscore_rows + (i + side) * BLOCK / 2 + j / 2 * LANES,
                        lanes_round_neighbours(ds[side][j], ds[side][j + 1]));
}

/* Scores and dp of a tile become p and ds; keys after a row's own position count as absent. */
static void unit_softmax(const BackwardUnit *unit, int64_t query_block, int64_t key_block)
{
    const int rows = rows_in(unit, query_block);
    for (int i = 0; i < rows; i += unit->format->pairs ? 2 : 1) {
        if (unit->format->pairs)
            softmax_rows(unit, query_block * BLOCK + i, i, key_block * BLOCK, true);
        else
            softmax_rows(unit, query_block * BLOCK + i, i, key_block * BLOCK, false);
    }
}

static void unit_tile(const BackwardUnit *unit, int64_t query_block, int64_t key_block)
{
    const TileFormat *format = unit->format;
    BackwardTiles *tiles = unit->tiles;
    const bool diagonal = query_block == key_block, pairs = format->pairs;
    const int rows = rows_in(unit, query_block), keys = rows_in(unit, key_block);
    const int cell = pairs ? 2 : 1, padded = format->padded;
    const int64_t q = query_block * format->block, k = key_block * format->block;
    TileProduct scores = {.c = tiles->score,
                          .a = tiles->query_rows + q,
                          .b = tiles->key_turned + k,
                          .c_row = BLOCK,
                          .a_row = format->depth,
                          .a_step = 1,
                          .b_row = BLOCK,
                          .rows = rows,
                          .columns = BLOCK,
                          .depth = format->depth,
                          .pairs = pairs,
                          .mask = diagonal ? TILE_SCORES : TILE_FULL};
    tile_product(&scores);
    scores.c = tiles->dscore;
    scores.a = tiles->dout_rows + q;
    scores.b = tiles->value_turned + k;
    tile_product(&scores);
    unit_softmax(unit, query_block, key_block);
    TileProduct over_queries = {.c = tiles->dvalue + key_block * BLOCK * padded,
                                .a = tiles->score,
                                .b = tiles->dout + q,
                                .c_row = padded,
                                .a_row = 1,
                                .a_step = BLOCK,
                                .b_row = padded,
                                .rows = keys,
                                .columns = padded,
                                .depth = (rows + cell - 1) / cell,
                                .accumulate = true,
                                .pairs = pairs,
                                .mask = diagonal ? TILE_KEYS : TILE_FULL};
    tile_product(&over_queries);
    over_queries.c = tiles->dkey + key_block * BLOCK * padded;
    over_queries.a = tiles->dscore;
    over_queries.b = tiles->query + q;
    tile_product(&over_queries);
    const TileProduct over_keys = {.c = tiles->dquery + query_block * BLOCK * padded,
                                   .a = pairs ? tiles->dscore_rows : tiles->dscore,
                                   .b = tiles->key + k,
                                   .c_row = padded,
                                   .a_row = format->block_depth,
                                   .a_step = 1,
                                   .b_row = padded,
                                   .rows = rows,
                                   .columns = padded,
                                   .depth = (keys + cell - 1) / cell,
                                   .accumulate = true,
                                   .pairs = pairs,
                                   .mask = diagonal ? TILE_QUERIES : TILE_FULL};
    tile_product(&over_keys);
}

static void unit_store(const BackwardUnit *unit, void *to, int64_t stride, int64_t column,
                       const float *from)
{
    for (int64_t i = 0; i < unit->length; i++)
        row_narrow(unit->format, to, (unit->row + i) * stride + column,
                   from + i * unit->format->padded, 1.0f);
}

static void backward_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const BackwardRun *run = context;
    const AttentionShape *shape = run->shape;
    const int kv_head = (int)(index % shape->num_kv_heads), dim = shape->head_dim;
    const int32_t *cu_seqlens = run->sequences->cu_seqlens + index / shape->num_kv_heads;
    const BackwardUnit unit = {.run = run,
                               .format = &run->format,
                               .tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes,
                                                 &run->format, run->blocks_max),
                               .row = cu_seqlens[0],
                               .length = cu_seqlens[1] - cu_seqlens[0]};
    const int group = shape->num_heads / shape->num_kv_heads;
    const int64_t blocks = (unit.length + BLOCK - 1) / BLOCK;
    unit_load_keys(&unit, kv_head);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        unit_load_head(&unit, head);
        for (int64_t key_block = 0; key_block < blocks; key_block++)
            for (int64_t query_block = key_block; query_block < blocks; query_block++)
                unit_tile(&unit, query_block, key_block);
        unit_store(&unit, run->dq, shape->q_stride, (int64_t)head * dim, unit.tiles->dquery);
    }
    unit_store(&unit, run->dk, shape->k_stride, (int64_t)kv_head * dim, unit.tiles->dkey);
    unit_store(&unit, run->dv, shape->v_stride, (int64_t)kv_head * dim, unit.tiles->dvalue);
}

void cpu_attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                            const void *q, const void *k, const void *v, const void *out,
                            const float *lse, const AttentionShape *shape,
                            const SequenceTable *sequences)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(shape->num_kv_heads > 0 && shape->num_heads % shape->num_kv_heads == 0);
    CHECK(shape->head_dim > 0);
    BackwardRun run = {.format = tile_format(dtype, shape->head_dim),
                       .dq = dq,
                       .dk = dk,
                       .dv = dv,
                       .dout = dout,
                       .q = q,
                       .k = k,
                       .v = v,
                       .out = out,
                       .lse = lse,
                       .shape = shape,
                       .sequences = sequences,
                       .rows = sequences->cu_seqlens[sequences->num_sequences],
                       .blocks_max = 1};
    for (int i = 0; i < sequences->num_sequences; i++) {
        CHECK(sequences->first_position == NULL || sequences->first_position[i] == 0);
        const int64_t length = sequences->cu_seqlens[i + 1] - sequences->cu_seqlens[i];
        const int64_t blocks = (length + BLOCK - 1) / BLOCK;
        if (blocks > run.blocks_max) run.blocks_max = blocks;
    }
    run.scratch_bytes = tiles_bytes(&run.format, run.blocks_max);
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)parallel_threads() * run.scratch_bytes);
    parallel_units((int64_t)sequences->num_sequences * shape->num_kv_heads, backward_unit, &run);
}
