#include "comm/comm_board.h"

#include "base/limits.h"

#define TEXT_MAX 500 /* of whereabouts: a failure's text has room for it and more */

Status comm_board_create(int size, SharedMemoryId *ret, Error *err)
{
    SharedMemory *memory = NULL;
    size_t bytes = sizeof(CommBoard) + (size_t)size * sizeof(BoardRank) +
                   2 * (size_t)size * (size_t)size * sizeof(BoardPair);
    TRY(shared_memory_create("troupe-board", bytes, ret, &memory, err));
    ((CommBoard *)memory)->size = (uint32_t)size;
    shared_memory_unmap(memory);
    return OK;
}

CommBoard *comm_board_open(const SharedMemoryId *id, int size)
{
    SharedMemory *memory = NULL;
    if (shared_memory_open(id, "rank 0", true, &memory, NULL) != OK) return NULL;
    CommBoard *board = (CommBoard *)memory;
    if (board->size == (uint32_t)size) return board;
    shared_memory_unmap(memory);
    return NULL;
}

void comm_board_close(CommBoard *board)
{
    if (board != NULL) shared_memory_unmap(&board->memory);
}

Status comm_board_join(CommBoard *board, int rank, Error *err)
{
    return board == NULL ? OK : comm_member_join(&board->rank[rank].member, rank, err);
}

void comm_board_leave(CommBoard *board, int rank)
{
    if (board != NULL) atomic_store(&board->rank[rank].member.state, RANK_LEFT);
}

/* Calls of one rank that are numbered in one row. */
typedef struct Row {
    _Atomic uint64_t *begun, *call;
    uint64_t kept;
} Row;

/* Where rank `rank` notes calls like `signature`. */
static Row row_of(const CommBoard *board, int rank, uint64_t signature)
{
    int peer = comm_peer(signature);
    BoardRank *line = (BoardRank *)&board->rank[rank];
    if (peer < 0) return (Row){&line->begun, line->call, BOARD_CALLS};
    BoardPair *pairs = (BoardPair *)(void *)&board->rank[board->size];
    size_t place = (size_t)rank * board->size + (size_t)peer;
    BoardPair *pair = &pairs[2 * place + comm_is_send(signature)];
    return (Row){&pair->begun, pair->call, BOARD_PAIR_CALLS};
}

void comm_board_begin(CommBoard *board, const BoardWait *call)
{
    if (board == NULL) return;
    BoardRank *line = &board->rank[call->rank];
    Row row = row_of(board, call->rank, call->signature);
    atomic_store_explicit(&row.call[call->number % row.kept], call->signature,
                          memory_order_relaxed);
    atomic_store_explicit(&line->last_number, call->number, memory_order_relaxed);
    atomic_store_explicit(&line->last, call->signature, memory_order_relaxed);
    atomic_store_explicit(row.begun, call->number, memory_order_release);
}

/* ---- what is seen of the others ---- */

/* Whether a call wants something of that rank. */
static bool concerns(const BoardWait *wait, int rank)
{
    int peer = comm_peer(wait->signature);
    return peer >= 0 ? rank == peer : rank != wait->rank;
}

/* What that rank is in when it is in the same call. */
static uint64_t its_side(const BoardWait *wait)
{
    return comm_peer(wait->signature) >= 0 ? comm_other_side(wait->signature, wait->rank)
                                           : wait->signature;
}

static uint64_t begun_by(Row row)
{
    return atomic_load_explicit(row.begun, memory_order_acquire);
}

bool comm_board_find_lost(const CommBoard *board, const BoardWait *wait, Str *out,
                          bool *ret_had_begun)
{
    for (int r = 0; board != NULL && r < (int)board->size; r++) {
        const BoardRank *line = &board->rank[r];
        pid_t pid = 0;
        if (!concerns(wait, r) || !comm_member_is_lost(&line->member, r, &board->memory, &pid))
            continue;
        bool left = atomic_load(&line->member.state) == RANK_LEFT;
        bool had_begun = begun_by(row_of(board, r, its_side(wait))) >= wait->number;
        if (left && had_begun) continue; /* who leaves has seen its calls through */
        comm_put_lost(out, &line->member, r, pid);
        *ret_had_begun = had_begun;
        return true;
    }
    return false;
}

int comm_board_find_apart(const CommBoard *board, const BoardWait *wait, uint64_t *ret_theirs)
{
    for (int r = 0; board != NULL && r < (int)board->size; r++) {
        uint64_t expected = its_side(wait);
        Row row = row_of(board, r, expected);
        if (!concerns(wait, r) || begun_by(row) < wait->number) continue;
        uint64_t theirs = atomic_load(&row.call[wait->number % row.kept]);
        atomic_thread_fence(memory_order_acquire);
        /* Still that of this number, and not of a later one. */
        if (begun_by(row) >= wait->number + row.kept - 1 || theirs == expected) continue;
        *ret_theirs = theirs;
        return r;
    }
    return -1;
}

static bool is_missing(const CommBoard *board, const BoardWait *wait, int rank)
{
    return concerns(wait, rank) && begun_by(row_of(board, rank, its_side(wait))) < wait->number;
}

int comm_board_put_missing(const CommBoard *board, const BoardWait *wait, Str *out)
{
    int missing[SHM_RANKS_MAX], count = 0;
    for (int r = 0; board != NULL && r < (int)board->size && count < SHM_RANKS_MAX; r++)
        if (is_missing(board, wait, r)) missing[count++] = r;
    comm_put_ranks(out, missing, count);
    return count;
}

void comm_board_put_whereabouts(const CommBoard *board, const BoardWait *wait, Str *out)
{
    for (int r = 0; board != NULL && r < (int)board->size && out->length < TEXT_MAX; r++) {
        const BoardRank *line = &board->rank[r];
        if (!is_missing(board, wait, r)) continue;
        str_printf(out, "; rank %d ", r);
        if (atomic_load(&line->member.state) == RANK_ABSENT) {
            str_puts(out, "never joined on this host");
        } else {
            str_printf(out, "(pid %d) is alive, its last call was ",
                       (int)atomic_load(&line->member.pid));
            comm_put_call(out, atomic_load(&line->last), atomic_load(&line->last_number));
        }
    }
}
