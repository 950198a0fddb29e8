#include "model/weights_check.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"

static Status check_described(const char *folder, const char *name, const WeightSpec *spec,
                              const Tensor *found, Error *err)
{
    Tensor expected = spec->rank == 1 ? tensor_1d(NULL, DTYPE_F32, spec->rows)
                                      : tensor_2d(NULL, DTYPE_F32, spec->rows, spec->cols);
    char found_text[96], expected_text[96];
    if (!tensor_same_shape(found, &expected))
        return error_set(err, ERR_DATA,
                         "%s: tensor %s has shape %s, but the model's config.json makes it %s",
                         folder, name, tensor_shape_text(found, found_text),
                         tensor_shape_text(&expected, expected_text));
    if (found->dtype != DTYPE_F32 && found->dtype != DTYPE_BF16 && found->dtype != DTYPE_F16)
        return error_set(err, ERR_DATA,
                         "%s: tensor %s has type %s, but a weight must be F32, BF16 or F16", folder,
                         name, dtype_safetensors_name(found->dtype));
    return OK;
}

Status weight_check(const SafetensorsReader *reader, const char *folder, const WeightSpec *spec,
                    const char *prefix, Tensor *ret_found, Error *err)
{
    char *name = mem_printf("%s%s", prefix, spec->name);
    Tensor found = {0};
    Status status = safetensors_describe(reader, name, &found, err);
    if (status == OK) status = check_described(folder, name, spec, &found, err);
    if ((status == ERR_NOT_FOUND || status == ERR_DATA) && err != NULL) {
        status = err->status = ERR_DATA;
        error_append(err,
                     "Expected weights and a config.json of one model: fetch the folder again, or "
                     "correct its config.json.");
    }
    if (status == OK) *ret_found = found;
    free(name);
    return status;
}

Status weights_check_names(const SafetensorsReader *reader, const char *folder,
                           const WeightPlan *plan, Error *err)
{
    for (int i = 0; i < safetensors_count(reader); i++) {
        const char *name = safetensors_name(reader, i);
        if (weight_plan_find(plan, name) >= 0) continue;
        bool no_head = plan->config.tie_word_embeddings || plan->config.value_head;
        if (no_head && strcmp(name, "lm_head.weight") == 0) continue;
        if (str_ends_with(name, "rotary_emb.inv_freq")) continue;
        return error_set(
            err, ERR_UNSUPPORTED,
            "%s: holds tensor %s, which a model as its config.json describes it does not "
            "have; the folder's config.json and weights belong to different models",
            folder, name);
    }
    return OK;
}

Status weights_check_folder(const char *folder, const ModelConfig *config, Error *err)
{
    SafetensorsReader *reader = NULL;
    Tensor found;
    TRY(safetensors_open(folder, "model", &reader, err));
    WeightPlan *plan = weight_plan_create(config, 0, 1);
    Status status = weights_check_names(reader, folder, plan, err);
    for (int s = 0; status == OK && s < plan->num_specs; s++)
        status = weight_check(reader, folder, &plan->spec[s], "", &found, err);
    weight_plan_destroy(plan);
    safetensors_close(reader);
    return status;
}
