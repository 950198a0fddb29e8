/* What the forward and the backward pass of attention share: which rows belong to a unit of work,
 * and the packing of keys, values and queries into f32 tiles. Included only by sources compiled per
 * instruction set.
 *
 * A unit of work is a sequence and a kv head with the query heads that read it. Positions are cut
 * into blocks of 64, counted from the start of the sequence; a query row takes the key blocks up to
 * its own one after the other, and keys after its own position in the last one as masked zeros. So
 * the order in which a row is reduced depends on its position alone. */
#ifndef TROUPE_TENSOR_CPU_ATTENTION_H
#define TROUPE_TENSOR_CPU_ATTENTION_H

#include "tensor/cpu/vector.h"
#include "tensor/kernels.h"

#define BLOCK 64

/* Row-major rows of one head, `stride` elements apart. */
typedef struct HeadRows {
    const void *data;
    int64_t stride;
    DType dtype;
} HeadRows;

ALWAYS_INLINE HeadRows head_rows(const void *base, DType dtype, int64_t stride, int64_t row,
                                 int64_t column)
{
    const int64_t size = dtype == DTYPE_F32 ? 4 : 2;
    return (HeadRows){(const char *)base + (row * stride + column) * size, stride, dtype};
}

ALWAYS_INLINE int padded_dim(int head_dim)
{
    return (head_dim + LANES - 1) / LANES * LANES;
}

/* Rows [first, first + count) widened into to[count][padded], columns beyond head_dim zero. */
ALWAYS_INLINE void rows_widen(float *to, HeadRows from, int64_t first, int count, int head_dim)
{
    const int padded = padded_dim(head_dim);
    for (int i = 0; i < count; i++) {
        const int64_t at = (first + i) * from.stride;
        for (int d = 0; d < head_dim; d += LANES)
            lanes_store(to + i * padded + d,
                        lanes_load_row(from.data, at + d, at + head_dim, from.dtype));
    }
}

/* The same rows turned: to[padded][BLOCK], zero beyond `count` and head_dim. */
ALWAYS_INLINE void rows_turn(float *to, HeadRows from, int64_t first, int count, int head_dim)
{
    memset(to, 0, sizeof *to * BLOCK * (size_t)padded_dim(head_dim));
    for (int i = 0; i < count; i++) {
        const int64_t at = (first + i) * from.stride;
        for (int d = 0; d < head_dim; d++)
            to[d * BLOCK + i] = from.dtype == DTYPE_F32
                                    ? ((const float *)from.data)[at + d]
                                    : bf16_to_f32(((const uint16_t *)from.data)[at + d]);
    }
}

/* Row [padded] of f32 into a row of the head. */
ALWAYS_INLINE void row_narrow(void *base, DType dtype, int64_t at, const float *from, int head_dim,
                              float factor)
{
    for (int d = 0; d < head_dim; d += LANES)
        lanes_store_row(base, at + d, at + head_dim, dtype,
                        lanes_mul(lanes_load(from + d), lanes_set(factor)));
}

#endif
