#include "model/head.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"

#define STATS_MAX      5 /* numbers per row that ranks exchange: as in Head, entropy last */
#define NUM_SUMMARY    5 /* numbers per target: as in Head */
#define NUM_GIVEN      2 /* numbers per target */
#define CHUNK_ROWS_MIN 32

/* ---- memory ---- */

static int64_t local_vocab(const WeightPlan *plan)
{
    return plan->spec[plan->lm_head].local_rows;
}

int64_t head_chunk_rows(const WeightPlan *plan, int64_t max_targets, int64_t rows_max,
                        int64_t bytes_max)
{
    /* The widest shard decides, so that all ranks of the group cut the same chunks. */
    if (plan->config.value_head) return max_targets; /* one number a row: nothing to save */
    int64_t widest = (plan->config.vocab_size + plan->tp_size - 1) / plan->tp_size;
    int64_t rows = bytes_max / (widest * (int64_t)sizeof(float)) / CHUNK_ROWS_MIN * CHUNK_ROWS_MIN;
    if (rows < CHUNK_ROWS_MIN) rows = CHUNK_ROWS_MIN;
    if (rows > rows_max) rows = rows_max;
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
    if (plan->tp_size > 1)
        head->gathered = take(memory, &used, (size_t)plan->tp_size * STATS_MAX * row_floats);
    return used;
}

/* Of the arrays that the host reads and writes too. */
static size_t mirror_bytes(int64_t max_targets, int arrays)
{
    return (size_t)(max_targets * arrays) * sizeof(float);
}

int64_t head_bytes(const WeightPlan *plan, DType dtype, int64_t max_targets, int64_t chunk_rows,
                   bool with_backward)
{
    Head head = {.dtype = dtype, .with_backward = with_backward};
    head.max_targets = max_targets;
    head.chunk_rows = chunk_rows;
    return (int64_t)(lay_out(&head, plan, NULL) +
                     mirror_bytes(max_targets, NUM_SUMMARY + NUM_GIVEN));
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
    head->summary = mirror_create(model->kernels, mirror_bytes(max_targets, NUM_SUMMARY));
    head->given = mirror_create(model->kernels, mirror_bytes(max_targets, NUM_GIVEN));
    return head;
}

void head_destroy(Head *head)
{
    if (head == NULL) return;
    mirror_destroy(&head->given);
    mirror_destroy(&head->summary);
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

/* Targets [first, first + count). */
typedef struct Chunk {
    int64_t first, count;
} Chunk;

/* One pass under way. */
typedef struct Walk {
    Head *head;
    Model *model; /* whose weights */
    const Batch *batch;
    const HeadPass *pass;
    int32_t vocab_first;
    HeadResult result;
} Walk;

/* When the kernels called so far are done. */
static int64_t now(const Model *model)
{
    model->kernels->synchronize();
    return clock_ns();
}

/* The same within a walk, where it costs nothing. A device that computes while the host goes on is
 * not made to wait for every chunk: there a share of the walk is told, see share_time. */
static int64_t walk_time(const Model *model)
{
    return model->kernels->host_memory ? clock_ns() : 0;
}

/* Numbers per row that the ranks exchange. */
static int64_t num_stats(bool with_entropy)
{
    return with_entropy ? STATS_MAX : STATS_MAX - 1;
}

/* The first rank's of statistics laid out for `rows` rows. */
static RowStats stats_in(float *memory, int64_t rows, bool with_entropy)
{
    return (RowStats){.max = memory,
                      .sum_exp = memory + rows,
                      .target_logit = memory + 2 * rows,
                      .arg_max = memory + 3 * rows,
                      .sum_shifted = with_entropy ? memory + 4 * rows : NULL};
}

/* The summaries of targets from `first` on, in either memory of the mirror. */
static RowSummary summary_in(const Head *head, char *memory, int64_t first)
{
    float *at = (float *)memory + first;
    int64_t n = head->max_targets;
    return (RowSummary){.max = at,
                        .lse = at + n,
                        .target_logit = at + 2 * n,
                        .arg_max = at + 3 * n,
                        .entropy = at + 4 * n};
}

/* Brings the summaries' arrays [first, end) to the host, at once: what lies between them costs less
 * than to wait for each. */
static void pull_arrays(const Head *head, int first, int end, Chunk chunk)
{
    int64_t begin = first * head->max_targets + chunk.first;
    int64_t count = (end - 1 - first) * head->max_targets + chunk.count;
    mirror_pull(&head->summary, (size_t)begin * sizeof(float), (size_t)count * sizeof(float));
}

/* Brings array `index` of a mirror of arrays of max_targets numbers to the device. */
static void push_array(const Head *head, const Mirror *mirror, int index, Chunk chunk)
{
    size_t first = (size_t)(index * head->max_targets + chunk.first) * sizeof(float);
    mirror_push(mirror, first, (size_t)chunk.count * sizeof(float));
}

Status head_summarize(Head *head, Tensor logits, const int32_t *target, const RowSummary *to,
                      Error *err)
{
    const WeightPlan *plan = head->model->plan;
    bool with_entropy = to->entropy != NULL;
    int64_t rows = logits.shape[0], count = num_stats(with_entropy) * rows;
    CHECK(rows <= head->chunk_rows);
    float *stats = head->stats;
    const KernelTable *kernels = head->model->kernels;
    RowStats row_stats = stats_in(stats, rows, with_entropy);
    kernels->cross_entropy_stats(&row_stats, logits, target, first_vocab_row(plan));
    if (plan->tp_size > 1) {
        TRY(model_all_gather(head->model,
                             tensor_1d(head->gathered, DTYPE_F32, plan->tp_size * count),
                             tensor_1d(stats, DTYPE_F32, count), err));
        row_stats = stats_in(head->gathered, rows, with_entropy);
    }
    kernels->cross_entropy_join(to, &row_stats, plan->tp_size, count, rows);
    return OK;
}

/* Of a chunk's logits, into the summaries of its targets. */
static Status chunk_stats(Head *head, Tensor logits, const int32_t *target, int64_t first,
                          bool with_entropy, Error *err)
{
    RowSummary summary = summary_in(head, head->summary.device, first);
    if (!with_entropy) summary.entropy = NULL;
    return head_summarize(head, logits, target, &summary, err);
}

Status head_stats(Head *head, Tensor logits, const int32_t *target, HeadStats *ret, Error *err)
{
    Chunk all = {0, logits.shape[0]};
    if (target != NULL) {
        memcpy(head->given.host, target, (size_t)all.count * sizeof *target);
        push_array(head, &head->given, 0, all);
    }
    const int32_t *asked = target != NULL ? (const int32_t *)head->given.device : NULL;
    TRY(chunk_stats(head, logits, asked, 0, false, err));
    pull_arrays(head, 0, NUM_SUMMARY - 1, all);
    TRY(model_settle(head->model, err));
    RowSummary found = summary_in(head, head->summary.host, 0);
    *ret = (HeadStats){found.max, found.lse, found.target_logit, found.arg_max,
                       summary_in(head, head->summary.device, 0).max};
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
    const BatchOnDevice *batch = &walk->batch->device;
    Tensor norm = rows_of(walk->head->norm, chunk.first, chunk.count);
    Tensor logits = norm_logits(walk->head, walk->model, norm, batch->temperature + chunk.first);
    return chunk_stats(walk->head, logits, batch->target + chunk.first, chunk.first, with_entropy,
                       err);
}

/* Takes what the statistics say of targets whose chunks went through. */
static Status take_results(Walk *walk, Chunk chunk, Error *err)
{
    const Head *head = walk->head;
    const HeadPass *pass = walk->pass;
    RowSummary summary = summary_in(head, head->summary.host, 0);
    pull_arrays(head, 1, NUM_SUMMARY - (pass->entropy == NULL), chunk);
    TRY(model_settle(walk->model, err));
    for (int64_t at = chunk.first; at < chunk.first + chunk.count; at++) {
        float value = head_log_prob(summary.target_logit[at], summary.lse[at]);
        walk->result.nll_sum -= (double)value;
        walk->result.correct += (int32_t)summary.arg_max[at] == walk->batch->target[at];
        if (pass->log_prob != NULL) pass->log_prob[at] = value;
        if (pass->entropy != NULL) pass->entropy[at] = summary.entropy[at];
    }
    return OK;
}

/* The loss's derivatives for a chunk, with respect to logits divided by temperature. */
static RowSlopes chunk_slopes(Walk *walk, Chunk chunk)
{
    Head *head = walk->head;
    const HeadLoss *loss = walk->pass->loss;
    bool with_entropy = loss != NULL && loss->dentropy != NULL;
    float *dlog_prob = (float *)head->given.host, *dentropy = dlog_prob + head->max_targets;
    for (int64_t at = chunk.first; at < chunk.first + chunk.count; at++) {
        float t = walk->batch->temperature[at];
        dlog_prob[at] = (loss != NULL ? loss->dlog_prob[at] : -1.0f) / t;
        if (with_entropy) dentropy[at] = loss->dentropy[at] / t;
    }
    for (int i = 0; i < 1 + with_entropy; i++)
        push_array(head, &head->given, i, chunk);
    RowSummary summary = summary_in(head, head->summary.device, chunk.first);
    const float *slopes = (const float *)head->given.device + chunk.first;
    return (RowSlopes){
        .lse = summary.lse,
        .dlog_prob = slopes,
        .entropy = with_entropy ? summary.entropy : NULL,
        .dentropy = with_entropy ? slopes + head->max_targets : NULL,
    };
}

/* Back through the chunk whose logits and statistics stand in the head. */
static Status chunk_backward(Walk *walk, Chunk chunk, Error *err)
{
    Head *head = walk->head;
    const KernelTable *kernels = walk->model->kernels;
    int64_t begin = walk_time(walk->model);
    Tensor logits = rows_of(head->logits, 0, chunk.count);
    Tensor dlogits = rows_of(head->dlogits, 0, chunk.count);
    Tensor norm = rows_of(head->norm, chunk.first, chunk.count);
    Tensor dnorm = rows_of(head->dnorm, chunk.first, chunk.count);
    RowSlopes slopes = chunk_slopes(walk, chunk);
    kernels->cross_entropy_backward(dlogits, logits, &slopes,
                                    walk->batch->device.target + chunk.first, walk->vocab_first);
    SplitProduct product = {dnorm, walk->pass->gradients->lm_head, dlogits, norm,
                            &walk->model->weights->lm_head};
    TRY(model_split_backward(walk->model, &product, err));
    walk->result.backward_ns += walk_time(walk->model) - begin;
    return OK;
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
    model->kernels->scatter_rows(activations->dx, dx, batch->device.target_row);
}

static void finish_backward(Walk *walk, Activations *activations)
{
    int64_t begin = walk_time(walk->model);
    norm_backward(walk->head, walk->batch, activations, walk->pass->gradients);
    walk->result.backward_ns += walk_time(walk->model) - begin;
}

static void gather_and_norm(Head *head, const Model *model, Tensor output, const int32_t *row,
                            int64_t count)
{
    CHECKF(count <= head->max_targets, "%lld rows, planned for at most %lld", (long long)count,
           (long long)head->max_targets);
    Tensor x = rows_of(row != NULL ? head->x : output, 0, count);
    if (row != NULL) model->kernels->gather_rows(x, output, row);
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

/* Each chunk forward, its part of the loss, and backward. Only a loss wants to know how a chunk
 * came out before the next one. */
static Status walk_once(Walk *walk, Error *err)
{
    const HeadPass *pass = walk->pass;
    int64_t n = walk->batch->num_targets;
    bool with_loss = pass->gradients != NULL && pass->loss != NULL;
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        Chunk chunk = chunk_at(walk->head, n, i);
        TRY(chunk_logits(walk, chunk, pass->entropy != NULL, err));
        if (with_loss) {
            TRY(take_results(walk, chunk, err));
            pass->loss->derive(pass->loss->context, chunk.first, chunk.count);
        }
        if (pass->gradients != NULL) TRY(chunk_backward(walk, chunk, err));
        model_progress(walk->model);
    }
    return with_loss ? OK : take_results(walk, (Chunk){0, n}, err);
}

/* All chunks forward, the loss, and all chunks forward and backward. */
static Status walk_twice(Walk *walk, Error *err)
{
    const HeadPass *pass = walk->pass;
    int64_t n = walk->batch->num_targets;
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        TRY(chunk_logits(walk, chunk_at(walk->head, n, i), pass->entropy != NULL, err));
        model_progress(walk->model);
    }
    TRY(take_results(walk, (Chunk){0, n}, err));
    pass->loss->derive(pass->loss->context, 0, n);
    for (int64_t i = 0; i < num_chunks(walk->head, n); i++) {
        Chunk chunk = chunk_at(walk->head, n, i);
        int64_t begin = walk_time(walk->model);
        TRY(chunk_logits(walk, chunk, pass->loss->dentropy != NULL, err));
        walk->result.backward_ns +=
            walk_time(walk->model) - begin; /* the price of these gradients */
        TRY(chunk_backward(walk, chunk, err));
        model_progress(walk->model);
    }
    return OK;
}

/* What of a walk since `begin` the gradients took, on a device: of products of equal size, one
 * forward and two back, or with `twice` two forward, the second for the gradients. What still runs
 * is waited for by whoever is next, and counts there. */
static void share_time(Walk *walk, int64_t begin, bool twice)
{
    if (walk->model->kernels->host_memory) return;
    int64_t took = clock_ns() - begin;
    walk->result.backward_ns = twice ? took / 4 * 3 : took / 3 * 2;
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
    CHECK(batch->device.token != NULL); /* it was placed */
    if (walk.model == NULL) walk.model = head->model;
    walk.vocab_first = first_vocab_row(head->model->plan);
    if (n == 0) {
        if (pass->gradients != NULL) head->model->kernels->fill_zero(activations->dx);
        *ret = walk.result;
        return OK;
    }
    int64_t begin = now(walk.model); /* the layers' time ends here */
    gather_and_norm(head, walk.model, activations->output, batch->device.target_row, n);
    bool twice = pass->gradients != NULL && pass->loss != NULL && pass->loss->needs_all &&
                 num_chunks(head, n) > 1;
    TRY(twice ? walk_twice(&walk, err) : walk_once(&walk, err));
    if (pass->gradients != NULL) {
        finish_backward(&walk, activations);
        share_time(&walk, begin, twice);
    }
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
    memcpy(head->given.host, pass->dvalue, (size_t)n * sizeof *pass->dvalue);
    push_array(head, &head->given, 0, (Chunk){0, n});
    model->kernels->cast(dvalue, tensor_2d(head->given.device, DTYPE_F32, n, 1));
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
        gather_and_norm(head, model, activations->output, batch->device.target_row, n);
        model->kernels->matmul(tensor_2d(head->summary.device, DTYPE_F32, n, 1),
                               rows_of(head->norm, 0, n), &model->weights->lm_head);
        pull_arrays(head, 0, 1, (Chunk){0, n});
        memcpy(pass->value, head->summary.host, (size_t)n * sizeof *pass->value);
    }
    int64_t begin = now(model);
    if (pass->gradients != NULL && n > 0) {
        pass->derive(pass->context);
        value_backward(head, batch, activations, pass);
    } else if (pass->gradients != NULL) {
        model->kernels->fill_zero(activations->dx);
    }
    model_progress(model);
    return now(model) - begin;
}

/* ---- for generation ---- */

Tensor head_logits_placed(Head *head, Tensor output, const int32_t *row, const float *temperature,
                          int64_t count)
{
    CHECK(count <= head->chunk_rows);
    gather_and_norm(head, head->model, output, row, count);
    return norm_logits(head, head->model, rows_of(head->norm, 0, count), temperature);
}

Tensor head_logits(Head *head, Tensor output, const int32_t *row, const float *temperature,
                   int64_t count)
{
    const Mirror *asked = &head->given;
    size_t bytes = (size_t)count * sizeof(float);
    CHECK(count <= head->max_targets);
    memcpy(asked->host, row, bytes);
    if (temperature != NULL) memcpy(asked->host + bytes, temperature, bytes);
    mirror_push(asked, 0, temperature != NULL ? 2 * bytes : bytes);
    const float *divisor = temperature != NULL ? (const float *)(asked->device + bytes) : NULL;
    return head_logits_placed(head, output, (const int32_t *)asked->device, divisor, count);
}
