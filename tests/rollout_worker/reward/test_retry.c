/* Tests of rollout_worker/reward/retry: what becomes of samples that were not judged. */
#include "test.h"

#include <string.h>

#include "rollout_worker/reward/retry.h"

static RewardRetry make(RewardRetryLimits limits)
{
    RewardRetry retry;
    Error err = {0};
    assert_ok(reward_retry_init(&retry, &limits, &err), &err);
    return retry;
}

static RewardAction next(RewardRetry *retry, RewardOutcome outcome, int attempt, int64_t *delay)
{
    RewardResult result = {.outcome = outcome};
    strcpy(result.reason, "the server said 503");
    return reward_retry_next(retry, &result, attempt, delay);
}

static const RewardRetryLimits limits = {
    .attempts_max = 4,
    .backoff_ms = 100,
    .backoff_ms_max = 250,
    .given_up_max = 2,
    .never_max = 2,
    .in_a_row_max = 20,
};

static void test_retry_accepts_only_what_was_judged(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = -1;
    assert_int_equal(next(&retry, REWARD_OK, 1, &delay), REWARD_ACCEPT);
    assert_int_equal(next(&retry, REWARD_WRONG, 3, &delay), REWARD_ACCEPT);
    assert_int_equal(delay, 0);
    assert_int_equal(next(&retry, REWARD_INFRA_ERROR, 1, &delay), REWARD_RETRY);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 1, &delay), REWARD_RETRY);
    assert_int_equal(retry.retried, 2);
}

static void test_retry_backs_off_up_to_a_cap(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = 0;
    next(&retry, REWARD_TIMEOUT, 1, &delay);
    assert_int_equal(delay, 100);
    next(&retry, REWARD_TIMEOUT, 2, &delay);
    assert_int_equal(delay, 200);
    next(&retry, REWARD_TIMEOUT, 3, &delay);
    assert_int_equal(delay, 250);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_GIVE_UP);
    assert_int_equal(delay, 0);
}

static void test_retry_does_not_repeat_what_cannot_help(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    RewardResult result = {.outcome = REWARD_INFRA_ERROR, .permanent = true};
    int64_t delay = 0;
    assert_int_equal(reward_retry_next(&retry, &result, 1, &delay), REWARD_GIVE_UP);
    assert_int_equal(retry.given_up, 1);
}

static void test_retry_stops_past_the_limit_and_says_why(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = 0;
    for (int sample = 0; sample < 2; sample++)
        assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_GIVE_UP);
    next(&retry, REWARD_OK, 1, &delay);
    assert_int_equal(next(&retry, REWARD_INFRA_ERROR, 4, &delay), REWARD_STOP);
    Error err = {0};
    assert_fails(reward_retry_stop(&retry, &err), ERR_UNAVAILABLE, &err,
                 "3 of the last 4 samples of this worker (limit: rollout.unjudged_max, 2 of 1000)");
    assert_non_null(strstr(err.message, "1 ok, 0 wrong, 1 infra_error, 2 timeout"));
    assert_non_null(strstr(err.message, "last: the server said 503"));
    assert_non_null(strstr(err.message, "to do: "));
}

/* Faults that stay rare never end a run, however many they become. */
static void test_retry_forgets_what_is_long_ago(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = 0;
    for (int i = 1; i <= 100000; i++) {
        bool lost = i % 500 == 0; /* 2 of any 1000, the limit */
        RewardAction expected = lost ? REWARD_GIVE_UP : REWARD_ACCEPT;
        assert_int_equal(next(&retry, lost ? REWARD_TIMEOUT : REWARD_OK, 4, &delay), expected);
    }
    assert_int_equal(retry.given_up, 200);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_STOP);
}

/* What has never worked will not: it ends sooner than what sometimes does not. */
static void test_retry_stops_sooner_while_nothing_was_ever_judged(void **state)
{
    (void)state;
    RewardRetryLimits far = limits;
    far.given_up_max = 10;
    RewardRetry retry = make(far), later = make(far);
    int64_t delay = 0;
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_GIVE_UP);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_GIVE_UP);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 4, &delay), REWARD_STOP);
    Error err = {0};
    assert_fails(reward_retry_stop(&retry, &err), ERR_UNAVAILABLE, &err,
                 "any of the first 3 samples of this worker (limit: 2 then, later "
                 "rollout.unjudged_max, 10 of 1000)");
    next(&later, REWARD_WRONG, 1, &delay);
    for (int i = 0; i < 10; i++)
        assert_int_equal(next(&later, REWARD_TIMEOUT, 4, &delay), REWARD_GIVE_UP);
    assert_int_equal(next(&later, REWARD_TIMEOUT, 4, &delay), REWARD_STOP);
}

static void test_retry_stops_when_nothing_works_any_more(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = 0;
    for (int i = 0; i < 20; i++)
        assert_int_equal(next(&retry, REWARD_TIMEOUT, 1, &delay), REWARD_RETRY);
    assert_int_equal(next(&retry, REWARD_TIMEOUT, 1, &delay), REWARD_STOP);
    Error err = {0};
    assert_fails(reward_retry_stop(&retry, &err), ERR_UNAVAILABLE, &err, "21 times in a row");
}

static void test_retry_counts_a_row_only_without_a_judged_one(void **state)
{
    (void)state;
    RewardRetry retry = make(limits);
    int64_t delay = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(next(&retry, REWARD_TIMEOUT, 1, &delay), REWARD_RETRY);
        assert_int_equal(next(&retry, REWARD_WRONG, 2, &delay), REWARD_ACCEPT);
    }
}

static void test_retry_refuses_limits_without_sense(void **state)
{
    (void)state;
    RewardRetry retry;
    Error err = {0};
    RewardRetryLimits bad = limits;
    bad.attempts_max = 0;
    assert_fails(reward_retry_init(&retry, &bad, &err), ERR_INVALID, &err, "at least 1");
    bad = limits;
    bad.backoff_ms_max = 1;
    assert_fails(reward_retry_init(&retry, &bad, &err), ERR_INVALID, &err, "backoff_ms");
    bad = limits;
    bad.given_up_max = -1;
    assert_fails(reward_retry_init(&retry, &bad, &err), ERR_INVALID, &err, "below 0");
    assert_ok(reward_retry_init(&retry, &reward_retry_defaults, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retry_accepts_only_what_was_judged),
        cmocka_unit_test(test_retry_backs_off_up_to_a_cap),
        cmocka_unit_test(test_retry_does_not_repeat_what_cannot_help),
        cmocka_unit_test(test_retry_stops_past_the_limit_and_says_why),
        cmocka_unit_test(test_retry_forgets_what_is_long_ago),
        cmocka_unit_test(test_retry_stops_sooner_while_nothing_was_ever_judged),
        cmocka_unit_test(test_retry_stops_when_nothing_works_any_more),
        cmocka_unit_test(test_retry_counts_a_row_only_without_a_judged_one),
        cmocka_unit_test(test_retry_refuses_limits_without_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
