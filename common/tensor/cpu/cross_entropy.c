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
    RowStats stats;
    RowSlopes slopes;
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

/* The sum of exp(x - max), and with_shifted also that of exp(x - max) (x - max). */
ALWAYS_INLINE float segment_sums(const float *x, int64_t n, float max, bool with_shifted,
                                 float *ret_shifted)
{
    Lanes sum[4], shifted[4];
    const Lanes shift = lanes_set(max),
                lowest = lanes_set(-88.0f); /* there exp is 0; never 0 inf */
    for (int part = 0; part < 4; part++)
        sum[part] = shifted[part] = lanes_set(0);
    int64_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES)
        for (int part = 0; part < 4; part++) {
            const Lanes below = lanes_sub(lanes_load(x + j + part * LANES), shift);
            const Lanes value = lanes_exp(below);
            sum[part] = lanes_add(sum[part], value);
            if (with_shifted)
                shifted[part] = lanes_fma(value, lanes_max(lowest, below), shifted[part]);
        }
    for (; j < n; j += LANES) {
        const int count = n - j < LANES ? (int)(n - j) : LANES;
        const Lanes below = lanes_sub(lanes_load_row(x, j, n, DTYPE_F32), shift);
        const Lanes value = lanes_keep_first(lanes_exp(below), count, 0);
        sum[0] = lanes_add(sum[0], value);
        if (with_shifted) shifted[0] = lanes_fma(value, lanes_max(lowest, below), shifted[0]);
    }
    if (with_shifted)
        *ret_shifted = lanes_sum(
            lanes_add(lanes_add(shifted[0], shifted[1]), lanes_add(shifted[2], shifted[3])));
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
    double sum = 0, shifted = 0;
    for (int64_t at = 0; at < n && max > -INFINITY; at += SEGMENT) {
        float part = 0;
        if (run->stats.sum_shifted == NULL)
            sum += (double)segment_sums(x + at, segment_length(at, n), max, false, NULL);
        else
            sum += (double)segment_sums(x + at, segment_length(at, n), max, true, &part);
        shifted += (double)part;
    }
    const int64_t target = run->target != NULL ? (int64_t)run->target[row] - run->vocab_first : -1;
    run->stats.max[row] = max;
    run->stats.sum_exp[row] = (float)sum;
    if (run->stats.sum_shifted != NULL) run->stats.sum_shifted[row] = (float)shifted;
    run->stats.target_logit[row] = target >= 0 && target < n ? x[target] : 0.0f;
    run->stats.arg_max[row] = (float)(arg_max + run->vocab_first);
}

static void stats_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t row = first; row < last; row++)
        stats_row(context, row);
}

void cpu_cross_entropy_stats(const RowStats *stats, Tensor logits, const int32_t *target,
                             int32_t vocab_first)
{
    CHECK(logits.rank == 2 && logits.dtype == DTYPE_F32 && logits.shape[1] > 0);
    const CrossEntropyRun run = {
        .logits = logits, .target = target, .vocab_first = vocab_first, .stats = *stats};
    parallel_range(logits.shape[0], 1 + 8192 / logits.shape[1], stats_body, &run);
}

/* Shards in their order; with one the arithmetic is the same, over one term. */
static void join_row(const RowSummary *summary, const RowStats *stats, int num_shards,
                     int64_t stride, int64_t row)
{
    float best = -INFINITY, arg = 0.0f, logit = 0.0f, sum = 0.0f;
    for (int64_t s = 0, at = row; s < num_shards; s++, at += stride) {
        if (s == 0 || stats->max[at] > best) {
            best = stats->max[at];
            arg = stats->arg_max[at];
        }
        logit += stats->target_logit[at];
    }
    double weighed = 0.0; /* the sum of exp(logit - best) (logit - best) */
    for (int64_t s = 0, at = row; s < num_shards; s++, at += stride) {
        const float below = stats->max[at] - best, factor = expf(below);
        sum += stats->sum_exp[at] * factor;
        if (summary->entropy != NULL)
            weighed += (double)factor *
                       ((double)stats->sum_shifted[at] + (double)below * stats->sum_exp[at]);
    }
    if (summary->max != NULL) summary->max[row] = best;
    if (summary->lse != NULL) summary->lse[row] = best + logf(sum);
    if (summary->entropy != NULL)
        summary->entropy[row] = (float)(log((double)sum) - weighed / (double)sum);
    if (summary->target_logit != NULL) summary->target_logit[row] = logit;
    if (summary->arg_max != NULL) summary->arg_max[row] = arg;
}

void cpu_cross_entropy_join(const RowSummary *summary, const RowStats *stats, int num_shards,
                            int64_t shard_stride, int64_t rows)
{
    for (int64_t row = 0; row < rows; row++)
        join_row(summary, stats, num_shards, shard_stride, row);
}

/* One row's slopes, ready for its elements. */
typedef struct Slope {
    Lanes lse, toward, entropy, dentropy; /* toward: minus dlog_prob */
} Slope;

/* The gradient of logits x that are not the target. */
ALWAYS_INLINE Lanes gradient_of(Lanes x, const Slope *slope, bool with_entropy)
{
    const Lanes log_p = lanes_sub(x, slope->lse);
    const Lanes p = lanes_exp(log_p);
    if (!with_entropy) return lanes_mul(p, slope->toward);
    const Lanes bounded = lanes_max(lanes_set(-88.0f), log_p); /* there p is 0; never 0 inf */
    const Lanes information = lanes_add(bounded, slope->entropy);
    return lanes_mul(p, lanes_sub(slope->toward, lanes_mul(slope->dentropy, information)));
}

/* The gradient of the target's logit x. */
ALWAYS_INLINE float target_gradient(float x, const CrossEntropyRun *run, int64_t row,
                                    bool with_entropy)
{
    const RowSlopes *slopes = &run->slopes;
    float p[LANES];
    const float log_p = x - slopes->lse[row];
    lanes_store(p, lanes_exp(lanes_set(log_p)));
    const float gradient = -slopes->dlog_prob[row] * (p[0] - 1.0f);
    if (!with_entropy) return gradient;
    const float bounded = log_p < -88.0f ? -88.0f : log_p;
    return gradient - slopes->dentropy[row] * (p[0] * (bounded + slopes->entropy[row]));
}

ALWAYS_INLINE void gradient_rows(const CrossEntropyRun *run, int64_t first, int64_t last,
                                 DType dtype, bool with_entropy)
{
    const int64_t n = run->logits.shape[1];
    const RowSlopes *slopes = &run->slopes;
    for (int64_t row = first; row < last; row++) {
        const float *x = (const float *)run->logits.data + row * n;
        char *dx = (char *)run->dlogits.data + row * n * (dtype == DTYPE_F32 ? 4 : 2);
        Slope slope = {.lse = lanes_set(slopes->lse[row]),
                       .toward = lanes_set(-slopes->dlog_prob[row])};
        slope.entropy = lanes_set(with_entropy ? slopes->entropy[row] : 0);
        slope.dentropy = lanes_set(with_entropy ? slopes->dentropy[row] : 0);
        const int64_t target = (int64_t)run->target[row] - run->vocab_first;
        const bool mine = target >= 0 && target < n;
        const float target_logit = mine ? x[target] : 0; /* before it may be overwritten */
        for (int64_t j = 0; j < n; j += LANES)
            lanes_store_row(dx, j, n, dtype,
                            gradient_of(lanes_load_row(x, j, n, DTYPE_F32), &slope, with_entropy));
        if (mine)
            lanes_store_tail(dx, target, 1, dtype,
                             lanes_set(target_gradient(target_logit, run, row, with_entropy)));
    }
}

static void gradient_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const CrossEntropyRun *run = context;
    const bool with_entropy = run->slopes.dentropy != NULL;
    if (run->dlogits.dtype == DTYPE_F32 && with_entropy)
        gradient_rows(run, first, last, DTYPE_F32, true);
    else if (run->dlogits.dtype == DTYPE_F32)
        gradient_rows(run, first, last, DTYPE_F32, false);
    else if (with_entropy)
        gradient_rows(run, first, last, DTYPE_BF16, true);
    else
        gradient_rows(run, first, last, DTYPE_BF16, false);
}

void cpu_cross_entropy_backward(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                const int32_t *target, int32_t vocab_first)
{
    CHECK(logits.rank == 2 && logits.dtype == DTYPE_F32 && logits.shape[1] > 0);
    CHECK(tensor_same_shape(&dlogits, &logits));
    CHECK(dlogits.dtype == DTYPE_F32 ||
          (dlogits.dtype == DTYPE_BF16 && dlogits.data != logits.data));
    const CrossEntropyRun run = {.logits = logits,
                                 .dlogits = dlogits,
                                 .target = target,
                                 .vocab_first = vocab_first,
                                 .slopes = *slopes};
    parallel_range(logits.shape[0], 1 + 8192 / logits.shape[1], gradient_body, &run);
}
