#include "view/policy_report.h"

#include <math.h>
#include <stdio.h>

#include "config/reward_names.h"
#include "core/figures.h"

static double share(double sum, double count)
{
    return count > 0 ? sum / count : NAN;
}

/* What does not apply to a job is null, which is not the 0 of what applies and did not happen. */
static double where(bool applies, double value)
{
    return applies ? value : (double)NAN;
}

/* The standard deviation, with n - 1. */
static double deviation(double sum, double squares, double count)
{
    if (count < 2) return count > 0 ? 0 : NAN;
    double variance = (squares - sum * sum / count) / (count - 1);
    return variance > 0 ? sqrt(variance) : 0;
}

/* ---- of the answers ---- */

typedef struct Answers {
    AnswerFigures sum;
    double longest, shortest, staleness, oldest, most_turns;
} Answers;

static Answers answers_of(const Plan *plan)
{
    Answers answers = {.shortest = NAN};
    AnswerFigures *sum = &answers.sum;
    for (int i = 0; i < plan->num_samples; i++) {
        const PlannedSample *sample = &plan->sample[i];
        double reward = (double)sample->reward, tokens = sample->trained_tokens;
        double behind = (double)(plan->step - sample->weight_version);
        sum->answers++;
        sum->right += sample->right;
        sum->truncated += sample->truncated;
        sum->reward += reward;
        sum->reward_squared += reward * reward;
        sum->tokens += sample->trained_tokens;
        answers.longest = fmax(answers.longest, tokens);
        answers.shortest = fmin(answers.shortest, tokens); /* fmin passes over NAN */
        answers.staleness += behind;
        answers.oldest = fmax(answers.oldest, behind);
        sum->turns += sample->work.turns;
        sum->tool_calls += sample->work.tool_calls;
        sum->tool_errors += sample->work.tool_errors;
        sum->tool_s += (double)sample->work.tool_s;
        sum->judge_s += (double)sample->work.judge_s;
        figures_add_parts(sum, &sample->work);
        answers.most_turns = fmax(answers.most_turns, sample->work.turns);
    }
    return answers;
}

static void put_staleness(Metrics *metrics, const Plan *plan)
{
    Answers answers = answers_of(plan);
    metrics_put(metrics, "rollout/staleness/mean",
                share(answers.staleness, (double)answers.sum.answers));
    metrics_put(metrics, "rollout/staleness/max", answers.oldest);
}

static void put_work(Metrics *metrics, const Plan *plan, const Answers *answers)
{
    const AnswerFigures *sum = &answers->sum;
    double count = (double)sum->answers;
    metrics_put(metrics, "rollout/turns/mean", share((double)sum->turns, count));
    metrics_put(metrics, "rollout/turns/max", answers->most_turns);
    /* as TRL counts: for an answer, and of these the calls that an error answers */
    metrics_put(metrics, "tools/call_frequency", share((double)sum->tool_calls, count));
    metrics_put(metrics, "tools/failure_frequency",
                share((double)sum->tool_errors, (double)sum->tool_calls));
    metrics_put(metrics, "rollout/failed", plan->failed);
    metrics_put(metrics, "rollout/unjudged", plan->unjudged);
    metrics_put(metrics, "rollout/retries", plan->retries);
    metrics_put(metrics, "perf/tool_time", share(sum->tool_s, count));
    metrics_put(metrics, "perf/reward_time", share(sum->judge_s, count));
}

/* Of a weighted sum: what each reward said, as TRL tells it, before weights. */
static void put_parts(Metrics *metrics, const char *rewards, const AnswerFigures *sum)
{
    RewardNames names = reward_names(rewards);
    for (int i = 0; i < names.count; i++) {
        char name[96];
        snprintf(name, sizeof name, "rewards/%s/mean", names.name[i]);
        metrics_put(metrics, name, share(sum->part[i], (double)sum->parts_of));
    }
}

static void put_answers(Metrics *metrics, const Plan *plan, const char *rewards)
{
    Answers answers = answers_of(plan);
    const AnswerFigures *sum = &answers.sum;
    double count = (double)sum->answers;
    metrics_put(metrics, "rollout/raw_reward", share(sum->reward, count));
    metrics_put(metrics, "rollout/reward_std", deviation(sum->reward, sum->reward_squared, count));
    put_parts(metrics, rewards, sum);
    metrics_put(metrics, "rollout/accuracy", share((double)sum->right, count));
    metrics_put(metrics, "rollout/response_len/mean", share((double)sum->tokens, count));
    metrics_put(metrics, "rollout/response_len/max", answers.longest);
    metrics_put(metrics, "rollout/response_len/min", answers.shortest);
    metrics_put(metrics, "rollout/truncated_ratio", share((double)sum->truncated, count));
    metrics_put(metrics, "rollout/too_stale/dropped", plan->dropped[GROUP_TOO_STALE]);
    metrics_put(metrics, "rollout/too_stale/recomputed", plan->recomputed);
    metrics_put(metrics, "rollout/too_stale/given_up", plan->given_up);
    for (GroupVerdict verdict = GROUP_KEPT + 1; verdict < GROUP_TOO_STALE; verdict++) {
        char name[64];
        snprintf(name, sizeof name, "rollout/dynamic_filter/drop_%s", group_verdict_name(verdict));
        metrics_put(metrics, name, plan->dropped[verdict]);
    }
    put_work(metrics, plan, &answers);
}

/* ---- of the update ---- */

/* Averaged as the policy's loss is. */
static double value_loss_of(const PolicyFigures *figures)
{
    return where(figures->value_tokens > 0, share(figures->value_loss, figures->normaliser));
}

static void put_critic(Metrics *metrics, const PolicyFigures *figures, double value_clip)
{
    if (figures->value_tokens == 0) return;
    metrics_put(metrics, "critic-train/value_loss", value_loss_of(figures));
    metrics_put(metrics, "critic-train/value_clipfrac",
                where(value_clip > 0, share(figures->value_clipped, figures->value_tokens)));
    metrics_put(metrics, "critic-train/grad_norm", figures->critic_grad_norm);
    metrics_put(metrics, "perf/critic_time", figures->critic_s);
}

static void put_ratios(Metrics *metrics, const AlgorithmConfig *algorithm,
                       const PolicyFigures *figures)
{
    double tokens = figures->tokens;
    bool clips = algorithm->policy_loss != POLICY_LOSS_REINFORCE;
    bool corrects = algorithm->correction != CORRECTION_NONE;
    metrics_put(metrics, "train/pg_clipfrac",
                where(clips, share(figures->clipped_low + figures->clipped_high, tokens)));
    metrics_put(metrics, "train/pg_clipfrac_low",
                where(clips, share(figures->clipped_low, tokens)));
    metrics_put(metrics, "train/pg_clipfrac_high",
                where(clips, share(figures->clipped_high, tokens)));
    metrics_put(metrics, "train/ratio/mean", share(figures->ratio, tokens));
    metrics_put(metrics, "train/ratio/min", where(tokens > 0, figures->ratio_min));
    metrics_put(metrics, "train/ratio/max", where(tokens > 0, figures->ratio_max));
    metrics_put(metrics, "train/tis", where(corrects, share(figures->correction, tokens)));
    metrics_put(metrics, "train/tis_clipfrac", where(corrects, share(figures->corrected, tokens)));
}

static void put_log_probs(Metrics *metrics, const PolicyFigures *figures)
{
    double seen = figures->rollout_tokens;
    metrics_put(metrics, "train/train_rollout_logprob_abs_diff",
                share(figures->rollout_difference, seen));
    metrics_put(metrics, "train/train_rollout_logprob_abs_diff_max",
                where(seen > 0, figures->rollout_difference_max));
    metrics_put(metrics, "train/logprob_compared", (double)figures->log_probs_compared);
    metrics_put(metrics, "train/logprob_mismatch_count",
                where(figures->log_probs_compared > 0, (double)figures->log_probs_differ));
}

/* The policy's figures are null in a step that trains the critic alone. */
static void put_update(Metrics *metrics, const AlgorithmConfig *algorithm,
                       const PolicyFigures *figures)
{
    double tokens = figures->tokens;
    metrics_put(metrics, "train/pg_loss",
                where(tokens > 0, share(figures->policy_loss, figures->normaliser)));
    metrics_put(metrics, "train/entropy_loss", share(figures->entropy, tokens));
    metrics_put(metrics, "train/kl_loss",
                where(tokens > 0 && algorithm->kl_loss_coef != 0,
                      share(figures->kl_loss, figures->normaliser)));
    metrics_put(metrics, "train/ref_kl",
                where(algorithm_uses_reference(algorithm), share(figures->ref_kl, tokens)));
    metrics_put(metrics, "train/ppo_kl", share(figures->old_kl, tokens));
    put_ratios(metrics, algorithm, figures);
    metrics_put(metrics, "train/advantage_std",
                deviation(figures->advantage, figures->advantage_squared, tokens));
    put_log_probs(metrics, figures);
    metrics_put(metrics, "rollout/staleness/token_mean", share((double)figures->age, tokens));
    metrics_put(metrics, "rollout/staleness/token_max",
                where(tokens > 0, (double)figures->age_max));
    metrics_put(metrics, "rollout/partial_samples",
                where(tokens > 0, (double)figures->mixed_samples));
    metrics_put(metrics, "rollout/zero_std_groups", figures->zero_variance_groups);
    metrics_put(metrics, "rollout/groups", figures->groups);
    metrics_put(metrics, "perf/log_probs_time", where(figures->passes_s > 0, figures->passes_s));
    put_critic(metrics, figures, algorithm->value_clip);
}

void policy_metrics_step(Metrics *metrics, const Effect *effect)
{
    put_answers(metrics, effect->step.plan, effect->step.rewards);
    put_staleness(metrics, effect->step.plan);
    put_update(metrics, effect->step.algorithm, &effect->step.result.policy);
}

void policy_metrics_only(Metrics *metrics, const Effect *effect)
{
    const Plan *plan = effect->step.plan;
    put_answers(metrics, plan, effect->step.rewards);
    metrics_put(metrics, "rollout/samples", plan->num_samples);
    metrics_put(metrics, "rollout/rejected", plan->rejected);
    metrics_put(metrics, "rollout/groups", plan->num_groups);
    metrics_put(metrics, "rollout/position", (double)plan->end_position);
}

PolicyView policy_view_step(const Effect *effect)
{
    const PolicyFigures *figures = &effect->step.result.policy;
    Answers answers = answers_of(effect->step.plan);
    double count = (double)answers.sum.answers;
    double tokens = figures->tokens;
    bool refers =
        effect->step.result.has_policy && algorithm_uses_reference(effect->step.algorithm);
    return (PolicyView){
        .loss = where(tokens > 0, share(figures->loss, figures->normaliser)),
        .reward = share(answers.sum.reward, count),
        .accuracy = share((double)answers.sum.right, count),
        .length = share((double)answers.sum.tokens, count),
        .calls = where(answers.sum.tool_calls > 0, share((double)answers.sum.tool_calls, count)),
        .kl = where(refers, share(figures->ref_kl, tokens)),
        .old_kl = where(figures->old_kl != 0, share(figures->old_kl, tokens)),
        .entropy = share(figures->entropy, tokens),
        .value_loss = value_loss_of(figures),
        .mismatches = figures->log_probs_differ,
    };
}

/* ---- for people ---- */

void policy_text(const PolicyView *view, Str *text)
{
    str_printf(text, "reward=%.4f accuracy=%.4f length=%.1f", view->reward, view->accuracy,
               view->length);
    if (isfinite(view->calls)) str_printf(text, " calls=%.2f", view->calls);
    if (isfinite(view->kl)) str_printf(text, " kl=%.3g", view->kl);
    if (isfinite(view->old_kl)) str_printf(text, " ppo_kl=%.3g", view->old_kl);
    if (isfinite(view->entropy)) str_printf(text, " entropy=%.4f", view->entropy);
    if (isfinite(view->value_loss)) str_printf(text, " value_loss=%.4f", view->value_loss);
    if (view->mismatches > 0)
        str_printf(text, " logprob_mismatches=%lld", (long long)view->mismatches);
}
