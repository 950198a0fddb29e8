/* rollout_worker: turns records into samples and holds them for the train ranks; or is one of the
 * tensor-parallel ranks that it does so with. */
#include <stdlib.h>
#include <string.h>

#include "actor/actor_process.h"
#include "base/limits.h"
#include "base/log.h"
#include "rollout_worker/service.h"
#include "tensor/device.h"

/* The controller starts another one, which makes an engine of its own. */
static void on_lost(void *context, const Error *why)
{
    log_event(LOG_ERROR, "engine_lost", F_STR("why", why->message));
    actor_process_fail(context, why);
}

/* A GPU is opened for the whole process, and takes its time. */
static Status prepare(ActorProcess *process, Error *err)
{
    const JobConfig *config = actor_process_config(process);
    const KernelTable *kernels = NULL;
    if (config->device != JOB_CUDA || config->rollout.function == ROLLOUT_SFT) return OK;
    if (device_open(DEVICE_CUDA, &(DeviceOptions){.library = NULL}, &kernels, NULL, err) == OK)
        return OK;
    return error_prefix(err, "device: %s", device_kind_name(DEVICE_CUDA));
}

static Status start(ActorProcess *process, void **ret_self, Error *err)
{
    const JobConfig *config = actor_process_config(process);
    double cpus = config->cluster.cpus_per_rollout_worker;
    RolloutServiceOptions options = {
        .loop = actor_process_loop(process),
        .identity = actor_process_identity(process),
        .config = config,
        .table = rollout_table(config->rollout.function),
        .threads = cpus > 1 ? (int)cpus : 1,
        .store_bytes_max = SAMPLE_STORE_BYTES_MAX,
        .lost = on_lost,
        .context = process,
    };
    const char *dash = strrchr(options.identity->name, '-'); /* rollout-3, rollout-3.1 */
    const char *point = strrchr(options.identity->name, '.');
    if (dash != NULL) options.index = atoi(dash + 1);
    if (point != NULL) options.tp_rank = atoi(point + 1);
    RolloutService *service = NULL;
    TRY(rollout_enter_working_dir(config, err));
    TRY(rollout_service_create(&options, &service, err));
    const char *plan = rollout_service_memory_plan(service);
    if (plan != NULL) log_event(LOG_INFO, "memory", F_STR("plan", plan));
    const char *url = rollout_service_url(service);
    if (url != NULL) log_event(LOG_INFO, "serving", F_STR("url", url));
    *ret_self = service;
    return OK;
}

static void stop(void *self)
{
    rollout_service_destroy(self);
}

static void describe(void *self, ActorReport *report)
{
    report->progress += rollout_service_progress(self);
    report->working = rollout_service_working(self);
    rollout_service_describe(self, report->doing, sizeof report->doing, report->waiting_for,
                             sizeof report->waiting_for);
    rollout_service_trouble(self, report->trouble, sizeof report->trouble);
}

int main(int argc, char **argv)
{
    ActorProcessSpec spec = {
        .program = "rollout_worker",
        .methods = rollout_service_methods,
        .num_methods = rollout_service_num_methods,
        .prepare = prepare,
        .start = start,
        .stop = stop,
        .describe = describe,
    };
    return actor_process_run(argc, argv, &spec);
}
