#include "rollout_worker/engine/model_folder.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/weights_check.h"
#include "model/weights_io.h"

static Status stored_type(const char *path, const WeightPlan *plan, DType *ret, Error *err)
{
    SafetensorsReader *reader = NULL;
    Tensor found = {0};
    TRY(safetensors_open(path, "model", &reader, err));
    Status status = weight_check(reader, path, &plan->spec[plan->layer[0].o_proj], "", &found, err);
    safetensors_close(reader);
    if (status == OK) *ret = found.dtype;
    return status;
}

Status model_folder_open(const char *path, ModelFolder *ret, Error *err)
{
    ModelFolder folder = {0};
    char *config = path_join(path, "config.json"), *tokenizer = path_join(path, "tokenizer.json");
    Status status = model_config_read(path, &folder.config, err);
    if (status == OK) status = weights_check_folder(path, &folder.config, err);
    if (status == OK) folder.plan = weight_plan_create(&folder.config, 0, 1);
    if (status == OK) status = stored_type(path, folder.plan, &folder.stored, err);
    if (status == OK) status = text_model_load(path, NULL, &folder.text, err);
    if (status == OK)
        status = model_config_check_tokenizer(
            &folder.config, config, tokenizer_vocab_size(text_model_tokenizer(folder.text)),
            tokenizer, err);
    if (status == OK) status = end_tokens_read(path, folder.config.vocab_size, &folder.ends, err);
    if (status == OK)
        *ret = folder;
    else
        model_folder_close(&folder);
    free(config);
    free(tokenizer);
    return status;
}

Status model_folder_load(ModelFolder *folder, const char *path, DType dtype,
                         const KernelTable *kernels, Error *err)
{
    const WeightPlan *plan = folder->plan;
    SafetensorsReader *reader = NULL;
    TRY(safetensors_open(path, "model", &reader, err));
    Weights *weights = weights_create(plan, dtype, kernels);
    Status status = OK;
    for (int i = 0; status == OK && i < plan->num_specs; i++) {
        WeightPart part = {.kernels = kernels,
                           .data = weight_view(plan, i, weights->flat, dtype).data,
                           .dtype = dtype};
        status = weight_read(reader, path, plan, &plan->spec[i], "", &part, err);
    }
    if (status == OK) {
        weights_prepare(weights);
        folder->weights = weights;
    } else {
        weights_destroy(weights);
    }
    safetensors_close(reader);
    return status;
}

void model_folder_close(ModelFolder *folder)
{
    weights_destroy(folder->weights);
    weight_plan_destroy(folder->plan);
    text_model_destroy(folder->text);
    *folder = (ModelFolder){0};
}
