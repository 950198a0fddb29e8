/* A small random model with an engine over it, alone or as one of several ranks. */
#ifndef TROUPE_TESTS_TOY_ENGINE_H
#define TROUPE_TESTS_TOY_ENGINE_H

#include "model/head.h"
#include "ranks.h"
#include "rollout_worker/engine/engine.h"
#include "tiny_tokenizer.h"

#define TOY_LENGTH_MAX 256

typedef struct ToyEngine {
    const KernelTable *kernels;
    WeightPlan *plan;
    Weights *weights[3]; /* versions 0, 1 and 2: drawn with different seeds */
    Tokenizer *tokenizer;
    Engine *engine;
} ToyEngine;

/* Everything but the engine; `pages` of keys and values in *ret_options, to be changed at will. */
void toy_engine_init(ToyEngine *toy, const Ranks *ranks, int pages, EngineOptions *ret_options);
void toy_engine_start(ToyEngine *toy, const EngineOptions *options);
void toy_engine_clear(ToyEngine *toy);

/* Log-probs of tokens [first, length) of a whole sequence, as the trainer computes them. */
void weights_log_probs(const Weights *weights, const int32_t *token, int32_t length, int32_t first,
                       float *ret);

/* The same by the toy's weights of a version. */
void toy_log_probs(const ToyEngine *toy, int version, const int32_t *token, int32_t length,
                   int32_t first, float *ret);

/* A request of `length` tokens that `key` names, for n samples of exactly `tokens` tokens. */
typedef struct ToyRequest {
    int32_t prompt[TOY_LENGTH_MAX];
    GenerateRequest request;
} ToyRequest;
void toy_request(ToyRequest *toy, uint64_t key, int32_t length, int num_samples, int32_t tokens);

/* Steps until nothing is left in work. */
void toy_finish(ToyEngine *toy);

#endif
