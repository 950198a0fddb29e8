/* Normalisation of each query and key head and rotary position embedding; the formulas and their
 * rounding are those of cpu/rope.c. A warp a head: lane i holds the pairs (j, j + head_dim / 2) for
 * j = i, i + 32 ... */
#include <math.h>

#include "tensor/cuda/kv_pages.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define HEAD_DIM_MAX 512
#define PAIRS_MAX    (HEAD_DIM_MAX / 2 / WARP) /* of a lane */
#define WARPS        8                         /* of a block */

/* What one call works on. */
struct Heads {
    int num_heads, num_kv_heads, head_dim;
    int64_t rows, stride, raw_stride;
    float eps;
    const float *cos_sin;
    const int32_t *position;
};

/* One lane's part of a head, in f32; what lies beyond the head is 0. */
struct Part {
    float a[PAIRS_MAX], b[PAIRS_MAX];
};

template <typename T> __device__ __forceinline__ Part part_load(const T *head, int half, int lane)
{
    Part part;
    for (int i = 0; i < PAIRS_MAX; i++) {
        int j = lane + i * WARP;
        part.a[i] = j < half ? to_float(head[j]) : 0.0f;
        part.b[i] = j < half ? to_float(head[half + j]) : 0.0f;
    }
    return part;
}

template <typename T>
__device__ __forceinline__ void part_store(T *head, const Part &part, int half, int lane)
{
    for (int i = 0; i < PAIRS_MAX; i++) {
        int j = lane + i * WARP;
        if (j >= half) break;
        head[j] = from_float<T>(part.a[i]);
        head[half + j] = from_float<T>(part.b[i]);
    }
}

__device__ __forceinline__ float part_rstd(const Part &part, int half, float eps)
{
    float sum = 0.0f;
    for (int i = 0; i < PAIRS_MAX; i++) {
        sum = fmaf(part.a[i], part.a[i], sum);
        sum = fmaf(part.b[i], part.b[i], sum);
    }
    return 1.0f / sqrtf(warp_sum(sum) / (float)(2 * half) + eps);
}

template <typename T> __device__ __forceinline__ float rounded(float value)
{
    return to_float(from_float<T>(value));
}

template <typename T>
__device__ __forceinline__ void part_norm(Part *part, const T *weight, int half, int lane,
                                          float eps)
{
    float rstd = part_rstd(*part, half, eps);
    for (int i = 0; i < PAIRS_MAX; i++) {
        int j = lane + i * WARP;
        if (j >= half) break;
        part->a[i] = rounded<T>(rounded<T>(part->a[i] * rstd) * to_float(weight[j]));
        part->b[i] = rounded<T>(rounded<T>(part->b[i] * rstd) * to_float(weight[half + j]));
    }
}

/* `sign` +1 turns forward, -1 back. */
__device__ __forceinline__ void part_rotate(Part *part, const float *angles, int half, int lane,
                                            float sign)
{
    for (int i = 0; i < PAIRS_MAX; i++) {
        int j = lane + i * WARP;
        if (j >= half) break;
        float c = angles[j], s = angles[half + j] * sign, a = part->a[i], b = part->b[i];
        part->a[i] = a * c - b * s;
        part->b[i] = b * c + a * s;
    }
}

/* blockIdx.x: row; the block's warps share its heads. */
template <typename T>
__global__ void rope_kernel(T *qkv, T *raw_qk, const T *q_norm, const T *k_norm, Heads h)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, half = h.head_dim / 2;
    int64_t row = blockIdx.x;
    const float *angles = h.cos_sin + (int64_t)h.position[row] * h.head_dim;
    for (int head = warp; head < h.num_heads + h.num_kv_heads; head += WARPS) {
        T *at = qkv + row * h.stride + (int64_t)head * h.head_dim;
        const T *weight = head < h.num_heads ? q_norm : k_norm;
        Part part = part_load(at, half, lane);
        if (raw_qk != NULL)
            part_store(raw_qk + row * h.raw_stride + (int64_t)head * h.head_dim, part, half, lane);
        if (weight != NULL) part_norm(&part, weight, half, lane, h.eps);
        part_rotate(&part, angles, half, lane, 1.0f);
        part_store(at, part, half, lane);
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
template <typename T>
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
        Part part = part_load(at, half, lane);
        if (weight != NULL) part_norm(&part, weight, half, lane, h.eps);
        part_rotate(&part, angles, half, lane, 1.0f);
        part_store(at, part, half, lane);
        if (kv_head >= 0) part_store(keys + kv_head * KV_PAGE * h.head_dim, part, half, lane);
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
        LAUNCH(rope_kernel<T>, (unsigned)h.rows, WARPS * WARP, 0, (T *)qkv.data, (T *)raw_qk.data,
               (const T *)q_norm, (const T *)k_norm, h);
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
    DISPATCH(qkv.dtype, T, {
        LAUNCH(rope_store_kernel<T>, (unsigned)h.rows, WARPS * WARP, 0, (T *)qkv.data,
               (const T *)rope->q_norm, (const T *)rope->k_norm, h, *pages);
    });
}

/* ---- backward ---- */

#define ROWS_OF_BLOCK 64 /* each warp takes every WARPS-th of them */

/* The head's gradient through its norm, in place; adds the weight's gradient to dw. */
template <typename T>
__device__ __forceinline__ void part_norm_backward(Part *grad, const Part &raw, const T *weight,
                                                   Part *dw, int half, int lane, float eps)
{
    float rstd = part_rstd(raw, half, eps), dot = 0.0f;
    for (int i = 0; i < PAIRS_MAX; i++) {
        int j = lane + i * WARP;
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
    for (int i = 0; i < PAIRS_MAX; i++) {
        grad->a[i] = rstd * (grad->a[i] - raw.a[i] * rstd * mean);
        grad->b[i] = rstd * (grad->b[i] - raw.b[i] * rstd * mean);
    }
}

/* sums[block, warp, 2, head_dim]: what the rows of a warp add to the gradients of q_norm and
 * k_norm. */
template <typename T>
__global__ void rope_backward_kernel(T *dqkv, const T *raw_qk, const T *q_norm, const T *k_norm,
                                     float *sums, Heads h)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, half = h.head_dim / 2;
    Part dw[2] = {};
    int64_t first = (int64_t)blockIdx.x * ROWS_OF_BLOCK;
    for (int64_t row = first + warp; row < first + ROWS_OF_BLOCK && row < h.rows; row += WARPS) {
        const float *angles = h.cos_sin + (int64_t)h.position[row] * h.head_dim;
        for (int head = 0; head < h.num_heads + h.num_kv_heads; head++) {
            T *at = dqkv + row * h.stride + (int64_t)head * h.head_dim;
            int kind = head < h.num_heads ? 0 : 1;
            const T *weight = kind == 0 ? q_norm : k_norm;
            Part grad = part_load(at, half, lane);
            part_rotate(&grad, angles, half, lane, -1.0f);
            if (weight != NULL) {
                const T *raw = raw_qk + row * h.raw_stride + (int64_t)head * h.head_dim;
                part_norm_backward(&grad, part_load(raw, half, lane), weight, &dw[kind], half, lane,
                                   h.eps);
            }
            part_store(at, grad, half, lane);
        }
    }
    for (int kind = 0; kind < 2 && sums != NULL; kind++)
        part_store(sums + ((blockIdx.x * WARPS + warp) * 2 + kind) * (int64_t)h.head_dim, dw[kind],
                   half, lane);
}

__global__ void add_norm_sums_kernel(float *dq_norm, float *dk_norm, const float *sums,
                                     int64_t count, int head_dim)
{
    for (int j = (int)threadIdx.x; j < 2 * head_dim; j += (int)blockDim.x) {
        float *into = j < head_dim ? dq_norm : dk_norm;
        float sum = 0.0f;
        for (int64_t i = 0; i < count; i++)
            sum += sums[i * 2 * head_dim + j];
        if (into != NULL) into[j % head_dim] += sum;
    }
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
        sums = (float *)cuda_scratch((size_t)(blocks * WARPS * 2 * head_dim) * sizeof(float));
    DISPATCH(dqkv.dtype, T, {
        LAUNCH(rope_backward_kernel<T>, (unsigned)blocks, WARPS * WARP, 0, (T *)dqkv.data,
               (const T *)raw_qk.data, (const T *)q_norm, (const T *)k_norm, sums, h);
    });
    if (with_norm)
        LAUNCH(add_norm_sums_kernel, 1, 256, 0, q_norm != NULL ? dq_norm_accumulate : NULL,
               k_norm != NULL ? dk_norm_accumulate : NULL, sums, blocks * WARPS, head_dim);
}
