/* Engine: generates samples for many requests at once, from one rank's weights, by the trainer's
 * own forward pass and head: a token's log-prob is the trainer's to the bit (docs/sampling.md),
 * alone or in any batch, in one chunk or many, after a fork, a break or a preemption.
 *
 * Continuous batching: each step feeds one token of every running sample and, with what is left of
 * max_step_tokens, pieces of prompts. A request asks for n samples of one prompt: the prompt is
 * computed once and its pages are shared. Prompts that begin as an earlier sequence did find its
 * pages again (page_pool.h). When pages run out, the newest sample gives its own back and is
 * computed again later.
 *
 * Everything here is called by one thread (the compute thread), between steps; a step is short:
 *     engine_submit ... ; while (engine_step) take results, submit more, abort, switch weights
 *
 * Tensor parallel: every rank of the group has an engine. Rank 0's is as described; the others only
 * follow it, step by step (engine_follow). Rank 0 must call engine_step also when it has nothing to
 * do, more often than the timeout of the Comm that plans go by. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_ENGINE_H

#include "comm/comm.h"
#include "model/weights.h"
#include "rollout_worker/engine/sampling.h"
#include "sample/sample.h"
#include "tensor/device_memory.h"
#include "text/tokenizer/tokenizer.h"

typedef struct Engine Engine;

/* A token as it comes, for streaming. */
typedef struct TokenEvent {
    uint64_t request;
    uint32_t index;
    int32_t token;
    float log_prob;
} TokenEvent;

typedef struct EngineOptions {
    const Weights *weights; /* this rank's, prepared; borrowed until others take their place */
    int64_t weight_version;
    Comm *tensor_comm; /* borrowed; NULL: alone */
    Comm *plan_comm;   /* the same ranks; what each step does goes by it, which is of
                          ordinary memory; borrowed; NULL: it goes by tensor_comm */
    /* On ranks that follow: the weights that rank 0 has gone over to, or begins with; NULL: there
     * are none of this version. Before the step that needs them; earlier ones are read no more. No
     * function: those that were staged, and `weights` to begin with. */
    const Weights *(*find_weights)(void *context, int64_t version);
    int32_t max_length;         /* tokens of the longest sequence, prompt included */
    int max_samples;            /* running at a time */
    int max_step_tokens;        /* of a step; at least max_samples */
    int64_t kv_bytes;           /* for pages: at least those of one sequence of max_length */
    const char *kv_purpose;     /* what to lower where there is no memory for these; borrowed; NULL:
                                   nothing is known */
    const Tokenizer *tokenizer; /* for stop strings; borrowed; NULL: there can be none */
    const int32_t *end_token;   /* [num_end_tokens] the model's own (end_tokens.h); copied */
    int num_end_tokens;
    bool enforce_eager;        /* no step is recorded and launched as one (decode_graphs.h) */
    const DeviceMemory *pools; /* its memory can be given back: keys, values and all that a step
                                  leaves behind are of POOL_SCRATCH, what stays of POOL_STATE; NULL:
                                  it cannot */
    bool forgets_prefixes;     /* no page is found again by another sequence: to measure, to test */
    void (*on_token)(void *context, const TokenEvent *event); /* in engine_step; may be NULL */
    void *context;
} EngineOptions;

/* Plans the memory and allocates all of it. ERR_INVALID with the option that cannot be. */
Status engine_create(const EngineOptions *options, Engine **ret, Error *err);
void engine_destroy(Engine *engine); /* accepts NULL; ends what is in work without results */

/* For people: every kind of memory with its size. Borrowed. And the sum for this rank. */
const char *engine_memory_plan(const Engine *engine);
int64_t engine_memory_bytes(const Engine *engine);

/* ---- requests ---- */

/* A sample that broke off: what is there of it. */
typedef struct PartialSample {
    const int32_t *token; /* [length] generated so far */
    const float *log_prob;
    const VersionRun *version_run; /* [num_version_runs]; their counts add up to length */
    int32_t length, num_version_runs;
} PartialSample;

typedef struct GenerateRequest {
    uint64_t id;          /* the caller's, unique among those in work: names results */
    uint64_t sample;      /* the prompt's id in the run; with seed and index the key of all noise */
    uint32_t first_index; /* samples are first_index, first_index + 1, ... */
    int num_samples;      /* of this prompt, at least 1 */
    const int32_t *prompt; /* [prompt_length >= 1]; copied, as all below */
    int32_t prompt_length;
    SamplingParams params;
    const PartialSample *partial; /* [num_samples] to go on from; NULL: from the prompt alone */
} GenerateRequest;

/* ERR_INVALID, saying what is wrong with the request, as for an HTTP 400; ERR_RESOURCE when it
 * could never fit. A request that is taken ends in num_samples results. */
Status engine_submit(Engine *engine, const GenerateRequest *request, Error *err);

typedef enum { FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_COUNT } FinishReason;
const char *finish_reason_name(FinishReason reason); /* "stop", "length", "abort" */

/* A result. token and log_prob have `length` entries, and the runs' counts add up to it; with a
 * partial sample these begin with what it had. Nothing is ever trimmed. */
typedef struct Generation {
    uint64_t request;
    uint32_t index;
    int32_t *token;  /* [length] generated, owned */
    float *log_prob; /* [length], owned */
    VersionRun *version_run;
    int32_t length, num_version_runs;
    float temperature; /* that log_prob is at */
    FinishReason finish;
    int32_t stop_token;  /* that ended it: the last one; or -1 */
    int32_t stop_string; /* index of the stop string that ended it, or -1 */
    int32_t prompt_length;
    int32_t found_tokens; /* of prompt and partial sample: not computed, but found in pages */
    int32_t preemptions;
    int64_t queued_ns, first_token_ns, total_ns; /* since engine_submit; first token 0: none */
} Generation;

void generation_clear(Generation *generation); /* frees the arrays, zeroes the struct */

/* The Sample of a result: prompt and generation in one, loss on what was generated. Status:
 * completed (stop), truncated (length), aborted. position and index are the caller's to set. */
void generation_to_sample(const Generation *generation, const int32_t *prompt, Sample *ret);

/* Moves the next result, in the order in which they finished; false when there is none. */
bool engine_take(Engine *engine, Generation *ret);

/* Ends samples of a request now, with what they have; their results can be taken at once, and
 * resumed by a request with `partial`: their pages are found again as long as they last. */
int engine_abort(Engine *engine, uint64_t request,
                 int64_t index); /* index -1: all; returns how many */
int engine_abort_all(Engine *engine);

/* ---- work ---- */

/* One step. *ret_busy: whether samples are left in work. ERR_DATA when the weights give no finite
 * logits: nothing was added to any sample, and other weights may help. The Comm's error when a rank
 * is lost: the engine is unusable then. */
Status engine_step(Engine *engine, bool *ret_busy, Error *err);

bool engine_is_broken(const Engine *engine); /* a rank was lost: it can only be destroyed */

/* With several ranks: the next step fails on all of them, as if one were lost. To test. */
void engine_lose_rank(Engine *engine);

/* For ranks other than 0: takes part in one step of rank 0's. *ret_done: it was destroyed. */
Status engine_follow(Engine *engine, bool *ret_done, Error *err);

/* The same in two halves: waits for rank 0 to say what the step does; does it. */
Status engine_follow_wait(Engine *engine, Error *err);
Status engine_follow_work(Engine *engine, bool *ret_done, Error *err);

/* On rank 0, between steps: returns when all ranks have done the steps before, their devices too,
 * and have gone over to the weights of rank 0. */
Status engine_meet(Engine *engine, Error *err);

/* ---- weights ---- */

/* What becomes of the keys and values of samples in work. */
typedef enum {
    /* They are computed again with the new weights, so that each further token is exactly what the
     * trainer computes for it from the whole sequence: the default. */
    KV_RECOMPUTE,
    /* They stay: nothing to compute, but tokens that follow belong to no single version, and their
     * log-probs differ from any trainer's. What has no token yet begins anew, so that a sample of
     * one version is exact. */
    KV_KEEP,
} KvPolicy;

/* On every rank: weights that a switch may soon ask for; prepared, over the same plan and of the
 * same type. They take the place of those staged before. */
void engine_stage_weights(Engine *engine, const Weights *weights, int64_t version);

/* On rank 0, between steps: from now on the staged weights. The other ranks do it at their next
 * step; after that nothing here reads the old ones. ERR_INVALID when others are staged. */
Status engine_switch_weights(Engine *engine, int64_t version, KvPolicy policy, Error *err);

int64_t engine_weight_version(const Engine *engine);

/* On rank 0, between steps: forgets all keys and values, so that what is in work computes them anew
 * and POOL_SCRATCH can go; and its weights, of which nothing is read any more but plan and type: no
 * step before others, or the same ones, are switched to. */
void engine_rest(Engine *engine);

/* ---- figures ---- */

typedef struct EngineStats {
    int running, waiting, pages, pages_held;
    /* since the start */
    int64_t steps, requests, samples; /* samples: finished */
    int64_t generated_tokens;         /* drawn here */
    int64_t prompt_tokens;            /* of requests, each prompt once */
    int64_t prompt_tokens_computed;   /* rows at positions of prompts */
    int64_t prompt_tokens_found;      /* prompt positions found in pages, by prompts' first */
    int64_t other_tokens_computed;    /* rows at generated positions, beyond one a token */
    int64_t preemptions;
    int64_t graph_steps;   /* of the steps: launched as one (decode_graphs.h) */
    int64_t graphs;        /* that were recorded for it */
    const char *no_graphs; /* why no more are: what the device said; NULL: it records. Borrowed */
} EngineStats;

EngineStats engine_stats(const Engine *engine);

#endif
