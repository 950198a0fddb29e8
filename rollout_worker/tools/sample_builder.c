#include "rollout_worker/tools/sample_builder.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void sample_builder_free(SampleBuilder *builder)
{
    free(builder->token);
    free(builder->mask);
    free(builder->log_prob);
    free(builder->run);
    *builder = (SampleBuilder){0};
}

static void append(SampleBuilder *builder, const int32_t *token, const float *log_prob,
                   int32_t length)
{
    if (builder->length + length > builder->capacity) {
        builder->capacity = 2 * (builder->length + length);
        size_t capacity = (size_t)builder->capacity;
        builder->token = mem_realloc(builder->token, capacity, sizeof *builder->token);
        builder->mask = mem_realloc(builder->mask, capacity, sizeof *builder->mask);
        builder->log_prob = mem_realloc(builder->log_prob, capacity, sizeof *builder->log_prob);
    }
    for (int32_t i = 0; i < length; i++) {
        builder->token[builder->length + i] = token[i];
        builder->mask[builder->length + i] = log_prob != NULL;
        builder->log_prob[builder->length + i] = log_prob != NULL ? log_prob[i] : 0;
    }
    builder->length += length;
}

static void append_run(SampleBuilder *builder, int64_t version, int32_t count)
{
    if (builder->num_runs > 0 && builder->run[builder->num_runs - 1].version == version) {
        builder->run[builder->num_runs - 1].count += count;
        return;
    }
    if (builder->num_runs == builder->runs_capacity) {
        builder->runs_capacity = 2 * builder->runs_capacity + 4;
        builder->run =
            mem_realloc(builder->run, (size_t)builder->runs_capacity, sizeof *builder->run);
    }
    builder->run[builder->num_runs++] = (VersionRun){version, count};
}

void sample_builder_append_given(SampleBuilder *builder, const int32_t *token, int32_t length)
{
    append(builder, token, NULL, length);
    if (builder->num_runs > 0)
        builder->run[builder->num_runs - 1].count += length;
    else
        builder->prompt_length = builder->length;
}

void sample_builder_append_generated(SampleBuilder *builder, const GeneratedTokens *tokens)
{
    append(builder, tokens->token, tokens->log_prob, tokens->length);
    for (int32_t i = 0; i < tokens->num_version_runs; i++)
        append_run(builder, tokens->version_run[i].version, tokens->version_run[i].count);
    builder->temperature = tokens->temperature;
    builder->turns++;
}

void sample_builder_to_sample(const SampleBuilder *builder, Sample *ret)
{
    size_t length = (size_t)builder->length, runs = (size_t)builder->num_runs;
    *ret = (Sample){
        .length = builder->length,
        .prompt_length = builder->prompt_length,
        .token = mem_alloc(length * sizeof *ret->token),
        .loss_mask = mem_alloc(length * sizeof *ret->loss_mask),
        .log_prob = mem_alloc(length * sizeof *ret->log_prob),
        .temperature = builder->temperature,
        .weight_version = runs > 0 ? builder->run[0].version : 0,
        .num_version_runs = builder->num_runs,
        .work = {.turns = builder->turns},
    };
    memcpy(ret->token, builder->token, length * sizeof *ret->token);
    memcpy(ret->loss_mask, builder->mask, length * sizeof *ret->loss_mask);
    memcpy(ret->log_prob, builder->log_prob, length * sizeof *ret->log_prob);
    if (runs == 0) return;
    ret->version_run = mem_alloc(runs * sizeof *ret->version_run);
    memcpy(ret->version_run, builder->run, runs * sizeof *ret->version_run);
}
