/* Regular expressions of tokenizer.json, rewritten for PCRE2, cut a text where the reference's
 * engine (Oniguruma) cuts it: make_regex_fixture.py. */
#include "test.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/tokenizer/matcher.h"

/* The places between pieces: begin and end of every match, without those at the ends of the text.
 */
static size_t find_cuts(const Matcher *matcher, const char *text, uint32_t *cut)
{
    Error err = {0};
    MatchScratch scratch = {0};
    MatchWalk walk = {.matcher = matcher,
                      .scratch = &scratch,
                      .text = text,
                      .length = (uint32_t)strlen(text),
                      .last_end = UINT32_MAX};
    size_t count = 0;
    for (;;) {
        MatchRange match = {0, 0};
        bool found = false;
        assert_ok(match_next(&walk, &match, &found, &err), &err);
        if (!found) break;
        const uint32_t places[2] = {match.begin, match.end};
        for (int i = 0; i < 2; i++)
            if (places[i] > (count > 0 ? cut[count - 1] : 0) && places[i] < walk.length)
                cut[count++] = places[i];
    }
    match_scratch_free(&scratch);
    return count;
}

static void test_regular_expressions_cut_where_oniguruma_does(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *fixture = NULL;
    assert_ok(json_read(TEST_SOURCE_DIR "/text/fixtures/regex.json", 1 << 20, &fixture, &err),
              &err);
    const char *text = cJSON_GetObjectItemCaseSensitive(fixture, "text")->valuestring;
    uint32_t *cut = mem_calloc(2 * strlen(text) + 2, sizeof *cut);
    UnicodeTable *table = unicode_table_create();
    int wrong = 0, count = 0;
    const cJSON *item, *expected;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fixture, "cases"))
    {
        const char *pattern = cJSON_GetObjectItemCaseSensitive(item, "pattern")->valuestring;
        const cJSON *cuts = cJSON_GetObjectItemCaseSensitive(item, "cuts");
        Matcher matcher = {0};
        assert_ok(matcher_load_regex(&matcher, pattern, table, "test", &err), &err);
        size_t found = find_cuts(&matcher, text, cut), index = 0;
        bool same = found == (size_t)cJSON_GetArraySize(cuts);
        cJSON_ArrayForEach(expected, cuts)
        {
            if (index >= found || cut[index] != (uint32_t)expected->valueint) same = false;
            if (!same) {
                print_message("%s: cut %zu is %d, expected %d\n", pattern, index,
                              index < found ? (int)cut[index] : -1, expected->valueint);
                break;
            }
            index++;
        }
        wrong += !same;
        count++;
        matcher_free(&matcher);
    }
    assert_int_equal(wrong, 0);
    assert_true(count > 100);
    free(cut);
    free(table);
    cJSON_Delete(fixture);
}

/* A pattern with an exploding number of ways to match ends in an error, not in a hang. */
static void test_regular_expression_that_explodes_is_an_error(void **state)
{
    (void)state;
    Error err = {0};
    UnicodeTable *table = unicode_table_create();
    Matcher matcher = {0};
    assert_ok(matcher_load_regex(&matcher, "(?:(?:a|a)(?:a|a))*b", table, "test", &err), &err);
    char text[101];
    memset(text, 'a', 98);
    memcpy(text + 98, "xb", 3);
    MatchScratch scratch = {0};
    MatchWalk walk = {.matcher = &matcher,
                      .scratch = &scratch,
                      .text = text,
                      .length = 100,
                      .last_end = UINT32_MAX};
    MatchRange match;
    bool found = false;
    assert_fails(match_next(&walk, &match, &found, &err), ERR_DATA, &err, "gave up");
    match_scratch_free(&scratch);
    matcher_free(&matcher);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regular_expressions_cut_where_oniguruma_does),
        cmocka_unit_test(test_regular_expression_that_explodes_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
