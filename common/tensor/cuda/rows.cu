/* Rows and columns that move as they are. */
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"

#define THREADS 256

/* Row r of y, `width` elements of T behind each other every y_stride, takes that of x at from[r]
 * (NULL: r), or gives it to y at to[r]. */
typedef struct RowMove {
    int64_t width, y_stride, x_stride;
    const int32_t *from, *to;
} RowMove;

template <typename T> __global__ void move_rows_kernel(T *y, const T *x, RowMove move)
{
    int64_t r = blockIdx.x, j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= move.width) return;
    int64_t from = move.from != NULL ? move.from[r] : r, to = move.to != NULL ? move.to[r] : r;
    y[to * move.y_stride + j] = x[from * move.x_stride + j];
}

template <typename T> static void move_as(void *y, const void *x, RowMove move, int64_t rows)
{
    dim3 grid((unsigned)rows, (unsigned)ceil_div(move.width, THREADS));
    LAUNCH(move_rows_kernel<T>, grid, THREADS, 0, (T *)y, (const T *)x, move);
}

/* In pieces as large as addresses and strides, given in bytes, allow. */
static void move_rows(void *y, const void *x, RowMove move, int64_t rows)
{
    if (rows == 0 || move.width == 0) return;
    uint64_t all = (uint64_t)(uintptr_t)y | (uint64_t)(uintptr_t)x | (uint64_t)move.width |
                   (uint64_t)move.y_stride | (uint64_t)move.x_stride;
    int64_t piece = all % sizeof(uint4) == 0 ? (int64_t)sizeof(uint4) : all % 4 == 0 ? 4 : 2;
    CHECK(all % 2 == 0);
    move.width /= piece;
    move.y_stride /= piece;
    move.x_stride /= piece;
    if (piece == (int64_t)sizeof(uint4))
        move_as<uint4>(y, x, move, rows);
    else if (piece == 4)
        move_as<uint32_t>(y, x, move, rows);
    else
        move_as<uint16_t>(y, x, move, rows);
}

static int64_t row_bytes(const Tensor *tensor)
{
    return tensor->shape[1] * (int64_t)dtype_size(tensor->dtype);
}

static RowMove move_of(const Tensor *y, const Tensor *x)
{
    CHECK(y->rank == 2 && x->rank == 2 && y->dtype == x->dtype);
    RowMove move = {row_bytes(y), row_bytes(y), row_bytes(x), NULL, NULL};
    return move;
}

void cuda_copy_columns(Tensor y, Tensor x, int64_t first_column)
{
    CHECK(first_column >= 0 && first_column + y.shape[1] <= x.shape[1] && y.shape[0] == x.shape[0]);
    const char *from = (const char *)x.data + (size_t)first_column * dtype_size(x.dtype);
    move_rows(y.data, from, move_of(&y, &x), y.shape[0]);
}

void cuda_gather_rows(Tensor y, Tensor x, const int32_t *row)
{
    RowMove move = move_of(&y, &x);
    CHECK(y.shape[1] == x.shape[1]);
    move.from = row;
    move_rows(y.data, x.data, move, y.shape[0]);
}

void cuda_scatter_rows(Tensor y, Tensor x, const int32_t *row)
{
    RowMove move = move_of(&y, &x);
    CHECK(y.shape[1] == x.shape[1]);
    move.to = row;
    cuda_fill_zero(y);
    move_rows(y.data, x.data, move, x.shape[0]);
}
