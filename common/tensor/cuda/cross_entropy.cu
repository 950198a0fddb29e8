/* Softmax cross-entropy over a shard of the vocabulary: the sums of each row, their joining over
 * shards, and the gradient. A block a row. The sums are taken in one reading: a thread keeps the
 * largest logit it has met and its sums relative to that; threads' sums are joined in a fixed
 * order. */
#include <math.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS 512
#define AHEAD   4        /* groups of logits that a thread asks for: a row alone waits for memory */
#define LOWEST  (-88.0f) /* there exp is 0 */

struct Sums {
    float max, sum, shifted; /* of exp(x - max) and of exp(x - max) (x - max) */
    float arg_max;
};

/* Both, relative to the larger maximum; of equal ones the lower id counts. */
__device__ __forceinline__ Sums join(const Sums &a, const Sums &b)
{
    bool first = a.max > b.max || (a.max == b.max && a.arg_max <= b.arg_max);
    const Sums &high = first ? a : b, &low = first ? b : a;
    if (low.sum == 0.0f) return high;
    float below = low.max - high.max, factor = expf(below);
    Sums joined = high;
    joined.sum = high.sum + low.sum * factor;
    joined.shifted = high.shifted + factor * (low.shifted + fmaxf(below, LOWEST) * low.sum);
    return joined;
}

__device__ __forceinline__ Sums join_warp(Sums mine)
{
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        Sums other;
        other.max = __shfl_xor_sync(0xFFFFFFFFu, mine.max, distance);
        other.sum = __shfl_xor_sync(0xFFFFFFFFu, mine.sum, distance);
        other.shifted = __shfl_xor_sync(0xFFFFFFFFu, mine.shifted, distance);
        other.arg_max = __shfl_xor_sync(0xFFFFFFFFu, mine.arg_max, distance);
        mine = join(mine, other);
    }
    return mine;
}

__device__ __forceinline__ Sums no_sums(float arg_max)
{
    Sums none = {-INFINITY, 0.0f, 0.0f, arg_max};
    return none;
}

__device__ __forceinline__ void take_logit(Sums *sums, float x, float id)
{
    if (x > sums->max) {
        Sums one = {x, 1.0f, 0.0f, id};
        *sums = join(one, *sums);
    } else if (x > -INFINITY) {
        float below = x - sums->max, weight = expf(below);
        sums->sum += weight;
        sums->shifted = fmaf(weight, fmaxf(below, LOWEST), sums->shifted);
    }
}

/* A thread's groups of `count` columns, THREADS groups apart, in ascending order. */
template <int count>
__device__ __forceinline__ void take_row(Sums *sums, const float *x, int64_t width)
{
    const int64_t step = THREADS * count;
    for (int64_t begin = (int64_t)threadIdx.x * count; begin < width; begin += AHEAD * step) {
        Group<float, count> group[AHEAD];
        UNROLL
        for (int k = 0; k < AHEAD; k++)
            if (begin + k * step < width) group[k] = group_load<count>(x + begin + k * step);
        UNROLL
        for (int k = 0; k < AHEAD; k++)
            for (int i = 0; i < count && begin + k * step < width; i++)
                take_logit(sums, group[k].at[i], (float)(begin + k * step + i));
    }
}

template <int count>
__global__ void stats_kernel(RowStats stats, const float *logits, const int32_t *target,
                             int32_t vocab_first, int64_t width)
{
    __shared__ Sums part[BLOCK_WARPS_MAX];
    int64_t row = blockIdx.x;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const float *x = logits + row * width;
    Sums sums = no_sums((float)(width - 1)); /* of a row without any weight: the last */
    take_row<count>(&sums, x, width);
    sums = join_warp(sums);
    if (lane == 0) part[warp] = sums;
    __syncthreads();
    if (warp != 0) return;
    sums = join_warp(lane < THREADS / WARP ? part[lane] : no_sums((float)(width - 1)));
    if (lane != 0) return;
    int64_t at = target != NULL ? (int64_t)target[row] - vocab_first : -1;
    stats.max[row] = sums.max;
    stats.sum_exp[row] = sums.sum;
    if (stats.sum_shifted != NULL) stats.sum_shifted[row] = sums.shifted;
    stats.target_logit[row] = at >= 0 && at < width ? x[at] : 0.0f;
    stats.arg_max[row] = sums.arg_max + (float)vocab_first;
}

static void check_logits(const Tensor *logits)
{
    CHECK(logits->rank == 2 && logits->dtype == DTYPE_F32 && logits->shape[1] > 0);
}

void cuda_cross_entropy_stats(const RowStats *stats, Tensor logits, const int32_t *target,
                              int32_t vocab_first)
{
    check_logits(&logits);
    if (logits.shape[0] == 0) return;
    const int packed = pack_count<float>();
    unsigned rows = (unsigned)logits.shape[0];
    const float *data = (const float *)logits.data;
    if (logits.shape[1] % packed == 0) {
        CHECK(is_packed(data)); /* or the order of sums would depend on the place */
        LAUNCH(stats_kernel<packed>, rows, THREADS, 0, *stats, data, target, vocab_first,
               logits.shape[1]);
    } else {
        LAUNCH(stats_kernel<1>, rows, THREADS, 0, *stats, data, target, vocab_first,
               logits.shape[1]);
    }
}

/* ---- shards ---- */

/* A thread a row; as cpu/cross_entropy.c. */
__global__ void join_kernel(RowSummary summary, RowStats stats, int num_shards, int64_t stride,
                            int64_t rows)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float best = -INFINITY, arg = 0.0f, logit = 0.0f, sum = 0.0f;
    for (int64_t s = 0, at = row; s < num_shards; s++, at += stride) {
        if (s == 0 || stats.max[at] > best) {
            best = stats.max[at];
            arg = stats.arg_max[at];
        }
        logit += stats.target_logit[at];
    }
    double weighed = 0.0;
    for (int64_t s = 0, at = row; s < num_shards; s++, at += stride) {
        float below = stats.max[at] - best, factor = expf(below);
        sum += stats.sum_exp[at] * factor;
        if (summary.entropy != NULL)
            weighed += (double)factor *
                       ((double)stats.sum_shifted[at] + (double)below * stats.sum_exp[at]);
    }
    if (summary.max != NULL) summary.max[row] = best;
    if (summary.lse != NULL) summary.lse[row] = best + logf(sum);
    if (summary.entropy != NULL)
        summary.entropy[row] = (float)(log((double)sum) - weighed / (double)sum);
    if (summary.target_logit != NULL) summary.target_logit[row] = logit;
    if (summary.arg_max != NULL) summary.arg_max[row] = arg;
}

void cuda_cross_entropy_join(const RowSummary *summary, const RowStats *stats, int num_shards,
                             int64_t shard_stride, int64_t rows)
{
    if (rows == 0) return;
    LAUNCH(join_kernel, (unsigned)ceil_div(rows, THREADS), THREADS, 0, *summary, *stats, num_shards,
           shard_stride, rows);
}

/* ---- the gradient ---- */

template <typename T>
__global__ void gradient_kernel(T *dlogits, const float *logits, RowSlopes slopes,
                                const int32_t *target, int32_t vocab_first, int64_t width)
{
    int64_t row = blockIdx.x, at = (int64_t)target[row] - vocab_first;
    float lse = slopes.lse[row], dlog_prob = slopes.dlog_prob[row];
    bool with_entropy = slopes.entropy != NULL;
    float entropy = with_entropy ? slopes.entropy[row] : 0.0f;
    float dentropy = with_entropy ? slopes.dentropy[row] : 0.0f;
    for (int64_t j = threadIdx.x; j < width; j += THREADS) {
        float log_p = logits[row * width + j] - lse, p = expf(log_p);
        float value = j == at ? -dlog_prob * (p - 1.0f) : -dlog_prob * p;
        if (with_entropy) value -= dentropy * (p * (fmaxf(log_p, LOWEST) + entropy));
        dlogits[row * width + j] = from_float<T>(value);
    }
}

void cuda_cross_entropy_backward(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                 const int32_t *target, int32_t vocab_first)
{
    check_logits(&logits);
    CHECK(tensor_same_shape(&dlogits, &logits));
    CHECK(dlogits.data != logits.data || dlogits.dtype == DTYPE_F32);
    if (logits.shape[0] == 0) return;
    DISPATCH(dlogits.dtype, T, {
        LAUNCH(gradient_kernel<T>, (unsigned)logits.shape[0], THREADS, 0, (T *)dlogits.data,
               (const float *)logits.data, *slopes, target, vocab_first, logits.shape[1]);
    });
}
