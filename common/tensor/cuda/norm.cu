/* RMSNorm and its backward pass; the formulas and their rounding are those of cpu/norm.c. A block a
 * row. Its threads take groups of columns THREADS groups apart: packs where the width is whole
 * packs, and so in an order that the width alone decides; rows of such a width begin with packs. */
#include <math.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS 256

template <typename T, typename W, int count>
__global__ void rmsnorm_kernel(T *y, float *rstd, const T *x, const W *w, int64_t width, float eps)
{
    __shared__ float part[BLOCK_WARPS_MAX];
    const T *row = x + blockIdx.x * width;
    T *out = y + blockIdx.x * width;
    float sum = 0.0f;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> group = group_load<count>(row + j);
        for (int i = 0; i < count; i++)
            sum = fmaf(to_float(group.at[i]), to_float(group.at[i]), sum);
    }
    float scale = 1.0f / sqrtf(block_sum(sum, part) / (float)width + eps);
    if (rstd != NULL && threadIdx.x == 0) rstd[blockIdx.x] = scale;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> group = group_load<count>(row + j);
        for (int i = 0; i < count; i++) {
            float normed = to_float(from_float<T>(to_float(group.at[i]) * scale));
            group.at[i] = from_float<T>(normed * to_float(w[j + i]));
        }
        group_store<count>(out + j, group);
    }
}

static void check_norm(const Tensor *a, const Tensor *x, const Tensor *w)
{
    CHECK(x->rank == 2 && tensor_same_shape(a, x) && a->dtype == x->dtype);
    CHECK(tensor_count(w) == x->shape[1] && x->shape[1] > 0);
}

/* Whether rows are whole packs. */
template <typename T> static bool in_packs(const Tensor *x, const void *other)
{
    if (x->shape[1] % pack_count<T>() != 0) return false;
    CHECK(is_packed(x->data) &&
          is_packed(other)); /* or the order of sums would depend on the place */
    return true;
}

template <typename T, typename W, int count>
static void rmsnorm(const Tensor &y, float *rstd, const Tensor &x, const Tensor &w, float eps)
{
    LAUNCH((rmsnorm_kernel<T, W, count>), (unsigned)x.shape[0], THREADS, 0, (T *)y.data, rstd,
           (const T *)x.data, (const W *)w.data, x.shape[1], eps);
}

void cuda_rmsnorm(Tensor y, float *rstd, Tensor x, Tensor w, float eps)
{
    check_norm(&y, &x, &w);
    if (x.shape[0] == 0) return;
    DISPATCH(x.dtype, T, {
        DISPATCH(w.dtype, W, {
            if (in_packs<T>(&x, y.data))
                rmsnorm<T, W, pack_count<T>()>(y, rstd, x, w, eps);
            else
                rmsnorm<T, W, 1>(y, rstd, x, w, eps);
        });
    });
}

/* A thread sums up the very elements that it norms. */
template <typename T, typename W, int count>
__global__ void add_rmsnorm_kernel(T *total, T *y, float *rstd, const T *a, const T *b, const W *w,
                                   int64_t width, float eps)
{
    __shared__ float part[BLOCK_WARPS_MAX];
    int64_t first = blockIdx.x * width;
    float sum = 0.0f;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> left = group_load<count>(a + first + j),
                        right = group_load<count>(b + first + j);
        for (int i = 0; i < count; i++) {
            left.at[i] = from_float<T>(to_float(left.at[i]) + to_float(right.at[i]));
            sum = fmaf(to_float(left.at[i]), to_float(left.at[i]), sum);
        }
        group_store<count>(total + first + j, left);
    }
    float scale = 1.0f / sqrtf(block_sum(sum, part) / (float)width + eps);
    if (rstd != NULL && threadIdx.x == 0) rstd[blockIdx.x] = scale;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> group = group_load<count>(total + first + j);
        for (int i = 0; i < count; i++) {
            float normed = to_float(from_float<T>(to_float(group.at[i]) * scale));
            group.at[i] = from_float<T>(normed * to_float(w[j + i]));
        }
        group_store<count>(y + first + j, group);
    }
}

template <typename T, typename W, int count>
static void add_rmsnorm(const Tensor &sum, const Tensor &y, float *rstd, const Tensor &a,
                        const Tensor &b, const Tensor &w, float eps)
{
    LAUNCH((add_rmsnorm_kernel<T, W, count>), (unsigned)sum.shape[0], THREADS, 0, (T *)sum.data,
           (T *)y.data, rstd, (const T *)a.data, (const T *)b.data, (const W *)w.data, sum.shape[1],
           eps);
}

void cuda_add_rmsnorm(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps)
{
    check_norm(&y, &sum, &w);
    check_norm(&a, &b, &w);
    CHECK(tensor_same_shape(&sum, &a) && sum.dtype == a.dtype);
    if (sum.shape[0] == 0) return;
    DISPATCH(sum.dtype, T, {
        DISPATCH(w.dtype, W, {
            if (in_packs<T>(&sum, y.data) && in_packs<T>(&a, b.data))
                add_rmsnorm<T, W, pack_count<T>()>(sum, y, rstd, a, b, w, eps);
            else
                add_rmsnorm<T, W, 1>(sum, y, rstd, a, b, w, eps);
        });
    });
}

/* ---- backward ---- */

/* Rows whose parts of dw are added up by one block, in their order; the blocks' sums are added in
 * theirs. */
#define DW_ROWS 64

template <typename T, typename W, int count>
__global__ void rmsnorm_dx_kernel(T *dx, bool add_to_dx, const T *dy, const T *x, const W *w,
                                  const float *rstd, int64_t width)
{
    __shared__ float part[BLOCK_WARPS_MAX];
    int64_t first = blockIdx.x * width;
    float scale = rstd[blockIdx.x], dot = 0.0f;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> grads = group_load<count>(dy + first + j),
                        xs = group_load<count>(x + first + j);
        for (int i = 0; i < count; i++)
            dot = fmaf(to_float(grads.at[i]) * to_float(w[j + i]), to_float(xs.at[i]) * scale, dot);
    }
    float mean = block_sum(dot, part) / (float)width;
    for (int64_t j = threadIdx.x * count; j < width; j += THREADS * count) {
        Group<T, count> grads = group_load<count>(dy + first + j),
                        xs = group_load<count>(x + first + j);
        Group<T, count> sums = {};
        if (add_to_dx) sums = group_load<count>(dx + first + j);
        for (int i = 0; i < count; i++) {
            float normed = to_float(xs.at[i]) * scale,
                  grad = to_float(grads.at[i]) * to_float(w[j + i]);
            float value = scale * (grad - normed * mean);
            if (add_to_dx) value += to_float(sums.at[i]);
            sums.at[i] = from_float<T>(value);
        }
        group_store<count>(dx + first + j, sums);
    }
}

/* Column j's part of dw over DW_ROWS rows. */
template <typename T>
__global__ void rmsnorm_dw_kernel(float *sums, const T *dy, const T *x, const float *rstd,
                                  int64_t rows, int64_t width)
{
    int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x,
            first = (int64_t)blockIdx.y * DW_ROWS;
    if (j >= width) return;
    float sum = 0.0f;
    for (int64_t row = first; row < first + DW_ROWS && row < rows; row++) {
        float normed = to_float(from_float<T>(to_float(x[row * width + j]) * rstd[row]));
        sum = fmaf(to_float(dy[row * width + j]), normed, sum);
    }
    sums[blockIdx.y * width + j] = sum;
}

__global__ void add_sums_kernel(float *total, const float *sums, int64_t count, int64_t width)
{
    int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= width) return;
    float sum = 0.0f;
    for (int64_t i = 0; i < count; i++)
        sum += sums[i * width + j];
    total[j] += sum;
}

template <typename T, typename W, int count>
static void rmsnorm_dx(const Tensor &dx, bool add_to_dx, const Tensor &dy, const Tensor &x,
                       const Tensor &w, const float *rstd)
{
    LAUNCH((rmsnorm_dx_kernel<T, W, count>), (unsigned)x.shape[0], THREADS, 0, (T *)dx.data,
           add_to_dx, (const T *)dy.data, (const T *)x.data, (const W *)w.data, rstd, x.shape[1]);
}

void cuda_rmsnorm_backward(Tensor dx, bool add_to_dx, Tensor dw_accumulate, Tensor dy, Tensor x,
                           Tensor w, const float *rstd)
{
    check_norm(&dx, &x, &w);
    CHECK(tensor_same_shape(&dy, &x) && dy.dtype == x.dtype);
    CHECK(dw_accumulate.dtype == DTYPE_F32 && tensor_count(&dw_accumulate) == x.shape[1]);
    int64_t rows = x.shape[0], width = x.shape[1], parts = ceil_div(rows, DW_ROWS);
    if (rows == 0) return;
    float *sums = (float *)cuda_scratch((size_t)(parts * width) * sizeof(float));
    unsigned columns = (unsigned)ceil_div(width, THREADS);
    DISPATCH(x.dtype, T, {
        LAUNCH(rmsnorm_dw_kernel<T>, dim3(columns, (unsigned)parts), THREADS, 0, sums,
               (const T *)dy.data, (const T *)x.data, rstd, rows, width);
        DISPATCH(w.dtype, W, {
            if (in_packs<T>(&x, dx.data) && in_packs<T>(&dy, x.data))
                rmsnorm_dx<T, W, pack_count<T>()>(dx, add_to_dx, dy, x, w, rstd);
            else
                rmsnorm_dx<T, W, 1>(dx, add_to_dx, dy, x, w, rstd);
        });
    });
    LAUNCH(add_sums_kernel, columns, THREADS, 0, (float *)dw_accumulate.data, sums, parts, width);
}
