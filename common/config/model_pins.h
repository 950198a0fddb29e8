/* models.json in a run folder: which checkpoints the runs stand for that its job names in place of
 * models, as they were chosen when the run began. A run that is named may go on training; the
 * one that began with it keeps to what it began with. No state; any thread. */
#ifndef TROUPE_CONFIG_MODEL_PINS_H
#define TROUPE_CONFIG_MODEL_PINS_H

#include "config/job.h"

/* *ret: the checkpoint that `path` stands for in the run of this folder, owned by the caller; NULL
 * when that says nothing of it. A file that cannot be read, or makes no sense, is an error that
 * names it: with another model the run would be another one. */
Status model_pins_find(const char *run_dir, const char *path, char **ret, Error *err);

/* The run folder has checkpoints, but does not say what they began with. */
bool model_pins_are_lost(const JobConfig *config);

/* Writes down what the stages' configurations chose, beside what stands there already. `run_dir`
 * exists. Errors as above, and the file system's. */
Status model_pins_keep(const JobStages *stages, const char *run_dir, Error *err);

#endif
