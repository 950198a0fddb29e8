/* The sum of squares in f64: a part for each SUM_ELEMENTS, and the parts in their order. */
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS      256
#define SUM_ELEMENTS (16 * 1024)

__global__ void sum_squares_kernel(double *part, const float *x, int64_t n)
{
    __shared__ double sums[BLOCK_WARPS_MAX];
    int64_t first = (int64_t)blockIdx.x * SUM_ELEMENTS;
    int64_t end = first + SUM_ELEMENTS < n ? first + SUM_ELEMENTS : n;
    double sum = 0.0;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

/* One block; the parts of a thread are THREADS apart. */
__global__ void add_parts_kernel(double *total, const double *part, int64_t count)
{
    __shared__ double sums[BLOCK_WARPS_MAX];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += part[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) *total = sum;
}

double cuda_sum_squares(const float *x, int64_t n)
{
    double total = 0.0;
    int64_t parts = ceil_div(n, SUM_ELEMENTS);
    if (n == 0) return 0.0;
    double *part = (double *)cuda_scratch((size_t)(parts + 1) * sizeof(double));
    LAUNCH(sum_squares_kernel, (unsigned)parts, THREADS, 0, part, x, n);
    LAUNCH(add_parts_kernel, 1, THREADS, 0, part + parts, part, parts);
    cuda_download(&total, part + parts, sizeof total);
    return total;
}
