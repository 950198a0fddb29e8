/* Tests of rollout_worker/chat_record: where a conversation is found, and how its absence is told.
 */
#include "test.h"

#include <string.h>

#include "rollout_worker/chat_record.h"
#include "rollout_worker/record.h"

static Status find(const char *text, cJSON **ret_json, ChatRecord *ret, Error *err)
{
    JobConfig config = {0};
    config.data.input_key = "messages";
    config.data.tool_key = "tools";
    config.data.metadata_key = "metadata";
    TRY(record_parse(text, strlen(text), "chat.jsonl:12", ret_json, err));
    return chat_record_find(&config, *ret_json, "chat.jsonl:12", ret, err);
}

static void assert_refused(const char *text, const char *expected)
{
    Error err = {0};
    cJSON *json = NULL;
    ChatRecord chat;
    assert_int_equal(find(text, &json, &chat, &err), ERR_DATA);
    if (strncmp(err.message, expected, strlen(expected)) != 0)
        fail_msg("got\n%s\nexpected\n%s", err.message, expected);
    assert_non_null(strstr(err.message, "\n  to do: "));
    cJSON_Delete(json);
}

/* The tools of a record as text, or NULL. */
static char *tools_of(const char *text)
{
    Error err = {0};
    cJSON *json = NULL;
    ChatRecord chat;
    assert_ok(find(text, &json, &chat, &err), &err);
    assert_true(cJSON_IsArray(chat.messages));
    char *tools = chat.tools != NULL ? cJSON_PrintUnformatted(chat.tools) : NULL;
    cJSON_Delete(json);
    return tools;
}

static void assert_tools(const char *text, const char *expected)
{
    char *tools = tools_of(text);
    assert_string_equal(tools, expected);
    cJSON_free(tools);
}

static void test_tools_are_found_in_record_or_metadata(void **state)
{
    (void)state;
    assert_null(tools_of("{\"messages\": []}"));
    assert_null(tools_of("{\"messages\": [], \"tools\": null, \"metadata\": {\"tools\": null}}"));
    assert_null(tools_of("{\"messages\": [], \"metadata\": \"tools\"}"));
    assert_tools("{\"messages\": [], \"tools\": [1]}", "[1]");
    assert_tools("{\"messages\": [], \"tools\": \"[1]\"}", "\"[1]\"");
    assert_tools("{\"messages\": [], \"metadata\": {\"tools\": [2]}}", "[2]");
    assert_tools("{\"messages\": [], \"tools\": [1], \"metadata\": {\"tools\": [2]}}", "[1]");
    assert_tools("{\"messages\": [], \"tools\": null, \"metadata\": {\"tools\": [2]}}", "[2]");
}

static void test_what_is_no_conversation_is_refused_by_key(void **state)
{
    (void)state;
    assert_refused(
        "{\"mesages\": [], \"label\": \"4\"}",
        "chat.jsonl:12: key \"messages\" is missing\n"
        "  found: the keys \"mesages\", \"label\"\n"
        "  expected: a list of messages, as in [{\"role\": \"user\", \"content\": \"...\"}, ...]\n"
        "  to do: did you mean \"mesages\"?");
    assert_refused("{}", "chat.jsonl:12: key \"messages\" is missing\n  found: no key at all\n");
    assert_refused("{\"messages\": \"hello\"}", "chat.jsonl:12: key \"messages\" is a string\n");
    assert_refused("{\"messages\": null}", "chat.jsonl:12: key \"messages\" is null\n");
    assert_refused("{\"messages\": {\"role\": \"user\"}}",
                   "chat.jsonl:12: key \"messages\" is an object\n");
    assert_refused("{\"messages\": [], \"tools\": {\"a\": 1}}",
                   "chat.jsonl:12: key \"tools\" is an object\n");
    assert_refused("{\"messages\": [], \"metadata\": {\"tools\": 7}}",
                   "chat.jsonl:12: key \"metadata.tools\" is a number\n");
    assert_refused("{\"messages\": [], \"label\": 1, \"messages\": []}",
                   "chat.jsonl:12: key \"messages\" occurs twice\n");
    assert_refused(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"content\": \"b\", \"role\": "
        "\"user\", \"content\": \"c\"}]}",
        "chat.jsonl:12: key \"content\" occurs twice in messages[1]\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tools_are_found_in_record_or_metadata),
        cmocka_unit_test(test_what_is_no_conversation_is_refused_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
