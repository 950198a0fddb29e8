/* What ranks say of a step, as one: of sources and of ranks that had nothing to train. */
#include "test.h"

#include "core/core.h"

static StepResult sum_of(const StepResult *of_rank, int64_t tp_size, int ranks)
{
    JobConfig config = {.train.tp_size = tp_size};
    Controller controller = {.config = &config, .first_train = 2, .num_actors = 2 + ranks};
    return result_of_ranks(&controller, of_rank);
}

/* In the order of ranks, whatever that does to the last bit; ranks of a tensor-parallel group say
 * the same, once. */
static void test_result_sums_sources_in_the_order_of_ranks(void **state)
{
    (void)state;
    const StepResult of_rank[] = {{.source[0] = {1e16, 3}, .source[5] = {2.5, 4}},
                                  {.source[0] = {1e16, 3}, .source[5] = {2.5, 4}},
                                  {.source[0] = {1, 2}},
                                  {.source[0] = {1, 2}},
                                  {.source[0] = {-1e16, 1}, .source[5] = {0.25, 1}},
                                  {.source[0] = {-1e16, 1}, .source[5] = {0.25, 1}}};
    StepResult sum = sum_of(of_rank, 2, 6);
    assert_int_equal(sum.source[0].trained_tokens, 6);
    assert_true(sum.source[0].loss_sum == (1e16 + 1) - 1e16);
    assert_int_equal(sum.source[5].trained_tokens, 5);
    assert_true(sum.source[5].loss_sum == 2.75);
    assert_int_equal(sum.source[1].trained_tokens, 0);
}

/* Nor is the ratio of a rank without samples, 0, the least of all. */
static void test_result_passes_over_ratios_of_ranks_without_samples(void **state)
{
    (void)state;
    const StepResult none = {.has_policy = true};
    const StepResult some = {.has_policy = true,
                             .policy = {.tokens = 3, .ratio_min = 0.75, .ratio_max = 0.875}};
    const StepResult more = {.has_policy = true,
                             .policy = {.tokens = 2, .ratio_min = 0.5, .ratio_max = 0.625}};
    const StepResult of_rank[][3] = {{none, some, more}, {some, none, more}, {more, some, none}};
    for (int i = 0; i < 3; i++) {
        PolicyFigures sum = sum_of(of_rank[i], 1, 3).policy;
        assert_true(sum.tokens == 5);
        assert_true(sum.ratio_min == 0.5 && sum.ratio_max == 0.875);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_result_sums_sources_in_the_order_of_ranks),
        cmocka_unit_test(test_result_passes_over_ratios_of_ranks_without_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
