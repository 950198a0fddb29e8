/* The shared memory of a group of ranks on one host and the waiting on it; private to common/comm.
 *
 * One memory file holds a header, a line per rank, and per rank two input buffers and two result
 * buffers. Ranks meet in numbered meetings: whoever has put its data down raises its own `arrived`
 * and waits until all others' are as high. Nobody can be more than one meeting ahead, so two
 * buffers used in turn are enough and one meeting per piece of data does: what a rank reads after
 * meeting n is overwritten only by a rank that has passed meeting n + 1, which the reader enters
 * when it has done reading.
 *
 * Sends have no meetings, as not all ranks take part: a line per pair of ranks counts the pieces
 * put and taken, and each rank has an outbox of two pieces, for one message at a time: a sender
 * stays until all of it is taken. */
#ifndef TROUPE_COMM_COMM_SHM_H
#define TROUPE_COMM_COMM_SHM_H

#include <stdatomic.h>
#include <stdbool.h>

#include "comm/comm_call.h"

/* What one rank counts and others wait for. */
typedef struct ShmCounter {
    _Atomic uint32_t value; /* a futex word; wraps */
    _Atomic uint32_t sleepers;
} ShmCounter;

/* One rank's line: written by that rank alone, but for `sleepers`. */
typedef struct ShmRank {
    _Alignas(64) ShmCounter arrived;    /* number of the last meeting */
    _Atomic uint64_t call[2];           /* signature of the call, by parity of the meeting */
    _Atomic uint64_t last, last_number; /* signature and number of the call begun last */
    CommMember member;
} ShmRank;

/* What goes from one rank to one other: `taken`, `wanted` and `received` are written by the
 * receiver, the rest by the sender. */
typedef struct ShmPair {
    _Alignas(64) ShmCounter put, taken;
    _Atomic uint64_t sent, received; /* messages begun, by either */
    _Atomic uint64_t call;           /* signature of the send of what is put */
    _Atomic uint64_t wanted;         /* that of the recv, until it takes the last piece; or 0 */
} ShmPair;

typedef struct ShmHeader {
    SharedMemory memory; /* its maker: rank 0's process */
    uint32_t size;
    uint64_t staging_bytes;
    _Alignas(64) CommFailure failure;
    ShmRank rank[];
} ShmHeader;

/* What CommId holds for this kind. */
typedef struct ShmId {
    char kind; /* as comm.c writes it */
    uint32_t size;
    uint64_t staging_bytes;
    SharedMemoryId memory;
} ShmId;

_Static_assert(sizeof(ShmId) <= COMM_ID_BYTES, "an id must hold it");
_Static_assert(sizeof(ShmRank) == 64, "a rank's line is one cache line");

/* ---- comm_shm_memory.c ---- */

Status shm_memory_create(int size, size_t staging_bytes, ShmId *ret, Error *err);
/* Maps the memory that an id names and checks that it is that memory. */
Status shm_memory_open(const ShmId *id, ShmHeader **ret, Error *err);
void shm_memory_close(ShmHeader *header);

/* Buffers of a rank; `which` is 0 or 1. Inputs hold staging_bytes, results shm_result_bytes. */
unsigned char *shm_input(const ShmHeader *header, int rank, int which);
unsigned char *shm_result(const ShmHeader *header, int rank, int which);
size_t shm_result_bytes(const ShmHeader *header);
ShmPair *shm_pair(ShmHeader *header, int from, int to);
/* A rank's place for piece `number` of what it sends: of shm_outbox_bytes, free again when it or a
 * later one is taken. */
unsigned char *shm_outbox(const ShmHeader *header, int rank, uint32_t number);
size_t shm_outbox_bytes(const ShmHeader *header);

/* ---- comm_shm_wait.c ---- */

typedef struct ShmComm {
    Comm base;
    ShmHeader *header;
    bool owns_mapping;
    uint32_t meeting;              /* number of the last one entered */
    uint64_t pieces;               /* put down so far: chooses the buffer */
    int spin_count;                /* looks before yielding */
    int64_t deadline_ms;           /* of the running call */
    uint64_t signature;            /* of the running call */
    _Atomic uint64_t number;       /* the same */
    uint64_t calls;                /* of all ranks, begun */
    Error failure;                 /* why this Comm is unusable; status OK while it is not */
    _Atomic uint64_t doing;        /* signature of the running call, 0 in none: for describe_wait */
    _Atomic uint32_t target;       /* the meeting waited for, or what `awaited` is to reach */
    _Atomic(ShmCounter *) awaited; /* in a send or recv: the peer's */
} ShmComm;

Status shm_call_begin(ShmComm *comm, uint64_t signature, Error *err);
/* Puts `status` into the call's end: a failure makes the Comm unusable. */
Status shm_call_end(ShmComm *comm, Status status);
/* Enters the next meeting and waits until everybody is there. */
Status shm_meet(ShmComm *comm, Error *err);
/* In a send or recv: waits until the peer's counter is as high as that. */
Status shm_await(ShmComm *comm, ShmCounter *counter, uint32_t number, Error *err);
/* Counters are modulo 2^32, and what is compared lies close together. */
bool shm_has_reached(const ShmCounter *counter, uint32_t number);
void shm_raise(ShmCounter *counter, uint32_t number);

/* Tells every rank that the group is over; the first to call it decides what is said. */
void shm_fail(ShmHeader *header, int rank, Status status, const char *text);
/* The running call and that of another rank are not the same. */
Status shm_fail_apart(ShmComm *comm, int other, uint64_t theirs, Error *err);
void shm_describe_wait(const Comm *comm, char *text, size_t size);

/* ---- comm_shm_pair.c ---- */

Status shm_send(Comm *base, Tensor tensor, int to, Error *err);
Status shm_recv(Comm *base, Tensor tensor, int from, Error *err);
/* A peer that cannot come to the running send or recv, as it waits for this rank in another call:
 * what that is. */
bool shm_pair_is_stuck(ShmComm *comm, uint64_t *ret_theirs);

/* ---- comm_shm.c ---- */

/* Joins over memory that is already mapped: comm_create's second half, and the way tests run ranks
 * as threads over one mapping. */
Status shm_join(ShmHeader *header, bool owns_mapping, int rank, int timeout_ms, Comm **ret,
                Error *err);

#endif
