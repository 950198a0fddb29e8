/* Embedding lookup and its gradient over a shard of the vocabulary. */
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS 256

template <typename T, typename U>
__global__ void embedding_kernel(T *y, const U *table, const int32_t *token, int32_t vocab_first,
                                 int64_t table_rows, int64_t width)
{
    int64_t at = (int64_t)token[blockIdx.x] - vocab_first;
    bool here = at >= 0 && at < table_rows;
    for (int64_t j = threadIdx.x; j < width; j += THREADS)
        y[blockIdx.x * width + j] = from_float<T>(here ? to_float(table[at * width + j]) : 0.0f);
}

static void check_embedding(const Tensor *rows, const Tensor *table)
{
    CHECK(rows->rank == 2 && table->rank == 2 && rows->shape[1] == table->shape[1]);
}

void cuda_embedding(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first)
{
    check_embedding(&y, &table);
    if (y.shape[0] == 0) return;
    DISPATCH(y.dtype, T, {
        DISPATCH(table.dtype, U, {
            LAUNCH((embedding_kernel<T, U>), (unsigned)y.shape[0], THREADS, 0, (T *)y.data,
                   (const U *)table.data, token, vocab_first, table.shape[0], y.shape[1]);
        });
    });
}

/* ---- backward ---- */

/* Whether one of the rows before `row` has its token. The whole block calls. */
__device__ bool has_earlier(const int32_t *token, int64_t row, float *part)
{
    float found = 0.0f;
    for (int64_t i = threadIdx.x; i < row; i += THREADS)
        found = token[i] == token[row] ? 1.0f : found;
    return block_max(found, part) > 0.0f;
}

/* The block of a token's first row adds all its rows, in their order: no other block writes there.
 * Looking through all rows for each takes M^2 comparisons in all, of ids that lie in the cache. */
template <typename T>
__global__ void embedding_backward_kernel(float *dtable, const T *dy, const int32_t *token,
                                          int32_t vocab_first, int64_t table_rows, int64_t rows,
                                          int64_t width)
{
    __shared__ float part[BLOCK_WARPS_MAX];
    __shared__ bool match[THREADS];
    int64_t row = blockIdx.x, at = (int64_t)token[row] - vocab_first;
    if (at < 0 || at >= table_rows || has_earlier(token, row, part)) return;
    for (int64_t first = row; first < rows; first += THREADS) {
        int64_t mine = first + threadIdx.x;
        __syncthreads();
        match[threadIdx.x] = mine < rows && token[mine] == token[row];
        __syncthreads();
        for (int64_t j = threadIdx.x; j < width; j += THREADS) {
            float sum = dtable[at * width + j];
            for (int i = 0; i < THREADS; i++)
                if (match[i]) sum += to_float(dy[(first + i) * width + j]);
            dtable[at * width + j] = sum;
        }
    }
}

void cuda_embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                        int32_t vocab_first)
{
    check_embedding(&dy, &dtable);
    CHECK(dtable.dtype == DTYPE_F32);
    if (dy.shape[0] == 0) return;
    DISPATCH(dy.dtype, T, {
        LAUNCH(embedding_backward_kernel<T>, (unsigned)dy.shape[0], THREADS, 0,
               (float *)dtable.data, (const T *)dy.data, token, vocab_first, dtable.shape[0],
               dy.shape[0], dy.shape[1]);
    });
}
