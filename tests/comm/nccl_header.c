/* Holds our declarations of NCCL's API (nccl_api.h) against NVIDIA's header, where one is
 * installed. It is compiled, and linked to nothing. */
#include <nccl.h>

#include <assert.h>

#include "comm/nccl_api.h"

static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId), "id");
static_assert(sizeof(NcclResult) == sizeof(ncclResult_t) && sizeof(int) == sizeof(ncclResult_t),
              "");
static_assert(sizeof(NcclType) == sizeof(ncclDataType_t), "");
static_assert((int)NCCL_SUCCESS == (int)ncclSuccess, "");
static_assert((int)NCCL_UNHANDLED_CUDA_ERROR == (int)ncclUnhandledCudaError, "");
static_assert((int)NCCL_SYSTEM_ERROR == (int)ncclSystemError, "");
static_assert((int)NCCL_INTERNAL_ERROR == (int)ncclInternalError, "");
static_assert((int)NCCL_INVALID_ARGUMENT == (int)ncclInvalidArgument, "");
static_assert((int)NCCL_INVALID_USAGE == (int)ncclInvalidUsage, "");
static_assert((int)NCCL_REMOTE_ERROR == (int)ncclRemoteError, "");
static_assert((int)NCCL_IN_PROGRESS == (int)ncclInProgress, "");
static_assert((int)NCCL_UINT8 == (int)ncclUint8, "");
static_assert(NCCL_UNDEFINED == NCCL_CONFIG_UNDEF_INT, "");

#define SAME_PLACE(ours, theirs)                                                                   \
    static_assert(offsetof(NcclConfig, ours) == offsetof(ncclConfig_t, theirs), #ours)
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(cga_cluster_size, cgaClusterSize);
SAME_PLACE(min_ctas, minCTAs);
SAME_PLACE(max_ctas, maxCTAs);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
static_assert(sizeof(NcclConfig) <= sizeof(ncclConfig_t), "a library takes no more than it knows");

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 25, 0)
SAME_PLACE(traffic_class, trafficClass);
#endif

/* The functions' parameters: each of ours through theirs. */

static NcclResult init(NcclHandle **comm, int size, NcclUniqueId id, int rank, NcclConfig *config)
{
    ncclUniqueId unique;
    __builtin_memcpy(&unique, &id, sizeof unique);
    return (NcclResult)ncclCommInitRankConfig((ncclComm_t *)comm, size, unique, rank,
                                              (ncclConfig_t *)config);
}

static NcclResult all_gather(const void *in, void *out, size_t count, NcclType type,
                             NcclHandle *comm, void *stream)
{
    return (NcclResult)ncclAllGather(in, out, count, (ncclDataType_t)type, (ncclComm_t)comm,
                                     (cudaStream_t)stream);
}

static NcclResult broadcast(const void *in, void *out, size_t count, NcclType type, int root,
                            NcclHandle *comm, void *stream)
{
    return (NcclResult)ncclBroadcast(in, out, count, (ncclDataType_t)type, root, (ncclComm_t)comm,
                                     (cudaStream_t)stream);
}

static NcclResult send(const void *data, size_t count, NcclType type, int peer, NcclHandle *comm,
                       void *stream)
{
    return (NcclResult)ncclSend(data, count, (ncclDataType_t)type, peer, (ncclComm_t)comm,
                                (cudaStream_t)stream);
}

static NcclResult recv(void *data, size_t count, NcclType type, int peer, NcclHandle *comm,
                       void *stream)
{
    return (NcclResult)ncclRecv(data, count, (ncclDataType_t)type, peer, (ncclComm_t)comm,
                                (cudaStream_t)stream);
}

static NcclResult async_error(NcclHandle *comm, NcclResult *error)
{
    return (NcclResult)ncclCommGetAsyncError((ncclComm_t)comm, (ncclResult_t *)error);
}

static NcclResult unique_id(NcclUniqueId *id)
{
    return (NcclResult)ncclGetUniqueId((ncclUniqueId *)id);
}

/* Those of no type of ours but the handle. */
static NcclResult finalize(NcclHandle *comm)
{
    return (NcclResult)ncclCommFinalize((ncclComm_t)comm);
}

static NcclResult destroy(NcclHandle *comm)
{
    return (NcclResult)ncclCommDestroy((ncclComm_t)comm);
}

static NcclResult abort_it(NcclHandle *comm)
{
    return (NcclResult)ncclCommAbort((ncclComm_t)comm);
}

static const char *last_error(NcclHandle *comm)
{
    return ncclGetLastError((ncclComm_t)comm);
}

static const char *error_string(NcclResult result)
{
    return ncclGetErrorString((ncclResult_t)result);
}

static NcclResult group_start(void)
{
    return (NcclResult)ncclGroupStart();
}

static NcclResult group_end(void)
{
    return (NcclResult)ncclGroupEnd();
}

static NcclResult get_version(int *version)
{
    return (NcclResult)ncclGetVersion(version);
}

extern const NcclApi nccl_of_the_header;
const NcclApi nccl_of_the_header = {
    .get_version = get_version,
    .get_unique_id = unique_id,
    .comm_init_rank_config = init,
    .comm_finalize = finalize,
    .comm_destroy = destroy,
    .comm_abort = abort_it,
    .comm_get_async_error = async_error,
    .get_error_string = error_string,
    .get_last_error = last_error,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send,
    .recv = recv,
    .group_start = group_start,
    .group_end = group_end,
};
