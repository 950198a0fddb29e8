/* Moving rows and columns: bytes only, so one copy serves every instruction set. The contracts
 * stand in tensor/kernels.h. */
#ifndef TROUPE_TENSOR_CPU_ROWS_H
#define TROUPE_TENSOR_CPU_ROWS_H

#include "tensor/tensor.h"

void rows_copy_columns(Tensor y, Tensor x, int64_t first_column);
void rows_gather(Tensor y, Tensor x, const int32_t *row);
void rows_scatter(Tensor y, Tensor x, const int32_t *row);

#endif
