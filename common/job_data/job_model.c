#include "job_data/job_model.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/hub_name.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/dataset.h"

struct JobModel {
    HubAccess access;
    HubModel *model;
    char *setting;
};

bool job_model_is_on_hub(const JobConfig *config)
{
    return str_starts_with(config->model.path, HUB_SCHEME);
}

static Status refuse_name(const char *text, Error *err)
{
    return error_set(err, ERR_INVALID,
                     "%s is no name of a model on the Hugging Face Hub\n"
                     "  expected: hf://OWNER/NAME, with @REVISION behind it where one is meant, or "
                     "OWNER/NAME\n  to do: correct the name",
                     QUOTED(text));
}

static Status open_model(JobModel *model, const JobConfig *config, HubWatch watch, Error *err)
{
    HubName name = {0};
    if (!hub_model_name_parse(config->model.path, &name))
        return refuse_name(config->model.path, err);
    char *commits = path_join(config->run_dir, DATASET_HUB_COMMITS);
    HubRepoOptions options = {
        .access = &model->access, .commits = commits, .read_only = true, .watch = watch};
    Status status = hub_access_read(getenv, &model->access, err);
    if (status == OK) status = hub_model_open(&name, &options, &model->model, err);
    if (status == OK) model->setting = mem_printf("model.path=%s", hub_model_folder(model->model));
    free(commits);
    hub_name_free(&name);
    return status;
}

Status job_model_open(const JobConfig *config, HubWatch watch, JobModel **ret, Error *err)
{
    JobModel *model = mem_calloc(1, sizeof *model);
    if (open_model(model, config, watch, err) == OK) {
        *ret = model;
        return OK;
    }
    job_model_close(model);
    error_prefix(err, "model.path");
    return job_config_locate(config, err);
}

void job_model_close(JobModel *model)
{
    if (model == NULL) return;
    hub_model_close(model->model);
    hub_access_free(&model->access);
    free(model->setting);
    free(model);
}

const HubModel *job_model_hub(const JobModel *model)
{
    return model->model;
}

const char *job_model_setting(const JobModel *model)
{
    return model->setting;
}

Status job_model_load(const JobSource *source, JobConfig **ret, Error *err)
{
    JobModel *model = NULL;
    JobConfig *config = NULL;
    size_t count = (size_t)source->num_sets;
    TRY(job_config_load(source->path, source->stage, source->set, source->num_sets, &config, err));
    if (!job_model_is_on_hub(config)) {
        *ret = config;
        return OK;
    }
    Status status = job_model_open(config, source->watch, &model, err);
    job_config_destroy(config);
    if (status != OK) return status;
    const char **set = mem_calloc(count + 1, sizeof *set);
    for (size_t i = 0; i < count; i++)
        set[i] = source->set[i];
    set[count] = model->setting;
    status = job_config_load(source->path, source->stage, set, (int)count + 1, ret, err);
    free(set);
    job_model_close(model);
    return status;
}

Status job_model_fetch(JobModel *model, Error *err)
{
    Status status = hub_model_fetch_weights(model->model, err);
    return status == OK ? OK : error_prefix(err, "model.path");
}

Status job_model_keep(const JobModel *model, const char *run_dir, Error *err)
{
    char *commits = path_join(run_dir, DATASET_HUB_COMMITS);
    Status status = hub_model_keep_commit(model->model, commits, err);
    free(commits);
    return status;
}
