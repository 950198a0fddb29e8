/* A group of one: everything is already where it should be. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "comm/comm_kind.h"

typedef struct SelfComm {
    Comm base;
    atomic_bool aborted;
} SelfComm;

static Status self_id_create(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    (void)staging_bytes;
    (void)ret;
    if (size != 1)
        return error_set(err, ERR_INVALID, "a group of kind \"self\" has 1 rank, not %d", size);
    return OK;
}

static Status self_create(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                          Error *err)
{
    (void)id;
    if (size != 1)
        return error_set(err, ERR_INVALID, "a group of kind \"self\" has 1 rank, not %d", size);
    SelfComm *self = mem_calloc(1, sizeof *self);
    self->base = (Comm){.table = &comm_self_table, .rank = rank, .size = size};
    self->base.timeout_ms = timeout_ms;
    *ret = &self->base;
    return OK;
}

static void self_destroy(Comm *comm)
{
    free(comm);
}

static Status self_barrier(Comm *comm, Error *err)
{
    SelfComm *self = (SelfComm *)comm;
    if (atomic_load(&self->aborted)) return error_set(err, ERR_CANCELLED, "the group was aborted");
    return OK;
}

static Status self_all_reduce(Comm *comm, void *data, int64_t count, CommElement element, CommOp op,
                              Error *err)
{
    (void)data;
    (void)count;
    (void)element;
    (void)op;
    return self_barrier(comm, err);
}

static Status self_copy(Comm *comm, void *out, const void *in, int64_t bytes, Error *err)
{
    TRY(self_barrier(comm, err));
    if (out != in && bytes > 0) memcpy(out, in, (size_t)bytes);
    return OK;
}

static Status self_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count,
                                  CommElement element, Error *err)
{
    return self_copy(comm, out, in, count * (int64_t)comm_element_size(element), err);
}

static Status self_broadcast(Comm *comm, void *data, int64_t bytes, int root, Error *err)
{
    (void)root;
    return self_copy(comm, data, data, bytes, err);
}

static void self_abort(Comm *comm)
{
    atomic_store(&((SelfComm *)comm)->aborted, true);
}

static void self_describe_wait(const Comm *comm, char *text, size_t size)
{
    (void)comm;
    if (size > 0) text[0] = '\0';
}

const CommTable comm_self_table = {
    .name = "self",
    .id_create = self_id_create,
    .create = self_create,
    .destroy = self_destroy,
    .all_reduce = self_all_reduce,
    .all_gather = self_copy,
    .reduce_scatter = self_reduce_scatter,
    .broadcast = self_broadcast,
    .barrier = self_barrier,
    .abort = self_abort,
    .describe_wait = self_describe_wait,
};
