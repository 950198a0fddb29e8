/* EvalReport: what is told of an evaluation, set by set: in one line of metrics.jsonl for programs,
 * and in a line for each set for people. Names of metrics are those that slime and TRL have, where
 * they have one; docs/metrics.md lists them. Loop thread. */
#ifndef TROUPE_CONTROLLER_VIEW_EVAL_REPORT_H
#define TROUPE_CONTROLLER_VIEW_EVAL_REPORT_H

#include "base/str.h"
#include "core/event.h"
#include "view/metrics.h"

/* The figures of one set, into the line that is being made. */
void eval_report_metrics(Metrics *metrics, const EvalFigures *set);

/* "eval gsm8k step=10/20 reward=0.4100 ..."; "eval step=..." of data.eval. */
void eval_report_line(const EvalFigures *set, int64_t step, int64_t total_steps, Str *text);

#endif
