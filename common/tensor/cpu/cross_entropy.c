/* Softmax cross-entropy over a shard of the vocabulary: temperature, the sums of each row, and the
 * gradient. A row is read in segments; the sums of a segment are added in f32 by lanes, those of
 * the row in f64. */
#include <math.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

#define SEGMENT 4096

typedef struct CrossEntropyRun {
    Tensor logits, dlogits;
    const int32_t *target;
    int32_t vocab_first;
    float *max, *sum_exp, *target_logit;
    int32_t *arg_max;
    const float *lse;
    float scale;
} CrossEntropyRun;

typedef struct DivideRun {
    Tensor y;
    const float *divisor;
} DivideRun;

static void divide_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const DivideRun *run = context;
    const int64_t n = run->y.shape[1];
    for (int64_t row = first; row < last; row++) {
        float *y = (float *)run->y.data + row * n;
        const Lanes divisor = lanes_set(run->divisor[row]);
        for (int64_t j = 0; j < n && run->divisor[row] != 1; j += LANES)
            lanes_store_row(y, j, n, DTYPE_F32,
                            lanes_div(lanes_load_row(y, j, n, DTYPE_F32), divisor));
    }
}

void cpu_divide_rows(Tensor y, const float *divisor)
{
    CHECK(y.rank == 2 && y.dtype == DTYPE_F32 && y.shape[1] > 0);
    const DivideRun run = {y, divisor};
    parallel_range(y.shape[0], 1 + 32768 / y.shape[1], divide_body, &run);
}

ALWAYS_INLINE float segment_max(const float *x, int64_t n)
{
    Lanes max[4];
    for (int part = 0; part < 4; part++)
        max[part] = lanes_set(-INFINITY);
    int64_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES)
        for (int part = 0; part < 4; part++)
            max[part] = lanes_max(max[part], lanes_load(x + j + part * LANES));
    for (; j + LANES <= n; j += LANES)
        max[0] = lanes_max(max[0], lanes_load(x + j));
    float result =
        lanes_max_across(lanes_max(lanes_max(max[0], max[1]), lanes_max(max[2], max[3])));
    for (; j < n; j++)
        result = x[j] > result ? x[j] : result;
    return result;
}

ALWAYS_INLINE float segment_sum_exp(const float *x, int64_t n, float max)
{
    Lanes sum[4] = {lanes_set(0), lanes_set(0), lanes_set(0), lanes_set(0)};
    const Lanes shift = lanes_set(max);
    int64_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES)
        for (int part = 0; part < 4; part++)
            sum[part] =
                lanes_add(sum[part], lanes_exp(lanes_sub(lanes_load(x + j + part * LANES), shift)));
    for (; j < n; j += LANES) {
        const int count = n - j < LANES ? (int)(n - j) : LANES;
        const Lanes value = lanes_exp(lanes_sub(lanes_load_row(x, j, n, DTYPE_F32), shift));
        sum[0] = lanes_add(sum[0], lanes_keep_first(value, count, 0));
    }
    return lanes_sum(lanes_add(lanes_add(sum[0], sum[1]), lanes_add(sum[2], sum[3])));
}

static int64_t segment_length(int64_t first, int64_t n)
{
    return n - first < SEGMENT ? n - first : SEGMENT;
}

static void stats_row(const CrossEntropyRun *run, int64_t row)
{
    const int64_t n = run->logits.shape[1];
    const float *x = (const float *)run->logits.data + row * n;
    float max = -INFINITY;
    int64_t arg_max = 0, best_segment = 0;
    for (int64_t at = 0; at < n; at += SEGMENT) {
        const float value = segment_max(x + at, segment_length(at, n));
        if (value > max) {
            max = value;
            best_segment = at;
        }
    }
    for (arg_max = best_segment; arg_max < n - 1 && !(x[arg_max] == max);)
        arg_max++;
    double sum = 0;
    for (int64_t at = 0; at < n && max > -INFINITY; at += SEGMENT)
        sum += (double)segment_sum_exp(x + at, segment_length(at, n), max);
    const int64_t target = (int64_t)run->target[row] - run->vocab_first;
    run->max[row] = max;
    run->sum_exp[row] = (float)sum;
    run->target_logit[row] = target >= 0 && target < n ? x[target] : 0.0f;
    run->arg_max[row] = (int32_t)(arg_max + run->vocab_first);
}

static void stats_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t row = first; row < last; row++)
        stats_row(context, row);
}

void cpu_cross_entropy_stats(float *max, float *sum_exp, float *target_logit, int32_t *arg_max,
                             Tensor logits, const int32_t *target, int32_t vocab_first)
{
    CHECK(logits.rank == 2 && logits.dtype == DTYPE_F32 && logits.shape[1] > 0);
    const CrossEntropyRun run = {.logits = logits,
                                 .target = target,
                                 .vocab_first = vocab_first,
                                 .max = max,
                                 .sum_exp = sum_exp,
                                 .target_logit = target_logit,
                                 .arg_max = arg_max};
    parallel_range(logits.shape[0], 1 + 8192 / logits.shape[1], stats_body, &run);
}

ALWAYS_INLINE void gradient_rows(const CrossEntropyRun *run, int64_t first, int64_t last,
                                 DType dtype)
{
    const int64_t n = run->logits.shape[1];
    const Lanes scale = lanes_set(run->scale);
    for (int64_t row = first; row < last; row++) {
        const float *x = (const float *)run->logits.data + row * n;
        char *dx = (char *)run->dlogits.data + row * n * (dtype == DTYPE_F32 ? 4 : 2);
        const Lanes lse = lanes_set(run->lse[row]);
        const int64_t target = (int64_t)run->target[row] - run->vocab_first;
        const bool mine = target >= 0 && target < n;
        const float target_logit = mine ? x[target] : 0; /* before it may be overwritten */
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes p = lanes_exp(lanes_sub(lanes_load_row(x, j, n, DTYPE_F32), lse));
            lanes_store_row(dx, j, n, dtype, lanes_mul(p, scale));
        }
        if (!mine) continue;
        float p[LANES];
        lanes_store(p, lanes_exp(lanes_sub(lanes_set(target_logit), lse)));
        lanes_store_tail(dx, target, 1, dtype, lanes_set(run->scale * (p[0] - 1.0f)));
    }
}

static void gradient_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const CrossEntropyRun *run = context;
    if (run->dlogits.dtype == DTYPE_F32)
        gradient_rows(run, first, last, DTYPE_F32);
    else
        gradient_rows(run, first, last, DTYPE_BF16);
}

void cpu_cross_entropy_backward(Tensor dlogits, Tensor logits, const float *lse,
                                const int32_t *target, int32_t vocab_first, float scale)
{
    CHECK(logits.rank == 2 && logits.dtype == DTYPE_F32 && logits.shape[1] > 0);
    CHECK(tensor_same_shape(&dlogits, &logits));
    CHECK(dlogits.dtype == DTYPE_F32 ||
          (dlogits.dtype == DTYPE_BF16 && dlogits.data != logits.data));
    const CrossEntropyRun run = {.logits = logits,
                                 .dlogits = dlogits,
                                 .target = target,
                                 .vocab_first = vocab_first,
                                 .lse = lse,
                                 .scale = scale};
    parallel_range(logits.shape[0], 1 + 8192 / logits.shape[1], gradient_body, &run);
}
