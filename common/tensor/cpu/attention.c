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
    const KvPages *pages; /* or NULL */
    int64_t rows;         /* of the whole batch */
    int64_t splits;       /* units per sequence and kv head: ranges of query blocks */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} AttentionRun;

/* The memory of a thread. */
typedef struct AttentionTiles {
    float *query;  /* [BLOCK][depth] cells */
    float *output; /* [BLOCK][padded] f32 */
    float *key;    /* [blocks][depth][BLOCK] cells; without pages */
    float *value;  /* [blocks][block_depth][padded] cells */
    float max[BLOCK], sum[BLOCK];
    /* [BLOCK][BLOCK] f32, then probabilities [BLOCK][block_depth] cells */
    float score[BLOCK * BLOCK];
} AttentionTiles;

/* A part of the work on a sequence: some of its query rows for one kv head. */
typedef struct AttentionUnit {
    const AttentionRun *run;
    const TileFormat *format;
    AttentionTiles *tiles;
    const int32_t *page; /* of the sequence; NULL: keys and values are packed here */
    CellRows key, value; /* row p: position p; without pages */
    int kv_head;
    int64_t row;    /* of the batch: the sequence's first */
    int64_t first;  /* its position */
    int64_t end;    /* the position after the last row */
    int64_t packed; /* key blocks packed so far */
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

/* A block of keys, turned, and one of values, stacked. */
typedef struct KeyBlock {
    const float *key, *value;
} KeyBlock;

/* Key block `index`: of the page, or packed here if it is not yet; blocks are asked for in order.
 */
static KeyBlock unit_key_block(AttentionUnit *unit, int64_t index)
{
    const TileFormat *format = unit->format;
    if (unit->page != NULL) {
        const float *key = page_block(format, unit->run->pages, unit->page[index], unit->kv_head);
        return (KeyBlock){key, key + format->block};
    }
    float *key = unit->tiles->key + index * format->block;
    float *value = unit->tiles->value + index * format->block;
    if (index >= unit->packed) {
        const int64_t first = index * BLOCK;
        const int count = unit->end - first < BLOCK ? (int)(unit->end - first) : BLOCK;
        pack_turned(format, key, unit->key, first, count);
        pack_stacked(format, value, unit->value, first, count);
        unit->packed = index + 1;
    }
    return (KeyBlock){key, value};
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

/* Query rows within one block, of one head or of more: row i is at position first + i % count, of
 * head `head` + i / count. */
typedef struct QueryRows {
    int head, heads;
    int64_t first;
    int count;
} QueryRows;

static void unit_softmax(const AttentionUnit *unit, const QueryRows *rows, int64_t key_block)
{
    const int padded = unit->format->padded;
    const float scale = unit->run->shape->scale;
    AttentionTiles *tiles = unit->tiles;
    for (int i = 0; i < rows->heads * rows->count; i++) {
        const int64_t after = rows->first + i % rows->count + 1 - key_block * BLOCK;
        const int visible = after < BLOCK ? (int)after : BLOCK;
        float *score = tiles->score + i * BLOCK, factor;
        if (unit->format->pairs)
            factor = softmax_row(score, visible, scale, &tiles->max[i], &tiles->sum[i], true);
        else
            factor = softmax_row(score, visible, scale, &tiles->max[i], &tiles->sum[i], false);
        if (factor == 1) continue;
        float *output = tiles->output + i * padded;
        for (int d = 0; d < padded; d += LANES)
            lanes_store(output + d, lanes_mul(lanes_load(output + d), lanes_set(factor)));
    }
}

/* Takes the rows through a key block. */
static void unit_attend(AttentionUnit *unit, const QueryRows *rows, int64_t key_block)
{
    const TileFormat *format = unit->format;
    AttentionTiles *tiles = unit->tiles;
    const KeyBlock block = unit_key_block(unit, key_block);
    TileProduct scores = {.c = tiles->score,
                          .a = tiles->query,
                          .b = block.key,
                          .c_row = BLOCK,
                          .a_row = format->depth,
                          .a_step = 1,
                          .b_row = BLOCK,
                          .rows = rows->heads * rows->count,
                          .columns = BLOCK,
                          .depth = format->depth,
                          .pairs = format->pairs};
    TileProduct outputs = {.c = tiles->output,
                           .a = scores.c,
                           .b = block.value,
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
        unit_attend(unit, rows, key_block);
    for (int i = 0; i < all; i++) {
        const int64_t row = batch_row + i % count, head = rows->head + i / count;
        row_narrow(format, run->out, row * shape->out_stride + head * format->dim,
                   tiles->output + i * format->padded, 1.0f / tiles->sum[i]);
        if (run->lse != NULL)
            run->lse[head * run->rows + row] = tiles->max[i] + logf(tiles->sum[i]);
    }
}

/* The unit of all rows of a sequence for a kv head. */
static AttentionUnit unit_at(const AttentionRun *run, int64_t sequence, int kv_head)
{
    const AttentionShape *shape = run->shape;
    const SequenceTable *table = run->sequences;
    const TileFormat *format = &run->format;
    AttentionUnit unit = {
        .run = run, .format = format, .row = table->cu_seqlens[sequence], .kv_head = kv_head};
    unit.first = table->first_position == NULL ? 0 : table->first_position[sequence];
    unit.end = unit.first + table->cu_seqlens[sequence + 1] - unit.row;
    const int64_t column = (int64_t)kv_head * format->dim;
    if (run->pages != NULL) {
        unit.page = run->pages->page + run->pages->first_page[sequence];
    } else {
        CHECK(unit.first == 0); /* earlier keys can only come from pages */
        unit.key = head_rows(format, run->k, shape->k_stride, unit.row, column);
        unit.value = head_rows(format, run->v, shape->v_stride, unit.row, column);
    }
    return unit;
}

/* Query blocks [begin, end) of the sequence. */
static void unit_run(AttentionUnit *unit, int64_t begin, int64_t end)
{
    const AttentionShape *shape = unit->run->shape;
    const int group = shape->num_heads / shape->num_kv_heads;
    for (int64_t block = begin; block < end; block++) {
        QueryRows rows = {.first = block * BLOCK > unit->first ? block * BLOCK : unit->first};
        const int64_t stop = (block + 1) * BLOCK < unit->end ? (block + 1) * BLOCK : unit->end;
        rows.count = (int)(stop - rows.first);
        const int together = BLOCK / rows.count < group ? BLOCK / rows.count : group;
        for (int h = 0; h < group; h += together) {
            rows.head = unit->kv_head * group + h;
            rows.heads = group - h < together ? group - h : together;
            unit_query_rows(unit, &rows);
        }
    }
}

static void attention_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const AttentionRun *run = context;
    const int64_t kv_heads = run->shape->num_kv_heads, split = index % run->splits;
    const int64_t head = index / run->splits;
    AttentionUnit unit = unit_at(run, head / kv_heads, (int)(head % kv_heads));
    if (unit.end == unit.first) return;
    const int64_t first_block = unit.first / BLOCK;
    const int64_t blocks = (unit.end + BLOCK - 1) / BLOCK - first_block;
    unit.tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes, unit.format,
                          unit.page != NULL ? 0 : first_block + blocks);
    unit_run(&unit, first_block + blocks * split / run->splits,
             first_block + blocks * (split + 1) / run->splits);
}

/* How many ranges of query blocks the work is cut into, for enough units; it does not show in the
 * results. */
static int64_t count_splits(const AttentionRun *run, int64_t longest_query)
{
    const int64_t units = (int64_t)run->sequences->num_sequences * run->shape->num_kv_heads;
    const int64_t threads = parallel_threads(), wanted = threads == 1 ? 1 : 4 * threads;
    return longest_query <= BLOCK || units >= wanted ? 1 : (wanted + units - 1) / units;
}

void cpu_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences,
                   const KvPages *pages)
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
                        .pages = pages,
                        .rows = sequences->cu_seqlens[sequences->num_sequences]};
    if (run.rows == 0) return;
    int64_t blocks = 0, longest_query = 0;
    for (int i = 0; i < sequences->num_sequences; i++) {
        const int64_t rows = sequences->cu_seqlens[i + 1] - sequences->cu_seqlens[i];
        if (rows > longest_query) longest_query = rows;
    }
    if (pages == NULL) blocks = (longest_query + BLOCK - 1) / BLOCK;
    run.splits = count_splits(&run, longest_query);
    run.scratch_bytes = tiles_bytes(&run.format, blocks);
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)parallel_threads() * run.scratch_bytes);
    parallel_units(sequences->num_sequences * shape->num_kv_heads * run.splits, attention_unit,
                   &run);
}
