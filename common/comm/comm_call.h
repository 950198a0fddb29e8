/* What the kinds that have several ranks share: the signature that all ranks of a call must agree
 * on, how a person reads it, and the record of a group's first failure in memory that its ranks
 * share. Private to common/comm. */
#ifndef TROUPE_COMM_COMM_CALL_H
#define TROUPE_COMM_COMM_CALL_H

#include <stdatomic.h>

#include "base/str.h"
#include "comm/comm_kind.h"

typedef enum {
    CALL_CREATE = 1,
    CALL_ALL_REDUCE,
    CALL_ALL_GATHER,
    CALL_REDUCE_SCATTER,
    CALL_BROADCAST,
    CALL_BARRIER,
} CommCall;

/* What all ranks must agree on; also what messages say of a call. */
uint64_t comm_signature(CommCall call, CommElement element, CommOp op, int root, int64_t count);
const char *comm_call_name(uint64_t signature);
/* "all_reduce #12 (sum of 4096 f32)". `number` 0: without it. */
void comm_put_call(Str *out, uint64_t signature, uint64_t number);
/* "rank 2", "ranks 1 and 3"; nothing for none. */
void comm_put_ranks(Str *out, const int *rank, int count);

typedef enum { RANK_ABSENT = 0, RANK_JOINED, RANK_LEFT } CommRankState;

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
