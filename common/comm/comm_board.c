#include "comm/comm_board.h"

#include "base/limits.h"

#define TEXT_MAX 500 /* of whereabouts: a failure's text has room for it and more */

Status comm_board_create(int size, SharedMemoryId *ret, Error *err)
{
    SharedMemory *memory = NULL;
    size_t bytes = sizeof(CommBoard) + (size_t)size * sizeof(BoardRank);
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

void comm_board_begin(CommBoard *board, int rank, uint64_t number, uint64_t signature)
{
    if (board == NULL) return;
    BoardRank *line = &board->rank[rank];
    atomic_store_explicit(&line->call[number % BOARD_CALLS], signature, memory_order_relaxed);
    atomic_store_explicit(&line->begun, number, memory_order_release);
}

/* ---- what is seen of the others ---- */

static uint64_t begun_by(const BoardRank *line)
{
    return atomic_load_explicit(&line->begun, memory_order_acquire);
}

bool comm_board_find_lost(const CommBoard *board, const BoardWait *wait, Str *out,
                          bool *ret_had_begun)
{
    for (int r = 0; board != NULL && r < (int)board->size; r++) {
        const BoardRank *line = &board->rank[r];
        pid_t pid = 0;
        if (r == wait->rank || !comm_member_is_lost(&line->member, r, &board->memory, &pid))
            continue;
        bool left = atomic_load(&line->member.state) == RANK_LEFT;
        bool had_begun = begun_by(line) >= wait->number;
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
        const BoardRank *line = &board->rank[r];
        if (begun_by(line) < wait->number) continue;
        uint64_t theirs = atomic_load(&line->call[wait->number % BOARD_CALLS]);
        atomic_thread_fence(memory_order_acquire);
        /* Still that of this number, and not of a later one. */
        if (begun_by(line) >= wait->number + BOARD_CALLS - 1 || theirs == wait->signature) continue;
        *ret_theirs = theirs;
        return r;
    }
    return -1;
}

static bool is_missing(const CommBoard *board, const BoardWait *wait, int rank)
{
    return rank != wait->rank && begun_by(&board->rank[rank]) < wait->number;
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
            uint64_t begun = begun_by(line);
            str_printf(out, "(pid %d) is alive, its last call was ",
                       (int)atomic_load(&line->member.pid));
            comm_put_call(out, atomic_load(&line->call[begun % BOARD_CALLS]), begun);
        }
    }
}
