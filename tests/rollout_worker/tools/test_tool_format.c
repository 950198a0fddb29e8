/* Tests of the formats of tool calls: each reads what its models write, and is found from their
 * chat templates (../shared; skipped where absent). */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/tools/tool_format.h"

#define TINY_MODEL PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

static const ToolFormat *format(const char *name)
{
    const ToolFormat *found = NULL;
    Error err = {0};
    assert_ok(tool_format_find(name, &found, &err), &err);
    return found;
}

/* Reads a turn and writes what was found: "name{arguments}" or "!fault", parted by '|'. */
static char *read_turn(const char *name, const char *turn, const char *tools_json)
{
    cJSON *tools = tools_json == NULL ? NULL : cJSON_Parse(tools_json);
    ToolCalls calls = {0};
    Str out = {0};
    tool_format_read(format(name), turn, tools, &calls);
    for (int i = 0; i < calls.count; i++) {
        const ToolCall *call = &calls.call[i];
        str_printf(&out, "%s%s", i > 0 ? "|" : "", call->name);
        if (call->fault != NULL)
            str_printf(&out, "!%s", call->fault);
        else
            json_append(&out, call->arguments);
    }
    tool_calls_clear(&calls);
    cJSON_Delete(tools);
    return out.data == NULL ? mem_strdup("") : str_take(&out);
}

static void assert_reads(const char *name, const char *turn, const char *expected)
{
    char *found = read_turn(name, turn, NULL);
    assert_string_equal(found, expected);
    free(found);
}

static void assert_fault(const char *turn, const char *fault)
{
    char *found = read_turn("hermes", turn, NULL);
    if (strchr(found, '!') == NULL || strstr(found, fault) == NULL) fail_msg("%s: %s", turn, found);
    free(found);
}

static void test_hermes_reads_calls(void **state)
{
    (void)state;
    assert_reads("hermes", "No tool is needed.", "");
    assert_reads("hermes",
                 "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1.0}}\n</tool_call>",
                 "f{\"a\": 1.0}");
    assert_reads("hermes",
                 "Both:\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n"
                 "<tool_call>{\"name\": \"g\", \"arguments\": {\"x\": [1]}}</tool_call>",
                 "f{}|g{\"x\": [1]}");
    assert_reads("hermes", "<tool_call>{\"name\": \"f\"}</tool_call>", "f{}");
    assert_reads("hermes",
                 "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 2}\"}</tool_call>",
                 "f{\"a\": 2}");
    /* a text of the arguments that has the closing mark in it */
    assert_reads(
        "hermes",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}</tool_call>",
        "f{\"a\": \"</tool_call>\"}");
    /* a turn that ended at a stop string before the call was closed */
    assert_reads("hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n",
                 "f{\"a\": 1}");
}

static void test_reasoning_calls_nothing(void **state)
{
    (void)state;
    const char *call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    char *inside = mem_printf("<think>Shall I %s?</think>No.", call);
    char *open = mem_printf("<think>Shall I %s?", call);
    char *behind = mem_printf("Shall I?\n</think>\n%s", call); /* opened by the prompt */
    assert_reads("hermes", inside, "");
    assert_reads("hermes", open, "");
    assert_reads("hermes", behind, "f{}");
    free(inside);
    free(open);
    free(behind);
}

static void test_malformed_calls_say_what_is_wrong(void **state)
{
    (void)state;
    assert_fault("<tool_call>{\"name\": \"f\", \"arguments\": {</tool_call>", "is no JSON");
    assert_fault("<tool_call>f(1)</tool_call>", "is no JSON");
    assert_fault("<tool_call>{\"arguments\": {}}</tool_call>", "no \"name\"");
    assert_fault("<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
                 "expected an object");
    assert_fault("<tool_call>{\"name\": \"f\", \"argum", "is no JSON");
    assert_reads("hermes",
                 "<tool_call>{</tool_call><tool_call>{\"name\": \"g\"}</tool_call>"
                 "<tool_call>[]</tool_call>",
                 "!the call is no JSON: the call:1:2: the JSON text ends too soon|g{}|!the "
                 "call has no \"name\" that is a text");
}

/* What a model writes that has lost its way: read in no time worth naming, and cut. */
static void test_degenerate_turns_are_bounded(void **state)
{
    (void)state;
    static const char *const names[] = {"hermes", "glm", "qwen_xml"};
    static const char *const parts[] = {"<tool_call></tool_call>", "<tool_call>", "</tool_call>",
                                        "<tool_call>{\"name\": \"</tool_call>"};
    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        Str turn = {0};
        for (int i = 0; i < 40000; i++)
            str_puts(&turn, parts[k]);
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            ToolCalls calls = {0};
            tool_format_read(format(names[i]), turn.data, NULL, &calls);
            assert_in_range(calls.count, k == 2 ? 0 : 1, 64);
            tool_calls_clear(&calls);
        }
        str_free(&turn);
    }
}

static void test_llama3_reads_a_turn_that_is_a_call(void **state)
{
    (void)state;
    assert_reads("llama3_json", "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}",
                 "f{\"a\": \"b\"}");
    assert_reads("llama3_json", "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}<|eom_id|>",
                 "f{}");
    assert_reads("llama3_json", "{\"answer\": 4}", "");
    assert_reads("llama3_json", "It is {\"name\": \"f\", \"parameters\": {}}", "");
}

static const char schema[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": "
    "{\"zip\": {\"type\": \"string\"}, \"count\": {\"type\": \"integer\"}}}}}]";

static void assert_reads_typed(const char *name, const char *turn, const char *expected)
{
    char *found = read_turn(name, turn, schema);
    assert_string_equal(found, expected);
    free(found);
}

static void test_bare_values_have_the_types_of_the_schema(void **state)
{
    (void)state;
    assert_reads_typed("glm",
                       "<tool_call>f<arg_key>zip</arg_key><arg_value>01234</arg_value>"
                       "<arg_key>count</arg_key><arg_value>5</arg_value></tool_call>",
                       "f{\"zip\": \"01234\", \"count\": 5}");
    assert_reads_typed("glm", "<tool_call>f\n</tool_call>", "f{}");
    assert_reads_typed("qwen_xml",
                       "<tool_call>\n<function=f>\n<parameter=zip>\n12\n</parameter>\n"
                       "<parameter=count>\n[1, 2]\n</parameter>\n</function>\n</tool_call>",
                       "f{\"zip\": \"12\", \"count\": [1, 2]}");
    assert_reads_typed("glm", "<tool_call>f<arg_key>zip</arg_key></tool_call>",
                       "f!an argument of the call is not closed");
    assert_reads_typed("qwen_xml", "<tool_call>f()</tool_call>", "!the call names no function");
}

static void test_unknown_format_is_refused_by_name(void **state)
{
    (void)state;
    const ToolFormat *found = NULL;
    Error err = {0};
    assert_fails(tool_format_find("hermse", &found, &err), ERR_INVALID, &err,
                 "expected auto, hermes, llama3_json, qwen_xml, glm");
    assert_non_null(strstr(err.message, "did you mean hermes?"));
    assert_fails(tool_format_find("xml", &found, &err), ERR_INVALID, &err,
                 "did you mean qwen_xml?");
}

static void test_format_is_found_from_the_template(void **state)
{
    (void)state;
    static const struct {
        const char *model, *format;
    } models[] = {
        {"Qwen-Qwen3-0.6B", "hermes"},
        {"Qwen-Qwen2.5-7B-Instruct", "hermes"},
        {"Qwen-QwQ-32B", "hermes"},
        {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes"},
        {"meta-llama-Llama-3.1-8B-Instruct", "llama3_json"},
        {"Qwen3-Coder", "qwen_xml"},
        {"GLM-4.7-Flash", "glm"},
        {"microsoft-Phi-3.5-mini-instruct", NULL}, /* has no tools */
        {"moonshotai-Kimi-K2", NULL},              /* a format that is not known */
    };
    const char *shared = getenv("TROUPE_SHARED");
    char *folder =
        path_join(shared != NULL ? shared : PROJECT_SOURCE_DIR "/../shared", "data/chat_templates");
    bool there = path_exists(folder);
    if (!there) print_message("skipped: %s is absent\n", folder);
    for (size_t i = 0; there && i < sizeof models / sizeof models[0]; i++) {
        char *path = mem_printf("%s/%s.jinja", folder, models[i].model);
        TextModel *model = NULL;
        const ToolFormat *found = NULL;
        Error err = {0};
        assert_ok(text_model_load(TINY_MODEL, path, &model, &err), &err);
        Status status = tool_format_detect(model, &found, &err);
        if (models[i].format == NULL) {
            if (status != ERR_UNSUPPORTED) fail_msg("%s: %s", models[i].model, found->name);
            assert_non_null(strstr(err.message, "call"));
        } else {
            if (status != OK) fail_msg("%s: %s", models[i].model, err.message);
            assert_string_equal(found->name, models[i].format);
        }
        text_model_destroy(model);
        free(path);
    }
    free(folder);
    if (!there) skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hermes_reads_calls),
        cmocka_unit_test(test_reasoning_calls_nothing),
        cmocka_unit_test(test_malformed_calls_say_what_is_wrong),
        cmocka_unit_test(test_degenerate_turns_are_bounded),
        cmocka_unit_test(test_llama3_reads_a_turn_that_is_a_call),
        cmocka_unit_test(test_bare_values_have_the_types_of_the_schema),
        cmocka_unit_test(test_unknown_format_is_refused_by_name),
        cmocka_unit_test(test_format_is_found_from_the_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
