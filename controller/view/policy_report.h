/* PolicyReport: what is told of reinforcement learning: of the answers that a step learnt from and
 * of the update. Names of metrics are slime's where it has one, else
 * TRL's; docs/metrics.md lists them. Loop thread. */
#ifndef TROUPE_CONTROLLER_VIEW_POLICY_REPORT_H
#define TROUPE_CONTROLLER_VIEW_POLICY_REPORT_H

#include "core/event.h"
#include "view/live_line.h"
#include "view/metrics.h"

/* What people look at of a step. NAN where there is nothing. */
typedef struct PolicyView {
    double loss;             /* of the update */
    double reward, accuracy; /* means over answers */
    double length;           /* tokens of an answer */
    double calls;            /* of tools, for an answer; NAN where nobody called any */
    double kl;               /* to the reference model, where there is one */
    double
        old_kl; /* from the old policy; NAN where it is 0, as in all steps with their own weights */
    double entropy;
    double value_loss;  /* of the critic, where there is one */
    int64_t mismatches; /* log-probs of generation that are not the trainer's to the bit */
} PolicyView;

/* FX_REPORT_STEP with result.has_policy. */
PolicyView policy_view_step(const Effect *effect);
void policy_metrics_step(Metrics *metrics, const Effect *effect);
/* Of answers that nobody learns from. */
void policy_metrics_only(Metrics *metrics, const Effect *effect);

/* "reward=0.41 accuracy=0.41 ..." */
void policy_text(const PolicyView *view, Str *text);

#endif
