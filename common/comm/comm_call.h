/* What the kinds that have several ranks share: the signature that all ranks of a call must agree
 * on, how a person reads it, and, in memory that the ranks share, which process is which rank and
 * the group's first failure. Private to common/comm. */
#ifndef TROUPE_COMM_COMM_CALL_H
#define TROUPE_COMM_COMM_CALL_H

#include <stdatomic.h>

#include "base/shared_memory.h"
#include "base/str.h"
#include "comm/comm_kind.h"

typedef enum {
    CALL_CREATE = 1,
    CALL_ALL_REDUCE,
    CALL_ALL_GATHER,
    CALL_REDUCE_SCATTER,
    CALL_BROADCAST,
    CALL_BARRIER,
    CALL_SEND,
    CALL_RECV,
} CommCall;

/* What all ranks must agree on; also what messages say of a call. */
uint64_t comm_signature(CommCall call, CommElement element, CommOp op, int root, int64_t count);
const char *comm_call_name(uint64_t signature);
/* Of a send to a rank, or of a recv from it. The two sides of a message differ: what rank `own`'s
 * call wants its peer to be in is comm_other_side. Calls of a pair are numbered per pair and
 * direction, so that a message has the same number on both sides; all others in one row. */
uint64_t comm_pair_signature(CommCall call, DType dtype, int peer, int64_t count);
int comm_peer(uint64_t signature); /* -1: a call of all ranks */
bool comm_is_send(uint64_t signature);
uint64_t comm_other_side(uint64_t signature, int own);
/* "all_reduce #12 (sum of 4096 f32)". `number` 0: without it. */
void comm_put_call(Str *out, uint64_t signature, uint64_t number);
/* "rank 2", "ranks 1 and 3"; nothing for none. */
void comm_put_ranks(Str *out, const int *rank, int count);

typedef enum { RANK_ABSENT = 0, RANK_JOINED, RANK_LEFT } CommRankState;

/* Which process a rank is: written by that rank alone; zeroed: it has not joined. */
typedef struct CommMember {
    _Atomic uint32_t state; /* CommRankState */
    _Atomic int32_t pid;
    _Atomic uint64_t start_ticks; /* with pid: which process */
} CommMember;

/* This process is that rank now. ERR_EXISTS: somebody else is. */
Status comm_member_join(CommMember *member, int rank, Error *err);
/* Whether it has left or its process is dead. Of a rank that has not joined only rank 0's process
 * is known: it made the memory. *ret_pid says who is lost. */
bool comm_member_is_lost(const CommMember *member, int rank, const SharedMemory *memory,
                         pid_t *ret_pid);
/* "rank 2 (pid 17) died", of a lost one. */
void comm_put_lost(Str *out, const CommMember *member, int rank, pid_t pid);

/* The first failure, told to everybody; zeroed: there is none. */
typedef struct CommFailure {
    _Atomic uint32_t state;
    int32_t status;
    int32_t rank; /* who reported it */
    char text[1024];
} CommFailure;

/* The first to call it decides what is said. */
void comm_failure_report(CommFailure *failure, int rank, Status status, const char *text);
bool comm_failure_is_there(const CommFailure *failure);
/* As the error of rank `own`. Only where one is there. */
Status comm_failure_tell(const CommFailure *failure, int own, Error *err);
/* "the ranks went apart: ...", for rank `own` and another. */
void comm_put_apart(Str *out, int own, uint64_t mine, uint64_t number, int other, uint64_t theirs);

#endif
