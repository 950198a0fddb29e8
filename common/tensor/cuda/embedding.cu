/* Embedding lookup and its gradient over a shard of the vocabulary. */
#include <stdlib.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/pack.cuh"

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

#define SLICE_THREADS 128

/* The rows that have each of a shard's tokens, sorted by token and there as they follow: `count`
 * tokens, of whose rows in `row` the first stands at begin[i]. Of the host, one block. */
struct TokenRows {
    int64_t count, total;
    int32_t *begin; /* [count + 1] */
    int32_t *row;   /* [total] */
};

static int64_t shard_row(int32_t token, int32_t vocab_first, int64_t table_rows)
{
    int64_t at = (int64_t)token - vocab_first;
    return at >= 0 && at < table_rows ? at : -1;
}

/* By counting: linear in rows and in the shard's tokens. The caller frees `begin`. */
static TokenRows token_rows(const int32_t *token, int64_t rows, int32_t vocab_first,
                            int64_t table_rows)
{
    TokenRows list = {};
    int32_t *next = (int32_t *)calloc((size_t)table_rows, sizeof *next);
    list.begin = (int32_t *)malloc((size_t)(2 * rows + 1) * sizeof *list.begin);
    CHECK(next != NULL && list.begin != NULL && rows <= INT32_MAX / 2);
    for (int64_t i = 0; i < rows; i++) {
        int64_t at = shard_row(token[i], vocab_first, table_rows);
        if (at >= 0) next[at]++;
    }
    for (int64_t at = 0; at < table_rows; at++) {
        int32_t mine = next[at];
        if (mine == 0) continue;
        next[at] = (int32_t)list.total;
        list.begin[list.count++] = (int32_t)list.total;
        list.total += mine;
    }
    list.begin[list.count] = (int32_t)list.total;
    list.row = list.begin + list.count + 1;
    for (int64_t i = 0; i < rows; i++) {
        int64_t at = shard_row(token[i], vocab_first, table_rows);
        if (at >= 0) list.row[next[at]++] = (int32_t)i;
    }
    free(next);
    return list;
}

/* blockIdx.x: a token of the list; y: a slice of its columns. A thread's columns get all the
 * token's rows in their order, and no other block writes there. */
template <typename T, int count>
__global__ void embedding_backward_kernel(float *dtable, const T *dy, const int32_t *token,
                                          int32_t vocab_first, TokenRows list, int64_t width)
{
    int64_t j = ((int64_t)blockIdx.y * SLICE_THREADS + threadIdx.x) * count;
    if (j >= width) return;
    int32_t begin = list.begin[blockIdx.x], end = list.begin[blockIdx.x + 1];
    float *into = dtable + ((int64_t)token[list.row[begin]] - vocab_first) * width + j;
    Group<float, count> sums = group_load<count>(into);
    for (int32_t i = begin; i < end; i++) {
        Group<T, count> grads = group_load<count>(dy + list.row[i] * width + j);
        UNROLL for (int k = 0; k < count; k++) sums.at[k] += to_float(grads.at[k]);
    }
    group_store<count>(into, sums);
}

template <typename T, int count>
static void add_rows(const Tensor &dtable, const Tensor &dy, const int32_t *token,
                     int32_t vocab_first, const TokenRows &list)
{
    int64_t slices = ceil_div(dy.shape[1], SLICE_THREADS * count);
    LAUNCH((embedding_backward_kernel<T, count>), dim3((unsigned)list.count, (unsigned)slices),
           SLICE_THREADS, 0, (float *)dtable.data, (const T *)dy.data, token, vocab_first, list,
           dy.shape[1]);
}

void cuda_embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                        const int32_t *host_token, int32_t vocab_first)
{
    check_embedding(&dy, &dtable);
    CHECK(dtable.dtype == DTYPE_F32);
    if (dy.shape[0] == 0) return;
    TokenRows list = token_rows(host_token, dy.shape[0], vocab_first, dtable.shape[0]);
    if (list.count > 0) {
        size_t bytes = (size_t)(list.count + 1 + list.total) * sizeof *list.begin;
        TokenRows placed = list;
        placed.begin = (int32_t *)cuda_scratch(bytes);
        placed.row = placed.begin + (list.row - list.begin);
        cuda_upload(placed.begin, list.begin, bytes);
        DISPATCH(dy.dtype, T, {
            const int four = 4; /* an f32 gradient's pack */
            bool packed = dy.shape[1] % four == 0 && is_packed(dtable.data) && is_packed(dy.data);
            if (packed)
                add_rows<T, four>(dtable, dy, token, vocab_first, placed);
            else
                add_rows<T, 1>(dtable, dy, token, vocab_first, placed);
        });
    }
    free(list.begin);
}
