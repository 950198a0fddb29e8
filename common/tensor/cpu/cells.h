/* Matrices cut into 32-bit cells for products: a cell is an f32, or a pair of bf16 that follow each
 * other in the dimension that the product reduces. "Turned" blocks hold sixteen or more rows side
 * by side with their columns below each other, "stacked" ones keep the rows and, with pairs,
 * interleave two of them. Included only by sources compiled per instruction set. */
#ifndef TROUPE_TENSOR_CPU_CELLS_H
#define TROUPE_TENSOR_CPU_CELLS_H

#include "tensor/cpu/vector.h"

#define BLOCK 64 /* rows or columns of a packed block */

/* Rows of `dim` elements, `stride` bytes apart. Where pairs is false bf16 is widened to f32. */
typedef struct CellRows {
    const char *data;
    int64_t stride;
    int64_t dim;
    DType dtype;
    bool pairs;
} CellRows;

ALWAYS_INLINE const char *cells_row(const CellRows *rows, int64_t row)
{
    return rows->data + row * rows->stride;
}

/* Sixteen cells along a row from cell `at` on; zero beyond its end. */
ALWAYS_INLINE Lanes cells_along(const CellRows *rows, int64_t row, int64_t at)
{
    const char *from = cells_row(rows, row);
    if (!rows->pairs)
        return rows->dtype == DTYPE_F32 ? lanes_load_row(from, at, rows->dim, DTYPE_F32)
                                        : lanes_load_row(from, at, rows->dim, DTYPE_BF16);
    const int64_t left = rows->dim - 2 * at;
    if (left >= 2 * LANES) return lanes_load((const float *)(const void *)(from + 4 * at));
    float buffer[LANES] = {0};
    if (left > 0) memcpy(buffer, from + 4 * at, (size_t)left * 2);
    return lanes_load(buffer);
}

/* The sixteen cells that stand at columns [column, column + 16) when rows are stacked: of row
 * `cell`, or of rows 2 cell and 2 cell + 1; zero beyond `count` rows (counted from `first`) and
 * beyond a row's end. */
ALWAYS_INLINE Lanes cells_across(const CellRows *rows, int64_t first, int64_t count, int64_t cell,
                                 int64_t column)
{
    if (!rows->pairs) return cell < count ? cells_along(rows, first + cell, column) : lanes_set(0);
    uint16_t tail[2][LANES] = {{0}};
    const uint16_t *side[2];
    for (int i = 0; i < 2; i++) {
        const int64_t row = 2 * cell + i;
        const uint16_t *from =
            (const uint16_t *)(const void *)cells_row(rows, first + row) + column;
        const bool whole = row < count && column + LANES <= rows->dim;
        if (row < count && !whole && column < rows->dim)
            memcpy(tail[i], from, (size_t)(rows->dim - column) * sizeof *from);
        side[i] = whole ? from : tail[i];
    }
    return lanes_interleave_bf16(side[0], side[1]);
}

/* Up to 64 rows from `first` on, turned: to[depth][BLOCK]; zero beyond `count` rows. */
ALWAYS_INLINE void cells_turn(float *to, const CellRows *rows, int64_t first, int64_t count,
                              int64_t depth)
{
    for (int i = 0; i < BLOCK; i += LANES)
        for (int64_t at = 0; at < depth; at += LANES) {
            Lanes cell[LANES];
            for (int j = 0; j < LANES; j++)
                cell[j] = i + j < count ? cells_along(rows, first + i + j, at) : lanes_set(0);
            lanes_transpose(cell);
            for (int j = 0; j < LANES && at + j < depth; j++)
                lanes_store(to + (at + j) * BLOCK + i, cell[j]);
        }
}

#endif
