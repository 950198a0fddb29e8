/* DecodeGraphs: steps in which every sequence feeds one token, on a device that records
 * (tensor/graphs.h): the kernels of such a step, from the embedding to the drawn tokens, are
 * recorded once for each size and from then on launched as one. What a launch works on stands in
 * one block of the device's memory, laid out once for all sizes and filled by one upload; what
 * comes back is one download.
 *
 * Sizes are few (1, 2, 4, 8, 12, 16, 24, 32 ...): a step has the next larger one, and rows of no
 * sequence behind its own. They store nothing, attend to nothing and are read by nobody. The first
 * step of a size runs as ever, so that whatever is chosen when a shape is first met is chosen; the
 * second is recorded. What is not recorded and the reason of each part stand in docs/cuda.md.
 *
 * Graphs are kept for two sets of weights, which take turns (policy.h). Used by the compute thread,
 * of engines of one rank. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_DECODE_GRAPHS_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_DECODE_GRAPHS_H

#include "model/forward.h"
#include "rollout_worker/engine/step_plan.h"

typedef struct DecodeGraphs DecodeGraphs;

/* What steps are carried out with; all borrowed. */
typedef struct DecodeParts {
    Model *model; /* whose weights may change between steps */
    KvCache *cache;
    Activations *activations;
    Sampler *sampler;
} DecodeParts;

/* NULL where the device does not record, or the options say that nothing shall be. */
DecodeGraphs *decode_graphs_create(const EngineOptions *options, const DecodeParts *parts);
void decode_graphs_destroy(DecodeGraphs *graphs); /* accepts NULL */

/* Of the block, and of what the device keeps for all graphs that there can be (reckoned: nobody
 * tells). 0 where there will be none. */
int64_t decode_graphs_bytes(const EngineOptions *options);

/* Whether a step is one for these; NULL has none. */
bool decode_graphs_take(const DecodeGraphs *graphs, const StepPlan *plan);

/* Carries out a step that they take; ret[plan->num_draws] as by sampler_draw. */
Status decode_graphs_run(DecodeGraphs *graphs, const StepPlan *plan, Drawn *ret, Error *err);

/* Steps so far that were launched as one, and graphs that were recorded. */
int64_t decode_graphs_launches(const DecodeGraphs *graphs);
int64_t decode_graphs_recorded(const DecodeGraphs *graphs);

/* Why nothing is recorded any more: what the device said; NULL: it is. Borrowed. */
const char *decode_graphs_failure(const DecodeGraphs *graphs);

#endif
