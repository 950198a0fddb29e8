/* NCCL's functions. Whatever is moved goes chunk by chunk through a mailbox per pair of ranks, in
 * memory that the ranks share. */
#include "tests/comm/nccl_double.h"
#include "tests/comm/double_fence.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "comm/nccl_api.h"

#define EXPORT     __attribute__((visibility("default")))
#define RANKS_MAX  8
#define CHUNK      16384
#define CONNECT_US 2000 /* that the first calls are in progress */
#define SLOW_CALLS 3
#define ID_FILLED  0x5A
#define TRANSFERS  (2 * RANKS_MAX)

typedef struct Mailbox {
    _Atomic uint64_t written, read;
    size_t bytes;
    char data[CHUNK];
} Mailbox;

typedef struct World {
    _Atomic int joined;
    Mailbox box[RANKS_MAX][RANKS_MAX]; /* [from][to] */
} World;

typedef struct DoubleId {
    int pid, fd;
} DoubleId;

struct NcclHandle {
    World *world;
    int rank, size;
    atomic_int state; /* NcclResult */
    atomic_bool aborted, gone;
    _Atomic uint64_t queued, done; /* calls on the device */
    pthread_t helper;
    bool has_helper;
    int slow_calls;
    NcclHandle *next_gone;
};

typedef struct Transfer {
    bool sends;
    int peer;
    char *data;
    size_t bytes, moved;
    char *place; /* behind a fence: what `data` stands for */
} Transfer;

/* A call on its way to the device and there. */
typedef struct Op {
    NcclHandle *comm;
    void *stream;
    uint64_t number;
    DoubleFault fault;
    int result;
    int count;
    Transfer transfer[TRANSFERS];
} Op;

static DoublePlan planned;
static atomic_int calls;
static _Atomic(NcclHandle *) gone; /* those that were ended */
static _Thread_local Op *group;
static _Thread_local int group_depth;

EXPORT void nccl_double_plan(const DoublePlan *plan)
{
    planned = *plan;
}

EXPORT int nccl_double_calls(void)
{
    return atomic_load(&calls);
}

static void check_usable(const NcclHandle *comm)
{
    if (comm != NULL && !atomic_load(&comm->gone)) return;
    fprintf(stderr, "nccl_double: a communicator is used that is gone\n");
    abort();
}

static void wait_until(const NcclHandle *comm, bool (*is_so)(const NcclHandle *))
{
    while (!is_so(comm) && !atomic_load(&comm->aborted))
        usleep(100);
}

/* ---- on the device ---- */

/* A chunk, if there is one to move. */
static bool move_chunk(NcclHandle *comm, Transfer *t)
{
    Mailbox *box =
        t->sends ? &comm->world->box[comm->rank][t->peer] : &comm->world->box[t->peer][comm->rank];
    bool full = atomic_load(&box->written) != atomic_load(&box->read);
    if (t->moved == t->bytes || full == t->sends) return false;
    size_t left = t->bytes - t->moved, bytes = left < CHUNK ? left : CHUNK;
    if (t->sends) {
        memcpy(box->data, t->data + t->moved, bytes);
        box->bytes = bytes;
        atomic_fetch_add(&box->written, 1);
    } else {
        if (box->bytes > left) return false; /* as NCCL: calls that do not fit hang */
        bytes = box->bytes;
        memcpy(t->data + t->moved, box->data, bytes);
        atomic_fetch_add(&box->read, 1);
    }
    t->moved += bytes;
    return true;
}

/* What is behind a fence is moved by way of copies: all out at once, and all in. */
static void take_out(Op *op)
{
    double_enter();
    for (int i = 0; i < op->count; i++) {
        Transfer *t = &op->transfer[i];
        t->place = t->data;
        t->data = mem_alloc(t->bytes + 1);
        if (t->sends) memcpy(t->data, t->place, t->bytes);
    }
    double_leave();
}

static void put_in(Op *op)
{
    double_enter();
    for (int i = 0; i < op->count; i++) {
        Transfer *t = &op->transfer[i];
        if (!t->sends) memcpy(t->place, t->data, t->moved);
        free(t->data);
    }
    double_leave();
}

static void run_transfers(Op *op)
{
    NcclHandle *comm = op->comm;
    int idle = 0; /* looks since something moved */
    for (bool over = false; !over && !atomic_load(&comm->aborted);) {
        bool moved = false;
        over = true;
        for (int i = 0; i < op->count; i++) {
            moved |= move_chunk(comm, &op->transfer[i]);
            over &= op->transfer[i].moved == op->transfer[i].bytes;
        }
        idle = moved ? 0 : idle + 1;
        if (idle > 20)
            usleep(20);
        else if (idle > 0)
            sched_yield();
    }
}

static void run_op(void *argument)
{
    Op *op = argument;
    NcclHandle *comm = op->comm;
    while (atomic_load(&comm->done) + 1 < op->number && !atomic_load(&comm->aborted))
        usleep(20); /* one after the other, whatever their streams */
    if (op->fault == DOUBLE_DIES) kill(getpid(), SIGKILL);
    if (op->fault == DOUBLE_ERRS) atomic_store(&comm->state, op->result);
    while ((op->fault == DOUBLE_HANGS || op->fault == DOUBLE_ERRS) && !atomic_load(&comm->aborted))
        usleep(100);
    if (double_is_fenced()) take_out(op);
    run_transfers(op);
    if (double_is_fenced()) put_in(op);
    atomic_fetch_add(&comm->done, 1);
    free(op);
}

/* ---- queueing ---- */

static void *queue_later(void *argument)
{
    Op *op = argument;
    NcclHandle *comm = op->comm;
    usleep(CONNECT_US);
    nccl_double_run(op->stream, run_op, op);
    int in_progress = NCCL_IN_PROGRESS;
    atomic_compare_exchange_strong(&comm->state, &in_progress, NCCL_SUCCESS);
    return NULL;
}

static void end_helper(NcclHandle *comm)
{
    if (comm->has_helper) pthread_join(comm->helper, NULL);
    comm->has_helper = false;
}

static void start_helper(NcclHandle *comm, void *(*body)(void *), void *argument)
{
    end_helper(comm);
    CHECK(pthread_create(&comm->helper, NULL, body, argument) == 0);
    comm->has_helper = true;
}

static NcclResult queue(Op *op)
{
    NcclHandle *comm = op->comm;
    check_usable(comm);
    double_arrive(op->stream);
    int call = atomic_fetch_add(&calls, 1) + 1, state = atomic_load(&comm->state);
    bool is_planned = planned.fault != DOUBLE_WORKS && planned.call == call;
    if (state != NCCL_SUCCESS || (is_planned && planned.fault == DOUBLE_REFUSES)) {
        free(op);
        return state == NCCL_SUCCESS       ? (NcclResult)planned.result
               : state == NCCL_IN_PROGRESS ? NCCL_INVALID_USAGE
                                           : (NcclResult)state;
    }
    if (is_planned && planned.fault == DOUBLE_BLOCKS) {
        while (!atomic_load(&comm->aborted))
            usleep(100);
        free(op);
        return (NcclResult)planned.result;
    }
    if (is_planned && planned.fault == DOUBLE_IS_STUCK) {
        atomic_store(&comm->state, NCCL_IN_PROGRESS);
        free(op);
        return NCCL_IN_PROGRESS;
    }
    if (is_planned) {
        op->fault = planned.fault;
        op->result = planned.result;
    }
    op->number = atomic_fetch_add(&comm->queued, 1) + 1;
    if (comm->slow_calls < SLOW_CALLS) {
        comm->slow_calls++;
        atomic_store(&comm->state, NCCL_IN_PROGRESS);
        start_helper(comm, queue_later, op);
        return NCCL_IN_PROGRESS;
    }
    nccl_double_run(op->stream, run_op, op);
    return NCCL_SUCCESS;
}

static Op *new_op(NcclHandle *comm, void *stream)
{
    Op *op = mem_calloc(1, sizeof *op);
    op->comm = comm;
    op->stream = stream;
    return op;
}

static void add_transfer(Op *op, bool sends, int peer, const void *data, size_t bytes)
{
    CHECK(op->count < TRANSFERS);
    op->transfer[op->count++] = (Transfer){sends, peer, (char *)data, bytes, 0, NULL};
}

/* ---- the API ---- */

EXPORT NcclResult ncclGetVersion(int *version)
{
    *version = 22809;
    return NCCL_SUCCESS;
}

EXPORT NcclResult ncclGetUniqueId(NcclUniqueId *ret)
{
    const char *slow = getenv("TEST_NCCL_ID_S");
    if (slow != NULL) sleep((unsigned)atoi(slow));
    DoubleId id = {getpid(), memfd_create("nccl-double", 0)};
    if (id.fd < 0 || ftruncate(id.fd, sizeof(World)) != 0) return NCCL_SYSTEM_ERROR;
    memset(ret, ID_FILLED, sizeof *ret);
    memcpy(ret->internal, &id, sizeof id);
    return NCCL_SUCCESS;
}

static World *open_world(const NcclUniqueId *unique)
{
    DoubleId id;
    char path[64];
    memcpy(&id, unique->internal, sizeof id);
    for (size_t i = sizeof id; i < sizeof unique->internal; i++) /* all of it is NCCL's */
        if (unique->internal[i] != ID_FILLED) return NULL;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", id.pid, id.fd);
    int fd = open(path, O_RDWR);
    if (fd < 0) return NULL;
    void *memory = mmap(NULL, sizeof(World), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

static bool all_joined(const NcclHandle *comm)
{
    return atomic_load(&comm->world->joined) == comm->size;
}

static void *wait_for_all(void *argument)
{
    NcclHandle *comm = argument;
    wait_until(comm, all_joined);
    if (!atomic_load(&comm->aborted)) atomic_store(&comm->state, NCCL_SUCCESS);
    return NULL;
}

EXPORT NcclResult ncclCommInitRankConfig(NcclHandle **ret, int size, NcclUniqueId id, int rank,
                                         NcclConfig *config)
{
    if (config->size != sizeof(NcclConfig) || config->magic != NCCL_CONFIG_MAGIC ||
        config->blocking != 0)
        return NCCL_INVALID_ARGUMENT;
    if (planned.fault == DOUBLE_REFUSES && planned.call == 0) return (NcclResult)planned.result;
    World *world = open_world(&id);
    if (world == NULL) return NCCL_SYSTEM_ERROR;
    NcclHandle *comm = mem_calloc(1, sizeof *comm);
    *comm = (NcclHandle){.world = world, .rank = rank, .size = size};
    atomic_store(&comm->state, NCCL_IN_PROGRESS);
    if (planned.fault != DOUBLE_HANGS || planned.call != 0) {
        atomic_fetch_add(&world->joined, 1);
        start_helper(comm, wait_for_all, comm);
    }
    *ret = comm;
    return NCCL_IN_PROGRESS;
}

EXPORT NcclResult ncclCommGetAsyncError(NcclHandle *comm, NcclResult *error)
{
    check_usable(comm);
    *error = (NcclResult)atomic_load(&comm->state);
    return NCCL_SUCCESS;
}

static bool is_idle(const NcclHandle *comm)
{
    return atomic_load(&comm->done) == atomic_load(&comm->queued);
}

/* The handle's memory stays, so that its use can be told. */
static NcclResult end(NcclHandle *comm)
{
    end_helper(comm);
    while (!is_idle(comm))
        usleep(100);
    munmap(comm->world, sizeof *comm->world);
    atomic_store(&comm->gone, true);
    comm->next_gone = atomic_exchange(&gone, comm);
    return NCCL_SUCCESS;
}

EXPORT NcclResult ncclCommAbort(NcclHandle *comm)
{
    check_usable(comm);
    atomic_store(&comm->aborted, true);
    return end(comm);
}

static void *wait_for_idle(void *argument)
{
    NcclHandle *comm = argument;
    wait_until(comm, is_idle);
    atomic_store(&comm->state, NCCL_SUCCESS);
    return NULL;
}

EXPORT NcclResult ncclCommFinalize(NcclHandle *comm)
{
    check_usable(comm);
    atomic_store(&comm->state, NCCL_IN_PROGRESS);
    start_helper(comm, wait_for_idle, comm);
    return NCCL_IN_PROGRESS;
}

EXPORT NcclResult ncclCommDestroy(NcclHandle *comm)
{
    check_usable(comm);
    return end(comm);
}

EXPORT const char *ncclGetErrorString(NcclResult result)
{
    return result == NCCL_REMOTE_ERROR ? "remote process exited or there was a network error"
                                       : "unhandled cuda error";
}

EXPORT const char *ncclGetLastError(NcclHandle *comm)
{
    return comm != NULL && atomic_load(&comm->state) > NCCL_SUCCESS ? "socket closed\n" : "";
}

EXPORT NcclResult ncclAllGather(const void *in, void *out, size_t count, NcclType type,
                                NcclHandle *comm, void *stream)
{
    if (type != NCCL_UINT8) return NCCL_INVALID_ARGUMENT;
    check_usable(comm);
    Op *op = new_op(comm, stream);
    for (int r = 0; r < comm->size; r++) {
        char *place = (char *)out + (size_t)r * count;
        if (r == comm->rank && place == in) continue;
        add_transfer(op, true, r, in, count);
        add_transfer(op, false, r, (char *)out + (size_t)r * count, count);
    }
    return queue(op);
}

EXPORT NcclResult ncclBroadcast(const void *in, void *out, size_t count, NcclType type, int root,
                                NcclHandle *comm, void *stream)
{
    if (type != NCCL_UINT8) return NCCL_INVALID_ARGUMENT;
    check_usable(comm);
    Op *op = new_op(comm, stream);
    for (int r = 0; r < comm->size && comm->rank == root; r++)
        if (r != root) add_transfer(op, true, r, in, count);
    if (comm->rank != root) add_transfer(op, false, root, out, count);
    return queue(op);
}

static NcclResult transfer(bool sends, const void *data, size_t bytes, int peer, NcclHandle *comm,
                           void *stream)
{
    check_usable(comm);
    if (group_depth == 0) { /* as NCCL: a group of one */
        Op *op = new_op(comm, stream);
        add_transfer(op, sends, peer, data, bytes);
        return queue(op);
    }
    if (group == NULL) group = new_op(comm, stream);
    if (group->comm != comm || group->stream != stream) return NCCL_INVALID_USAGE;
    add_transfer(group, sends, peer, data, bytes);
    return NCCL_SUCCESS;
}

EXPORT NcclResult ncclSend(const void *data, size_t count, NcclType type, int peer,
                           NcclHandle *comm, void *stream)
{
    if (type != NCCL_UINT8) return NCCL_INVALID_ARGUMENT;
    return transfer(true, data, count, peer, comm, stream);
}

EXPORT NcclResult ncclRecv(void *data, size_t count, NcclType type, int peer, NcclHandle *comm,
                           void *stream)
{
    if (type != NCCL_UINT8) return NCCL_INVALID_ARGUMENT;
    return transfer(false, data, count, peer, comm, stream);
}

EXPORT NcclResult ncclGroupStart(void)
{
    group_depth++;
    return NCCL_SUCCESS;
}

EXPORT NcclResult ncclGroupEnd(void)
{
    Op *op = group;
    if (--group_depth > 0 || op == NULL) return NCCL_SUCCESS;
    group = NULL;
    return queue(op);
}
