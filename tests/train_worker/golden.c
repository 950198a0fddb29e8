#include "golden.h"

#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

static double number(const cJSON *object, const char *key)
{
    double value = 0;
    Error err = {0};
    assert_ok(json_double(object, key, "batches.json", &value, &err), &err);
    return value;
}

static void load_sample(const cJSON *json, Sample *sample)
{
    const cJSON *token = cJSON_GetObjectItem(json, "token");
    const cJSON *mask = cJSON_GetObjectItem(json, "loss_mask");
    sample->length = cJSON_GetArraySize(token);
    sample->token = mem_calloc((size_t)sample->length, sizeof *sample->token);
    sample->loss_mask = mem_calloc((size_t)sample->length, 1);
    for (int i = 0; i < sample->length; i++) {
        sample->token[i] = cJSON_GetArrayItem(token, i)->valueint;
        sample->loss_mask[i] = (uint8_t)cJSON_GetArrayItem(mask, i)->valueint;
    }
}

static void load_step(const cJSON *json, GoldenStep *step)
{
    const cJSON *samples = cJSON_GetObjectItem(json, "samples");
    step->num_samples = cJSON_GetArraySize(samples);
    assert_in_range(step->num_samples, 1, GOLDEN_SAMPLES_MAX);
    for (int s = 0; s < step->num_samples; s++) {
        load_sample(cJSON_GetArrayItem(samples, s), &step->sample[s]);
        step->pointer[s] = &step->sample[s];
        step->rows += step->sample[s].length;
    }
    step->loss_sum = number(json, "loss_sum");
    step->trained_tokens = (int64_t)number(json, "trained_tokens");
    step->correct = (int64_t)number(json, "correct");
    step->grad_norm = number(json, "grad_norm");
    const cJSON *log_prob = cJSON_GetObjectItem(json, "log_prob");
    assert_int_equal(cJSON_GetArraySize(log_prob), step->trained_tokens);
    step->log_prob = mem_calloc((size_t)step->trained_tokens, sizeof *step->log_prob);
    for (int i = 0; i < step->trained_tokens; i++)
        step->log_prob[i] = cJSON_GetArrayItem(log_prob, i)->valuedouble;
}

void golden_load(Golden *golden, const char *name)
{
    Error err = {0};
    cJSON *json = NULL;
    char path[640];
    *golden = (Golden){0};
    if (strchr(name, '/') != NULL)
        snprintf(golden->folder, sizeof golden->folder, "%s", name);
    else
        snprintf(golden->folder, sizeof golden->folder, "%s/model/golden/%s", TEST_SOURCE_DIR,
                 name);
    assert_ok(model_config_read(golden->folder, &golden->config, &err), &err);
    snprintf(path, sizeof path, "%s/expected.safetensors", golden->folder);
    assert_ok(safetensors_open(path, "", &golden->expected, &err), &err);
    snprintf(path, sizeof path, "%s/batches.json", golden->folder);
    assert_ok(json_read(path, 1 << 20, &json, &err), &err);
    const cJSON *steps = cJSON_GetObjectItem(json, "steps");
    assert_int_equal(cJSON_GetArraySize(steps), GOLDEN_STEPS);
    for (int i = 0; i < GOLDEN_STEPS; i++) {
        load_step(cJSON_GetArrayItem(steps, i), &golden->step[i]);
        golden->step[i].lr = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "lr"), i)->valuedouble;
    }
    golden->options = (TrainerOptions){
        .model = golden->config,
        .dtype = DTYPE_F32,
        .max_tokens = 64,
        .max_sequence_length = 16,
        .adam_beta1 = number(json, "beta1"),
        .adam_beta2 = number(json, "beta2"),
        .adam_eps = number(json, "eps"),
        .weight_decay = number(json, "weight_decay"),
        .clip_grad = number(json, "clip_grad"),
    };
    cJSON_Delete(json);
}

void golden_clear(Golden *golden)
{
    for (int i = 0; i < GOLDEN_STEPS; i++) {
        for (int s = 0; s < golden->step[i].num_samples; s++)
            sample_clear(&golden->step[i].sample[s]);
        free(golden->step[i].log_prob);
    }
    safetensors_close(golden->expected);
}

int golden_micro_batches(const GoldenStep *step, int dp_rank, int dp_size, int size,
                         const Sample *pointers[GOLDEN_SAMPLES_MAX],
                         MicroBatch batches[GOLDEN_SAMPLES_MAX])
{
    int mine = 0, count = 0;
    for (int s = dp_rank; s < step->num_samples; s += dp_size)
        pointers[mine++] = step->pointer[s];
    for (int first = 0; first < mine; first += size) {
        int n = mine - first < size ? mine - first : size;
        batches[count++] = (MicroBatch){.sample = pointers + first, .num_samples = n};
    }
    return count;
}

double relative_error(const float *found, const float *expected, int64_t count)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)found[i] - (double)expected[i];
        difference += d * d;
        norm += (double)expected[i] * (double)expected[i];
    }
    return norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
}
