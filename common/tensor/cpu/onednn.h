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

/* Passes over operands in the loops of the chosen instruction set (ops.h). */
typedef struct OnednnLoops {
    void (*cast)(Tensor y, Tensor x);
    void (*pack_turned)(void *to, Tensor from);
    void (*pack_stacked)(void *to, Tensor from);
    int64_t (*transposed_row)(int64_t rows, DType dtype);
    void (*transpose)(void *to, Tensor from);
} OnednnLoops;

/* To be set before the first product; `loops` is borrowed. */
void onednn_use_loops(const OnednnLoops *loops);

#endif
