#include "view/eval_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config/reward_names.h"
#include "core/figures.h"

/* ---- for programs ---- */

static void put(Metrics *metrics, const EvalFigures *set, const char *name, double value)
{
    char whole[160];
    eval_metric_name(set, name, whole, sizeof whole);
    metrics_put(metrics, whole, value);
}

static void put_figure(Metrics *metrics, const EvalFigures *set, EvalFigure figure)
{
    put(metrics, set, eval_figure_name(figure), eval_value(set, figure, 0));
}

static double share(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : NAN;
}

/* The standard deviation, with n - 1. */
static double deviation_of_rewards(const AnswerFigures *sum)
{
    double count = (double)sum->answers;
    if (count < 2) return count > 0 ? 0 : NAN;
    double variance = (sum->reward_squared - sum->reward * sum->reward / count) / (count - 1);
    return variance > 0 ? sqrt(variance) : 0;
}

static void put_parts(Metrics *metrics, const EvalFigures *set)
{
    RewardNames names = reward_names(set->rewards);
    const AnswerFigures *sum = &set->answers;
    for (int i = 0; i < names.count; i++) {
        char name[96];
        double mean = sum->parts_of > 0 ? sum->part[i] / (double)sum->parts_of : (double)NAN;
        snprintf(name, sizeof name, "rewards/%s/mean", names.name[i]);
        put(metrics, set, name, mean);
    }
}

static void put_answers(Metrics *metrics, const EvalFigures *set)
{
    const AnswerFigures *sum = &set->answers;
    put_figure(metrics, set, FIGURE_REWARD);
    put(metrics, set, "reward_std", deviation_of_rewards(sum));
    put_parts(metrics, set);
    put_figure(metrics, set, FIGURE_ACCURACY);
    for (int i = 0; i < PASS_AT_MAX && sum->pass_of[i] > 0; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%d", eval_figure_name(FIGURE_PASS_AT), 1 << i);
        put(metrics, set, name, eval_value(set, FIGURE_PASS_AT, 1 << i));
    }
    put_figure(metrics, set, FIGURE_RESPONSE_LENGTH);
    put_figure(metrics, set, FIGURE_TRUNCATED);
    put(metrics, set, "prompts", (double)sum->prompts);
    put(metrics, set, "samples", (double)sum->answers);
    put(metrics, set, "unjudged", (double)sum->unjudged);
    put(metrics, set, "failed", (double)sum->failed);
    put(metrics, set, "turns/mean", share(sum->turns, sum->answers));
    put(metrics, set, "tools/call_frequency", share(sum->tool_calls, sum->answers));
    put(metrics, set, "tools/failure_frequency", share(sum->tool_errors, sum->tool_calls));
}

static void put_loss(Metrics *metrics, const EvalFigures *set)
{
    put_figure(metrics, set, FIGURE_LOSS);
    put_figure(metrics, set, FIGURE_PERPLEXITY);
    put_figure(metrics, set, FIGURE_TOKEN_ACCURACY);
    put(metrics, set, "samples", (double)set->samples);
    put(metrics, set, "trained_tokens", (double)set->result.trained_tokens);
}

void eval_report_metrics(Metrics *metrics, const EvalFigures *set)
{
    if (set->generated)
        put_answers(metrics, set);
    else
        put_loss(metrics, set);
    put(metrics, set, "time", set->seconds);
}

/* ---- for people ---- */

/* The highest k that all prompts have answers for; pass@1 is the accuracy. */
static void put_pass(const EvalFigures *set, Str *text)
{
    const AnswerFigures *sum = &set->answers;
    int last = 0;
    for (int i = 1; i < PASS_AT_MAX && sum->pass_of[i] == sum->prompts && sum->prompts > 0; i++)
        last = i;
    if (last > 0)
        str_printf(text, " pass@%d=%.4f", 1 << last, eval_value(set, FIGURE_PASS_AT, 1 << last));
}

void eval_report_line(const EvalFigures *set, int64_t step, int64_t total_steps, Str *text)
{
    bool unnamed = strcmp(set->name, "eval") == 0;
    str_printf(text, "eval%s%s step=%lld/%lld ", unnamed ? "" : " ", unnamed ? "" : set->name,
               (long long)step, (long long)total_steps);
    if (set->generated && set->answers.answers == 0) {
        str_printf(text, "no answer was judged: unjudged=%lld failed=%lld",
                   (long long)set->answers.unjudged, (long long)set->answers.failed);
        if (set->answers.refused > 0)
            str_printf(text, " rejected=%lld", (long long)set->answers.refused);
    } else if (set->generated) {
        str_printf(text, "reward=%.4f accuracy=%.4f", eval_value(set, FIGURE_REWARD, 0),
                   eval_value(set, FIGURE_ACCURACY, 0));
        put_pass(set, text);
        str_printf(text, " length=%.1f samples=%lld", eval_value(set, FIGURE_RESPONSE_LENGTH, 0),
                   (long long)set->answers.answers);
        if (set->answers.tool_calls > 0)
            str_printf(text, " calls=%.2f", share(set->answers.tool_calls, set->answers.answers));
        if (set->answers.unjudged > 0)
            str_printf(text, " unjudged=%lld", (long long)set->answers.unjudged);
        if (set->answers.failed > 0)
            str_printf(text, " failed=%lld", (long long)set->answers.failed);
        if (set->answers.refused > 0)
            str_printf(text, " rejected=%lld", (long long)set->answers.refused);
    } else {
        str_printf(text, "loss=%.4f token_accuracy=%.4f samples=%lld",
                   eval_value(set, FIGURE_LOSS, 0), eval_value(set, FIGURE_TOKEN_ACCURACY, 0),
                   (long long)set->samples);
    }
    str_printf(text, " seconds=%.1f\n", set->seconds);
}
