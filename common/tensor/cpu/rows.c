#include "tensor/cpu/rows.h"

#include <string.h>

#include "tensor/cpu/parallel.h"

/* Row r of y takes `bytes` bytes from x + from_stride * (row ? row[r] : r). */
typedef struct RowsRun {
    char *y;
    const char *x;
    size_t bytes, y_stride, x_stride;
    const int32_t *row;
} RowsRun;

static void copy_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const RowsRun *run = context;
    for (int64_t r = first; r < last; r++) {
        const size_t from = (size_t)(run->row != NULL ? run->row[r] : r);
        memcpy(run->y + (size_t)r * run->y_stride, run->x + from * run->x_stride, run->bytes);
    }
}

static int64_t rows_per_piece(size_t bytes)
{
    return 1 + (int64_t)(65536 / (bytes + 1));
}

static size_t row_bytes(const Tensor *tensor)
{
    return (size_t)tensor->shape[1] * dtype_size(tensor->dtype);
}

void rows_copy_columns(Tensor y, Tensor x, int64_t first_column)
{
    CHECK(y.rank == 2 && x.rank == 2 && y.dtype == x.dtype && y.shape[0] == x.shape[0]);
    CHECK(first_column >= 0 && first_column + y.shape[1] <= x.shape[1]);
    const char *from = (const char *)x.data + (size_t)first_column * dtype_size(x.dtype);
    const RowsRun run = {y.data, from, row_bytes(&y), row_bytes(&y), row_bytes(&x), NULL};
    parallel_range(y.shape[0], rows_per_piece(run.bytes), copy_body, &run);
}

void rows_gather(Tensor y, Tensor x, const int32_t *row)
{
    CHECK(y.rank == 2 && x.rank == 2 && y.dtype == x.dtype && y.shape[1] == x.shape[1]);
    const RowsRun run = {y.data, x.data, row_bytes(&y), row_bytes(&y), row_bytes(&x), row};
    parallel_range(y.shape[0], rows_per_piece(run.bytes), copy_body, &run);
}

static void scatter_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const RowsRun *run = context;
    for (int64_t r = first; r < last; r++)
        memcpy(run->y + (size_t)run->row[r] * run->y_stride, run->x + (size_t)r * run->x_stride,
               run->bytes);
}

void rows_scatter(Tensor y, Tensor x, const int32_t *row)
{
    CHECK(y.rank == 2 && x.rank == 2 && y.dtype == x.dtype && y.shape[1] == x.shape[1]);
    const RowsRun run = {y.data, x.data, row_bytes(&y), row_bytes(&y), row_bytes(&x), row};
    memset(y.data, 0, tensor_bytes(&y));
    parallel_range(x.shape[0], rows_per_piece(run.bytes), scatter_body, &run);
}
