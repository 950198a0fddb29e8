/* Advantages and losses against torch in float64, against slopes, and at their edges. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "advantage.h"
#include "fixture.h"
#include "policy_loss.h"

#define TOLERANCE 1e-12
#define MAX       64

static void assert_near(double found, double expected, const char *what, int at)
{
    double bound = TOLERANCE * fmax(1.0, fabs(expected));
    if (!(fabs(found - expected) <= bound))
        fail_msg("%s[%d] is %.17g, expected %.17g", what, at, found, expected);
}

static void assert_all_near(const double *found, const double *expected, int count,
                            const char *what)
{
    for (int i = 0; i < count; i++)
        assert_near(found[i], expected[i], what, i);
}

/* ---- scores ---- */

static void test_scores_equal_torch_in_groups_of_uneven_size(void **state)
{
    (void)state;
    cJSON *json = fixture_load("advantages.json");
    double size[MAX], reward[MAX], expected[MAX], score[MAX];
    int64_t group[MAX];
    int groups = fixture_numbers(json, "sizes", size, MAX), count = 0;
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < (int)size[g]; i++)
            group[count++] = 10 * g;
    assert_int_equal(fixture_numbers(json, "reward", reward, MAX), count);
    const cJSON *cases = fixture_member(json, "scores"), *one;
    cJSON_ArrayForEach(one, cases)
    {
        Error err = {0};
        GroupCounts counts;
        AlgorithmConfig config = {.std_normalization = fixture_number(one, "std") > 0};
        config.advantage_estimator = fixture_estimator(one);
        fixture_numbers(one, "score", expected, MAX);
        assert_ok(sample_scores(&config, group, reward, count, score, &counts, &err), &err);
        assert_all_near(score, expected, count, fixture_text(one, "estimator"));
        assert_int_equal(counts.groups, groups);
        assert_int_equal(counts.zero_variance, 1);
    }
    cJSON_Delete(json);
}

/* Rewards such as 0.1 whose mean is not exact: the scores still are. */
static void test_equal_rewards_score_exactly_zero(void **state)
{
    (void)state;
    for (int estimator = ADVANTAGE_GRPO; advantage_needs_group((AdvantageEstimator)estimator);
         estimator++)
        for (int count = 2; count < MAX; count++) {
            int64_t group[MAX] = {0};
            double reward[MAX], score[MAX];
            GroupCounts counts;
            AlgorithmConfig config = {.std_normalization = true};
            config.advantage_estimator = (AdvantageEstimator)estimator;
            for (int i = 0; i < count; i++)
                reward[i] = 0.1;
            assert_int_equal(sample_scores(&config, group, reward, count, score, &counts, NULL),
                             OK);
            for (int i = 0; i < count; i++)
                assert_true(score[i] == 0.0);
            assert_int_equal(counts.zero_variance, 1);
        }
}

static void test_group_of_one_is_refused_where_samples_are_compared(void **state)
{
    (void)state;
    const int64_t group[] = {4, 4, 7};
    const double reward[] = {1, 0, 1};
    for (int estimator = 0; estimator < ADVANTAGE_COUNT; estimator++) {
        Error err = {0};
        double score[] = {77, 77, 77};
        GroupCounts counts;
        AlgorithmConfig config = {.advantage_estimator = (AdvantageEstimator)estimator};
        Status status = sample_scores(&config, group, reward, 3, score, &counts, &err);
        if (estimator >= ADVANTAGE_REINFORCE_PLUS_PLUS) {
            assert_int_equal(status, OK);
            assert_memory_equal(score, reward, sizeof reward);
            continue;
        }
        assert_int_equal(status, ERR_INVALID);
        assert_non_null(strstr(err.message, "group 7 has one sample"));
        assert_true(score[0] == 77);
    }
}

static void test_scores_refuse_what_is_no_reward_and_no_order(void **state)
{
    (void)state;
    Error err = {0};
    GroupCounts counts;
    double score[3];
    AlgorithmConfig config = {0};
    const int64_t group[] = {4, 4}, mixed[] = {4, 4, 3};
    const double bad[] = {1, NAN}, reward[] = {1, 0, 1};
    assert_fails(sample_scores(&config, group, bad, 2, score, &counts, &err), ERR_INVALID, &err,
                 "reward 1 is nan");
    assert_fails(sample_scores(&config, mixed, reward, 3, score, &counts, &err), ERR_INVALID, &err,
                 "3 stands after 4");
}

/* ---- tokens ---- */

static void check_tokens(const cJSON *one, AdvantageEstimator estimator, double *advantage)
{
    double kl[MAX], value[MAX], expected[MAX], returns[MAX];
    AlgorithmConfig config = {
        .advantage_estimator = estimator,
        .gamma = fixture_number(one, "gamma"),
        .gae_lambda = fixture_number(one, "gae_lambda"),
        .kl_coef = fixture_number(one, "kl_coef"),
    };
    TokenReturns tokens = {.score = fixture_number(one, "score"), .kl = kl, .value = value};
    tokens.count = fixture_numbers(one, "kl", kl, MAX);
    fixture_numbers(one, "value", value, MAX);
    const char *name =
        fixture_estimator_name(estimator == ADVANTAGE_RLOO ? ADVANTAGE_GRPO : estimator);
    assert_int_equal(fixture_numbers(one, name, expected, MAX), tokens.count);
    token_advantages(&config, &tokens, advantage, returns);
    assert_all_near(advantage, expected, tokens.count, name);
    if (estimator != ADVANTAGE_PPO) return;
    fixture_numbers(one, "ppo_return", expected, MAX);
    assert_all_near(returns, expected, tokens.count, "ppo_return");
}

static void test_token_advantages_equal_their_definition(void **state)
{
    (void)state;
    cJSON *json = fixture_load("advantages.json");
    const cJSON *one;
    cJSON_ArrayForEach(one, fixture_member(json, "tokens"))
    {
        double advantage[MAX];
        for (int e = 0; e < ADVANTAGE_COUNT; e++)
            check_tokens(one, (AdvantageEstimator)e, advantage);
    }
    cJSON_Delete(json);
}

/* However the values are spread over ranks and micro-batches. */
static void test_whitening_equals_torch_however_values_are_spread(void **state)
{
    (void)state;
    cJSON *json = fixture_load("advantages.json");
    double value[MAX], expected[MAX];
    int count = 0, number = fixture_numbers(json, "whitened", expected, MAX);
    const cJSON *one;
    cJSON_ArrayForEach(one, fixture_member(json, "tokens")) count +=
        fixture_numbers(one, "ppo", value + count, MAX - count);
    assert_int_equal(count, number);
    for (int piece = 1; piece <= count; piece++) {
        double white[MAX];
        Moments moments = {0}, rank[2];
        memset(rank, 0, sizeof rank);
        for (int at = 0, i = 0; at < count; at += piece, i++)
            moments_add(&rank[i % 2], value + at, at + piece < count ? piece : count - at);
        moments_merge(&moments, &rank[0]);
        moments_merge(&moments, &rank[1]);
        memcpy(white, value, sizeof white);
        whiten(&moments, white, count);
        assert_all_near(white, expected, count, "whitened");
    }
    Moments one_value = {0};
    double single = 5.0;
    moments_add(&one_value, &single, 1);
    whiten(&one_value, &single, 1);
    assert_true(single == 0.0);
    cJSON_Delete(json);
}

/* ---- losses ---- */

typedef struct Tokens {
    int lengths, length[MAX];
    int count; /* of all samples */
    double x[MAX], old[MAX], rollout[MAX], ref[MAX], advantage[MAX], entropy[MAX], weight[MAX];
} Tokens;

static void load_tokens(const cJSON *json, Tokens *tokens)
{
    double lengths[MAX];
    *tokens = (Tokens){0};
    tokens->lengths = fixture_numbers(json, "lengths", lengths, MAX);
    for (int s = 0; s < tokens->lengths; s++)
        tokens->length[s] = (int)lengths[s];
    tokens->count = fixture_numbers(json, "x", tokens->x, MAX);
    fixture_numbers(json, "old", tokens->old, MAX);
    fixture_numbers(json, "rollout", tokens->rollout, MAX);
    fixture_numbers(json, "ref", tokens->ref, MAX);
    fixture_numbers(json, "advantage", tokens->advantage, MAX);
    fixture_numbers(json, "entropy", tokens->entropy, MAX);
    fixture_numbers(json, "weight", tokens->weight, MAX);
}

/* The loss of all samples, in runs of at most `run` tokens where tokens stand for themselves. */
static PolicySums loss_of(const AlgorithmConfig *config, const Tokens *tokens, int run,
                          double *dlog_prob, double *dentropy)
{
    PolicySums sums = {0};
    for (int s = 0, first = 0; s < tokens->lengths; first += tokens->length[s++])
        for (int at = 0; at < tokens->length[s]; at += run) {
            int rest = tokens->length[s] - at, t = first + at;
            PolicyTokens part = {
                .count = rest < run ? rest : run,
                .log_prob = tokens->x + t,
                .old_log_prob = tokens->old + t,
                .rollout_log_prob = tokens->rollout + t,
                .ref_log_prob = tokens->ref + t,
                .entropy = tokens->entropy + t,
                .advantage = tokens->advantage + t,
                .weight = tokens->weight[s],
            };
            policy_loss(config, &part, dlog_prob + t, dentropy + t, &sums);
        }
    return sums;
}

static void test_losses_and_slopes_equal_torch(void **state)
{
    (void)state;
    cJSON *json = fixture_load("losses.json");
    Tokens tokens;
    load_tokens(json, &tokens);
    double clipped_low = 0, clipped_high = 0, clipped_dual = 0, corrected = 0;
    const cJSON *one;
    cJSON_ArrayForEach(one, fixture_member(json, "cases"))
    {
        AlgorithmConfig config = fixture_loss(one);
        for (int run = policy_loss_needs_sample(&config) ? MAX : 1; run <= MAX; run *= 2) {
            double found[MAX], entropy[MAX] = {0}, expected[MAX];
            PolicySums sums = loss_of(&config, &tokens, run, found, entropy);
            assert_near(sums.loss, fixture_number(one, "loss"), "loss", 0);
            assert_int_equal(fixture_numbers(one, "dlog_prob", expected, MAX), tokens.count);
            assert_all_near(found, expected, tokens.count, fixture_text(one, "policy_loss"));
            int count = fixture_numbers(one, "dentropy", expected, MAX);
            assert_all_near(entropy, expected, count, "dentropy");
            clipped_low += sums.clipped_low;
            clipped_high += sums.clipped_high;
            clipped_dual += sums.clipped_dual;
            corrected += sums.corrected;
        }
    }
    /* The fixture reaches every branch. */
    assert_true(clipped_low > 0 && clipped_high > 0 && clipped_dual > 0 && corrected > 0);
    cJSON_Delete(json);
}

static void test_slopes_are_those_of_the_loss(void **state)
{
    (void)state;
    cJSON *json = fixture_load("losses.json");
    Tokens tokens;
    load_tokens(json, &tokens);
    const double step = 1e-6;
    const cJSON *one;
    cJSON_ArrayForEach(one, fixture_member(json, "cases"))
    {
        AlgorithmConfig config = fixture_loss(one);
        double slope[MAX], entropy[MAX], ignored[MAX];
        if (config.policy_loss == POLICY_LOSS_CISPO) continue; /* its factor counts as constant */
        loss_of(&config, &tokens, MAX, slope, entropy);
        for (int t = 0; t < tokens.count; t++) {
            Tokens up = tokens, down = tokens;
            up.x[t] += step;
            down.x[t] -= step;
            double measured = loss_of(&config, &up, MAX, ignored, ignored).loss -
                              loss_of(&config, &down, MAX, ignored, ignored).loss;
            if (fabs(measured / (2 * step) - slope[t]) > 1e-7 * fmax(1.0, fabs(slope[t])))
                fail_msg("token %d: slope %.12g, measured %.12g", t, slope[t],
                         measured / (2 * step));
        }
    }
    cJSON_Delete(json);
}

static void test_value_loss_equals_torch(void **state)
{
    (void)state;
    cJSON *json = fixture_load("losses.json");
    const cJSON *values = fixture_member(json, "values"), *one;
    double value[MAX], old[MAX], target[MAX], expected[MAX], found[MAX], clipped = 0;
    ValueTokens tokens = {.value = value, .old_value = old, .target = target};
    tokens.count = fixture_numbers(values, "value", value, MAX);
    tokens.weight = fixture_number(values, "weight");
    fixture_numbers(values, "old", old, MAX);
    fixture_numbers(values, "target", target, MAX);
    cJSON_ArrayForEach(one, fixture_member(values, "cases"))
    {
        ValueSums sums = {0};
        value_loss(fixture_number(one, "clip"), &tokens, found, &sums);
        fixture_numbers(one, "dvalue", expected, MAX);
        assert_near(sums.loss, fixture_number(one, "loss"), "loss", 0);
        assert_all_near(found, expected, tokens.count, "dvalue");
        clipped += sums.clipped;
    }
    assert_true(clipped > 0);
    cJSON_Delete(json);
}

/* ---- what follows on policy ---- */

/* Where the weights have not moved, every loss pushes by -A and nothing is clipped; the KL to
 * itself is 0 with slope 0 but for k1. */
static void test_on_policy_losses_push_by_the_advantage(void **state)
{
    (void)state;
    for (int kind = 0; kind < POLICY_LOSS_COUNT; kind++)
        for (int estimate = KL_K2; estimate <= KL_LOW_VAR; estimate++) {
            AlgorithmConfig config = {.policy_loss = (PolicyLoss)kind, .kl_loss_coef = 0.5};
            config.kl_estimator = (KlEstimator)estimate;
            config.eps_clip = config.eps_clip_high = 0.2;
            const double x[] = {-1.5, -0.25, -7}, advantage[] = {2, 2, 2};
            double slope[3];
            PolicySums sums = {0};
            PolicyTokens tokens = {3, x, x, x, x, NULL, advantage, 1.0};
            policy_loss(&config, &tokens, slope, NULL, &sums);
            for (int t = 0; t < 3; t++)
                assert_true(slope[t] == -2.0);
            assert_true(sums.clipped_low + sums.clipped_high + sums.ref_kl == 0.0);
            assert_true(sums.ratio == 3.0 && sums.ratio_min == 1.0 && sums.ratio_max == 1.0);
            assert_true(sums.rollout_difference_max == 0.0 && sums.rollout_tokens == 3.0);
        }
}

/* Sample k alone. */
static Tokens one_sample(const Tokens *tokens, int k)
{
    int first = 0;
    for (int i = 0; i < k; i++)
        first += tokens->length[i];
    Tokens one = {.lengths = 1, .length = {tokens->length[k]}, .weight = {tokens->weight[k]}};
    for (int t = 0; t < tokens->length[k]; t++) {
        one.x[t] = tokens->x[first + t];
        one.old[t] = tokens->old[first + t];
        one.rollout[t] = tokens->rollout[first + t];
        one.ref[t] = tokens->ref[first + t];
        one.advantage[t] = tokens->advantage[first + t];
        one.entropy[t] = tokens->entropy[first + t];
    }
    return one;
}

static void test_sums_of_parts_are_the_sums_of_the_whole(void **state)
{
    (void)state;
    cJSON *json = fixture_load("losses.json");
    Tokens tokens;
    load_tokens(json, &tokens);
    AlgorithmConfig config = fixture_loss(cJSON_GetArrayItem(fixture_member(json, "cases"), 0));
    double ignored[MAX];
    PolicySums whole = loss_of(&config, &tokens, MAX, ignored, ignored), parts = {0};
    for (int k = tokens.lengths - 1; k >= 0; k--) {
        Tokens one = one_sample(&tokens, k);
        PolicySums part = loss_of(&config, &one, MAX, ignored, ignored);
        policy_sums_add(&parts, &part);
    }
    const double *found = (const double *)&parts, *expected = (const double *)&whole;
    for (size_t i = 0; i < sizeof whole / sizeof(double); i++)
        assert_near(found[i], expected[i], "sums", (int)i);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_equal_torch_in_groups_of_uneven_size),
        cmocka_unit_test(test_equal_rewards_score_exactly_zero),
        cmocka_unit_test(test_group_of_one_is_refused_where_samples_are_compared),
        cmocka_unit_test(test_scores_refuse_what_is_no_reward_and_no_order),
        cmocka_unit_test(test_token_advantages_equal_their_definition),
        cmocka_unit_test(test_whitening_equals_torch_however_values_are_spread),
        cmocka_unit_test(test_losses_and_slopes_equal_torch),
        cmocka_unit_test(test_slopes_are_those_of_the_loss),
        cmocka_unit_test(test_value_loss_equals_torch),
        cmocka_unit_test(test_on_policy_losses_push_by_the_advantage),
        cmocka_unit_test(test_sums_of_parts_are_the_sums_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
