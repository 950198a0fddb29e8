#include "rollout_worker/process/plugin_guard.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

struct PluginGuard {
    char *name;
    int64_t timeout_ms;
    pthread_mutex_t lock;
    int left;    /* calls that are left to themselves */
    bool closed; /* destroyed but for those */
};

/* Under the guard's lock. */
struct GuardedCall {
    PluginGuard *guard;
    PluginWork work;
    pthread_cond_t changed;
    int64_t deadline_ms;
    bool in_worker; /* the plugin has the worker do something */
    bool done;
    bool left; /* the caller has gone */
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

bool plugin_guard_destroy(PluginGuard *guard)
{
    if (guard == NULL) return true;
    pthread_mutex_lock(&guard->lock);
    bool alone = guard->left == 0;
    guard->closed = true;
    pthread_mutex_unlock(&guard->lock);
    if (alone) guard_free(guard);
    return alone;
}

static void call_free(GuardedCall *call)
{
    pthread_cond_destroy(&call->changed);
    free(call);
}

/* What is left to itself has come back after all. */
static void come_back(GuardedCall *call)
{
    PluginGuard *guard = call->guard;
    call->work.release(call->work.argument);
    call_free(call);
    pthread_mutex_lock(&guard->lock);
    bool last = --guard->left == 0 && guard->closed;
    pthread_mutex_unlock(&guard->lock);
    if (last) guard_free(guard);
}

static void *call_main(void *argument)
{
    GuardedCall *call = argument;
    PluginGuard *guard = call->guard;
    call->work.run(call->work.argument, call);
    pthread_mutex_lock(&guard->lock);
    bool left = call->left;
    call->done = true;
    if (!left) pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&guard->lock);
    if (left) come_back(call);
    return NULL;
}

static bool start_thread(GuardedCall *call)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads that the worker knows */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, NULL, call_main, call) == 0;
    if (started) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* With the lock: until it is done, or its time is over. */
static void wait_for(GuardedCall *call)
{
    while (!call->done && (call->in_worker || clock_ms() < call->deadline_ms)) {
        int64_t end_ms = call->deadline_ms;
        struct timespec until = {.tv_sec = end_ms / 1000, .tv_nsec = end_ms % 1000 * 1000000};
        if (call->in_worker)
            pthread_cond_wait(&call->changed, &call->guard->lock);
        else
            pthread_cond_timedwait(&call->changed, &call->guard->lock, &until);
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

Status plugin_guard_call(PluginGuard *guard, const PluginWork *work, Error *err)
{
    GuardedCall *call = mem_calloc(1, sizeof *call);
    pthread_condattr_t monotonic;
    call->guard = guard;
    call->work = *work;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&call->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_lock(&guard->lock);
    int left = guard->left;
    bool begun = left < PLUGIN_CALLS_LEFT_MAX;
    call->deadline_ms = clock_ms() + guard->timeout_ms;
    pthread_mutex_unlock(&guard->lock);
    if (begun && !start_thread(call))
        call_main(call); /* there is no thread to be had: without a guard, then */
    bool lost = false;
    if (begun) {
        pthread_mutex_lock(&guard->lock);
        wait_for(call);
        left = guard->left;
        lost = call->left; /* from now on it may be freed */
        pthread_mutex_unlock(&guard->lock);
    }
    if (!begun) work->release(work->argument);
    if (lost) {
        log_event(LOG_WARN, "plugin_hangs", F_STR("plugin", guard->name),
                  F_INT("timeout_ms", guard->timeout_ms), F_INT("calls", left));
        if (left >= PLUGIN_CALLS_LEFT_MAX) return say_too_many(guard, left, err);
        return error_set(err, ERR_TIMEOUT,
                         "plugin %s: a call has not come back within %" PRId64 " ms",
                         QUOTED(guard->name), guard->timeout_ms);
    }
    call_free(call);
    return begun ? OK : say_too_many(guard, left, err);
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
