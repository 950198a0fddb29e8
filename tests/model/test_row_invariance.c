/* Row invariance end to end: what a token gives depends on its own sequence alone, to the last bit,
 * whatever else is in the batch, however its sequence is cut into chunks, and wherever its row
 * falls in the head. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/forward.h"
#include "model/head.h"
#include "draw.h"
#include "ranks.h"

#define SEQUENCES  64
#define LENGTH_MAX 150
#define HIDDEN     96
#define PAGES_EACH ((LENGTH_MAX + KV_PAGE - 1) / KV_PAGE)
#define NUM_PAGES  (SEQUENCES * PAGES_EACH + 1)

typedef struct Job {
    DType dtype;
} Job;

typedef struct Fixture {
    WeightPlan *plan;
    Weights *weights;
    Model *model;
    Activations *activations;
    Head *head;
    Batch *batch;
    int64_t length[SEQUENCES];
    int32_t token[SEQUENCES][LENGTH_MAX];
    uint8_t mask[LENGTH_MAX];
    /* of every sequence alone: the output's rows, and the targets' log-probs */
    char *output[SEQUENCES];
    float log_prob[SEQUENCES][LENGTH_MAX];
} Fixture;

static const ModelConfig CONFIG = {
    .architecture = ARCHITECTURE_QWEN3,
    .vocab_size = 301,
    .hidden_size = HIDDEN,
    .intermediate_size = 200,
    .num_hidden_layers = 3,
    .num_attention_heads = 4,
    .num_key_value_heads = 2,
    .head_dim = 32,
    .max_position_embeddings = LENGTH_MAX,
    .rope_theta = 10000.0,
    .rms_norm_eps = 1e-6f,
    .initializer_range = 0.1f,
    .qk_norm = true,
};

static Fixture *fixture_create(const Ranks *ranks, DType dtype)
{
    Fixture *f = mem_calloc(1, sizeof *f);
    f->plan = weight_plan_create(&CONFIG, ranks->tp_rank, ranks->tp_size);
    f->weights = weights_create(f->plan, dtype, ranks->kernels);
    draw_weights(f->weights, 5);
    f->model = model_create(f->weights, ranks->tensor_comm, LENGTH_MAX);
    int64_t rows = 0;
    for (int s = 0; s < SEQUENCES; s++) {
        f->length[s] = 1 + (int64_t)rng_below(9, (uint64_t)s, s % 8 == 0 ? LENGTH_MAX : 30);
        rows += f->length[s];
        for (int t = 0; t < f->length[s]; t++)
            f->token[s][t] = (int32_t)rng_below(10, (uint64_t)(s * LENGTH_MAX + t), 301);
    }
    memset(f->mask, 1, sizeof f->mask);
    f->activations = activations_create(f->plan, dtype, KEEP_NOTHING, rows, ranks->kernels);
    f->head = head_create(f->model, rows, 37, false);
    f->batch = batch_create();
    return f;
}

static void fixture_destroy(Fixture *f)
{
    for (int s = 0; s < SEQUENCES; s++)
        free(f->output[s]);
    batch_destroy(f->batch);
    head_destroy(f->head);
    activations_destroy(f->activations);
    model_destroy(f->model);
    weights_destroy(f->weights);
    weight_plan_destroy(f->plan);
    free(f);
}

static size_t row_bytes(const Fixture *f)
{
    return HIDDEN * dtype_size(f->weights->dtype);
}

/* Runs sequences first to last - 1 in one batch; *log_prob gets their targets' in order. */
static void run_sequences(Fixture *f, int first, int last, float *log_prob)
{
    Error err = {0};
    HeadResult result;
    batch_clear(f->batch);
    for (int s = first; s < last; s++)
        batch_add(f->batch, f->token[s], f->mask, f->length[s]);
    rank_ok(model_forward(f->model, f->batch, NULL, f->activations, &err), &err);
    HeadPass pass = {.log_prob = log_prob};
    rank_ok(head_run(f->head, f->batch, f->activations, &pass, &result, &err), &err);
}

static void run_alone(Fixture *f)
{
    for (int s = 0; s < SEQUENCES; s++) {
        run_sequences(f, s, s + 1, f->log_prob[s]);
        size_t bytes = (size_t)f->length[s] * row_bytes(f);
        f->output[s] = mem_alloc(bytes);
        memcpy(f->output[s], f->activations->output.data, bytes);
    }
}

static void check_together(Fixture *f, int batch_size)
{
    float *log_prob = mem_calloc(SEQUENCES * LENGTH_MAX, sizeof *log_prob);
    for (int first = 0; first < SEQUENCES; first += batch_size) {
        int last = first + batch_size < SEQUENCES ? first + batch_size : SEQUENCES;
        run_sequences(f, first, last, log_prob);
        const char *row = f->activations->output.data;
        const float *value = log_prob;
        for (int s = first; s < last; s++) {
            size_t bytes = (size_t)f->length[s] * row_bytes(f);
            size_t targets = (size_t)f->length[s] - 1;
            rank_check(memcmp(row, f->output[s], bytes) == 0);
            rank_check(memcmp(value, f->log_prob[s], targets * sizeof(float)) == 0);
            row += bytes;
            value += targets;
        }
    }
    free(log_prob);
}

/* All sequences at once, each in chunks of its own sizes, until all are through: long prefills
 * beside single tokens. */
static void check_chunked(Fixture *f, uint64_t seed, int64_t chunk_max)
{
    Error err = {0};
    KvCache *cache = kv_cache_create(f->plan, f->weights->dtype, f->model->kernels, NUM_PAGES);
    int32_t page[SEQUENCES][PAGES_EACH];
    memset(cache->memory, 0xFF,
           (size_t)NUM_PAGES * (size_t)f->plan->config.num_hidden_layers *
               (size_t)cache->page_bytes); /* NaN, to be read by nobody */
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0; i < PAGES_EACH; i++) /* scattered */
            page[s][i] = (s * PAGES_EACH + i) * 89 % NUM_PAGES;
    int32_t sequence[SEQUENCES];
    int64_t done[SEQUENCES] = {0};
    for (uint64_t round = 0;; round++) {
        int64_t chunk[SEQUENCES] = {0};
        batch_clear(f->batch);
        for (int i = 0; i < SEQUENCES; i++) {
            int s = (i + (int)round) % SEQUENCES;
            int64_t left = f->length[s] - done[s];
            if (left == 0) continue;
            chunk[s] =
                1 + (int64_t)rng_below(seed, round * SEQUENCES + (uint64_t)s, (uint64_t)chunk_max);
            if (chunk[s] > left) chunk[s] = left;
            sequence[f->batch->num_sequences] = s;
            batch_add_chunk(f->batch, f->token[s] + done[s], chunk[s], done[s], page[s],
                            (int)((done[s] + chunk[s] + KV_PAGE - 1) / KV_PAGE));
        }
        if (f->batch->num_rows == 0) break;
        rank_ok(model_forward(f->model, f->batch, cache, f->activations, &err), &err);
        for (int i = 0; i < f->batch->num_sequences; i++) {
            int s = sequence[i];
            const char *row = (const char *)f->activations->output.data +
                              (size_t)f->batch->cu_seqlens[i] * row_bytes(f);
            rank_check(memcmp(row, f->output[s] + (size_t)done[s] * row_bytes(f),
                              (size_t)chunk[s] * row_bytes(f)) == 0);
            done[s] += chunk[s];
        }
    }
    kv_cache_destroy(cache);
}

/* log p of the batch's targets as a decoder takes them. */
static void decode_log_probs(Fixture *f, float *log_prob)
{
    Error err = {0};
    const Batch *batch = f->batch;
    const int64_t at_a_time = 5;
    for (int64_t first = 0; first < batch->num_targets; first += at_a_time) {
        HeadStats stats;
        int64_t left = batch->num_targets - first, count = left < at_a_time ? left : at_a_time;
        Tensor logits = head_logits(f->head, f->activations->output, batch->target_row + first,
                                    batch->temperature + first, count);
        rank_ok(head_stats(f->head, logits, batch->target + first, &stats, &err), &err);
        for (int64_t i = 0; i < count; i++)
            log_prob[first + i] = head_log_prob(stats.target_logit[i], stats.lse[i]);
    }
}

static void head_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Error err = {0};
    HeadResult result;
    Fixture *f = fixture_create(ranks, job->dtype);
    size_t size = SEQUENCES * LENGTH_MAX, bytes;
    float *plain = mem_calloc(size, sizeof *plain), *warm = mem_calloc(size, sizeof *warm);
    float *entropy = mem_calloc(size, sizeof *entropy), *found = mem_calloc(size, sizeof *found);
    run_sequences(f, 0, SEQUENCES, plain);
    bytes = (size_t)f->batch->num_targets * sizeof(float);
    for (int64_t i = 0; i < f->batch->num_targets; i++)
        f->batch->temperature[i] = i % 3 == 0 ? 1.0f : 0.7f;
    batch_place(f->batch, ranks->kernels);
    HeadPass pass = {.log_prob = warm};
    rank_ok(head_run(f->head, f->batch, f->activations, &pass, &result, &err), &err);
    for (int64_t i = 0; i < f->batch->num_targets; i++) /* and only where it says so */
        rank_check((plain[i] == warm[i]) == (i % 3 == 0));
    pass.entropy = entropy;
    pass.log_prob = found;
    rank_ok(head_run(f->head, f->batch, f->activations, &pass, &result, &err), &err);
    rank_check(memcmp(found, warm, bytes) == 0);
    decode_log_probs(f, found);
    rank_check(memcmp(found, warm, bytes) == 0);
    head_destroy(f->head);
    f->head = head_create(f->model, f->batch->num_targets, f->batch->num_targets, false);
    rank_ok(head_run(f->head, f->batch, f->activations, &pass, &result, &err), &err);
    rank_check(memcmp(found, warm, bytes) == 0);
    free(plain);
    free(warm);
    free(entropy);
    free(found);
    fixture_destroy(f);
}

static void batches_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Fixture *f = fixture_create(ranks, job->dtype);
    run_alone(f);
    const int sizes[] = {1, 2, 7, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_together(f, sizes[i]);
    fixture_destroy(f);
}

static void chunks_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Fixture *f = fixture_create(ranks, job->dtype);
    run_alone(f);
    check_chunked(f, 1, 50);
    check_chunked(f, 2, 4);
    check_chunked(f, 3, LENGTH_MAX);
    fixture_destroy(f);
}

static void test_rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype};
        ranks_run(1, 1, batches_body, &job);
        ranks_run(2, 1, batches_body, &job);
    }
}

static void test_rows_do_not_depend_on_chunks(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype};
        ranks_run(1, 1, chunks_body, &job);
        ranks_run(2, 1, chunks_body, &job);
    }
}

/* The trainer with or without entropies, in any chunks, and the decoder: one log-prob. */
static void test_log_probs_do_not_depend_on_who_asks(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {dtype};
        ranks_run(1, 1, head_body, &job);
        ranks_run(2, 1, head_body, &job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(test_rows_do_not_depend_on_chunks),
        cmocka_unit_test(test_log_probs_do_not_depend_on_who_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
