/* Sends and recvs over shared memory: a message goes through the sender's outbox in pieces. */
#include <string.h>

#include "comm/comm_shm.h"

static int64_t piece_bytes(const ShmComm *comm, int64_t left)
{
    int64_t most = (int64_t)shm_outbox_bytes(comm->header);
    return left < most ? left : most;
}

static Status put_pieces(ShmComm *comm, ShmPair *pair, const char *data, int64_t bytes, Error *err)
{
    int64_t first = 0;
    uint32_t put = atomic_load(&pair->put.value);
    atomic_store_explicit(&pair->call, comm->signature, memory_order_relaxed);
    do {
        int64_t n = piece_bytes(comm, bytes - first);
        put++;
        TRY(shm_await(comm, &pair->taken, put - 2, err)); /* its place is free */
        if (n > 0) memcpy(shm_outbox(comm->header, comm->base.rank, put), data + first, (size_t)n);
        shm_raise(&pair->put, put);
        first += n;
    } while (first < bytes);
    return shm_await(comm, &pair->taken, put, err);
}

static Status take_pieces(ShmComm *comm, ShmPair *pair, int from, char *data, int64_t bytes,
                          Error *err)
{
    int64_t first = 0;
    uint32_t taken = atomic_load(&pair->taken.value);
    atomic_store(&pair->wanted, comm->signature);
    do {
        int64_t n = piece_bytes(comm, bytes - first);
        taken++;
        TRY(shm_await(comm, &pair->put, taken, err));
        uint64_t theirs = atomic_load_explicit(&pair->call, memory_order_relaxed);
        if (theirs != comm_other_side(comm->signature, comm->base.rank))
            return shm_fail_apart(comm, from, theirs, err);
        if (n > 0) memcpy(data + first, shm_outbox(comm->header, from, taken), (size_t)n);
        first += n;
        /* Before the sender can know that it is done. */
        if (first == bytes) atomic_store(&pair->wanted, 0);
        shm_raise(&pair->taken, taken);
    } while (first < bytes);
    return OK;
}

Status shm_send(Comm *base, Tensor tensor, int to, Error *err)
{
    ShmComm *comm = (ShmComm *)base;
    ShmPair *pair = shm_pair(comm->header, base->rank, to);
    TRY(shm_call_begin(
        comm, comm_pair_signature(CALL_SEND, tensor.dtype, to, tensor_count(&tensor)), err));
    return shm_call_end(comm,
                        put_pieces(comm, pair, tensor.data, (int64_t)tensor_bytes(&tensor), err));
}

Status shm_recv(Comm *base, Tensor tensor, int from, Error *err)
{
    ShmComm *comm = (ShmComm *)base;
    ShmPair *pair = shm_pair(comm->header, from, base->rank);
    TRY(shm_call_begin(
        comm, comm_pair_signature(CALL_RECV, tensor.dtype, from, tensor_count(&tensor)), err));
    int64_t bytes = (int64_t)tensor_bytes(&tensor);
    return shm_call_end(comm, take_pieces(comm, pair, from, tensor.data, bytes, err));
}

/* What the peer waits in for this rank, if it is not what this rank waits in; 0: nothing. */
static uint64_t peers_wait(ShmComm *comm, int peer)
{
    int own = comm->base.rank;
    ShmRank *line = &comm->header->rank[peer];
    uint32_t next = comm->meeting + 1;
    if (shm_has_reached(&line->arrived, next))
        return atomic_load_explicit(&line->call[next & 1], memory_order_relaxed);
    if (!comm_is_send(comm->signature))
        return atomic_load(&shm_pair(comm->header, own, peer)->wanted);
    ShmPair *pair = shm_pair(comm->header, peer, own);
    uint32_t taken = atomic_load(&pair->taken.value); /* by this rank */
    return shm_has_reached(&pair->put, taken + 1) ? atomic_load(&pair->call) : 0;
}

bool shm_pair_is_stuck(ShmComm *comm, uint64_t *ret_theirs)
{
    int peer = comm_peer(comm->signature);
    uint64_t theirs = peer >= 0 ? peers_wait(comm, peer) : 0;
    *ret_theirs = theirs;
    /* It may have done its part of this call before it went on to the other. */
    return theirs != 0 && !shm_has_reached(atomic_load(&comm->awaited), atomic_load(&comm->target));
}
