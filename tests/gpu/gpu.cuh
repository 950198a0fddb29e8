/* What the measuring programs share: the opened device, random matrices in its memory, comparison
 * of bits, and the median time of a call. */
#ifndef TROUPE_TESTS_GPU_CUH
#define TROUPE_TESTS_GPU_CUH

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "tensor/cuda/ops.cuh"

#include "tensor/cuda/gemm_choice.h"
#include "tensor/cuda/library.h"

static const KernelTable *kernels;
static CudaDevice gpu;

static inline void gpu_open()
{
    char text[512];
    const CudaLibrary *library = troupe_cuda_library();
    setvbuf(stdout, NULL, _IOLBF, 0); /* whoever is killed leaves the rows that it has */
    kernels = library->open(0, text, sizeof text);
    if (kernels == NULL || !library->describe(0, &gpu, text, sizeof text)) {
        printf("the GPU cannot be opened: %s\n", text);
        exit(1);
    }
}

template <typename T> __global__ void random_kernel(T *data, int64_t n, uint64_t seed, float spread)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint64_t bits = ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
    bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93u;
    bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93u;
    data[i] = from_float<T>(((float)(int64_t)(bits >> 40) * 0x1p-23f - 1.0f) * spread);
}

static inline Tensor gpu_result(DType dtype, int64_t rows, int64_t columns)
{
    Tensor t = tensor_2d(NULL, dtype, rows, columns);
    t.data = kernels->alloc(tensor_bytes(&t));
    return t;
}

static inline Tensor gpu_random(DType dtype, int64_t rows, int64_t columns, uint64_t seed,
                                float spread)
{
    Tensor t = gpu_result(dtype, rows, columns);
    int64_t n = rows * columns;
    DISPATCH(dtype, T, {
        LAUNCH(random_kernel<T>, (unsigned)ceil_div(n, 256), 256, 0, (T *)t.data, n, seed, spread);
    });
    return t;
}

static inline Tensor gpu_rows(const Tensor &t, int64_t first, int64_t count)
{
    Tensor rows = t;
    rows.data = (char *)t.data + (size_t)(first * t.shape[1]) * dtype_size(t.dtype);
    rows.shape[0] = count;
    return rows;
}

template <typename T> static inline T *gpu_array(const std::vector<T> &host)
{
    T *array = (T *)kernels->alloc(host.size() * sizeof(T));
    kernels->upload(array, host.data(), host.size() * sizeof(T));
    return array;
}

__global__ void differing_kernel(unsigned long long *count, const uint16_t *a, const uint16_t *b,
                                 int64_t n, int words)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    bool differs = false;
    for (int w = 0; w < words; w++)
        differs = differs || a[i * words + w] != b[i * words + w];
    if (differs) atomicAdd(count, 1ull);
}

/* Elements whose bits differ. */
static inline int64_t gpu_differing(const Tensor &a, const Tensor &b)
{
    unsigned long long *count = (unsigned long long *)kernels->alloc(sizeof *count), found = 0;
    int64_t n = a.shape[0] * a.shape[1];
    CHECK(n == b.shape[0] * b.shape[1] && a.dtype == b.dtype);
    LAUNCH(differing_kernel, (unsigned)ceil_div(n, 256), 256, 0, count, (const uint16_t *)a.data,
           (const uint16_t *)b.data, n, (int)dtype_size(a.dtype) / 2);
    kernels->download(&found, count, sizeof found);
    kernels->free(count);
    return (int64_t)found;
}

/* Of `rounds` timings of `calls` calls each, the median of one call, in milliseconds. */
static inline double gpu_time(const std::function<void()> &call, int rounds = 7, int calls = 5)
{
    std::vector<float> times;
    cudaEvent_t begin, end;
    cuda_check(cudaEventCreate(&begin), "event");
    cuda_check(cudaEventCreate(&end), "event");
    call();
    call();
    for (int i = 0; i < rounds; i++) {
        float time = 0;
        cuda_check(cudaEventRecord(begin, cuda_stream()), "event");
        for (int k = 0; k < calls; k++)
            call();
        cuda_check(cudaEventRecord(end, cuda_stream()), "event");
        cuda_check(cudaEventSynchronize(end), "event");
        cuda_check(cudaEventElapsedTime(&time, begin, end), "event");
        times.push_back(time / (float)calls);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

#endif
