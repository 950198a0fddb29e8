/* What is said of a tokenizer and a chat template before any record is read. */
#include "text/conversation_support.h"
#include "text/text_check.h"

static char *warnings_of(const TextModel *model, const char *kwargs_json)
{
    cJSON *kwargs = kwargs_json != NULL ? parse(kwargs_json) : NULL;
    char *warnings = text_model_warnings(model, kwargs);
    cJSON_Delete(kwargs);
    return warnings;
}

static void assert_warns(const TextModel *model, const char *kwargs_json, const char *expected)
{
    char *warnings = warnings_of(model, kwargs_json);
    if (warnings == NULL || strstr(warnings, expected) == NULL)
        fail_msg("%s\nexpected\n%s", warnings != NULL ? warnings : "nothing", expected);
    free(warnings);
}

static void assert_silent(const TextModel *model, const char *kwargs_json)
{
    char *warnings = warnings_of(model, kwargs_json);
    if (warnings != NULL) fail_msg("%s", warnings);
}

/* A tokenizer and a template of two models: it trains, and never ends an answer. */
static void test_marks_that_are_no_tokens_are_told_of(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(file_write_atomic("chatml.jinja", chatml, strlen(chatml), &err), &err);
    TextModel *model = load_model(TEST_SOURCE_DIR "/text/fixtures/gpt2", "chatml.jinja");
    assert_warns(model, NULL, "The chat template writes <|im_start|>, which is no token of the");
    assert_warns(model, NULL, "The chat template writes <|im_end|>, which is no token of the");
    assert_warns(model, NULL, "The chat template ends an answer with <|im_end|>\\n, of which");
    text_model_destroy(model);
    model = load_model(TEST_SOURCE_DIR "/text/fixtures/qwen", "chatml.jinja");
    assert_silent(model, NULL);
    text_model_destroy(model);
    model = load_model(TINY_MODEL, NULL);
    assert_silent(model, NULL);
    text_model_destroy(model);
}

static void test_an_answer_without_an_end_is_told_of(void **state)
{
    (void)state;
    TextModel *model = load_with_template("{%- for m in messages %}{{ m.content }}{%- endfor %}");
    assert_warns(model, NULL, "The chat template writes nothing behind an answer that is trained");
    text_model_destroy(model);
}

static void test_arguments_that_the_template_never_reads_are_told_of(void **state)
{
    (void)state;
    TextModel *model = load_with_template(
        "{%- for m in messages %}{%- set own = 1 %}{{ m.content }}{%- if enable_thinking is "
        "defined and enable_thinking is false %}{{ effort }}{%- endif %}<|im_end|>{%- endfor %}"
        "{%- if add_generation_prompt %}{{ range(1) }}{%- endif %}");
    assert_silent(model, NULL);
    assert_silent(model, "{\"enable_thinking\": false, \"effort\": \"low\"}");
    assert_warns(model, "{\"enable_thinkin\": false}",
                 "the chat template never reads \"enable_thinkin\"; did you mean "
                 "enable_thinking?\n");
    assert_warns(model, "{\"zzz\": 1}",
                 "the chat template never reads \"zzz\"; it reads enable_thinking, effort\n");
    assert_warns(model, "{\"own\": 1}", "never reads \"own\""); /* it is the template's */
    assert_warns(model, "{\"enable_thinking\": \"False\"}",
                 "enable_thinking is the text \"False\", and to a template every text but an empty "
                 "one is true; did you mean false?");
    assert_warns(model, "{\"enable_thinking\": \"flase\"}", "did you mean false?");
    text_model_destroy(model);
    model = load_model(TINY_MODEL, NULL);
    assert_warns(model, "{\"enable_thinking\": true}", "never reads \"enable_thinking\"");
    text_model_destroy(model);
}

static void test_lines_of_a_template_within_a_file_are_its_own(void **state)
{
    (void)state;
    static const char config[] = "{\"model_max_length\": 7, \"chat_template\": "
                                 "\"{{ messages[0].content }}\\n{{ functions[0] }}\"}";
    Error err = {0};
    char *tokenizer = NULL;
    size_t length = 0;
    assert_ok(file_read(TINY_MODEL "/tokenizer.json", 1 << 24, &tokenizer, &length, &err), &err);
    assert_ok(folder_create("within", &err), &err);
    assert_ok(file_write_atomic("within/tokenizer.json", tokenizer, length, &err), &err);
    assert_ok(file_write_atomic("within/tokenizer_config.json", config, strlen(config), &err),
              &err);
    TextModel *model = load_model("within", NULL);
    assert_fails(text_model_try(model, NULL, &err), ERR_DATA, &err,
                 "within/tokenizer_config.json: chat_template:2: 'functions' is undefined");
    assert_non_null(strstr(err.message, "given in data.apply_chat_template_kwargs"));
    cJSON *kwargs = parse("{\"messages\": []}");
    assert_fails(text_model_try(model, kwargs, &err), ERR_INVALID, &err,
                 "data.apply_chat_template_kwargs: \"messages\" is not the caller's");
    cJSON_Delete(kwargs);
    text_model_destroy(model);
    free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_that_are_no_tokens_are_told_of),
        cmocka_unit_test(test_an_answer_without_an_end_is_told_of),
        cmocka_unit_test(test_arguments_that_the_template_never_reads_are_told_of),
        cmocka_unit_test(test_lines_of_a_template_within_a_file_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
