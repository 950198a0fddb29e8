/* The three products of kernels.h, and who computes them. */
#include "tensor/cuda/gemm.cuh"

static GemmChoice choice = GEMM_LIBRARY;

void gemm_choose(GemmChoice chosen)
{
    choice = chosen;
}

static void multiply(const Product *product)
{
    if (product->m == 0 || product->n == 0 || product->r == 0) return;
    if (choice == GEMM_TILE || !gemm_lt(product, choice)) gemm_tile(product);
}

void cuda_weight_prepare(Weight *weight)
{
    const Tensor *plain = &weight->plain;
    CHECK(plain->rank == 2 && plain->shape[0] > 0 && plain->shape[1] > 0);
    CHECK(plain->dtype == DTYPE_F32 || plain->dtype == DTYPE_BF16);
}

void cuda_weight_release(Weight *weight)
{
    weight->packed = NULL;
}

/* The product of x's rows with the weight's rows, or with its columns. */
static void multiply_weight(const Tensor *y, const Tensor *x, const Weight *w, bool by_rows)
{
    const Tensor *plain = &w->plain;
    CHECK(y->rank == 2 && x->rank == 2 && plain->rank == 2 && y->shape[0] == x->shape[0]);
    CHECK(x->dtype == plain->dtype && (y->dtype == x->dtype || y->dtype == DTYPE_F32));
    CHECK(x->shape[1] == plain->shape[by_rows ? 1 : 0] &&
          y->shape[1] == plain->shape[by_rows ? 0 : 1]);
    Product product = {};
    product.m = y->shape[0];
    product.n = y->shape[1];
    product.r = x->shape[1];
    product.a = {x->data, x->shape[1], 1};
    if (by_rows)
        product.b = {plain->data, plain->shape[1], 1};
    else
        product.b = {plain->data, 1, plain->shape[1]};
    product.type = x->dtype;
    product.c = y->data;
    product.c_type = y->dtype;
    product.by_row = true;
    product.equal_rows = by_rows;
    multiply(&product);
}

void cuda_matmul(Tensor y, Tensor x, const Weight *w)
{
    multiply_weight(&y, &x, w, true);
}

void cuda_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    multiply_weight(&dx, &dy, w, false);
}

void cuda_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    CHECK(dw.rank == 2 && dy.rank == 2 && x.rank == 2 && dw.dtype == DTYPE_F32 &&
          dy.dtype == x.dtype);
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    Product product = {};
    product.m = dw.shape[0];
    product.n = dw.shape[1];
    product.r = x.shape[0];
    product.a = {dy.data, 1, dy.shape[1]};
    product.b = {x.data, 1, x.shape[1]};
    product.type = x.dtype;
    product.c = dw.data;
    product.c_type = DTYPE_F32;
    product.accumulate = true;
    multiply(&product);
}
