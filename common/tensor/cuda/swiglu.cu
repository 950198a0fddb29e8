/* SwiGLU and its backward pass: the formulas and their rounding are those of cpu/swiglu.c. */
#include "tensor/cuda/ops.cuh"

#define THREADS 256

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

template <typename T> __global__ void swiglu_kernel(T *y, const T *gate_up, int64_t width)
{
    int64_t row = blockIdx.x, j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= width) return;
    const T *gate = gate_up + row * 2 * width;
    float g = to_float(gate[j]), up = to_float(gate[width + j]);
    float silu = to_float(from_float<T>(g * sigmoid(g)));
    y[row * width + j] = from_float<T>(silu * up);
}

template <typename T>
__global__ void swiglu_backward_kernel(T *dgate_up, const T *dy, const T *gate_up, int64_t width)
{
    int64_t row = blockIdx.x, j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= width) return;
    const T *gate = gate_up + row * 2 * width;
    T *dgate = dgate_up + row * 2 * width;
    float g = to_float(gate[j]), up = to_float(gate[width + j]),
          grad = to_float(dy[row * width + j]);
    float s = sigmoid(g), slope = s * fmaf(g, 1.0f - s, 1.0f);
    float silu = to_float(from_float<T>(g * s));
    dgate[j] = from_float<T>(grad * up * slope);
    dgate[width + j] = from_float<T>(grad * silu);
}

static dim3 grid_of(const Tensor *y, const Tensor *gate_up)
{
    CHECK(y->rank == 2 && gate_up->rank == 2 && gate_up->shape[0] == y->shape[0] &&
          gate_up->shape[1] == 2 * y->shape[1] && gate_up->dtype == y->dtype);
    return dim3((unsigned)y->shape[0], (unsigned)ceil_div(y->shape[1], THREADS));
}

void cuda_swiglu(Tensor y, Tensor gate_up)
{
    dim3 grid = grid_of(&y, &gate_up);
    if (y.shape[0] == 0) return;
    DISPATCH(y.dtype, T, {
        LAUNCH(swiglu_kernel<T>, grid, THREADS, 0, (T *)y.data, (const T *)gate_up.data,
               y.shape[1]);
    });
}

void cuda_swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up)
{
    dim3 grid = grid_of(&dy, &gate_up);
    CHECK(tensor_same_shape(&dgate_up, &gate_up) && dgate_up.dtype == dy.dtype);
    if (dy.shape[0] == 0) return;
    DISPATCH(dy.dtype, T, {
        LAUNCH(swiglu_backward_kernel<T>, grid, THREADS, 0, (T *)dgate_up.data, (const T *)dy.data,
               (const T *)gate_up.data, dy.shape[1]);
    });
}
