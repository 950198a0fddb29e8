#include "policy_loss.h"

#include <math.h>
#include <stddef.h>

#include "base/error.h"

#define LOG_RATIO_MAX 20.0 /* exp of more is no ratio that anything should be learnt from */
#define LOW_VAR_MAX   10.0

_Static_assert(offsetof(PolicySums, ratio_min) == POLICY_SUMS_ADDED * sizeof(double),
               "what is added stands first");
_Static_assert(sizeof(ValueSums) == VALUE_SUMS_ADDED * sizeof(double), "all of it is added");

static double hold(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- Kullback-Leibler ---- */

double kl_estimate(KlEstimator estimator, double d)
{
    switch (estimator) {
    case KL_K1:
        return d;
    case KL_K2:
        return 0.5 * d * d;
    case KL_K3:
        return expm1(-d) + d;
    case KL_LOW_VAR:
        return hold(expm1(-d) + d, -LOW_VAR_MAX, LOW_VAR_MAX);
    }
    CHECKF(false, "KL estimator %d", (int)estimator);
}

double kl_slope(KlEstimator estimator, double d)
{
    switch (estimator) {
    case KL_K1:
        return 1.0;
    case KL_K2:
        return d;
    case KL_K3:
        return -expm1(-d);
    case KL_LOW_VAR:
        return expm1(-d) + d > LOW_VAR_MAX ? 0.0 : -expm1(-d);
    }
    CHECKF(false, "KL estimator %d", (int)estimator);
}

/* ---- ratios ---- */

/* exp of a log-ratio, and its derivative with respect to it: the same, but 0 where it is held. */
typedef struct Ratio {
    double value, slope;
} Ratio;

static Ratio ratio_of(double log_ratio)
{
    double held = hold(log_ratio, -LOG_RATIO_MAX, LOG_RATIO_MAX), value = exp(held);
    return (Ratio){value, held == log_ratio ? value : 0.0};
}

static double mean_difference(const double *a, const double *b, int count)
{
    double sum = 0.0;
    for (int t = 0; t < count; t++)
        sum += a[t] - b[t];
    return sum / count;
}

/* ---- off-policy correction ---- */

/* log w of token t; `mean` is that of the sample. */
static double log_correction(const AlgorithmConfig *config, const PolicyTokens *tokens, int t,
                             double mean)
{
    switch (config->correction_level) {
    case LEVEL_TOKEN:
        return tokens->old_log_prob[t] - tokens->rollout_log_prob[t];
    case LEVEL_SEQUENCE:
        return mean * tokens->count;
    case LEVEL_GEOMETRIC:
        return mean;
    }
    CHECKF(false, "correction level %d", (int)config->correction_level);
}

static double correct(const AlgorithmConfig *config, const PolicyTokens *tokens, int t, double mean,
                      PolicySums *sums)
{
    if (config->correction == CORRECTION_NONE) return 1.0;
    double w = ratio_of(log_correction(config, tokens, t, mean)).value;
    bool inside = w >= config->correction_low && w <= config->correction_high;
    double used = inside ? w
                  : config->correction == CORRECTION_ICEPOP
                      ? 0.0
                      : hold(w, config->correction_low, config->correction_high);
    sums->correction += used;
    sums->corrected += !inside;
    return used;
}

/* ---- the policy's part ---- */

/* A token's loss before correction and weight, and its derivative with respect to the log-ratio
 * (of clip and GSPO) or to x (of the others). */
typedef struct TokenLoss {
    double value, slope;
} TokenLoss;

static TokenLoss clip_loss(const AlgorithmConfig *config, Ratio ratio, double advantage,
                           PolicySums *sums)
{
    double low = 1.0 - config->eps_clip, high = 1.0 + config->eps_clip_high;
    double bounded = hold(ratio.value, low, high);
    TokenLoss loss = {-ratio.value * advantage, -ratio.slope * advantage};
    if (-bounded * advantage > loss.value) {
        loss = (TokenLoss){-bounded * advantage, 0.0};
        if (ratio.value < low)
            sums->clipped_low++;
        else
            sums->clipped_high++;
    }
    if (config->eps_clip_c > 0.0 && advantage < 0.0 &&
        -config->eps_clip_c * advantage < loss.value) {
        loss = (TokenLoss){-config->eps_clip_c * advantage, 0.0};
        sums->clipped_dual++;
    }
    return loss;
}

static TokenLoss cispo_loss(const AlgorithmConfig *config, Ratio ratio, double advantage,
                            double log_prob, PolicySums *sums)
{
    double low = 1.0 - config->eps_clip, high = 1.0 + config->eps_clip_high;
    double factor = hold(ratio.value, low, high) * advantage;
    sums->clipped_low += ratio.value < low;
    sums->clipped_high += ratio.value > high;
    return (TokenLoss){-factor * log_prob, -factor};
}

static TokenLoss token_loss(const AlgorithmConfig *config, Ratio ratio, double advantage,
                            double log_prob, PolicySums *sums)
{
    switch (config->policy_loss) {
    case POLICY_LOSS_CLIP:
    case POLICY_LOSS_GSPO:
        return clip_loss(config, ratio, advantage, sums);
    case POLICY_LOSS_CISPO:
        return cispo_loss(config, ratio, advantage, log_prob, sums);
    case POLICY_LOSS_REINFORCE:
        return (TokenLoss){-advantage * log_prob, -advantage};
    case POLICY_LOSS_COUNT:
        break;
    }
    CHECKF(false, "policy loss %d", (int)config->policy_loss);
}

static void count_token(const PolicyTokens *tokens, int t, double ratio, PolicySums *sums)
{
    double o = tokens->old_log_prob[t], d = tokens->log_prob[t] - o, a = tokens->advantage[t];
    if (sums->tokens == 0.0) sums->ratio_min = sums->ratio_max = ratio;
    sums->tokens++;
    sums->old_kl -= d;
    sums->old_kl3 += ratio_of(d).value - 1.0 - d;
    sums->ratio += ratio;
    sums->ratio_squared += ratio * ratio;
    sums->advantage += a;
    sums->advantage_squared += a * a;
    if (tokens->entropy != NULL) sums->entropy += tokens->entropy[t];
    if (ratio < sums->ratio_min) sums->ratio_min = ratio;
    if (ratio > sums->ratio_max) sums->ratio_max = ratio;
    if (tokens->rollout_log_prob == NULL) return;
    double apart = fabs(o - tokens->rollout_log_prob[t]);
    sums->rollout_tokens++;
    sums->rollout_difference += apart;
    if (apart > sums->rollout_difference_max) sums->rollout_difference_max = apart;
}

/* The derivative of GSPO's loss: every token moves the one ratio of the sample. */
static void spread_over_sample(double *dlog_prob, int count)
{
    double sum = 0.0;
    for (int t = 0; t < count; t++)
        sum += dlog_prob[t];
    for (int t = 0; t < count; t++)
        dlog_prob[t] = sum / count;
}

static void policy_part(const AlgorithmConfig *config, const PolicyTokens *tokens,
                        double *dlog_prob, PolicySums *sums)
{
    int n = tokens->count;
    double old_mean = 0.0, rollout_mean = 0.0;
    bool whole = config->policy_loss == POLICY_LOSS_GSPO;
    if (whole) old_mean = mean_difference(tokens->log_prob, tokens->old_log_prob, n);
    if (config->correction != CORRECTION_NONE)
        rollout_mean = mean_difference(tokens->old_log_prob, tokens->rollout_log_prob, n);
    for (int t = 0; t < n; t++) {
        double x = tokens->log_prob[t];
        Ratio ratio = ratio_of(whole ? old_mean : x - tokens->old_log_prob[t]);
        TokenLoss loss = token_loss(config, ratio, tokens->advantage[t], x, sums);
        double factor = tokens->weight * correct(config, tokens, t, rollout_mean, sums);
        sums->policy += factor * loss.value;
        dlog_prob[t] = factor * loss.slope;
        count_token(tokens, t, ratio.value, sums);
    }
    if (whole) spread_over_sample(dlog_prob, n);
}

/* ---- the other parts ---- */

static void add_kl(const AlgorithmConfig *config, const PolicyTokens *tokens, double *dlog_prob,
                   PolicySums *sums)
{
    for (int t = 0; t < tokens->count; t++) {
        double x = tokens->log_prob[t], d = x - tokens->ref_log_prob[t];
        double value = kl_estimate(config->kl_estimator, d);
        double slope = kl_slope(config->kl_estimator, d);
        sums->ref_kl += value;
        if (config->unbiased_kl) {
            Ratio ratio = ratio_of(x - tokens->old_log_prob[t]);
            slope = ratio.slope * value + ratio.value * slope;
            value *= ratio.value;
        }
        sums->kl_loss += tokens->weight * value;
        if (config->kl_loss_coef != 0.0)
            dlog_prob[t] += tokens->weight * config->kl_loss_coef * slope;
    }
}

bool policy_loss_needs_sample(const AlgorithmConfig *config)
{
    return config->policy_loss == POLICY_LOSS_GSPO ||
           (config->correction != CORRECTION_NONE && config->correction_level != LEVEL_TOKEN);
}

static double add_entropy(const AlgorithmConfig *config, const PolicyTokens *tokens,
                          double *dentropy)
{
    double sum = 0.0;
    if (config->entropy_coef == 0.0) return sum;
    for (int t = 0; t < tokens->count; t++) {
        sum += tokens->weight * tokens->entropy[t];
        dentropy[t] = -tokens->weight * config->entropy_coef;
    }
    return sum;
}

void policy_loss(const AlgorithmConfig *config, const PolicyTokens *tokens, double *dlog_prob,
                 double *dentropy, PolicySums *sums)
{
    PolicySums mine = {0};
    if (tokens->count == 0) return;
    CHECK(config->correction == CORRECTION_NONE || tokens->rollout_log_prob != NULL);
    CHECK(config->kl_loss_coef == 0.0 || tokens->ref_log_prob != NULL);
    policy_part(config, tokens, dlog_prob, &mine);
    if (tokens->ref_log_prob != NULL) add_kl(config, tokens, dlog_prob, &mine);
    mine.loss = mine.policy + config->kl_loss_coef * mine.kl_loss -
                config->entropy_coef * add_entropy(config, tokens, dentropy);
    policy_sums_add(sums, &mine);
}

/* ---- the critic ---- */

void value_loss(double clip, const ValueTokens *tokens, double *dvalue, ValueSums *sums)
{
    for (int t = 0; t < tokens->count; t++) {
        double v = tokens->value[t], old = tokens->old_value[t], target = tokens->target[t];
        double held = clip > 0.0 ? old + hold(v - old, -clip, clip) : v;
        double free_loss = (v - target) * (v - target);
        double held_loss = (held - target) * (held - target);
        bool bounded = held_loss > free_loss;
        sums->loss += tokens->weight * (bounded ? held_loss : free_loss);
        dvalue[t] = bounded ? 0.0 : 2.0 * tokens->weight * (v - target);
        sums->tokens++;
        sums->clipped += bounded;
        sums->value += v;
        sums->target += target;
        sums->target_squared += target * target;
        sums->error_squared += free_loss;
    }
}

/* ---- sums ---- */

static void add_all(double *sum, const double *other, int count)
{
    for (int i = 0; i < count; i++)
        sum[i] += other[i];
}

void policy_sums_add(PolicySums *sums, const PolicySums *other)
{
    if (other->tokens == 0.0) return;
    if (sums->tokens == 0.0 || other->ratio_min < sums->ratio_min)
        sums->ratio_min = other->ratio_min;
    if (other->ratio_max > sums->ratio_max) sums->ratio_max = other->ratio_max;
    if (other->rollout_difference_max > sums->rollout_difference_max)
        sums->rollout_difference_max = other->rollout_difference_max;
    add_all((double *)sums, (const double *)other, POLICY_SUMS_ADDED);
}

void value_sums_add(ValueSums *sums, const ValueSums *other)
{
    add_all((double *)sums, (const double *)other, VALUE_SUMS_ADDED);
}
