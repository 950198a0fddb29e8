/* Small f32 matrix products on packed tiles that lie in the cache, for attention. Every element of
 * the result is one chain of multiply-adds over the depth, in order, whatever the number of rows:
 * so a row's value does not depend on the rows beside it. Included only by sources compiled per
 * instruction set. */
#ifndef TROUPE_TENSOR_CPU_TILE_H
#define TROUPE_TENSOR_CPU_TILE_H

#include "tensor/cpu/vector.h"

/* C[rows, columns] (+)= A[rows, depth] B[depth, columns]; columns is a multiple of 16. A's element
 * (i, k) is at a[i * a_row + k * a_step], so that A may be read transposed. */
typedef struct TileProduct {
    float *c;
    const float *a, *b;
    int64_t c_row, a_row, a_step, b_row;
    int rows, columns, depth;
    bool accumulate;
} TileProduct;

/* The part [row, row + rows) x [column, column + 16 lanes) held in registers; rows and lanes are
 * constants. */
ALWAYS_INLINE void tile_part(const TileProduct *p, int row, int column, int rows, int lanes)
{
    Lanes sum[8][4];
    float *c = p->c + row * p->c_row + column;
    const float *a = p->a + row * p->a_row, *b = p->b + column;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < lanes; j++)
            sum[i][j] = p->accumulate ? lanes_load(c + i * p->c_row + j * LANES) : lanes_set(0);
    for (int k = 0; k < p->depth; k++) {
        Lanes factor[4];
        for (int j = 0; j < lanes; j++)
            factor[j] = lanes_load(b + k * p->b_row + j * LANES);
        for (int i = 0; i < rows; i++) {
            const Lanes value = lanes_set(a[i * p->a_row + k * p->a_step]);
            for (int j = 0; j < lanes; j++)
                sum[i][j] = lanes_fma(value, factor[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < lanes; j++)
            lanes_store(c + i * p->c_row + j * LANES, sum[i][j]);
}

#ifdef __AVX512F__
#define TILE_ROWS  8
#define TILE_LANES 2
#else
#define TILE_ROWS  4
#define TILE_LANES 1
#endif

ALWAYS_INLINE void tile_columns(const TileProduct *p, int column, int lanes)
{
    int row = 0;
    for (; row + TILE_ROWS <= p->rows; row += TILE_ROWS)
        tile_part(p, row, column, TILE_ROWS, lanes);
    for (; row + 2 <= p->rows; row += 2)
        tile_part(p, row, column, 2, lanes);
    if (row < p->rows) tile_part(p, row, column, 1, lanes);
}

static void tile_product(const TileProduct *p)
{
    int column = 0;
    for (; column + TILE_LANES * LANES <= p->columns; column += TILE_LANES * LANES)
        tile_columns(p, column, TILE_LANES);
    for (; column < p->columns; column += LANES)
        tile_columns(p, column, 1);
}

#endif
