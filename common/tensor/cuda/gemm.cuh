/* The products of matrices: cuBLASLt's. */
#ifndef TROUPE_TENSOR_CUDA_GEMM_CUH
#define TROUPE_TENSOR_CUDA_GEMM_CUH

#include "tensor/cuda/device.cuh"

void cuda_weight_prepare(Weight *weight); /* nothing to do: products read the plain matrix */
void cuda_weight_release(Weight *weight);
void cuda_matmul(Tensor y, Tensor x, const Weight *w);
void cuda_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w);
void cuda_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x);

#endif
