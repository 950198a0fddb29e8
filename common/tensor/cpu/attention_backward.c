/* Causal grouped-query attention, backward (Dao et al. 2022, algorithm 4): with p = exp(s - lse)
 * recomputed tile by tile and delta = sum over d of dout * out, dv += p^T dout,  dp = dout V^T,  ds
 * = p (dp - delta) scale,  dq += ds K,  dk += ds^T Q. The gradients of a key block are summed over
 * the heads that read it and over query blocks, those of a query row over key blocks, always in
 * ascending order. */
#include "tensor/cpu/attention.h"

#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/tile.h"

typedef struct BackwardRun {
    void *dq, *dk, *dv;
    DType dtype;
    const void *dout, *q, *k, *v, *out;
    const float *lse;
    const AttentionShape *shape;
    const SequenceTable *sequences;
    int64_t rows;       /* of the whole batch */
    int64_t blocks_max; /* of the longest sequence */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} BackwardRun;

/* The memory of a thread: one sequence, one kv head, one query head. [n] is the sequence, whole
 * blocks. */
typedef struct BackwardTiles {
    float *key, *key_turned, *value_turned; /* [n][padded], [n / BLOCK][padded][BLOCK] twice */
    float *query, *dout, *dquery;           /* [n][padded] */
    float *dkey, *dvalue;                   /* [n][padded] */
    float *delta, *lse;                     /* [n] */
    float score[BLOCK * BLOCK], dscore[BLOCK * BLOCK];
} BackwardTiles;

/* A sequence and a kv head. */
typedef struct BackwardUnit {
    const BackwardRun *run;
    BackwardTiles *tiles;
    int64_t row, length; /* the sequence's rows in the batch */
    int dim, padded;
} BackwardUnit;

static size_t tiles_floats(int64_t blocks, int head_dim)
{
    return (size_t)(blocks * BLOCK) * (8 * (size_t)padded_dim(head_dim) + 2);
}

static BackwardTiles *tiles_at(char *memory, int64_t blocks, int head_dim)
{
    BackwardTiles *tiles = (BackwardTiles *)memory;
    float *next = (float *)(memory + scratch_round(sizeof *tiles));
    float **matrices[] = {&tiles->key,  &tiles->key_turned, &tiles->value_turned, &tiles->query,
                          &tiles->dout, &tiles->dquery,     &tiles->dkey,         &tiles->dvalue};
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        *matrices[i] = next;
        next += blocks * BLOCK * padded_dim(head_dim);
    }
    tiles->delta = next;
    tiles->lse = next + blocks * BLOCK;
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
    const AttentionShape *shape = run->shape;
    const int64_t column = (int64_t)kv_head * unit->dim;
    const HeadRows key = head_rows(run->k, run->dtype, shape->k_stride, unit->row, column);
    const HeadRows value = head_rows(run->v, run->dtype, shape->v_stride, unit->row, column);
    const int64_t padded = unit->padded;
    for (int64_t first = 0; first < unit->length; first += BLOCK) {
        const int count = rows_in(unit, first / BLOCK);
        float *rows = unit->tiles->key + first * padded;
        memset(rows, 0, sizeof *rows * (size_t)(BLOCK * padded));
        rows_widen(rows, key, first, count, unit->dim);
        rows_turn(unit->tiles->key_turned + first * padded, key, first, count, unit->dim);
        rows_turn(unit->tiles->value_turned + first * padded, value, first, count, unit->dim);
    }
    const size_t bytes = sizeof(float) * (size_t)unit->length * (size_t)padded;
    memset(unit->tiles->dkey, 0, bytes);
    memset(unit->tiles->dvalue, 0, bytes);
}

static void unit_load_head(const BackwardUnit *unit, int head)
{
    const BackwardRun *run = unit->run;
    const AttentionShape *shape = run->shape;
    BackwardTiles *tiles = unit->tiles;
    const int64_t column = (int64_t)head * unit->dim, padded = unit->padded;
    const HeadRows query = head_rows(run->q, run->dtype, shape->q_stride, unit->row, column);
    const HeadRows dout = head_rows(run->dout, run->dtype, shape->out_stride, unit->row, column);
    const HeadRows out = head_rows(run->out, run->dtype, shape->out_stride, unit->row, column);
    for (int64_t i = 0; i < unit->length; i++) {
        Lanes sum = lanes_set(0);
        for (int d = 0; d < unit->dim; d += LANES) {
            const int64_t at = i * shape->out_stride, end = at + unit->dim;
            sum = lanes_fma(lanes_load_row(dout.data, at + d, end, run->dtype),
                            lanes_load_row(out.data, at + d, end, run->dtype), sum);
        }
        tiles->delta[i] = lanes_sum(sum);
        tiles->lse[i] = run->lse[head * run->rows + unit->row + i];
    }
    const size_t bytes = sizeof(float) * (size_t)unit->length * (size_t)padded;
    memset(tiles->query, 0, bytes);
    memset(tiles->dout, 0, bytes);
    memset(tiles->dquery, 0, bytes);
    for (int64_t first = 0; first < unit->length; first += BLOCK) {
        rows_widen(tiles->query + first * padded, query, first, rows_in(unit, first / BLOCK),
                   unit->dim);
        rows_widen(tiles->dout + first * padded, dout, first, rows_in(unit, first / BLOCK),
                   unit->dim);
    }
}

/* score becomes p, dscore becomes ds; keys after a row's own position count as absent. */
static void unit_softmax(const BackwardUnit *unit, int64_t query_block, int64_t key_block)
{
    BackwardTiles *tiles = unit->tiles;
    const Lanes scale = lanes_set(unit->run->shape->scale);
    for (int i = 0; i < rows_in(unit, query_block); i++) {
        const int64_t row = query_block * BLOCK + i;
        const int64_t visible = row - key_block * BLOCK + 1;
        const Lanes lse = lanes_set(tiles->lse[row]), delta = lanes_set(tiles->delta[row]);
        for (int j = 0; j < BLOCK; j += LANES) {
            float *score = tiles->score + i * BLOCK + j, *dscore = tiles->dscore + i * BLOCK + j;
            Lanes p = lanes_exp(lanes_sub(lanes_mul(lanes_load(score), scale), lse));
            p = lanes_keep_first(p, visible - j < BLOCK ? (int)(visible - j) : BLOCK, 0);
            lanes_store(score, p);
            lanes_store(dscore,
                        lanes_mul(lanes_mul(p, lanes_sub(lanes_load(dscore), delta)), scale));
        }
    }
}

static void unit_tile(const BackwardUnit *unit, int64_t query_block, int64_t key_block)
{
    BackwardTiles *tiles = unit->tiles;
    const int dim = unit->dim, padded = unit->padded;
    const int rows = rows_in(unit, query_block), keys = rows_in(unit, key_block);
    const int64_t q = query_block * BLOCK * padded, k = key_block * BLOCK * padded;
    TileProduct scores = {.c = tiles->score,
                          .a = tiles->query + q,
                          .b = tiles->key_turned + k,
                          .c_row = BLOCK,
                          .a_row = padded,
                          .a_step = 1,
                          .b_row = BLOCK,
                          .rows = rows,
                          .columns = BLOCK,
                          .depth = dim};
    tile_product(&scores);
    scores.c = tiles->dscore;
    scores.a = tiles->dout + q;
    scores.b = tiles->value_turned + k;
    tile_product(&scores);
    unit_softmax(unit, query_block, key_block);
    TileProduct turned = {.c = tiles->dvalue + k,
                          .a = tiles->score,
                          .b = tiles->dout + q,
                          .c_row = padded,
                          .a_row = 1,
                          .a_step = BLOCK,
                          .b_row = padded,
                          .rows = keys,
                          .columns = padded,
                          .depth = rows,
                          .accumulate = true};
    tile_product(&turned);
    turned.c = tiles->dkey + k;
    turned.a = tiles->dscore;
    turned.b = tiles->query + q;
    tile_product(&turned);
    const TileProduct queries = {.c = tiles->dquery + q,
                                 .a = tiles->dscore,
                                 .b = tiles->key + k,
                                 .c_row = padded,
                                 .a_row = BLOCK,
                                 .a_step = 1,
                                 .b_row = padded,
                                 .rows = rows,
                                 .columns = padded,
                                 .depth = keys,
                                 .accumulate = true};
    tile_product(&queries);
}

static void unit_store(const BackwardUnit *unit, void *to, int64_t stride, int64_t column,
                       const float *from)
{
    for (int64_t i = 0; i < unit->length; i++)
        row_narrow(to, unit->run->dtype, (unit->row + i) * stride + column, from + i * unit->padded,
                   unit->dim, 1.0f);
}

static void backward_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const BackwardRun *run = context;
    const AttentionShape *shape = run->shape;
    const int kv_head = (int)(index % shape->num_kv_heads);
    const int32_t *cu_seqlens = run->sequences->cu_seqlens + index / shape->num_kv_heads;
    const BackwardUnit unit = {.run = run,
                               .tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes,
                                                 run->blocks_max, shape->head_dim),
                               .row = cu_seqlens[0],
                               .length = cu_seqlens[1] - cu_seqlens[0],
                               .dim = shape->head_dim,
                               .padded = padded_dim(shape->head_dim)};
    const int group = shape->num_heads / shape->num_kv_heads;
    const int64_t blocks = (unit.length + BLOCK - 1) / BLOCK;
    unit_load_keys(&unit, kv_head);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        unit_load_head(&unit, head);
        for (int64_t key_block = 0; key_block < blocks; key_block++)
            for (int64_t query_block = key_block; query_block < blocks; query_block++)
                unit_tile(&unit, query_block, key_block);
        unit_store(&unit, run->dq, shape->q_stride, (int64_t)head * unit.dim, unit.tiles->dquery);
    }
    unit_store(&unit, run->dk, shape->k_stride, (int64_t)kv_head * unit.dim, unit.tiles->dkey);
    unit_store(&unit, run->dv, shape->v_stride, (int64_t)kv_head * unit.dim, unit.tiles->dvalue);
}

void cpu_attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                            const void *q, const void *k, const void *v, const void *out,
                            const float *lse, const AttentionShape *shape,
                            const SequenceTable *sequences)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(shape->num_kv_heads > 0 && shape->num_heads % shape->num_kv_heads == 0);
    BackwardRun run = {.dq = dq,
                       .dk = dk,
                       .dv = dv,
                       .dtype = dtype,
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
    run.scratch_bytes =
        scratch_round(scratch_round(sizeof(BackwardTiles)) +
                      sizeof(float) * tiles_floats(run.blocks_max, shape->head_dim));
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)parallel_threads() * run.scratch_bytes);
    parallel_units((int64_t)sequences->num_sequences * shape->num_kv_heads, backward_unit, &run);
}
