/* Added tokens where they meet each other, white space and normalizers, and other corners of
 * tokenizer.json. The ids are those of the `tokenizers` package 0.23.3. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "text/tokenizer/tokenizer.h"

/* a 0, b 1, space 2, newline 3; added tokens from 4 on. */
#define MODEL "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\" \":2,\"\\n\":3},\"merges\":[]}"

#define ADDED(id, content, lstrip, rstrip, normalized)                                             \
    "{\"id\":" #id ",\"content\":\"" content "\",\"special\":false,\"single_word\":false,"         \
    "\"lstrip\":" #lstrip ",\"rstrip\":" #rstrip ",\"normalized\":" #normalized "}"

static Tokenizer *load(const char *json)
{
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_parse(json, strlen(json), "t.json", &tokenizer, &err), &err);
    return tokenizer;
}

static void check_ids(const char *json, const char *text, const char *expected)
{
    Error err = {0};
    Encoding encoding = {0};
    Str ids = {0};
    Tokenizer *tokenizer = load(json);
    assert_ok(tokenizer_encode(tokenizer, NULL, text, strlen(text), NULL, false, &encoding, &err),
              &err);
    for (size_t i = 0; i < encoding.length; i++)
        str_printf(&ids, " %d", encoding.span[i].id);
    assert_string_equal(str_text(&ids), expected);
    str_free(&ids);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

static void check_refused(const char *json, Status status, const char *text)
{
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    assert_fails(tokenizer_parse(json, strlen(json), "t.json", &tokenizer, &err), status, &err,
                 text);
}

static void test_white_space_that_a_token_swallowed_is_no_second_token(void **state)
{
    (void)state;
    static const char both[] =
        "{\"added_tokens\":[" ADDED(4, "  ", true, true, false) "]," MODEL "}";
    check_ids(both, "    ", " 4");
    check_ids(both, "a     b", " 0 4 1");
    static const char letter[] = "{\"added_tokens\":[" ADDED(4, "A", false, true, false) "," ADDED(
        5, "\\n\\n", true, false, false) "]," MODEL "}";
    check_ids(letter, "A\n\n", " 4");
    check_ids(letter, "a\n\n", " 0 5");
    static const char plain[] = "{\"added_tokens\":[" ADDED(4, "A", false, true, false) "," ADDED(
        5, "  ", false, false, false) "]," MODEL "}";
    /* One that strips nothing is found in the swallowed spaces, and the text goes on behind it. */
    check_ids(plain, "A   b", " 4 5 2 1");
}

static void test_a_token_of_which_nothing_is_left_is_refused(void **state)
{
    (void)state;
    check_refused("{\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
                  "\"added_tokens\":[" ADDED(4, "\\n\\n", false, false, true) "]," MODEL "}",
                  ERR_UNSUPPORTED, "nothing is left of the added token");
}

static void test_post_processors_are_bounded_all_together(void **state)
{
    (void)state;
    Str json = {0};
    str_puts(&json, "{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[");
    for (int i = 0; i < 600; i++)
        str_printf(&json, "%s{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]}",
                   i > 0 ? "," : "");
    str_puts(&json, "]}," MODEL "}");
    check_refused(str_text(&json), ERR_UNSUPPORTED, "more than 1024 special tokens");
    str_free(&json);
}

#define FIRST                                                                                      \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"split\":false}"
#define VOCAB(vocab) "\"model\":{\"vocab\":{" vocab "},\"merges\":[]}}"

/* The package counts characters that another became to the place of that one, and those that others
 * became to the place of the last of them. */
static void test_only_what_stands_first_gets_the_first_metaspace(void **state)
{
    (void)state;
    check_ids("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":"
              "\"b\"},\"pre_tokenizer\":" FIRST "," VOCAB("\"a\":0,\"b\":1,\"_\":2"),
              "aaa", " 1 0");
    check_ids("{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
              "\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," FIRST
              "]}," VOCAB("\"a\":0,\"1\":1,\"_\":2"),
              "a\u2460", " 2 0 1");
    check_ids("{\"normalizer\":{\"type\":\"NFKD\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
              "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\"b\"},"
              "\"behavior\":\"Isolated\",\"invert\":false}," FIRST
              "]}," VOCAB("\"a\":0,\"b\":1,\"_\":2,\"f\":3,\"i\":4"),
              "\uFB01b", " 2 3 4 1");
}

static void test_neighbours_of_a_character_that_vanishes_join(void **state)
{
    (void)state;
    check_ids("{\"model\":{\"vocab\":{\"\u2581\":0,\"\u2581\u2581\":1},\"merges\":[[\"\u2581\","
              "\"\u2581\"]]}}",
              "\u2581;\u2581", " 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space_that_a_token_swallowed_is_no_second_token),
        cmocka_unit_test(test_a_token_of_which_nothing_is_left_is_refused),
        cmocka_unit_test(test_post_processors_are_bounded_all_together),
        cmocka_unit_test(test_neighbours_of_a_character_that_vanishes_join),
        cmocka_unit_test(test_only_what_stands_first_gets_the_first_metaspace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
