/* The operands of large products in the layouts that oneDNN's kernels read fastest, at the speed of
 * memory: its own reorders took longer than they saved. Blocks are those of its formats BA16a64b
 * (f32) and BA16a64b2a (bf16): 64 columns of the operand, below each other the cells of the reduced
 * dimension. */
#include "tensor/cpu/cells.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"

typedef struct PackRun {
    char *to;
    CellRows from;
    int64_t rows;
    int64_t depth;     /* cells of the reduced dimension, padded to whole lanes */
    int64_t row_bytes; /* of `to`, in cpu_transpose */
} PackRun;

static PackRun pack_run(void *to, Tensor from, bool pairs)
{
    CHECK(!pairs || from.dtype == DTYPE_BF16);
    CHECK(from.rank == 2 && (from.dtype == DTYPE_F32 || from.dtype == DTYPE_BF16));
    return (PackRun){.to = to,
                     .from = {.data = from.data,
                              .stride = from.shape[1] * (int64_t)dtype_size(from.dtype),
                              .dim = from.shape[1],
                              .dtype = from.dtype,
                              .pairs = pairs},
                     .rows = from.shape[0]};
}

int64_t cpu_packed_depth(int64_t elements, bool pairs)
{
    const int64_t cells = pairs ? (elements + 1) / 2 : elements;
    return (cells + LANES - 1) / LANES * LANES;
}

static void turned_blocks(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const PackRun *run = context;
    for (int64_t block = first; block < last; block++) {
        const int64_t left = run->rows - block * BLOCK;
        cells_turn((float *)(void *)run->to + block * BLOCK * run->depth, &run->from, block * BLOCK,
                   left < BLOCK ? left : BLOCK, run->depth);
    }
}

void cpu_pack_turned(void *to, Tensor from, bool pairs)
{
    PackRun run = pack_run(to, from, pairs);
    run.depth = cpu_packed_depth(from.shape[1], pairs);
    parallel_range((run.rows + BLOCK - 1) / BLOCK, 1, turned_blocks, &run);
}

static void stacked_cells(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const PackRun *run = context;
    for (int64_t cell = first; cell < last; cell++)
        for (int64_t column = 0; column < run->from.dim; column += BLOCK) {
            float *to = (float *)(void *)run->to + column * run->depth + cell * BLOCK;
            for (int j = 0; j < BLOCK; j += LANES)
                lanes_store(to + j, cells_across(&run->from, 0, run->rows, cell, column + j));
        }
}

void cpu_pack_stacked(void *to, Tensor from, bool pairs)
{
    PackRun run = pack_run(to, from, pairs);
    run.depth = cpu_packed_depth(run.rows, pairs);
    parallel_range(run.depth, 16, stacked_cells, &run);
}

/* Sixteen columns of `from` at a time, so that what is written goes along rows of `to`. */
static void transposed_columns(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const PackRun *run = context;
    for (int64_t column = first * LANES; column < last * LANES; column += LANES) {
        const int64_t left = run->from.dim - column;
        for (int64_t cell = 0; cell < run->depth; cell += LANES) {
            Lanes lanes[LANES];
            for (int j = 0; j < LANES; j++)
                lanes[j] = cells_across(&run->from, 0, run->rows, cell + j, column);
            lanes_transpose(lanes);
            char *to = run->to + column * run->row_bytes + cell * 4;
            for (int j = 0; j < LANES && j < left; j++, to += run->row_bytes)
                lanes_store((float *)(void *)to, lanes[j]);
        }
    }
}

void cpu_transpose(void *to, Tensor from)
{
    PackRun run = pack_run(to, from, from.dtype == DTYPE_BF16);
    run.depth = cpu_packed_depth(run.rows, run.from.pairs);
    run.row_bytes = run.depth * 4;
    parallel_range((run.from.dim + LANES - 1) / LANES, 4, transposed_columns, &run);
}
