/* Meeting, waiting, and telling why a group is over. */
#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "comm/comm_shm.h"

/* A rank that waits looks a few times, then offers its core to others, then sleeps. Awake again
 * after this long at the latest, it looks whether those it waits for are still alive. */
#define SLEEP_SLICE_MS 20
#define YIELD_NS       50000

/* ---- the line of a rank ---- */

static ShmRank *line_of(const ShmComm *comm, int rank)
{
    return &comm->header->rank[rank];
}

bool shm_has_reached(const ShmCounter *counter, uint32_t number)
{
    return (int32_t)(atomic_load_explicit(&counter->value, memory_order_acquire) - number) >= 0;
}

/* Whether the running call waits for that rank: of a send or recv the peer, otherwise whoever has
 * not come to the meeting. Also asked by other threads. */
static bool is_missing(const ShmComm *comm, uint64_t signature, int rank)
{
    uint32_t target = atomic_load_explicit(&comm->target, memory_order_relaxed);
    int peer = comm_peer(signature);
    if (peer < 0)
        return rank != comm->base.rank && !shm_has_reached(&line_of(comm, rank)->arrived, target);
    const ShmCounter *awaited = atomic_load(&comm->awaited);
    return rank == peer && (awaited == NULL || !shm_has_reached(awaited, target));
}

static void futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ms)
{
    struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Appends the ranks that have not arrived, as a person reads them: "rank 2", "ranks 1 and 3".
 * Returns how many they are. */
static int put_missing(const ShmComm *comm, uint64_t signature, Str *out)
{
    int missing[SHM_RANKS_MAX], count = 0;
    for (int r = 0; r < comm->base.size; r++)
        if (is_missing(comm, signature, r)) missing[count++] = r;
    comm_put_ranks(out, missing, count);
    return count;
}

/* ---- failing ---- */

void shm_fail(ShmHeader *header, int rank, Status status, const char *text)
{
    comm_failure_report(&header->failure, rank, status, text);
    for (uint32_t r = 0; r < header->size; r++)
        futex_wake_all(&header->rank[r].arrived.value);
}

/* What another rank said, as this rank's error. */
static Status fail_as_told(ShmComm *comm, Error *err)
{
    return comm_failure_tell(&comm->header->failure, comm->base.rank, err);
}

/* "rank 2 (pid 17) died"; false while every missing rank may still come. */
static bool find_lost_rank(const ShmComm *comm, Str *out)
{
    const ShmHeader *header = comm->header;
    for (int r = 0; r < comm->base.size; r++) {
        const ShmRank *line = line_of(comm, r);
        if (!is_missing(comm, comm->signature, r)) continue;
        pid_t pid = 0;
        if (!comm_member_is_lost(&line->member, r, &header->memory, &pid)) continue;
        if (!is_missing(comm, comm->signature, r)) continue; /* and only then ended */
        comm_put_lost(out, &line->member, r, pid);
        return true;
    }
    return false;
}

static Status fail_lost(ShmComm *comm, Str *who, Error *err)
{
    str_puts(who, " while rank ");
    str_printf(who, "%d waited for it in ", comm->base.rank);
    comm_put_call(who, comm->signature, atomic_load(&comm->number));
    shm_fail(comm->header, comm->base.rank, ERR_UNAVAILABLE, str_text(who));
    str_free(who);
    return fail_as_told(comm, err);
}

static Status fail_late(ShmComm *comm, Error *err)
{
    Str text = {0};
    comm_put_call(&text, comm->signature, atomic_load(&comm->number));
    str_printf(&text, ": rank %d waited %d ms for ", comm->base.rank, comm->base.timeout_ms);
    put_missing(comm, comm->signature, &text);
    for (int r = 0; r < comm->base.size; r++) {
        ShmRank *line = line_of(comm, r);
        if (!is_missing(comm, comm->signature, r)) continue;
        str_printf(&text, "; rank %d ", r);
        if (atomic_load(&line->member.state) == RANK_ABSENT) {
            str_puts(&text, "never joined");
        } else {
            str_printf(&text, "(pid %d) is alive, its last call was ",
                       (int)atomic_load(&line->member.pid));
            comm_put_call(&text, atomic_load(&line->last), atomic_load(&line->last_number));
        }
        if (text.length > sizeof comm->header->failure.text / 2) break;
    }
    shm_fail(comm->header, comm->base.rank, ERR_TIMEOUT, str_text(&text));
    str_free(&text);
    return fail_as_told(comm, err);
}

Status shm_fail_apart(ShmComm *comm, int other, uint64_t theirs, Error *err)
{
    Str text = {0};
    comm_put_apart(&text, comm->base.rank, comm->signature, atomic_load(&comm->number), other,
                   theirs);
    shm_fail(comm->header, comm->base.rank, ERR_INTERNAL, str_text(&text));
    str_free(&text);
    return fail_as_told(comm, err);
}

/* ---- waiting ---- */

static Status sleep_for(ShmComm *comm, ShmCounter *counter, uint32_t number, Error *err)
{
    for (;;) {
        uint32_t seen = atomic_load(&counter->value);
        uint64_t theirs = 0;
        if ((int32_t)(seen - number) >= 0) return OK;
        if (comm_failure_is_there(&comm->header->failure)) return fail_as_told(comm, err);
        if (shm_pair_is_stuck(comm, &theirs))
            return shm_fail_apart(comm, comm_peer(comm->signature), theirs, err);
        int64_t left_ms = comm->deadline_ms - clock_ms();
        if (left_ms <= 0) return fail_late(comm, err);
        /* Sequentially consistent with shm_raise's store of the value and look at `sleepers`:
         * either it sees this sleeper, or the kernel sees the new value and does not sleep. */
        atomic_fetch_add(&counter->sleepers, 1);
        futex_wait(&counter->value, seen, left_ms < SLEEP_SLICE_MS ? left_ms : SLEEP_SLICE_MS);
        atomic_fetch_sub(&counter->sleepers, 1);
        if (shm_has_reached(counter, number)) return OK;
        Str who = {0};
        if (find_lost_rank(comm, &who)) return fail_lost(comm, &who, err);
        str_free(&who);
    }
}

static Status wait_for(ShmComm *comm, ShmCounter *counter, uint32_t number, Error *err)
{
    for (int i = 0; i < comm->spin_count; i++) {
        if (shm_has_reached(counter, number)) return OK;
        relax();
    }
    int64_t until_ns = clock_ns() + YIELD_NS;
    do {
        if (shm_has_reached(counter, number)) return OK;
        sched_yield();
    } while (clock_ns() < until_ns);
    return sleep_for(comm, counter, number, err);
}

void shm_raise(ShmCounter *counter, uint32_t number)
{
    atomic_store(&counter->value, number);
    if (atomic_load(&counter->sleepers) > 0) futex_wake_all(&counter->value);
}

Status shm_await(ShmComm *comm, ShmCounter *counter, uint32_t number, Error *err)
{
    atomic_store_explicit(&comm->target, number, memory_order_relaxed);
    atomic_store(&comm->awaited, counter);
    return wait_for(comm, counter, number, err);
}

Status shm_meet(ShmComm *comm, Error *err)
{
    ShmRank *mine = line_of(comm, comm->base.rank);
    uint32_t meeting = ++comm->meeting;
    atomic_store_explicit(&comm->target, meeting, memory_order_relaxed);
    atomic_store_explicit(&mine->call[meeting & 1], comm->signature, memory_order_relaxed);
    shm_raise(&mine->arrived, meeting);
    for (int r = 0; r < comm->base.size; r++)
        if (r != comm->base.rank) TRY(wait_for(comm, &line_of(comm, r)->arrived, meeting, err));
    for (int r = 0; r < comm->base.size; r++) {
        uint64_t theirs =
            atomic_load_explicit(&line_of(comm, r)->call[meeting & 1], memory_order_relaxed);
        if (theirs != comm->signature) return shm_fail_apart(comm, r, theirs, err);
    }
    return OK;
}

/* A message has its number of its pair, as both sides count it. */
static uint64_t next_number(ShmComm *comm, uint64_t signature)
{
    int own = comm->base.rank, peer = comm_peer(signature);
    if (peer < 0) return ++comm->calls;
    if (comm_is_send(signature)) return ++shm_pair(comm->header, own, peer)->sent;
    return ++shm_pair(comm->header, peer, own)->received;
}

Status shm_call_begin(ShmComm *comm, uint64_t signature, Error *err)
{
    ShmRank *mine = line_of(comm, comm->base.rank);
    if (comm->failure.status != OK)
        return error_set(err, comm->failure.status, "%s", comm->failure.message);
    comm->deadline_ms = clock_ms() + comm->base.timeout_ms;
    comm->signature = signature;
    atomic_store_explicit(&comm->number, next_number(comm, signature), memory_order_relaxed);
    atomic_store_explicit(&mine->last_number, comm->number, memory_order_relaxed);
    atomic_store_explicit(&mine->last, signature, memory_order_relaxed);
    atomic_store_explicit(&comm->target, comm->meeting, memory_order_relaxed);
    atomic_store(&comm->awaited, NULL);
    atomic_store_explicit(&comm->doing, signature, memory_order_release);
    if (comm_failure_is_there(&comm->header->failure))
        return shm_call_end(comm, fail_as_told(comm, err));
    return OK;
}

Status shm_call_end(ShmComm *comm, Status status)
{
    atomic_store_explicit(&comm->doing, 0, memory_order_release);
    if (status != OK) fail_as_told(comm, &comm->failure);
    return status;
}

void shm_describe_wait(const Comm *base, char *text, size_t size)
{
    const ShmComm *comm = (const ShmComm *)base;
    uint64_t signature = atomic_load_explicit(&comm->doing, memory_order_acquire);
    Str out = {0};
    Str missing = {0};
    if (signature != 0) {
        str_printf(&out, "%s #%" PRIu64, comm_call_name(signature), atomic_load(&comm->number));
        if (put_missing(comm, signature, &missing) > 0)
            str_printf(&out, ", waiting for %s", str_text(&missing));
    }
    str_free(&missing);
    snprintf(text, size, "%s", str_text(&out));
    str_free(&out);
}
