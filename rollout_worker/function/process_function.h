/* ProcessFunction: a rollout function in another language (`rollout.function: process:COMMAND`): a
 * program that gets records, asks for generations, and says what samples are made of
 * (docs/rollout-function.md has the protocol; function_run.h what it may say).
 *
 * Who calls brings the engine, as a callback. Any number of threads may run tasks at once; each
 * blocks until its samples are there. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_PROCESS_FUNCTION_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_PROCESS_FUNCTION_H

#include "rollout_worker/function/function_run.h"
#include "rollout_worker/process/process_pool.h"

typedef struct ProcessFunction ProcessFunction;

/* Starts the programs; pool->in_flight is the records that one works on at a time. Copies both.
 * ERR_INVALID when none can be started. */
Status process_function_open(const ProcessPoolOptions *pool, const FunctionHost *host,
                             ProcessFunction **ret, Error *err);
void process_function_close(ProcessFunction *function); /* accepts NULL; no task may be running */

Status process_function_watch(ProcessFunction *function, int64_t until_ms,
                              Error *err); /* process_pool_watch */

/* Makes ret[task->num_samples], to be cleared by the caller. ERR_UNAVAILABLE, ERR_TIMEOUT: the
 * program ended or was silent; ERR_INVALID: it broke the protocol; ERR_DATA: it says that it cannot
 * use the record; ERR_CANCELLED: nobody wants it any more; or the engine's. Then nothing is
 * returned. */
Status process_function_run(ProcessFunction *function, const FunctionTask *task,
                            const FunctionEngine *engine, Answer *ret, Error *err);

#endif
