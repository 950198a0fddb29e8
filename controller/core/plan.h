/* Plan: which samples make the next step, on which data-parallel rank and in which micro-batch. A
 * plan is a function of positions, lengths and the layout alone: never of which worker made a
 * sample or when it arrived. So the same job gives the same batches with one or sixteen rollout
 * workers, after a kill and after a resume. Pure. */
#ifndef TROUPE_CONTROLLER_CORE_PLAN_H
#define TROUPE_CONTROLLER_CORE_PLAN_H

#include "core/stream.h"

typedef struct PlanOptions {
    int num_groups;   /* positions wanted, each with its whole group */
    bool allow_fewer; /* where the stream or an epoch ends: take what is left */
    int64_t epoch; /* positions of one, whose end a plan with a group does not go beyond; 0: all is
                      one */
    int groups_of_update; /* that train in an optimizer step (update_of_group); 0: all */
    int dp_size;
    int64_t max_tokens;   /* per micro-batch */
    int micro_batch_size; /* samples per micro-batch; 0: as many as max_tokens allows */
} PlanOptions;

typedef enum {
    PLAN_MADE,
    PLAN_WAITS,   /* samples are still being made */
    PLAN_CROWDED, /* the whole window holds too few accepted samples: nearly all are rejected */
    PLAN_ENDS,    /* the stream ends before there are enough */
} PlanOutcome;

/* Takes the first num_groups accepted positions at or after `from`, in order, with all of their
 * samples that can train, balances these over the ranks by tokens (longest processing time first,
 * Graham 1969) and packs micro-batches (first-fit decreasing), each update on its own: those of a
 * rank come update after update. *ret_plan is filled for PLAN_MADE
 * only; free with plan_clear. */
PlanOutcome plan_make(const Stream *stream, int64_t from, const PlanOptions *options,
                      Plan *ret_plan);
void plan_clear(Plan *plan); /* zeroes it */

/* One position more that the step passes over, behind those that it has; `why` is static. */
void plan_pass_over(Plan *plan, int64_t position, const char *why);

#endif
