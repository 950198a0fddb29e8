/* Whether a model folder holds the tensors that its config.json describes: names, shapes, types.
 * Only the headers of its files are read, so it takes no time and no memory to speak of, and no
 * kernels are needed: before a run as well as at every load. */
#ifndef TROUPE_MODEL_WEIGHTS_CHECK_H
#define TROUPE_MODEL_WEIGHTS_CHECK_H

#include "model/weight_plan.h"
#include "tensor/safetensors.h"

/* Tensor <prefix><name> has the spec's shape and a type that a weight may have: *ret_found says
 * which. ERR_DATA with what was found, what was expected and what to do; `folder` is for messages.
 */
Status weight_check(const SafetensorsReader *reader, const char *folder, const WeightSpec *spec,
                    const char *prefix, Tensor *ret_found, Error *err);

/* Refuses a model folder with a tensor that the plan does not know: it is another model than
 * config.json says. A head stored beside tied embeddings and stored RoPE frequencies are passed
 * over, as transformers does; so is the head of a model that a critic is made of. */
Status weights_check_names(const SafetensorsReader *reader, const char *folder,
                           const WeightPlan *plan, Error *err);

/* All of it for a whole folder. */
Status weights_check_folder(const char *folder, const ModelConfig *config, Error *err);

#endif
