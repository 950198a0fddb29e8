#include "rollout_worker/process/plugin_guard.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#define SPIN_NS 20000 /* that both sides look out for each other before they sleep */

/* What is not marked is under the lock. */
struct PluginGuard {
    char *name;         /* const */
    int64_t timeout_ms; /* const */
    pthread_mutex_t lock;
    GuardedCall *parked; /* threads that have nothing to do */
    int left;            /* calls that are left to themselves */
    bool closed;         /* destroyed but for those */
};

/* A thread that makes calls, one after the other: whoever calls has it until the call is done, and
 * parks it; one that is left to itself parks itself when it comes back. Under the guard's lock. */
struct GuardedCall {
    PluginGuard *guard;
    pthread_t thread;
    PluginWork work;
    pthread_cond_t changed;
    int64_t deadline_ms;
    atomic_bool begun; /* read without the lock, too */
    atomic_bool done;  /* the same */
    bool in_worker;    /* the plugin has the worker do something */
    bool left;         /* the caller has gone */
    GuardedCall *next; /* parked */
};

PluginGuard *plugin_guard_create(const char *name, int64_t timeout_ms)
{
    PluginGuard *guard = mem_calloc(1, sizeof *guard);
    guard->name = mem_strdup(name);
    guard->timeout_ms = timeout_ms;
    pthread_mutex_init(&guard->lock, NULL);
    return guard;
}

static void guard_free(PluginGuard *guard)
{
    pthread_mutex_destroy(&guard->lock);
    free(guard->name);
    free(guard);
}

static void call_free(GuardedCall *call)
{
    pthread_cond_destroy(&call->changed);
    free(call);
}

/* Threads that came back are waited for, so that none is still in the plugin's own code for its end
 * when that is unloaded. */
bool plugin_guard_destroy(PluginGuard *guard)
{
    if (guard == NULL) return true;
    pthread_mutex_lock(&guard->lock);
    bool alone = guard->left == 0;
    GuardedCall *rest = guard->parked;
    guard->closed = true;
    guard->left += !alone; /* this one: the guard is needed until the threads have ended */
    for (GuardedCall *call = rest; call != NULL; call = call->next)
        pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&guard->lock);
    for (GuardedCall *call; (call = rest) != NULL;) {
        rest = call->next;
        pthread_join(call->thread, NULL);
        call_free(call);
    }
    pthread_mutex_lock(&guard->lock);
    guard->left -= !alone;
    bool last = guard->left == 0;
    pthread_mutex_unlock(&guard->lock);
    if (last) guard_free(guard);
    return alone;
}

/* Most calls are over in less time than it takes to fall asleep and to be woken. */
static void look_out_for(atomic_bool *flag)
{
    for (int64_t end = clock_ns() + SPIN_NS; !atomic_load(flag) && clock_ns() < end;)
        sched_yield();
}

static void park(GuardedCall *call)
{
    call->next = call->guard->parked;
    call->guard->parked = call;
}

/* With the lock. What was left to itself has come back after all: true when its guard is closed,
 * and the thread has to end. */
static bool come_back(GuardedCall *call)
{
    PluginGuard *guard = call->guard;
    pthread_mutex_unlock(&guard->lock);
    call->work.release(call->work.argument);
    pthread_mutex_lock(&guard->lock);
    guard->left--;
    if (guard->closed) return true;
    park(call);
    return false;
}

/* For one that nobody joins: its guard is closed. With the lock, which it lets go of. */
static void end_unseen(GuardedCall *call)
{
    PluginGuard *guard = call->guard;
    bool last = guard->left == 0;
    pthread_mutex_unlock(&guard->lock);
    pthread_detach(call->thread);
    call_free(call);
    if (last) guard_free(guard);
}

static void *call_main(void *argument)
{
    GuardedCall *call = argument;
    PluginGuard *guard = call->guard;
    for (;;) {
        look_out_for(&call->begun);
        pthread_mutex_lock(&guard->lock);
        while (!call->begun && !guard->closed)
            pthread_cond_wait(&call->changed, &guard->lock);
        bool begun = call->begun;
        call->begun = false;
        pthread_mutex_unlock(&guard->lock);
        if (!begun) return NULL;
        call->work.run(call->work.argument, call);
        pthread_mutex_lock(&guard->lock);
        call->done = true;
        pthread_cond_signal(&call->changed);
        if (call->left && come_back(call)) {
            end_unseen(call);
            return NULL;
        }
        pthread_mutex_unlock(&guard->lock);
    }
}

static GuardedCall *call_create(PluginGuard *guard)
{
    GuardedCall *call = mem_calloc(1, sizeof *call);
    call->guard = guard;
    condition_init(&call->changed);
    return call;
}

static bool start_thread(GuardedCall *call)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads that the worker knows */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&call->thread, NULL, call_main, call) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* A thread for a call; NULL when there is none to be had. */
static GuardedCall *take_thread(PluginGuard *guard)
{
    pthread_mutex_lock(&guard->lock);
    GuardedCall *call = guard->parked;
    if (call != NULL) guard->parked = call->next;
    pthread_mutex_unlock(&guard->lock);
    if (call != NULL) return call;
    call = call_create(guard);
    if (start_thread(call)) return call;
    call_free(call);
    return NULL;
}

/* With the lock: until it is done, or its time is over. */
static void wait_for(GuardedCall *call)
{
    while (!call->done && (call->in_worker || clock_ms() < call->deadline_ms)) {
        if (call->in_worker)
            pthread_cond_wait(&call->changed, &call->guard->lock);
        else
            condition_wait_until(&call->changed, &call->guard->lock, call->deadline_ms);
    }
    call->left = !call->done;
    call->guard->left += call->left;
}

static Status say_too_many(const PluginGuard *guard, int left, Error *err)
{
    return error_set(err, ERR_RESOURCE,
                     "plugin %s: %d calls of it have not come back, each within %" PRId64 " ms\n"
                     "  to do: mend it and start again",
                     QUOTED(guard->name), left, guard->timeout_ms);
}

static Status say_lost(const PluginGuard *guard, int left, Error *err)
{
    log_event(LOG_WARN, "plugin_hangs", F_STR("plugin", guard->name),
              F_INT("timeout_ms", guard->timeout_ms), F_INT("calls", left));
    if (left >= PLUGIN_CALLS_LEFT_MAX) return say_too_many(guard, left, err);
    return error_set(err, ERR_TIMEOUT, "plugin %s: a call has not come back within %" PRId64 " ms",
                     QUOTED(guard->name), guard->timeout_ms);
}

/* On this thread, without a guard. */
static void call_here(PluginGuard *guard, const PluginWork *work)
{
    GuardedCall *call = call_create(guard);
    work->run(work->argument, call);
    call_free(call);
}

Status plugin_guard_call(PluginGuard *guard, const PluginWork *work, Error *err)
{
    pthread_mutex_lock(&guard->lock);
    int left = guard->left;
    pthread_mutex_unlock(&guard->lock);
    if (left >= PLUGIN_CALLS_LEFT_MAX) {
        work->release(work->argument);
        return say_too_many(guard, left, err);
    }
    GuardedCall *call = take_thread(guard);
    if (call == NULL) {
        call_here(guard, work);
        return OK;
    }
    pthread_mutex_lock(&guard->lock);
    call->work = *work;
    call->in_worker = call->left = false;
    call->done = false;
    call->begun = true;
    call->deadline_ms = clock_ms() + guard->timeout_ms;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&guard->lock);
    look_out_for(&call->done);
    pthread_mutex_lock(&guard->lock);
    wait_for(call);
    bool lost = call->left; /* from now on it may be freed */
    left = guard->left;
    if (!lost) park(call);
    pthread_mutex_unlock(&guard->lock);
    return lost ? say_lost(guard, left, err) : OK;
}

void plugin_guard_enter(GuardedCall *call)
{
    pthread_mutex_lock(&call->guard->lock);
    bool left = call->left;
    call->in_worker = !left;
    if (!left) pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->guard->lock);
    while (left)
        pause(); /* what it would use is gone */
}

void plugin_guard_leave(GuardedCall *call)
{
    pthread_mutex_lock(&call->guard->lock);
    call->in_worker = false;
    call->deadline_ms = clock_ms() + call->guard->timeout_ms;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->guard->lock);
}
