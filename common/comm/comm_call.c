#include "comm/comm_call.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "base/process.h"

typedef enum { FAILURE_NONE = 0, FAILURE_BEING_WRITTEN, FAILURE_WRITTEN } FailureState;

/* ---- signatures ---- */

/* Four bits of what is moved, four of how, twelve of a rank. */
static uint64_t pack(CommCall call, unsigned what, unsigned how, int rank, int64_t count)
{
    CHECK(count >= 0 && count < INT64_C(1) << 40);
    return (uint64_t)call | (uint64_t)what << 4 | (uint64_t)how << 8 | (uint64_t)rank << 12 |
           (uint64_t)count << 24;
}

static int rank_in(uint64_t signature)
{
    return (int)(signature >> 12 & 0xFFF);
}

uint64_t comm_signature(CommCall call, CommElement element, CommOp op, int root, int64_t count)
{
    return pack(call, (unsigned)element, (unsigned)op, root, count);
}

uint64_t comm_pair_signature(CommCall call, DType dtype, int peer, int64_t count)
{
    _Static_assert(DTYPE_COUNT <= 16, "a type takes four bits");
    return pack(call, (unsigned)dtype, 0, peer, count);
}

bool comm_is_send(uint64_t signature)
{
    return (signature & 15) == CALL_SEND;
}

int comm_peer(uint64_t signature)
{
    return comm_is_send(signature) || (signature & 15) == CALL_RECV ? rank_in(signature) : -1;
}

uint64_t comm_other_side(uint64_t signature, int own)
{
    return pack(comm_is_send(signature) ? CALL_RECV : CALL_SEND, signature >> 4 & 15, 0, own,
                (int64_t)(signature >> 24));
}

const char *comm_call_name(uint64_t signature)
{
    static const char *const names[] = {"nothing",    "comm_create",    "all_reduce",
                                        "all_gather", "reduce_scatter", "broadcast",
                                        "barrier",    "send",           "recv"};
    unsigned call = signature & 15;
    return call < sizeof names / sizeof names[0] ? names[call] : "an unknown call";
}

void comm_put_call(Str *out, uint64_t signature, uint64_t number)
{
    static const char *const elements[ELEMENT_COUNT] = {"bytes", "f32", "bf16", "f64"};
    uint64_t count = signature >> 24;
    unsigned element = signature >> 4 & 15, call = signature & 15;
    str_puts(out, comm_call_name(signature));
    if (number > 0) str_printf(out, " #%" PRIu64, number);
    if (call == CALL_ALL_REDUCE || call == CALL_REDUCE_SCATTER)
        str_printf(out, " (%s of %" PRIu64 " %s)",
                   (signature >> 8 & 15) == COMM_SUM ? "sum" : "max", count,
                   elements[element % ELEMENT_COUNT]);
    else if (call == CALL_ALL_GATHER)
        str_printf(out, " (of %" PRIu64 " bytes)", count);
    else if (call == CALL_BROADCAST)
        str_printf(out, " (of %" PRIu64 " bytes from rank %d)", count, rank_in(signature));
    else if (comm_peer(signature) >= 0)
        str_printf(out, " (of %" PRIu64 " %s %s rank %d)", count,
                   element < DTYPE_COUNT ? dtype_name((DType)element) : "?",
                   call == CALL_SEND ? "to" : "from", rank_in(signature));
}

void comm_put_ranks(Str *out, const int *rank, int count)
{
    if (count > 0) str_puts(out, count == 1 ? "rank" : "ranks");
    for (int i = 0; i < count; i++)
        str_printf(out, "%s%d", i == 0 ? " " : i + 1 < count ? ", " : " and ", rank[i]);
}

void comm_put_apart(Str *out, int own, uint64_t mine, uint64_t number, int other, uint64_t theirs)
{
    str_printf(out, "the ranks went apart: rank %d is in ", own);
    comm_put_call(out, mine, number);
    str_printf(out, ", rank %d in ", other);
    comm_put_call(out, theirs, 0);
    str_puts(out, "; all ranks must make the same calls in the same order");
    if (comm_peer(mine) >= 0 || comm_peer(theirs) >= 0)
        str_puts(out, ", and each send meet a recv of the same type and count");
}

/* ---- members ---- */

Status comm_member_join(CommMember *member, int rank, Error *err)
{
    uint64_t ticks = 0;
    uint32_t absent = RANK_ABSENT;
    if (!process_start_ticks(getpid(), &ticks))
        return error_set(err, ERR_UNSUPPORTED, "/proc/self/stat cannot be read: is /proc mounted?");
    if (!atomic_compare_exchange_strong(&member->state, &absent, RANK_JOINED))
        return error_set(err, ERR_EXISTS, "rank %d has already joined this group (as pid %d)", rank,
                         (int)atomic_load(&member->pid));
    atomic_store(&member->start_ticks, ticks);
    atomic_store(&member->pid, getpid());
    return OK;
}

bool comm_member_is_lost(const CommMember *member, int rank, const SharedMemory *memory,
                         pid_t *ret_pid)
{
    uint32_t state = atomic_load(&member->state);
    uint64_t ticks = atomic_load(&member->start_ticks);
    *ret_pid = atomic_load(&member->pid);
    if (state == RANK_ABSENT && rank == 0) {
        *ret_pid = memory->maker_pid;
        ticks = memory->maker_start_ticks;
    }
    if (*ret_pid == 0) return false; /* nobody knows it yet */
    return state == RANK_LEFT || !process_is_alive(*ret_pid, ticks);
}

void comm_put_lost(Str *out, const CommMember *member, int rank, pid_t pid)
{
    bool left = atomic_load(&member->state) == RANK_LEFT;
    str_printf(out, "rank %d (pid %d) %s", rank, (int)pid, left ? "has left the group" : "died");
}

/* ---- the first failure ---- */

void comm_failure_report(CommFailure *failure, int rank, Status status, const char *text)
{
    uint32_t none = FAILURE_NONE;
    if (!atomic_compare_exchange_strong(&failure->state, &none, FAILURE_BEING_WRITTEN)) return;
    failure->status = (int32_t)status;
    failure->rank = rank;
    snprintf(failure->text, sizeof failure->text, "%s", text);
    atomic_store(&failure->state, FAILURE_WRITTEN);
}

bool comm_failure_is_there(const CommFailure *failure)
{
    return atomic_load_explicit(&failure->state, memory_order_acquire) != FAILURE_NONE;
}

Status comm_failure_tell(const CommFailure *failure, int own, Error *err)
{
    /* Whoever is writing needs a microsecond, unless it was killed in the middle of it. */
    for (int i = 0; i < 1000 && atomic_load(&failure->state) != FAILURE_WRITTEN; i++)
        sched_yield();
    if (atomic_load(&failure->state) != FAILURE_WRITTEN)
        return error_set(err, ERR_UNAVAILABLE,
                         "a rank of the group died while it reported a failure");
    Status status = (Status)failure->status;
    if (status <= OK || status >= STATUS_COUNT) status = ERR_INTERNAL;
    if (failure->rank == own) return error_set(err, status, "%s", failure->text);
    return error_set(err, status, "rank %d reported: %s", failure->rank, failure->text);
}
