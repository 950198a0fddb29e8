/* Normalisation of each query and key head and rotary position embedding; the formulas and their
 * rounding are those of cpu/rope.c. A warp a head: lane i holds N pairs (j, j + head_dim / 2), from
 * j = i N on, where N follows from head_dim alone. */
#include <math.h>

#include "tensor/cuda/kv_pages.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"
#include "tensor/cuda/warp.cuh"

#define HEAD_DIM_MAX 512
#define WARPS        8 /* of a block */

/* Calls `body` with the pairs of a lane, a constant N. */
#define DISPATCH_PAIRS(head_dim, N, ...)                                                           \
    do {                                                                                           \
        if ((head_dim) <= 2 * WARP) {                                                              \
            const int N = 1;                                                                       \
            __VA_ARGS__                                                                            \
        } else if ((head_dim) <= 4 * WARP) {                                                       \
            const int N = 2;                                                                       \
            __VA_ARGS__                                                                            \
        } else if ((head_dim) <= 8 * WARP) {                                                       \
            const int N = 4;                                                                       \
            __VA_ARGS__                                                                            \
        } else {                                                                                   \
            const int N = 8;                                                                       \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    } while (0)

/* What one call works on. */
struct Heads {
    int num_heads, num_kv_heads, head_dim;
    bool grouped; /* a lane's pairs are read and written at once */
    int64_t rows, stride, raw_stride;
    float eps;
    const float *cos_sin;
    const int32_t *position;
};

/* One lane's part of a head, in f32; what lies beyond the head is 0. */
template <int N> struct Part {
    float a[N], b[N];
};

template <int N, typename T>
__device__ __forceinline__ Part<N> part_load(const T *head, bool grouped, int half, int lane)
{
    Part<N> part = {};
    int first = lane * N;
    if (grouped && first < half) {
        Group<T, N> a = group_load<N>(head + first), b = group_load<N>(head + half + first);
        UNROLL for (int i = 0; i < N; i++)
        {
            part.a[i] = to_float(a.at[i]);
            part.b[i] = to_float(b.at[i]);
        }
    } else {
        UNROLL for (int i = 0; i < N; i++)
        {
            int j = first + i;
            part.a[i] = j < half ? to_float(head[j]) : 0.0f;
            part.b[i] = j < half ? to_float(head[half + j]) : 0.0f;
        }
    }
    return part;
}

template <int N, typename T>
__device__ __forceinline__ void part_store(T *head, const Part<N> &part, bool grouped, int half,
                                           int lane)
{
    int first = lane * N;
    if (grouped && first < half) {
        Group<T, N> a, b;
        UNROLL for (int i = 0; i < N; i++)
        {
            a.at[i] = from_float<T>(part.a[i]);
            b.at[i] = from_float<T>(part.b[i]);
        }
        group_store<N>(head + first, a);
        group_store<N>(head + half + first, b);
        return;
    }
    UNROLL for (int i = 0; i < N; i++)
    {
        if (first + i >= half) break;
        head[first + i] = from_float<T>(part.a[i]);
        head[half + first + i] = from_float<T>(part.b[i]);
    }
}

template <int N>
__device__ __forceinline__ float part_rstd(const Part<N> &part, int half, float eps)
{
    float sum = 0.0f;
    UNROLL for (int i = 0; i < N; i++)
    {
        sum = fmaf(part.a[i], part.a[i], sum);
        sum = fmaf(part.b[i], part.b[i], sum);
    }
    return 1.0f / sqrtf(warp_sum(sum) / (float)(2 * half) + eps);
}

template <typename T> __device__ __forceinline__ float rounded(float value)
{
    return to_float(from_float<T>(value));
}

template <int N, typename T>
__device__ __forceinline__ void part_norm(Part<N> *part, const T *weight, int half, int lane,
                                          float eps)
{
    float rstd = part_rstd(*part, half, eps);
    UNROLL for (int i = 0; i < N; i++)
    {
        int j = lane * N + i;
        if (j >= half) break;
        part->a[i] = rounded<T>(rounded<T>(part->a[i] * rstd) * to_float(weight[j]));
        part->b[i] = rounded<T>(rounded<T>(part->b[i] * rstd) * to_float(weight[half + j]));
    }
}

/* `sign` +1 turns forward, -1 back. */
template <int N>
__device__ __forceinline__ void part_rotate(Part<N> *part, const float *angles, int half, int lane,
                                            float sign)
{
    UNROLL for (int i = 0; i < N; i++)
    {
        int j = lane * N + i;
        if (j >= half) break;
        float c = angles[j], s = angles[half + j] * sign, a = part->a[i], b = part->b[i];
        part->a[i] = a * c - b * s;
        part->b[i] = b * c + a * s;
    }
}

/* blockIdx.x: row; the block's warps share its heads. */
template <typename T, int N>
__global__ void rope_kernel(T *qkv, T *raw_qk, const T *q_norm, const T *k_norm, Heads h)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, half = h.head_dim / 2;
    int64_t row = blockIdx.x;
    const float *angles = h.cos_sin + (int64_t)h.position[row] * h.head_dim;
    for (int head = warp; head < h.num_heads + h.num_kv_heads; head += WARPS) {
        T *at = qkv + row * h.stride + (int64_t)head * h.head_dim;
        const T *weight = head < h.num_heads ? q_norm : k_norm;
        Part<N> part = part_load<N>(at, h.grouped, half, lane);
        if (raw_qk != NULL)
            part_store(raw_qk + row * h.raw_stride + (int64_t)head * h.head_dim, part, h.grouped,
                       half, lane);
        if (weight != NULL) part_norm(&part, weight, half, lane, h.eps);
        part_rotate(&part, angles, half, lane, 1.0f);
        part_store(at, part, h.grouped, half, lane);
    }
}

/* A head as it is. */
template <typename T>
__device__ __forceinline__ void copy_head(T *to, const T *from, int dim, int lane)
{
    for (int j = lane; j < dim; j += WARP)
        to[j] = from[j];
}

/* The same, and keys and values into their cells. */
template <typename T, int N>
__global__ void rope_store_kernel(T *qkv, const T *q_norm, const T *k_norm, Heads h, KvPages pages)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, half = h.head_dim / 2;
    int64_t row = blockIdx.x, slot = pages.slot[row];
    if (slot < 0) return; /* nobody's */
    const float *angles = h.cos_sin + (int64_t)h.position[row] * h.head_dim;
    T *page = (T *)(pages.memory + slot / KV_PAGE * pages.page_bytes);
    T *keys = page + slot % KV_PAGE * h.head_dim;
    int rotated = h.num_heads + h.num_kv_heads;
    for (int head = warp; head < rotated + h.num_kv_heads; head += WARPS) {
        T *at = qkv + row * h.stride + (int64_t)head * h.head_dim;
        int64_t kv_head = head - h.num_heads;
        if (head >= rotated) { /* heads lie KV_PAGE cells apart, values behind all keys */
            T *values = keys + page_half(h.num_kv_heads, h.head_dim);
            kv_head -= h.num_kv_heads;
            copy_head(values + kv_head * KV_PAGE * h.head_dim, at, h.head_dim, lane);
            continue;
        }
        const T *weight = head < h.num_heads ? q_norm : k_norm;
        Part<N> part = part_load<N>(at, h.grouped, half, lane);
        if (weight != NULL) part_norm(&part, weight, half, lane, h.eps);
        part_rotate(&part, angles, half, lane, 1.0f);
        part_store(at, part, h.grouped, half, lane);
        if (kv_head >= 0)
            part_store(keys + kv_head * KV_PAGE * h.head_dim, part, h.grouped, half, lane);
    }
}

static Heads heads_of(const Tensor *qkv, const Tensor *raw_qk, int num_heads, int num_kv_heads,
                      int head_dim)
{
    Heads h = {};
    CHECK(qkv->rank == 2 && qkv->shape[1] == (int64_t)(num_heads + 2 * num_kv_heads) * head_dim);
    CHECK(head_dim > 0 && head_dim % 2 == 0 && head_dim <= HEAD_DIM_MAX);
    h.num_heads = num_heads;
    h.num_kv_heads = num_kv_heads;
    h.head_dim = head_dim;
    h.rows = qkv->shape[0];
    h.stride = qkv->shape[1];
    h.raw_stride = raw_qk->data != NULL ? raw_qk->shape[1] : 0;
    DISPATCH_PAIRS(head_dim, N, {
        h.grouped = head_dim / 2 % N == 0 && is_packed(qkv->data) && is_packed(raw_qk->data);
    });
    return h;
}

void cuda_qk_norm_rope(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                       const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                       const int32_t *position)
{
    Heads h = heads_of(&qkv, &raw_qk, num_heads, num_kv_heads, head_dim);
    h.eps = eps;
    h.cos_sin = cos_sin;
    h.position = position;
    if (h.rows == 0) return;
    DISPATCH(qkv.dtype, T, {
        DISPATCH_PAIRS(head_dim, N, {
            LAUNCH((rope_kernel<T, N>), (unsigned)h.rows, WARPS * WARP, 0, (T *)qkv.data,
                   (T *)raw_qk.data, (const T *)q_norm, (const T *)k_norm, h);
        });
    });
}

void cuda_qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                             const SequenceTable *, const KvPages *pages)
{
    Tensor none = tensor_2d(NULL, qkv.dtype, 0, 0);
    Heads h = heads_of(&qkv, &none, shape->num_heads, shape->num_kv_heads, shape->head_dim);
    h.eps = rope->eps;
    h.cos_sin = rope->cos_sin;
    h.position = rope->position;
    if (h.rows == 0) return;
    CHECK(pages->slot != NULL);
    h.grouped = h.grouped && is_packed(pages->memory) && pages->page_bytes % PACK_BYTES == 0;
    DISPATCH(qkv.dtype, T, {
        DISPATCH_PAIRS(shape->head_dim, N, {
            LAUNCH((rope_store_kernel<T, N>), (unsigned)h.rows, WARPS * WARP, 0, (T *)qkv.data,
                   (const T *)rope->q_norm, (const T *)rope->k_norm, h, *pages);
        });
    });
}

/* ---- backward ---- */

#define ROWS_OF_BLOCK 64 /* each warp takes every WARPS-th of them */
#define SUMS_OF_BLOCK 32 /* that are added by one */

/* The head's gradient through its norm, in place; adds the weight's gradient to dw. */
template <int N, typename T>
__device__ __forceinline__ void part_norm_backward(Part<N> *grad, const Part<N> &raw,
                                                   const T *weight, Part<N> *dw, int half, int lane,
                                                   float eps)
{
    float rstd = part_rstd(raw, half, eps), dot = 0.0f;
    UNROLL for (int i = 0; i < N; i++)
    {
        int j = lane * N + i;
        if (j >= half) break;
        float a = raw.a[i] * rstd, b = raw.b[i] * rstd;
        dw->a[i] = fmaf(grad->a[i], rounded<T>(a), dw->a[i]);
        dw->b[i] = fmaf(grad->b[i], rounded<T>(b), dw->b[i]);
        grad->a[i] *= to_float(weight[j]);
        grad->b[i] *= to_float(weight[half + j]);
        dot = fmaf(grad->a[i], a, dot);
        dot = fmaf(grad->b[i], b, dot);
    }
    float mean = warp_sum(dot) / (float)(2 * half);
    UNROLL for (int i = 0; i < N; i++)
    {
        grad->a[i] = rstd * (grad->a[i] - raw.a[i] * rstd * mean);
        grad->b[i] = rstd * (grad->b[i] - raw.b[i] * rstd * mean);
    }
}

/* What the block's warps have summed, in their order: sums[2, head_dim] of the block. `part` is
 * shared memory, [WARPS, 2, head_dim]. */
template <int N>
__device__ __forceinline__ void add_warps(float *sums, float *part, const Part<N> (&dw)[2],
                                          int head_dim)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, wide = 2 * head_dim;
    UNROLL for (int kind = 0; kind < 2; kind++)
        part_store(part + warp * wide + kind * head_dim, dw[kind], false, head_dim / 2, lane);
    __syncthreads();
    for (int j = (int)threadIdx.x; j < wide; j += WARPS * WARP) {
        float sum = 0.0f;
        for (int i = 0; i < WARPS; i++)
            sum += part[i * wide + j];
        sums[j] = sum;
    }
}

/* sums[block, 2, head_dim]: what the rows of a block add to the gradients of q_norm and k_norm. */
template <typename T, int N>
__global__ void rope_backward_kernel(T *dqkv, const T *raw_qk, const T *q_norm, const T *k_norm,
                                     float *sums, Heads h)
{
    __shared__ float part[WARPS * 4 * WARP * N];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, half = h.head_dim / 2;
    Part<N> dw[2] = {};
    int64_t first = (int64_t)blockIdx.x * ROWS_OF_BLOCK;
    for (int64_t row = first + warp; row < first + ROWS_OF_BLOCK && row < h.rows; row += WARPS) {
        const float *angles = h.cos_sin + (int64_t)h.position[row] * h.head_dim;
        UNROLL for (int kind = 0; kind < 2;
                    kind++) /* known where dw is named: it is in registers */
        {
            const T *weight = kind == 0 ? q_norm : k_norm;
            int head = kind == 0 ? 0 : h.num_heads;
            int end = kind == 0 ? h.num_heads : h.num_heads + h.num_kv_heads;
            for (; head < end; head++) {
                T *at = dqkv + row * h.stride + (int64_t)head * h.head_dim;
                Part<N> grad = part_load<N>(at, h.grouped, half, lane);
                part_rotate(&grad, angles, half, lane, -1.0f);
                if (weight != NULL) {
                    const T *raw = raw_qk + row * h.raw_stride + (int64_t)head * h.head_dim;
                    part_norm_backward(&grad, part_load<N>(raw, h.grouped, half, lane), weight,
                                       &dw[kind], half, lane, h.eps);
                }
                part_store(at, grad, h.grouped, half, lane);
            }
        }
    }
    if (sums != NULL) add_warps(sums + blockIdx.x * 2 * (int64_t)h.head_dim, part, dw, h.head_dim);
}

/* out[block, width]: the block's SUMS_OF_BLOCK of sums[count, width], in their order. */
__global__ void add_norm_sums_kernel(float *out, const float *sums, int64_t count, int width)
{
    int64_t first = (int64_t)blockIdx.x * SUMS_OF_BLOCK;
    int64_t end = first + SUMS_OF_BLOCK < count ? first + SUMS_OF_BLOCK : count;
    for (int j = (int)threadIdx.x; j < width; j += (int)blockDim.x) {
        float sum = 0.0f;
        for (int64_t i = first; i < end; i++)
            sum += sums[i * width + j];
        out[blockIdx.x * (int64_t)width + j] = sum;
    }
}

__global__ void add_norm_gradients_kernel(float *dq_norm, float *dk_norm, const float *sums,
                                          int head_dim)
{
    int j = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (j >= 2 * head_dim) return;
    float *into = j < head_dim ? dq_norm : dk_norm;
    if (into != NULL) into[j % head_dim] += sums[j];
}

/* sums[count, 2 head_dim] into the gradients, by stages; behind them is room for all but the first.
 */
static void add_norm_sums(float *dq_norm, float *dk_norm, float *sums, int64_t count, int head_dim)
{
    while (count > 1) {
        float *out = sums + count * 2 * head_dim;
        int64_t blocks = ceil_div(count, SUMS_OF_BLOCK);
        LAUNCH(add_norm_sums_kernel, (unsigned)blocks, 256, 0, out, sums, count, 2 * head_dim);
        sums = out;
        count = blocks;
    }
    LAUNCH(add_norm_gradients_kernel, (unsigned)ceil_div(2 * head_dim, 256), 256, 0, dq_norm,
           dk_norm, sums, head_dim);
}

void cuda_qk_norm_rope_backward(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                                int head_dim, const void *q_norm, const void *k_norm, float eps,
                                float *dq_norm_accumulate, float *dk_norm_accumulate,
                                const float *cos_sin, const int32_t *position)
{
    Heads h = heads_of(&dqkv, &raw_qk, num_heads, num_kv_heads, head_dim);
    bool with_norm = q_norm != NULL || k_norm != NULL;
    int64_t blocks = ceil_div(h.rows, ROWS_OF_BLOCK);
    h.eps = eps;
    h.cos_sin = cos_sin;
    h.position = position;
    CHECK(!with_norm || raw_qk.data != NULL);
    if (h.rows == 0) return;
    float *sums = NULL;
    if (with_norm)
        sums = (float *)cuda_scratch((size_t)(2 * blocks * 2 * head_dim) * sizeof(float));
    DISPATCH(dqkv.dtype, T, {
        DISPATCH_PAIRS(head_dim, N, {
            LAUNCH((rope_backward_kernel<T, N>), (unsigned)blocks, WARPS * WARP, 0, (T *)dqkv.data,
                   (const T *)raw_qk.data, (const T *)q_norm, (const T *)k_norm, sums, h);
        });
    });
    if (with_norm)
        add_norm_sums(q_norm != NULL ? dq_norm_accumulate : NULL,
                      k_norm != NULL ? dk_norm_accumulate : NULL, sums, blocks, head_dim);
}
