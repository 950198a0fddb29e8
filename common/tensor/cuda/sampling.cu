/* What sampling from a softmax over a shard of the vocabulary needs: sums by segment and the column
 * at a place in one, a histogram by distance from the largest logit and the logits of its first
 * bins, and changes of single logits. */
#include <math.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS 256

static void check_logits(const Tensor *logits)
{
    CHECK(logits->rank == 2 && logits->dtype == DTYPE_F32 && logits->shape[1] > 0);
}

/* ---- segments ---- */

__global__ void segments_kernel(float *sum, const float *logits, const float *max, int64_t width)
{
    __shared__ float part[BLOCK_WARPS_MAX];
    int64_t row = blockIdx.x, begin = (int64_t)blockIdx.y * SOFTMAX_SEGMENT;
    int64_t end = begin + SOFTMAX_SEGMENT < width ? begin + SOFTMAX_SEGMENT : width;
    float mine = 0.0f;
    for (int64_t j = begin + threadIdx.x; j < end; j += THREADS)
        mine += expf(logits[row * width + j] - max[row]);
    mine = block_sum(mine, part);
    if (threadIdx.x == 0) sum[row * gridDim.y + blockIdx.y] = mine;
}

void cuda_softmax_segments(float *sum, Tensor logits, const float *max)
{
    check_logits(&logits);
    if (logits.shape[0] == 0) return;
    dim3 grid((unsigned)logits.shape[0], (unsigned)softmax_num_segments(logits.shape[1]));
    LAUNCH(segments_kernel, grid, THREADS, 0, sum, (const float *)logits.data, max,
           logits.shape[1]);
}

/* A warp a row; a lane has FIND_COLUMNS columns of the segment. */
#define FIND_COLUMNS (SOFTMAX_SEGMENT / WARP)
#define FIND_STRIDE  (FIND_COLUMNS + 1) /* so that lanes read different banks */

/* Where the sum over a segment's columns exceeds place.left: first by lanes, then by the columns of
 * one, in their order. Every lane gets it. */
__device__ __forceinline__ int64_t find_in_segment(const float *row, float max,
                                                   const SoftmaxPlace &place, int64_t width)
{
    __shared__ float weight[WARP * FIND_STRIDE];
    int lane = (int)threadIdx.x, chosen = -1;
    int64_t begin = place.segment * SOFTMAX_SEGMENT, found = -1;
    if (place.segment < 0) return -1;
    for (int i = lane; i < SOFTMAX_SEGMENT; i += WARP) {
        float value = begin + i < width ? expf(row[begin + i] - max) : 0.0f;
        weight[i / FIND_COLUMNS * FIND_STRIDE + i % FIND_COLUMNS] = value > 0.0f ? value : 0.0f;
    }
    __syncwarp();
    double mine = 0.0, left = place.left, left_there = place.left;
    for (int i = 0; i < FIND_COLUMNS; i++)
        mine += (double)weight[lane * FIND_STRIDE + i];
    for (int other = 0; other < WARP; other++) {
        double sum = __shfl_sync(0xFFFFFFFFu, mine, other);
        if (!(sum > 0.0) || (chosen >= 0 && left_there < 0.0)) continue;
        chosen = other;
        left = left_there;
        left_there -= sum;
    }
    for (int i = 0; i < FIND_COLUMNS && chosen >= 0; i++) {
        float value = weight[chosen * FIND_STRIDE + i];
        if (!(value > 0.0f)) continue;
        found = begin + chosen * FIND_COLUMNS + i;
        left -= (double)value;
        if (left < 0.0) break;
    }
    __syncwarp(); /* the weights may be written anew */
    return found;
}

__global__ void find_kernel(int32_t *column, const float *logits, const float *max,
                            const SoftmaxPlace *place, int64_t width)
{
    int64_t row = blockIdx.x;
    int64_t found = find_in_segment(logits + row * width, max[row], place[row], width);
    if (threadIdx.x == 0) column[row] = (int32_t)found;
}

void cuda_softmax_find(int32_t *column, Tensor logits, const float *max, const SoftmaxPlace *place)
{
    check_logits(&logits);
    int64_t rows = logits.shape[0];
    if (rows == 0) return;
    LAUNCH(find_kernel, (unsigned)rows, WARP, 0, column, (const float *)logits.data, max, place,
           logits.shape[1]);
}

/* The segment in which the place `uniform` of all weights lies; every lane computes it. */
__device__ __forceinline__ SoftmaxPlace find_segment(const float *sum, int64_t segments,
                                                     double uniform)
{
    SoftmaxPlace place = {-1, 0.0};
    double total = 0.0;
    for (int64_t i = 0; i < segments; i++)
        total += (double)sum[i];
    double left = total * uniform;
    for (int64_t i = 0; i < segments; i++) {
        if (!(sum[i] > 0.0f)) continue;
        place.segment = i;
        place.left = left;
        if (left < (double)sum[i]) break;
        left -= (double)sum[i];
    }
    return place;
}

__global__ void draw_kernel(SoftmaxDraw draw, const float *logits, int64_t segments, int64_t width)
{
    int64_t row = blockIdx.x, token = -1;
    const float *x = logits + row * width;
    if (draw.uniform[row] < 0.0)
        token = (int64_t)draw.arg_max[row];
    else
        token = find_in_segment(
            x, draw.max[row], find_segment(draw.sum + row * segments, segments, draw.uniform[row]),
            width);
    if (threadIdx.x != 0) return;
    draw.token[row] = (int32_t)token;
    draw.logit[row] = token >= 0 && token < width ? x[token] : 0.0f;
}

void cuda_softmax_draw(const SoftmaxDraw *draw, Tensor logits)
{
    check_logits(&logits);
    int64_t rows = logits.shape[0], width = logits.shape[1];
    if (rows == 0) return;
    LAUNCH(draw_kernel, (unsigned)rows, WARP, 0, *draw, (const float *)logits.data,
           softmax_num_segments(width), width);
}

/* ---- bins ---- */

/* Masses are added as whole numbers of 2^-40, so that the threads' order is of no matter: a row of
 * 2^22 columns still fits, and what is lost is far below what f32 weights know. */
#define MASS_UNIT 0x1p-40

__device__ __forceinline__ float bin_of(float logit, float max)
{
    float place = (max - logit) * SOFTMAX_BINS_PER_NAT;
    return place < SOFTMAX_BINS - 1 ? place : SOFTMAX_BINS - 1;
}

__global__ void bins_kernel(double *mass, int32_t *count, const float *logits, const float *max,
                            int64_t width)
{
    __shared__ unsigned long long units[SOFTMAX_BINS];
    __shared__ int number[SOFTMAX_BINS];
    int64_t row = blockIdx.x;
    for (int b = (int)threadIdx.x; b < SOFTMAX_BINS; b += THREADS) {
        units[b] = 0;
        number[b] = 0;
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < width; j += THREADS) {
        float x = logits[row * width + j];
        if (x == -INFINITY) continue;
        int bin = (int)bin_of(x, max[row]);
        atomicAdd(&units[bin], (unsigned long long)((double)expf(x - max[row]) / MASS_UNIT));
        atomicAdd(&number[bin], 1);
    }
    __syncthreads();
    for (int b = (int)threadIdx.x; b < SOFTMAX_BINS; b += THREADS) {
        mass[row * SOFTMAX_BINS + b] = (double)units[b] * MASS_UNIT;
        count[row * SOFTMAX_BINS + b] = number[b];
    }
}

void cuda_softmax_bins(double *mass, int32_t *count, Tensor logits, const float *max)
{
    check_logits(&logits);
    if (logits.shape[0] == 0) return;
    LAUNCH(bins_kernel, (unsigned)logits.shape[0], THREADS, 0, mass, count,
           (const float *)logits.data, max, logits.shape[1]);
}

/* The row's candidates in the order of ids: the block looks at THREADS columns at a time. */
__global__ void collect_kernel(SoftmaxCandidates to, const float *logits, const float *max,
                               int64_t width)
{
    __shared__ int found[THREADS / WARP];
    int64_t row = blockIdx.x, at = to.first[row];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float limit = (float)to.last_bin[row] + 1;
    for (int64_t begin = 0; begin < width; begin += THREADS) {
        int64_t j = begin + threadIdx.x;
        float x = j < width ? logits[row * width + j] : -INFINITY;
        bool mine = x > -INFINITY && bin_of(x, max[row]) < limit;
        unsigned bits = __ballot_sync(0xFFFFFFFFu, mine);
        if (lane == 0) found[warp] = __popc(bits);
        __syncthreads();
        int before = __popc(bits & ((1u << lane) - 1)), all = 0;
        for (int w = 0; w < THREADS / WARP; w++) {
            if (w < warp) before += found[w];
            all += found[w];
        }
        if (mine) {
            to.token[at + before] = (int32_t)j + to.vocab_first;
            to.logit[at + before] = x;
        }
        at += all;
        __syncthreads();
    }
}

void cuda_softmax_collect(const SoftmaxCandidates *candidates, Tensor logits, const float *max)
{
    check_logits(&logits);
    if (logits.shape[0] == 0) return;
    LAUNCH(collect_kernel, (unsigned)logits.shape[0], THREADS, 0, *candidates,
           (const float *)logits.data, max, logits.shape[1]);
}

/* ---- single logits; a thread a row ---- */

__global__ void change_kernel(float *logits, LogitChange *change, const int32_t *first,
                              int64_t rows, int64_t width)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    for (int32_t i = first[row]; i < first[row + 1]; i++) {
        float *logit = logits + row * width + change[i].column, value = *logit;
        change[i].old = value;
        if (change[i].repetition != 1.0f)
            value = value > 0.0f ? value / change[i].repetition : value * change[i].repetition;
        if (change[i].subtract != 0.0f) value -= change[i].subtract;
        *logit = value;
    }
}

void cuda_change_logits(Tensor logits, LogitChange *change, const int32_t *first)
{
    check_logits(&logits);
    int64_t rows = logits.shape[0];
    if (rows == 0) return;
    LAUNCH(change_kernel, (unsigned)ceil_div(rows, WARP), WARP, 0, (float *)logits.data, change,
           first, rows, logits.shape[1]);
}

__global__ void restore_kernel(float *logits, const LogitChange *change, const int32_t *first,
                               int64_t rows, int64_t width)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    for (int32_t i = first[row + 1] - 1; i >= first[row]; i--)
        logits[row * width + change[i].column] = change[i].old;
}

void cuda_restore_logits(Tensor logits, const LogitChange *change, const int32_t *first)
{
    check_logits(&logits);
    int64_t rows = logits.shape[0];
    if (rows == 0) return;
    LAUNCH(restore_kernel, (unsigned)ceil_div(rows, WARP), WARP, 0, (float *)logits.data, change,
           first, rows, logits.shape[1]);
}

__global__ void pick_kernel(float *y, const float *x, const int32_t *column, int64_t rows,
                            int64_t width)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    bool there = column[row] >= 0 && column[row] < width;
    y[row] = there ? x[row * width + column[row]] : 0.0f;
}

void cuda_pick_columns(float *y, Tensor x, const int32_t *column)
{
    check_logits(&x);
    if (x.shape[0] == 0) return;
    LAUNCH(pick_kernel, (unsigned)ceil_div(x.shape[0], THREADS), THREADS, 0, y,
           (const float *)x.data, column, x.shape[0], x.shape[1]);
}
