/* Small matrix products on packed tiles that lie in the cache, for attention. Operands are made of
 * 32-bit cells: an f32 each, or, where the machine multiplies bf16 (TILE_PAIRS), two bf16 that
 * follow each other in the reduced dimension. Sums are f32. Every element of a result is one chain
 * of multiply-adds over the depth, in order, whatever the number of rows: a row's value does not
 * depend on the rows beside it. Included only by sources compiled per instruction set. */
#ifndef TROUPE_TENSOR_CPU_TILE_H
#define TROUPE_TENSOR_CPU_TILE_H

#include "tensor/cpu/vector.h"

/* What of a product is needed when the tile lies on the diagonal of a causal mask; row i of the
 * queries stands at key `diagonal` + i of the tile. The rest of a result is left as it was. */
typedef enum TileMask {
    TILE_FULL,
    TILE_SCORES,  /* rows are queries, columns are keys: up to the row's own */
    TILE_QUERIES, /* rows are queries, the depth is keys: up to the row's own */
    TILE_KEYS,    /* rows are keys, the depth is queries (whole cells): from the key's own on */
} TileMask;

/* C[rows, columns] (+)= A[rows, depth] B[depth, columns]. Columns are a multiple of 16; depth and
 * strides count cells. A's cell (i, k) is at a[i * a_row + k * a_step], so that A may be read
 * transposed. */
typedef struct TileProduct {
    float *c;
    const float *a, *b;
    int64_t c_row, a_row, a_step, b_row;
    int rows, columns, depth;
    bool accumulate;
    bool pairs; /* cells are pairs of bf16 */
    TileMask mask;
    int diagonal;
} TileProduct;

#if defined(__AVX512F__)
#define TILE_ROWS  8
#define TILE_LANES 2
#else
#define TILE_ROWS  4
#define TILE_LANES 1
#endif

/* The part [row, row + rows) x [column, column + lanes) over depth [from, to), held in registers;
 * rows, lanes and pairs are constants. */
ALWAYS_INLINE void tile_part(const TileProduct *p, int row, int column, int from, int to, int rows,
                             int lanes, bool pairs)
{
    Lanes sum[TILE_ROWS][4];
    float *c = p->c + row * p->c_row + column;
    const float *a = p->a + row * p->a_row, *b = p->b + column;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < lanes; j++)
            sum[i][j] = p->accumulate ? lanes_load(c + i * p->c_row + j * LANES) : lanes_set(0);
    for (int k = from; k < to; k++) {
        Lanes factor[4];
        for (int j = 0; j < lanes; j++)
            factor[j] = lanes_load(b + k * p->b_row + j * LANES);
        for (int i = 0; i < rows; i++) {
            const Lanes value = lanes_set(a[i * p->a_row + k * p->a_step]);
            for (int j = 0; j < lanes; j++)
                sum[i][j] = pairs ? lanes_dot(value, factor[j], sum[i][j])
                                  : lanes_fma(value, factor[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < lanes; j++)
            lanes_store(c + i * p->c_row + j * LANES, sum[i][j]);
}

/* As tile_part, for the part of the depth that the mask leaves to these rows. */
ALWAYS_INLINE void tile_masked(const TileProduct *p, int row, int column, int rows, int lanes,
                               bool pairs)
{
    const int cell = pairs ? 2 : 1, end = p->diagonal + row + rows;
    int from = 0, to = p->depth;
    if (p->mask == TILE_SCORES && column >= end) return;
    if (p->mask == TILE_QUERIES && (end + cell - 1) / cell < to) to = (end + cell - 1) / cell;
    if (p->mask == TILE_KEYS && row > p->diagonal) from = (row - p->diagonal) / cell;
    tile_part(p, row, column, from, to, rows, lanes, pairs);
}

ALWAYS_INLINE void tile_columns(const TileProduct *p, int column, int lanes, bool pairs)
{
    int row = 0;
    for (; row + TILE_ROWS <= p->rows; row += TILE_ROWS)
        tile_masked(p, row, column, TILE_ROWS, lanes, pairs);
    for (; row + 2 <= p->rows; row += 2)
        tile_masked(p, row, column, 2, lanes, pairs);
    if (row < p->rows) tile_masked(p, row, column, 1, lanes, pairs);
}

ALWAYS_INLINE void tile_kind(const TileProduct *p, bool pairs)
{
    int column = 0;
    if (p->rows <= 2) /* few rows: more columns at a time keep the adders busy */
        for (; column + 4 * LANES <= p->columns; column += 4 * LANES)
            tile_columns(p, column, 4, pairs);
    for (; column + TILE_LANES * LANES <= p->columns; column += TILE_LANES * LANES)
        tile_columns(p, column, TILE_LANES, pairs);
    for (; column < p->columns; column += LANES)
        tile_columns(p, column, 1, pairs);
}

static __attribute__((unused)) void tile_product(const TileProduct *p)
{
#ifdef TILE_PAIRS
    if (p->pairs) {
        tile_kind(p, true);
        return;
    }
#endif
    tile_kind(p, false);
}

#endif
