/* models.json in a run folder: which checkpoints the runs stand for that its job names in place of
 * models, as they were chosen when the run began. A run that is named may go on training; the
 * one that began with it keeps to what it began with. No state; any thread. */
#ifndef TROUPE_CONFIG_MODEL_PINS_H
#define TROUPE_CONFIG_MODEL_PINS_H

#include "config/job.h"

/* The checkpoint that `path` stands for in the run of this folder; NULL when that says nothing of
 * it. Owned by the caller. */
char *model_pins_find(const char *run_dir, const char *path);

/* Writes down what the stages' configurations chose, beside what stands there already. `run_dir`
 * exists. The file system's errors. */
Status model_pins_keep(const JobStages *stages, const char *run_dir, Error *err);

#endif
