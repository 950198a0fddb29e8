/* Tests of rollout_worker/chat_record and chat_shapes: records of every shape give the
 * conversations that TRL and LLaMA-Factory make of them (fixtures: make_shape_fixtures.py); what
 * stands beside a conversation is found; what is of no shape, or of two, is told. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "rollout_worker/chat_record.h"
#include "rollout_worker/record.h"

#define SOURCE "chat.jsonl:12"

/* A record and what was read of it. */
typedef struct Case {
    JobConfig config;
    ChatReader reader;
    cJSON *json;
    ChatRecord chat;
} Case;

static Status case_read(Case *c, const char *input_key, const char *kwargs, const char *text,
                        Error *err)
{
    memset(c, 0, sizeof *c);
    c->config.data.input_key = (char *)input_key;
    c->config.data.label_key = "label";
    c->config.data.tool_key = "tools";
    c->config.data.metadata_key = "metadata";
    c->config.data.apply_chat_template_kwargs = (char *)kwargs;
    assert_ok(chat_reader_create(&c->config, &c->reader, err), err);
    assert_ok(record_parse(text, strlen(text), SOURCE, &c->json, err), err);
    return chat_record_read(&c->reader, c->json, SOURCE, &c->chat, err);
}

static void case_clear(Case *c)
{
    chat_record_clear(&c->chat);
    cJSON_Delete(c->json);
    chat_reader_clear(&c->reader);
}

static Case read_ok(const char *input_key, const char *text)
{
    Case c;
    Error err = {0};
    assert_ok(case_read(&c, input_key, NULL, text, &err), &err);
    return c;
}

static void assert_json(const cJSON *value, const char *expected)
{
    Str text = {0};
    json_append(&text, value);
    assert_string_equal(str_text(&text), expected);
    str_free(&text);
}

/* The conversation, as JSON, and how much of it is given. */
static void assert_read(const char *input_key, const char *text, const char *messages, int given)
{
    Case c = read_ok(input_key, text);
    assert_json(c.chat.conversation.messages, messages);
    assert_int_equal(c.chat.conversation.num_prompt_messages, given);
    case_clear(&c);
}

static void assert_refused_by_key(const char *input_key, const char *text, const char *expected)
{
    Case c;
    Error err = {0};
    assert_int_equal(case_read(&c, input_key, NULL, text, &err), ERR_DATA);
    if (strncmp(err.message, SOURCE ": ", strlen(SOURCE ": ")) != 0 ||
        strstr(err.message, expected) == NULL)
        fail_msg("%s\ngave\n%s\nexpected\n%s", text, err.message, expected);
    assert_non_null(strstr(err.message, "\n  expected: "));
    assert_non_null(strstr(err.message, "\n  to do: "));
    case_clear(&c);
}

static void assert_refused(const char *text, const char *expected)
{
    assert_refused_by_key(NULL, text, expected);
}

#define USER(text)      "{\"role\": \"user\", \"content\": \"" text "\"}"
#define ASSISTANT(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define SYSTEM(text)    "{\"role\": \"system\", \"content\": \"" text "\"}"
#define A_B             "[" USER("a") ", " ASSISTANT("b") "]"

/* ---- shapes ---- */

static void assert_same(const char *name, const char *what, const cJSON *got, const cJSON *expected)
{
    if (got == NULL && cJSON_IsNull(expected)) return;
    if (got != NULL && cJSON_Compare(got, expected, true)) return;
    Str text = {0};
    if (got != NULL) json_append(&text, got);
    str_puts(&text, "\nexpected\n");
    json_append(&text, expected);
    fail_msg("%s, %s: got\n%s", name, what, text.data);
}

static void check_fixture(const cJSON *row)
{
    const char *name = cJSON_GetObjectItemCaseSensitive(row, "name")->valuestring;
    Str record = {0};
    json_append(&record, cJSON_GetObjectItemCaseSensitive(row, "record"));
    Case c = read_ok(NULL, record.data);
    const ChatConversation *conversation = &c.chat.conversation;
    assert_same(name, "messages", conversation->messages,
                cJSON_GetObjectItemCaseSensitive(row, "messages"));
    assert_same(name, "rejected", conversation->rejected,
                cJSON_GetObjectItemCaseSensitive(row, "rejected"));
    if (conversation->num_prompt_messages !=
        cJSON_GetObjectItemCaseSensitive(row, "given")->valueint)
        fail_msg("%s: %d messages given", name, conversation->num_prompt_messages);
    cJSON *tools = NULL;
    if (cJSON_IsString(c.chat.tools)) tools = cJSON_Parse(c.chat.tools->valuestring);
    assert_same(name, "tools", tools != NULL ? tools : c.chat.tools,
                cJSON_GetObjectItemCaseSensitive(row, "tools"));
    cJSON_Delete(tools);
    str_free(&record);
    case_clear(&c);
}

static void test_shapes_give_the_conversations_of_trl_and_llama_factory(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_SOURCE_DIR "/rollout_worker/fixtures/shapes.jsonl", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    int count = 0;
    for (; getline(&line, &capacity, file) > 0; count++) {
        cJSON *row = NULL;
        Error err = {0};
        assert_ok(json_parse(line, strlen(line), "shapes.jsonl", &row, &err), &err);
        check_fixture(row);
        cJSON_Delete(row);
    }
    assert_int_equal(count, 28);
    free(line);
    fclose(file);
}

static void test_a_prompt_is_given_whole_with_its_label(void **state)
{
    (void)state;
    Case c =
        read_ok(NULL, "{\"prompt\": \"a\", \"label\": [4], \"metadata\": {\"source\": \"x\"}}");
    assert_int_equal(c.chat.conversation.shape, SHAPE_PROMPT);
    assert_json(c.chat.conversation.messages, "[" USER("a") "]");
    assert_int_equal(c.chat.conversation.num_prompt_messages, 1);
    assert_json(c.chat.label, "[4]");
    assert_json(c.chat.metadata, "{\"source\": \"x\"}");
    case_clear(&c);
    assert_read(NULL, "{\"prompt\": [" SYSTEM("s") ", " USER("a") "], \"label\": \"4\"}",
                "[" SYSTEM("s") ", " USER("a") "]", 2);
    assert_read(NULL, "{\"prompt\": [{\"from\": \"human\", \"value\": \"a\"}]}", "[" USER("a") "]",
                1);
    assert_read(NULL, "{\"prompt\": \"a\", \"system\": \"s\"}", "[" SYSTEM("s") ", " USER("a") "]",
                2);
}

static void test_an_answer_follows_its_prompt(void **state)
{
    (void)state;
    assert_read(NULL, "{\"prompt\": \"a\", \"completion\": \"b\"}", A_B, 1);
    assert_read(NULL, "{\"prompt\": \"a\", \"response\": [" ASSISTANT("b") "]}", A_B, 1);
    assert_read(NULL, "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}", A_B, 1);
    assert_read(NULL, "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}", A_B, 2);
    assert_read(NULL, "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", A_B, 1);
    assert_read(
        NULL,
        "{\"prompt\": \"a\", \"chosen\": [" ASSISTANT("b") "], \"rejected\": [" ASSISTANT("c") "]}",
        A_B, 1);
    assert_read(NULL,
                "{\"prompt\": [" USER("a") "], \"chosen\": " A_B
                                           ", \"rejected\": [" USER("a") ", " ASSISTANT("c") "]}",
                A_B, 1);
    Case c =
        read_ok(NULL, "{\"messages\": [" USER("a") "], \"system\": \"s\", \"chosen\": " ASSISTANT(
                          "b") ", \"rejected\": \"c\"}");
    assert_int_equal(c.chat.conversation.shape, SHAPE_PAIR);
    assert_json(c.chat.conversation.messages,
                "[" SYSTEM("s") ", " USER("a") ", " ASSISTANT("b") "]");
    assert_json(c.chat.conversation.rejected,
                "[" SYSTEM("s") ", " USER("a") ", " ASSISTANT("c") "]");
    assert_int_equal(c.chat.conversation.num_prompt_messages, 2);
    case_clear(&c);
}

static void test_questions_and_answers_under_other_names_are_read(void **state)
{
    (void)state;
    assert_read(NULL, "{\"query\": \"a\", \"response\": \"b\"}", A_B, 1);
    assert_read(NULL, "{\"question\": \"a\", \"answer\": \"b\", \"id\": 3}", A_B, 1);
    assert_read(NULL, "{\"prompt\": \"a\", \"answer\": \"b\"}", A_B, 1);
    assert_read(NULL, "{\"input\": \"a\", \"output\": \"b\"}", A_B, 1);
    assert_read(NULL, "{\"question\": [" USER("a") "], \"answer\": \"b\", \"system\": \"s\"}",
                "[" SYSTEM("s") ", " USER("a") ", " ASSISTANT("b") "]", 2);
    assert_read(NULL, "{\"question\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", A_B, 1);
    /* Dolly */
    assert_read(NULL, "{\"instruction\": \"a\", \"context\": \"\", \"response\": \"b\"}", A_B, 0);
    assert_read(NULL, "{\"instruction\": \"a\", \"context\": \"c\", \"response\": \"b\"}",
                "[" USER("a\\nc") ", " ASSISTANT("b") "]", 0);
    /* What is named so beside a shape of its own says nothing new, and a number is a label. */
    assert_read(NULL, "{\"messages\": " A_B ", \"question\": \"x\", \"answer\": \"y\"}", A_B, 0);
    assert_read(NULL, "{\"prompt\": \"a\", \"completion\": \"b\", \"answer\": \"y\"}", A_B, 1);
    assert_read(NULL, "{\"prompt\": \"a\", \"answer\": 4}", "[" USER("a") "]", 1);
}

static void test_what_is_said_twice_is_read_once(void **state)
{
    (void)state;
    /* UltraChat */
    assert_read(NULL, "{\"prompt\": \"a\", \"prompt_id\": \"x\", \"messages\": " A_B "}", A_B, 0);
    assert_read(
        NULL,
        "{\"prompt\": \"a\", \"messages\": [" SYSTEM("s") ", " USER("a") ", " ASSISTANT("b") "]}",
        "[" SYSTEM("s") ", " USER("a") ", " ASSISTANT("b") "]", 0);
    assert_read(NULL, "{\"prompt\": [" USER("a") "], \"messages\": " A_B "}", A_B, 0);
    /* UltraFeedback */
    static const char feedback[] = "{\"prompt\": \"a\", \"chosen\": " A_B ", \"rejected\": [" USER(
        "a") ", " ASSISTANT("c") "], \"messages\": " A_B ", \"score_chosen\": 8.5}";
    assert_read(NULL, feedback, A_B, 1);
    assert_read("chosen", feedback, A_B, 0);
}

static void test_function_calls_of_before_tools_are_tool_calls(void **state)
{
    (void)state;
    Case c =
        read_ok(NULL, "{\"functions\": [{\"name\": \"f\"}], \"messages\": [" USER(
                          "a") ", {\"role\": \"assistant\", \"content\": null, \"function_call\": "
                               "{\"name\": \"f\", "
                               "\"arguments\": \"{}\"}}, {\"role\": \"function\", \"name\": \"f\", "
                               "\"content\": \"1\"}, " ASSISTANT("b") "]}");
    assert_json(c.chat.conversation.messages,
                "[" USER("a") ", {\"role\": \"assistant\", \"content\": null, \"tool_calls\": "
                              "[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
                              "\"arguments\": \"{}\"}}]}, {\"role\": \"tool\", \"name\": \"f\", "
                              "\"content\": \"1\"}, " ASSISTANT("b") "]");
    assert_json(c.chat.tools, "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
    case_clear(&c);
    /* null, as tables have it, is no call; and who has the newer form needs no other. */
    assert_read(NULL,
                "{\"messages\": [" USER("a") ", {\"role\": \"assistant\", \"content\": "
                                             "\"b\", \"function_call\": null}]}",
                "[" USER("a") ", {\"role\": \"assistant\", \"content\": \"b\", "
                              "\"function_call\": null}]",
                0);
    assert_refused("{\"messages\": [" USER("a") ", {\"role\": \"assistant\", \"function_call\": "
                                                "{\"arguments\": {}}}]}",
                   ": messages[1].function_call names no function\n");
}

static void test_messages_keep_what_else_they_say(void **state)
{
    (void)state;
    assert_read(NULL,
                "{\"conversation\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
                "\"value\": \"b\", \"step_loss_mask\": 0, \"reasoning_content\": \"r\"}]}",
                "[" USER("a") ", {\"role\": \"assistant\", \"content\": \"b\", "
                              "\"step_loss_mask\": 0, \"reasoning_content\": \"r\"}]",
                0);
    assert_read(
        NULL,
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, "
        "{\"from\": \"function-call\", \"value\": {\"name\": \"f\"}, \"weight\": 0}, "
        "{\"from\": \"tool\", \"value\": \"1\"}]}",
        "[" USER(
            "a") ", {\"role\": \"assistant\", \"weight\": 0, \"tool_calls\": "
                 "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]}, "
                 "{\"role\": \"tool\", \"content\": \"1\"}]",
        0);
    assert_read(NULL, "{\"messages\": " A_B ", \"system\": \"s\", \"prompt\": null}",
                "[" SYSTEM("s") ", " USER("a") ", " ASSISTANT("b") "]", 0);
    assert_read(NULL, "{\"messages\": [" SYSTEM("own") ", " USER("a") "], \"system\": \"s\"}",
                "[" SYSTEM("own") ", " USER("a") "]", 0);
}

static void test_a_named_key_counts_before_any_shape(void **state)
{
    (void)state;
#define TWO "{\"dialog\": " A_B ", \"prompt\": \"p\", \"messages\": [" USER("m") "]}"
    assert_read("dialog", TWO, A_B, 0);
    assert_read("prompt", TWO, "[" USER("p") "]", 1);
    assert_read("messages", TWO, "[" USER("m") "]", 0);
    assert_read("chosen", "{\"chosen\": " A_B ", \"rejected\": \"x\", \"messages\": []}", A_B, 0);
    assert_read("talk", "{\"talk\": [{\"from\": \"human\", \"value\": \"a\"}], \"system\": \"s\"}",
                "[" SYSTEM("s") ", " USER("a") "]", 0);
    assert_refused_by_key("text", TWO, ": key \"text\" is missing\n  found: the keys \"dialog\", ");
    assert_refused_by_key("dialogs", TWO, "\n  to do: did you mean \"dialog\"?");
    assert_refused_by_key("messages", "{}",
                          ": key \"messages\" is missing\n  found: no key at all\n");
    assert_refused_by_key("n", "{\"n\": 7}", ": key \"n\" is a number\n");
    assert_refused_by_key("n", "{\"n\": {\"a\": 1}}", ": key \"n\" is an object\n");
#undef TWO
}

/* ---- beside the conversation ---- */

static void assert_tools(const char *text, const char *expected)
{
    Case c = read_ok(NULL, text);
    if (expected == NULL)
        assert_null(c.chat.tools);
    else
        assert_json(c.chat.tools, expected);
    case_clear(&c);
}

static void test_tools_are_found_in_record_or_metadata(void **state)
{
    (void)state;
    assert_tools("{\"messages\": []}", NULL);
    assert_tools("{\"messages\": [], \"tools\": null, \"metadata\": {\"tools\": null}}", NULL);
    assert_tools("{\"messages\": [], \"metadata\": \"tools\"}", NULL);
    assert_tools("{\"messages\": [], \"tools\": [1]}", "[1]");
    assert_tools("{\"messages\": [], \"tools\": \"[1]\"}", "\"[1]\"");
    assert_tools("{\"messages\": [], \"metadata\": {\"tools\": [2]}}", "[2]");
    assert_tools("{\"messages\": [], \"tools\": [1], \"metadata\": {\"tools\": [2]}}", "[1]");
    assert_tools("{\"messages\": [], \"tools\": null, \"metadata\": {\"tools\": [2]}}", "[2]");
    /* A bare tool is wrapped in the shapes that have them so, and left alone in OpenAI's. */
    assert_tools("{\"messages\": [], \"tools\": [{\"name\": \"f\"}]}", "[{\"name\": \"f\"}]");
    assert_tools("{\"instruction\": \"a\", \"output\": \"b\", \"tools\": [{\"name\": \"f\"}]}",
                 "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
}

/* slime's own defaults are "input" and no label; every key can be named as its flags do. */
static void test_keys_are_those_that_the_job_names(void **state)
{
    (void)state;
    static const char text[] =
        "{\"input\": " A_B ", \"answer\": 4, \"functions\": \"[1]\", "
        "\"extra\": {\"tools\": [2], \"source\": \"x\"}, \"label\": 5, \"tools\": [3], "
        "\"metadata\": {\"tools\": [4]}}";
    static const char without[] = "{\"input\": \"a\", \"extra\": {\"tools\": [2]}, \"tools\": [3]}";
    Error err = {0};
    JobConfig config = {0};
    ChatReader reader;
    ChatRecord chat = {0};
    cJSON *json = NULL;
    config.data.input_key = "input";
    config.data.label_key = "answer";
    config.data.tool_key = "functions";
    config.data.metadata_key = "extra";
    assert_ok(chat_reader_create(&config, &reader, &err), &err);
    assert_ok(record_parse(text, strlen(text), SOURCE, &json, &err), &err);
    assert_ok(chat_record_read(&reader, json, SOURCE, &chat, &err), &err);
    assert_json(chat.conversation.messages, A_B);
    assert_int_equal(chat.conversation.num_prompt_messages, 0);
    assert_json(chat.label, "4");
    assert_json(chat.tools, "\"[1]\"");
    assert_json(chat.metadata, "{\"tools\": [2], \"source\": \"x\"}");
    chat_record_clear(&chat);
    cJSON_Delete(json);
    /* A text under the key is a prompt; without tools of their own the metadata's count. */
    assert_ok(record_parse(without, strlen(without), SOURCE, &json, &err), &err);
    assert_ok(chat_record_read(&reader, json, SOURCE, &chat, &err), &err);
    assert_json(chat.conversation.messages, "[" USER("a") "]");
    assert_int_equal(chat.conversation.num_prompt_messages, 1);
    assert_null(chat.label);
    assert_json(chat.tools, "[2]");
    chat_record_clear(&chat);
    cJSON_Delete(json);
    chat_reader_clear(&reader);
}

static void assert_kwargs(const char *job, const char *record, const char *expected)
{
    Case c;
    Error err = {0};
    assert_ok(case_read(&c, NULL, job, record, &err), &err);
    assert_json(c.chat.template_kwargs, expected);
    case_clear(&c);
}

static void test_what_the_template_is_told_comes_from_job_and_record(void **state)
{
    (void)state;
    static const char plain[] = "{\"messages\": []}";
    static const char own[] =
        "{\"messages\": [], \"chat_template_kwargs\": {\"enable_thinking\": true, \"x\": 1}}";
    static const char slime[] =
        "{\"messages\": [], \"apply_chat_template_kwargs\": {\"enable_thinking\": true}}";
    static const char job[] = "{\"enable_thinking\": false, \"effort\": \"low\"}";
    Case c = read_ok(NULL, plain);
    assert_null(c.chat.template_kwargs);
    case_clear(&c);
    assert_kwargs(job, plain, job);
    assert_kwargs(NULL, own, "{\"enable_thinking\": true, \"x\": 1}");
    assert_kwargs(job, own, "{\"enable_thinking\": true, \"x\": 1, \"effort\": \"low\"}");
    assert_kwargs(job, slime, "{\"enable_thinking\": true, \"effort\": \"low\"}");
    assert_refused("{\"messages\": [], \"chat_template_kwargs\": \"{}\"}",
                   "key \"chat_template_kwargs\" is a string");
    assert_refused("{\"messages\": [], \"chat_template_kwargs\": {\"tools\": []}}",
                   "\"tools\" is not the caller's to give");
    assert_refused("{\"messages\": [], \"chat_template_kwargs\": {}, "
                   "\"apply_chat_template_kwargs\": {}}",
                   "two keys say what the chat template is told");
    JobConfig config = {0};
    config.data.apply_chat_template_kwargs = "{\"messages\": []}";
    Error err = {0};
    assert_fails(chat_reader_create(&config, &c.reader, &err), ERR_INVALID, &err,
                 "data.apply_chat_template_kwargs: \"messages\" is not");
}

/* ---- what is refused ---- */

static void test_a_record_of_no_shape_is_told_by_its_keys(void **state)
{
    (void)state;
    assert_refused("{\"mesages\": [], \"label\": \"4\"}",
                   ": the record is of no known shape\n"
                   "  found: the keys \"mesages\", \"label\"\n"
                   "  expected: \"messages\", \"conversations\", \"instruction\" and \"output\", "
                   "\"prompt\" (and \"completion\"), or \"chosen\" and \"rejected\"\n"
                   "  to do: is \"mesages\" meant to be \"messages\"?");
    assert_refused("{\"id\": 1, \"dialog\": " A_B "}",
                   "\n  to do: if \"dialog\" is the conversation, say so in data.input_key");
    assert_refused("{\"text\": \"once\", \"a\": 1, \"b\": 1, \"c\": 1, \"d\": 1, \"e\": 1, "
                   "\"f\": 1, \"g\": 1, \"h\": 1}",
                   "\"g\" and 1 more\n");
    assert_refused("{\"problem\": \"a\", \"solution\": \"b\"}",
                   "jq -c '{prompt: .problem, completion: .solution}' renames them");
    assert_refused("{\"question\": \"a\", \"choices\": []}",
                   "to do: if \"question\" is the prompt, say so in data.input_key");
    assert_refused("{\"text\": \"once upon a time\"}", "to do: plain text is not trained");
    assert_refused("{}", "\n  found: no key at all\n");
    assert_refused("{\"messages\": null, \"prompt\": null}", "the record is of no known shape");
}

static void test_a_record_of_two_shapes_is_refused_with_both(void **state)
{
    (void)state;
    assert_refused("{\"prompt\": \"z\", \"prompt_id\": 3, \"messages\": " A_B "}",
                   ": the record mixes two shapes\n"
                   "  found: both \"messages\" and \"prompt\"\n"
                   "  expected: the keys of one shape of chat data\n"
                   "  to do: remove one of them, or name the one that counts, as in "
                   "data.input_key: messages");
    assert_refused("{\"conversations\": [], \"instruction\": \"a\"}",
                   "both \"conversations\" and \"instruction\"");
    assert_refused("{\"conversations\": [], \"conversation\": []}",
                   "both \"conversations\" and \"conversation\"");
    assert_refused("{\"instruction\": \"a\", \"output\": \"b\", \"response\": \"c\"}",
                   "both \"output\" and \"response\"");
    assert_refused("{\"instruction\": \"a\", \"input\": \"b\", \"context\": \"c\", "
                   "\"output\": \"d\"}",
                   "both \"input\" and \"context\"");
    assert_refused("{\"prompt\": [" USER("b") "], \"messages\": " A_B "}",
                   "both \"messages\" and \"prompt\"");
    assert_refused("{\"prompt\": \"a\", \"completion\": \"b\", \"chosen\": \"c\", "
                   "\"rejected\": \"d\"}",
                   "both \"chosen\" and \"completion\"");
    assert_refused("{\"messages\": [" USER("a") ", {\"from\": \"gpt\", \"value\": \"b\"}]}",
                   ": messages mixes two forms of messages\n"
                   "  found: messages[1] has \"from\", as the ones before it have not");
    assert_refused("{\"messages\": [{\"role\": \"user\", \"from\": \"human\"}]}",
                   ": messages mixes two forms of messages");
}

static void test_a_record_that_breaks_its_shape_is_refused_by_key(void **state)
{
    (void)state;
    assert_refused("{\"messages\": \"hello\"}", ": key \"messages\" is a string\n");
    assert_refused("{\"messages\": {\"a\": 1}}", ": key \"messages\" is an object\n");
    assert_refused("{\"prompt\": 3}", ": key \"prompt\" is a number\n");
    assert_refused("{\"prompt\": \"a\", \"completion\": true}",
                   ": key \"completion\" is true or false\n");
    assert_refused("{\"chosen\": \"a\", \"rejected\": \"b\"}", ": key \"chosen\" is a string\n");
    assert_refused("{\"prompt\": \"a\", \"chosen\": \"b\"}",
                   ": \"chosen\" stands without \"rejected\"\n");
    assert_refused("{\"rejected\": [" USER("a") "]}", ": \"rejected\" stands without \"chosen\"\n");
    assert_refused("{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": \"c\"}",
                   "to do: split the transcript into messages: docs/data.md, Recipes");
    assert_refused("{\"chosen\": " A_B ", \"rejected\": [" USER("c") ", " ASSISTANT("b") "]}",
                   ": \"chosen\" and \"rejected\" do not answer the same prompt\n"
                   "  found: chosen[0] and rejected[0] are not both an assistant's\n");
    assert_refused("{\"instruction\": \"a\", \"answer\": \"b\"}",
                   ": \"instruction\" stands without \"output\"\n");
    assert_refused("{\"instruction\": 1, \"output\": \"b\"}",
                   ": key \"instruction\" is a number\n");
    assert_refused("{\"instruction\": \"a\", \"input\": [1], \"output\": \"b\"}",
                   ": key \"input\" is a list\n");
    assert_refused("{\"instruction\": \"a\", \"output\": [\"b\"]}", ": key \"output\" is a list\n");
    assert_refused("{\"instruction\": \"a\", \"output\": \"b\", \"history\": \"c\"}",
                   ": key \"history\" is a string\n");
    assert_refused("{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\"]]}",
                   ": key \"history\" has an entry of another form\n");
    assert_refused("{\"messages\": [], \"system\": {\"os\": 1}}",
                   ": key \"system\" is an object\n");
    assert_refused("{\"conversations\": [{\"from\": \"humen\", \"value\": \"a\"}]}",
                   ": conversations[0].from is \"humen\"\n  expected: one of human, gpt, system, "
                   "function_call, observation, tool\n  to do: did you mean \"human\"?");
    assert_refused("{\"conversations\": [{\"from\": null, \"value\": \"a\"}]}",
                   ": conversations[0].from is null\n");
    assert_refused("{\"conversations\": [{\"from\": \"function_call\", \"value\": \"look up\"}]}",
                   ": conversations[0].value is not a function call\n");
    assert_refused("{\"conversations\": [{\"from\": \"function_call\", \"value\": \"[{}]\"}]}",
                   ": conversations[0].value is not a function call\n");
    assert_refused("{\"messages\": [], \"tools\": {\"a\": 1}}", ": key \"tools\" is an object\n");
    assert_refused("{\"messages\": [], \"metadata\": {\"tools\": 7}}",
                   ": key \"metadata.tools\" is a number\n");
}

static void test_a_key_that_occurs_twice_is_refused(void **state)
{
    (void)state;
    assert_refused("{\"messages\": [], \"label\": 1, \"messages\": []}",
                   ": key \"messages\" occurs twice\n");
    assert_refused("{\"messages\": [" USER("a") ", {\"content\": \"b\", \"role\": \"user\", "
                                                "\"content\": \"c\"}]}",
                   ": key \"content\" occurs twice in messages[1]\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_give_the_conversations_of_trl_and_llama_factory),
        cmocka_unit_test(test_a_prompt_is_given_whole_with_its_label),
        cmocka_unit_test(test_an_answer_follows_its_prompt),
        cmocka_unit_test(test_questions_and_answers_under_other_names_are_read),
        cmocka_unit_test(test_what_is_said_twice_is_read_once),
        cmocka_unit_test(test_function_calls_of_before_tools_are_tool_calls),
        cmocka_unit_test(test_messages_keep_what_else_they_say),
        cmocka_unit_test(test_a_named_key_counts_before_any_shape),
        cmocka_unit_test(test_tools_are_found_in_record_or_metadata),
        cmocka_unit_test(test_keys_are_those_that_the_job_names),
        cmocka_unit_test(test_what_the_template_is_told_comes_from_job_and_record),
        cmocka_unit_test(test_a_record_of_no_shape_is_told_by_its_keys),
        cmocka_unit_test(test_a_record_of_two_shapes_is_refused_with_both),
        cmocka_unit_test(test_a_record_that_breaks_its_shape_is_refused_by_key),
        cmocka_unit_test(test_a_key_that_occurs_twice_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
