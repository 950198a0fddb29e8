/* A group whose data NCCL moves; private to common/comm.
 *
 * A call is queued on a stream of the device and an event behind it; the calls under way form a
 * ring in the order they were begun. A thread of the Comm's own watches the oldest: whether it is
 * done, whether NCCL or the board (comm_board.h) knows of a failure, whether its time is over. When
 * something is wrong it aborts the communicator, which ends NCCL's kernels on the device: whoever
 * waits for the device (a download) then comes back, and learns from comm_settle or from its next
 * call that what it has is worth nothing. */
#ifndef TROUPE_COMM_COMM_NCCL_H
#define TROUPE_COMM_COMM_NCCL_H

#include <pthread.h>
#include <semaphore.h>

#include "comm/comm_board.h"
#include "comm/nccl_api.h"

/* Calls under way; one more waits for the oldest. */
#define PENDING_MAX 256

typedef struct PendingCall {
    BoardWait call;
    void *event;
    int64_t begun_ms;
    int timeout_ms;
} PendingCall;

typedef struct NcclComm {
    Comm base;
    CommDevice device;
    NcclApi api;
    CommBoard *board; /* NULL: rank 0 is on another host */
    NcclUniqueId unique;
    SharedMemoryId board_id;
    bool apart;    /* its calls go on `stream`, and no kernel waits for them */
    char *staging; /* device memory: what is gathered to be summed */
    int64_t staging_bytes;
    void *stream;         /* of all-reduces in two halves, or of all calls */
    void *ready;          /* event: the kernels that what goes there waits for */
    PendingCall *started; /* such a one */
    PendingCall *newest;  /* the call that is being queued, or was last */

    pthread_t watcher;
    bool watched;
    sem_t stop; /* posted when the watcher is to end */

    pthread_mutex_t mutex; /* guards what follows; held while a call is queued */
    uint64_t calls;        /* of all ranks, begun */
    uint64_t *pair_calls;  /* recvs from rank r: at 2 r; sends to it: behind that */
    PendingCall pending[PENDING_MAX];
    uint64_t first, count;      /* the oldest is pending[first % PENDING_MAX] */
    int64_t first_ms;           /* since when it is the oldest */
    int64_t looked_ms, lost_ms; /* last look at the board; since when a dead rank is waited for */
    Error failure;              /* why this Comm is unusable; status OK while it is not */
    _Atomic(NcclHandle *) nccl; /* NULL before it is made and once it is aborted */
    _Atomic int64_t lock_until_ms; /* when a call that is being queued is late; 0: none is */
    atomic_bool abort_asked, stuck;
    _Atomic uint64_t oldest, oldest_signature; /* for describe_wait; 0: none is under way */
} NcclComm;

/* What CommId holds for this kind. */
typedef struct NcclId {
    char kind; /* as comm.c writes it */
    uint32_t size;
    bool apart;
    uint64_t staging_bytes;
    SharedMemoryId board; /* apart: none */
    NcclUniqueId unique;
} NcclId;

_Static_assert(sizeof(NcclId) <= COMM_ID_BYTES, "an id must hold it");

static inline NcclComm *nccl_comm(Comm *comm)
{
    return (NcclComm *)comm;
}

/* ---- comm_nccl_watch.c ---- */

/* Locks; or says why no call can be begun. */
Status nccl_call_begin(NcclComm *comm, uint64_t signature, Error *err);
/* Unlocks. A call of which all went well is under way on `stream` from here on. */
Status nccl_call_end(NcclComm *comm, Status status, void *stream, Error *err);
/* What a function of NCCL returned while locked: waits until it is through. */
Status nccl_check(NcclComm *comm, NcclResult result, Error *err);
/* Fails the group, for all who see it. While locked. */
Status nccl_fail(NcclComm *comm, Status status, const char *text, Error *err);
Status nccl_settle(Comm *base, Error *err);
void nccl_abort(Comm *base);
void nccl_describe_wait(const Comm *base, char *text, size_t size);
void *nccl_watch(void *comm);

/* ---- comm_nccl_calls.c ---- */

/* What a call goes on: behind the kernels that were called so far. */
void *nccl_stream(NcclComm *comm);

Status nccl_all_reduce(Comm *base, void *data, int64_t count, CommElement element, CommOp op,
                       Error *err);
Status nccl_all_reduce_start(Comm *base, void *data, int64_t count, CommElement element, CommOp op,
                             Error *err);
Status nccl_all_reduce_finish(Comm *base, Error *err);
Status nccl_all_gather(Comm *base, void *out, const void *in, int64_t bytes, Error *err);
Status nccl_reduce_scatter(Comm *base, void *out, const void *in, int64_t count,
                           CommElement element, Error *err);
Status nccl_broadcast(Comm *base, void *data, int64_t bytes, int root, Error *err);
Status nccl_broadcast_host(Comm *base, void *data, int64_t bytes, int root, Error *err);
Status nccl_barrier(Comm *base, Error *err);
Status nccl_send(Comm *base, Tensor tensor, int to, Error *err);
Status nccl_recv(Comm *base, Tensor tensor, int from, Error *err);
/* Between begin and end: moves a little between all ranks in both ways that calls do, so that NCCL
 * connects them now and not in somebody's first step. */
Status nccl_connect(NcclComm *comm, void *stream, Error *err);

#endif
