#include "core/figures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double share(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : NAN;
}

static double pass_at(const AnswerFigures *sum, int k)
{
    for (int i = 0; i < PASS_AT_MAX; i++)
        if (1 << i == k) return share(sum->pass[i], sum->pass_of[i]);
    return NAN;
}

static double value_of_answers(const AnswerFigures *sum, EvalFigure figure, int k)
{
    switch (figure) {
    case FIGURE_REWARD:
        return share(sum->reward, sum->answers);
    case FIGURE_ACCURACY:
        return share((double)sum->right, sum->answers);
    case FIGURE_PASS_AT:
        return pass_at(sum, k);
    case FIGURE_RESPONSE_LENGTH:
        return share((double)sum->tokens, sum->answers);
    case FIGURE_TRUNCATED:
        return share((double)sum->truncated, sum->answers);
    default:
        return NAN;
    }
}

double eval_value(const EvalFigures *figures, EvalFigure figure, int k)
{
    const StepResult *result = &figures->result;
    if (figures->generated) return value_of_answers(&figures->answers, figure, k);
    switch (figure) {
    case FIGURE_LOSS:
        return share(result->loss_sum, result->trained_tokens);
    case FIGURE_PERPLEXITY:
        return exp(share(result->loss_sum, result->trained_tokens));
    case FIGURE_TOKEN_ACCURACY:
        return share((double)result->correct, result->trained_tokens);
    default:
        return NAN;
    }
}

void figures_add_parts(AnswerFigures *sum, const SampleWork *work)
{
    sum->parts_of += work->num_parts > 0;
    for (int i = 0; i < work->num_parts; i++)
        sum->part[i] += (double)work->part[i];
}

void eval_metric_name(const EvalFigures *figures, const char *name, char *text, size_t size)
{
    bool unnamed = strcmp(figures->name, "eval") == 0;
    snprintf(text, size, "eval/%s%s%s", unnamed ? "" : figures->name, unnamed ? "" : "/", name);
}
