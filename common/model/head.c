#include "model/head.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

#define STATS          4    /* numbers per row that ranks exchange */
#define CHUNK_ROWS_MAX 1024 /* more gains nothing */
#define CHUNK_ROWS_MIN 32

/* ---- memory ---- */

static int64_t local_vocab(const WeightPlan *plan)
{
    return plan->spec[plan->lm_head].local_rows;
}

int64_t head_chunk_rows(const WeightPlan *plan, int64_t max_targets, int64_t bytes_max)
{
    /* The widest shard decides, so that all ranks of the group cut the same chunks. */
    int64_t widest = (plan->config.vocab_size + plan->tp_size - 1) / plan->tp_size;
    int64_t rows = bytes_max / (widest * (int64_t)sizeof(float)) / CHUNK_ROWS_MIN * CHUNK_ROWS_MIN;
    if (rows < CHUNK_ROWS_MIN) rows = CHUNK_ROWS_MIN;
    if (rows > CHUNK_ROWS_MAX) rows = CHUNK_ROWS_MAX;
    return rows < max_targets ? rows : max_targets;
}

static void *take(char *memory, size_t *used, size_t bytes)
{
    void *piece = memory != NULL ? memory + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return piece;
}

static Tensor take_rows(char *memory, size_t *used, DType dtype, int64_t rows, int64_t columns)
{
    size_t bytes = (size_t)(rows * columns) * dtype_size(dtype);
    return tensor_2d(take(memory, used, bytes), dtype, rows, columns);
}

/* Lays the head out over `memory` (NULL: only counts) and returns the bytes it takes. */
static size_t lay_out(Head *head, const WeightPlan *plan, char *memory)
{
    size_t used = 0;
    int64_t n = head->max_targets, h = plan->config.hidden_size, v = local_vocab(plan);
    size_t row_floats = (size_t)head->chunk_rows * sizeof(float);
    head->x = take_rows(memory, &used, head->dtype, n, h);
    head->norm = take_rows(memory, &used, head->dtype, n, h);
    if (head->with_backward) head->dnorm = take_rows(memory, &used, head->dtype, n, h);
    head->rstd = take(memory, &used, (size_t)n * sizeof(float));
    head->logits = take_rows(memory, &used, DTYPE_F32, head->chunk_rows, v);
    head->dlogits = head->logits;
    if (head->with_backward && head->dtype != DTYPE_F32)
        head->dlogits = take_rows(memory, &used, head->dtype, head->chunk_rows, v);
    head->stats = take(memory, &used, STATS * row_floats);
    head->gathered = take(memory, &used, (size_t)plan->tp_size * STATS * row_floats);
    head->lse = take(memory, &used, row_floats);
    head->divisor = take(memory, &used, row_floats);
    return used;
}

int64_t head_bytes(const WeightPlan *plan, DType dtype, int64_t max_targets, int64_t chunk_rows,
                   bool with_backward)
{
    Head head = {.dtype = dtype, .with_backward = with_backward};
    head.max_targets = max_targets;
    head.chunk_rows = chunk_rows;
    return (int64_t)lay_out(&head, plan, NULL);
}

Head *head_create(Model *model, int64_t max_targets, int64_t chunk_rows, bool with_backward)
{
    Head *head = mem_calloc(1, sizeof *head);
    head->model = model;
    head->dtype = model->weights->dtype;
    head->with_backward = with_backward;
    head->max_targets = max_targets;
    head->chunk_rows = chunk_rows;
    head->memory = model->kernels->alloc(lay_out(head, model->plan, NULL));
    lay_out(head, model->plan, head->memory);
    return head;
}

void head_destroy(Head *head)
{
    if (head == NULL) return;
    head->model->kernels->free(head->memory);
    free(head);
}

/* ---- the pass ---- */

/* Rows [first, first + count) of a matrix. */
static Tensor rows_of(Tensor matrix, int64_t first, int64_t count)
{
    char *data = (char *)matrix.data;
    if (data != NULL) data += (size_t)(first * matrix.shape[1]) * dtype_size(matrix.dtype);
    return tensor_2d(data, matrix.dtype, count, matrix.shape[1]);
}

/* Joins the ranks' statistics in rank order: those of the whole vocabulary, in head->stats and
 * head->lse. With one rank the arithmetic is the same, over one term. */
static void join_stats(Head *head, int64_t rows)
{
    int tp_size = head->model->plan->tp_size;
    for (int64_t i = 0; i < rows; i++) {
        float best = -INFINITY, arg = 0.0f, logit = 0.0f, sum = 0.0f;
        for (int r = 0; r < tp_size; r++) {
            const float *stats = head->gathered + (int64_t)r * STATS * rows;
            if (r == 0 || stats[i] > best) {
                best = stats[i];
                arg = stats[3 * rows + i];
            }
            logit += stats[2 * rows + i];
        }
        for (int r = 0; r < tp_size; r++) {
            const float *stats = head->gathered + (int64_t)r * STATS * rows;
            sum += stats[rows + i] * expf(stats[i] - best);
        }
        head->lse[i] = best + logf(sum);
        head->stats[i] = best;
        head->stats[2 * rows + i] = logit;
        head->stats[3 * rows + i] = arg;
    }
}

static int32_t first_vocab_row(const WeightPlan *plan)
{
    WeightRange rows = weight_spec_part(&plan->spec[plan->lm_head], plan->tp_rank, plan->tp_size);
    return (int32_t)rows.first;
}

Status head_stats(Head *head, Tensor logits, const int32_t *target, HeadStats *ret, Error *err)
{
    int64_t rows = logits.shape[0];
    CHECK(rows <= head->chunk_rows);
    float *stats = head->stats;
    int32_t *arg_max = (int32_t *)(stats + 3 * rows);
    head->model->kernels->cross_entropy_stats(stats, stats + rows, stats + 2 * rows, arg_max,
                                              logits, target, first_vocab_row(head->model->plan));
    for (int64_t i = 0; i < rows; i++) /* ids are below 2^24, so exact as f32 */
        stats[3 * rows + i] = (float)arg_max[i];
    int64_t count = STATS * rows;
    TRY(model_all_gather(head->model,
                         tensor_1d(head->gathered, DTYPE_F32, head->model->plan->tp_size * count),
                         tensor_1d(stats, DTYPE_F32, count), err));
    join_stats(head, rows);
    *ret = (HeadStats){stats, head->lse, stats + 2 * rows, stats + 3 * rows};
    return OK;
}

/* Logits of normed rows. */
static Tensor norm_logits(Head *head, Tensor norm, const float *temperature)
{
    const Model *model = head->model;
    Tensor logits = rows_of(head->logits, 0, norm.shape[0]);
    model->kernels->matmul(logits, norm, &model->weights->lm_head);
    if (temperature != NULL) model->kernels->divide_rows(logits, temperature);
    return logits;
}

typedef struct Chunk {
    int64_t first, count;
    const int32_t *target;
    float temperature;
} Chunk;

static Status chunk_forward(Head *head, const Chunk *chunk, float *log_prob, HeadResult *result,
                            Error *err)
{
    HeadStats stats;
    Tensor norm = rows_of(head->norm, chunk->first, chunk->count);
    for (int64_t i = 0; i < chunk->count; i++)
        head->divisor[i] = chunk->temperature;
    TRY(head_stats(head, norm_logits(head, norm, head->divisor), chunk->target, &stats, err));
    for (int64_t i = 0; i < chunk->count; i++) {
        float value = head_log_prob(stats.target_logit[i], stats.lse[i]);
        result->loss_sum -= (double)value;
        result->correct += (int32_t)stats.arg_max[i] == chunk->target[i];
        if (log_prob != NULL) log_prob[chunk->first + i] = value;
    }
    return OK;
}

static void chunk_backward(Head *head, const Chunk *chunk, ModelTensors *gradients)
{
    Model *model = head->model;
    Tensor logits = rows_of(head->logits, 0, chunk->count);
    Tensor dlogits = rows_of(head->dlogits, 0, chunk->count);
    Tensor norm = rows_of(head->norm, chunk->first, chunk->count);
    Tensor dnorm = rows_of(head->dnorm, chunk->first, chunk->count);
    model->kernels->cross_entropy_backward(dlogits, logits, head->lse, chunk->target,
                                           first_vocab_row(model->plan), 1.0f / chunk->temperature);
    model->kernels->matmul_dgrad(dnorm, dlogits, &model->weights->lm_head);
    model->kernels->matmul_wgrad_accumulate(gradients->lm_head, dlogits, norm);
}

/* Through the final norm and back to the rows of the output; rows without loss get zero. */
static Status finish_backward(Head *head, const Batch *batch, Activations *activations,
                              ModelTensors *gradients, Error *err)
{
    const KernelTable *kernels = head->model->kernels;
    int64_t n = batch->num_targets;
    Tensor dnorm = rows_of(head->dnorm, 0, n), dx = rows_of(head->norm, 0, n);
    TRY(model_all_reduce(head->model, dnorm, err));
    /* The norm's output has served; its memory takes the gradient of its input. */
    kernels->rmsnorm_backward(dx, false, gradients->norm, dnorm, rows_of(head->x, 0, n),
                              head->model->weights->tensors.norm, head->rstd);
    kernels->scatter_rows(activations->dx, dx, batch->target_row);
    return OK;
}

static void gather_and_norm(Head *head, Tensor output, const int32_t *row, int64_t count)
{
    const Model *model = head->model;
    CHECKF(count <= head->max_targets, "%lld rows, planned for at most %lld", (long long)count,
           (long long)head->max_targets);
    Tensor x = rows_of(head->x, 0, count);
    model->kernels->gather_rows(x, output, row);
    model->kernels->rmsnorm(rows_of(head->norm, 0, count), head->rstd, x,
                            model->weights->tensors.norm, model->plan->config.rms_norm_eps);
}

Status head_loss(Head *head, const Batch *batch, Activations *activations, ModelTensors *gradients,
                 float *log_prob, HeadResult *ret, Error *err)
{
    HeadResult result = {0};
    int64_t n = batch->num_targets;
    CHECK(gradients == NULL || head->with_backward);
    if (n == 0) {
        if (gradients != NULL) head->model->kernels->fill_zero(activations->dx);
        *ret = result;
        return OK;
    }
    gather_and_norm(head, activations->output, batch->target_row, n);
    int64_t num_chunks = (n + head->chunk_rows - 1) / head->chunk_rows;
    for (int64_t i = 0; i < num_chunks; i++) { /* of about equal size: a small rest would be slow */
        int64_t first = n * i / num_chunks;
        Chunk chunk = {.first = first, .target = batch->target + first};
        chunk.count = n * (i + 1) / num_chunks - first;
        chunk.temperature = batch->temperature;
        TRY(chunk_forward(head, &chunk, log_prob, &result, err));
        int64_t begin = clock_ns();
        if (gradients != NULL) chunk_backward(head, &chunk, gradients);
        result.backward_ns += clock_ns() - begin;
        model_progress(head->model);
    }
    int64_t begin = clock_ns();
    if (gradients != NULL) TRY(finish_backward(head, batch, activations, gradients, err));
    result.backward_ns += clock_ns() - begin;
    *ret = result;
    return OK;
}

Tensor head_logits(Head *head, Tensor output, const int32_t *row, const float *temperature,
                   int64_t count)
{
    CHECK(count <= head->chunk_rows);
    gather_and_norm(head, output, row, count);
    return norm_logits(head, rows_of(head->norm, 0, count), temperature);
}
