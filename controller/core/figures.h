/* Figures: what an evaluation says of a set, under the names of metrics.md. Pure. */
#ifndef TROUPE_CONTROLLER_CORE_FIGURES_H
#define TROUPE_CONTROLLER_CORE_FIGURES_H

#include "config/eval_set.h"
#include "core/event.h"

/* NAN where there was nothing to measure, or the evaluation is not of that kind. `k` is that of
 * pass@k, a power of two. */
double eval_value(const EvalFigures *figures, EvalFigure figure, int k);

/* Takes up what the rewards of a weighted sum said of an answer. */
void figures_add_parts(AnswerFigures *sum, const SampleWork *work);

/* Its name in metrics: "eval/loss" of data.eval, "eval/gsm8k/loss" of others. */
void eval_metric_name(const EvalFigures *figures, const char *name, char *text, size_t size);

#endif
