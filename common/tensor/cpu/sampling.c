/* What sampling from a softmax over a shard of the vocabulary needs: sums by segment and the column
 * at a place in one, a histogram by distance from the largest logit and the logits of its first
 * bins, and changes of single logits. */
#include <math.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

typedef struct SamplingRun {
    Tensor logits;
    const float *max;
    float *sum;
    double *mass;
    int32_t *count;
    const SoftmaxCandidates *candidates;
} SamplingRun;

/* A row by itself is worth a thread of its own from this many columns on. */
static int64_t rows_per_piece(const Tensor *logits)
{
    return 1 + 8192 / logits->shape[1];
}

static void check_logits(const Tensor *logits)
{
    CHECK(logits->rank == 2 && logits->dtype == DTYPE_F32 && logits->shape[1] > 0);
}

static void segments_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const SamplingRun *run = context;
    const int64_t n = run->logits.shape[1], segments = softmax_num_segments(n);
    for (int64_t row = first; row < last; row++) {
        const float *x = (const float *)run->logits.data + row * n;
        const Lanes shift = lanes_set(run->max[row]);
        for (int64_t segment = 0; segment < segments; segment++) {
            const int64_t begin = segment * SOFTMAX_SEGMENT;
            const int64_t end = begin + SOFTMAX_SEGMENT < n ? begin + SOFTMAX_SEGMENT : n;
            Lanes sum[2] = {lanes_set(0), lanes_set(0)};
            for (int64_t j = begin; j < end; j += LANES) {
                const int count = end - j < LANES ? (int)(end - j) : LANES;
                const Lanes value =
                    lanes_exp(lanes_sub(lanes_load_row(x, j, end, DTYPE_F32), shift));
                const int64_t part = (j - begin) / LANES % 2;
                sum[part] = lanes_add(sum[part], lanes_keep_first(value, count, 0));
            }
            run->sum[row * segments + segment] = lanes_sum(lanes_add(sum[0], sum[1]));
        }
    }
}

void cpu_softmax_segments(float *sum, Tensor logits, const float *max)
{
    check_logits(&logits);
    const SamplingRun run = {.logits = logits, .max = max, .sum = sum};
    parallel_range(logits.shape[0], rows_per_piece(&logits), segments_body, &run);
}

/* The place of a logit on the scale of bins; its whole part is the bin. */
ALWAYS_INLINE float bin_of(float logit, float max)
{
    const float place = (max - logit) * SOFTMAX_BINS_PER_NAT;
    return place < SOFTMAX_BINS - 1 ? place : SOFTMAX_BINS - 1;
}

static void bins_row(const SamplingRun *run, int64_t row)
{
    const int64_t n = run->logits.shape[1];
    const float *x = (const float *)run->logits.data + row * n, max = run->max[row];
    double *mass = run->mass + row * SOFTMAX_BINS;
    int32_t *count = run->count + row * SOFTMAX_BINS;
    memset(mass, 0, SOFTMAX_BINS * sizeof *mass);
    memset(count, 0, SOFTMAX_BINS * sizeof *count);
    for (int64_t j = 0; j < n; j += LANES) {
        float weight[LANES];
        const int64_t left = n - j < LANES ? n - j : LANES;
        lanes_store(weight,
                    lanes_exp(lanes_sub(lanes_load_row(x, j, n, DTYPE_F32), lanes_set(max))));
        for (int64_t i = 0; i < left; i++) {
            if (x[j + i] == -INFINITY) continue;
            const int bin = (int)bin_of(x[j + i], max);
            mass[bin] += (double)weight[i];
            count[bin]++;
        }
    }
}

static void bins_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t row = first; row < last; row++)
        bins_row(context, row);
}

void cpu_softmax_bins(double *mass, int32_t *count, Tensor logits, const float *max)
{
    check_logits(&logits);
    const SamplingRun run = {.logits = logits, .max = max, .mass = mass, .count = count};
    parallel_range(logits.shape[0], rows_per_piece(&logits), bins_body, &run);
}

static void collect_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const SamplingRun *run = context;
    const SoftmaxCandidates *to = run->candidates;
    const int64_t n = run->logits.shape[1];
    for (int64_t row = first; row < last; row++) {
        const float *x = (const float *)run->logits.data + row * n, max = run->max[row];
        const float limit = (float)to->last_bin[row] + 1;
        int64_t at = to->first[row];
        for (int64_t j = 0; j < n; j++) {
            if (!(bin_of(x[j], max) < limit) || x[j] == -INFINITY) continue;
            to->token[at] = (int32_t)j + to->vocab_first;
            to->logit[at++] = x[j];
        }
    }
}

void cpu_softmax_collect(const SoftmaxCandidates *candidates, Tensor logits, const float *max)
{
    check_logits(&logits);
    const SamplingRun run = {.logits = logits, .max = max, .candidates = candidates};
    parallel_range(logits.shape[0], rows_per_piece(&logits), collect_body, &run);
}

/* expf as in the draws among candidates, and not the loops' own: what a noise draws is the same on
 * every instruction set. */
static int32_t find_column(const float *x, int64_t begin, int64_t end, float max, double left)
{
    int64_t last = -1;
    for (int64_t j = begin; j < end; j++) {
        const float weight = expf(x[j] - max);
        if (!(weight > 0.0f)) continue;
        last = j;
        left -= (double)weight;
        if (left < 0.0) break;
    }
    return (int32_t)last;
}

void cpu_softmax_find(int32_t *column, Tensor logits, const float *max, const SoftmaxPlace *place)
{
    check_logits(&logits);
    const int64_t n = logits.shape[1];
    for (int64_t row = 0; row < logits.shape[0]; row++) {
        const float *x = (const float *)logits.data + row * n;
        const int64_t begin = place[row].segment * SOFTMAX_SEGMENT;
        const int64_t end = begin + SOFTMAX_SEGMENT < n ? begin + SOFTMAX_SEGMENT : n;
        column[row] = begin < 0 ? -1 : find_column(x, begin, end, max[row], place[row].left);
    }
}

void cpu_change_logits(Tensor logits, LogitChange *change, const int32_t *first)
{
    check_logits(&logits);
    for (int64_t row = 0; row < logits.shape[0]; row++) {
        float *x = (float *)logits.data + row * logits.shape[1];
        for (int32_t i = first[row]; i < first[row + 1]; i++) {
            float *logit = x + change[i].column;
            change[i].old = *logit;
            if (change[i].repetition != 1.0f)
                *logit =
                    *logit > 0.0f ? *logit / change[i].repetition : *logit * change[i].repetition;
            if (change[i].subtract != 0.0f) *logit -= change[i].subtract;
        }
    }
}

void cpu_restore_logits(Tensor logits, const LogitChange *change, const int32_t *first)
{
    check_logits(&logits);
    for (int64_t row = 0; row < logits.shape[0]; row++) {
        float *x = (float *)logits.data + row * logits.shape[1];
        for (int32_t i = first[row + 1] - 1; i >= first[row]; i--)
            x[change[i].column] = change[i].old;
    }
}

void cpu_pick_columns(float *y, Tensor x, const int32_t *column)
{
    CHECK(x.rank == 2 && x.dtype == DTYPE_F32);
    for (int64_t row = 0; row < x.shape[0]; row++) {
        const bool there = column[row] >= 0 && column[row] < x.shape[1];
        y[row] = there ? ((const float *)x.data)[row * x.shape[1] + column[row]] : 0.0f;
    }
}

/* The segment of a row's weights in which the place lies. */
static SoftmaxPlace find_segment(const float *sum, int64_t segments, double uniform)
{
    SoftmaxPlace place = {.segment = -1};
    double total = 0.0;
    for (int64_t i = 0; i < segments; i++)
        total += (double)sum[i];
    double left = total * uniform;
    for (int64_t i = 0; i < segments; i++) {
        if (!(sum[i] > 0.0f)) continue;
        place = (SoftmaxPlace){i, left};
        if (left < (double)sum[i]) break;
        left -= (double)sum[i];
    }
    return place;
}

void cpu_softmax_draw(const SoftmaxDraw *draw, Tensor logits)
{
    check_logits(&logits);
    const int64_t segments = softmax_num_segments(logits.shape[1]);
    for (int64_t row = 0; row < logits.shape[0]; row++) {
        Tensor one = logits;
        one.data = (float *)logits.data + row * logits.shape[1];
        one.shape[0] = 1;
        if (draw->uniform[row] < 0.0) {
            draw->token[row] = (int32_t)draw->arg_max[row];
        } else {
            const SoftmaxPlace place =
                find_segment(draw->sum + row * segments, segments, draw->uniform[row]);
            cpu_softmax_find(&draw->token[row], one, &draw->max[row], &place);
        }
        cpu_pick_columns(&draw->logit[row], one, &draw->token[row]);
    }
}
