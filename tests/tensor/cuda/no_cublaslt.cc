/* cuda/gemm_lt.cu where there is no cuBLASLt: products are cuda/gemm_tile.cu's. */
#include "tensor/cuda/gemm.cuh"

bool gemm_lt(const Product *, GemmChoice)
{
    return false;
}
