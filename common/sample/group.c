#include "sample/group.h"

#include <math.h>

#include "base/memory.h"

#define STD_MIN 1e-6

static const char *const names[GROUP_VERDICT_COUNT] = {
    [GROUP_KEPT] = "kept",
    [GROUP_BAD_REWARD] = "bad_reward",
    [GROUP_NOTHING_TO_TRAIN] = "nothing_to_train",
    [GROUP_TOO_SMALL] = "too_small",
    [GROUP_ZERO_VARIANCE] = "zero_variance",
    [GROUP_TOO_STALE] = "too_stale",
    [GROUP_REMAINDER] = "dropped",
};

const char *group_verdict_name(GroupVerdict verdict)
{
    return (unsigned)verdict < GROUP_VERDICT_COUNT ? names[verdict] : "unknown";
}

/* Mean and sum of squares about it, taken up one by one (Welford 1962): exact for equal rewards. */
typedef struct Spread {
    int count;
    double mean, squares;
} Spread;

static void spread_add(Spread *spread, double value)
{
    double before = value - spread->mean;
    spread->mean += before / ++spread->count;
    spread->squares += before * (value - spread->mean);
}

static bool spread_varies(const Spread *spread)
{
    return spread->count > 1 && sqrt(spread->squares / (spread->count - 1)) > STD_MIN;
}

bool rewards_vary(const double *reward, int count)
{
    Spread spread = {0};
    for (int i = 0; i < count; i++)
        spread_add(&spread, reward[i]);
    return spread_varies(&spread);
}

bool sample_meta_trains(const SampleMeta *sample)
{
    return sample->status == SAMPLE_COMPLETED || sample->status == SAMPLE_TRUNCATED;
}

GroupFilter group_filter(const AlgorithmConfig *algorithm)
{
    return (GroupFilter){
        .size_min = advantage_needs_group(algorithm->advantage_estimator) ? 2 : 1,
        .zero_variance = algorithm->dynamic_filter == FILTER_ZERO_VARIANCE,
    };
}

GroupVerdict group_judge(const GroupFilter *filter, const SampleMeta *sample, int count)
{
    Spread spread = {0};
    int64_t trained = 0;
    for (int i = 0; i < count; i++) {
        if (!sample_meta_trains(&sample[i])) continue;
        if (!isfinite(sample[i].reward)) return GROUP_BAD_REWARD;
        spread_add(&spread, (double)sample[i].reward);
        trained += sample[i].trained_tokens;
    }
    if (trained == 0) return GROUP_NOTHING_TO_TRAIN;
    if (spread.count < filter->size_min) return GROUP_TOO_SMALL;
    if (filter->zero_variance && !spread_varies(&spread)) return GROUP_ZERO_VARIANCE;
    return GROUP_KEPT;
}

double pass_at_k(int n, int right, int k)
{
    CHECK(1 <= k && k <= n && 0 <= right && right <= n);
    double none = 1;
    for (int i = 0; i < k; i++) /* all of k drawn without putting back are wrong */
        none *= n - right - i > 0 ? (double)(n - right - i) / (n - i) : 0;
    return 1 - none;
}
