/* The search for a generated log-prob that is not the trainer's to the bit: random requests through
 * an engine of random narrowness, then every sample through the trainer's own evaluation, packed
 * with others as a step packs them. Runs in ranks (ranks.h). */
#ifndef TROUPE_TESTS_MISMATCH_H
#define TROUPE_TESTS_MISMATCH_H

#include "train_worker/trainer.h"
#include "workload.h"

/* Models with random weights, large enough in range that log-probs differ much. */
typedef enum {
    MISMATCH_SMALL,   /* Qwen3, tied */
    MISMATCH_GROUPED, /* Qwen3, one kv head for six: replicated where there are two ranks */
    MISMATCH_LLAMA,   /* Llama, untied, three layers, no width a multiple of anything */
    MISMATCH_WIDE,    /* one layer as wide as Qwen3-0.6B's: the products that real models run */
    MISMATCH_MODELS
} MismatchModel;

const char *mismatch_model_name(MismatchModel model);

Trainer *mismatch_trainer(const Ranks *ranks, MismatchModel model, DType dtype);

/* How narrow an engine is: pages, samples and tokens of a step. */
typedef struct EngineShape {
    int pages, max_samples, max_step_tokens;
    bool forgets; /* finds no prefix again */
} EngineShape;

/* Over the trainer's weights, as version 12. */
Engine *mismatch_engine(const Ranks *ranks, const Trainer *trainer, const EngineShape *shape,
                        const Tokenizer *tokenizer);

typedef struct MismatchCount {
    int64_t samples, tokens;
    int64_t mismatches; /* tokens of which one bit differs */
    double worst;       /* the largest absolute difference, in nats */
    /* what happened on the way */
    int64_t found_tokens; /* of prompts and resumed samples, taken from pages of others */
    int64_t preemptions, aborted, resumed, steps, micro_batches;
} MismatchCount;

/* Evaluates the workload's outcomes in random micro-batches (`seed`) and compares; adds to *count
 * on rank 0. Every rank calls it; only rank 0 has outcomes. */
void mismatch_compare(const Ranks *ranks, Trainer *trainer, const Workload *workload, uint64_t seed,
                      MismatchCount *count);

/* One round: everything in it is a function of these. */
typedef struct MismatchRound {
    uint64_t seed;
    MismatchModel model;
    DType dtype;
    int num_requests;     /* of one to six samples each */
    MismatchCount *count; /* of shared_alloc; added to */
} MismatchRound;

/* A body for ranks_run; the argument is a MismatchRound. */
void mismatch_round(const Ranks *ranks, void *round);

#endif
