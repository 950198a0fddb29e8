/* Matrix products by oneDNN (https://github.com/oneapi-src/oneDNN), 2.x or 3.x. The contracts stand
 * in tensor/kernels.h. bf16 products accumulate in f32; where the machine has none, operands are
 * widened to f32 first and results rounded. */
#ifndef TROUPE_TENSOR_CPU_ONEDNN_H
#define TROUPE_TENSOR_CPU_ONEDNN_H

#include "tensor/cpu/isa.h"
#include "tensor/kernels.h"

void onednn_weight_prepare(Weight *weight);
void onednn_weight_release(Weight *weight);
void onednn_matmul(Tensor y, Tensor x, const Weight *w);
void onednn_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w);
void onednn_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x);

/* Holds oneDNN to an instruction set; has no effect once it has run. */
void onednn_limit_isa(CpuIsa isa);

/* False when bf16 products are made from widened operands: correct, but several times slower. */
bool onednn_has_bf16(void);

/* Casts in the loops of the chosen instruction set; to be set before the first product. */
void onednn_use_cast(void (*cast)(Tensor y, Tensor x));

#endif
