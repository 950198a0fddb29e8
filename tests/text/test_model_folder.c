/* Whole model folders: what the files beside tokenizer.json say about tokens and templates, against
 * transformers' AutoTokenizer (fixtures/folders.json, made by make_folder_fixtures.py), and what is
 * refused. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/conversation.h"

#define FOLDER "model_folder"

static void write_file(const char *name, const char *text)
{
    Error err = {0};
    char *path = path_join(FOLDER, name), *parent = path_folder(path);
    assert_ok(folder_create(parent, &err), &err);
    assert_ok(file_write_atomic(path, text, strlen(text), &err), &err);
    free(parent);
    free(path);
}

static void begin_folder(const char *base)
{
    Error err = {0};
    char *tokenizer = NULL, *path;
    size_t length;
    assert_ok(folder_remove(FOLDER, &err), &err);
    path = mem_printf("%s/text/fixtures/%s/tokenizer.json", TEST_SOURCE_DIR, base);
    assert_ok(file_read(path, 1 << 24, &tokenizer, &length, &err), &err);
    write_file("tokenizer.json", tokenizer);
    free(tokenizer);
    free(path);
}

static const char *text_of(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static void check_case(const cJSON *expected)
{
    Error err = {0};
    TextModel *model = NULL;
    TokenizedConversation found = {0};
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(expected, "tools"), *item;
    print_message("%s\n", text_of(expected, "name"));
    begin_folder(text_of(expected, "base"));
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(expected, "files"))
        write_file(item->string, item->valuestring);
    assert_ok(text_model_load(FOLDER, NULL, &model, &err), &err);
    assert_ok(conversation_encode(model, NULL,
                                  cJSON_GetObjectItemCaseSensitive(expected, "messages"),
                                  cJSON_IsNull(tools) ? NULL : tools,
                                  &(ConversationOptions){.keep_text = true}, &found, &err),
              &err);
    assert_string_equal(found.text, text_of(expected, "text"));
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(expected, "ids");
    size_t at = 0;
    cJSON_ArrayForEach(item, ids)
    {
        assert_true(at < found.length);
        assert_int_equal(found.token[at++], item->valueint);
    }
    assert_int_equal(found.length, at);
    assert_int_equal(text_model_eos_id(model),
                     cJSON_GetObjectItemCaseSensitive(expected, "eos")->valueint);
    tokenized_conversation_free(&found);
    text_model_destroy(model);
}

static void test_folders_load_as_by_transformers(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *cases = NULL;
    const cJSON *item;
    assert_ok(json_read(TEST_SOURCE_DIR "/text/fixtures/folders.json", 1 << 20, &cases, &err),
              &err);
    assert_true(cJSON_GetArraySize(cases) > 10);
    cJSON_ArrayForEach(item, cases) check_case(item);
    cJSON_Delete(cases);
}

static void assert_refused(const char *config, Status expected, const char *text)
{
    Error err = {0};
    TextModel *model = NULL;
    write_file("tokenizer_config.json", config);
    assert_fails(text_model_load(FOLDER, NULL, &model, &err), expected, &err, text);
}

static void test_tokens_that_cannot_be_what_a_file_says_are_refused(void **state)
{
    (void)state;
    begin_folder("qwen");
    write_file("chat_template.jinja", "x");
    assert_refused("{\"added_tokens_decoder\": {\"9999\": {\"content\": \"<|new|>\"}}}", ERR_DATA,
                   "\"<|new|>\" states id 9999");
    assert_refused("{\"added_tokens_decoder\": {\"x\": {\"content\": \"<|new|>\"}}}", ERR_DATA,
                   "added_tokens_decoder: the id of a token");
    assert_refused("{\"added_tokens_decoder\": {\"567\": 3}}", ERR_DATA,
                   "added_tokens_decoder is a number, expected a token");
    assert_refused("{\"eos_token\": \"<|im_ned|>\"}", ERR_DATA, "eos_token \"<|im_ned|>\"");
    assert_refused("{\"pad_token\": 0}", ERR_DATA, "pad_token is a number");
    assert_refused("{\"extra_special_tokens\": 3}", ERR_DATA, "extra_special_tokens is a number");
    assert_refused("{\"extra_special_tokens\": {\"image_token\": 3}}", ERR_DATA,
                   "image_token is a number");
    begin_folder("behaviors"); /* its normalizer strips white space */
    write_file("chat_template.jinja", "x");
    assert_refused("{\"added_tokens_decoder\": {\"400\": {\"content\": \"\\n\\n\","
                   " \"normalized\": true}}}",
                   ERR_UNSUPPORTED, "nothing is left of the added token");
}

static void test_a_template_for_tools_alone_is_refused(void **state)
{
    (void)state;
    begin_folder("qwen");
    write_file("additional_chat_templates/tool_use.jinja", "x");
    assert_refused("{\"chat_template\": \"y\"}", ERR_NOT_FOUND, "but no chat_template.jinja");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders_load_as_by_transformers),
        cmocka_unit_test(test_tokens_that_cannot_be_what_a_file_says_are_refused),
        cmocka_unit_test(test_a_template_for_tools_alone_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
