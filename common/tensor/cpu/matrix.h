/* The loops that matrix products need besides oneDNN: packing of operands, and whole products for
 * machines where oneDNN's are not row-invariant. One copy per instruction set; onednn.c is handed
 * the chosen one. */
#ifndef TROUPE_TENSOR_CPU_MATRIX_H
#define TROUPE_TENSOR_CPU_MATRIX_H

#include "tensor/tensor.h"

/* c[m, n] (+)= a B[k, n]; c is f32, or bf16 and not accumulated. */
typedef struct GemmCall {
    Tensor c;
    Tensor a; /* [m, k], or turned [k, m]; f32 or bf16 */
    bool a_turned;
    bool accumulate;
    const float *b;  /* packed, cells of f32 */
    int64_t b_depth; /* packed_depth(k, false) */
} GemmCall;

/* y[m, n] = x B for few rows: B packed with pairs where x is bf16. */
typedef struct FewRowsCall {
    Tensor y, x;
    const void *b;
    int64_t chunk; /* cells of a chain of multiply-adds */
} FewRowsCall;

typedef struct MatrixLoops {
    /* Operand B [k, n] of a product in blocks of 64 columns, [n / 64][packed_depth of k][64] cells:
     * a cell is an f32 or, with `pairs`, two bf16 that follow each other along k. Both k and n are
     * padded with zeros. `from` is B^T [n, k] for pack_turned, B [k, n] for pack_stacked. */
    void (*pack_turned)(void *to, Tensor from, bool pairs);
    void (*pack_stacked)(void *to, Tensor from, bool pairs);
    /* Cells that so many elements fill, in whole sixteens. */
    int64_t (*packed_depth)(int64_t elements, bool pairs);
    /* to[columns][packed_depth of rows] cells: from's transpose, each row padded with zeros. */
    void (*transpose)(void *to, Tensor from);
    void (*gemm)(const GemmCall *call);
    bool (*few_rows)(const FewRowsCall *call); /* false: not for this type or depth */
} MatrixLoops;

#endif
