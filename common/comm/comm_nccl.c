/* Joining and leaving a group of the kind nccl. */
#include "comm/comm_nccl.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/memory.h"

/* How long a rank that leaves waits for NCCL to take leave of the others. */
#define FINALIZE_MS 2000
#define NAP_US      200
/* Below this a piece is all latency. */
#define STAGING_MIN ((size_t)64 * 1024)

Status comm_check_nccl(const char *library, Error *err)
{
    NcclApi api;
    return nccl_api_load(library, &api, err);
}

/* ---- ids ---- */

static Status create_id(const CommDevice *device, int size, size_t staging_bytes, bool apart,
                        CommId *ret, Error *err)
{
    NcclApi api;
    NcclId id;
    CHECK(size >= 1);
    memset(&id, 0, sizeof id);
    if (size > SHM_RANKS_MAX)
        return error_set(err, ERR_INVALID, "a group of %d ranks; at most %d work together", size,
                         SHM_RANKS_MAX);
    TRY(nccl_api_load(device->nccl_library, &api, err));
    NcclResult result = api.get_unique_id(&id.unique);
    if (result != NCCL_SUCCESS)
        return error_set(err, nccl_status(result), "NCCL made no id for a group: %s: %s",
                         api.get_error_string(result), api.get_last_error(NULL));
    if (!apart) TRY(comm_board_create(size, &id.board, err));
    id.kind = COMM_NCCL;
    id.apart = apart;
    id.size = (uint32_t)size;
    id.staging_bytes = staging_bytes < STAGING_MIN ? STAGING_MIN : staging_bytes;
    memset(ret, 0, sizeof *ret);
    memcpy(ret->bytes, &id, sizeof id);
    return OK;
}

Status comm_id_create_nccl(const CommDevice *device, int size, size_t staging_bytes, CommId *ret,
                           Error *err)
{
    return create_id(device, size, staging_bytes, false, ret, err);
}

Status comm_id_create_apart(const CommDevice *device, int size, size_t staging_bytes, CommId *ret,
                            Error *err)
{
    return create_id(device, size, staging_bytes, true, ret, err);
}

static void nccl_id_discard(const CommId *comm_id)
{
    NcclId id;
    memcpy(&id, comm_id->bytes, sizeof id);
    shared_memory_discard(&id.board);
}

/* ---- joining ---- */

static void make_events(NcclComm *comm)
{
    const DeviceStreams *streams = comm->device.streams;
    comm->stream = streams->stream_create();
    comm->ready = streams->event_create();
    for (int i = 0; i < PENDING_MAX; i++)
        comm->pending[i].event = streams->event_create();
}

static void free_events(NcclComm *comm)
{
    const DeviceStreams *streams = comm->device.streams;
    for (int i = 0; i < PENDING_MAX; i++)
        streams->event_destroy(comm->pending[i].event);
    streams->event_destroy(comm->ready);
    streams->stream_destroy(comm->stream);
}

/* The first call of all, as far as the others see it: NCCL's own meeting, and its connections. */
static Status meet(NcclComm *comm, Error *err)
{
    int size = comm->base.size;
    NcclConfig config = nccl_config();
    NcclHandle *nccl = NULL;
    void *stream = nccl_stream(comm);
    TRY(nccl_call_begin(comm, comm_signature(CALL_CREATE, ELEMENT_BYTE, COMM_SUM, 0, size), err));
    NcclResult result =
        comm->api.comm_init_rank_config(&nccl, size, comm->unique, comm->base.rank, &config);
    atomic_store(&comm->nccl, nccl);
    Status status = nccl_check(comm, result, err);
    if (status == OK) status = nccl_connect(comm, stream, err);
    TRY(nccl_call_end(comm, status, stream, err));
    return nccl_settle(&comm->base, err);
}

static Status join(NcclComm *comm, Error *err)
{
    Status status = comm_board_join(comm->board, comm->base.rank, err);
    if (status != OK) { /* its line is somebody else's */
        comm_board_close(comm->board);
        comm->board = NULL;
        return status;
    }
    comm->device.streams->use();
    comm->staging = comm->device.kernels->alloc((size_t)comm->staging_bytes);
    make_events(comm);
    CHECK(pthread_create(&comm->watcher, NULL, nccl_watch, comm) == 0);
    comm->watched = true;
    return meet(comm, err);
}

static Status read_id(const CommId *comm_id, int size, NcclId *ret, Error *err)
{
    memcpy(ret, comm_id->bytes, sizeof *ret);
    if (ret->kind != COMM_NCCL)
        return error_set(err, ERR_INVALID, "this is not the id of a group of kind \"nccl\"");
    if (ret->size != (uint32_t)size)
        return error_set(err, ERR_INVALID, "this group was made for %u ranks, not for %d",
                         (unsigned)ret->size, size);
    return OK;
}

static Status prefix_join(Error *err, int rank, int size)
{
    return error_prefix(err, "could not join the group as rank %d of %d", rank, size);
}

static void init(NcclComm *comm, const NcclId *id, int rank, int timeout_ms)
{
    comm->base.table = &comm_nccl_table;
    comm->base.rank = rank;
    comm->base.size = (int)id->size;
    comm->base.timeout_ms = timeout_ms;
    comm->staging_bytes = (int64_t)id->staging_bytes;
    comm->pair_calls = mem_calloc(2 * (size_t)id->size, sizeof *comm->pair_calls);
    comm->unique = id->unique;
    comm->board_id = id->board;
    comm->apart = id->apart;
    if (!id->apart) comm->board = comm_board_open(&id->board, (int)id->size);
    pthread_mutex_init(&comm->mutex, NULL);
    sem_init(&comm->stop, 0, 0);
}

Status comm_open_nccl(const CommDevice *device, const CommId *comm_id, int rank, int size,
                      int timeout_ms, Comm **ret, Error *err)
{
    NcclId id;
    NcclApi api;
    CHECKF(size >= 1 && rank >= 0 && rank < size, "rank %d of %d", rank, size);
    CHECK(device->streams->bytes == sizeof(DeviceStreams));
    TRY(read_id(comm_id, size, &id, err));
    if (nccl_api_load(device->nccl_library, &api, err) != OK) {
        if (rank == 0) shared_memory_discard(&id.board);
        return prefix_join(err, rank, size);
    }
    NcclComm *comm = mem_calloc(1, sizeof *comm);
    comm->device = *device;
    comm->api = api;
    init(comm, &id, rank, timeout_ms);
    *ret = &comm->base;
    return OK;
}

Status comm_join_nccl(Comm *base, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    Status status = join(comm, err);
    /* Everybody has opened the board by now, or never will. */
    if (base->rank == 0) shared_memory_discard(&comm->board_id);
    return status == OK ? OK : prefix_join(err, base->rank, base->size);
}

Status comm_create_nccl(const CommDevice *device, const CommId *id, int rank, int size,
                        int timeout_ms, Comm **ret, Error *err)
{
    Comm *comm = NULL;
    TRY(comm_open_nccl(device, id, rank, size, timeout_ms, &comm, err));
    Status status = comm_join_nccl(comm, err);
    if (status == OK)
        *ret = comm;
    else
        comm_destroy(comm);
    return status;
}

/* ---- leaving ---- */

static bool is_through(NcclComm *comm, NcclHandle *nccl, NcclResult result)
{
    int64_t until_ms = clock_ms() + FINALIZE_MS;
    while (result == NCCL_IN_PROGRESS && clock_ms() < until_ms) {
        usleep(NAP_US);
        NcclResult asked = comm->api.comm_get_async_error(nccl, &result);
        if (asked != NCCL_SUCCESS) return false;
    }
    return result == NCCL_SUCCESS;
}

/* A communicator may be destroyed once NCCL has taken leave of all ranks, otherwise it is aborted:
 * then no call is under way here (settled, or failed), and a rank that still waits for this one is
 * told by the board. */
static void leave_nccl(NcclComm *comm)
{
    NcclHandle *nccl = atomic_exchange(&comm->nccl, NULL);
    if (nccl == NULL) return;
    bool whole = comm->failure.status == OK && !atomic_load(&comm->abort_asked);
    if (whole && is_through(comm, nccl, comm->api.comm_finalize(nccl)))
        comm->api.comm_destroy(nccl);
    else
        comm->api.comm_abort(nccl);
}

/* Whether the device has done all that it was given here. After a failure kernels that sum what
 * never came are still queued, and read the staging memory. */
static bool is_drained(const NcclComm *comm)
{
    char text[512];
    int64_t until_ms = clock_ms() + FINALIZE_MS;
    for (int i = 0; i < PENDING_MAX; i++)
        while (comm->device.streams->event_query(comm->pending[i].event, text, sizeof text) ==
               EVENT_PENDING) {
            if (clock_ms() >= until_ms) return false;
            usleep(NAP_US);
        }
    return true;
}

static void nccl_destroy(Comm *base)
{
    NcclComm *comm = nccl_comm(base);
    if (comm->watched) nccl_settle(base, NULL);
    comm_board_leave(comm->board, base->rank);
    if (comm->watched) {
        sem_post(&comm->stop);
        pthread_join(comm->watcher, NULL);
        leave_nccl(comm);
        /* A device that hangs keeps what it may still write to. */
        if (is_drained(comm)) comm->device.kernels->free(comm->staging);
        free_events(comm);
    }
    comm_board_close(comm->board);
    sem_destroy(&comm->stop);
    pthread_mutex_destroy(&comm->mutex);
    free(comm->pair_calls);
    free(comm);
}

const CommTable comm_nccl_table = {
    .name = "nccl",
    .id_discard = nccl_id_discard,
    .destroy = nccl_destroy,
    .all_reduce = nccl_all_reduce,
    .all_gather = nccl_all_gather,
    .reduce_scatter = nccl_reduce_scatter,
    .broadcast = nccl_broadcast,
    .barrier = nccl_barrier,
    .send = nccl_send,
    .recv = nccl_recv,
    .all_reduce_start = nccl_all_reduce_start,
    .all_reduce_finish = nccl_all_reduce_finish,
    .broadcast_host = nccl_broadcast_host,
    .settle = nccl_settle,
    .abort = nccl_abort,
    .describe_wait = nccl_describe_wait,
};
