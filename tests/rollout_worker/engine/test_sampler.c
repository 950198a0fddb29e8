/* The sampler against definitions written down naively here: exact distributions by chi-square,
 * the place of every draw on the axis of probabilities, and log-probs equal to the trainer's. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/weights_io.h"
#include "ranks.h"
#include "rollout_worker/engine/sampler.h"
#include "rollout_worker/engine/sampling.h"

#define HIDDEN 24
#define ROWS   48

typedef struct Fixture {
    WeightPlan *plan;
    Weights *weights;
    Model *model;
    Head *head; /* to look at logits beside the sampler's own */
    Sampler *sampler;
    Tensor output; /* [ROWS, HIDDEN] */
    int64_t vocab;
} Fixture;

typedef struct Job {
    int64_t vocab;
    DType dtype;
} Job;

static void set_elements(const Fixture *f, Tensor to, const float *from)
{
    Tensor source = to;
    source.data = (void *)from;
    source.dtype = DTYPE_F32;
    f->model->kernels->cast(to, source);
}

static void draw_weights(Fixture *f)
{
    for (int i = 0; i < f->plan->num_specs; i++) {
        const WeightSpec *spec = &f->plan->spec[i];
        int64_t count = spec->local_rows * spec->local_cols;
        float *part = mem_calloc((size_t)count, sizeof *part);
        weight_init_random(
            f->plan, spec, 3,
            &(WeightPart){.kernels = f->model->kernels, .data = part, .dtype = DTYPE_F32});
        if (i == f->plan->lm_head) /* equal rows: some logits tie */
            for (int64_t row = 5; row < spec->local_rows; row += 7)
                memcpy(part + row * HIDDEN, part + (row - 4) * HIDDEN, HIDDEN * sizeof *part);
        set_elements(f, weight_view(f->plan, i, f->weights->flat, f->weights->dtype), part);
        free(part);
    }
    weights_prepare(f->weights);
}

static Fixture *fixture_create(const Ranks *ranks, const Job *job)
{
    ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = job->vocab,
        .hidden_size = HIDDEN,
        .intermediate_size = 12,
        .num_hidden_layers = 1,
        .num_attention_heads = 6,
        .num_key_value_heads = 6,
        .head_dim = 4,
        .max_position_embeddings = 64,
        .rope_theta = 10000.0,
        .rms_norm_eps = 1e-6f,
        .initializer_range = 0.4f,
    };
    Fixture *f = mem_calloc(1, sizeof *f);
    f->vocab = job->vocab;
    f->plan = weight_plan_create(&config, ranks->tp_rank, ranks->tp_size);
    f->weights = weights_create(f->plan, job->dtype, ranks->kernels);
    f->model = model_create(f->weights, ranks->tensor_comm, 64);
    draw_weights(f);
    f->head = head_create(f->model, ROWS, ROWS, false);
    f->sampler = sampler_create(f->model, ROWS);
    float rows[ROWS * HIDDEN];
    for (int i = 0; i < ROWS * HIDDEN; i++)
        rows[i] = rng_uniform(rng_block(9, 1, (uint64_t)i).word[0]) - 0.5f;
    f->output = tensor_2d(NULL, job->dtype, ROWS, HIDDEN);
    f->output.data = ranks->kernels->alloc(tensor_bytes(&f->output));
    set_elements(f, f->output, rows);
    return f;
}

static void fixture_destroy(Fixture *f)
{
    f->model->kernels->free(f->output.data);
    sampler_destroy(f->sampler);
    head_destroy(f->head);
    model_destroy(f->model);
    weights_destroy(f->weights);
    weight_plan_destroy(f->plan);
    free(f);
}

/* Logits of a row over the whole vocabulary, before temperature, on every rank. Owned by the
 * caller. */
static float *whole_logits(Fixture *f, int32_t row)
{
    Error err = {0};
    const WeightSpec *spec = &f->plan->spec[f->plan->lm_head];
    WeightRange mine = weight_spec_part(spec, f->plan->tp_rank, f->plan->tp_size);
    Tensor local = head_logits(f->head, f->output, &row, NULL, 1);
    float *all = mem_calloc((size_t)f->vocab, sizeof *all);
    memcpy(all + mine.first, local.data, (size_t)mine.count * sizeof *all);
    if (f->plan->tp_size > 1)
        rank_ok(
            comm_all_reduce(f->model->comm, tensor_1d(all, DTYPE_F32, f->vocab), COMM_SUM, &err),
            &err);
    return all;
}

/* ---- the definition, naively ---- */

typedef struct Chance {
    int32_t token;
    double logit, probability;
} Chance;

static int by_logit(const void *a, const void *b)
{
    const Chance *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->token - y->token;
}

static void normalise(Chance *chance, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += chance[i].probability;
    for (int64_t i = 0; i < n; i++)
        chance[i].probability /= sum;
}

/* The tokens that may come with their probabilities, in the order in which the noise meets them. */
static int64_t define(const float *logits, int64_t vocab, const Draw *draw, Chance *chance)
{
    double *x = mem_calloc((size_t)vocab, sizeof *x), max = -INFINITY;
    for (int64_t v = 0; v < vocab; v++)
        x[v] = (double)logits[v];
    for (int e = 0; e < draw->num_edits; e++) {
        double *logit = &x[draw->edit[e].token], by = draw->edit[e].repetition;
        *logit = *logit > 0.0 ? *logit / by : *logit * by;
        *logit -= draw->edit[e].subtract;
    }
    for (int64_t v = 0; v < vocab; v++)
        max = x[v] > max ? x[v] : max;
    for (int64_t v = 0; v < vocab; v++)
        chance[v] = (Chance){(int32_t)v, x[v], exp((x[v] - max) / (double)draw->temperature)};
    free(x);
    int64_t n = vocab;
    bool filtered = draw->top_k > 0 || draw->top_p < 1.0 || draw->min_p > 0.0 || draw->greedy;
    if (filtered) qsort(chance, (size_t)n, sizeof *chance, by_logit);
    if (draw->top_k > 0 && draw->top_k < n) n = draw->top_k;
    if (draw->greedy) n = 1;
    normalise(chance, n);
    if (draw->top_p < 1.0) {
        double sum = 0.0;
        int64_t kept = 0;
        while (kept < n && sum < draw->top_p - 1e-12)
            sum += chance[kept++].probability;
        n = kept;
    }
    double least = draw->min_p * chance[0].probability;
    while (draw->min_p > 0.0 && n > 1 && chance[n - 1].probability < least)
        n--;
    normalise(chance, n);
    return n;
}

/* ---- the draws ---- */

static const LogitEdit EDITS[] = {
    {3, 1.3f, 0.0f}, {4, 1.3f, 0.9f}, {8, 1.0f, -1.5f}, {9, 1.0f, INFINITY}, {12, 0.5f, 0.4f}};

/* All combinations of these settings, one by one. */
enum { NUM_TEMPERATURES = 3, NUM_K = 4, NUM_P = 4, NUM_MIN = 3, NUM_EDITED = 2 };
enum { COMBINATIONS = NUM_TEMPERATURES * NUM_K * NUM_P * NUM_MIN * NUM_EDITED };

static Draw combination(int number, int32_t row)
{
    static const float temperatures[NUM_TEMPERATURES] = {1.0f, 0.5f, 2.5f};
    static const int32_t ks[NUM_K] = {0, 1, 3, 11};
    static const double ps[NUM_P] = {1.0, 0.95, 0.6, 0.05}, mins[NUM_MIN] = {0.0, 0.05, 0.4};
    Draw draw = {.row = row, .temperature = temperatures[number % NUM_TEMPERATURES]};
    number /= NUM_TEMPERATURES;
    draw.top_k = ks[number % NUM_K];
    number /= NUM_K;
    draw.top_p = ps[number % NUM_P];
    number /= NUM_P;
    draw.min_p = mins[number % NUM_MIN];
    number /= NUM_MIN;
    if (number % NUM_EDITED == 1) {
        draw.edit = EDITS;
        draw.num_edits = (int)(sizeof EDITS / sizeof *EDITS);
    }
    return draw;
}

/* The statistic of `seen` against probabilities as a normal deviate (Wilson & Hilferty 1931); cells
 * of less than 5 expected are one. */
static double chi_square_deviate(const Chance *chance, int64_t n, const int *seen, int draws)
{
    double sum = 0.0, rest = 0.0, rest_seen = 0.0;
    int cells = 0;
    for (int64_t i = 0; i <= n; i++) {
        double expected = i < n ? chance[i].probability * draws : rest;
        double found = i < n ? seen[chance[i].token] : rest_seen;
        if (i < n && expected < 5.0) {
            rest += expected;
            rest_seen += found;
        } else if (expected > 0.0) {
            sum += (found - expected) * (found - expected) / expected;
            cells++;
        }
    }
    if (cells < 2) return 0.0;
    double freedom = cells - 1;
    return (cbrt(sum / freedom) - (1.0 - 2.0 / (9.0 * freedom))) / sqrt(2.0 / (9.0 * freedom));
}

static void distribution_body(const Ranks *ranks, void *argument)
{
    enum { DRAWS = 6000 };
    Error err = {0};
    Fixture *f = fixture_create(ranks, argument);
    Chance *chance = mem_calloc((size_t)f->vocab, sizeof *chance);
    int *seen = mem_calloc((size_t)f->vocab, sizeof *seen);
    double squares = 0.0;
    int step = ranks->tp_size == 1 ? 1 : 29, combinations = 0;
    for (int c = 0; c < COMBINATIONS; c += step, combinations++) {
        Draw draws[ROWS];
        Drawn drawn[ROWS];
        int32_t row = c % ROWS;
        float *logits = whole_logits(f, row);
        Draw wanted = combination(c, row);
        int64_t n = define(logits, f->vocab, &wanted, chance);
        memset(seen, 0, (size_t)f->vocab * sizeof *seen);
        NoiseKey key = {1, (uint64_t)c, 0};
        for (int i = 0; i < DRAWS; i += ROWS) {
            for (int j = 0; j < ROWS; j++) {
                draws[j] = wanted;
                draws[j].uniform = sampling_noise(&key, i + j);
            }
            rank_ok(sampler_draw(f->sampler, f->output, draws, ROWS, drawn, &err), &err);
            for (int j = 0; j < ROWS; j++)
                seen[drawn[j].token]++;
        }
        int among = 0;
        for (int64_t i = 0; i < n; i++)
            among += seen[chance[i].token];
        rank_check(among == DRAWS); /* nothing outside of what the filters leave */
        double deviate = chi_square_deviate(chance, n, seen, DRAWS);
        rank_check(deviate < 4.7); /* 1 in 10^6 */
        squares += deviate * deviate;
        free(logits);
    }
    /* All together: the mean square of that many normal deviates is about 1 (many are 0). */
    rank_check(squares / combinations < (step == 1 ? 1.3 : 2.5));
    free(seen);
    free(chance);
    fixture_destroy(f);
}

static void test_tokens_come_with_their_exact_probabilities(void **state)
{
    (void)state;
    Job job = {29, DTYPE_F32};
    ranks_run(1, 1, distribution_body, &job);
    ranks_run(2, 1, distribution_body, &job);
}

/* ---- the place of every draw ---- */

/* How far u lies outside the token's part of the axis; a token that may not come is far away. */
static double distance(const Chance *chance, int64_t n, double u, int32_t token)
{
    double low = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double high = low + chance[i].probability;
        if (chance[i].token == token) return u < low ? low - u : u > high ? u - high : 0.0;
        low = high;
    }
    return 2.0;
}

static void place_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Fixture *f = fixture_create(ranks, argument);
    Chance *chance = mem_calloc((size_t)f->vocab, sizeof *chance);
    for (int first = 0; first < COMBINATIONS; first += ROWS * (1 + 2 * (ranks->tp_size > 1))) {
        Draw draws[ROWS];
        Drawn drawn[ROWS], alone;
        for (int i = 0; i < ROWS; i++) { /* all kinds in one batch */
            NoiseKey key = {2, (uint64_t)i, 3};
            draws[i] = combination((first + i) * 5 % COMBINATIONS, i);
            draws[i].uniform = sampling_noise(&key, first);
            draws[i].greedy = i % 10 == 9;
        }
        rank_ok(sampler_draw(f->sampler, f->output, draws, ROWS, drawn, &err), &err);
        for (int i = 0; i < ROWS; i++) {
            float *logits = whole_logits(f, i);
            int64_t n = define(logits, f->vocab, &draws[i], chance);
            rank_check(distance(chance, n, draws[i].uniform, drawn[i].token) < 2e-5);
            free(logits);
            rank_ok(sampler_draw(f->sampler, f->output, &draws[i], 1, &alone, &err), &err);
            rank_check(memcmp(&alone, &drawn[i], sizeof alone) == 0);
        }
    }
    free(chance);
    fixture_destroy(f);
}

static void test_each_draw_falls_where_its_noise_says(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
        for (int tp_size = 1; tp_size <= 3; tp_size++) {
            Job job = {5003, dtype};
            ranks_run(tp_size, 1, place_body, &job);
        }
}

/* ---- log-probs ---- */

/* The drawn tokens as targets of the same rows, through the trainer's loss. */
static void log_prob_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Fixture *f = fixture_create(ranks, argument);
    Activations activations = {.output = f->output};
    Batch *batch = batch_create();
    int32_t zeros[ROWS] = {0};
    for (int c = 0; c + ROWS <= COMBINATIONS; c += 7 * ranks->tp_size) {
        Draw draws[ROWS];
        Drawn drawn[ROWS];
        float expected[ROWS];
        HeadResult result;
        for (int i = 0; i < ROWS; i++) {
            NoiseKey key = {3, (uint64_t)i, 0};
            draws[i] = combination(c + i, i);
            draws[i].uniform = sampling_noise(&key, c);
            draws[i].greedy = i % 10 == 9;
        }
        rank_ok(sampler_draw(f->sampler, f->output, draws, ROWS, drawn, &err), &err);
        batch_clear(batch);
        batch_add(batch, zeros, NULL, ROWS);
        for (int i = 0; i < ROWS; i++) {
            batch->target_row[i] = i;
            batch->target[i] = drawn[i].token;
            batch->temperature[i] = draws[i].temperature;
        }
        batch->num_targets = ROWS;
        batch_place(batch, ranks->kernels);
        HeadPass pass = {.log_prob = expected};
        rank_ok(head_run(f->head, batch, &activations, &pass, &result, &err), &err);
        for (int i = 0; i < ROWS; i++)
            rank_check(memcmp(&expected[i], &drawn[i].log_prob, sizeof(float)) == 0);
    }
    batch_destroy(batch);
    fixture_destroy(f);
}

static void test_log_probs_are_the_loss_to_the_bit(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
        for (int tp_size = 1; tp_size <= 2; tp_size++) {
            Job job = {5003, dtype};
            ranks_run(tp_size, 1, log_prob_body, &job);
        }
}

/* ---- what cannot be drawn ---- */

static void failing_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Fixture *f = fixture_create(ranks, argument);
    LogitEdit *all = mem_calloc((size_t)f->vocab, sizeof *all);
    for (int32_t v = 0; v < f->vocab; v++)
        all[v] = (LogitEdit){v, 1.0f, INFINITY};
    Draw draws[3] = {combination(0, 0), combination(1, 1), combination(40, 2)};
    draws[1].edit = all;
    draws[1].num_edits = (int)f->vocab - 1;
    Drawn drawn[3];
    rank_ok(sampler_draw(f->sampler, f->output, draws, 3, drawn, &err), &err);
    rank_check(drawn[1].token == f->vocab - 1);
    draws[1].num_edits++;
    rank_check(sampler_draw(f->sampler, f->output, draws, 3, drawn, &err) == ERR_DATA);
    rank_check(strstr(err.message, "draw 1: every token is forbidden") != NULL);
    draws[1].num_edits = 0;
    ((float *)f->output.data)[2 * HIDDEN] = NAN;
    rank_check(sampler_draw(f->sampler, f->output, draws, 3, drawn, &err) == ERR_DATA);
    rank_check(strstr(err.message, "draw 2: the logits are not finite") != NULL);
    free(all);
    fixture_destroy(f);
}

static void test_nothing_is_drawn_from_nothing(void **state)
{
    (void)state;
    Job job = {29, DTYPE_F32};
    ranks_run(1, 1, failing_body, &job);
    ranks_run(2, 1, failing_body, &job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_come_with_their_exact_probabilities),
        cmocka_unit_test(test_each_draw_falls_where_its_noise_says),
        cmocka_unit_test(test_log_probs_are_the_loss_to_the_bit),
        cmocka_unit_test(test_nothing_is_drawn_from_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
