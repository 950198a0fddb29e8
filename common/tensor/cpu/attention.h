/* What the forward and the backward pass of attention share: the packing of queries, keys and
 * values into the cells of tile.h, for a pass or in pages that stay. Included only by sources
 * compiled per instruction set.
 *
 * Positions are cut into blocks of 64, counted from the start of the sequence. A query row takes
 * the key blocks up to its own one after the other, and keys after its own position in the last one
 * as masked zeros: so the order in which a row is reduced depends on its position alone. */
#ifndef TROUPE_TENSOR_CPU_ATTENTION_H
#define TROUPE_TENSOR_CPU_ATTENTION_H

#include "tensor/cpu/cells.h"
#include "tensor/cpu/tile.h"
#include "tensor/kernels.h"

/* How the rows of a head lie in tiles. */
typedef struct TileFormat {
    DType dtype;     /* of the tensors */
    bool pairs;      /* cells are pairs of bf16, else f32 (bf16 is widened) */
    int dim;         /* head_dim */
    int padded;      /* dim in whole lanes, the rest zero */
    int depth;       /* cells of a row: padded, or half of it */
    int block_depth; /* cells of BLOCK rows that follow each other: BLOCK, or half of it */
    int64_t block;   /* cells of a packed block: BLOCK * depth */
} TileFormat;

ALWAYS_INLINE TileFormat tile_format(DType dtype, int head_dim)
{
    TileFormat format = {.dtype = dtype, .dim = head_dim};
#ifdef TILE_PAIRS
    format.pairs = dtype == DTYPE_BF16;
#endif
    const int cell = format.pairs ? 2 : 1;
    format.padded = (head_dim + LANES - 1) / LANES * LANES;
    format.depth = format.padded / cell;
    format.block_depth = BLOCK / cell;
    format.block = (int64_t)BLOCK * format.depth;
    return format;
}

ALWAYS_INLINE int64_t head_bytes(const TileFormat *format)
{
    return format->dim * (format->dtype == DTYPE_F32 ? 4 : 2);
}

/* The rows of one head of a tensor whose rows are `stride` elements apart, from `row` and `column`
 * on. */
ALWAYS_INLINE CellRows head_rows(const TileFormat *format, const void *base, int64_t stride,
                                 int64_t row, int64_t column)
{
    const int64_t size = format->dtype == DTYPE_F32 ? 4 : 2;
    return (CellRows){.data = (const char *)base + (row * stride + column) * size,
                      .stride = stride * size,
                      .dim = format->dim,
                      .dtype = format->dtype,
                      .pairs = format->pairs};
}

/* Rows [first, first + count) as they lie: to[count][depth]. */
static __attribute__((unused)) void pack_rows(const TileFormat *format, float *to, CellRows from,
                                              int64_t first, int count)
{
    for (int i = 0; i < count; i++) {
        float *cells = to + i * format->depth;
        for (int at = 0; at < format->depth; at += LANES)
            lanes_store_row(cells, at, format->depth, DTYPE_F32, cells_along(&from, first + i, at));
    }
}

/* The same rows turned: to[depth][BLOCK], zero beyond `count` rows. */
static __attribute__((unused)) void pack_turned(const TileFormat *format, float *to, CellRows from,
                                                int64_t first, int count)
{
    cells_turn(to, &from, first, count, format->depth);
}

/* The same rows stacked: to[block_depth][padded], zero beyond `count` rows. */
static __attribute__((unused)) void pack_stacked(const TileFormat *format, float *to, CellRows from,
                                                 int64_t first, int count)
{
    for (int cell = 0; cell < format->block_depth; cell++)
        for (int d = 0; d < format->padded; d += LANES)
            lanes_store(to + cell * format->padded + d, cells_across(&from, first, count, cell, d));
}

/* Keys and values of a page: for each kv head its keys turned, [depth][BLOCK], then its values
 * stacked, [block_depth][padded]: the blocks of the products below, packed once and read where they
 * lie. Zero where no position was stored yet. */
ALWAYS_INLINE float *page_block(const TileFormat *format, const KvPages *pages, int32_t page,
                                int kv_head)
{
    return (float *)(void *)(pages->memory + page * pages->page_bytes) +
           2 * kv_head * format->block;
}

/* A row [padded] of f32 times `factor` into a row of the tensor, from element `at` on. */
ALWAYS_INLINE void row_narrow(const TileFormat *format, void *base, int64_t at, const float *from,
                              float factor)
{
    const int64_t end = at + format->dim;
    for (int d = 0; d < format->dim; d += LANES) {
        const Lanes value = lanes_mul(lanes_load(from + d), lanes_set(factor));
        if (format->dtype == DTYPE_F32)
            lanes_store_row(base, at + d, end, DTYPE_F32, value);
        else
            lanes_store_row(base, at + d, end, DTYPE_BF16, value);
    }
}

#endif
