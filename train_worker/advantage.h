/* Advantages: what each trained token is pushed by. Pure functions in float64 over rewards, values
 * and log-probs that others gathered; any thread. Two stages. A sample's score comes from the
 * rewards of its whole group (all samples of the prompt, on whichever rank they train). From it the
 * tokens' advantages follow, in the order of a sample's trained tokens: tokens with mask 0
 * (prompts, tool output) are no steps of the trajectory. */
#ifndef TROUPE_TRAIN_WORKER_ADVANTAGE_H
#define TROUPE_TRAIN_WORKER_ADVANTAGE_H

#include "sample/score.h"

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
