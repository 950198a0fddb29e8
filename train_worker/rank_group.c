#include "rank_group.h"

#include "job_options.h"

/* Of shared memory, per rank and communicator: the most that comm.h takes. */
#define SHM_STAGING_BYTES ((size_t)512 << 10)
/* Of a GPU's memory, out of the tenth that no plan gives away: pieces of it are to be long beside
 * what a call costs. By argument, not measured. */
#define NCCL_STAGING_BYTES   ((size_t)32 << 20)
#define SHM_JOIN_TIMEOUT_MS  30000
#define NCCL_JOIN_TIMEOUT_MS 120000 /* NCCL looks for networks and connects all with all */

static CommKind kind_of(const JobConfig *config, int size)
{
    if (size == 1) return COMM_SELF;
    return job_device(config) == DEVICE_CPU ? COMM_SHM : COMM_NCCL;
}

Status rank_group_check(const JobConfig *config, Error *err)
{
    int size = (int)(config->train.tp_size * config->train.dp_size);
    if (kind_of(config, size) != COMM_NCCL || comm_check_nccl(NULL, err) == OK) return OK;
    return error_prefix(err, "device: %s, with %d train workers",
                        device_kind_name(job_device(config)), size);
}

Status rank_group_id_create(const JobConfig *config, int size, CommId *ret, Error *err)
{
    CommKind kind = kind_of(config, size);
    CommDevice device = {.nccl_library = NULL};
    if (kind == COMM_NCCL) return comm_id_create_nccl(&device, size, NCCL_STAGING_BYTES, ret, err);
    return comm_id_create(kind, size, SHM_STAGING_BYTES, ret, err);
}

Status rank_group_join(const JobConfig *config, const CommDevice *device, const CommId *id,
                       int rank, int size, Comm **ret, Error *err)
{
    CommKind kind = kind_of(config, size);
    Comm *comm = NULL;
    CHECKF(kind != COMM_NCCL || device->streams != NULL, "a device without streams");
    if (kind == COMM_NCCL)
        TRY(comm_create_nccl(device, id, rank, size, NCCL_JOIN_TIMEOUT_MS, &comm, err));
    else
        TRY(comm_create(kind, id, rank, size, SHM_JOIN_TIMEOUT_MS, &comm, err));
    comm_set_timeout(comm, (int)config->cluster.collective_timeout_s * 1000);
    *ret = comm;
    return OK;
}
