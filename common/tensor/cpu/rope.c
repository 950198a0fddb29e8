/* Normalisation of each query and key head and rotary position embedding (Su et al. 2021), in one
 * pass over qkv. With the halves a, b of a head and the angles of its row's position: a' = a cos -
 * b sin,   b' = b cos + a sin      (Hugging Face's half-rotation) and backward the rotation by the
 * opposite angle. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

#define HEAD_DIM_MAX 512

typedef struct RopeRun {
    Tensor qkv, raw_qk;
    int num_heads, num_kv_heads, head_dim;
    const void *q_norm, *k_norm;
    float eps;
    const float *cos_sin;
    const int32_t *position;
} RopeRun;

/* One head widened to f32, each half padded with zeros to whole lanes. */
typedef struct Head {
    float half[2][HEAD_DIM_MAX / 2];
} Head;

ALWAYS_INLINE void head_load(Head *head, const void *row, int64_t at, int half_dim, DType dtype)
{
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES)
            lanes_store(head->half[half] + j, lanes_load_row(row, at + half * half_dim + j,
                                                             at + (half + 1) * half_dim, dtype));
}

ALWAYS_INLINE float head_rstd(const Head *head, int half_dim, float eps)
{
    Lanes sum = lanes_set(0);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES) {
            const Lanes value = lanes_load(head->half[half] + j);
            sum = lanes_fma(value, value, sum);
        }
    return 1.0f / sqrtf(lanes_sum(sum) / (float)(2 * half_dim) + eps);
}

/* Norm as norm.c does it: rounded before and after the product with the weight. */
ALWAYS_INLINE void head_norm(Head *head, const void *weight, int half_dim, float eps, DType dtype)
{
    const Lanes rstd = lanes_set(head_rstd(head, half_dim, eps));
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES) {
            const Lanes w =
                lanes_load_row(weight, half * half_dim + j, (half + 1) * half_dim, dtype);
            Lanes value = lanes_mul(lanes_load(head->half[half] + j), rstd);
            value = lanes_round(lanes_mul(lanes_round(value, dtype), w), dtype);
            lanes_store(head->half[half] + j, value);
        }
}

/* `sign` +1 turns forward, -1 back. */
ALWAYS_INLINE void head_rotate(Head *head, const float *cos_sin, int half_dim, float sign)
{
    for (int j = 0; j < half_dim; j += LANES) {
        const Lanes c = lanes_load_row(cos_sin, j, half_dim, DTYPE_F32);
        Lanes s = lanes_load_row(cos_sin, half_dim + j, 2 * half_dim, DTYPE_F32);
        s = lanes_mul(s, lanes_set(sign));
        const Lanes a = lanes_load(head->half[0] + j), b = lanes_load(head->half[1] + j);
        lanes_store(head->half[0] + j, lanes_sub(lanes_mul(a, c), lanes_mul(b, s)));
        lanes_store(head->half[1] + j, lanes_add(lanes_mul(b, c), lanes_mul(a, s)));
    }
}

ALWAYS_INLINE void head_store(const Head *head, void *row, int64_t at, int half_dim, DType dtype)
{
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES)
            lanes_store_row(row, at + half * half_dim + j, at + (half + 1) * half_dim, dtype,
                            lanes_load(head->half[half] + j));
}

ALWAYS_INLINE void *row_at(const Tensor *tensor, int64_t row, DType dtype)
{
    return (char *)tensor->data + row * tensor->shape[1] * (dtype == DTYPE_F32 ? 4 : 2);
}

ALWAYS_INLINE void rope_rows(const RopeRun *run, int64_t first, int64_t last, DType dtype)
{
    const int half_dim = run->head_dim / 2;
    const int heads = run->num_heads + run->num_kv_heads;
    const size_t raw_bytes = (size_t)heads * (size_t)run->head_dim * (dtype == DTYPE_F32 ? 4 : 2);
    Head head;
    for (int64_t row = first; row < last; row++) {
        void *qk = row_at(&run->qkv, row, dtype);
        const float *angles = run->cos_sin + (int64_t)run->position[row] * run->head_dim;
        if (run->raw_qk.data != NULL) memcpy(row_at(&run->raw_qk, row, dtype), qk, raw_bytes);
        for (int h = 0; h < heads; h++) {
            const void *weight = h < run->num_heads ? run->q_norm : run->k_norm;
            const int64_t at = (int64_t)h * run->head_dim;
            head_load(&head, qk, at, half_dim, dtype);
            if (weight != NULL) head_norm(&head, weight, half_dim, run->eps, dtype);
            head_rotate(&head, angles, half_dim, 1.0f);
            head_store(&head, qk, at, half_dim, dtype);
        }
    }
}

static void rope_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const RopeRun *run = context;
    if (run->qkv.dtype == DTYPE_F32)
        rope_rows(run, first, last, DTYPE_F32);
    else
        rope_rows(run, first, last, DTYPE_BF16);
}

static void rope_check(const RopeRun *run, bool needs_raw)
{
    const Tensor *qkv = &run->qkv, *raw = &run->raw_qk;
    CHECK(qkv->rank == 2 && (qkv->dtype == DTYPE_F32 || qkv->dtype == DTYPE_BF16));
    CHECK(run->head_dim > 0 && run->head_dim % 2 == 0 && run->head_dim <= HEAD_DIM_MAX);
    CHECK(run->num_heads > 0 && run->num_kv_heads > 0);
    CHECK(qkv->shape[1] == (int64_t)(run->num_heads + 2 * run->num_kv_heads) * run->head_dim);
    CHECK(!needs_raw || raw->data != NULL);
    if (raw->data == NULL) return;
    CHECK(raw->rank == 2 && raw->dtype == qkv->dtype && raw->shape[0] == qkv->shape[0]);
    CHECK(raw->shape[1] == (int64_t)(run->num_heads + run->num_kv_heads) * run->head_dim);
}

void cpu_qk_norm_rope(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                      const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                      const int32_t *position)
{
    const RopeRun run = {qkv,    raw_qk, num_heads, num_kv_heads, head_dim,
                         q_norm, k_norm, eps,       cos_sin,      position};
    rope_check(&run, false);
    parallel_range(qkv.shape[0], 4, rope_body, &run);
}

/* ---- backward ---- */

/* The head's gradient through its norm, in place; adds the weight's gradient to dw [head_dim]. */
ALWAYS_INLINE void head_norm_backward(Head *grad, const Head *raw, const void *weight, float *dw,
                                      int half_dim, float eps, DType dtype)
{
    const float rstd = head_rstd(raw, half_dim, eps);
    Lanes dot = lanes_set(0);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES) {
            const int64_t at = half * half_dim + j, end = (half + 1) * half_dim;
            const Lanes normed = lanes_mul(lanes_load(raw->half[half] + j), lanes_set(rstd));
            const Lanes dy = lanes_load(grad->half[half] + j);
            const Lanes sum =
                lanes_fma(dy, lanes_round(normed, dtype), lanes_load_row(dw, at, end, DTYPE_F32));
            lanes_store_row(dw, at, end, DTYPE_F32, sum);
            const Lanes scaled = lanes_mul(dy, lanes_load_row(weight, at, end, dtype));
            lanes_store(grad->half[half] + j, scaled);
            dot = lanes_fma(scaled, normed, dot);
        }
    const float mean = lanes_sum(dot) / (float)(2 * half_dim);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < half_dim; j += LANES) {
            const Lanes normed = lanes_mul(lanes_load(raw->half[half] + j), lanes_set(rstd));
            const Lanes dy = lanes_load(grad->half[half] + j);
            lanes_store(
                grad->half[half] + j,
                lanes_mul(lanes_set(rstd), lanes_sub(dy, lanes_mul(normed, lanes_set(mean)))));
        }
}

/* `into` is [2, head_dim]: the gradients of q_norm and k_norm. */
ALWAYS_INLINE void rope_backward_rows(const RopeRun *run, int64_t first, int64_t last, float *into,
                                      DType dtype)
{
    const int half_dim = run->head_dim / 2;
    Head grad, raw;
    for (int64_t row = first; row < last; row++) {
        void *dqk = row_at(&run->qkv, row, dtype);
        const float *angles = run->cos_sin + (int64_t)run->position[row] * run->head_dim;
        for (int h = 0; h < run->num_heads + run->num_kv_heads; h++) {
            const bool is_query = h < run->num_heads;
            const void *weight = is_query ? run->q_norm : run->k_norm;
            const int64_t at = (int64_t)h * run->head_dim;
            head_load(&grad, dqk, at, half_dim, dtype);
            head_rotate(&grad, angles, half_dim, -1.0f);
            if (weight != NULL) {
                head_load(&raw, row_at(&run->raw_qk, row, dtype), at, half_dim, dtype);
                float *dw = is_query ? into : into + run->head_dim;
                head_norm_backward(&grad, &raw, weight, dw, half_dim, run->eps, dtype);
            }
            head_store(&grad, dqk, at, half_dim, dtype);
        }
    }
}

static void rope_backward_part(const void *context, int64_t first, int64_t last, float *into)
{
    const RopeRun *run = context;
    if (run->qkv.dtype == DTYPE_F32)
        rope_backward_rows(run, first, last, into, DTYPE_F32);
    else
        rope_backward_rows(run, first, last, into, DTYPE_BF16);
}

void cpu_qk_norm_rope_backward(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                               int head_dim, const void *q_norm, const void *k_norm, float eps,
                               float *dq_norm_accumulate, float *dk_norm_accumulate,
                               const float *cos_sin, const int32_t *position)
{
    const RopeRun run = {dqkv,   raw_qk, num_heads, num_kv_heads, head_dim,
                         q_norm, k_norm, eps,       cos_sin,      position};
    rope_check(&run, q_norm != NULL || k_norm != NULL);
    float sums[2 * HEAD_DIM_MAX] = {0};
    cpu_reduce_rows(sums, 2 * head_dim, dqkv.shape[0], rope_backward_part, &run);
    for (int i = 0; i < head_dim; i++) {
        if (q_norm != NULL) dq_norm_accumulate[i] += sums[i];
        if (k_norm != NULL) dk_norm_accumulate[i] += sums[head_dim + i];
    }
}

/* Here a call costs nothing beside what it does. */
void cpu_qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                            const SequenceTable *sequences, const KvPages *pages)
{
    const Tensor none = tensor_2d(NULL, qkv.dtype, 0, 0);
    const size_t head = (size_t)shape->head_dim * dtype_size(qkv.dtype);
    const char *k = (const char *)qkv.data + (size_t)shape->num_heads * head;
    cpu_qk_norm_rope(qkv, none, shape->num_heads, shape->num_kv_heads, shape->head_dim,
                     rope->q_norm, rope->k_norm, rope->eps, rope->cos_sin, rope->position);
    cpu_kv_store(pages, qkv.dtype, k, k + (size_t)shape->num_kv_heads * head, shape, sequences);
}
