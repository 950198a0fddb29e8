/* HubModel: a model of the Hub as a folder of this machine, the snapshot of its commit in the cache
 * of huggingface_hub. Of the repository's files it has those that are read here: configuration,
 * tokenizer, chat templates, and the weights in safetensors; not what else is kept beside them
 * (pickles, GGUF, `original/`). Belongs to one thread. */
#ifndef TROUPE_HUB_MODEL_H
#define TROUPE_HUB_MODEL_H

#include "hub/repo.h"

typedef struct HubModel HubModel;

/* Fetches all but the weights. As hub_repo_open, and ERR_NOT_FOUND: it is no model that could be
 * read here. */
Status hub_model_open(const HubName *name, const HubRepoOptions *options, HubModel **ret,
                      Error *err);
void hub_model_close(HubModel *model); /* accepts NULL */

const char *hub_model_label(const HubModel *model); /* "OWNER/NAME", "OWNER/NAME#REVISION" */
const char *hub_model_commit(const HubModel *model);
const char *hub_model_folder(const HubModel *model); /* not all of it is there */

typedef struct HubWeights {
    int files;
    int64_t bytes, bytes_left; /* that are not in the cache yet */
} HubWeights;
HubWeights hub_model_weights(const HubModel *model);

/* Fetches them, several files at once; nothing else may be fetched after it. ERR_NOT_FOUND: there
 * are none in safetensors; ERR_RESOURCE: the disk has no room for them, with the figures. */
Status hub_model_fetch_weights(HubModel *model, Error *err);

/* As hub_repo_keep_commit. */
Status hub_model_keep_commit(const HubModel *model, const char *commits, Error *err);

#endif
