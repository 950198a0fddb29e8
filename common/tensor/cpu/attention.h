/* What the forward and the backward pass of attention share: the packing of queries, keys and
 * values into the cells of tile.h. Included only by sources compiled per instruction set.
 *
 * Positions are cut into blocks of 64, counted from the start of the sequence. A query row takes
 * the key blocks up to its own one after the other, and keys after its own position in the last one
 * as masked zeros: so the order in which a row is reduced depends on its position alone. */
#ifndef TROUPE_TENSOR_CPU_ATTENTION_H
#define TROUPE_TENSOR_CPU_ATTENTION_H

#include "tensor/cpu/tile.h"
#include "tensor/kernels.h"

#define BLOCK 64

/* How the rows of a head lie in tiles. `pairs`: cells are pairs of bf16, else f32 (bf16 is
 * widened). */
typedef struct TileFormat {
    DType dtype; /* of the tensors */
    bool pairs;
    int dim;          /* head_dim */
    int padded;       /* dim in whole lanes, the rest zero */
    int depth;        /* cells of a row: padded, or half of it */
    int block_depth;  /* cells of BLOCK rows that follow each other: BLOCK, or half of it */
    int64_t block;    /* cells of a packed block: BLOCK * depth */
    int64_t row_size; /* bytes of an element of the tensors */
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
    format.row_size = dtype == DTYPE_F32 ? 4 : 2;
    return format;
}

/* Rows of one head of a tensor, `stride` elements apart. */
typedef struct HeadRows {
    const char *data;
    int64_t stride; /* bytes */
} HeadRows;

ALWAYS_INLINE HeadRows head_rows(const TileFormat *format, const void *base, int64_t stride,
                                 int64_t row, int64_t column)
{
    return (HeadRows){(const char *)base + (row * stride + column) * format->row_size,
                      stride * format->row_size};
}

/* Sixteen cells of a row of the tensor from cell `at` on; zero beyond head_dim. */
ALWAYS_INLINE Lanes cells_load(const TileFormat *format, const char *row, int at)
{
    if (!format->pairs) return lanes_load_row(row, at, format->dim, format->dtype);
    const int left = format->dim - 2 * at;
    if (left >= 2 * LANES) return lanes_load((const float *)(const void *)(row + 4 * at));
    float buffer[LANES] = {0};
    memcpy(buffer, row + 4 * at, (size_t)left * 2);
    return lanes_load(buffer);
}

/* Rows [first, first + count) as they lie: to[count][depth]. */
static void pack_rows(const TileFormat *format, float *to, HeadRows from, int64_t first, int count)
{
    for (int i = 0; i < count; i++) {
        const char *row = from.data + (first + i) * from.stride;
        float *cells = to + i * format->depth;
        for (int at = 0; at < format->depth; at += LANES) {
            const Lanes value = cells_load(format, row, at);
            if (at + LANES <= format->depth)
                lanes_store(cells + at, value);
            else
                lanes_store_tail(cells, at, format->depth - at, DTYPE_F32, value);
        }
    }
}

/* The same rows turned: to[depth][BLOCK], zero beyond `count` rows. */
static void pack_turned(const TileFormat *format, float *to, HeadRows from, int64_t first,
                        int count)
{
    for (int i = 0; i < BLOCK; i += LANES)
        for (int at = 0; at < format->depth; at += LANES) {
            Lanes cell[LANES];
            for (int j = 0; j < LANES; j++)
                cell[j] = i + j < count
                              ? cells_load(format, from.data + (first + i + j) * from.stride, at)
                              : lanes_set(0);
            lanes_transpose(cell);
            for (int j = 0; j < LANES && at + j < format->depth; j++)
                lanes_store(to + (at + j) * BLOCK + i, cell[j]);
        }
}

/* The same rows with their cells along the rows: to[block_depth][padded]; with pairs, two rows
 * interleaved. */
static void pack_stacked(const TileFormat *format, float *to, HeadRows from, int64_t first,
                         int count)
{
    if (!format->pairs) {
        pack_rows(format, to, from, first, count);
        memset(to + count * format->padded, 0,
               sizeof *to * (size_t)((BLOCK - count) * format->padded));
        return;
    }
    static const uint16_t zeros[LANES];
    memset(to, 0, sizeof *to * (size_t)format->block);
    for (int i = 0; i < count; i += 2) {
        const char *low = from.data + (first + i) * from.stride, *high = low + from.stride;
        float *cells = to + i / 2 * format->padded;
        for (int d = 0; d < format->dim; d += LANES) {
            uint16_t tail[2][LANES] = {{0}};
            const uint16_t *a = (const uint16_t *)(const void *)low + d;
            const uint16_t *b = i + 1 < count ? (const uint16_t *)(const void *)high + d : zeros;
            if (d + LANES > format->dim) {
                memcpy(tail[0], a, (size_t)(format->dim - d) * sizeof *a);
                if (b != zeros) memcpy(tail[1], b, (size_t)(format->dim - d) * sizeof *b);
                a = tail[0];
                b = tail[1];
            }
            lanes_store(cells + d, lanes_interleave_bf16(a, b));
        }
    }
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
