#include "model/lr_schedule.h"

#include <math.h>

/* How much of the decay is done before step `done` + 1: 0 at its begin, 1 at its end. */
static double decay_progress(int64_t done, int64_t begin, int64_t end)
{
    if (done <= begin) return 0.0;
    if (done >= end) return 1.0;
    return (double)(done - begin) / (double)(end - begin);
}

double lr_plan_at(const LrPlan *plan, int64_t step)
{
    CHECKF(step >= 1 && plan->num_steps >= 1, "step %lld of %lld", (long long)step,
           (long long)plan->num_steps);
    if (step < plan->warmup_steps) return plan->lr * (double)step / (double)plan->warmup_steps;
    int64_t done = step - 1;
    double span = plan->lr - plan->min_lr;
    double progress = decay_progress(done, plan->warmup_steps, plan->num_steps);
    switch (plan->schedule) {
    case SCHEDULE_CONSTANT:
        break;
    case SCHEDULE_LINEAR:
        return plan->min_lr + span * (1.0 - progress);
    case SCHEDULE_COSINE:
        return plan->min_lr + span * 0.5 * (1.0 + cos(3.141592653589793 * progress));
    case SCHEDULE_WSD:
        progress = decay_progress(done, plan->num_steps - plan->decay_steps, plan->num_steps);
        return plan->min_lr + span * (1.0 - progress);
    }
    return plan->lr;
}
