/* The reward `math` against Math-Verify 0.9.0 on 3,000 pairs of answers (make_math_corpus.py): it
 * agrees on at least 99.5 %, the pairs on which it does not are those of math_disagreements.tsv and
 * no others, and docs/rewards.md says who is right about each. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "rollout_worker/reward/reward.h"

#define FOLDER    TEST_SOURCE_DIR "/rollout_worker/reward/fixtures/"
#define COLUMNS   5
#define KNOWN_MAX 64

/* Splits a line in place. */
static int split(char *line, char **columns, int max)
{
    int count = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *at = line; at != NULL && count < max; count++) {
        columns[count] = at;
        at = strchr(at, '\t');
        if (at != NULL) *at++ = '\0';
    }
    return count;
}

static bool grade(const char *expected, const char *answer)
{
    Str response = {0};
    str_printf(&response, "<think>Hm, \\boxed{0}?</think>\nThus the answer is \\boxed{%s}.\n",
               answer);
    RewardRequest request = {.response = {response.data, response.length},
                             .label = slice_from(expected)};
    RewardResult result = {0};
    reward_math.score(NULL, &request, &result);
    assert_true(reward_outcome_trains(result.outcome));
    assert_true(result.score == (result.outcome == REWARD_OK ? 1 : 0));
    bool right = result.outcome == REWARD_OK;
    reward_result_clear(&result);
    str_free(&response);
    return right;
}

typedef struct Known {
    char *line[KNOWN_MAX];
    bool seen[KNOWN_MAX];
    int count;
} Known;

static Known read_known(void)
{
    Known known = {.count = 0};
    FILE *file = fopen(FOLDER "math_disagreements.tsv", "r");
    assert_non_null(file);
    size_t capacity = 0;
    while (known.count < KNOWN_MAX && getline(&known.line[known.count], &capacity, file) > 0) {
        char *line = known.line[known.count++];
        line[strcspn(line, "\n")] = '\0';
        capacity = 0;
    }
    free(known.line[known.count]);
    fclose(file);
    return known;
}

static bool is_known(Known *known, bool ours, const char *expected, const char *answer)
{
    Str line = {0};
    str_printf(&line, "%d\t%s\t%s", ours, expected, answer);
    bool found = false;
    for (int i = 0; i < known->count; i++) {
        if (strcmp(known->line[i], str_text(&line)) != 0) continue;
        known->seen[i] = found = true;
    }
    str_free(&line);
    return found;
}

static void test_math_agrees_with_math_verify(void **state)
{
    (void)state;
    Known known = read_known();
    FILE *file = fopen(FOLDER "math_corpus.tsv", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    int pairs = 0, agreed = 0, as_intended = 0, surprises = 0;
    while (getline(&line, &capacity, file) > 0) {
        char *column[COLUMNS];
        assert_int_equal(split(line, column, COLUMNS), COLUMNS);
        bool ours = grade(column[3], column[4]);
        bool theirs = column[2][0] == '1', intended = column[1][0] == '1';
        pairs++;
        agreed += ours == theirs;
        as_intended += ours == intended;
        if (ours == theirs || is_known(&known, ours, column[3], column[4])) continue;
        print_error("%s: ours %d, Math-Verify's %d: %s | %s\n", column[0], ours, theirs, column[3],
                    column[4]);
        surprises++;
    }
    free(line);
    fclose(file);
    print_message("%d pairs: %.3f %% as Math-Verify, %.3f %% as constructed\n", pairs,
                  100.0 * agreed / pairs, 100.0 * as_intended / pairs);
    assert_true(pairs >= 2000);
    assert_true(agreed * 1000L >= pairs * 995L);
    assert_int_equal(surprises, 0);
    for (int i = 0; i < known.count; i++) {
        if (!known.seen[i]) fail_msg("no disagreement any more: %s", known.line[i]);
        free(known.line[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_math_agrees_with_math_verify)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
