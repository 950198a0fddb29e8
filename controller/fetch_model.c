#include "fetch_model.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "job_data/job_model.h"

#define TELLS_MAX 20 /* lines about one model */

struct FetchModel {
    JobModel *model;
    pthread_mutex_t lock;         /* of what follows: several files are fetched at once */
    const char *label;            /* of the weights that are being fetched; NULL: none are */
    int64_t fetched, total, told; /* bytes */
    _Atomic int64_t waits_told_ms;
};

static void tell(const FetchModel *fetch)
{
    log_event(LOG_INFO, "fetching", F_STR("model", fetch->label),
              F_REAL("mb", (double)fetch->fetched / 1e6),
              F_REAL("of_mb", (double)fetch->total / 1e6));
}

static bool goes_on(void *context, int64_t new_bytes)
{
    FetchModel *fetch = context;
    pthread_mutex_lock(&fetch->lock);
    if (fetch->label != NULL) {
        fetch->fetched += new_bytes;
        if (fetch->fetched - fetch->told >= fetch->total / TELLS_MAX && new_bytes > 0) {
            fetch->told = fetch->fetched;
            tell(fetch);
        }
    }
    pthread_mutex_unlock(&fetch->lock);
    return true; /* who does not want it any more ends the process, and the next one goes on */
}

static void waits(void *context, const char *waits_for)
{
    FetchModel *fetch = context;
    if (hub_watch_is_time(&fetch->waits_told_ms, waits_for))
        log_event(LOG_WARN, "model_waits", F_STR("for", waits_for));
}

static Status open_model(const JobConfig *config, FetchModel **ret, Error *err)
{
    FetchModel *fetch = mem_calloc(1, sizeof *fetch);
    pthread_mutex_init(&fetch->lock, NULL);
    Status status = job_model_open(config, (HubWatch){goes_on, fetch, waits}, &fetch->model, err);
    if (status == OK)
        *ret = fetch;
    else
        fetch_model_close(fetch);
    return status;
}

static Status add_setting(const SettingsList *settings, const char *setting, Error *err)
{
    if (*settings->count == settings->room)
        return error_set(err, ERR_INVALID, "more than %d --set options", settings->room - 1);
    settings->set[(*settings->count)++] = setting;
    return OK;
}

Status fetch_model_load(const char *path, const SettingsList *settings, JobStages *ret,
                        FetchModel **ret_fetch, Error *err)
{
    JobStages stages = {0};
    FetchModel *fetch = NULL;
    TRY(job_stages_load(path, settings->set, *settings->count, &stages, err));
    Status status = OK;
    if (job_model_is_on_hub(stages.stage[0])) {
        status = open_model(stages.stage[0], &fetch, err);
        job_stages_free(&stages);
        if (status == OK) status = add_setting(settings, job_model_setting(fetch->model), err);
        if (status == OK)
            status = job_stages_load(path, settings->set, *settings->count, &stages, err);
    }
    if (status == OK) {
        *ret = stages;
        *ret_fetch = fetch;
    } else {
        fetch_model_close(fetch);
    }
    return status;
}

void fetch_model_close(FetchModel *fetch)
{
    if (fetch == NULL) return;
    job_model_close(fetch->model);
    pthread_mutex_destroy(&fetch->lock);
    free(fetch);
}

Status fetch_model_weights(FetchModel *fetch, const JobConfig *config, Error *err)
{
    if (fetch == NULL || config->model.init == INIT_RANDOM) return OK;
    const HubModel *model = job_model_hub(fetch->model);
    HubWeights weights = hub_model_weights(model);
    if (weights.bytes_left > 0) {
        fetch->label = hub_model_label(model);
        fetch->total = weights.bytes;
        fetch->fetched = fetch->told = weights.bytes - weights.bytes_left;
        tell(fetch);
    }
    return job_model_fetch(fetch->model, err);
}

Status fetch_model_keep(const FetchModel *fetch, const char *run_dir, Error *err)
{
    return fetch != NULL ? job_model_keep(fetch->model, run_dir, err) : OK;
}

void fetch_model_show(const FetchModel *fetch, JobStages *stages)
{
    if (fetch == NULL) return;
    const HubModel *model = job_model_hub(fetch->model);
    HubWeights weights = hub_model_weights(model);
    printf("model: %s of the Hub, commit %s\n", hub_model_label(model), hub_model_commit(model));
    if (stages->stage[0]->model.init == INIT_RANDOM) return;
    printf("weights: %.1f MB in %d file%s, of which a run fetches %.1f MB first\n",
           (double)weights.bytes / 1e6, weights.files, plural(weights.files),
           (double)weights.bytes_left / 1e6);
    for (int i = 0; i < stages->count && weights.bytes_left > 0; i++)
        job_config_expect_weights(stages->stage[i]);
}
