/* Groups: the samples of one prompt, which are those of one position. The controller judges whole
 * groups before it plans a batch (dynamic sampling, Yu et al. 2025), from what it knows of samples
 * without their tokens; the train worker uses the same notion of rewards that vary. Pure; any
 * thread. */
#ifndef TROUPE_SAMPLE_GROUP_H
#define TROUPE_SAMPLE_GROUP_H

#include <stdbool.h>

#include "config/algorithm.h"
#include "sample/sample.h"

typedef enum {
    GROUP_KEPT = 0,
    GROUP_BAD_REWARD,       /* a reward that is not finite */
    GROUP_NOTHING_TO_TRAIN, /* no sample has a trained token */
    GROUP_TOO_SMALL,        /* fewer samples can train than the estimator needs */
    GROUP_ZERO_VARIANCE,    /* all rewards are equal: every advantage is 0 */
    /* Behind those that are judged: */
    GROUP_TOO_STALE, /* its weights are too old for the steps to come */
    GROUP_REMAINDER, /* the end of an epoch that does not fill a batch (data.remainder: drop) */
    GROUP_VERDICT_COUNT,
} GroupVerdict;

const char *group_verdict_name(GroupVerdict verdict); /* "kept", "zero_variance", ...: metrics */

typedef struct GroupFilter {
    int size_min;       /* 2 for estimators that compare a sample with its group, else 1 */
    bool zero_variance; /* drop groups whose rewards do not vary */
} GroupFilter;

/* What a job's algorithm lets train. */
GroupFilter group_filter(const AlgorithmConfig *algorithm);

/* Judges the samples of one group. Samples that were rejected or aborted do not count: the group is
 * what is left. The first reason in the order of GroupVerdict that applies. */
GroupVerdict group_judge(const GroupFilter *filter, const SampleMeta *sample, int count);

/* Whether rewards differ by more than rounding: their standard deviation is above 1e-6. */
bool rewards_vary(const double *reward, int count);

/* The chance that at least one of k answers is right, estimated without bias from n of which
 * `right` are: 1 - C(n - right, k) / C(n, k), 1 <= k <= n. Chen et al. 2021. */
double pass_at_k(int n, int right, int k);

/* A rollout trains in optimizer steps of `each` groups, one after the other by position, whoever
 * made their samples; the last has what is left. So many they are for `num_groups` of them, and in
 * which of them the group trains that is number `group`, from 0. `each` 0: all in one. */
static inline int updates_of_groups(int num_groups, int each)
{
    return each > 0 ? (num_groups + each - 1) / each : 1;
}

static inline int update_of_group(int group, int each)
{
    return each > 0 ? group / each : 0;
}

/* Samples that can train: neither rejected nor aborted. */
bool sample_meta_trains(const SampleMeta *sample);

#endif
