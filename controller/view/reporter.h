/* Reporter: what people and programs see of a run. People: one live line on a terminal (redrawn
 * under the log's lines), plain key=value lines elsewhere. Programs: metrics.jsonl, one object per
 * step and per evaluation. Loop thread. */
#ifndef TROUPE_CONTROLLER_VIEW_REPORTER_H
#define TROUPE_CONTROLLER_VIEW_REPORTER_H

#include "core/controller.h"

typedef struct Reporter Reporter;

/* What output goes to. */
typedef struct Screen {
    bool redraws; /* a terminal on which a line can be drawn over */
    bool utf8;    /* it shows more than ASCII */
} Screen;

Status reporter_create(const char *metrics_path, const Screen *screen, Reporter **ret, Error *err);
void reporter_destroy(Reporter *reporter); /* ends the live line; accepts NULL */

/* FX_REPORT_STEP and FX_REPORT_EVAL. `peak_flops` is the sum over ranks of the highest matrix rate
 * that each measured so far, 0 if unknown: MFU is model FLOP/s as a share of it. */
void reporter_step(Reporter *reporter, const Effect *effect, const JobView *job, double peak_flops);
void reporter_eval(Reporter *reporter, const Effect *effect, const JobView *job);

/* Redraws the live line: what is waited for before the first step, what goes on besides training
 * after it. */
void reporter_tick(Reporter *reporter, const JobView *job, int64_t now_ms);

/* The run goes back to the checkpoint of `step`: metrics.jsonl forgets what was after it. */
void reporter_rewind(Reporter *reporter, int64_t step);

/* What was told last; NAN before there is anything to tell. */
typedef struct ReportView {
    double loss, tokens_per_s, mfu; /* of the last step */
    double eta_s;                   /* NAN until some steps have shown how long they take */
    double eval_loss;
} ReportView;
ReportView reporter_view(const Reporter *reporter);

/* The terminal has another width. */
void reporter_resized(Reporter *reporter);

#endif
