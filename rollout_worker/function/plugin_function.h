/* PluginFunction: a rollout function in a shared object (`rollout.function: plugin:PATH`) with the
 * interface of rollout_plugin.h. What it builds samples from is judged as what a program says
 * (function_run.h). Any number of threads may run tasks at once. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_PLUGIN_FUNCTION_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_PLUGIN_FUNCTION_H

#include "rollout_worker/function/function_run.h"

typedef struct PluginFunction PluginFunction;

/* Loads it. ERR_NOT_FOUND: it cannot be loaded; ERR_UNSUPPORTED: it is of another interface;
 * ERR_INVALID: it does not open, with what it says. Copies the host. A run that is silent for
 * timeout_ms between two uses of the host is left to itself (process/plugin_guard.h). */
Status plugin_function_open(const char *path, const FunctionHost *host, int64_t timeout_ms,
                            PluginFunction **ret, Error *err);
void plugin_function_close(PluginFunction *function); /* accepts NULL; no task may be running */

/* As process_function_run, with ERR_UNAVAILABLE where the plugin says that it failed, and
 * ERR_RESOURCE when too many of its runs have not come back. */
Status plugin_function_run(PluginFunction *function, const FunctionTask *task,
                           const FunctionEngine *engine, Answer *ret, Error *err);

#endif
