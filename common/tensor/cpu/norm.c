/* RMSNorm and its backward pass (Zhang & Sennrich 2019). With n = x * rstd, rstd = (mean(x^2) +
 * eps)^-1/2: y = n w,   dx = rstd (dy w - n mean(dy w n)),   dw = sum over rows of dy n. As in
 * Hugging Face's modules n is rounded to x's type before the product with w. */
#include <math.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

#define ELEMENTS_PER_THREAD 16384

typedef struct NormRun {
    Tensor y, x, w;
    float *rstd;
    float eps;
} NormRun;

ALWAYS_INLINE void *row_of(const Tensor *t, int64_t row, DType dtype)
{
    return (char *)t->data + row * t->shape[1] * (dtype == DTYPE_F32 ? 4 : 2);
}

/* The sum of four lane vectors per step hides the latency of the addition; lane i % 64 in fixed
 * order. */
ALWAYS_INLINE float sum_of_squares(const void *x, int64_t n, DType dtype)
{
    Lanes sum[4] = {lanes_set(0), lanes_set(0), lanes_set(0), lanes_set(0)};
    int64_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES) {
        for (int part = 0; part < 4; part++) {
            const Lanes value = lanes_load_as(x, j + part * LANES, dtype);
            sum[part] = lanes_fma(value, value, sum[part]);
        }
    }
    for (; j < n; j += LANES) {
        const Lanes value = lanes_load_row(x, j, n, dtype);
        sum[0] = lanes_fma(value, value, sum[0]);
    }
    return lanes_sum(lanes_add(lanes_add(sum[0], sum[1]), lanes_add(sum[2], sum[3])));
}

ALWAYS_INLINE void norm_rows(const NormRun *run, int64_t first, int64_t last, DType dtype,
                             DType w_dtype)
{
    const int64_t n = run->x.shape[1];
    for (int64_t row = first; row < last; row++) {
        const void *x = row_of(&run->x, row, dtype);
        void *y = row_of(&run->y, row, dtype);
        const float mean = sum_of_squares(x, n, dtype) / (float)n;
        const float rstd = 1.0f / sqrtf(mean + run->eps);
        if (run->rstd != NULL) run->rstd[row] = rstd;
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes scaled = lanes_mul(lanes_load_row(x, j, n, dtype), lanes_set(rstd));
            const Lanes w = lanes_load_row(run->w.data, j, n, w_dtype);
            lanes_store_row(y, j, n, dtype, lanes_mul(lanes_round(scaled, dtype), w));
        }
    }
}

static void norm_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const NormRun *run = context;
    if (run->x.dtype == DTYPE_F32 && run->w.dtype == DTYPE_F32)
        norm_rows(run, first, last, DTYPE_F32, DTYPE_F32);
    else if (run->x.dtype == DTYPE_F32)
        norm_rows(run, first, last, DTYPE_F32, DTYPE_BF16);
    else if (run->w.dtype == DTYPE_F32)
        norm_rows(run, first, last, DTYPE_BF16, DTYPE_F32);
    else
        norm_rows(run, first, last, DTYPE_BF16, DTYPE_BF16);
}

static void norm_check(const Tensor *a, const Tensor *x, const Tensor *w)
{
    CHECK(x->rank == 2 && tensor_same_shape(a, x) && a->dtype == x->dtype);
    CHECK(x->dtype == DTYPE_F32 || x->dtype == DTYPE_BF16);
    CHECK(w->dtype == DTYPE_F32 || w->dtype == DTYPE_BF16);
    CHECK(tensor_count(w) == x->shape[1] && x->shape[1] > 0);
}

static int64_t row_grain(int64_t width)
{
    return width >= ELEMENTS_PER_THREAD ? 1 : ELEMENTS_PER_THREAD / width;
}

void cpu_rmsnorm(Tensor y, float *rstd, Tensor x, Tensor w, float eps)
{
    norm_check(&y, &x, &w);
    const NormRun run = {.y = y, .x = x, .w = w, .rstd = rstd, .eps = eps};
    parallel_range(x.shape[0], row_grain(x.shape[1]), norm_body, &run);
}

/* ---- backward ---- */

typedef struct NormBackwardRun {
    Tensor dx, dy, x, w;
    const float *rstd;
    bool add_to_dx;
} NormBackwardRun;

ALWAYS_INLINE void norm_backward_rows(const NormBackwardRun *run, int64_t first, int64_t last,
                                      float *dw, DType dtype, DType w_dtype)
{
    const int64_t n = run->x.shape[1];
    for (int64_t row = first; row < last; row++) {
        const void *x = row_of(&run->x, row, dtype);
        const void *dy = row_of(&run->dy, row, dtype);
        void *dx = row_of(&run->dx, row, dtype);
        const Lanes rstd = lanes_set(run->rstd[row]);
        Lanes dot = lanes_set(0);
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes normed = lanes_mul(lanes_load_row(x, j, n, dtype), rstd);
            const Lanes grad = lanes_load_row(dy, j, n, dtype);
            const Lanes w = lanes_load_row(run->w.data, j, n, w_dtype);
            dot = lanes_fma(lanes_mul(grad, w), normed, dot);
            const Lanes sum =
                lanes_fma(grad, lanes_round(normed, dtype), lanes_load_row(dw, j, n, DTYPE_F32));
            lanes_store_row(dw, j, n, DTYPE_F32, sum);
        }
        const Lanes mean = lanes_set(lanes_sum(dot) / (float)n);
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes normed = lanes_mul(lanes_load_row(x, j, n, dtype), rstd);
            const Lanes w = lanes_load_row(run->w.data, j, n, w_dtype);
            const Lanes grad = lanes_mul(lanes_load_row(dy, j, n, dtype), w);
            Lanes value = lanes_mul(rstd, lanes_sub(grad, lanes_mul(normed, mean)));
            if (run->add_to_dx) value = lanes_add(lanes_load_row(dx, j, n, dtype), value);
            lanes_store_row(dx, j, n, dtype, value);
        }
    }
}

static void norm_backward_part(const void *context, int64_t first, int64_t last, float *dw)
{
    const NormBackwardRun *run = context;
    if (run->x.dtype == DTYPE_F32 && run->w.dtype == DTYPE_F32)
        norm_backward_rows(run, first, last, dw, DTYPE_F32, DTYPE_F32);
    else if (run->x.dtype == DTYPE_F32)
        norm_backward_rows(run, first, last, dw, DTYPE_F32, DTYPE_BF16);
    else if (run->w.dtype == DTYPE_F32)
        norm_backward_rows(run, first, last, dw, DTYPE_BF16, DTYPE_F32);
    else
        norm_backward_rows(run, first, last, dw, DTYPE_BF16, DTYPE_BF16);
}

void cpu_rmsnorm_backward(Tensor dx, bool add_to_dx, Tensor dw_accumulate, Tensor dy, Tensor x,
                          Tensor w, const float *rstd)
{
    norm_check(&dx, &x, &w);
    norm_check(&dy, &x, &w);
    CHECK(dw_accumulate.dtype == DTYPE_F32 && tensor_count(&dw_accumulate) == x.shape[1]);
    const NormBackwardRun run = {
        .dx = dx, .dy = dy, .x = x, .w = w, .rstd = rstd, .add_to_dx = add_to_dx};
    cpu_reduce_rows(dw_accumulate.data, x.shape[1], x.shape[0], norm_backward_part, &run);
}

void cpu_add_rmsnorm(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps)
{
    cpu_add(sum, a, b);
    cpu_rmsnorm(y, rstd, sum, w, eps);
}
