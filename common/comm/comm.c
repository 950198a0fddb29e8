#include "comm/comm.h"

#include <stdlib.h>
#include <string.h>

#include "comm/comm_kind.h"

static const CommTable *const tables[] = {
    [COMM_SELF] = &comm_self_table,
    [COMM_SHM] = &comm_shm_table,
    [COMM_NCCL] = &comm_nccl_table,
};
#define KIND_COUNT (sizeof tables / sizeof tables[0])

Status comm_id_create(CommKind kind, int size, size_t staging_bytes, CommId *ret, Error *err)
{
    CHECK((size_t)kind < KIND_COUNT && size >= 1 && tables[kind]->id_create != NULL);
    CommId id;
    memset(&id, 0, sizeof id);
    id.bytes[0] = (char)kind;
    TRY(tables[kind]->id_create(size, staging_bytes, &id, err));
    *ret = id;
    return OK;
}

void comm_id_discard(const CommId *id)
{
    size_t kind = (unsigned char)id->bytes[0];
    if (kind < KIND_COUNT && tables[kind]->id_discard != NULL) tables[kind]->id_discard(id);
}

Status comm_create(CommKind kind, const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                   Error *err)
{
    CHECK((size_t)kind < KIND_COUNT && tables[kind]->create != NULL);
    CHECKF(size >= 1 && rank >= 0 && rank < size, "rank %d of %d", rank, size);
    if (id->bytes[0] != (char)kind)
        return error_set(err, ERR_INVALID, "this is not the id of a group of kind \"%s\"",
                         tables[kind]->name);
    return tables[kind]->create(id, rank, size, timeout_ms, ret, err);
}

void comm_destroy(Comm *comm)
{
    if (comm != NULL) comm->table->destroy(comm);
}

int comm_rank(const Comm *comm)
{
    return comm->rank;
}

int comm_size(const Comm *comm)
{
    return comm->size;
}

void comm_set_timeout(Comm *comm, int timeout_ms)
{
    CHECK(timeout_ms > 0);
    comm->timeout_ms = timeout_ms;
}

/* ---- calls ---- */

static CommElement reducible(DType dtype)
{
    CHECKF(dtype == DTYPE_F32 || dtype == DTYPE_BF16, "%s cannot be reduced", dtype_name(dtype));
    return dtype == DTYPE_F32 ? ELEMENT_F32 : ELEMENT_BF16;
}

/* Every call comes by here first. */
static const CommTable *table_of(const Comm *comm)
{
    CHECKF(!comm->started, "comm_all_reduce_finish comes first");
    return comm->table;
}

Status comm_all_reduce(Comm *comm, Tensor tensor, CommOp op, Error *err)
{
    return table_of(comm)->all_reduce(comm, tensor.data, tensor_count(&tensor),
                                      reducible(tensor.dtype), op, err);
}

Status comm_all_reduce_f64(Comm *comm, double *values, int count, CommOp op, Error *err)
{
    CHECK(count >= 0);
    return table_of(comm)->all_reduce(comm, values, count, ELEMENT_F64, op, err);
}

Status comm_all_reduce_start(Comm *comm, Tensor tensor, CommOp op, Error *err)
{
    const CommTable *table = table_of(comm);
    CommElement element = reducible(tensor.dtype);
    int64_t count = tensor_count(&tensor);
    if (table->all_reduce_start != NULL)
        TRY(table->all_reduce_start(comm, tensor.data, count, element, op, err));
    comm->started = true;
    comm->started_data = tensor.data;
    comm->started_count = count;
    comm->started_how = (CommReduction){element, op};
    return OK;
}

Status comm_all_reduce_finish(Comm *comm, Error *err)
{
    CHECKF(comm->started, "comm_all_reduce_start comes first");
    comm->started = false;
    if (comm->table->all_reduce_finish != NULL) return comm->table->all_reduce_finish(comm, err);
    return comm->table->all_reduce(comm, comm->started_data, comm->started_count,
                                   comm->started_how.element, comm->started_how.op, err);
}

static void check_pieces(const Comm *comm, const Tensor *whole, const Tensor *piece)
{
    CHECK(whole->dtype == piece->dtype);
    CHECKF(tensor_count(whole) / comm->size == tensor_count(piece) &&
               tensor_count(whole) % comm->size == 0,
           "%lld elements in %d pieces of %lld", (long long)tensor_count(whole), comm->size,
           (long long)tensor_count(piece));
}

Status comm_all_gather(Comm *comm, Tensor out, Tensor in, Error *err)
{
    check_pieces(comm, &out, &in);
    return table_of(comm)->all_gather(comm, out.data, in.data, (int64_t)tensor_bytes(&in), err);
}

Status comm_reduce_scatter(Comm *comm, Tensor out, Tensor in, Error *err)
{
    check_pieces(comm, &in, &out);
    return table_of(comm)->reduce_scatter(comm, out.data, in.data, tensor_count(&out),
                                          reducible(out.dtype), err);
}

Status comm_broadcast(Comm *comm, Tensor tensor, int root, Error *err)
{
    CHECK(root >= 0 && root < comm->size);
    return table_of(comm)->broadcast(comm, tensor.data, (int64_t)tensor_bytes(&tensor), root, err);
}

Status comm_broadcast_host(Comm *comm, void *host_data, size_t bytes, int root, Error *err)
{
    const CommTable *table = table_of(comm);
    CHECK(root >= 0 && root < comm->size);
    return (table->broadcast_host != NULL ? table->broadcast_host : table->broadcast)(
        comm, host_data, (int64_t)bytes, root, err);
}

static Status check_peer(const Comm *comm, const char *call, int peer, Error *err)
{
    CHECKF(peer >= 0 && peer < comm->size, "%s: rank %d of %d", call, peer, comm->size);
    if (peer != comm->rank) return OK;
    return error_set(err, ERR_INVALID,
                     "%s: rank %d is this rank itself; a message goes between two ranks of a group "
                     "(this one has %d)",
                     call, peer, comm->size);
}

Status comm_send(Comm *comm, Tensor tensor, int to, Error *err)
{
    const CommTable *table = table_of(comm);
    TRY(check_peer(comm, "comm_send", to, err));
    return table->send(comm, tensor, to, err);
}

Status comm_recv(Comm *comm, Tensor tensor, int from, Error *err)
{
    const CommTable *table = table_of(comm);
    TRY(check_peer(comm, "comm_recv", from, err));
    return table->recv(comm, tensor, from, err);
}

Status comm_barrier(Comm *comm, Error *err)
{
    return table_of(comm)->barrier(comm, err);
}

Status comm_settle(Comm *comm, Error *err)
{
    const CommTable *table = table_of(comm);
    return table->settle != NULL ? table->settle(comm, err) : OK;
}

void comm_abort(Comm *comm)
{
    comm->table->abort(comm);
}

void comm_describe_wait(const Comm *comm, char *text, size_t size)
{
    comm->table->describe_wait(comm, text, size);
}
