/* Calls under way: beginning them, watching them, and telling why a group is over. */
#include "comm/comm_nccl.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define WATCH_MS 10 /* between two looks at the calls under way */
#define IDLE_MS  50 /* while there are none */
#define LOOK_MS  20 /* between two looks at the other ranks */
/* A rank that died may have done its part of the call before: then this one ends by itself. */
#define LOST_MS      100
#define SPINS        200
#define NAP_US       50
#define LOCK_WAIT_MS 100

/* ---- locking ---- */

static void lock(NcclComm *comm)
{
    pthread_mutex_lock(&comm->mutex);
    atomic_store(&comm->lock_until_ms, clock_ms() + comm->base.timeout_ms);
}

static void unlock(NcclComm *comm)
{
    atomic_store(&comm->lock_until_ms, 0);
    pthread_mutex_unlock(&comm->mutex);
}

static void nap(int round)
{
    if (round < SPINS)
        sched_yield();
    else
        usleep(NAP_US);
}

static void set_oldest(NcclComm *comm)
{
    const BoardWait *call = &comm->pending[comm->first % PENDING_MAX].call;
    comm->first_ms = clock_ms();
    comm->lost_ms = 0;
    atomic_store(&comm->oldest_signature, comm->count > 0 ? call->signature : 0);
    atomic_store(&comm->oldest, comm->count > 0 ? call->number : 0);
}

/* ---- failing ---- */

static void abort_nccl(NcclComm *comm)
{
    NcclHandle *nccl = atomic_exchange(&comm->nccl, NULL);
    if (nccl != NULL) comm->api.comm_abort(nccl);
}

static Status fail_again(const NcclComm *comm, Error *err)
{
    return error_set(err, comm->failure.status, "%s", comm->failure.message);
}

Status nccl_fail(NcclComm *comm, Status status, const char *text, Error *err)
{
    if (comm->failure.status == OK) {
        CommBoard *board = comm->board;
        if (board != NULL) {
            comm_failure_report(&board->failure, comm->base.rank, status, text);
            comm_failure_tell(&board->failure, comm->base.rank, &comm->failure);
        } else {
            error_set(&comm->failure, status, "%s", text);
        }
        abort_nccl(comm);
        comm->count = 0;
        set_oldest(comm);
    }
    return fail_again(comm, err);
}

static Status fail_with(NcclComm *comm, Status status, Str *text, Error *err)
{
    status = nccl_fail(comm, status, str_text(text), err);
    str_free(text);
    return status;
}

static Status fail_in_nccl(NcclComm *comm, const BoardWait *call, NcclResult result, Error *err)
{
    Str text = {0}, lost = {0};
    bool had_begun;
    NcclHandle *nccl = atomic_load(&comm->nccl);
    if (atomic_load(&comm->stuck)) {
        comm_put_call(&text, call->signature, call->number);
        str_printf(&text, ": NCCL did not take it within %d ms", comm->base.timeout_ms);
        return fail_with(comm, ERR_TIMEOUT, &text, err);
    }
    comm_put_call(&text, call->signature, call->number);
    str_printf(&text, " on rank %d: NCCL says \"%s\"", comm->base.rank,
               comm->api.get_error_string(result));
    const char *more = nccl != NULL ? comm->api.get_last_error(nccl) : "";
    if (more != NULL && more[0] != '\0') {
        str_puts(&text, ": ");
        str_put_escaped(&text, more);
    }
    if (comm_board_find_lost(comm->board, call, &lost, &had_begun))
        str_printf(&text, "; %s", str_text(&lost));
    str_free(&lost);
    return fail_with(comm, nccl_status(result), &text, err);
}

static Status fail_late(NcclComm *comm, const BoardWait *call, int timeout_ms, Error *err)
{
    Str text = {0}, missing = {0};
    comm_put_call(&text, call->signature, call->number);
    str_printf(&text, ": rank %d waited %d ms for ", comm->base.rank, timeout_ms);
    if (comm_board_put_missing(comm->board, call, &missing) > 0) {
        str_puts(&text, str_text(&missing));
        comm_board_put_whereabouts(comm->board, call, &text);
    } else if (comm->board != NULL) {
        str_puts(&text, "its device, though all ranks on this host have begun it");
    } else {
        str_puts(&text, "the others, none of which is seen from this host");
    }
    str_free(&missing);
    return fail_with(comm, ERR_TIMEOUT, &text, err);
}

/* ---- looking ---- */

/* What others did to the group. While locked. */
static Status look_at_group(NcclComm *comm, Error *err)
{
    char text[64];
    if (comm->failure.status != OK) return fail_again(comm, err);
    if (comm->board != NULL && comm_failure_is_there(&comm->board->failure))
        return nccl_fail(comm, ERR_INTERNAL, "", err); /* as told */
    if (!atomic_load(&comm->abort_asked)) return OK;
    snprintf(text, sizeof text, "rank %d aborted the group", comm->base.rank);
    return nccl_fail(comm, ERR_CANCELLED, text, err);
}

static NcclResult state_of_nccl(NcclComm *comm)
{
    NcclResult state = NCCL_SUCCESS;
    NcclHandle *nccl = atomic_load(&comm->nccl);
    if (nccl == NULL) return NCCL_INVALID_USAGE; /* aborted */
    NcclResult asked = comm->api.comm_get_async_error(nccl, &state);
    return asked != NCCL_SUCCESS ? asked : state;
}

/* Whether those who have begun this call mean the same: of a wrong size the device stays in it, of
 * a wrong operation it does not. */
static Status compare_calls(NcclComm *comm, const BoardWait *call, Error *err)
{
    uint64_t theirs = 0;
    Str text = {0};
    int other = comm_board_find_apart(comm->board, call, &theirs);
    if (other < 0) return OK;
    comm_put_apart(&text, comm->base.rank, call->signature, call->number, other, theirs);
    return fail_with(comm, ERR_INTERNAL, &text, err);
}

/* Whether a call that waits is waited for in vain. */
static Status look_at_ranks(NcclComm *comm, const BoardWait *call, Error *err)
{
    int64_t now_ms = clock_ms();
    bool had_begun = false;
    Str text = {0};
    if (now_ms - comm->looked_ms < LOOK_MS) return OK;
    comm->looked_ms = now_ms;
    TRY(compare_calls(comm, call, err));
    bool lost = comm_board_find_lost(comm->board, call, &text, &had_begun);
    if (!lost) comm->lost_ms = 0;
    if (lost && comm->lost_ms == 0) comm->lost_ms = now_ms;
    if (!lost || (had_begun && now_ms - comm->lost_ms < LOST_MS)) {
        str_free(&text);
        return OK;
    }
    str_printf(&text, " while rank %d waited for it in ", comm->base.rank);
    comm_put_call(&text, call->signature, call->number);
    return fail_with(comm, ERR_UNAVAILABLE, &text, err);
}

/* Forgets the calls that are done. While locked. */
static Status retire(NcclComm *comm, Error *err)
{
    char text[512];
    while (comm->failure.status == OK && comm->count > 0) {
        const PendingCall *call = &comm->pending[comm->first % PENDING_MAX];
        EventState state = comm->device.streams->event_query(call->event, text, sizeof text);
        if (state == EVENT_FAILED) return nccl_fail(comm, ERR_RESOURCE, text, err);
        if (state == EVENT_PENDING) break;
        TRY(compare_calls(comm, &call->call, err));
        comm->first++;
        comm->count--;
        set_oldest(comm);
    }
    return comm->failure.status == OK ? OK : fail_again(comm, err);
}

/* Looks at the calls under way. Those that are done stay done, whatever became of the group since.
 * While locked. */
static Status look(NcclComm *comm, Error *err)
{
    TRY(retire(comm, err));
    if (comm->count == 0) return OK;
    TRY(look_at_group(comm, err));
    PendingCall oldest = comm->pending[comm->first % PENDING_MAX];
    NcclResult state = state_of_nccl(comm);
    if (state != NCCL_SUCCESS && state != NCCL_IN_PROGRESS)
        return fail_in_nccl(comm, &oldest.call, state, err);
    TRY(look_at_ranks(comm, &oldest.call, err));
    int64_t since_ms = comm->first_ms > oldest.begun_ms ? comm->first_ms : oldest.begun_ms;
    if (clock_ms() - since_ms < oldest.timeout_ms) return OK;
    return fail_late(comm, &oldest.call, oldest.timeout_ms, err);
}

/* ---- the caller's side ---- */

Status nccl_check(NcclComm *comm, NcclResult result, Error *err)
{
    BoardWait call = comm->newest->call;
    int64_t begun_ms = clock_ms();
    for (int round = 0; result == NCCL_IN_PROGRESS; round++) {
        unlock(comm);
        nap(round);
        lock(comm);
        TRY(look_at_group(comm, err));
        result = state_of_nccl(comm);
        if (result != NCCL_IN_PROGRESS) break;
        TRY(look_at_ranks(comm, &call, err));
        if (clock_ms() - begun_ms >= comm->base.timeout_ms)
            return fail_late(comm, &call, comm->base.timeout_ms, err);
    }
    if (result == NCCL_SUCCESS) return OK;
    TRY(look_at_group(comm, err)); /* it may have been aborted for a reason */
    return fail_in_nccl(comm, &call, result, err);
}

/* A message has its number of its pair, as both sides count it. */
static uint64_t next_number(NcclComm *comm, uint64_t signature)
{
    int peer = comm_peer(signature);
    return peer < 0 ? ++comm->calls : ++comm->pair_calls[2 * peer + comm_is_send(signature)];
}

Status nccl_call_begin(NcclComm *comm, uint64_t signature, Error *err)
{
    lock(comm);
    Status status = look_at_group(comm, err);
    if (status == OK) status = retire(comm, err);
    for (int round = 0; status == OK && comm->count == PENDING_MAX; round++) {
        unlock(comm);
        nap(round);
        lock(comm);
        status = look(comm, err);
    }
    if (status != OK) {
        unlock(comm);
        return status;
    }
    PendingCall *call = comm->newest = &comm->pending[(comm->first + comm->count) % PENDING_MAX];
    call->call = (BoardWait){comm->base.rank, next_number(comm, signature), signature};
    comm_board_begin(comm->board, &call->call);
    return OK;
}

/* The communicator was aborted beside the call (lock_or_abort), and NCCL let it go as if nothing
 * were: what it was to do has not been done. */
static Status fail_aborted(NcclComm *comm, Error *err)
{
    TRY(look_at_group(comm, err));
    return fail_in_nccl(comm, &comm->newest->call, NCCL_INVALID_USAGE, err);
}

Status nccl_call_end(NcclComm *comm, Status status, void *stream, Error *err)
{
    PendingCall *call = comm->newest;
    comm->device.streams->event_record(call->event,
                                       stream); /* also behind half a call: is_drained */
    if (status == OK && comm->failure.status != OK) status = fail_again(comm, err);
    if (status == OK && atomic_load(&comm->nccl) == NULL) status = fail_aborted(comm, err);
    if (status == OK) {
        call->begun_ms = clock_ms();
        call->timeout_ms = comm->base.timeout_ms;
        if (comm->count++ == 0) set_oldest(comm); /* the watcher comes by, and need not be woken */
    }
    unlock(comm);
    return status;
}

Status nccl_settle(Comm *base, Error *err)
{
    NcclComm *comm = nccl_comm(base);
    for (int round = 0;; round++) {
        lock(comm);
        Status status = look(comm, err);
        uint64_t left = comm->count;
        unlock(comm);
        if (status != OK || left == 0) return status;
        nap(round);
    }
}

/* ---- from other threads ---- */

void nccl_abort(Comm *base)
{
    NcclComm *comm = nccl_comm(base);
    char text[64];
    snprintf(text, sizeof text, "rank %d aborted the group", base->rank);
    if (comm->board != NULL)
        comm_failure_report(&comm->board->failure, base->rank, ERR_CANCELLED, text);
    atomic_store(&comm->abort_asked, true); /* the watcher does it */
}

void nccl_describe_wait(const Comm *base, char *text, size_t size)
{
    const NcclComm *comm = (const NcclComm *)base;
    BoardWait call = {base->rank, atomic_load(&comm->oldest), atomic_load(&comm->oldest_signature)};
    Str out = {0}, missing = {0};
    if (call.number != 0) {
        str_printf(&out, "%s #%" PRIu64, comm_call_name(call.signature), call.number);
        if (comm_board_put_missing(comm->board, &call, &missing) > 0)
            str_printf(&out, ", waiting for %s", str_text(&missing));
        else
            str_puts(&out, ", waiting for the device");
    }
    str_free(&missing);
    snprintf(text, size, "%s", str_text(&out));
    str_free(&out);
}

static struct timespec time_in(int ms)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    time.tv_nsec += (long)ms * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

/* A caller that a function of NCCL (or the launch behind it, when a stuck kernel fills the device's
 * queue) does not let go holds the lock: nothing but an abort beside it helps, and that is what
 * NCCL allows from another thread. */
static bool lock_or_abort(NcclComm *comm)
{
    struct timespec until = time_in(LOCK_WAIT_MS);
    if (pthread_mutex_timedlock(&comm->mutex, &until) == 0) return true;
    int64_t until_ms = atomic_load(&comm->lock_until_ms);
    bool over = until_ms != 0 && clock_ms() >= until_ms;
    if (!over && !atomic_load(&comm->abort_asked)) return false;
    atomic_store(&comm->stuck, over);
    abort_nccl(comm);
    return false;
}

/* True when the watching is over. Not under the lock, which might not be had again. */
static bool sleep_until_stopped(NcclComm *comm, int ms)
{
    struct timespec until = time_in(ms);
    return sem_timedwait(&comm->stop, &until) == 0;
}

void *nccl_watch(void *argument)
{
    NcclComm *comm = argument;
    int sleep_ms = WATCH_MS;
    comm->device.streams->use();
    while (!sleep_until_stopped(comm, sleep_ms)) {
        if (!lock_or_abort(comm)) continue;
        if (look(comm, NULL) == OK) look_at_group(comm, NULL);
        sleep_ms = comm->count > 0 ? WATCH_MS : IDLE_MS;
        pthread_mutex_unlock(&comm->mutex);
    }
    return NULL;
}
