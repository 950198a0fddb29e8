/* CommBoard: what the ranks of one host let each other see of their calls, beside a library that
 * moves the data and tells nothing of it: who has joined, which calls each has begun, whether its
 * process lives, and why the group is over. With it a hang becomes a sentence: NCCL itself reports
 * neither a peer that died on this host, nor one that lags, nor one in another call. Private to
 * common/comm.
 *
 * Shared memory of rank 0's process. A rank that cannot open it (it runs on another host) does
 * without: then `board` is NULL, nobody sees it, and it sees nobody. */
#ifndef TROUPE_COMM_COMM_BOARD_H
#define TROUPE_COMM_COMM_BOARD_H

#include "comm/comm_call.h"

/* Whose signatures are kept: of the calls of all ranks, of the sends or recvs of a pair. */
#define BOARD_CALLS      256
#define BOARD_PAIR_CALLS 16

/* One rank's line: written by that rank alone. */
typedef struct BoardRank {
    _Alignas(64) CommMember member;
    _Atomic uint64_t last, last_number; /* signature and number of the call begun last */
    _Atomic uint64_t begun;             /* number of the last call of all ranks begun */
    _Atomic uint64_t call[BOARD_CALLS]; /* signature of call n: at n % BOARD_CALLS */
} BoardRank;

/* The same of one rank's sends to one other, or of its recvs from it. */
typedef struct BoardPair {
    _Atomic uint64_t begun;
    _Atomic uint64_t call[BOARD_PAIR_CALLS];
} BoardPair;

typedef struct CommBoard {
    SharedMemory memory;
    uint32_t size;
    _Alignas(64) CommFailure failure;
    BoardRank rank[]; /* and behind them a BoardPair per rank, peer and direction */
} CommBoard;

Status comm_board_create(int size, SharedMemoryId *ret, Error *err);
/* NULL where it cannot be opened. */
CommBoard *comm_board_open(const SharedMemoryId *id, int size);
void comm_board_close(CommBoard *board); /* accepts NULL */

/* All accept NULL, and say then what is known without a board. */

/* ERR_EXISTS: somebody else is this rank. */
Status comm_board_join(CommBoard *board, int rank, Error *err);
void comm_board_leave(CommBoard *board, int rank);

/* A call that a rank waits in: for all others, or, in a send or recv, for its peer. */
typedef struct BoardWait {
    int rank;
    uint64_t number, signature;
} BoardWait;

void comm_board_begin(CommBoard *board, const BoardWait *call);

/* "rank 2 (pid 17) died", and whether it may have done its part of that call before: for a rank
 * that has not begun it, or is dead. False while nobody is lost. */
bool comm_board_find_lost(const CommBoard *board, const BoardWait *wait, Str *out,
                          bool *ret_had_begun);
/* The rank whose call of that number is another, or not the other side; -1: none is seen. */
int comm_board_find_apart(const CommBoard *board, const BoardWait *wait, uint64_t *ret_theirs);
/* "rank 2", "ranks 1 and 3": who has not begun it, as far as is seen. Returns how many they are. */
int comm_board_put_missing(const CommBoard *board, const BoardWait *wait, Str *out);
/* "; rank 1 (pid 17) is alive, its last call was broadcast #2", for each of these. */
void comm_board_put_whereabouts(const CommBoard *board, const BoardWait *wait, Str *out);

#endif
