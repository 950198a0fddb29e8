/* MemoryPlan: what one rank will allocate, known before it does. It chooses what the backward pass
 * recomputes: as little as fits. A pure function of the request. */
#ifndef TROUPE_TRAIN_WORKER_MEMORY_PLAN_H
#define TROUPE_TRAIN_WORKER_MEMORY_PLAN_H

#include "model/activations.h"

typedef struct MemoryPlan {
    KeepPolicy policy;
    int64_t max_tokens, chunk_rows; /* rows of a micro-batch; of them at a time through the head */
    /* bytes */
    int64_t weights, packed, masters, gradients, moments, activations, head, rope, reference, shown,
        total;
} MemoryPlan;

typedef struct MemoryRequest {
    const WeightPlan *plan;
    const KernelTable *kernels; /* of the device whose memory it is; NULL: the CPU's */
    DType dtype;
    int64_t max_tokens, max_sequence_length;
    bool with_reference; /* a second set of weights */
    int shown;           /* sets of weights that rollout workers read on this device */
    int64_t bytes_max;   /* 0: no limit */
} MemoryRequest;

/* What a reference model takes: its weights, packed for x w^T alone, as nothing goes back through
 * it. `kernels` as above. */
int64_t memory_plan_reference(const WeightPlan *plan, DType dtype, const KernelTable *kernels);

/* ERR_RESOURCE, with the plan, when even the most frugal policy does not fit bytes_max. */
Status memory_plan_make(const MemoryRequest *request, MemoryPlan *ret, Error *err);

/* Of it, what stays while the rank rests and others have its device (rollout.offload): then it is
 * in the host's memory. */
int64_t memory_plan_kept(const MemoryPlan *plan);

/* For people: every kind with its size. Owned by the caller. */
char *memory_plan_text(const MemoryPlan *plan);

#endif
