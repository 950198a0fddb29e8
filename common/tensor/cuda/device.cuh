/* What every source of the CUDA backend stands on: the language of kernels, their launch, and the
 * calling thread's stream. The kernels compile twice: by nvcc for GPUs, and by the host's compiler
 * for the tests of machines without one, which run a grid's threads one after the other
 * (tests/tensor/cuda/on_host.h). So kernels keep to what is named here and in warp.cuh; what no
 * host has (tensor cores, asynchronous copies) is wrapped where it is used.
 *
 * As for the CPU: no float atomics, and every sum in an order fixed by the reduced length alone. */
#ifndef TROUPE_TENSOR_CUDA_DEVICE_CUH
#define TROUPE_TENSOR_CUDA_DEVICE_CUH

#define _Noreturn [[noreturn]]
extern "C" {
#include "tensor/kernels.h"
}
#undef _Noreturn

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <atomic>

/* Stops the process with the call, the device and the runtime's words: nothing can be computed any
 * more. In a thread that records, what it records is spoiled. */
void cuda_check(cudaError_t status, const char *what);
/* The calling thread's; kernels of one thread run in the order of its calls. */
cudaStream_t cuda_stream(void);
/* From here on another one, which records (graphs.cu); NULL: none does. */
void cuda_record_on(cudaStream_t stream);

#define LAUNCH(kernel, grid, block, shared_bytes, ...)                                             \
    LAUNCH_ON(cuda_stream(), kernel, grid, block, shared_bytes, __VA_ARGS__)
/* The same on a stream of one's own. */
#define LAUNCH_ON(stream, kernel, grid, block, shared_bytes, ...)                                  \
    do {                                                                                           \
        kernel<<<(grid), (block), (shared_bytes), (cudaStream_t)(stream)>>>(__VA_ARGS__);          \
        cuda_check(cudaGetLastError(), #kernel);                                                   \
    } while (0)

/* The block's shared memory of the size that the launch gave; more than 48 KB must be allowed
 * first: to a kernel once, and all that a block may have, so that no thread takes from another's
 * launch what that was just allowed. */
#define SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#define ALLOW_SHARED(kernel)                                                                       \
    do {                                                                                           \
        static std::atomic<bool> allowed_;                                                         \
        if (!allowed_) cuda_allow_shared((const void *)(kernel), #kernel);                         \
        allowed_ = true;                                                                           \
    } while (0)
void cuda_allow_shared(const void *kernel, const char *what);

#define UNROLL _Pragma("unroll")

#else
#include "tensor/cuda/on_host.h"
#define UNROLL
#endif

/* Whether the calling thread's kernels are recorded (graphs.cu), and how it says that what is
 * recorded is of no use: why, as graphs.h's `end` will tell. The thread goes on as if nothing were
 * wrong; its kernels are thrown away until then. */
bool cuda_is_recording(void);
void cuda_spoil_recording(const char *why);

/* The device's, for messages. */
const char *cuda_device_name(void);

/* What a block may have of shared memory on this device, once that is allowed, in bytes. */
size_t cuda_shared_max(void);

/* Memory of the calling thread for the use of one kernel after the other, at least `bytes`, of
 * undefined contents; valid until the thread's next call of this. */
void *cuda_scratch(size_t bytes);

#define WARP 32

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- bfloat16 ---- */

typedef struct Bf16 {
    uint16_t bits;
} Bf16;

__host__ __device__ __forceinline__ float to_float(float value)
{
    return value;
}

__host__ __device__ __forceinline__ float to_float(Bf16 value)
{
    union {
        uint32_t bits;
        float real;
    } u;
    u.bits = (uint32_t)value.bits << 16;
    return u.real;
}

/* To nearest, ties to even; a NaN stays a quiet NaN: as bf16_from_f32. */
template <typename T> __host__ __device__ __forceinline__ T from_float(float value);

template <> __host__ __device__ __forceinline__ float from_float<float>(float value)
{
    return value;
}

template <> __host__ __device__ __forceinline__ Bf16 from_float<Bf16>(float value)
{
    union {
        float real;
        uint32_t bits;
    } u;
    u.real = value;
    Bf16 rounded;
    if ((u.bits & 0x7FFFFFFF) > 0x7F800000)
        rounded.bits = (uint16_t)(u.bits >> 16 | 0x40);
    else
        rounded.bits = (uint16_t)((u.bits + 0x7FFF + (u.bits >> 16 & 1)) >> 16);
    return rounded;
}

/* Calls `body` with a type that stands for a DType of activations: DISPATCH(y.dtype, T, { ... }).
 */
#define DISPATCH(dtype, T, ...)                                                                    \
    do {                                                                                           \
        CHECK((dtype) == DTYPE_F32 || (dtype) == DTYPE_BF16);                                      \
        if ((dtype) == DTYPE_F32) {                                                                \
            typedef float T;                                                                       \
            __VA_ARGS__                                                                            \
        } else {                                                                                   \
            typedef Bf16 T;                                                                        \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    } while (0)

#endif
