/* PlanStore: the samples that a train rank will work on next. The controller sends a plan (which
 * samples, in which micro-batches, held by whom); the store pulls them straight from the rollout
 * workers that hold them, while the compute thread is busy with the plan before. It keeps the two
 * newest plans of each set. Loop thread, except that a plan that was taken belongs to whoever took
 * it. */
#ifndef TROUPE_TRAIN_WORKER_PLAN_STORE_H
#define TROUPE_TRAIN_WORKER_PLAN_STORE_H

#include "actor/handle.h"
#include "sample/sample.h"
#include "trainer.h"

typedef struct FetchedPlan {
    uint64_t id;
    MicroBatch *micro_batch; /* points into `sample` */
    int num_micro_batches;
    Sample *sample;
    int num_samples;
    const Sample **pointer; /* [num_samples]: what the micro-batches point to */
    int *source;            /* [num_samples]: of a mixture, below INTERLEAVE_SOURCES_MAX; else 0 */
} FetchedPlan;

void fetched_plan_destroy(FetchedPlan *plan); /* accepts NULL */

typedef struct PlanStore PlanStore;

PlanStore *plan_store_create(Loop *loop, const ActorIdentity *self);
void plan_store_destroy(PlanStore *store); /* accepts NULL; ends what is being pulled */

/* train.fetch: answers the call when every sample is here, or with the holders that could not give
 * theirs (gone, or without the sample). Takes the call. */
void plan_store_fetch(PlanStore *store, Call *call);

/* Drops every plan: none of them will be worked on. */
void plan_store_forget(PlanStore *store);

/* Hands over a plan that has been fetched; ERR_NOT_FOUND when there is none of this id. */
Status plan_store_take(PlanStore *store, uint64_t id, FetchedPlan **ret, Error *err);

#endif
