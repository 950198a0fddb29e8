/* A model folder with random weights, for jobs and benchmarks that are to read one: the shape of a
 * published model in bf16, in a second or two.
 *
 *   make_model SHAPE FOLDER [LAYERS]
 *
 * Writes config.json and model.safetensors into a folder that exists; tokenizer and chat template
 * are the caller's to add. The numbers are normal ones of initializer_range, drawn once and
 * repeated. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/weight_plan.h"
#include "shapes.h"
#include "tensor/safetensors.h"

#define DRAWN 1048573 /* no divisor of a row's length: rows differ */

static SafetensorsEntry *make_entries(const WeightPlan *plan)
{
    SafetensorsEntry *entries = mem_calloc((size_t)plan->num_specs, sizeof *entries);
    for (int i = 0; i < plan->num_specs; i++) {
        const WeightSpec *spec = &plan->spec[i];
        entries[i] = (SafetensorsEntry){.name = spec->name,
                                        .dtype = DTYPE_BF16,
                                        .rank = spec->rank,
                                        .shape = {spec->rows, spec->cols}};
    }
    return entries;
}

static uint16_t *draw(float scale)
{
    uint16_t *drawn = mem_calloc(DRAWN + 1, sizeof *drawn);
    for (int i = 0; i < DRAWN; i += 2) {
        float pair[2];
        RngBlock block = rng_block(1, 0, (uint64_t)i);
        rng_normal_pair(block.word[0], block.word[1], &pair[0], &pair[1]);
        drawn[i] = bf16_from_f32(pair[0] * scale);
        drawn[i + 1] = bf16_from_f32(pair[1] * scale);
    }
    return drawn;
}

static Status write_weights(const WeightPlan *plan, const char *path, Error *err)
{
    static const char *const metadata[] = {"format", "pt"};
    int64_t bytes = 0;
    char digest[65];
    SafetensorsWriter *writer = NULL;
    SafetensorsEntry *entries = make_entries(plan);
    Status status = safetensors_create(path, entries, plan->num_specs, metadata, 1, &writer, err);
    free(entries);
    TRY(status);
    uint16_t *drawn = draw(plan->config.initializer_range), *ones = mem_calloc(DRAWN, sizeof *ones);
    for (int i = 0; i < DRAWN; i++)
        ones[i] = bf16_from_f32(1.0f);
    for (int i = 0; status == OK && i < plan->num_specs; i++) {
        int64_t left = plan->spec[i].rows * plan->spec[i].cols;
        for (int64_t n; status == OK && left > 0; left -= n) {
            n = left < DRAWN ? left : DRAWN;
            status = safetensors_write(writer, plan->spec[i].rank == 2 ? drawn : ones,
                                       (size_t)n * sizeof *drawn, err);
        }
    }
    free(drawn);
    free(ones);
    if (status != OK) {
        safetensors_abandon(writer);
        return status;
    }
    return safetensors_finish(writer, &bytes, digest, err);
}

static Status write_model(const ModelConfig *config, const char *folder, Error *err)
{
    char *json = shape_json(config), *path = path_join(folder, "config.json");
    Status status = file_write_atomic(path, json, strlen(json), err);
    free(path);
    free(json);
    TRY(status);
    WeightPlan *plan = weight_plan_create(config, 0, 1);
    path = path_join(folder, "model.safetensors");
    status = write_weights(plan, path, err);
    free(path);
    weight_plan_destroy(plan);
    return status;
}

int main(int argc, char **argv)
{
    Error err = {0};
    ModelConfig config;
    if (argc < 3 || !shape_find(argv[1], argc > 3 ? atoi(argv[3]) : 0, &config)) {
        fprintf(stderr, "usage: make_model SHAPE FOLDER [LAYERS]; a shape is %s\n", shape_names());
        return 2;
    }
    if (write_model(&config, argv[2], &err) == OK) return 0;
    fprintf(stderr, "make_model: %s\n", err.message);
    return 1;
}
