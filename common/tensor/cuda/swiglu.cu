/* SwiGLU and its backward pass: the formulas and their rounding are those of cpu/swiglu.c. A thread
 * a group of columns: packs where rows consist of them. */
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"

#define THREADS 256

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

template <typename T, int count>
__global__ void swiglu_kernel(T *y, const T *gate_up, int64_t width)
{
    int64_t row = blockIdx.x, j = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * count;
    if (j >= width) return;
    const T *gate = gate_up + row * 2 * width + j;
    Group<T, count> gates = group_load<count>(gate), ups = group_load<count>(gate + width), out;
    for (int i = 0; i < count; i++) {
        float g = to_float(gates.at[i]);
        float silu = to_float(from_float<T>(g * sigmoid(g)));
        out.at[i] = from_float<T>(silu * to_float(ups.at[i]));
    }
    group_store<count>(y + row * width + j, out);
}

template <typename T, int count>
__global__ void swiglu_backward_kernel(T *dgate_up, const T *dy, const T *gate_up, int64_t width)
{
    int64_t row = blockIdx.x, j = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * count;
    if (j >= width) return;
    const T *gate = gate_up + row * 2 * width + j;
    T *dgate = dgate_up + row * 2 * width + j;
    Group<T, count> gates = group_load<count>(gate), ups = group_load<count>(gate + width);
    Group<T, count> grads = group_load<count>(dy + row * width + j), dgates, dups;
    for (int i = 0; i < count; i++) {
        float g = to_float(gates.at[i]), up = to_float(ups.at[i]), grad = to_float(grads.at[i]);
        float s = sigmoid(g), slope = s * fmaf(g, 1.0f - s, 1.0f);
        float silu = to_float(from_float<T>(g * s));
        dgates.at[i] = from_float<T>(grad * up * slope);
        dups.at[i] = from_float<T>(grad * silu);
    }
    group_store<count>(dgate, dgates);
    group_store<count>(dgate + width, dups);
}

static void check_shapes(const Tensor *y, const Tensor *gate_up)
{
    CHECK(y->rank == 2 && gate_up->rank == 2 && gate_up->shape[0] == y->shape[0] &&
          gate_up->shape[1] == 2 * y->shape[1] && gate_up->dtype == y->dtype);
}

template <typename T, int count> static void swiglu(const Tensor &y, const Tensor &gate_up)
{
    dim3 grid((unsigned)y.shape[0], (unsigned)ceil_div(y.shape[1], THREADS * count));
    LAUNCH((swiglu_kernel<T, count>), grid, THREADS, 0, (T *)y.data, (const T *)gate_up.data,
           y.shape[1]);
}

void cuda_swiglu(Tensor y, Tensor gate_up)
{
    check_shapes(&y, &gate_up);
    if (y.shape[0] == 0) return;
    DISPATCH(y.dtype, T, {
        if (has_packed_rows<T>(y.data, y.shape[1]) && is_packed(gate_up.data))
            swiglu<T, pack_count<T>()>(y, gate_up);
        else
            swiglu<T, 1>(y, gate_up);
    });
}

template <typename T, int count>
static void swiglu_backward(const Tensor &dgate_up, const Tensor &dy, const Tensor &gate_up)
{
    dim3 grid((unsigned)dy.shape[0], (unsigned)ceil_div(dy.shape[1], THREADS * count));
    LAUNCH((swiglu_backward_kernel<T, count>), grid, THREADS, 0, (T *)dgate_up.data,
           (const T *)dy.data, (const T *)gate_up.data, dy.shape[1]);
}

void cuda_swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up)
{
    check_shapes(&dy, &gate_up);
    CHECK(tensor_same_shape(&dgate_up, &gate_up) && dgate_up.dtype == dy.dtype);
    if (dy.shape[0] == 0) return;
    DISPATCH(dy.dtype, T, {
        if (has_packed_rows<T>(dy.data, dy.shape[1]) && is_packed(gate_up.data) &&
            is_packed(dgate_up.data))
            swiglu_backward<T, pack_count<T>()>(dgate_up, dy, gate_up);
        else
            swiglu_backward<T, 1>(dgate_up, dy, gate_up);
    });
}
