#include "local_node.h"

#include <stdio.h>
#include <unistd.h>

#include "agent/gpu_inventory.h"
#include "core/controller.h"

double local_node_cpus_needed(const JobConfig *config)
{
    return config->cluster.cpus_per_data_source +
           (double)config->cluster.rollout_workers_max * config->cluster.cpus_per_rollout_worker +
           (double)(config->train.tp_size * config->train.dp_size) *
               config->cluster.cpus_per_train_worker;
}

double local_node_cpus(const JobConfig *config)
{
    if (config->cluster.cpus > 0) return config->cluster.cpus;
    double need = local_node_cpus_needed(config), have = (double)sysconf(_SC_NPROCESSORS_ONLN);
    return have > need ? have : need;
}

Status local_node_check(const JobConfig *config, Error *err)
{
    char name[64] = "this machine";
    gethostname(name, sizeof name - 1);
    EffectList effects = {0};
    ControllerStart start = {.stage = &(Stage){.config = config},
                             .num_stages = 1,
                             .nonce = 1,
                             .num_nodes = 1,
                             .embedded_agent = true};
    Controller *controller = controller_create(&start, 0, &effects);
    Event up = {.kind = EV_AGENT_UP};
    up.agent.name = name;
    up.agent.total.cpu = local_node_cpus(config);
    up.agent.total.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    GpuInventory gpus = {.count = 0};
    if (config->device != JOB_CPU) gpu_inventory_read(&gpus);
    up.agent.total.gpu = gpus.count;
    up.agent.no_gpu = gpus.why_none;
    up.agent.free = up.agent.total;
    controller_step(controller, &up, 0, &effects);
    Status status = OK;
    for (int i = 0; i < effects.count && status == OK; i++)
        if (effects.item[i].kind == FX_EXIT)
            status =
                error_set(err, effects.item[i].exit.status, "%s", effects.item[i].exit.message);
    controller_destroy(controller);
    effect_list_free(&effects);
    return status;
}
