/* The products of matrices. All three are one: c[m, n] = sum over r of a(m, r) b(n, r), added to
 * what stood there or not, with the operands where the rows of kernels.h put them.
 *
 * THEIR ROWS. For forward products m is the token: what a row becomes may depend on neither the
 * number of rows nor their places, so nothing here chooses by them unless it has shown that the
 * bits stay (gemm_lt.cu). For dgrad m is the token and for wgrad r; no forward pass has them, so
 * their order may depend on the number of tokens, and on nothing else. */
#ifndef TROUPE_TENSOR_CUDA_GEMM_CUH
#define TROUPE_TENSOR_CUDA_GEMM_CUH

#include "tensor/cuda/device.cuh"
#include "tensor/cuda/gemm_choice.h"

/* An operand: row i's element r stands at data + i * row + r * step; row or step is 1. */
typedef struct Operand {
    const void *data;
    int64_t row, step;
} Operand;

typedef struct Product {
    int64_t m, n, r;
    Operand a, b;
    DType type; /* of both operands */
    void *c;    /* [m, n], rows n apart */
    DType c_type;
    bool accumulate; /* c is f32 then */
    bool by_row;     /* m is the token */
    bool equal_rows; /* and a row's bits may depend on no other: forward */
} Product;

/* gemm.cu */
void cuda_weight_prepare(Weight *weight); /* nothing to do: products read the plain matrix */
void cuda_weight_release(Weight *weight);
void cuda_matmul(Tensor y, Tensor x, const Weight *w);
void cuda_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w);
void cuda_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x);

/* gemm_tile.cu: any shape; every sum in ascending order of r. */
void gemm_tile(const Product *product);

/* gemm_lt.cu. Once, before the first product; false with a sentence: no cuBLASLt. */
bool gemm_open(char *text, size_t size);
/* False: the library has nothing for this shape, whatever the number of rows (but for
 * GEMM_LIBRARY_FREE). Any choice but GEMM_TILE. */
bool gemm_lt(const Product *product, GemmChoice choice);

#endif
