/* Tests of rollout_worker/record: the same lines are taken as by Python's json module, and a
 * refusal says where and what. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/record.h"

static size_t decode_hex(const char *hex, char *bytes)
{
    size_t length = 0;
    for (unsigned int byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        bytes[length++] = (char)byte;
    return length;
}

static void test_record_takes_what_python_takes(void **state)
{
    (void)state;
    FILE *cases = fopen(TEST_SOURCE_DIR "/rollout_worker/fixtures/json_cases.txt", "r");
    assert_non_null(cases);
    char *line = NULL;
    size_t capacity = 0;
    int num_cases = 0, taken = 0;
    while (getline(&line, &capacity, cases) > 0) {
        bool expected = str_starts_with(line, "yes ");
        const char *hex = strchr(line, ' ') + 1;
        /* an exact allocation, so that a sanitizer sees a read past the end */
        char *bytes = mem_alloc(strlen(hex) / 2);
        size_t length = decode_hex(hex, bytes);
        Error err = {0};
        cJSON *json = NULL;
        Status status = record_parse(bytes, length, "data.jsonl:7", &json, &err);
        if ((status == OK) != expected)
            fail_msg("%s: %s %s", line, expected ? "refused:" : "taken",
                     expected ? err.message : "");
        if (status != OK) {
            assert_int_equal(status, ERR_DATA);
            assert_true(str_starts_with(err.message, "data.jsonl:7: "));
            assert_non_null(strstr(err.message, "\n  expected: "));
            assert_non_null(strstr(err.message, "\n  to do: "));
        }
        taken += status == OK;
        num_cases++;
        cJSON_Delete(json);
        free(bytes);
    }
    assert_true(num_cases > 500 && taken > 50);
    free(line);
    fclose(cases);
}

static void assert_refusal(const char *text, size_t length, const char *expected)
{
    Error err = {0};
    Status status = record_check(text, length, "train.jsonl:3", &err);
    assert_int_equal(status, ERR_DATA);
    if (!str_starts_with(err.message, expected))
        fail_msg("got\n%s\nexpected\n%s", err.message, expected);
}

#define ASSERT_REFUSAL(text, expected) assert_refusal(text, sizeof text - 1, expected)

static void test_refusal_names_place_finding_and_remedy(void **state)
{
    (void)state;
    ASSERT_REFUSAL(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\ud800b\"}]}",
        "train.jsonl:3: a lone surrogate (\\ud800) in messages[0].content (byte 45)\n"
        "  found: ...es\": [{\"role\": \"user\", \"content\": \"a\\ud800b\"}]} (end of the line)\n"
        "  expected: two halves together, as in \\ud83d\\ude00\n"
        "  to do: ");
    ASSERT_REFUSAL("{\"messages\": [{\"content\": \"x\"}, {\"content\": \"a\\u0000b\"}]}",
                   "train.jsonl:3: a NUL character in messages[1].content (byte 47)\n");
    ASSERT_REFUSAL(
        "{\"messages\": [{\"content\": \"x",
        "train.jsonl:3: the JSON text ends inside a string in messages[0].content (byte 29)\n"
        "  found: {\"messages\": [{\"content\": \"x (end of the line)\n");
    ASSERT_REFUSAL("{\"messages\": [",
                   "train.jsonl:3: the JSON text ends too soon in messages[0] (byte 15)\n");
    ASSERT_REFUSAL("{\"a\": {\"b\": [0, 0, tru]}}",
                   "train.jsonl:3: not valid JSON in a.b[2] (byte 20)\n"
                   "  found: {\"a\": {\"b\": [0, 0, tru]}} (end of the line)\n"
                   "  expected: a value");
    ASSERT_REFUSAL("{\"a\": \"caf\xE9\"}",
                   "train.jsonl:3: a byte that is not UTF-8 (0xE9) in a (byte 11)\n"
                   "  found: {\"a\": \"caf\\xE9\"} (end of the line)\n");
    ASSERT_REFUSAL("{\"a\": 1} {\"b\": 2}",
                   "train.jsonl:3: more text after the end of the value (byte 10)\n");
    ASSERT_REFUSAL("[1]", "train.jsonl:3: the line is not an object (byte 1)\n  found: [1] (end");
    ASSERT_REFUSAL("{\"a\": 1, b: 2}", "train.jsonl:3: not valid JSON in a (byte 10)\n");
    ASSERT_REFUSAL("\xEF\xBB\xBF{\"a\": 1}",
                   "train.jsonl:3: a byte order mark (0xEF 0xBB 0xBF) (byte 1)\n"
                   "  found: \\xEF\\xBB\\xBF{\"a\": 1} (end of the line)\n"
                   "  expected: a value");
    ASSERT_REFUSAL("", "train.jsonl:3: the JSON text ends too soon (byte 1)\n");
}

static void test_refusal_of_long_lines_is_short(void **state)
{
    (void)state;
    Str text = {0};
    str_puts(&text, "{\"");
    for (int i = 0; i < 100000; i++)
        str_puts(&text, "\xC3\xA9");
    str_puts(&text, "\": [1, x");
    for (int i = 0; i < 100000; i++)
        str_puts(&text, "\xE2\x82\xAC");
    Error err = {0};
    assert_int_equal(record_check(text.data, text.length, "f:1", &err), ERR_DATA);
    assert_true(strlen(err.message) < 600);
    assert_non_null(strstr(err.message, "[1] (byte 200010)"));
    cJSON *quoted = cJSON_CreateString(err.message); /* cut between characters, not inside */
    char *printed = cJSON_Print(quoted);
    cJSON *back = NULL;
    assert_ok(json_parse(printed, strlen(printed), "message", &back, &err), &err);
    cJSON_Delete(back);
    cJSON_free(printed);
    cJSON_Delete(quoted);
    str_free(&text);
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    Error err = {0};
    Str text = {0};
    str_puts(&text, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        str_putc(&text, '[');
    assert_fails(record_check(text.data, text.length, "f:1", &err), ERR_DATA, &err,
                 "deeper than 200");
    str_free(&text);
}

static void test_record_keeps_the_spelling_of_numbers(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *json = NULL;
    const char *text = "{\"a\": 1.0, \"b\": 1}";
    assert_ok(record_parse(text, strlen(text), "f:1", &json, &err), &err);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(json, "a")->valuestring, "1.0");
    assert_null(cJSON_GetObjectItemCaseSensitive(json, "b")->valuestring);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_takes_what_python_takes),
        cmocka_unit_test(test_refusal_names_place_finding_and_remedy),
        cmocka_unit_test(test_refusal_of_long_lines_is_short),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_record_keeps_the_spelling_of_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
