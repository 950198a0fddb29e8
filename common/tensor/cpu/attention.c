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
    int64_t rows;     /* of the whole batch */
    int64_t kv_parts; /* units per sequence: ranges of kv heads ... */
    int64_t splits;   /* ... times ranges of query blocks */
    char *scratch;
    size_t scratch_bytes; /* per thread */
} AttentionRun;

/* The memory of a thread. */
typedef struct AttentionTiles {
    float *query;  /* [BLOCK][depth] cells */
    float *output; /* [BLOCK][padded] f32 */
    float *key;    /* [blocks][depth][BLOCK] cells */
    float *value;  /* [blocks][block_depth][padded] cells */
    float max[BLOCK], sum[BLOCK];
    /* [BLOCK][BLOCK] f32, then probabilities [BLOCK][block_depth] cells */
    float score[BLOCK * BLOCK];
} AttentionTiles;

/* A part of the work on a sequence: some of its query rows for one kv head, or, when its rows are
 * so few that those of several heads fit a tile (decoding), all rows for some kv heads. Taken
 * through the keys together these read each row of the cache in one go. */
typedef struct AttentionUnit {
    const AttentionRun *run;
    const TileFormat *format;
    AttentionTiles *tiles;
    CellRows key, value; /* row p: position p; of the first kv head */
    int kv_head, kv_heads;
    int64_t row;       /* of the batch: the sequence's first */
    int64_t first;     /* its position */
    int64_t end;       /* the position after the last row */
    int64_t packed;    /* key blocks packed so far */
    bool keeps_blocks; /* one slot per key block, or one slot for all */
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

/* Packs key block `index` of the unit's kv head number `head` if it is not there yet; blocks are
 * asked for in order. Returns where its slot begins in `key` and `value`. */
static int64_t unit_pack_block(AttentionUnit *unit, int64_t index, int head)
{
    const TileFormat *format = unit->format;
    const int64_t at = unit->keeps_blocks ? index * format->block : 0;
    if (unit->keeps_blocks && index < unit->packed) return at;
    const int64_t first = index * BLOCK;
    const int count = unit->end - first < BLOCK ? (int)(unit->end - first) : BLOCK;
    CellRows key = unit->key, value = unit->value;
    key.data += head * head_bytes(format);
    value.data += head * head_bytes(format);
    key.ahead = unit->keeps_blocks ? 0 : BLOCK * key.stride;
    value.ahead = unit->keeps_blocks ? 0 : BLOCK * value.stride;
    pack_turned(format, unit->tiles->key + at, key, first, count);
    pack_stacked(format, unit->tiles->value + at, value, first, count);
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

/* Query rows within one block, of one head or of more: row i is at position first + i % count, of
 * head `head` + i / count. */
typedef struct QueryRows {
    int head, heads;
    int64_t first;
    int count;
    int base; /* where they lie in the tiles */
} QueryRows;

static void unit_softmax(const AttentionUnit *unit, const QueryRows *rows, int64_t key_block)
{
    const int padded = unit->format->padded;
    const float scale = unit->run->shape->scale;
    AttentionTiles *tiles = unit->tiles;
    for (int i = 0; i < rows->heads * rows->count; i++) {
        const int64_t after = rows->first + i % rows->count + 1 - key_block * BLOCK;
        const int visible = after < BLOCK ? (int)after : BLOCK, at = rows->base + i;
        float *score = tiles->score + at * BLOCK, factor;
        if (unit->format->pairs)
            factor = softmax_row(score, visible, scale, &tiles->max[at], &tiles->sum[at], true);
        else
            factor = softmax_row(score, visible, scale, &tiles->max[at], &tiles->sum[at], false);
        if (factor == 1) continue;
        float *output = tiles->output + at * padded;
        for (int d = 0; d < padded; d += LANES)
            lanes_store(output + d, lanes_mul(lanes_load(output + d), lanes_set(factor)));
    }
}

/* Takes the rows through a key block of the unit's kv head number `kv`; `rows` are those that read
 * it. */
static void unit_key_block(AttentionUnit *unit, const QueryRows *rows, int64_t key_block, int kv)
{
    const TileFormat *format = unit->format;
    AttentionTiles *tiles = unit->tiles;
    const int64_t at = unit_pack_block(unit, key_block, kv);
    TileProduct scores = {.c = tiles->score + rows->base * BLOCK,
                          .a = tiles->query + rows->base * format->depth,
                          .b = tiles->key + at,
                          .c_row = BLOCK,
                          .a_row = format->depth,
                          .a_step = 1,
                          .b_row = BLOCK,
                          .rows = rows->heads * rows->count,
                          .columns = BLOCK,
                          .depth = format->depth,
                          .pairs = format->pairs};
    TileProduct outputs = {.c = tiles->output + rows->base * format->padded,
                           .a = scores.c,
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
        for (int kv = 0; kv < unit->kv_heads; kv++) {
            QueryRows part = *rows;
            part.heads = rows->heads / unit->kv_heads;
            part.base = kv * part.heads * count;
            unit_key_block(unit, &part, key_block, kv);
        }
    for (int i = 0; i < all; i++) {
        const int64_t row = batch_row + i % count, head = rows->head + i / count;
        row_narrow(format, run->out, row * shape->out_stride + head * format->dim,
                   tiles->output + i * format->padded, 1.0f / tiles->sum[i]);
        if (run->lse != NULL)
            run->lse[head * run->rows + row] = tiles->max[i] + logf(tiles->sum[i]);
    }
}

/* The unit of all rows of a sequence, for kv heads from `kv_head` on. */
static AttentionUnit unit_at(const AttentionRun *run, int64_t sequence, int kv_head)
{
    const AttentionShape *shape = run->shape;
    const SequenceTable *table = run->sequences;
    const TileFormat *format = &run->format;
    AttentionUnit unit = {.run = run,
                          .format = format,
                          .row = table->cu_seqlens[sequence],
                          .kv_head = kv_head,
                          .kv_heads = 1};
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

/* Query blocks [begin, end) of the sequence. */
static void unit_run(AttentionUnit *unit, int64_t begin, int64_t end)
{
    const AttentionShape *shape = unit->run->shape;
    const int heads = shape->num_heads / shape->num_kv_heads * unit->kv_heads;
    for (int64_t block = begin; block < end; block++) {
        QueryRows rows = {.first = block * BLOCK > unit->first ? block * BLOCK : unit->first};
        const int64_t stop = (block + 1) * BLOCK < unit->end ? (block + 1) * BLOCK : unit->end;
        rows.count = (int)(stop - rows.first);
        const int together = BLOCK / rows.count < heads ? BLOCK / rows.count : heads;
        for (int h = 0; h < heads; h += together) {
            rows.head = unit->kv_head * (heads / unit->kv_heads) + h;
            rows.heads = heads - h < together ? heads - h : together;
            unit_query_rows(unit, &rows);
        }
    }
}

static void attention_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const AttentionRun *run = context;
    const int64_t split = index % run->splits, part = index / run->splits % run->kv_parts;
    const int64_t kv_heads = run->shape->num_kv_heads;
    const int64_t kv_head = kv_heads * part / run->kv_parts;
    AttentionUnit unit = unit_at(run, index / run->splits / run->kv_parts, (int)kv_head);
    if (unit.end == unit.first) return;
    unit.kv_heads = (int)(kv_heads * (part + 1) / run->kv_parts - kv_head);
    const int64_t first_block = unit.first / BLOCK;
    const int64_t blocks = (unit.end + BLOCK - 1) / BLOCK - first_block;
    const int64_t begin = first_block + blocks * split / run->splits;
    const int64_t end = first_block + blocks * (split + 1) / run->splits;
    const int group = run->shape->num_heads / run->shape->num_kv_heads;
    /* Rows that fit one tile go through the key blocks once; else they come again. */
    unit.keeps_blocks = end - begin > 1 || (unit.end - unit.first) * group > BLOCK;
    unit.tiles = tiles_at(run->scratch + (size_t)thread * run->scratch_bytes, unit.format,
                          unit.keeps_blocks ? first_block + blocks : 1);
    unit_run(&unit, begin, end);
}

/* How the work is cut among threads; it does not show in the results. */
static void run_split(AttentionRun *run, int64_t longest_query)
{
    const int64_t threads = parallel_threads(), sequences = run->sequences->num_sequences;
    const int64_t kv_heads = run->shape->num_kv_heads, wanted = threads == 1 ? 1 : 4 * threads;
    run->kv_parts = kv_heads;
    run->splits = 1;
    if (longest_query == 1 && run->shape->num_heads <= BLOCK) {
        const int64_t parts = (wanted + sequences - 1) / sequences;
        if (parts < kv_heads) run->kv_parts = parts;
    } else if (sequences * kv_heads < wanted) {
        run->splits = (wanted + sequences * kv_heads - 1) / (sequences * kv_heads);
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
    if (run.rows == 0) return;
    int64_t blocks = 1, longest_query = 0;
    for (int i = 0; i < sequences->num_sequences; i++) {
        const AttentionUnit unit = unit_at(&run, i, 0);
        const int64_t needed = (unit.end + BLOCK - 1) / BLOCK, rows = unit.end - unit.first;
        if (needed > blocks) blocks = needed;
        if (rows > longest_query) longest_query = rows;
    }
    run_split(&run, longest_query);
    run.scratch_bytes = tiles_bytes(&run.format, blocks);
    run.scratch = scratch_take(SCRATCH_ATTENTION, (size_t)parallel_threads() * run.scratch_bytes);
    parallel_units(sequences->num_sequences * run.kv_parts * run.splits, attention_unit, &run);
}
