/* SampleBuilder: a sample in the making: tokens that were given (mask 0, log-prob 0) and tokens
 * that were generated (mask 1, with their log-probs and the versions of the weights that drew
 * them), appended in turn. Zero-initialise; belongs to one thread at a time. */
#ifndef TROUPE_ROLLOUT_WORKER_TOOLS_SAMPLE_BUILDER_H
#define TROUPE_ROLLOUT_WORKER_TOOLS_SAMPLE_BUILDER_H

#include "sample/sample.h"

typedef struct SampleBuilder {
    int32_t *token; /* [length], owned, as the others are */
    uint8_t *mask;
    float *log_prob;
    int32_t length, capacity;
    int32_t prompt_length; /* tokens before the first generated one; length: there is none yet */
    VersionRun *run;       /* [num_runs] of the tokens behind the prompt */
    int32_t num_runs, runs_capacity;
    float temperature; /* of the last generated ones */
    int32_t turns;     /* how often generated ones were appended */
} SampleBuilder;

/* Tokens as an engine's Generation has them; borrowed. */
typedef struct GeneratedTokens {
    const int32_t *token; /* [length] */
    const float *log_prob;
    int32_t length;
    const VersionRun *version_run; /* whose counts add up to length */
    int32_t num_version_runs;
    float temperature;
} GeneratedTokens;

void sample_builder_free(SampleBuilder *builder); /* leaves an empty one */

/* Given tokens between generated ones count to the weights of those before them. */
void sample_builder_append_given(SampleBuilder *builder, const int32_t *token, int32_t length);
void sample_builder_append_generated(SampleBuilder *builder, const GeneratedTokens *tokens);

/* A copy as a Sample; position, index, status and reward are the caller's to set. */
void sample_builder_to_sample(const SampleBuilder *builder, Sample *ret);

#endif
