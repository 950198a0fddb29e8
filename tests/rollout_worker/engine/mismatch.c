#include "mismatch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/kv_cache.h"
#include "trainer_state.h"

#define MICRO_BATCH_SAMPLES 6
#define TRAINER_SEED        3

typedef struct ModelShape {
    const char *name;
    Architecture architecture;
    int64_t vocab_size;
    int hidden_size, intermediate_size, layers, heads, kv_heads, head_dim;
    float range;
    bool tied;
} ModelShape;

static const ModelShape MODELS[MISMATCH_MODELS] = {
    [MISMATCH_SMALL] = {"small", ARCHITECTURE_QWEN3, TINY_VOCAB, 48, 40, 2, 8, 4, 16, 0.25f, true},
    [MISMATCH_GROUPED] = {"grouped", ARCHITECTURE_QWEN3, TINY_VOCAB, 64, 96, 2, 6, 1, 32, 0.2f,
                          true},
    [MISMATCH_LLAMA] = {"llama", ARCHITECTURE_LLAMA, 1021, 70, 54, 3, 4, 2, 22, 0.25f, false},
    [MISMATCH_WIDE] = {"wide", ARCHITECTURE_QWEN3, 4099, 1024, 3072, 1, 16, 8, 128, 0.05f, true},
};

const char *mismatch_model_name(MismatchModel model)
{
    return MODELS[model].name;
}

Trainer *mismatch_trainer(const Ranks *ranks, MismatchModel model, DType dtype)
{
    Error err = {0};
    Trainer *trainer = NULL;
    const ModelShape *shape = &MODELS[model];
    TrainerOptions options = {
        .model = {.architecture = shape->architecture,
                  .vocab_size = shape->vocab_size,
                  .hidden_size = shape->hidden_size,
                  .intermediate_size = shape->intermediate_size,
                  .num_hidden_layers = shape->layers,
                  .num_attention_heads = shape->heads,
                  .num_key_value_heads = shape->kv_heads,
                  .head_dim = shape->head_dim,
                  .max_position_embeddings = WORKLOAD_LENGTH_MAX,
                  .rope_theta = 10000.0,
                  .rms_norm_eps = 1e-6f,
                  .initializer_range = shape->range,
                  .qk_norm = shape->architecture == ARCHITECTURE_QWEN3,
                  .tie_word_embeddings = shape->tied},
        .dtype = dtype,
        .max_tokens = MICRO_BATCH_SAMPLES * WORKLOAD_LENGTH_MAX,
        .max_sequence_length = WORKLOAD_LENGTH_MAX,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .kernels = ranks->kernels,
        .tensor_comm = ranks->tensor_comm,
    };
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_ok(trainer_init_random(trainer, TRAINER_SEED, &err), &err);
    return trainer;
}

Engine *mismatch_engine(const Ranks *ranks, const Trainer *trainer, const EngineShape *shape,
                        const Tokenizer *tokenizer)
{
    static const int32_t ends[] = {WORKLOAD_END};
    Error err = {0};
    Engine *engine = NULL;
    int64_t page = kv_cache_page_bytes(trainer->plan, trainer->weights->dtype, ranks->kernels);
    EngineOptions options = {
        .weights = trainer->weights,
        .weight_version = 12,
        .tensor_comm = ranks->tensor_comm,
        .max_length = WORKLOAD_LENGTH_MAX,
        .max_samples = shape->max_samples,
        .max_step_tokens = shape->max_step_tokens,
        .kv_bytes = shape->pages * page,
        .tokenizer = tokenizer,
        .end_token = ends,
        .num_end_tokens = 1,
        .forgets_prefixes = shape->forgets,
    };
    rank_ok(engine_create(&options, &engine, &err), &err);
    return engine;
}

/* ---- the trainer's side ---- */

static void broadcast(const Ranks *ranks, void *data, DType dtype, int64_t count)
{
    Error err = {0};
    rank_ok(comm_broadcast(ranks->tensor_comm, tensor_1d(data, dtype, count), 0, &err), &err);
}

/* Rank 0's sample on every rank. */
static void share_sample(const Ranks *ranks, Sample *sample)
{
    int32_t sizes[] = {sample->length, sample->prompt_length};
    if (ranks->tp_size == 1) return;
    broadcast(ranks, sizes, DTYPE_I32, 2);
    broadcast(ranks, &sample->temperature, DTYPE_F32, 1);
    if (ranks->tp_rank > 0) {
        sample->length = sizes[0];
        sample->prompt_length = sizes[1];
        sample->token = mem_calloc((size_t)sizes[0], sizeof *sample->token);
        sample->loss_mask = mem_calloc((size_t)sizes[0], 1);
        memset(sample->loss_mask + sizes[1], 1, (size_t)(sizes[0] - sizes[1]));
    }
    broadcast(ranks, sample->token, DTYPE_I32, sizes[0]);
}

/* The sample of outcome i, on every rank. */
static Sample outcome_sample(const Ranks *ranks, const Workload *workload, int i)
{
    Error err = {0};
    Sample sample = {0};
    if (ranks->tp_rank == 0) {
        Spec spec;
        spec_make(&spec, workload, workload->outcome[i].number);
        generation_to_sample(&workload->outcome[i].generation, spec.prompt, &sample);
        rank_ok(sample_check_policy(&sample, &err), &err);
    }
    share_sample(ranks, &sample);
    return sample;
}

static void count_sample(const Sample *sample, const float *value, MismatchCount *count)
{
    count->samples++;
    for (int32_t t = sample->prompt_length; t < sample->length; t++) {
        double apart = fabs((double)value[t] - (double)sample->log_prob[t]);
        count->tokens++;
        if (memcmp(&value[t], &sample->log_prob[t], sizeof(float)) == 0) continue;
        count->mismatches++;
        if (!(apart <= count->worst)) count->worst = apart;
    }
}

/* Outcomes [first, first + n) in one micro-batch. */
static void compare_batch(const Ranks *ranks, Trainer *trainer, const Workload *workload, int first,
                          int n, MismatchCount *count)
{
    Error err = {0};
    StepResult result;
    Sample sample[MICRO_BATCH_SAMPLES];
    const Sample *pointer[MICRO_BATCH_SAMPLES];
    float value[MICRO_BATCH_SAMPLES][WORKLOAD_LENGTH_MAX], *values[MICRO_BATCH_SAMPLES];
    for (int i = 0; i < n; i++) {
        sample[i] = outcome_sample(ranks, workload, first + i);
        pointer[i] = &sample[i];
        values[i] = value[i];
    }
    MicroBatch batch = {.sample = pointer, .num_samples = n};
    rank_ok(trainer_evaluate(trainer, &batch, 1, (float *const *const[]){values}, &result, &err),
            &err);
    for (int i = 0; i < n; i++) {
        if (ranks->tp_rank == 0) count_sample(&sample[i], value[i], count);
        sample_clear(&sample[i]);
    }
    if (ranks->tp_rank == 0) count->micro_batches++;
}

void mismatch_compare(const Ranks *ranks, Trainer *trainer, const Workload *workload, uint64_t seed,
                      MismatchCount *count)
{
    int32_t outcomes = workload->num_outcomes;
    if (ranks->tp_size > 1) broadcast(ranks, &outcomes, DTYPE_I32, 1);
    for (int first = 0, n; first < outcomes; first += n) {
        n = 1 + (int)rng_below(rng_key(seed, "packed"), (uint64_t)first, MICRO_BATCH_SAMPLES);
        if (n > outcomes - first) n = outcomes - first;
        compare_batch(ranks, trainer, workload, first, n, count);
    }
}

/* ---- a round ---- */

/* From roomy to one that can hardly hold two sequences, from whole prompts to one token more than
 * there are samples. */
static EngineShape draw_shape(uint64_t seed)
{
    uint64_t key = rng_key(seed, "engine shape");
    int sequence = WORKLOAD_LENGTH_MAX / KV_PAGE;
    EngineShape shape = {
        .max_samples = 1 + (int)rng_below(key, 0, 28),
        .pages = sequence + (int)rng_below(key, 1, rng_below(key, 2, 3) > 0 ? 14 : 120),
        .forgets = rng_below(key, 3, 6) == 0,
    };
    shape.max_step_tokens = shape.max_samples + (int)rng_below(key, 4, 150);
    return shape;
}

static Workload draw_workload(const MismatchRound *round)
{
    uint64_t key = rng_key(round->seed, "workload");
    return (Workload){
        .seed = round->seed,
        .num_requests = round->num_requests,
        .in_work_max = 1 + (int)rng_below(key, 0, 10),
        .abort_one_in = 2 + (int)rng_below(key, 1, 12),
        .resume_percent = 30 + (int)rng_below(key, 2, 71),
        .with_stops = MODELS[round->model].vocab_size == TINY_VOCAB,
        .long_samples = rng_below(key, 3, 2) == 0,
    };
}

void mismatch_round(const Ranks *ranks, void *argument)
{
    const MismatchRound *round = argument;
    MismatchCount *count = round->count;
    Workload workload = draw_workload(round);
    EngineShape shape = draw_shape(round->seed);
    Trainer *trainer = mismatch_trainer(ranks, round->model, round->dtype);
    Tokenizer *tokenizer = tiny_tokenizer();
    Engine *engine = mismatch_engine(ranks, trainer, &shape, tokenizer);
    if (ranks->tp_rank == 0) {
        workload_run(&workload, engine);
        EngineStats stats = engine_stats(engine);
        count->preemptions += stats.preemptions;
        count->steps += stats.steps;
        count->aborted += workload.num_aborted;
        count->resumed += workload.num_resumed;
        for (int i = 0; i < workload.num_outcomes; i++)
            count->found_tokens += workload.outcome[i].generation.found_tokens;
    } else {
        follow(engine);
    }
    engine_destroy(engine);
    mismatch_compare(ranks, trainer, &workload, round->seed, count);
    workload_clear(&workload);
    tokenizer_destroy(tokenizer);
    trainer_destroy(trainer);
}
