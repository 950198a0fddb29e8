/* Matrix products in f32 for machines on which oneDNN's own depend on the number of rows (onednn.c
 * says when). B comes packed in blocks of 64 columns; A is taken 64 rows by DEPTH at a time,
 * widened and copied where it cannot be read in place. Every element is one chain of multiply-adds
 * over k in ascending order. */
#include "tensor/cpu/cells.h"
#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/tile.h"

#define DEPTH 1024

typedef struct GemmRun {
    const GemmCall *call;
    int64_t m, n, k;
    int64_t row_blocks; /* of 64 */
    float *scratch;     /* per thread: A [BLOCK * DEPTH], then C [BLOCK * BLOCK] */
} GemmRun;

/* A's rows [row, row + rows) by k [from, from + depth), as the product reads them. */
static void set_operand_a(TileProduct *product, const GemmRun *run, float *copy, int64_t row,
                          int64_t from)
{
    const Tensor *a = &run->call->a;
    const int64_t size = a->dtype == DTYPE_F32 ? 4 : 2;
    CellRows rows = {.data = a->data, .stride = a->shape[1] * size, .dtype = a->dtype};
    product->a = copy;
    if (run->call->a_turned) {
        rows.data += row * size;
        rows.dim = product->rows;
        product->a_row = 1;
        product->a_step = BLOCK;
        for (int64_t k = 0; k < product->depth; k++)
            for (int i = 0; i < BLOCK; i += LANES)
                lanes_store(copy + k * BLOCK + i, cells_along(&rows, from + k, i));
    } else if (a->dtype == DTYPE_F32) {
        product->a = (const float *)a->data + row * a->shape[1] + from;
        product->a_row = a->shape[1];
        product->a_step = 1;
    } else {
        rows.data += from * size;
        rows.dim = product->depth;
        product->a_row = DEPTH;
        product->a_step = 1;
        for (int i = 0; i < product->rows; i++)
            for (int64_t k = 0; k < product->depth; k += LANES)
                lanes_store(copy + i * DEPTH + k, cells_along(&rows, row + i, k));
    }
}

static void store_result(const GemmRun *run, const float *tile, int64_t row, int rows,
                         int64_t column)
{
    const Tensor *c = &run->call->c;
    const int64_t end = column + BLOCK < run->n ? column + BLOCK : run->n;
    for (int i = 0; i < rows; i++)
        for (int64_t j = column; j < end; j += LANES) {
            const int64_t base = (row + i) * run->n;
            Lanes value = lanes_load(tile + i * BLOCK + (j - column));
            if (c->dtype == DTYPE_BF16) {
                lanes_store_row(c->data, base + j, base + end, DTYPE_BF16, value);
                continue;
            }
            if (run->call->accumulate)
                value = lanes_add(lanes_load_row(c->data, base + j, base + end, DTYPE_F32), value);
            lanes_store_row(c->data, base + j, base + end, DTYPE_F32, value);
        }
}

/* One unit is a block of 64 columns and one of 64 rows; those of one column block follow each
 * other. */
static void gemm_unit(const void *context, int64_t index, int64_t last, int thread)
{
    (void)last;
    const GemmRun *run = context;
    const int64_t block = index / run->row_blocks, row = index % run->row_blocks * BLOCK;
    float *copy = run->scratch + (int64_t)thread * BLOCK * (DEPTH + BLOCK);
    float *tile = copy + BLOCK * DEPTH;
    TileProduct product = {.c = tile, .c_row = BLOCK, .b_row = BLOCK, .columns = BLOCK};
    product.rows = run->m - row < BLOCK ? (int)(run->m - row) : BLOCK;
    for (int64_t from = 0; from < run->k; from += DEPTH) {
        product.depth = run->k - from < DEPTH ? (int)(run->k - from) : DEPTH;
        product.b = run->call->b + (block * run->call->b_depth + from) * BLOCK;
        product.accumulate = from > 0;
        set_operand_a(&product, run, copy, row, from);
        tile_product(&product);
    }
    store_result(run, tile, row, product.rows, block * BLOCK);
}

void cpu_gemm(const GemmCall *call)
{
    const bool turned = call->a_turned;
    GemmRun run = {.call = call,
                   .m = call->c.shape[0],
                   .n = call->c.shape[1],
                   .k = call->a.shape[turned ? 0 : 1],
                   .row_blocks = (call->c.shape[0] + BLOCK - 1) / BLOCK};
    CHECK(call->a.shape[turned ? 1 : 0] == run.m && call->b_depth >= run.k);
    CHECK(!call->accumulate || call->c.dtype == DTYPE_F32);
    const size_t floats = (size_t)parallel_threads() * BLOCK * (DEPTH + BLOCK);
    run.scratch = scratch_take(SCRATCH_RESULT, floats * sizeof(float));
    parallel_units((run.n + BLOCK - 1) / BLOCK * run.row_blocks, gemm_unit, &run);
}
