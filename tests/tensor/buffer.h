/* A Buffer is a tensor under test beside its exact values in float64. Random ones hold values that
 * the type represents, so that `exact` is what the kernel reads; results start as NaN, so that an
 * element which is never written fails. */
#ifndef TROUPE_TESTS_TENSOR_BUFFER_H
#define TROUPE_TESTS_TENSOR_BUFFER_H

#include "tensor/kernels.h"

/* The backend under test: the CUDA kernels on a host (cuda/on_host.h) or on a device
 * (gpu/pinned.h), or the CPU's loops of TEST_ISA. */
#ifdef TEST_CUDA
#include "tensor/cuda/table.h"
#define TEST_KERNELS(num_threads) ((void)(num_threads), cuda_table())
#define TEST_CAN_RUN              true
#define TEST_IS_FAST              false
#define TEST_IS_EMULATED          true
#define TEST_THREADS_MAX          1
#elif defined TEST_CUDA_DEVICE
#define TEST_KERNELS(num_threads) ((void)(num_threads), pinned_kernels())
#define TEST_CAN_RUN              true
#define TEST_IS_FAST              true
#define TEST_IS_EMULATED          false
#define TEST_THREADS_MAX          1
#else
#include "tensor/cpu/backend.h"
#ifndef TEST_ISA
#define TEST_ISA cpu_isa_best()
#endif
#define TEST_KERNELS(num_threads) cpu_kernels_of(TEST_ISA, num_threads)
#define TEST_CAN_RUN              (TEST_ISA <= cpu_isa_best())
#define TEST_IS_FAST              (TEST_ISA == cpu_isa_best())
#define TEST_IS_EMULATED          false
#define TEST_THREADS_MAX          2
#endif

typedef struct Buffer {
    Tensor tensor;
    double *exact; /* [rows * columns] */
} Buffer;

/* Uniform in [-1, 1) times `spread`; `key` names the draw. */
Buffer buffer_random(DType dtype, int64_t rows, int64_t columns, uint64_t key, double spread);
Buffer buffer_result(DType dtype, int64_t rows, int64_t columns);
void buffer_free(Buffer *buffer);

/* `tensor` becomes what `exact` says, rounded; `exact` follows. */
void buffer_store_exact(Buffer *buffer);
double buffer_at(const Buffer *buffer, int64_t index);

/* The largest |value - exact| / (|exact| + rms of exact); NaN counts as infinite. */
double buffer_error(const Buffer *buffer);

/* Fails with place, values and tolerance. `what` names the result. */
void assert_buffer_close(const Buffer *buffer, double tolerance, const char *what);

/* The tolerance of a result of this type: `f32` or, for bf16, about one unit in the last place. */
double tolerance_of(DType dtype, double f32);

/* Checks a gradient: central differences of `loss` in up to 40 elements spread over x[n]. */
typedef double (*LossFunction)(const void *context);
void assert_gradient_of(LossFunction loss, const void *context, double *x, const double *gradient,
                        int64_t n, const char *what);

#endif
