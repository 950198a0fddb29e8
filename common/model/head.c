#include "model/head.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

#define STATS_MAX      5    /* numbers per row that ranks exchange: as in Head, entropy last */
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
    if (plan->config.value_head) return max_targets; /* one number a row: nothing to save */
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
    head->stats = take(memory, &used, STATS_MAX * row_floats);
    head->gathered = take(memory, &used, (size_t)plan->tp_size * STATS_MAX * row_floats);
    head->lse = take(memory, &used, row_floats);
    head->entropy = take(memory, &used, row_floats);
    if (head->with_backward) head->slopes = take(memory, &used, 2 * row_floats);
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

static int32_t first_vocab_row(const WeightPlan *plan)
{
    WeightRange rows = weight_spec_part(&plan->spec[plan->lm_head], plan->tp_rank, plan->tp_size);
    return (int32_t)rows.first;
}

/* One pass under way. */
typedef struct Walk {
    Head *head;
    Model *model; /* whose weights */
    const Batch *batch;
    const HeadPass *pass;
    int32_t vocab_first;
    HeadResult result;
} Walk;

typedef struct Chunk {
    int64_t first, count;
} Chunk;

/* Numbers per row that the ranks exchange. */
static int64_t num_stats(bool with_entropy)
{
    return with_entropy ? STATS_MAX : STATS_MAX - 1;
}

/* Joins the ranks' statistics of row i in rank order: lse and entropy; target logit and arg max of
 * the whole vocabulary into head->stats. With one rank the arithmetic is the same, over one term.
 */
static void join_row(Head *head, int64_t i, int64_t rows, bool with_entropy)
{
    int tp_size = head->model->plan->tp_size;
    int64_t rank_floats = num_stats(with_entropy) * rows;
    float best = -INFINITY, arg = 0.0f, logit = 0.0f, sum = 0.0f;
    for (int r = 0; r < tp_size; r++) {
        const float *stats = head->gathered + r * rank_floats;
        if (r == 0 || stats[i] > best) {
            best = stats[i];
            arg = stats[3 * rows + i];
        }
        logit += stats[2 * rows + i];
    }
    double weighed = 0.0; /* the sum of exp(logit - best) (logit - best) */
    for (int r = 0; r < tp_size; r++) {
        const float *stats = head->gathered + r * rank_floats;
        float below = stats[i] - best, factor = expf(below);
        sum += stats[rows + i] * factor;
        if (with_entropy)
            weighed +=
                (double)factor * ((double)stats[4 * rows + i] + (double)below * stats[rows + i]);
    }
    head->lse[i] = best + logf(sum);
    head->stats[i] = best;
    head->stats[2 * rows + i] = logit;
    head->stats[3 * rows + i] = arg;
    if (with_entropy) head->entropy[i] = (float)(log((double)sum) - weighed / (double)sum);
}

/* As head_stats; with_entropy, also head->entropy. */
static Status chunk_stats(Head *head, Tensor logits, const int32_t *target, bool with_entropy,
                          Error *err)
{
    int64_t rows = logits.shape[0], count = num_stats(with_entropy) * rows;
    CHECK(rows <= head->chunk_rows);
    float *stats = head->stats;
    RowStats row_stats = {
        .max = stats,
        .sum_exp = stats + rows,
        .target_logit = stats + 2 * rows,
        .arg_max = (int32_t *)(stats + 3 * rows),
        .sum_shifted = with_entropy ? stats + 4 * rows : NULL,
    };
    head->model->kernels->cross_entropy_stats(&row_stats, logits, target,
                                              first_vocab_row(head->model->plan));
    for (int64_t i = 0; i < rows; i++) /* ids are below 2^24, so exact as f32 */
        stats[3 * rows + i] = (float)row_stats.arg_max[i];
    TRY(model_all_gather(head->model,
                         tensor_1d(head->gathered, DTYPE_F32, head->model->plan->tp_size * count),
                         tensor_1d(stats, DTYPE_F32, count), err));
    for (int64_t i = 0; i < rows; i++)
        join_row(head, i, rows, with_entropy);
    return OK;
}

Status head_stats(Head *head, Tensor logits, const int32_t *target, HeadStats *ret, Error *err)
{
    int64_t rows = logits.shape[0];
    TRY(chunk_stats(head, logits, target, false, err));
    *ret = (HeadStats){head->stats, head->lse, head->stats + 2 * rows, head->stats + 3 * rows};
    return OK;
}

/* Logits of normed rows. */
static Tensor norm_logits(Head *head, const Model *model, Tensor norm, const float *temperature)
{
    Tensor logits = rows_of(head->logits, 0, norm.shape[0]);
    model->kernels->matmul(logits, norm, &model->weights->lm_head);
    if (temperature != NULL) model->kernels->divide_rows(logits, temperature);
    return logits;
}

/* Logits of a chunk and their statistics. */
static Status chunk_logits(Walk *walk, Chunk chunk, bool with_entropy, Error *err)
{
    const Batch *batch = walk->batch;
    Tensor norm = rows_of(walk->head->norm, chunk.first, chunk.count);
    Tensor logits = norm_logits(walk->head, walk->model, norm, batch->temperature + chunk.first);
    return chunk_stats(walk->head, logits, batch->target + chunk.first, with_entropy, err);
}

/* Takes what a chunk's statistics say of its targets. */
static void chunk_results(Walk *walk, Chunk chunk)
{
    const Head *head = walk->head;
    const HeadPass *pass = walk->pass;
    const float *target_logit = head->stats + 2 * chunk.count;
    const float *arg_max = head->stats + 3 * chunk.count;
    for (int64_t i = 0; i < chunk.count; i++) {
        int64_t at = chunk.first + i;
        float value = head_log_prob(target_logit[i], head->lse[i]);
        walk->result.nll_sum -= (double)value;
        walk->result.correct += (int32_t)arg_max[i] == walk->batch->target[at];
        if (pass->log_prob != NULL) pass->log_prob[at] = value;
        if (pass->entropy != NULL) pass->entropy[at] = head->entropy[i];
    }
}

/* The loss's derivatives for a chunk, with respect to logits divided by temperature. */
static RowSlopes chunk_slopes(Walk *walk, Chunk chunk)
{
    Head *head = walk->head;
    const HeadLoss *loss = walk->pass->loss;
    bool with_entropy = loss != NULL && loss->dentropy != NULL;
    float *dlog_prob = head->slopes, *dentropy = head->slopes + chunk.count;
    for (int64_t i = 0; i < chunk.count; i++) {
        int64_t at = chunk.first + i;
        float t = walk->batch->temperature[at];
        dlog_prob[i] = (loss != NULL ? loss->dlog_prob[at] : -1.0f) / t;
        if (with_entropy) dentropy[i] = loss->dentropy[at] / t;
    }
    return (RowSlopes){
        .lse = head->lse,
        .dlog_prob = dlog_prob,
        .entropy = with_entropy ? head->entropy : NULL,
        .dentropy = with_entropy ? dentropy : NULL,
    };
}

/* Back through the chunk whose logits and statistics stand in the head. */
static void chunk_backward(Walk *walk, Chunk chunk)
{
    Head *head = walk->head;
    const KernelTable *kernels = walk->model->kernels;
    int64_t begin = clock_ns();
    Tensor logits = rows_of(head->logits, 0, chunk.count);
    Tensor dlogits = rows_of(head->dlogits, 0, chunk.count);
    Tensor norm = rows_of(head->norm, chunk.first, chunk.count);
    Tensor dnorm = rows_of(head->dnorm, chunk.first, chunk.count);
    RowSlopes slopes = chunk_slopes(walk, chunk);
    kernels->cross_entropy_backward(dlogits, logits, &slopes, walk->batch->target + chunk.first,
                                    walk->vocab_first);
    kernels->matmul_dgrad(dnorm, dlogits, &walk->model->weights->lm_head);
    kernels->matmul_wgrad_accumulate(walk->pass->gradients->lm_head, dlogits, norm);
    walk->result.backward_ns += clock_ns() - begin;
}

/* From head->dnorm through the final norm and back to the rows of the output; rows without loss get
 * zero. */
static void norm_backward(Head *head, const Batch *batch, Activations *activations,
                          ModelTensors *gradients)
{
    const Model *model = head->model;
    int64_t n = batch->num_targets;
    /* The norm's output has served; its memory takes the gradient of its input. */
    Tensor dnorm = rows_of(head->dnorm, 0, n), dx = rows_of(head->norm, 0, n);
    model->kernels->rmsnorm_backward(dx, false, gradients->norm, dnorm, rows_of(head->x, 0, n),
                                     model->weights->tensors.norm, head->rstd);
    model->kernels->scatter_rows(activations->dx, dx, batch->target_row);
}

static Status finish_backward(Walk *walk, Activations *activations, Error *err)
{
    int64_t begin = clock_ns();
    Tensor dnorm = rows_of(walk->head->dnorm, 0, walk->batch->num_targets);
    TRY(model_all_reduce(walk->model, dnorm, err));
    norm_backward(walk->head, walk->batch, activations, walk->pass->gradients);
    walk->result.backward_ns += clock_ns() - begin;
    return OK;
}

static void gather_and_norm(Head *head, const Model *model, Tensor output, const int32_t *row,
                            int64_t count)
{
    CHECKF(count <= head->max_targets, "%lld rows, planned for at most %lld", (long long)count,
           (long long)head->max_targets);
    Tensor x = rows_of(head->x, 0, count);
    model->kernels->gather_rows(x, output, row);
    model->kernels->rmsnorm(rows_of(head->norm, 0, count), head->rstd, x,
                            model->weights->tensors.norm, model->plan->config.rms_norm_eps);
}

/* ---- walks over the chunks ---- */

static int64_t num_chunks(const Head *head, int64_t n)
{
    return (n + head->chunk_rows - 1) / head->chunk_rows;
}

/* Chunks are of about equal size: a small rest would be slow. */
static Chunk chunk_at(const Head *head, int64_t n, int64_t i)
{
    int64_t chunks = num_chunks(head, n), first = n * i / chunks;
    return (Chunk){first, n * (i + 1) / chunks - first};
}

/* Each chunk forward, its part of the loss, and backward. */
static Status walk_once(Walk *walk, Error *err)
{
    const HeadPass *pass = walk->pass;
    int64_t n = walk->batch->num_targets;
    bool with_entropy = pass->entropy != NULL;
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        Chunk chunk = chunk_at(walk->head, n, i);
        TRY(chunk_logits(walk, chunk, with_entropy, err));
        chunk_results(walk, chunk);
        if (pass->gradients != NULL && pass->loss != NULL)
            pass->loss->derive(pass->loss->context, chunk.first, chunk.count);
        if (pass->gradients != NULL) chunk_backward(walk, chunk);
        model_progress(walk->model);
    }
    return OK;
}

/* All chunks forward, the loss, and all chunks forward and backward. */
static Status walk_twice(Walk *walk, Error *err)
{
    const HeadPass *pass = walk->pass;
    int64_t n = walk->batch->num_targets;
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        Chunk chunk = chunk_at(walk->head, n, i);
        TRY(chunk_logits(walk, chunk, pass->entropy != NULL, err));
        chunk_results(walk, chunk);
        model_progress(walk->model);
    }
    pass->loss->derive(pass->loss->context, 0, n);
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        Chunk chunk = chunk_at(walk->head, n, i);
        int64_t begin = clock_ns();
        TRY(chunk_logits(walk, chunk, pass->loss->dentropy != NULL, err));
        walk->result.backward_ns += clock_ns() - begin; /* the price of these gradients */
        chunk_backward(walk, chunk);
        model_progress(walk->model);
    }
    return OK;
}

static void check_pass(const Head *head, const HeadPass *pass)
{
    CHECK(pass->gradients == NULL || (head->with_backward && pass->model == NULL));
    CHECK(pass->loss == NULL || pass->log_prob != NULL);
    CHECK(pass->loss == NULL || pass->loss->dentropy == NULL || pass->entropy != NULL);
    CHECK(pass->model == NULL || pass->model->weights->dtype == head->dtype);
}

Status head_run(Head *head, const Batch *batch, Activations *activations, const HeadPass *pass,
                HeadResult *ret, Error *err)
{
    Walk walk = {.head = head, .model = pass->model, .batch = batch, .pass = pass};
    int64_t n = batch->num_targets;
    check_pass(head, pass);
    if (walk.model == NULL) walk.model = head->model;
    walk.vocab_first = first_vocab_row(head->model->plan);
    if (n == 0) {
        if (pass->gradients != NULL) head->model->kernels->fill_zero(activations->dx);
        *ret = walk.result;
        return OK;
    }
    gather_and_norm(head, walk.model, activations->output, batch->target_row, n);
    bool twice = pass->gradients != NULL && pass->loss != NULL && pass->loss->needs_all &&
                 num_chunks(head, n) > 1;
    TRY(twice ? walk_twice(&walk, err) : walk_once(&walk, err));
    if (pass->gradients != NULL) TRY(finish_backward(&walk, activations, err));
    *ret = walk.result;
    return OK;
}

/* ---- a critic's pass ---- */

/* Every rank of the group holds the one row and computes the same. The gradient of the values takes
 * the type of the activations. */
static void value_backward(Head *head, const Batch *batch, Activations *activations,
                           const ValuePass *pass)
{
    const Model *model = head->model;
    int64_t n = batch->num_targets;
    Tensor dvalue = rows_of(head->dlogits, 0, n), norm = rows_of(head->norm, 0, n);
    model->kernels->cast(dvalue, tensor_2d(pass->dvalue, DTYPE_F32, n, 1));
    model->kernels->matmul_dgrad(rows_of(head->dnorm, 0, n), dvalue, &model->weights->lm_head);
    model->kernels->matmul_wgrad_accumulate(pass->gradients->lm_head, dvalue, norm);
    norm_backward(head, batch, activations, pass->gradients);
}

int64_t head_run_values(Head *head, const Batch *batch, Activations *activations,
                        const ValuePass *pass)
{
    Model *model = head->model;
    int64_t n = batch->num_targets;
    CHECK(model->plan->config.value_head && n <= head->chunk_rows);
    CHECK(pass->gradients == NULL || head->with_backward);
    if (n > 0) {
        gather_and_norm(head, model, activations->output, batch->target_row, n);
        model->kernels->matmul(tensor_2d(pass->value, DTYPE_F32, n, 1), rows_of(head->norm, 0, n),
                               &model->weights->lm_head);
    }
    int64_t begin = clock_ns();
    if (pass->gradients != NULL && n > 0) {
        pass->derive(pass->context);
        value_backward(head, batch, activations, pass);
    } else if (pass->gradients != NULL) {
        model->kernels->fill_zero(activations->dx);
    }
    model_progress(model);
    return clock_ns() - begin;
}

/* ---- for generation ---- */

Tensor head_logits(Head *head, Tensor output, const int32_t *row, const float *temperature,
                   int64_t count)
{
    CHECK(count <= head->chunk_rows);
    gather_and_norm(head, head->model, output, row, count);
    return norm_logits(head, head->model, rows_of(head->norm, 0, count), temperature);
}
