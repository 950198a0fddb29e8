/* Stop strings in the text of tokens, and the ids that end what a model says. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "rollout_worker/engine/end_tokens.h"
#include "rollout_worker/engine/stop_matcher.h"
#include "tiny_tokenizer.h"

static int32_t id_of(const Tokenizer *tokenizer, const char *bytes)
{
    for (int32_t id = 0; id < 120; id++) {
        Error err = {0};
        char *text = NULL;
        size_t length = 0;
        assert_ok(tokenizer_decode(tokenizer, &id, 1, false, &text, &length, &err), &err);
        bool same = strcmp(text, bytes) == 0;
        free(text);
        if (same) return id;
    }
    fail_msg("no token \"%s\"", bytes);
    return -1;
}

static void test_a_string_is_found_where_its_last_byte_comes(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = tiny_tokenizer();
    const char *const stop[] = {"zz", "bcd", "c\n"};
    const char *const words[] = {"ab", "b", "cd", "ab", "c\n"};
    const int expected[] = {-1, -1, 1, -1, 2};
    SamplingParams params = {.stop = stop, .num_stop = 3};
    StopMatcher *matcher = stop_matcher_create(tokenizer, &params);
    for (int i = 0; i < 5; i++) {
        int found = 0;
        assert_ok(stop_matcher_push(matcher, id_of(tokenizer, words[i]), true, &found, &err), &err);
        assert_int_equal(found, expected[i]);
    }
    stop_matcher_destroy(matcher);
    tokenizer_destroy(tokenizer);
}

/* U+4F60 in one token per byte, an "a" before it in the first one. */
static void test_a_character_in_three_tokens_is_found(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = tiny_tokenizer();
    const char *const stop[] = {"\u4f60a"};
    SamplingParams params = {.stop = stop, .num_stop = 1};
    StopMatcher *matcher = stop_matcher_create(tokenizer, &params);
    int32_t ids[4], count = 0, found = -1;
    for (int32_t id = 0; id < 120 && count < 3; id++) { /* the bytes E4 BD A0, each by itself */
        const char *spelled = tokenizer_id_token(tokenizer, id);
        const char *const bytes[] = {"\u00e4", "\u00bd", "\u0142"};
        if (spelled != NULL && strcmp(spelled, bytes[count]) == 0) ids[count++] = id;
    }
    assert_int_equal(count, 3);
    ids[3] = id_of(tokenizer, "ab");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(found, -1);
        assert_ok(stop_matcher_push(matcher, ids[i], true, &found, &err), &err);
    }
    assert_int_equal(found, 0);
    stop_matcher_destroy(matcher);
    tokenizer_destroy(tokenizer);
}

/* ---- random tokens against the text of all of them ---- */

/* The text of the first `count` ids without what may still become a character. Owned by the caller.
 */
static char *certain_text(const Tokenizer *tokenizer, const int32_t *ids, size_t count)
{
    Error err = {0};
    char *text = NULL;
    size_t length = 0;
    assert_ok(tokenizer_decode(tokenizer, ids, count, false, &text, &length, &err), &err);
    while (length >= 3 && memcmp(text + length - 3, "\xEF\xBF\xBD", 3) == 0)
        text[length -= 3] = '\0';
    return text;
}

/* The stop string that ends first within text[from, end), or -1. */
static int first_stop(const char *text, size_t from, const SamplingParams *params)
{
    size_t best_end = SIZE_MAX;
    int best = -1;
    for (int i = 0; i < params->num_stop; i++) {
        size_t length = strlen(params->stop[i]);
        for (const char *at = text; (at = strstr(at, params->stop[i])) != NULL; at++) {
            size_t end = (size_t)(at - text) + length;
            if (end <= from) continue;
            if (end < best_end) {
                best_end = end;
                best = i;
            }
            break;
        }
    }
    return best;
}

static void test_random_tokens_stop_where_their_text_says(void **state)
{
    (void)state;
    enum { RUNS = 400, LENGTH = 60 };
    const char *const stop[] = {"\u00e9a", "abc", "\n\n", "d\u4f60", "ca b", "\U0001F600"};
    Tokenizer *tokenizer = tiny_tokenizer();
    int stops = 0;
    for (uint64_t run = 0; run < RUNS; run++) {
        Error err = {0};
        int32_t ids[LENGTH];
        int first = (int)(run % 5), armed_from = (int)(run % 7);
        SamplingParams params = {.stop = stop + first, .num_stop = 2};
        StopMatcher *matcher = stop_matcher_create(tokenizer, &params);
        for (int i = 0; i < LENGTH; i++) {
            ids[i] = (int32_t)rng_below(run, (uint64_t)i, TINY_VOCAB);
            int found = -1;
            assert_ok(stop_matcher_push(matcher, ids[i], i >= armed_from, &found, &err), &err);
            char *before = certain_text(tokenizer, ids, (size_t)i);
            char *text = certain_text(tokenizer, ids, (size_t)i + 1);
            int expected = first_stop(text, strlen(before), &params);
            assert_int_equal(found, i >= armed_from ? expected : -1);
            stops += found >= 0;
            free(before);
            free(text);
        }
        stop_matcher_destroy(matcher);
    }
    assert_true(stops > 200);
    tokenizer_destroy(tokenizer);
}

/* ---- end tokens ---- */

static void write_text(const char *path, const char *text)
{
    Error err = {0};
    assert_ok(file_write_atomic(path, text, strlen(text), &err), &err);
}

static void check_ends(const char *generation, const char *config, int count, const int32_t *ids)
{
    Error err = {0};
    EndTokens ends = {.count = -1};
    (void)unlink("ends/generation_config.json");
    if (generation != NULL) write_text("ends/generation_config.json", generation);
    write_text("ends/config.json", config);
    assert_ok(end_tokens_read("ends", 100, &ends, &err), &err);
    assert_int_equal(ends.count, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(ends.id[i], ids[i]);
}

static void check_refused(const char *generation, const char *message)
{
    Error err = {0};
    EndTokens ends;
    write_text("ends/generation_config.json", generation);
    assert_fails(end_tokens_read("ends", 100, &ends, &err), ERR_INVALID, &err, message);
}

static void test_end_tokens_are_those_of_the_folder(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_create("ends", &err), &err);
    check_ends("{\"eos_token_id\": [7, 3, 7]}", "{\"eos_token_id\": 5}", 2, (int32_t[]){7, 3});
    check_ends("{\"eos_token_id\": 9, \"temperature\": 0.6}", "{}", 1, (int32_t[]){9});
    check_ends("{\"top_p\": 0.9}", "{\"eos_token_id\": 5}", 1, (int32_t[]){5});
    check_ends(NULL, "{\"eos_token_id\": [0, 99]}", 2, (int32_t[]){0, 99});
    check_ends("{\"eos_token_id\": null}", "{\"eos_token_id\": null}", 0, NULL);
    check_refused("{\"eos_token_id\": 100}",
                  "ends/generation_config.json: eos_token_id 100 is not one of the ids 0 to 99");
    check_refused("{\"eos_token_id\": [1.5]}", "eos_token_id 1.5 is not one of the ids");
    check_refused("{\"eos_token_id\": \"</s>\"}", "eos_token_id holds a string, expected an id");
    assert_fails(end_tokens_read("nowhere", 100, &(EndTokens){0}, &err), ERR_NOT_FOUND, &err,
                 "nowhere/config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_string_is_found_where_its_last_byte_comes),
        cmocka_unit_test(test_a_character_in_three_tokens_is_found),
        cmocka_unit_test(test_random_tokens_stop_where_their_text_says),
        cmocka_unit_test(test_end_tokens_are_those_of_the_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
