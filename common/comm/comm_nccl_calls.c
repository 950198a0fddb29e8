/* The collectives: NCCL moves, and where something is summed, a kernel of the device sums what was
 * moved, in rank order (comm.h).
 *
 * An all-reduce of n ranks gathers all of a small tensor on every rank, and each sums all of it. Of
 * a large one each rank receives its slice from all others, sums it, and the slices are gathered:
 * both times (n - 1) / n of the tensor goes over the wire, as in a ring. Two ranks gather always:
 * that moves as much, in one go. */
#include "comm/comm_nccl.h"

#include <stdlib.h>

#include "base/limits.h"
#include "base/memory.h"

#define WHOLE_MAX_BYTES ((int64_t)256 * 1024)
/* Slices and pieces begin at multiples of this: whole cache lines of the device. */
#define ALIGN_BYTES 128

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void *nccl_stream(NcclComm *comm)
{
    const DeviceStreams *streams = comm->device.streams;
    void *kernels = streams->kernel_stream();
    if (!comm->apart) return kernels;
    streams->event_record(comm->ready, kernels);
    streams->stream_wait(comm->stream, comm->ready);
    return comm->stream;
}

/* ---- moving ---- */

static Status gather(NcclComm *comm, void *out, const void *in, int64_t bytes, void *stream,
                     Error *err)
{
    if (bytes == 0) return OK;
    return nccl_check(
        comm,
        comm->api.all_gather(in, out, (size_t)bytes, NCCL_UINT8, atomic_load(&comm->nccl), stream),
        err);
}

/* Rank r's part p goes to rank p's place r: parts of `in` are `stride` bytes apart, places in the
 * staging memory `bytes`. */
static Status exchange(NcclComm *comm, const char *in, int64_t stride, int64_t bytes, void *stream,
                       Error *err)
{
    const NcclApi *api = &comm->api;
    NcclHandle *nccl = atomic_load(&comm->nccl);
    NcclResult result = api->group_start(), worst = result;
    for (int r = 0; r < comm->base.size && worst == NCCL_SUCCESS; r++) {
        result = api->send(in + r * stride, (size_t)bytes, NCCL_UINT8, r, nccl, stream);
        if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS) worst = result;
        result = api->recv(comm->staging + r * bytes, (size_t)bytes, NCCL_UINT8, r, nccl, stream);
        if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS) worst = result;
    }
    result = api->group_end();
    return nccl_check(comm, worst != NCCL_SUCCESS ? worst : result, err);
}

/* out[i] = the sum of the staging memory's `size` parts of `count` elements. */
static void sum_staged(const NcclComm *comm, void *out, int64_t count, CommReduction how,
                       void *stream)
{
    PartReduction reduction = {
        .out = out,
        .parts = comm->staging,
        .num_parts = comm->base.size,
        .count = count,
        .stride = count,
        .dtype = how.element == ELEMENT_F32 ? DTYPE_F32 : DTYPE_BF16,
        .maximum = how.op == COMM_MAX,
    };
    comm->device.streams->reduce_parts(stream, &reduction);
}

Status nccl_connect(NcclComm *comm, void *stream, Error *err)
{
    int64_t bytes = ALIGN_BYTES / comm->base.size;
    if (bytes == 0) bytes = 1;
    TRY(gather(comm, comm->staging, comm->staging + comm->base.rank * bytes, bytes, stream, err));
    /* Every place takes what is in it; nobody reads it. */
    return exchange(comm, comm->staging + comm->base.size * bytes, 0, bytes, stream, err);
}

/* ---- all-reduce ---- */

/* Of what still fits the staging memory when every rank's part is in it. */
static int64_t part_elements(const NcclComm *comm, int64_t element_size)
{
    int64_t bytes = comm->staging_bytes / comm->base.size / ALIGN_BYTES * ALIGN_BYTES;
    return bytes / element_size;
}

static Status reduce_whole(NcclComm *comm, char *data, int64_t count, CommReduction how,
                           void *stream, Error *err)
{
    int64_t size = (int64_t)comm_element_size(how.element), most = part_elements(comm, size);
    for (int64_t first = 0; first < count; first += most) {
        int64_t n = smaller(most, count - first);
        char *piece = data + first * size;
        TRY(gather(comm, comm->staging, piece, n * size, stream, err));
        sum_staged(comm, piece, n, how, stream);
    }
    return OK;
}

/* Of `slices` elements per rank: as many as that on every rank. */
static Status reduce_slices(NcclComm *comm, char *data, int64_t slices, CommReduction how,
                            void *stream, Error *err)
{
    int64_t size = (int64_t)comm_element_size(how.element), most = part_elements(comm, size);
    int ranks = comm->base.size, rank = comm->base.rank;
    for (int64_t first = 0; first < slices; first += most) {
        /* A piece is `ranks` slices, side by side. */
        int64_t bytes = smaller(most, slices - first) * size;
        char *piece = data + first * ranks * size, *mine = piece + rank * bytes;
        TRY(exchange(comm, piece, bytes, bytes, stream, err));
        sum_staged(comm, mine, bytes / size, how, stream);
        TRY(gather(comm, piece, mine, bytes, stream, err));
    }
    return OK;
}

static Status queue_all_reduce(NcclComm *comm, void *data, int64_t count, CommReduction how,
                               void *stream, Error *err)
{
    int64_t size = (int64_t)comm_element_size(how.element), unit = ALIGN_BYTES / size;
    int64_t slices = 0;
    if (comm->base.size > 2 && count * size > WHOLE_MAX_BYTES)
        slices = count / comm->base.size / unit * unit;
    int64_t sliced = slices * comm->base.size;
    TRY(reduce_slices(comm, data, slices, how, stream, err));
    return reduce_whole(comm, (char *)data + sliced * size, count - sliced, how, stream, err);
}

/* Ordinary memory: gathered through the device, summed by the host. */
static Status reduce_host_values(NcclComm *comm, double *values, int64_t count, CommOp op,
                                 Error *err)
{
    const KernelTable *kernels = comm->device.kernels;
    int64_t bytes = count * (int64_t)sizeof *values;
    char *place = comm->staging + comm->base.rank * bytes;
    CHECKF(bytes * comm->base.size <= comm->staging_bytes, "%lld doubles in %lld bytes",
           (long long)count, (long long)comm->staging_bytes);
    void *stream = comm->device.streams->kernel_stream();
    TRY(nccl_call_begin(comm, comm_signature(CALL_ALL_REDUCE, ELEMENT_F64, op, 0, count), err));
    kernels->upload(place, values, (size_t)bytes);
    Status status = gather(comm, comm->staging, place, bytes, stream, err);
    TRY(nccl_call_end(comm, status, stream, err));
    TRY(nccl_settle(&comm->base, err));
    double *all = mem_calloc((size_t)(count * comm->base.size) + 1, sizeof *all);
    const void *source[SHM_RANKS_MAX];
    kernels->download(all, comm->staging, (size_t)(bytes * comm->base.size));
    for (int r = 0; r < comm->base.size; r++)
        source[r] = all + r * count;
    comm_reduce_sources(values, NULL, source, comm->base.size, count,
                        (CommReduction){ELEMENT_F64, op});
    free(all);
    return OK;
}

Status nccl_all_reduce(Comm *base, void *data, int64_t count, CommElement element, CommOp op,
                       Error *err)
{
    NcclComm *comm = nccl_comm(base);
    if (element == ELEMENT_F64) return reduce_host_values(comm, data, count, op, err);
    void *stream = comm->device.streams->kernel_stream();
    TRY(nccl_call_begin(comm, comm_signature(CALL_ALL_REDUCE, element, op, 0, count), err));
    Status status = queue_all_reduce(comm, data, count, (CommReduction){element, op}, stream, err);
    return nccl_call_end(comm, status, stream, err);
}

/* On a stream beside the kernels', behind those called so far. */
Status nccl_all_reduce_start(Comm *base, void *data, int64_t count, CommElement element, CommOp op,
                             Error *err)
{
    NcclComm *comm = nccl_comm(base);
    const DeviceStreams *streams = comm->device.streams;
    TRY(nccl_call_begin(comm, comm_signature(CALL_ALL_REDUCE, element, op, 0, count), err));
    comm->started = comm->newest;
    streams->event_record(comm->ready, streams->kernel_stream());
    streams->stream_wait(comm->stream, comm->ready);
    Status status =
        queue_all_reduce(comm, data, count, (CommReduction){element, op}, comm->stream, err);
    return nccl_call_end(comm, status, comm->stream, err);
}

/* No other call was begun since, so the place in the ring, and its event, are still that call's. */
Status nccl_all_reduce_finish(Comm *base, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    const DeviceStreams *streams = comm->device.streams;
    (void)err;
    streams->stream_wait(streams->kernel_stream(), comm->started->event);
    comm->started = NULL;
    return OK;
}

/* ---- the others ---- */

Status nccl_all_gather(Comm *base, void *out, const void *in, int64_t bytes, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    void *stream = comm->device.streams->kernel_stream();
    TRY(nccl_call_begin(comm, comm_signature(CALL_ALL_GATHER, ELEMENT_BYTE, COMM_SUM, 0, bytes),
                        err));
    return nccl_call_end(comm, gather(comm, out, in, bytes, stream, err), stream, err);
}

static Status queue_reduce_scatter(NcclComm *comm, char *out, const char *in, int64_t count,
                                   CommReduction how, void *stream, Error *err)
{
    int64_t size = (int64_t)comm_element_size(how.element), most = part_elements(comm, size);
    for (int64_t first = 0; first < count; first += most) {
        int64_t n = smaller(most, count - first);
        TRY(exchange(comm, in + first * size, count * size, n * size, stream, err));
        sum_staged(comm, out + first * size, n, how, stream);
    }
    return OK;
}

Status nccl_reduce_scatter(Comm *base, void *out, const void *in, int64_t count,
                           CommElement element, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    void *stream = comm->device.streams->kernel_stream();
    TRY(nccl_call_begin(comm, comm_signature(CALL_REDUCE_SCATTER, element, COMM_SUM, 0, count),
                        err));
    Status status =
        queue_reduce_scatter(comm, out, in, count, (CommReduction){element, COMM_SUM}, stream, err);
    return nccl_call_end(comm, status, stream, err);
}

static Status broadcast(NcclComm *comm, void *data, int64_t bytes, int root, void *stream,
                        Error *err)
{
    if (bytes == 0) return OK;
    return nccl_check(comm,
                      comm->api.broadcast(data, data, (size_t)bytes, NCCL_UINT8, root,
                                          atomic_load(&comm->nccl), stream),
                      err);
}

Status nccl_broadcast(Comm *base, void *data, int64_t bytes, int root, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    TRY(nccl_call_begin(comm, comm_signature(CALL_BROADCAST, ELEMENT_BYTE, COMM_SUM, root, bytes),
                        err));
    void *stream = nccl_stream(comm);
    return nccl_call_end(comm, broadcast(comm, data, bytes, root, stream, err), stream, err);
}

/* Through the staging memory, one call per piece of it. */
Status nccl_broadcast_host(Comm *base, void *data, int64_t bytes, int root, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    const KernelTable *kernels = comm->device.kernels;
    int64_t first = 0;
    do {
        int64_t n = smaller(comm->staging_bytes, bytes - first);
        char *piece = (char *)data + first;
        TRY(nccl_call_begin(
            comm, comm_signature(CALL_BROADCAST, ELEMENT_BYTE, COMM_SUM, root, bytes), err));
        if (base->rank == root) kernels->upload(comm->staging, piece, (size_t)n);
        void *stream = nccl_stream(comm);
        Status status = broadcast(comm, comm->staging, n, root, stream, err);
        TRY(nccl_call_end(comm, status, stream, err));
        TRY(nccl_settle(base, err));
        if (base->rank != root) kernels->download(piece, comm->staging, (size_t)n);
        first += n;
    } while (first < bytes);
    return OK;
}

Status nccl_barrier(Comm *base, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    TRY(nccl_call_begin(comm, comm_signature(CALL_BARRIER, ELEMENT_BYTE, COMM_SUM, 0, 0), err));
    void *stream = nccl_stream(comm);
    Status status = gather(comm, comm->staging, comm->staging + base->rank, 1, stream, err);
    TRY(nccl_call_end(comm, status, stream, err));
    return nccl_settle(base, err);
}

/* ---- from one rank to one other ---- */

static NcclResult queue_message(NcclComm *comm, uint64_t signature, Tensor tensor, void *stream)
{
    const NcclApi *api = &comm->api;
    NcclHandle *nccl = atomic_load(&comm->nccl);
    int peer = comm_peer(signature);
    size_t bytes = tensor_bytes(&tensor);
    if (bytes == 0) return NCCL_SUCCESS;
    return comm_is_send(signature) ? api->send(tensor.data, bytes, NCCL_UINT8, peer, nccl, stream)
                                   : api->recv(tensor.data, bytes, NCCL_UINT8, peer, nccl, stream);
}

static Status move(NcclComm *comm, CommCall call, Tensor tensor, int peer, Error *err)
{
    uint64_t signature = comm_pair_signature(call, tensor.dtype, peer, tensor_count(&tensor));
    TRY(nccl_call_begin(comm, signature, err));
    void *stream = nccl_stream(comm);
    Status status = nccl_check(comm, queue_message(comm, signature, tensor, stream), err);
    return nccl_call_end(comm, status, stream, err);
}

Status nccl_send(Comm *base, Tensor tensor, int to, Error *err)
{
    return move(nccl_comm(base), CALL_SEND, tensor, to, err);
}

Status nccl_recv(Comm *base, Tensor tensor, int from, Error *err)
{
    return move(nccl_comm(base), CALL_RECV, tensor, from, err);
}
