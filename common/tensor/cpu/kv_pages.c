/* Keys and values in pages (attention.h has their layout): packed when they are stored, once, so
 * that decoding reads them as fast as memory gives them. */
#include "tensor/cpu/attention.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"

_Static_assert(KV_PAGE == BLOCK, "a page is a block of the products");

typedef struct StoreRun {
    TileFormat format;
    const KvPages *pages;
    const void *k, *v;
    const AttentionShape *shape;
    const SequenceTable *sequences;
} StoreRun;

int64_t cpu_kv_page_bytes(DType dtype, int num_kv_heads, int head_dim)
{
    const TileFormat format = tile_format(dtype, head_dim);
    return 2 * num_kv_heads * format.block * (int64_t)sizeof(float);
}

/* One key into column `column` of a turned block. */
static void store_key(const TileFormat *format, float *block, const CellRows *from, int64_t row,
                      int column)
{
    for (int at = 0; at < format->depth; at += LANES) {
        float cell[LANES];
        lanes_store(cell, cells_along(from, row, at));
        for (int i = 0; i < LANES && at + i < format->depth; i++)
            block[(at + i) * BLOCK + column] = cell[i];
    }
}

/* One value into row `column` of a stacked block: a whole row of cells, or one half of each. */
static void store_value(const TileFormat *format, float *block, const CellRows *from, int64_t row,
                        int column)
{
    if (!format->pairs) {
        for (int d = 0; d < format->padded; d += LANES)
            lanes_store(block + column * format->padded + d, cells_along(from, row, d));
        return;
    }
    const uint16_t *value = (const uint16_t *)(const void *)cells_row(from, row);
    uint16_t *half = (uint16_t *)(void *)(block + column / 2 * format->padded) + column % 2;
    for (int d = 0; d < format->dim; d++)
        half[2 * d] = value[d];
}

/* The rows of one sequence for one kv head, page by page. A page's first position clears the rest
 * of it. */
static void store_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    (void)thread;
    const StoreRun *run = context;
    const TileFormat *format = &run->format;
    const int heads = run->shape->num_kv_heads, head = (int)(index % heads);
    const int64_t sequence = index / heads, begin = run->sequences->cu_seqlens[sequence];
    const int64_t end = run->sequences->cu_seqlens[sequence + 1];
    const int64_t column = (int64_t)head * format->dim;
    const CellRows key = head_rows(format, run->k, run->shape->k_stride, begin, column);
    const CellRows value = head_rows(format, run->v, run->shape->v_stride, begin, column);
    const int32_t *page = run->pages->page + run->pages->first_page[sequence];
    int64_t position = run->sequences->first_position[sequence];
    for (int64_t row = 0; row < end - begin;) {
        const int at = (int)(position % BLOCK);
        const int count = end - begin - row < BLOCK - at ? (int)(end - begin - row) : BLOCK - at;
        float *keys = page_block(format, run->pages, page[position / BLOCK], head);
        float *values = keys + format->block;
        if (at == 0) {
            pack_turned(format, keys, key, row, count);
            pack_stacked(format, values, value, row, count);
        }
        for (int i = 0; i < count && at > 0; i++) {
            store_key(format, keys, &key, row + i, at + i);
            store_value(format, values, &value, row + i, at + i);
        }
        row += count;
        position += count;
    }
}

void cpu_kv_store(const KvPages *pages, DType dtype, const void *k, const void *v,
                  const AttentionShape *shape, const SequenceTable *sequences)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(pages->page_bytes == cpu_kv_page_bytes(dtype, shape->num_kv_heads, shape->head_dim));
    const StoreRun run = {.format = tile_format(dtype, shape->head_dim),
                          .pages = pages,
                          .k = k,
                          .v = v,
                          .shape = shape,
                          .sequences = sequences};
    parallel_units((int64_t)sequences->num_sequences * shape->num_kv_heads, store_unit, &run);
}

/* One thread goes through a row's positions. */
int64_t cpu_kv_parts_bytes(const AttentionShape *shape, int rows, int64_t positions)
{
    (void)shape, (void)rows, (void)positions;
    return 0;
}
