/* Matrix products by oneDNN (https://github.com/oneapi-src/oneDNN), 2.x or 3.x; the contracts stand
 * in tensor/kernels.h. Of oneDNN's implementations only the "brg" family (batch-reduce GEMM:
 * AVX-512, AMX, and what later releases add) reduces a row in an order that does not depend on the
 * number of rows; where it offers another one, the loops of gemm.c do the product in f32. Products
 * of few rows are done by few_rows.c where that gives the same bits. */
#ifndef TROUPE_TENSOR_CPU_ONEDNN_H
#define TROUPE_TENSOR_CPU_ONEDNN_H

#include "tensor/cpu/isa.h"
#include "tensor/cpu/matrix.h"
#include "tensor/kernels.h"

void onednn_weight_prepare(Weight *weight);
void onednn_weight_release(Weight *weight);
void onednn_matmul(Tensor y, Tensor x, const Weight *w);
void onednn_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w);
void onednn_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x);

/* Holds oneDNN to an instruction set; has no effect once it has run. */
void onednn_limit_isa(CpuIsa isa);

/* Whether products of this type are oneDNN's: if not, they are correct but slower. */
bool onednn_is_fast(DType dtype);

/* The loops of the chosen instruction set, to be set before the first product; borrowed. */
void onednn_use_loops(const MatrixLoops *loops);

#endif
