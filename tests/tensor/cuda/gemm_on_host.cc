/* cuda/gemm.cu on a host: the same products, one element after the other. */
#include "tensor/cuda/gemm.cuh"

void cuda_weight_prepare(Weight *weight)
{
    (void)weight;
}

void cuda_weight_release(Weight *weight)
{
    (void)weight;
}

static float element(const Tensor *t, int64_t row, int64_t column)
{
    int64_t at = row * t->shape[1] + column;
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[at] : to_float(((const Bf16 *)t->data)[at]);
}

static void set_element(const Tensor *t, int64_t row, int64_t column, float value)
{
    int64_t at = row * t->shape[1] + column;
    if (t->dtype == DTYPE_F32)
        ((float *)t->data)[at] = value;
    else
        ((Bf16 *)t->data)[at] = from_float<Bf16>(value);
}

void cuda_matmul(Tensor y, Tensor x, const Weight *w)
{
    const Tensor *plain = &w->plain;
    for (int64_t i = 0; i < y.shape[0]; i++)
        for (int64_t j = 0; j < y.shape[1]; j++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < x.shape[1]; k++)
                sum += element(&x, i, k) * element(plain, j, k);
            set_element(&y, i, j, sum);
        }
}

void cuda_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    for (int64_t i = 0; i < dx.shape[0]; i++)
        for (int64_t k = 0; k < dx.shape[1]; k++) {
            float sum = 0.0f;
            for (int64_t j = 0; j < dy.shape[1]; j++)
                sum += element(&dy, i, j) * element(&w->plain, j, k);
            set_element(&dx, i, k, sum);
        }
}

void cuda_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    for (int64_t j = 0; j < dw.shape[0]; j++)
        for (int64_t k = 0; k < dw.shape[1]; k++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < x.shape[0]; i++)
                sum += element(&dy, i, j) * element(&x, i, k);
            set_element(&dw, j, k, element(&dw, j, k) + sum);
        }
}
