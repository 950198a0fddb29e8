/* Sums over rows, and the sum of squares: in an order fixed by the number of rows or elements
 * alone. */
#include <string.h>

#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

#define ROWS_PER_PART 32
#define PARTS_MAX     64

typedef struct ReduceRun {
    ReducePart part;
    const void *context;
    float *partial; /* [parts, width] */
    float *total;
    int64_t rows, width, parts;
} ReduceRun;

static void reduce_part(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const ReduceRun *run = context;
    for (int64_t i = first; i < last; i++) {
        float *into = run->partial + i * run->width;
        memset(into, 0, (size_t)run->width * sizeof *into);
        run->part(run->context, run->rows * i / run->parts, run->rows * (i + 1) / run->parts, into);
    }
}

static void reduce_total(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const ReduceRun *run = context;
    for (int64_t j = first; j < last; j += LANES) {
        Lanes sum = lanes_load_row(run->partial, j, last, DTYPE_F32);
        for (int64_t i = 1; i < run->parts; i++) {
            const float *row = run->partial + i * run->width;
            sum = lanes_add(sum, lanes_load_row(row, j, last, DTYPE_F32));
        }
        sum = lanes_add(lanes_load_row(run->total, j, last, DTYPE_F32), sum);
        lanes_store_row(run->total, j, last, DTYPE_F32, sum);
    }
}

void cpu_reduce_rows(float *total_accumulate, int64_t width, int64_t rows, ReducePart part,
                     const void *context)
{
    if (rows == 0) return;
    int64_t parts = (rows + ROWS_PER_PART - 1) / ROWS_PER_PART;
    if (parts > PARTS_MAX) parts = PARTS_MAX;
    ReduceRun run = {.part = part,
                     .context = context,
                     .total = total_accumulate,
                     .rows = rows,
                     .width = width,
                     .parts = parts};
    run.partial = scratch_take(SCRATCH_REDUCE, (size_t)(parts * width) * sizeof(float));
    parallel_units(parts, reduce_part, &run);
    parallel_range(width, 1024, reduce_total, &run);
}

/* ---- sum of squares ---- */

#define SQUARES_BLOCK 32768

typedef struct SquaresRun {
    const float *x;
    int64_t n;
    double *partial; /* one per block */
} SquaresRun;

static void squares_block(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const SquaresRun *run = context;
    for (int64_t block = first; block < last; block++) {
        const float *x = run->x + block * SQUARES_BLOCK;
        const int64_t left = run->n - block * SQUARES_BLOCK;
        const int64_t n = left < SQUARES_BLOCK ? left : SQUARES_BLOCK;
        double sum[2 * LANES] = {0};
        int64_t i = 0;
        for (; i + 2 * LANES <= n; i += 2 * LANES)
            for (int lane = 0; lane < 2 * LANES; lane++)
                sum[lane] += (double)x[i + lane] * (double)x[i + lane];
        for (; i < n; i++)
            sum[i % LANES] += (double)x[i] * (double)x[i];
        for (int half = LANES; half >= 1; half /= 2)
            for (int lane = 0; lane < half; lane++)
                sum[lane] += sum[lane + half];
        run->partial[block] = sum[0];
    }
}

static double range_squares(const float *x, int64_t n)
{
    const int64_t blocks = (n + SQUARES_BLOCK - 1) / SQUARES_BLOCK;
    SquaresRun run = {.x = x, .n = n};
    run.partial = scratch_take(SCRATCH_REDUCE, (size_t)blocks * sizeof(double));
    parallel_range(blocks, 2, squares_block, &run);
    double total = 0;
    for (int64_t i = 0; i < blocks; i++)
        total += run.partial[i];
    return total;
}

double cpu_sum_squares(const float *x, const ElementRange *host_range, int64_t num_ranges)
{
    double total = 0;
    for (int64_t i = 0; i < num_ranges; i++)
        total += range_squares(x + host_range[i].first, host_range[i].count);
    return total;
}
