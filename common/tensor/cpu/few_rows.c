/* Products of few rows by a packed weight: what decoding does, where all the time goes into reading
 * the weight once. A block of 64 columns is read front to back, at the speed of memory.
 *
 * The order of sums is that of oneDNN's kernels for many rows: `chunk` cells are one chain of
 * multiply-adds from zero, and the chunks' sums are added in order. onednn.c finds out how long a
 * chunk is, and whether that is all, before it calls this. */
#include "tensor/cpu/cells.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"

#define BLOCK_LANES    (BLOCK / LANES)
#define ROWS_AT_ONCE   4
#define BYTES_A_THREAD 65536 /* of the weight: less is not worth waking one */

typedef struct FewRowsRun {
    const FewRowsCall *call;
    int64_t n;
    int64_t depth, b_depth; /* cells of a row of x; of a column of the packed weight */
    bool pairs;
} FewRowsRun;

/* sum[r][j] = the chain over cells [from, to) of one block. */
ALWAYS_INLINE void chunk_sums(Lanes sum[ROWS_AT_ONCE][BLOCK_LANES], const float *const *x,
                              const float *b, int64_t from, int64_t to, int rows, bool pairs)
{
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < BLOCK_LANES; j++)
            sum[r][j] = lanes_set(0);
    for (int64_t k = from; k < to; k++) {
        Lanes factor[BLOCK_LANES];
        for (int j = 0; j < BLOCK_LANES; j++)
            factor[j] = lanes_load(b + k * BLOCK + j * LANES);
        for (int r = 0; r < rows; r++) {
            const Lanes value = lanes_set(x[r][k]);
            for (int j = 0; j < BLOCK_LANES; j++)
                sum[r][j] = pairs ? lanes_dot(value, factor[j], sum[r][j])
                                  : lanes_fma(value, factor[j], sum[r][j]);
        }
    }
}

/* Rows [row, row + rows) of a block; rows and pairs are constants. */
ALWAYS_INLINE void block_rows(const FewRowsRun *run, int64_t block, int64_t row, int rows,
                              bool pairs)
{
    const FewRowsCall *call = run->call;
    const float *b = (const float *)call->b + block * run->b_depth * BLOCK, *x[ROWS_AT_ONCE];
    const int64_t cells = run->depth, x_bytes = cells * (int64_t)sizeof(float);
    Lanes sum[ROWS_AT_ONCE][BLOCK_LANES], total[ROWS_AT_ONCE][BLOCK_LANES];
    for (int r = 0; r < rows; r++)
        x[r] = (const float *)(const void *)((const char *)call->x.data + (row + r) * x_bytes);
    chunk_sums(total, x, b, 0, call->chunk < cells ? call->chunk : cells, rows, pairs);
    for (int64_t from = call->chunk; from < cells; from += call->chunk) {
        const int64_t to = from + call->chunk < cells ? from + call->chunk : cells;
        chunk_sums(sum, x, b, from, to, rows, pairs);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < BLOCK_LANES; j++)
                total[r][j] = lanes_add(sum[r][j], total[r][j]);
    }
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0, at = block * BLOCK; j < BLOCK_LANES && at < run->n; j++, at += LANES) {
            const int64_t base = (row + r) * run->n;
            lanes_store_row(call->y.data, base + at, base + run->n, call->y.dtype, total[r][j]);
        }
}

ALWAYS_INLINE void block_product(const FewRowsRun *run, int64_t block, bool pairs)
{
    const int64_t rows = run->call->x.shape[0];
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4)
        block_rows(run, block, row, 4, pairs);
    if (row + 2 <= rows) {
        block_rows(run, block, row, 2, pairs);
        row += 2;
    }
    if (row < rows) block_rows(run, block, row, 1, pairs);
}

static void few_rows_blocks(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const FewRowsRun *run = context;
    for (int64_t block = first; block < last; block++) {
#ifdef TILE_PAIRS
        if (run->pairs) {
            block_product(run, block, true);
            continue;
        }
#endif
        block_product(run, block, false);
    }
}

bool cpu_few_rows(const FewRowsCall *call)
{
    const bool pairs = call->x.dtype == DTYPE_BF16;
    const int64_t k = call->x.shape[1];
#ifndef TILE_PAIRS
    if (pairs) return false;
#endif
    if (pairs && k % 2 != 0) return false;
    CHECK(call->chunk > 0 && call->x.shape[0] == call->y.shape[0]);
    const FewRowsRun run = {.call = call,
                            .n = call->y.shape[1],
                            .depth = pairs ? k / 2 : k,
                            .b_depth = cpu_packed_depth(k, pairs),
                            .pairs = pairs};
    const int64_t block_bytes = run.b_depth * BLOCK * (int64_t)sizeof(float);
    parallel_range((run.n + BLOCK - 1) / BLOCK, 1 + BYTES_A_THREAD / block_bytes, few_rows_blocks,
                   &run);
    return true;
}
