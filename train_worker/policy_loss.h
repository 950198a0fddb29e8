/* Policy loss: from what is known of a sample's trained tokens to their loss and its derivatives
 * with respect to each token's log-prob and to the entropy of its row; the head turns these into
 * gradients of logits. And the critic's loss. Pure functions in float64; any thread. The formulas
 * stand at the enums of config/algorithm.h. */
#ifndef TROUPE_TRAIN_WORKER_POLICY_LOSS_H
#define TROUPE_TRAIN_WORKER_POLICY_LOSS_H

#include "config/algorithm.h"

/* Trained tokens of one sample, in order: all of them, or, where the loss of a token does not
 * depend on the others (see policy_loss_needs_sample), any run of them. Arrays have `count`
 * entries; x, o, u and f as in algorithm.h. */
typedef struct PolicyTokens {
    int count;
    const double *log_prob;         /* x */
    const double *old_log_prob;     /* o; with OLD_CURRENT the caller passes x */
    const double *rollout_log_prob; /* u; NULL: unknown, allowed without a correction */
    const double *ref_log_prob;     /* f; NULL without kl_loss_coef */
    const double *entropy;          /* H; NULL without entropy_coef when nobody asks for it */
    const double *advantage;
    double weight; /* times each token's loss: this sample's part of the normaliser */
} PolicyTokens;

/* Sums over tokens, so that micro-batches and ranks add up: every figure but the last three. All
 * but loss, policy and kl_loss are plain sums, not weighted. */
typedef struct PolicySums {
    double loss;    /* weighted: policy + kl_coef kl - entropy_coef H */
    double policy;  /* weighted: the policy's part */
    double kl_loss; /* weighted, without its coefficient */
    double tokens;
    double entropy;                                 /* H */
    double ref_kl;                                  /* the estimator's d to the reference */
    double old_kl;                                  /* o - x: k1 from the old policy to this one */
    double old_kl3;                                 /* k3 of it */
    double ratio, ratio_squared;                    /* r */
    double clipped_low, clipped_high, clipped_dual; /* tokens whose loss the bound decides */
    double advantage, advantage_squared;
    double correction, corrected; /* w as applied; tokens for which it is not w itself */
    double rollout_tokens;        /* with a known u */
    double rollout_difference;    /* |o - u| */
    double ratio_min, ratio_max, rollout_difference_max; /* 0 when no token was seen */
} PolicySums;
#define POLICY_SUMS_ADDED 19 /* doubles before ratio_min */

void policy_sums_add(PolicySums *sums, const PolicySums *other);

/* Fills dlog_prob[count] and, when entropy_coef is not 0, dentropy[count] (else it may be NULL):
 * derivatives of the weighted loss. Adds to *sums. Where a bound decides a token's loss the
 * derivative is 0, at the bound itself that of the free side; log-ratios beyond +-20 count as
 * +-20, with derivative 0. */
void policy_loss(const AlgorithmConfig *config, const PolicyTokens *tokens, double *dlog_prob,
                 double *dentropy, PolicySums *sums);

/* Whether a token's loss depends on all tokens of its sample. */
bool policy_loss_needs_sample(const AlgorithmConfig *config);

/* An estimate of the KL divergence from d = x - f, and its slope. */
double kl_estimate(KlEstimator estimator, double d);
double kl_slope(KlEstimator estimator, double d);

/* ---- the critic ---- */

typedef struct ValueTokens {
    int count;
    const double *value, *old_value; /* now, and when the batch's advantages were taken */
    const double *target;            /* the returns */
    double weight;
} ValueTokens;

typedef struct ValueSums {
    double loss; /* weighted */
    double tokens, clipped;
    double value, target, target_squared, error_squared; /* for the explained variance */
} ValueSums;
#define VALUE_SUMS_ADDED 7

void value_sums_add(ValueSums *sums, const ValueSums *other);

/* max((value - target)^2, (held - target)^2), held being value within clip of old_value; clip 0:
 * the first alone. Schulman's PPO code, as slime has it: without a factor of one half. Fills
 * dvalue[count]. */
void value_loss(double clip, const ValueTokens *tokens, double *dvalue, ValueSums *sums);

#endif
