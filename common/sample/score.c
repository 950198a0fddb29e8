#include "sample/score.h"

#include <math.h>

#include "sample/group.h"

#define GROUP_STD_EPS 1e-6

static double group_mean(const double *reward, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += reward[i];
    return sum / count;
}

static double group_std(const double *reward, int count, double mean)
{
    double squares = 0.0;
    for (int i = 0; i < count; i++)
        squares += (reward[i] - mean) * (reward[i] - mean);
    return sqrt(squares / (count - 1));
}

static void score_group(const AlgorithmConfig *config, const double *reward, int count,
                        double *score)
{
    double mean = group_mean(reward, count), scale = 1.0;
    if (config->advantage_estimator == ADVANTAGE_GRPO && config->std_normalization)
        scale = 1.0 / (group_std(reward, count, mean) + GROUP_STD_EPS);
    /* The mean of the others is (n mean - r) / (n - 1), so r less it is (r - mean) n / (n - 1). */
    if (config->advantage_estimator == ADVANTAGE_RLOO) scale = (double)count / (count - 1);
    for (int i = 0; i < count; i++)
        score[i] = (reward[i] - mean) * scale;
}

static Status check_group(const AlgorithmConfig *config, int64_t group, const double *reward,
                          int count, Error *err)
{
    for (int i = 0; i < count; i++)
        if (!isfinite(reward[i]))
            return error_set(err, ERR_INVALID, "group %lld: reward %d is %g, not a finite number",
                             (long long)group, i, reward[i]);
    if (count > 1 || !advantage_needs_group(config->advantage_estimator)) return OK;
    return error_set(
        err, ERR_INVALID,
        "group %lld has one sample, which nothing can be compared with: its advantage "
        "would be 0.\nSample at least 2 for each prompt, or use an advantage_estimator "
        "without groups (reinforce_plus_plus, ppo).",
        (long long)group);
}

static Status check_order(const int64_t *group, int count, Error *err)
{
    for (int i = 1; i < count; i++)
        if (group[i] < group[i - 1])
            return error_set(err, ERR_INVALID, "groups are out of order: %lld stands after %lld",
                             (long long)group[i], (long long)group[i - 1]);
    return OK;
}

Status sample_scores(const AlgorithmConfig *config, const int64_t *group, const double *reward,
                     int count, double *ret_score, GroupCounts *ret_counts, Error *err)
{
    GroupCounts counts = {0};
    TRY(check_order(group, count, err));
    for (int first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && group[end] == group[first];)
            end++;
        TRY(check_group(config, group[first], reward + first, end - first, err));
    }
    for (int first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && group[end] == group[first];)
            end++;
        const double *rewards = reward + first;
        double *scores = ret_score + first;
        bool varies = rewards_vary(rewards, end - first);
        counts.groups++;
        counts.zero_variance += !varies && end - first > 1;
        for (int i = 0; i < end - first; i++)
            scores[i] = advantage_needs_group(config->advantage_estimator) ? 0.0 : rewards[i];
        if (varies && advantage_needs_group(config->advantage_estimator))
            score_group(config, rewards, end - first, scores);
    }
    *ret_counts = counts;
    return OK;
}

bool kl_goes_into_score(AdvantageEstimator estimator)
{
    return estimator == ADVANTAGE_GRPO || estimator == ADVANTAGE_RLOO;
}
