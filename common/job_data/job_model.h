/* JobModel: the model of a job that names one of the Hugging Face Hub where a folder stands else
 * (model.path: OWNER/NAME). It is fetched on this machine, into the cache of huggingface_hub, and
 * the job is read once more with a setting that names its folder there: everybody else sees a
 * folder. At which commit a run took it stands in the run's folder, beside those of its data, and
 * later starts take that one. Belongs to one thread. */
#ifndef TROUPE_JOB_DATA_JOB_MODEL_H
#define TROUPE_JOB_DATA_JOB_MODEL_H

#include "config/job.h"
#include "hub/model.h"

typedef struct JobModel JobModel;

bool job_model_is_on_hub(const JobConfig *config);
/* Fetches all but the weights, with what the environment says of the Hub. What it borrows is what
 * the watch points to. Messages begin with the place of the key. */
Status job_model_open(const JobConfig *config, HubWatch watch, JobModel **ret, Error *err);
void job_model_close(JobModel *model); /* accepts NULL */

const HubModel *job_model_hub(const JobModel *model);
const char *job_model_setting(const JobModel *model); /* "model.path=/cache/...", for --set */

/* As job_config_load, of whoever needs no weights: a model on the Hub is fetched but for them. */
typedef struct JobSource {
    const char *path, *stage;
    const char *const *set; /* [num_sets] */
    int num_sets;
    HubWatch watch; /* of the Hub, where it is asked */
} JobSource;
Status job_model_load(const JobSource *source, JobConfig **ret, Error *err);

/* Fetches the weights; done once, at the end. */
Status job_model_fetch(JobModel *model, Error *err);
/* Keeps the commit in a run's folder. */
Status job_model_keep(const JobModel *model, const char *run_dir, Error *err);

#endif
