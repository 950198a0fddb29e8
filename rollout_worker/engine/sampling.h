/* SamplingParams: how the tokens of a sample are chosen, as a request says it; docs/sampling.md has
 * the exact meaning of each field and their order. Plain data. Nothing is ever taken from a model's
 * own defaults: what a request does not say is sampling_defaults. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_SAMPLING_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define SAMPLING_STOPS_MAX      64  /* strings, and ids, of one request */
#define SAMPLING_STOP_BYTES_MAX 256 /* of one string */

typedef struct SamplingParams {
    double temperature;        /* 0: the most likely token, always; else 0.01 to 100 */
    int32_t top_k;             /* 0 and -1: off */
    double top_p;              /* (0, 1]; 1: off */
    double min_p;              /* [0, 1]; 0: off */
    double repetition_penalty; /* (0, 10]; 1: off; of tokens of prompt and output */
    double frequency_penalty;  /* [-2, 2]; times a token's count in the output */
    double presence_penalty;   /* [-2, 2]; of tokens of the output */
    const char *const *stop;   /* [num_stop] UTF-8, each 1 to SAMPLING_STOP_BYTES_MAX bytes */
    int num_stop;
    const int32_t *stop_token_id; /* [num_stop_token_ids], besides the model's own */
    int num_stop_token_ids;
    int32_t min_new_tokens; /* before so many nothing stops the sample */
    int32_t max_new_tokens; /* at least 1: there is no silent default */
    uint64_t seed;          /* the run's, or the request's own */
    bool ignore_eos;        /* the model's own end tokens are tokens like others */
} SamplingParams;

/* Temperature 1 and nothing else: what training wants. max_new_tokens is 0, to be set. */
SamplingParams sampling_defaults(void);

/* ERR_INVALID with the field, its value and what is allowed. */
Status sampling_check(const SamplingParams *params, int64_t vocab_size, Error *err);

/* A copy that owns its arrays. */
void sampling_copy(SamplingParams *to, const SamplingParams *from);
void sampling_clear(SamplingParams *copy); /* of sampling_copy; leaves zeros */

/* Whether tokens are drawn from the whole softmax, so that log-probs are those of the distribution
 * they were drawn from. */
bool sampling_is_plain(const SamplingParams *params);

/* Which draw of the run's noise a token gets: a pure function of these, so it is the same alone or
 * in a batch, on any worker, before or after a break. */
typedef struct NoiseKey {
    uint64_t seed;
    uint64_t sample; /* the prompt's id in the run */
    uint32_t index;  /* of the sample among those of its prompt */
} NoiseKey;

/* Uniform in [0, 1), 53 bits; `position` is the token's own in its sequence, prompt included. */
double sampling_noise(const NoiseKey *key, int32_t position);

#endif
