/* The files beside the weights that make a checkpoint a Hugging Face model folder: where each is
 * taken from. They also say with which tokenizer and template a run was made. Any thread. */
#ifndef TROUPE_CONTROLLER_MODEL_FILES_H
#define TROUPE_CONTROLLER_MODEL_FILES_H

#include "config/job.h"

typedef struct ModelFile {
    const char *name;  /* in a model folder and in a checkpoint */
    bool makes_tokens; /* another one would make other tokens of the same conversation */
} ModelFile;

#define MODEL_FILES 5
extern const ModelFile model_file[MODEL_FILES];

/* The path of file i for this job; the file need not exist. Owned by the caller. */
char *model_file_path(const JobConfig *config, int i);

#endif
