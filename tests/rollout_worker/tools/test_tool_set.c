/* Tests of tools that are programs and servers: what they say arrives; what is the model's fault is
 * an answer, and what is theirs is an error. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "http_server.h"
#include "rollout_worker/tools/tool_set.h"

#define PROGRAM PROJECT_BINARY_DIR "/bin/tool_program"

static const char functions[] =
    "[{\"name\": \"echo\"}, {\"name\": \"who\"}, {\"name\": \"object\"}, {\"name\": \"refuse\"}, "
    "{\"name\": \"nothing\"}, {\"name\": \"crash\"}, {\"name\": \"slow\"}]";

static ToolSet *open_spec(const char *text)
{
    Error err = {0};
    ToolSet *set = NULL;
    cJSON *spec = cJSON_Parse(text);
    assert_non_null(spec);
    assert_ok(tool_set_open(spec, &set, &err), &err);
    cJSON_Delete(spec);
    return set;
}

static ToolSet *open_program(const char *options)
{
    char *text =
        mem_printf("[{\"command\": [\"" PROGRAM "\"], \"functions\": %s%s}]", functions, options);
    ToolSet *set = open_spec(text);
    free(text);
    return set;
}

static Status call(ToolSet *set, const char *name, char **ret, Error *err)
{
    const ToolCaller caller = {.position = 12, .index = 3, .turn = 1};
    static const char arguments[] = "{\"a\": 1.0, \"b\": \"\xc3\xbc\"}";
    ToolCall one = {.name = (char *)name};
    assert_ok(json_parse(arguments, sizeof arguments - 1, "arguments", &one.arguments, err), err);
    ToolRunner runner = tool_set_runner(set);
    Status status = runner.run(runner.context, &caller, &one, 1, ret, err);
    cJSON_Delete(one.arguments);
    return status;
}

static void assert_answers(ToolSet *set, const char *name, const char *expected)
{
    char *answer = NULL;
    Error err = {0};
    assert_ok(call(set, name, &answer, &err), &err);
    assert_string_equal(answer, expected);
    free(answer);
}

static void test_program_answers_calls(void **state)
{
    (void)state;
    ToolSet *set = open_program("");
    assert_answers(set, "echo", "{\"a\": 1.0, \"b\": \"\xc3\xbc\"}");
    assert_answers(set, "who", "12 3 1");
    assert_answers(set, "object", "{\"sum\": 5.0}");
    tool_set_close(set);
}

static void test_faults_of_the_model_are_answers(void **state)
{
    (void)state;
    ToolSet *set = open_program("");
    assert_answers(set, "refuse", "error: division by zero");
    assert_answers(set, "no_such", "error: there is no tool \"no_such\"");
    tool_set_close(set);
}

static void test_faults_of_tools_are_errors(void **state)
{
    (void)state;
    ToolSet *set = open_program(", \"restart_ms\": 1, \"timeout_s\": 0.3");
    char *answer = NULL;
    Error err = {0};
    assert_fails(call(set, "crash", &answer, &err), ERR_UNAVAILABLE, &err,
                 "exited with status 3: out of cheese");
    assert_null(answer);
    tool_set_close(set);
    set = open_program(", \"restart_ms\": 1, \"timeout_s\": 0.3");
    assert_fails(call(set, "slow", &answer, &err), ERR_TIMEOUT, &err, "no answer in 300 ms");
    assert_fails(call(set, "nothing", &answer, &err), ERR_UNAVAILABLE, &err, "neither");
    assert_null(answer);
    tool_set_close(set);
}

static void test_calls_of_a_turn_keep_their_order(void **state)
{
    (void)state;
    ToolSet *set = open_program(", \"processes\": 3");
    const ToolCaller caller = {0};
    ToolCall calls[6] = {{0}};
    char *answer[6] = {0}, expected[32];
    Error err = {0};
    for (int i = 0; i < 6; i++) {
        calls[i].name = (char *)"echo";
        calls[i].arguments = cJSON_CreateObject();
        cJSON_AddNumberToObject(calls[i].arguments, "i", i);
    }
    ToolRunner runner = tool_set_runner(set);
    assert_ok(runner.run(runner.context, &caller, calls, 6, answer, &err), &err);
    for (int i = 0; i < 6; i++) {
        snprintf(expected, sizeof expected, "{\"i\": %d}", i);
        assert_string_equal(answer[i], expected);
        free(answer[i]);
        cJSON_Delete(calls[i].arguments);
    }
    tool_set_close(set);
}

static void test_server_answers_calls(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    char *text =
        mem_printf("[{\"url\": \"http://127.0.0.1:%d/tool\", \"functions\": [{\"name\": "
                   "\"search\"}]}, {\"url\": \"http://127.0.0.1:%d/wrong\", \"functions\": "
                   "[{\"name\": \"wrong\"}]}]",
                   server.port, server.port);
    ToolSet *set = open_spec(text);
    assert_answers(set, "search", "found it");
    assert_non_null(strstr(server.body, "{\"name\": \"search\", \"arguments\": {\"a\": 1.0"));
    char *answer = NULL;
    Error err = {0};
    assert_fails(call(set, "wrong", &answer, &err), ERR_UNAVAILABLE, &err, "HTTP status 400");
    tool_set_close(set);
    http_server_stop(&server);
    free(text);
}

static void test_functions_are_listed_for_templates(void **state)
{
    (void)state;
    ToolSet *set = open_program("");
    const cJSON *list = tool_set_functions(set);
    assert_int_equal(cJSON_GetArraySize(list), 7);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(list->child, "type")), "function");
    const cJSON *function = cJSON_GetObjectItem(list->child, "function");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(function, "name")), "echo");
    tool_set_close(set);
}

static void test_specs_that_are_wrong_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *message;
    } cases[] = {
        {"{}", "expected a list"},
        {"[]", "an empty list"},
        {"[1]", "tools[0] is a number"},
        {"[{\"comand\": []}]", "did you mean command?"},
        {"[{\"command\": [\"x\"]}]", "tools[0]: functions is missing"},
        {"[{\"functions\": [{\"name\": \"f\"}]}]", "neither command nor url"},
        {"[{\"command\": [\"/no/such\"], \"functions\": [{\"name\": \"f\"}]}]", "/no/such"},
        {"[{\"url\": \"ftp://x\", \"functions\": [{\"name\": \"f\"}]}]", "expected http"},
        {"[{\"command\": [\"cat\"], \"functions\": [{\"name\": \"f\"}, {\"name\": \"f\"}]}]",
         "two functions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Error err = {0};
        ToolSet *set = NULL;
        cJSON *spec = cJSON_Parse(cases[i].spec);
        assert_int_not_equal(tool_set_open(spec, &set, &err), OK);
        if (strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: %s", cases[i].spec, err.message);
        cJSON_Delete(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_answers_calls),
        cmocka_unit_test(test_faults_of_the_model_are_answers),
        cmocka_unit_test(test_faults_of_tools_are_errors),
        cmocka_unit_test(test_calls_of_a_turn_keep_their_order),
        cmocka_unit_test(test_server_answers_calls),
        cmocka_unit_test(test_functions_are_listed_for_templates),
        cmocka_unit_test(test_specs_that_are_wrong_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
