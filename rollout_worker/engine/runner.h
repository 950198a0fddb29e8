/* Runner: one rank's model, its pages, and what a step needs of memory; carries out StepPlans. The
 * same on every rank of a group. Private to the engine. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_RUNNER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_RUNNER_H

#include "model/forward.h"
#include "rollout_worker/engine/decode_graphs.h"

#define NO_WEIGHTS INT64_MIN /* a version that there is not */

typedef struct Runner {
    Model *model;
    KvCache *cache;
    Activations *activations;
    Sampler *sampler;
    DecodeGraphs *graphs;   /* or NULL */
    Drawn *drawn;           /* [max_samples] of the last step */
    int64_t weight_version; /* of model->weights */
    int64_t switches;       /* to these and to those before; 0: they give no more than a shape */
    const Weights *staged;  /* or NULL */
    int64_t staged_version;
} Runner;

/* Bytes by kind. */
typedef struct EngineMemory {
    int64_t weights, packed, pages, activations, head, rope, graphs, total;
    int64_t page_bytes;
    int num_pages;
} EngineMemory;

/* ERR_INVALID when the pages of one sequence of max_length do not fit into kv_bytes. */
Status engine_memory_plan_make(const EngineOptions *options, EngineMemory *ret, Error *err);
char *engine_memory_plan_text(const EngineMemory *memory); /* owned by the caller */

Runner *runner_create(const EngineOptions *options, const EngineMemory *memory);
void runner_destroy(Runner *runner); /* accepts NULL */

void runner_stage(Runner *runner, const Weights *weights, int64_t version);
Status runner_switch(Runner *runner, int64_t version, Error *err);

/* Collective. Results of the plan's draws are in runner->drawn. */
Status runner_run(Runner *runner, const StepPlan *plan, Error *err);

#endif
