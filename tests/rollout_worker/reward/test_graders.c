/* Tests of the graders: the published scorers' verdicts where the rules are theirs, then what is
 * our own, then what no response may do. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/instruction.h"
#include "rollout_worker/reward/reward_set.h"

#define CASES TEST_SOURCE_DIR "/rollout_worker/reward/fixtures/grader_cases.jsonl"

static cJSON *parse(const char *text)
{
    Error err = {0};
    cJSON *json = NULL;
    assert_ok(json_parse(text, strlen(text), "test", &json, &err), &err);
    return json;
}

static RewardSet *open_spec(const char *spec)
{
    Error err = {0};
    cJSON *json = parse(spec);
    RewardSet *set = NULL;
    assert_ok(reward_set_open(json, &set, &err), &err);
    cJSON_Delete(json);
    return set;
}

static RewardResult score(const char *spec, const char *response, const char *label,
                          const char *metadata)
{
    RewardSet *set = open_spec(spec);
    cJSON *json = metadata == NULL ? NULL : parse(metadata);
    RewardRequest request = {
        .response = slice_from(response), .label = slice_from(label), .metadata = json};
    RewardResult result;
    reward_set_score(set, &request, 1, &result);
    cJSON_Delete(json);
    reward_set_close(set);
    free(result.extra);
    result.extra = NULL;
    return result;
}

static void assert_score(const char *spec, const char *response, const char *label, double expected)
{
    RewardResult result = score(spec, response, label, NULL);
    if (!reward_outcome_trains(result.outcome) || fabs(result.score - expected) > 1e-12)
        fail_msg("%s of \"%s\" against \"%s\": %s %g (%s), expected %g", spec, response, label,
                 reward_outcome_name(result.outcome), result.score, result.reason, expected);
}

static void assert_refused(const char *spec, const char *label, const char *metadata,
                           const char *reason)
{
    RewardResult result = score(spec, "response 1", label, metadata);
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_true(result.permanent);
    if (strstr(result.reason, reason) == NULL) fail_msg("%s lacks %s", result.reason, reason);
}

static void check_case(const cJSON *line, const char *text)
{
    const char *name = cJSON_GetObjectItem(line, "reward")->valuestring;
    const RewardTable *table = NULL;
    Error err = {0};
    assert_ok(reward_table_find(name, &table, &err), &err);
    void *opened = NULL;
    assert_ok(table->open(cJSON_GetObjectItem(line, "options"), &opened, &err), &err);
    RewardRequest request = {
        .response = slice_from(cJSON_GetObjectItem(line, "response")->valuestring),
        .label = slice_from(cJSON_GetObjectItem(line, "label")->valuestring),
        .metadata = cJSON_GetObjectItem(line, "metadata"),
    };
    RewardResult result = {0};
    table->score(opened, &request, &result);
    double expected = cJSON_GetObjectItem(line, "score")->valuedouble;
    if (!reward_outcome_trains(result.outcome) || fabs(result.score - expected) > 1e-9)
        fail_msg("%s %g, expected %g (%s): %s", reward_outcome_name(result.outcome), result.score,
                 expected, result.reason, text);
    reward_result_clear(&result);
    table->close(opened);
}

static void test_graders_agree_with_the_published_scorers(void **state)
{
    (void)state;
    FILE *cases = fopen(CASES, "r");
    assert_non_null(cases);
    char *line = NULL;
    size_t capacity = 0;
    int count = 0;
    while (getline(&line, &capacity, cases) > 0) {
        cJSON *json = parse(line);
        check_case(json, line);
        cJSON_Delete(json);
        count++;
    }
    assert_true(count > 800);
    free(line);
    fclose(cases);
}

static void test_gsm8k_compares_by_value(void **state)
{
    (void)state;
    assert_score("\"gsm8k\"", "#### 18.00", "18", 1);
    assert_score("\"gsm8k\"", "#### $1,800.", "1800", 1);
    assert_score("\"gsm8k\"", "#### 0.50", "0.5", 1);
    assert_score("\"gsm8k\"", "#### -3", "3", 0);
    assert_score("\"gsm8k\"", "the answer is 18", "18", 0);
    const char *flexible = "{\"name\": \"gsm8k\", \"options\": {\"method\": \"flexible\"}}";
    assert_score(flexible, "it is 17. No: 18.", "18", 1);
    const char *partial = "{\"name\": \"gsm8k\", \"options\": {\"format_score\": 0.1}}";
    assert_score(partial, "#### 19", "18", 0.1);
    assert_score(partial, "19", "18", 0);
    assert_refused("\"gsm8k\"", "eighteen", NULL, "label is no number");
}

static void test_math_finds_the_last_box(void **state)
{
    (void)state;
    RewardResult result = score("\"math\"", "so \\boxed{", "7", NULL);
    assert_int_equal(result.outcome, REWARD_WRONG);
    assert_string_equal(result.reason, "the \\boxed answer is empty");
    reward_result_clear(&result);
    assert_score("\"math\"", "first \\boxed{3}, and in the end \\boxed{\\frac{1}{2}}.", "1/2", 1);
    assert_score("\"math\"", "\\boxed{1} and \\boxed{2}", "1, 2", 1);
    assert_score("\"math\"", "\\boxed{2}. Long after that, again: \\boxed{1}", "1", 1);
    assert_score("\"math\"", "$\\boxed 7$", "7", 1);
    assert_score("\"math\"", "\\fbox{7}", "\\boxed{7}", 1);
    assert_score("\"math\"", "\\boxed{\\text{if } x_{1}}", "x_1", 0);
    assert_score("\"math\"", "no box, 7", "7", 0);
    assert_score("\"math\"", "<think>\\boxed{7}</think> no idea", "7", 0);
    assert_refused("\"math\"", " ", NULL, "label is empty");
}

static void test_deepscaler_wants_the_thinking_to_end(void **state)
{
    (void)state;
    assert_score("\"deepscaler\"", "<think>hm</think> \\boxed{7}", "7", 1);
    assert_score("\"deepscaler\"", "###Response: \\boxed{7}", "7", 1);
    assert_score("\"deepscaler\"", "<think>hm \\boxed{7}", "7", 0);
}

static void test_gpqa_finds_the_stated_letter(void **state)
{
    (void)state;
    static const char *const right[] = {
        "The answer is B.",
        "**Answer: B**",
        "Answer: (B)",
        "the correct answer is clearly option B",
        "After A and C fail, (B) is correct.",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "b) hmm\nAnswer: b",
        "The answer is not obvious. Option A is tempting. The final answer is B",
        "<think>The answer is A</think>So the correct choice is: B",
    };
    static const char *const wrong[] = {
        "The answer is C.", "the answer is clearly a matter of taste", "Beauty", "",
        "\\boxed{A, B}",    "The answer is B</think> The answer is D",
    };
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        if (i != 3) assert_score("\"gpqa\"", right[i], "B", 1);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_score("\"gpqa\"", wrong[i], "B", 0);
    assert_refused("\"gpqa\"", "", NULL, "correct choice");
}

static void test_gpqa_knows_the_choices(void **state)
{
    (void)state;
    const char *metadata = "{\"choices\": [\"red light\", \"blue light\", \"light\"]}";
    assert_int_equal(score("\"gpqa\"", "Answer: B", "blue light", metadata).outcome, REWARD_OK);
    assert_int_equal(score("\"gpqa\"", "It is blue light.", "blue light", metadata).outcome,
                     REWARD_OK);
    assert_int_equal(score("\"gpqa\"", "red light or blue light", "1", metadata).outcome,
                     REWARD_WRONG);
    assert_refused("\"gpqa\"", "D", metadata, "one of the choices");
    const char *letter = "{\"correct_letter\": \"c\", \"valid_letters\": [\"a\", \"b\", \"c\"]}";
    assert_int_equal(score("\"gpqa\"", "Answer: C", "ignored", letter).outcome, REWARD_OK);
}

static void test_format_wants_one_think_block(void **state)
{
    (void)state;
    assert_score("\"format\"", "<think>hm</think>answer", "", 1);
    assert_score("\"format\"", " <think>hm</think>answer", "", 0);
    assert_score("\"format\"", "<think>hm</think> \n", "", 0);
    assert_score("\"format\"", "<think>a<think>b</think>c", "", 0);
    assert_score("\"format\"", "<think>a</think>b</think>c", "", 0);
    const char *both = "{\"name\": \"format\", \"options\": {\"shape\": \"think_answer\"}}";
    assert_score(both, "<think>\na\n</think>\n<answer>\nb\n</answer>", "", 1);
    assert_score(both, "<think>\n</think>\n<answer>\nb\n</answer>", "", 1);
    assert_score(both, "<think>a</think>\n<answer>\nb\n</answer>", "", 0);
    assert_score(both, "<think>\na\n</think>\n<answer>\nb\n</answer> more", "", 0);
}

static void test_format_regex_is_bounded(void **state)
{
    (void)state;
    const char *spec = "{\"name\": \"format\", \"options\": {\"regex\": \"^ok\\\\b\"}}";
    assert_score(spec, "ok then", "", 1);
    assert_score(spec, "okay", "", 0);
    const char *hostile = "{\"name\": \"format\", \"options\": {\"regex\": \"^(a+)+$\"}}";
    char text[64];
    memset(text, 'a', sizeof text);
    text[62] = 'b';
    text[63] = '\0';
    RewardResult result = score(hostile, text, "", NULL);
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_true(result.permanent);
    assert_non_null(strstr(result.reason, "limit"));
}

/* Whoever is right in part has a score between, and is not right. */
static void test_right_is_wholly_right_with_every_grader(void **state)
{
    (void)state;
    const char *share = "{\"name\": \"instructions\", \"options\": {\"score\": \"share\"}}";
    const char *metadata = "{\"instruction_id_list\": [\"punctuation:no_comma\", "
                           "\"keywords:existence\"], \"kwargs\": [{}, {\"keywords\": [\"cat\"]}]}";
    const char *near = "{\"name\": \"gsm8k\", \"options\": {\"format_score\": 0.5}}";
    const struct {
        const char *spec, *response, *label, *metadata;
        RewardOutcome outcome;
        double score;
    } cases[] = {
        {share, "a dog", "", metadata, REWARD_WRONG, 0.5},
        {share, "a cat", "", metadata, REWARD_OK, 1},
        {"\"f1\"", "red light", "blue light", NULL, REWARD_WRONG, 0.5},
        {"\"f1\"", "the light, blue", "blue light", NULL, REWARD_OK, 1},
        {near, "#### 4", "5", NULL, REWARD_WRONG, 0.5},
        {near, "#### 5", "5", NULL, REWARD_OK, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RewardResult result =
            score(cases[i].spec, cases[i].response, cases[i].label, cases[i].metadata);
        if (result.outcome != cases[i].outcome || result.score != cases[i].score)
            fail_msg("%s of \"%s\": %s %g", cases[i].spec, cases[i].response,
                     reward_outcome_name(result.outcome), result.score);
    }
}

static void test_instructions_say_which_failed(void **state)
{
    (void)state;
    const char *metadata = "{\"instruction_id_list\": [\"punctuation:no_comma\", "
                           "\"keywords:existence\"], \"kwargs\": [{}, {\"keywords\": [\"cat\"]}]}";
    RewardResult result = score("\"instructions\"", "a dog", "", metadata);
    assert_int_equal(result.outcome, REWARD_WRONG);
    assert_string_equal(result.reason, "not followed: keywords:existence");
    const char *share = "{\"name\": \"instructions\", \"options\": {\"score\": \"share\"}}";
    assert_true(score(share, "a dog", "", metadata).score == 0.5);
    assert_refused("\"instructions\"", "", "{}", "instruction_id_list");
    assert_refused("\"instructions\"", "", "{\"instruction_id_list\": [\"keyword:existence\"]}",
                   "did you mean keywords:existence?");
    assert_refused("\"instructions\"", "", "{\"instruction_id_list\": [\"keywords:frequency\"]}",
                   "keyword");
}

static void test_random_belongs_to_the_sample(void **state)
{
    (void)state;
    RewardSet *set =
        open_spec("{\"name\": \"random\", \"options\": {\"seed\": 3, \"share\": 0.25}}");
    RewardSet *again =
        open_spec("{\"name\": \"random\", \"options\": {\"seed\": 3, \"share\": 0.25}}");
    int ones = 0;
    for (int i = 0; i < 4000; i++) {
        RewardRequest request = {.position = i / 4, .index = i % 4};
        RewardResult result, other;
        reward_set_score(set, &request, 1, &result);
        reward_set_score(again, &request, 1, &other);
        assert_true(result.score == other.score);
        ones += result.score == 1;
    }
    assert_in_range(ones, 880, 1120);
    reward_set_close(set);
    reward_set_close(again);
}

static void test_set_weighs_and_takes_the_first_outcome(void **state)
{
    (void)state;
    const char *spec = "[{\"name\": \"math\"}, {\"name\": \"format\", \"weight\": 0.25}]";
    RewardResult result = score(spec, "<think>x</think>\\boxed{8}", "7", NULL);
    assert_int_equal(result.outcome, REWARD_WRONG);
    assert_true(result.score == 0.25);
    assert_string_equal(result.answer, "8");
    assert_score(spec, "<think>x</think>\\boxed{7}", "7", 1.25);
}

static void test_set_judges_nothing_when_one_part_fails(void **state)
{
    (void)state;
    const char *spec = "[{\"name\": \"format\"}, {\"name\": \"gsm8k\"}, {\"name\": \"random\"}]";
    RewardResult result = score(spec, "<think>x</think>y", "not a number", NULL);
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_true(result.score == 0);
    assert_true(result.part[0] == 1 && isnan(result.part[1]));
    assert_non_null(strstr(result.reason, "no number"));
}

static void test_set_reports_the_parts(void **state)
{
    (void)state;
    RewardSet *set = open_spec("[{\"name\": \"math\", \"weight\": 2}, {\"name\": \"format\"}]");
    RewardRequest requests[2] = {
        {.response = slice_from("<think>x</think>\\boxed{7}"), .label = slice_from("7")},
        {.response = slice_from("\\boxed{7}"), .label = slice_from("7")},
    };
    RewardResult results[2];
    reward_set_score(set, requests, 2, results);
    assert_true(results[0].score == 3 && results[1].score == 2);
    assert_int_equal(results[1].num_parts, 2); /* as they are said, without weights */
    assert_true(results[0].part[0] == 1 && results[0].part[1] == 1);
    assert_true(results[1].part[0] == 1 && results[1].part[1] == 0);
    assert_null(results[1].extra);
    assert_string_equal(reward_set_names(set)->name[0], "math");
    reward_result_clear(&results[0]);
    reward_result_clear(&results[1]);
    reward_set_close(set);
}

static void assert_spec_fails(const char *spec, const char *message)
{
    Error err = {0};
    cJSON *json = parse(spec);
    RewardSet *set = NULL;
    Status status = reward_set_open(json, &set, &err);
    assert_fails(status, status == ERR_NOT_FOUND ? ERR_NOT_FOUND : ERR_INVALID, &err, message);
    cJSON_Delete(json);
}

static void test_set_refuses_what_has_no_effect(void **state)
{
    (void)state;
    assert_spec_fails("\"mth\"", "did you mean math?");
    assert_spec_fails("[]", "expected 1 to 16");
    assert_spec_fails("17", "expected a list of objects");
    assert_spec_fails("[{\"nam\": \"math\"}]", "did you mean name?");
    assert_spec_fails("[{\"name\": \"math\", \"weight\": 0}]", "no effect");
    assert_spec_fails("[{\"name\": \"math\", \"wieght\": 1}]", "reward math has no key \"wieght\"");
    assert_spec_fails("[{\"name\": \"math\", \"weight\": \"abc\"}]",
                      "the weight of reward math is \"abc\", expected a number");
    assert_spec_fails("[{\"weight\": 1}]", "a reward has no name");
    assert_spec_fails("[17]", "a reward is a number");
    assert_spec_fails("{\"name\": \"http\"}", "Write for example {name: http, options: {url: ");
    assert_spec_fails("{\"name\": \"plugin\"}", "reward plugin: key \"path\" is missing");
    assert_spec_fails("[{\"name\": \"gsm8k\", \"options\": {\"methd\": 1}}]",
                      "did you mean method?");
    assert_spec_fails("[{\"name\": \"gsm8k\", \"options\": {\"method\": \"strit\"}}]",
                      "did you mean strict?");
    assert_spec_fails("[{\"name\": \"random\", \"options\": {\"share\": 2}}]", "expected 0 to 1");
    assert_spec_fails("[{\"name\": \"format\", \"options\": {\"regex\": \"(\"}}]", "regex");
    assert_spec_fails("[{\"name\": \"format\", \"options\": {\"shape\": \"regex\"}}]",
                      "shape regex but no regex, expected the pattern");
    assert_spec_fails("[{\"name\": \"format\", \"options\": {\"regex\": \"a\", \"shape\": "
                      "\"think\"}}]",
                      "Remove the regex");
    assert_spec_fails("[{\"name\": \"math\", \"options\": {\"x\": 1}}]", "has no option");
}

/* Responses that are made to cost: every grader ends, and none takes the response for a failure of
 * its own. */
static void test_graders_bear_hostile_responses(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "{",       "\\boxed{", "\\frac{", "(",     "[1,",  "#### ",   "Answer:", "|", "9", "^",
        "\\text{", "<think>",  "*",       "\\{1,", "\xff", "\\sqrt{", "a ",      "-", "!", "=x"};
    static const char *const rewards[] = {"math", "deepscaler", "gsm8k", "dapo",
                                          "gpqa", "f1",         "format"};
    size_t bytes = 10u << 20;
    char *text = mem_alloc(bytes + 64);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        size_t length = strlen(patterns[i]), used = 0;
        while (used + length <= (i < 4 ? bytes : bytes / 16)) {
            memcpy(text + used, patterns[i], length);
            used += length;
        }
        /* what the mathematics has to bear must stand in a box */
        char boxed[4600] = "</think>\\boxed{";
        size_t at = strlen(boxed);
        while (at + length < 4000) {
            memcpy(boxed + at, patterns[i], length);
            at += length;
        }
        memcpy(boxed + at, "1}", 3);
        for (size_t k = 0; k < sizeof rewards / sizeof rewards[0]; k++) {
            const RewardTable *table = NULL;
            Error err = {0};
            assert_ok(reward_table_find(rewards[k], &table, &err), &err);
            void *opened = NULL;
            assert_ok(table->open(NULL, &opened, &err), &err);
            RewardRequest request = {.response = {text, used}, .label = slice_from("7")};
            RewardResult result = {0};
            table->score(opened, &request, &result);
            assert_true(reward_outcome_trains(result.outcome));
            reward_result_clear(&result);
            request.response = slice_from(boxed);
            request.label = request.response;
            if (k < 2) table->score(opened, &request, &result);
            assert_true(reward_outcome_trains(result.outcome));
            reward_result_clear(&result);
            table->close(opened);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graders_agree_with_the_published_scorers),
        cmocka_unit_test(test_gsm8k_compares_by_value),
        cmocka_unit_test(test_math_finds_the_last_box),
        cmocka_unit_test(test_deepscaler_wants_the_thinking_to_end),
        cmocka_unit_test(test_gpqa_finds_the_stated_letter),
        cmocka_unit_test(test_gpqa_knows_the_choices),
        cmocka_unit_test(test_format_wants_one_think_block),
        cmocka_unit_test(test_format_regex_is_bounded),
        cmocka_unit_test(test_instructions_say_which_failed),
        cmocka_unit_test(test_random_belongs_to_the_sample),
        cmocka_unit_test(test_right_is_wholly_right_with_every_grader),
        cmocka_unit_test(test_set_weighs_and_takes_the_first_outcome),
        cmocka_unit_test(test_set_judges_nothing_when_one_part_fails),
        cmocka_unit_test(test_set_reports_the_parts),
        cmocka_unit_test(test_set_refuses_what_has_no_effect),
        cmocka_unit_test(test_graders_bear_hostile_responses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
