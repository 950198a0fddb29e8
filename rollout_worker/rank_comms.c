#include "rollout_worker/rank_comms.h"

/* Of shared memory, per rank: what a step sums goes in pieces of this size, a plan in one or two.
 */
#define SHM_STAGING_BYTES ((size_t)256 << 10)
/* Of a GPU's memory, out of the tenth that no plan gives away: as in training. */
#define NCCL_STAGING_BYTES   ((size_t)32 << 20)
#define SHM_JOIN_TIMEOUT_MS  30000
#define NCCL_JOIN_TIMEOUT_MS 120000 /* NCCL looks for networks and connects all with all */
/* A step with a long prompt of a large model takes seconds; a rank that is missing for so long is
 * lost. */
#define STEP_TIMEOUT_MS 300000
/* Without requests there is no step: days may go by. */
#define IDLE_TIMEOUT_MS (24 * 24 * 3600 * 1000)

_Static_assert(IDLE_TIMEOUT_MS > 0, "it fits an int");

static bool is_on_gpus(const JobConfig *config)
{
    return config->device != JOB_CPU;
}

Status rank_group_id_make(const JobConfig *config, RankGroupId *ret, Error *err)
{
    int size = (int)config->train.tp_size;
    CommDevice device = {.nccl_library = NULL};
    TRY(comm_id_create(COMM_SHM, size, SHM_STAGING_BYTES, &ret->plan, err));
    Status status = is_on_gpus(config)
                        ? comm_id_create_nccl(&device, size, NCCL_STAGING_BYTES, &ret->tensor, err)
                        : comm_id_create(COMM_SHM, size, SHM_STAGING_BYTES, &ret->tensor, err);
    if (status != OK) comm_id_discard(&ret->plan);
    return status;
}

static Status join_tensors(const JobConfig *config, const RankGroupId *id, int rank,
                           const CommDevice *device, Comm **ret, Error *err)
{
    int size = (int)config->train.tp_size;
    if (!is_on_gpus(config))
        return comm_create(COMM_SHM, &id->tensor, rank, size, SHM_JOIN_TIMEOUT_MS, ret, err);
    CHECKF(device->streams != NULL, "a device without streams");
    return comm_create_nccl(device, &id->tensor, rank, size, NCCL_JOIN_TIMEOUT_MS, ret, err);
}

Status rank_comms_join(const JobConfig *config, const RankGroupId *id, int rank,
                       const CommDevice *device, RankComms *ret, Error *err)
{
    RankComms comms = {NULL, NULL};
    int size = (int)config->train.tp_size;
    Status status =
        comm_create(COMM_SHM, &id->plan, rank, size, SHM_JOIN_TIMEOUT_MS, &comms.plan, err);
    if (status == OK) status = join_tensors(config, id, rank, device, &comms.tensor, err);
    if (status != OK) {
        rank_comms_destroy(&comms);
        return error_prefix(err, "joining the ranks of this rollout worker");
    }
    comm_set_timeout(comms.tensor, STEP_TIMEOUT_MS);
    comm_set_timeout(comms.plan, rank == 0 ? STEP_TIMEOUT_MS : IDLE_TIMEOUT_MS);
    *ret = comms;
    return OK;
}

void rank_comms_destroy(RankComms *comms)
{
    comm_destroy(comms->tensor);
    comm_destroy(comms->plan);
    *comms = (RankComms){NULL, NULL};
}
