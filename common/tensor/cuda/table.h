/* The CUDA backend's KernelTable: inside of its library, and in tests over the same kernels on a
 * host. */
#ifndef TROUPE_TENSOR_CUDA_TABLE_H
#define TROUPE_TENSOR_CUDA_TABLE_H

#include "tensor/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif
const KernelTable *cuda_table(void);
#ifdef __cplusplus
}
#endif

#endif
