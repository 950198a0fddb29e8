/* ModelFolder: all that generating with a Hugging Face folder takes, loaded whole on one rank:
 * configuration, weights in the type they are to be computed in, text side, end tokens. Owned by
 * whoever loaded it; const afterwards. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_MODEL_FOLDER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_MODEL_FOLDER_H

#include "model/weights.h"
#include "rollout_worker/engine/end_tokens.h"
#include "text/conversation.h"

typedef struct ModelFolder {
    ModelConfig config;
    DType stored; /* the type of its matrices in the files */
    WeightPlan *plan;
    Weights *weights; /* prepared */
    TextModel *text;
    EndTokens ends;
} ModelFolder;

/* Everything but the weights' values: what can be wrong with a folder shows here, before anything
 * large is read. */
Status model_folder_open(const char *path, ModelFolder *ret, Error *err);

/* Reads the weights, on one rank alone. */
Status model_folder_load(ModelFolder *folder, const char *path, DType dtype,
                         const KernelTable *kernels, Error *err);
void model_folder_close(ModelFolder *folder); /* leaves zeros */

#endif
