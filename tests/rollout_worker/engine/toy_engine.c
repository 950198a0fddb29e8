#include "toy_engine.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/forward.h"
#include "../../model/draw.h"

static const ModelConfig CONFIG = {
    .architecture = ARCHITECTURE_QWEN3,
    .vocab_size = TINY_VOCAB,
    .hidden_size = 32,
    .intermediate_size = 24,
    .num_hidden_layers = 2,
    .num_attention_heads = 4,
    .num_key_value_heads = 2,
    .head_dim = 8,
    .max_position_embeddings = TOY_LENGTH_MAX,
    .rope_theta = 10000.0,
    .rms_norm_eps = 1e-6f,
    .initializer_range = 0.3f,
    .qk_norm = true,
    .tie_word_embeddings = true,
};

void toy_engine_init(ToyEngine *toy, const Ranks *ranks, int pages, EngineOptions *ret_options)
{
    *toy = (ToyEngine){.kernels = ranks->kernels};
    toy->plan = weight_plan_create(&CONFIG, ranks->tp_rank, ranks->tp_size);
    for (int i = 0; i < 3; i++) {
        toy->weights[i] = weights_create(toy->plan, DTYPE_F32, ranks->kernels);
        draw_weights(toy->weights[i], 5 + i);
    }
    toy->tokenizer = tiny_tokenizer();
    *ret_options = (EngineOptions){
        .weights = toy->weights[0],
        .tensor_comm = ranks->tensor_comm,
        .max_length = TOY_LENGTH_MAX,
        .max_samples = 32,
        .max_step_tokens = 128,
        .kv_bytes = pages * kv_cache_page_bytes(toy->plan, DTYPE_F32, ranks->kernels),
        .tokenizer = toy->tokenizer,
    };
}

void toy_engine_start(ToyEngine *toy, const EngineOptions *options)
{
    Error err = {0};
    rank_ok(engine_create(options, &toy->engine, &err), &err);
}

void toy_engine_clear(ToyEngine *toy)
{
    engine_destroy(toy->engine);
    tokenizer_destroy(toy->tokenizer);
    for (int i = 0; i < 3; i++)
        weights_destroy(toy->weights[i]);
    weight_plan_destroy(toy->plan);
}

void weights_log_probs(const Weights *weights, const int32_t *token, int32_t length, int32_t first,
                       float *ret)
{
    Error err = {0};
    HeadResult result;
    HeadPass pass = {.log_prob = ret};
    uint8_t mask[TOY_LENGTH_MAX];
    rank_check(length <= TOY_LENGTH_MAX);
    for (int32_t t = 0; t < length; t++)
        mask[t] = t >= first;
    Model *model = model_create(weights, NULL, TOY_LENGTH_MAX);
    Activations *activations =
        activations_create(weights->plan, weights->dtype, KEEP_NOTHING, length, weights->kernels);
    Head *head = head_create(model, length, length, false);
    Batch *batch = batch_create();
    batch_add(batch, token, mask, length);
    rank_ok(model_forward(model, batch, NULL, activations, &err), &err);
    rank_ok(head_run(head, batch, activations, &pass, &result, &err), &err);
    batch_destroy(batch);
    head_destroy(head);
    activations_destroy(activations);
    model_destroy(model);
}

void toy_log_probs(const ToyEngine *toy, int version, const int32_t *token, int32_t length,
                   int32_t first, float *ret)
{
    weights_log_probs(toy->weights[version], token, length, first, ret);
}

void toy_request(ToyRequest *toy, uint64_t key, int32_t length, int num_samples, int32_t tokens)
{
    for (int32_t i = 0; i < length; i++)
        toy->prompt[i] = (int32_t)rng_below(rng_key(key, "prompt"), (uint64_t)i, TINY_VOCAB);
    toy->request = (GenerateRequest){
        .id = key,
        .sample = key,
        .num_samples = num_samples,
        .prompt = toy->prompt,
        .prompt_length = length,
        .params = sampling_defaults(),
    };
    toy->request.params.max_new_tokens = tokens;
}

void toy_finish(ToyEngine *toy)
{
    Error err = {0};
    for (bool busy = true; busy;)
        rank_ok(engine_step(toy->engine, &busy, &err), &err);
}
