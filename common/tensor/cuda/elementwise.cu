/* What is done to every element by itself. */
#include <math.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"

#define THREADS 256

/* Whole packs, one a thread; behind them, and where memory is not aligned, elements. */
static int blocks_for(int64_t n, int64_t packs, int per_pack)
{
    int64_t rest = n - packs * per_pack;
    return (int)ceil_div(packs > rest ? packs : rest, THREADS);
}

__device__ __forceinline__ int64_t thread_index()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

template <typename T>
__global__ void add_kernel(T *y, const T *a, const T *b, int64_t n, int64_t packs)
{
    const int count = pack_count<T>();
    int64_t i = thread_index();
    if (i < packs) {
        Pack<T> left = pack_load(a + i * count), right = pack_load(b + i * count);
        for (int k = 0; k < count; k++)
            left.at[k] = from_float<T>(to_float(left.at[k]) + to_float(right.at[k]));
        pack_store(y + i * count, left);
    }
    int64_t rest = packs * count + i;
    if (rest < n) y[rest] = from_float<T>(to_float(a[rest]) + to_float(b[rest]));
}

void cuda_add(Tensor y, Tensor a, Tensor b)
{
    int64_t n = tensor_count(&y);
    CHECK(tensor_count(&a) == n && tensor_count(&b) == n && a.dtype == y.dtype &&
          b.dtype == y.dtype);
    if (n == 0) return;
    bool packed = is_packed(y.data) && is_packed(a.data) && is_packed(b.data);
    DISPATCH(y.dtype, T, {
        int64_t packs = packed ? n / pack_count<T>() : 0;
        LAUNCH(add_kernel<T>, blocks_for(n, packs, pack_count<T>()), THREADS, 0, (T *)y.data,
               (const T *)a.data, (const T *)b.data, n, packs);
    });
}

/* ---- casts ---- */

/* A pack of f32 beside half a pack of bf16: four elements a thread. */
#define CAST_COUNT 4

template <typename To, typename From>
__global__ void cast_kernel(To *y, const From *x, int64_t n, bool packed)
{
    struct __align__(sizeof(To) * CAST_COUNT) Wide
    {
        To at[CAST_COUNT];
    };
    struct __align__(sizeof(From) * CAST_COUNT) Narrow
    {
        From at[CAST_COUNT];
    };
    int64_t first = thread_index() * CAST_COUNT;
    if (packed && first + CAST_COUNT <= n) {
        Narrow from = *(const Narrow *)(x + first);
        Wide to;
        for (int k = 0; k < CAST_COUNT; k++)
            to.at[k] = from_float<To>(to_float(from.at[k]));
        *(Wide *)(y + first) = to;
        return;
    }
    for (int64_t i = first; i < n && i < first + CAST_COUNT; i++)
        y[i] = from_float<To>(to_float(x[i]));
}

void cuda_cast(Tensor y, Tensor x)
{
    int64_t n = tensor_count(&y);
    CHECK(tensor_count(&x) == n);
    if (n == 0) return;
    bool packed = is_packed(y.data) && is_packed(x.data);
    int blocks = (int)ceil_div(n, (int64_t)THREADS * CAST_COUNT);
    DISPATCH(y.dtype, To, {
        DISPATCH(x.dtype, From, {
            LAUNCH((cast_kernel<To, From>), blocks, THREADS, 0, (To *)y.data, (const From *)x.data,
                   n, packed);
        });
    });
}

/* ---- temperature ---- */

__global__ void divide_rows_kernel(float *y, const float *divisor, int64_t width)
{
    int64_t row = blockIdx.x, j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (divisor[row] != 1.0f && j < width) y[row * width + j] /= divisor[row];
}

void cuda_divide_rows(Tensor y, const float *divisor)
{
    CHECK(y.rank == 2 && y.dtype == DTYPE_F32 && y.shape[1] > 0);
    if (y.shape[0] == 0) return;
    dim3 grid((unsigned)y.shape[0], (unsigned)ceil_div(y.shape[1], THREADS));
    LAUNCH(divide_rows_kernel, grid, THREADS, 0, (float *)y.data, divisor, y.shape[1]);
}

/* ---- AdamW ---- */

/* The parameters as the update wants them: in f32, of expressions in double. */
typedef struct AdamWStep {
    float decay, scale, beta2, keep1, keep2, step, root, eps;
} AdamWStep;

/* Loshchilov & Hutter 2019, algorithm 2, step by step as torch.optim.AdamW rounds it. */
template <typename T>
__global__ void adamw_kernel(float *master, float *exp_avg, float *exp_avg_sq, const float *grad,
                             T *weight, int64_t n, AdamWStep p)
{
    int64_t i = thread_index();
    if (i >= n) return;
    float g = grad[i] * p.scale, m = exp_avg[i], v = exp_avg_sq[i], w = master[i] * p.decay;
    m = m + p.keep1 * (g - m);
    v = v * p.beta2 + p.keep2 * g * g;
    w = w - p.step * (m / (sqrtf(v) / p.root + p.eps));
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    master[i] = w;
    if ((void *)weight != (void *)master) weight[i] = from_float<T>(w);
}

void cuda_adamw(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
                DType weight_dtype, int64_t n, const AdamWParams *params)
{
    CHECK(weight != master || weight_dtype == DTYPE_F32);
    if (n == 0) return;
    AdamWStep step;
    step.decay = (float)(1.0 - params->lr * params->weight_decay);
    step.scale = (float)params->grad_scale;
    step.beta2 = (float)params->beta2;
    step.keep1 = (float)(1.0 - params->beta1);
    step.keep2 = (float)(1.0 - params->beta2);
    step.step = (float)(params->lr / params->bias_correction1);
    step.root = (float)sqrt(params->bias_correction2);
    step.eps = (float)params->eps;
    DISPATCH(weight_dtype, T, {
        LAUNCH(adamw_kernel<T>, (int)ceil_div(n, THREADS), THREADS, 0, master, exp_avg, exp_avg_sq,
               grad, (T *)weight, n, step);
    });
}
