/* Collectives over shared memory: data goes through the ranks' buffers in pieces, one meeting per
 * piece. */
#include "comm/comm_shm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/memory.h"

/* Above this many bytes each rank reduces its slice of a piece for
 * all; below it everybody reduces everything, which moves more bytes but needs no second look at
 * them. */
#define SLICE_MIN_BYTES ((int64_t)16 * 1024)

/* Looks at a peer before the core is offered to others: about 50 microseconds. With more ranks than
 * cores the peer may need this very core, so there is next to no point in looking. */
#define SPINS_WITH_A_CORE_EACH 100
#define SPINS_WHEN_CROWDED     50

static ShmComm *shm(Comm *comm)
{
    return (ShmComm *)comm;
}

/* ---- joining and leaving ---- */

static Status shm_id_create(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    ShmId id = {0};
    TRY(shm_memory_create(size, staging_bytes, &id, err));
    id.kind = ret->bytes[0];
    memcpy(ret->bytes, &id, sizeof id);
    return OK;
}

static void shm_id_discard(const CommId *comm_id)
{
    ShmId id;
    memcpy(&id, comm_id->bytes, sizeof id);
    shared_memory_discard(&id.memory);
}

static int count_cores(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

Status shm_join(ShmHeader *header, bool owns_mapping, int rank, int timeout_ms, Comm **ret,
                Error *err)
{
    int size = (int)header->size;
    ShmRank *line = &header->rank[rank];
    TRY(comm_member_join(&line->member, rank, err));

    ShmComm *comm = mem_calloc(1, sizeof *comm);
    comm->base = (Comm){.table = &comm_shm_table, .rank = rank, .size = size};
    comm->base.timeout_ms = timeout_ms;
    comm->header = header;
    comm->meeting = atomic_load(&line->arrived.value);
    comm->spin_count = size <= count_cores() ? SPINS_WITH_A_CORE_EACH : SPINS_WHEN_CROWDED;
    Status status =
        shm_call_begin(comm, comm_signature(CALL_CREATE, ELEMENT_BYTE, COMM_SUM, 0, size), err);
    if (status == OK) status = shm_call_end(comm, shm_meet(comm, err));
    if (status != OK) {
        comm_destroy(&comm->base);
        return status;
    }
    comm->owns_mapping = owns_mapping;
    *ret = &comm->base;
    return OK;
}

static Status shm_create(const CommId *comm_id, int rank, int size, int timeout_ms, Comm **ret,
                         Error *err)
{
    ShmId id;
    ShmHeader *header = NULL;
    memcpy(&id, comm_id->bytes, sizeof id);
    Status status = OK;
    if (id.size != (uint32_t)size)
        status = error_set(err, ERR_INVALID, "this group was made for %u ranks, not for %d",
                           (unsigned)id.size, size);
    if (status == OK) status = shm_memory_open(&id, &header, err);
    if (status == OK) status = shm_join(header, true, rank, timeout_ms, ret, err);
    if (status != OK) {
        if (err != NULL) error_prefix(err, "could not join the group as rank %d of %d", rank, size);
        shm_memory_close(header);
    }
    /* Everybody has mapped it by now, or never will: the mappings alone keep it. */
    if (rank == 0) shared_memory_discard(&id.memory);
    return status;
}

static void shm_destroy(Comm *base)
{
    ShmComm *comm = shm(base);
    ShmHeader *header = comm->header;
    atomic_store(&header->rank[base->rank].member.state, RANK_LEFT);
    if (comm->owns_mapping) shm_memory_close(header);
    free(comm);
}

static void shm_abort(Comm *base)
{
    char text[64];
    snprintf(text, sizeof text, "rank %d aborted the group", base->rank);
    shm_fail(shm(base)->header, base->rank, ERR_CANCELLED, text);
}

/* ---- pieces ---- */

/* Starts the next piece: the buffers to use for it. */
static int next_buffer(ShmComm *comm)
{
    return (int)(comm->pieces++ & 1);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void copy(void *to, const void *from, int64_t bytes)
{
    if (bytes > 0 && to != from) memcpy(to, from, (size_t)bytes);
}

/* Where the ranks' inputs of a piece lie; this rank's own is at `mine`, wherever that is. */
static void list_sources(const ShmComm *comm, int which, size_t offset, const void *mine,
                         const void *source[SHM_RANKS_MAX])
{
    for (int r = 0; r < comm->base.size; r++)
        source[r] = r == comm->base.rank ? mine : shm_input(comm->header, r, which) + offset;
}

/* ---- all-reduce ---- */

typedef struct Reduction {
    unsigned char *data; /* in place */
    int64_t count;
    int64_t size; /* of an element */
    CommReduction how;
} Reduction;

/* Everybody puts its piece down and reduces all of it itself. */
static Status all_reduce_whole(ShmComm *comm, const Reduction *work, Error *err)
{
    const void *source[SHM_RANKS_MAX];
    int64_t piece = (int64_t)comm->header->staging_bytes / work->size;
    int64_t first = 0;
    do {
        int64_t n = smaller(piece, work->count - first);
        unsigned char *data = work->data + first * work->size;
        int which = next_buffer(comm);
        copy(shm_input(comm->header, comm->base.rank, which), data, n * work->size);
        TRY(shm_meet(comm, err));
        list_sources(comm, which, 0, data, source);
        comm_reduce_sources(data, NULL, source, comm->base.size, n, work->how);
        first += n;
    } while (first < work->count);
    return OK;
}

/* One piece of a sliced all-reduce, and the slice of it that each rank reduces for all. */
typedef struct Piece {
    unsigned char *data;
    int64_t bytes;
    int64_t slice_bytes; /* whole cache lines; the last slices may be shorter or empty */
    int which;
} Piece;

static Piece piece_at(ShmComm *comm, const Reduction *work, int64_t first)
{
    int64_t staging = (int64_t)comm->header->staging_bytes;
    Piece piece = {.data = work->data + first};
    piece.bytes = smaller(staging, work->count * work->size - first);
    piece.slice_bytes = (piece.bytes / comm->base.size + 63) / 64 * 64;
    piece.which = next_buffer(comm);
    return piece;
}

static int64_t slice_begin(const Piece *piece, int rank)
{
    return smaller(rank * piece->slice_bytes, piece->bytes);
}

static int64_t slice_length(const Piece *piece, int rank)
{
    return slice_begin(piece, rank + 1) - slice_begin(piece, rank);
}

/* Puts down all but the own slice, which nobody else reads. */
static void put_piece(ShmComm *comm, const Piece *piece)
{
    int rank = comm->base.rank;
    unsigned char *input = shm_input(comm->header, rank, piece->which);
    int64_t begin = slice_begin(piece, rank), end = slice_begin(piece, rank + 1);
    copy(input, piece->data, begin);
    copy(input + end, piece->data + end, piece->bytes - end);
}

static void reduce_slice(ShmComm *comm, const Piece *piece, const Reduction *work)
{
    const void *source[SHM_RANKS_MAX];
    int rank = comm->base.rank;
    int64_t begin = slice_begin(piece, rank), length = slice_length(piece, rank);
    unsigned char *mine = piece->data + begin;
    list_sources(comm, piece->which, (size_t)begin, mine, source);
    comm_reduce_sources(mine, shm_result(comm->header, rank, piece->which), source, comm->base.size,
                        length / work->size, work->how);
}

static void take_slices(ShmComm *comm, const Piece *piece)
{
    for (int r = 0; r < comm->base.size; r++)
        if (r != comm->base.rank)
            copy(piece->data + slice_begin(piece, r), shm_result(comm->header, r, piece->which),
                 slice_length(piece, r));
}

/* Each rank reduces its slice of every piece; the next piece is put down before the meeting that
 * publishes the slices of this one, so that one meeting serves both. */
static Status all_reduce_sliced(ShmComm *comm, const Reduction *work, Error *err)
{
    int64_t total = work->count * work->size;
    Piece piece = piece_at(comm, work, 0);
    put_piece(comm, &piece);
    TRY(shm_meet(comm, err));
    for (int64_t first = piece.bytes;; first += piece.bytes) {
        reduce_slice(comm, &piece, work);
        Piece next = {0};
        if (first < total) {
            next = piece_at(comm, work, first);
            put_piece(comm, &next);
        }
        TRY(shm_meet(comm, err));
        take_slices(comm, &piece);
        if (first >= total) return OK;
        piece = next;
    }
}

static Status shm_all_reduce(Comm *base, void *data, int64_t count, CommElement element, CommOp op,
                             Error *err)
{
    ShmComm *comm = shm(base);
    Reduction work = {data, count, (int64_t)comm_element_size(element), {element, op}};
    TRY(shm_call_begin(comm, comm_signature(CALL_ALL_REDUCE, element, op, 0, count), err));
    bool whole = count * work.size <= SLICE_MIN_BYTES;
    return shm_call_end(comm, whole ? all_reduce_whole(comm, &work, err)
                                    : all_reduce_sliced(comm, &work, err));
}

/* ---- the others ---- */

static Status gather_pieces(ShmComm *comm, unsigned char *out, const unsigned char *in,
                            int64_t bytes, Error *err)
{
    int64_t first = 0;
    copy(out + comm->base.rank * bytes, in, bytes);
    do {
        int64_t n = smaller((int64_t)comm->header->staging_bytes, bytes - first);
        int which = next_buffer(comm);
        copy(shm_input(comm->header, comm->base.rank, which), in + first, n);
        TRY(shm_meet(comm, err));
        for (int r = 0; r < comm->base.size; r++)
            if (r != comm->base.rank)
                copy(out + r * bytes + first, shm_input(comm->header, r, which), n);
        first += n;
    } while (first < bytes);
    return OK;
}

static Status shm_all_gather(Comm *base, void *out, const void *in, int64_t bytes, Error *err)
{
    ShmComm *comm = shm(base);
    TRY(shm_call_begin(comm, comm_signature(CALL_ALL_GATHER, ELEMENT_BYTE, COMM_SUM, 0, bytes),
                       err));
    return shm_call_end(comm, gather_pieces(comm, out, in, bytes, err));
}

/* A piece holds an equal part of every rank's share. */
static Status scatter_pieces(ShmComm *comm, unsigned char *out, const unsigned char *in,
                             int64_t count, CommElement element, Error *err)
{
    const void *source[SHM_RANKS_MAX];
    int size = comm->base.size, rank = comm->base.rank;
    int64_t element_size = (int64_t)comm_element_size(element), first = 0;
    int64_t part = (int64_t)comm->header->staging_bytes / size / element_size;
    CHECK(part > 0);
    do {
        int64_t n = smaller(part, count - first), bytes = n * element_size;
        int which = next_buffer(comm);
        unsigned char *input = shm_input(comm->header, rank, which);
        for (int r = 0; r < size; r++)
            if (r != rank) copy(input + r * bytes, in + (r * count + first) * element_size, bytes);
        TRY(shm_meet(comm, err));
        list_sources(comm, which, (size_t)(rank * bytes),
                     in + (rank * count + first) * element_size, source);
        comm_reduce_sources(out + first * element_size, NULL, source, size, n,
                            (CommReduction){element, COMM_SUM});
        first += n;
    } while (first < count);
    return OK;
}

static Status shm_reduce_scatter(Comm *base, void *out, const void *in, int64_t count,
                                 CommElement element, Error *err)
{
    ShmComm *comm = shm(base);
    TRY(shm_call_begin(comm, comm_signature(CALL_REDUCE_SCATTER, element, COMM_SUM, 0, count),
                       err));
    return shm_call_end(comm, scatter_pieces(comm, out, in, count, element, err));
}

static Status broadcast_pieces(ShmComm *comm, unsigned char *data, int64_t bytes, int root,
                               Error *err)
{
    int64_t first = 0;
    do {
        int64_t n = smaller((int64_t)comm->header->staging_bytes, bytes - first);
        unsigned char *input = shm_input(comm->header, root, next_buffer(comm));
        if (comm->base.rank == root) copy(input, data + first, n);
        TRY(shm_meet(comm, err));
        if (comm->base.rank != root) copy(data + first, input, n);
        first += n;
    } while (first < bytes);
    return OK;
}

static Status shm_broadcast(Comm *base, void *data, int64_t bytes, int root, Error *err)
{
    ShmComm *comm = shm(base);
    TRY(shm_call_begin(comm, comm_signature(CALL_BROADCAST, ELEMENT_BYTE, COMM_SUM, root, bytes),
                       err));
    return shm_call_end(comm, broadcast_pieces(comm, data, bytes, root, err));
}

static Status shm_barrier(Comm *base, Error *err)
{
    ShmComm *comm = shm(base);
    TRY(shm_call_begin(comm, comm_signature(CALL_BARRIER, ELEMENT_BYTE, COMM_SUM, 0, 0), err));
    return shm_call_end(comm, shm_meet(comm, err));
}

const CommTable comm_shm_table = {
    .name = "shm",
    .id_create = shm_id_create,
    .id_discard = shm_id_discard,
    .create = shm_create,
    .destroy = shm_destroy,
    .all_reduce = shm_all_reduce,
    .all_gather = shm_all_gather,
    .reduce_scatter = shm_reduce_scatter,
    .broadcast = shm_broadcast,
    .barrier = shm_barrier,
    .send = shm_send,
    .recv = shm_recv,
    .abort = shm_abort,
    .describe_wait = shm_describe_wait,
};
