/* PluginGuard: the patience that the worker has with a shared object of the user's. Code in this
 * process cannot be stopped from outside; so each call of it is made on another thread, and where
 * it does not come back in time whoever called goes on without it. The thread is left to itself
 * with all that it was given. So many may be left at a time; then the run ends. There are as many
 * threads as there were calls at a time; they are kept, so that a call costs a few microseconds
 * and what the plugin keeps for each thread is made once.
 *
 * A call that uses the worker meanwhile says so (plugin_guard_enter and leave): that time is not
 * the plugin's, and what the caller lent is used by nobody once the call is left to itself. Any
 * number of threads. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_PLUGIN_GUARD_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_PLUGIN_GUARD_H

#include <stdint.h>

#include "base/error.h"

#define PLUGIN_CALLS_LEFT_MAX 16 /* calls that never came back, before the run ends */

typedef struct PluginGuard PluginGuard;
typedef struct GuardedCall GuardedCall; /* one that is being made */

/* `name` is the plugin's, for messages (copied); timeout_ms is for each stretch between two uses of
 * the worker. */
PluginGuard *plugin_guard_create(const char *name, int64_t timeout_ms);

/* Ends its threads; no call may be open. False: calls are left to themselves, so that neither what
 * they use may be freed nor their code unloaded; the guard goes on for them. Accepts NULL. */
bool plugin_guard_destroy(PluginGuard *guard);

typedef struct PluginWork {
    void (*run)(void *argument, GuardedCall *call); /* calls the plugin */
    void (*release)(void *argument); /* frees all, on its thread, when it comes back after all */
    void *argument;
} PluginWork;

/* Blocks until the work is done: OK. ERR_TIMEOUT: it is left to itself, and `argument` with it;
 * ERR_RESOURCE: the same, or it was not begun (and is released), and too many have been. */
Status plugin_guard_call(PluginGuard *guard, const PluginWork *work, Error *err);

/* Around what the plugin has the worker do; on the call's thread. Where the call was left to itself
 * `enter` never returns. */
void plugin_guard_enter(GuardedCall *call);
void plugin_guard_leave(GuardedCall *call);

#endif
