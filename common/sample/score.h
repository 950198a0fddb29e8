/* Scores: what the rewards of a group make of each of its samples, from which the advantages of
 * their tokens follow (train_worker/advantage.h). Pure, in float64; any thread. */
#ifndef TROUPE_SAMPLE_SCORE_H
#define TROUPE_SAMPLE_SCORE_H

#include "base/error.h"
#include "config/algorithm.h"

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

#endif
