/* Scheduler: which sequences run, with which pages, and what each step feeds. Decode comes first:
 * one token of every running sequence. What is left of the step's rows goes to prompts: of those
 * that run, then of those that wait, in the order of arrival, as pages allow. When a decoding
 * sequence needs a page and none is left, the newest one gives up its own and waits; it is computed
 * again later, to the same bits.
 *
 * Sequences of one request share their prompt: one computes it, the others wait for it and take
 * over its pages (of the last, partly filled one a copy), without a row of their own where they
 * have nothing else to compute. On the rank that plans. Private to the engine. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_SCHEDULER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_SCHEDULER_H

#include "rollout_worker/engine/page_pool.h"
#include "rollout_worker/engine/step_plan.h"

typedef struct Scheduler {
    PagePool *pool;
    int max_samples, max_step_tokens;
    bool forgets_prefixes;
    Sequence **running; /* [num_running] by order */
    int num_running, num_waiting;
    Sequence *first_waiting, *last_waiting; /* by order */
    int64_t rows_left;                      /* of the step being planned */
    EngineStats stats;                      /* the scheduler's part */
} Scheduler;

Scheduler *scheduler_create(const EngineOptions *options, int num_pages);
void scheduler_destroy(Scheduler *scheduler); /* not the sequences; accepts NULL */

void scheduler_add(Scheduler *scheduler, Sequence *sequence); /* newer than all others */

/* Takes a sequence out, for good. Its pages can be found again. */
void scheduler_remove(Scheduler *scheduler, Sequence *sequence);

/* Fills a clear plan; no rows: nothing is in work. */
void scheduler_plan(Scheduler *scheduler, StepPlan *plan);

/* The plan was carried out: its positions stand in the pages. Before tokens are appended. */
void scheduler_commit(Scheduler *scheduler, const StepPlan *plan);

/* Gives all pages back as if nothing stood in them, and everybody waits again: after a step that
 * failed, and where new weights compute everything anew. */
void scheduler_retreat(Scheduler *scheduler);

/* New weights, and pages stay: nobody may find these any more. What has no token yet begins anew.
 */
void scheduler_mix(Scheduler *scheduler);

#endif
