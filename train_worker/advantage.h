/* Advantages: what each trained token is pushed by. Pure functions in float64 over rewards, values
 * and log-probs that others gathered; any thread. Two stages. A sample's score comes from the
 * rewards of its whole group (all samples of the prompt, on whichever rank they train). From it the
 * tokens' advantages follow, in the order of a sample's trained tokens: tokens with mask 0
 * (prompts, tool output) are no steps of the trajectory. */
#ifndef TROUPE_TRAIN_WORKER_ADVANTAGE_H
#define TROUPE_TRAIN_WORKER_ADVANTAGE_H

#include "base/error.h"
#include "config/algorithm.h"

/* ---- scores of samples ---- */

typedef struct GroupCounts {
    int groups, zero_variance;
} GroupCounts;

/* The scores of `count` samples: group[i] tells which group sample i belongs to, in ascending
 * order. Groups may be of different sizes; each is compared with itself alone. A group whose
 * rewards do not vary gets scores of exactly 0. ERR_INVALID when a group of one meets an estimator
 * that compares, or a reward is not finite.
 *
 *   GRPO              (r - mean) / (std + 1e-6), std with n - 1; the numerator alone without
 *                     std_normalization
 *   RLOO              r - mean of the other samples of the group
 *   REINFORCE++ base  r - mean
 *   others            r
 *
 * With kl_coef, GRPO and RLOO take `reward` less kl_coef times the sample's summed KL: the caller
 * subtracts it (kl_goes_into_score). */
Status sample_scores(const AlgorithmConfig *config, const int64_t *group, const double *reward,
                     int count, double *ret_score, GroupCounts *ret_counts, Error *err);

/* Whether KL in the reward goes into the samples' rewards before scores are taken (it is a matter
 * of the tokens otherwise). */
bool kl_goes_into_score(AdvantageEstimator estimator);

/* ---- advantages of tokens ---- */

typedef struct TokenReturns {
    int count;           /* trained tokens of the sample */
    double score;        /* of the sample */
    const double *kl;    /* [count] estimates, or NULL: none in the reward */
    const double *value; /* [count] the critic's, for PPO; else NULL */
} TokenReturns;

/* Fills advantage[count], and for PPO ret_return[count] (what the critic is to learn: advantage +
 * value), which may be NULL otherwise.
 *
 *   GRPO, RLOO        score, for every token
 *   REINFORCE++ base  score - kl_coef kl
 *   REINFORCE++       sum over k >= t of gamma^(k - t) reward_k
 *   PPO               sum over k >= t of (gamma lambda)^(k - t) delta_k,
 *                     delta_k = reward_k + gamma value_(k+1) - value_k, the value after the last
 *                     token being 0
 *
 * where reward_k = -kl_coef kl_k, and score more at the last token. */
void token_advantages(const AlgorithmConfig *config, const TokenReturns *tokens, double *advantage,
                      double *ret_return);

/* ---- whitening over a batch that is spread over ranks ---- */

/* Count, mean and sum of squares about the mean. Zero-initialise. */
typedef struct Moments {
    double count, mean, squares;
} Moments;

void moments_add(Moments *moments, const double *value, int count);

/* Takes other moments up, as if their values had been added (Chan et al. 1979). */
void moments_merge(Moments *moments, const Moments *other);

/* value = (value - mean) / sqrt(variance + 1e-8), variance with count - 1 (0 of a single value). */
void whiten(const Moments *moments, double *value, int count);

#endif
