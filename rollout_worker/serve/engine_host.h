/* EngineHost: a thread that owns an Engine and steps it whenever something is in work; a Generator
 * for the HTTP front. Requests and aborts reach it through a bounded queue. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_ENGINE_HOST_H
#define TROUPE_ROLLOUT_WORKER_SERVE_ENGINE_HOST_H

#include "rollout_worker/serve/generator.h"

typedef struct EngineHost EngineHost;

/* Makes the Engine (options->on_token and context are the host's own) and starts the thread.
 * `waiting_max`: samples in work beyond which requests are refused. What the options point to must
 * outlive the host. */
Status engine_host_start(const EngineOptions *options, int waiting_max, EngineHost **ret,
                         Error *err);

/* Aborts what is in work, gives its results, and ends the thread. Accepts NULL. */
void engine_host_stop(EngineHost *host);

Generator engine_host_generator(EngineHost *host);
const char *engine_host_memory_plan(const EngineHost *host); /* borrowed */

#endif
