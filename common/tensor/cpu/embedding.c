/* Embedding lookup and its gradient over a shard of the vocabulary. */
#include <string.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

typedef struct EmbeddingRun {
    Tensor rows, table; /* y and the table; backward: dy and dtable */
    const int32_t *token;
    int32_t vocab_first;
} EmbeddingRun;

/* The row of the shard, or -1 where another rank holds it. */
static int64_t shard_row(const EmbeddingRun *run, int64_t row)
{
    const int64_t at = (int64_t)run->token[row] - run->vocab_first;
    return at >= 0 && at < run->table.shape[0] ? at : -1;
}

static void embedding_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const EmbeddingRun *run = context;
    const int64_t width = run->rows.shape[1];
    const size_t row_bytes = (size_t)width * dtype_size(run->rows.dtype);
    const size_t table_bytes = (size_t)width * dtype_size(run->table.dtype);
    for (int64_t row = first; row < last; row++) {
        char *y = (char *)run->rows.data + (size_t)row * row_bytes;
        const int64_t at = shard_row(run, row);
        const char *from = (const char *)run->table.data + (size_t)(at < 0 ? 0 : at) * table_bytes;
        if (at < 0)
            memset(y, 0, row_bytes);
        else if (run->rows.dtype == run->table.dtype)
            memcpy(y, from, row_bytes);
        else
            for (int64_t j = 0; j < width; j += LANES)
                lanes_store_row(y, j, width, run->rows.dtype,
                                lanes_load_row(from, j, width, run->table.dtype));
    }
}

static void embedding_check(const Tensor *rows, const Tensor *table)
{
    CHECK(rows->rank == 2 && table->rank == 2 && rows->shape[1] == table->shape[1]);
    CHECK(rows->dtype == DTYPE_F32 || rows->dtype == DTYPE_BF16);
    CHECK(table->dtype == DTYPE_F32 || table->dtype == DTYPE_BF16);
}

void cpu_embedding(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first)
{
    embedding_check(&y, &table);
    const EmbeddingRun run = {y, table, token, vocab_first};
    parallel_range(y.shape[0], 1 + 32768 / (y.shape[1] + 1), embedding_body, &run);
}

/* A thread owns columns, so that the rows of one token are added in their order whoever does it. */
static void embedding_backward_columns(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const EmbeddingRun *run = context;
    const int64_t width = run->rows.shape[1];
    const size_t row_bytes = (size_t)width * dtype_size(run->rows.dtype);
    for (int64_t row = 0; row < run->rows.shape[0]; row++) {
        const int64_t at = shard_row(run, row);
        if (at < 0) continue;
        const char *dy = (const char *)run->rows.data + (size_t)row * row_bytes;
        float *into = (float *)run->table.data + at * width;
        for (int64_t j = first; j < last; j += LANES) {
            const Lanes sum = lanes_add(lanes_load_row(into, j, last, DTYPE_F32),
                                        lanes_load_row(dy, j, last, run->rows.dtype));
            lanes_store_row(into, j, last, DTYPE_F32, sum);
        }
    }
}

void cpu_embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                       const int32_t *host_token, int32_t vocab_first)
{
    (void)host_token;
    embedding_check(&dy, &dtable);
    CHECK(dtable.dtype == DTYPE_F32);
    const EmbeddingRun run = {dy, dtable, token, vocab_first};
    parallel_range(dy.shape[1], 256, embedding_backward_columns, &run);
}
