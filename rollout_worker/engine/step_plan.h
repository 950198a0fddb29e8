/* StepPlan: what one step does, as plain data that every rank carries out alike: pages copied, rows
 * fed, tokens drawn. Rank 0 makes it; with tensor parallelism it goes to the others by two
 * broadcasts, of ordinary memory: over a group of the host's where there is one beside that of the
 * device. Private to the engine. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_STEP_PLAN_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_STEP_PLAN_H

#include "comm/comm.h"
#include "rollout_worker/engine/sequence.h"

typedef struct PageCopy {
    int32_t from, to;
} PageCopy;

typedef struct PageCopies {
    PageCopy *copy;
    int count, capacity;
} PageCopies;

/* On rank 0 alone: whose rows those of the batch are, and who is at which position after them.
 * A sequence without rows joins another's prompt. */
typedef struct PlanPart {
    Sequence *sequence;
    int32_t computed;
} PlanPart;

typedef struct StepPlan {
    int64_t weight_version;
    int64_t switches;  /* Runner.switches of rank 0: others who have made fewer switch now */
    bool stop;         /* the followers' last */
    bool meet;         /* no rank goes on before all have done what came before */
    Batch *batch;      /* rows, pages */
    PageCopies before; /* the forward pass: beginnings that other sequences computed earlier */
    PageCopies after;  /* those that this step computes */
    Draw *draw;        /* edits are set when the plan is complete */
    EditList edits;    /* of all draws, one after the other */
    int num_draws, draw_capacity;
    PlanPart *part;
    Sequence **drawer; /* [num_draws] */
    int num_parts, part_capacity;
    char *bytes; /* the wire form */
    int64_t bytes_capacity;
} StepPlan;

StepPlan *step_plan_create(void);
void step_plan_destroy(StepPlan *plan); /* accepts NULL */
void step_plan_clear(StepPlan *plan);

void step_plan_copy_page(PageCopies *copies, int32_t from, int32_t to);

/* The next `count` tokens of a sequence, which has pages for them. Returns the row of the last. */
int32_t step_plan_feed(StepPlan *plan, Sequence *sequence, int32_t count);

/* A sequence that will hold `computed` positions without rows of its own. */
void step_plan_join(StepPlan *plan, Sequence *sequence, int32_t computed);

/* The sequence's next token comes from `row`. */
void step_plan_draw(StepPlan *plan, Sequence *sequence, int32_t row);

/* Rank 0's plan to all ranks of the group: rank 0 passes it on, the others receive it. Points the
 * draws to their edits on every rank; does only that without a group. */
Status step_plan_share(StepPlan *plan, Comm *comm, Error *err);

#endif
