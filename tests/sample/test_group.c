/* Tests of groups: which are trained on, and why not. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "sample/group.h"

static SampleMeta trained(float reward)
{
    return (SampleMeta){
        .status = SAMPLE_COMPLETED, .length = 5, .trained_tokens = 3, .reward = reward};
}

static SampleMeta dropped(SampleStatus status)
{
    return (SampleMeta){.status = status, .reward = 1.0f, .trained_tokens = 3};
}

static void expect(const GroupFilter *filter, const SampleMeta *sample, int count,
                   GroupVerdict verdict)
{
    assert_string_equal(group_verdict_name(group_judge(filter, sample, count)),
                        group_verdict_name(verdict));
}

static void test_group_is_dropped_where_rewards_do_not_vary(void **state)
{
    (void)state;
    const GroupFilter all = {.size_min = 2}, varied = {.size_min = 2, .zero_variance = true};
    SampleMeta sample[9];
    for (int i = 0; i < 9; i++)
        sample[i] = trained(0.1f);
    expect(&varied, sample, 9, GROUP_ZERO_VARIANCE);
    expect(&all, sample, 9, GROUP_KEPT);
    sample[7].reward = 0.1001f;
    expect(&varied, sample, 9, GROUP_KEPT);
    sample[7].status = SAMPLE_ABORTED; /* what cannot train cannot make the difference */
    expect(&varied, sample, 9, GROUP_ZERO_VARIANCE);
}

static void test_group_counts_only_samples_that_train(void **state)
{
    (void)state;
    const GroupFilter pairs = {.size_min = 2}, any = {.size_min = 1};
    const SampleMeta sample[] = {trained(1), dropped(SAMPLE_REJECTED), dropped(SAMPLE_ABORTED)};
    expect(&pairs, sample, 3, GROUP_TOO_SMALL);
    expect(&any, sample, 3, GROUP_KEPT);
    expect(&any, sample + 1, 2, GROUP_NOTHING_TO_TRAIN);
    expect(&any, sample, 0, GROUP_NOTHING_TO_TRAIN);
}

static void test_group_without_trained_tokens_or_with_bad_reward_is_dropped(void **state)
{
    (void)state;
    const GroupFilter any = {.size_min = 1};
    SampleMeta sample[] = {trained(1), trained(0)};
    sample[0].trained_tokens = 0;
    expect(&any, sample, 2, GROUP_KEPT);
    sample[1].trained_tokens = 0;
    expect(&any, sample, 2, GROUP_NOTHING_TO_TRAIN);
    sample[1] = trained(NAN);
    expect(&any, sample, 2, GROUP_BAD_REWARD);
}

static void test_group_verdicts_have_names(void **state)
{
    (void)state;
    for (int i = 0; i < GROUP_VERDICT_COUNT; i++)
        assert_string_not_equal(group_verdict_name((GroupVerdict)i), "unknown");
    assert_string_equal(group_verdict_name((GroupVerdict)77), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_is_dropped_where_rewards_do_not_vary),
        cmocka_unit_test(test_group_counts_only_samples_that_train),
        cmocka_unit_test(test_group_without_trained_tokens_or_with_bad_reward_is_dropped),
        cmocka_unit_test(test_group_verdicts_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
