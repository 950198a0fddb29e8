/* ThreadGenerator: an EngineThread as the HTTP front wants to see it. The program `serve` makes one
 * for its own engine, a rollout worker for the engine that its rollouts use, too. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_THREAD_GENERATOR_H
#define TROUPE_ROLLOUT_WORKER_SERVE_THREAD_GENERATOR_H

#include "rollout_worker/engine/engine_thread.h"
#include "rollout_worker/serve/generator.h"

typedef struct ThreadGenerator ThreadGenerator;

/* Borrows the thread, which must outlive it and every request. `samples_max`: samples of its own in
 * work beyond which requests are refused. */
ThreadGenerator *thread_generator_create(EngineThread *thread, int samples_max);

/* Every request has had its last word by then, or the engine has ended or will. Accepts NULL. */
void thread_generator_destroy(ThreadGenerator *generator);

Generator thread_generator_front(ThreadGenerator *generator);

#endif
