/* Learning rate as a pure function of the step: nothing to save, nothing to restore. Any thread. */
#ifndef TROUPE_MODEL_LR_SCHEDULE_H
#define TROUPE_MODEL_LR_SCHEDULE_H

#include "config/job.h"

typedef struct LrPlan {
    LrSchedule schedule;
    double lr, min_lr;
    int64_t num_steps;    /* of the whole run, > 0 */
    int64_t warmup_steps; /* linear from lr / warmup_steps to lr */
    int64_t decay_steps;  /* WSD: the last decay_steps fall linearly from lr to min_lr */
} LrPlan;

/* The rate of optimizer step `step`, counted from 1. Step warmup_steps is the first with the full
 * rate; the decay begins after it and would reach min_lr at the step after the last, so that no
 * step is spent at rate 0 (as in transformers' schedules). Steps past num_steps get min_lr
 * (constant: lr). Cosine: Loshchilov & Hutter 2017, without restarts. WSD (warm-up, stable, decay):
 * Hu et al. 2024. */
double lr_plan_at(const LrPlan *plan, int64_t step);

#endif
