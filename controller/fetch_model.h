/* FetchModel: a job whose model is on the Hugging Face Hub, as the controller reads it: the model
 * is fetched, and the job read once more with the folder that it has here. What it fetches it says
 * as it goes, on the log. */
#ifndef TROUPE_CONTROLLER_FETCH_MODEL_H
#define TROUPE_CONTROLLER_FETCH_MODEL_H

#include "config/job.h"

typedef struct FetchModel FetchModel;

/* Settings of a command, with room for one that names the folder. */
typedef struct SettingsList {
    const char **set; /* [*count] of [room] */
    int *count, room;
} SettingsList;

/* As job_stages_load. *ret_fetch is NULL where the model is a folder; else all but its weights is
 * here then, and it owns the setting that was added. */
Status fetch_model_load(const char *path, const SettingsList *settings, JobStages *ret,
                        FetchModel **ret_fetch, Error *err);
/* The rest accepts NULL: then there is nothing to do. */
void fetch_model_close(FetchModel *fetch);

/* Prints what a run would fetch; weights that are not here are not looked for in these stages. */
void fetch_model_show(const FetchModel *fetch, JobStages *stages);
/* Fetches the weights, where the job takes them. */
Status fetch_model_weights(FetchModel *fetch, const JobConfig *config, Error *err);
/* Keeps the commit in the run's folder. */
Status fetch_model_keep(const FetchModel *fetch, const char *run_dir, Error *err);

#endif
