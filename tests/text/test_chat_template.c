/* Chat templates against what jinja2 makes of them (fixtures: make_template_fixtures.py), where
 * their output comes from, and templates that mean harm. */
#include "test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/chat_template.h"

#define NOW 1767225600 /* 2026-01-01 */

static cJSON *read_fixture(const char *name)
{
    Error err = {0};
    char *path = mem_printf(TEST_SOURCE_DIR "/text/fixtures/%s", name);
    cJSON *json = NULL;
    assert_ok(json_read(path, 1 << 24, &json, &err), &err);
    free(path);
    return json;
}

static const char *text_of(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static Status render_source(const char *source, const cJSON *variables, Rendering *ret, Error *err)
{
    ChatTemplate *chat_template = NULL;
    TRY(chat_template_compile(source, strlen(source), "t", &chat_template, err));
    Status status = chat_template_render(chat_template, variables, NOW, ret, err);
    chat_template_destroy(chat_template);
    return status;
}

/* Renders with variables given as JSON text. */
static Rendering render_json(const char *source, const char *variables_json)
{
    Error err = {0};
    cJSON *variables = NULL;
    Rendering rendering = {0};
    assert_ok(json_parse(variables_json, strlen(variables_json), "variables", &variables, &err),
              &err);
    assert_ok(render_source(source, variables, &rendering, &err), &err);
    cJSON_Delete(variables);
    return rendering;
}

/* ---- the language ---- */

static void check_error(const cJSON *item, Status status, const Error *err)
{
    const cJSON *line = cJSON_GetObjectItemCaseSensitive(item, "line");
    char *expected = line != NULL ? mem_printf("t:%d: %s", line->valueint, text_of(item, "error"))
                                  : mem_strdup(text_of(item, "error"));
    if (status == OK) fail_msg("%s rendered, expected: %s", text_of(item, "template"), expected);
    bool same =
        line != NULL ? strcmp(err->message, expected) == 0 : strstr(err->message, expected) != NULL;
    if (!same)
        fail_msg("%s gave \"%s\", expected \"%s\"", text_of(item, "template"), err->message,
                 expected);
    free(expected);
}

static void check_group(const char *group)
{
    cJSON *fixture = read_fixture("template_features.json");
    const cJSON *variables = cJSON_GetObjectItemCaseSensitive(fixture, "variables"), *item;
    int count = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fixture, "cases"))
    {
        if (strcmp(text_of(item, "group"), group) != 0) continue;
        Error err = {0};
        Rendering rendering = {0};
        Status status = render_source(text_of(item, "template"), variables, &rendering, &err);
        if (text_of(item, "text") == NULL) {
            check_error(item, status, &err);
        } else if (status != OK) {
            fail_msg("%s: %s", text_of(item, "template"), err.message);
        } else {
            assert_string_equal(rendering.text, text_of(item, "text"));
        }
        rendering_free(&rendering);
        count++;
    }
    assert_true(count > 10);
    cJSON_Delete(fixture);
}

static void test_filters_give_what_jinja2_gives(void **state)
{
    (void)state;
    check_group("filters");
}

static void test_tests_give_what_jinja2_gives(void **state)
{
    (void)state;
    check_group("tests");
}

static void test_methods_give_what_python_gives(void **state)
{
    (void)state;
    check_group("methods");
}

static void test_expressions_give_what_jinja2_gives(void **state)
{
    (void)state;
    check_group("expressions");
}

static void test_statements_give_what_jinja2_gives(void **state)
{
    (void)state;
    check_group("statements");
}

static void test_whitespace_is_controlled_as_in_jinja2(void **state)
{
    (void)state;
    check_group("whitespace");
}

static void test_errors_give_line_and_reason_as_jinja2(void **state)
{
    (void)state;
    check_group("errors");
}

/* ---- published templates ---- */

/* The variables as apply_chat_template passes them. */
static cJSON *full_variables(const cJSON *given, const cJSON *tokens)
{
    cJSON *variables = cJSON_Duplicate(given, true);
    const char *const names[] = {"tools", "documents"};
    for (size_t i = 0; i < 2; i++)
        if (cJSON_GetObjectItemCaseSensitive(variables, names[i]) == NULL)
            cJSON_AddNullToObject(variables, names[i]);
    if (cJSON_GetObjectItemCaseSensitive(variables, "add_generation_prompt") == NULL)
        cJSON_AddFalseToObject(variables, "add_generation_prompt");
    const cJSON *token;
    cJSON_ArrayForEach(token, tokens)
        cJSON_AddItemToObject(variables, token->string, cJSON_Duplicate(token, false));
    return variables;
}

static void check_rendering(const char *name, const ChatTemplate *chat_template,
                            const cJSON *variables, const cJSON *expected)
{
    Error err = {0};
    Rendering rendering = {0};
    Status status = chat_template_render(chat_template, variables, NOW, &rendering, &err);
    if (cJSON_IsString(expected)) {
        if (status == OK || strstr(err.message, expected->valuestring) == NULL)
            fail_msg("%s: \"%s\", expected \"%s\"", name, status == OK ? "no error" : err.message,
                     expected->valuestring);
        return;
    }
    if (status != OK) fail_msg("%s: %s", name, err.message);
    char hex[DIGEST_HEX_BYTES];
    digest_bytes(rendering.text, rendering.length, hex);
    hex[16] = '\0';
    if ((int)rendering.length != expected->child->valueint ||
        strcmp(hex, expected->child->next->valuestring) != 0)
        fail_msg("%s renders another text than jinja2:\n%s", name, rendering.text);
    rendering_free(&rendering);
}

static void test_published_templates_render_as_in_jinja2(void **state)
{
    (void)state;
    const char *shared = getenv("TROUPE_SHARED");
    char *folder =
        path_join(shared != NULL ? shared : PROJECT_SOURCE_DIR "/../shared", "data/chat_templates");
    if (!path_exists(folder)) {
        print_message("skipped: %s is absent\n", folder);
        free(folder);
        skip();
    }
    cJSON *fixture = read_fixture("template_renders.json");
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(fixture, "tokens"), *item, *chat;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fixture, "templates"))
    {
        Error err = {0};
        char *path = path_join(folder, text_of(item, "template")), *source = NULL;
        size_t length;
        ChatTemplate *chat_template = NULL;
        assert_ok(file_read(path, 1 << 20, &source, &length, &err), &err);
        assert_ok(chat_template_compile(source, length, path, &chat_template, &err), &err);
        const cJSON *expected = cJSON_GetObjectItemCaseSensitive(item, "results")->child;
        cJSON_ArrayForEach(chat, cJSON_GetObjectItemCaseSensitive(fixture, "chats"))
        {
            cJSON *variables =
                full_variables(cJSON_GetObjectItemCaseSensitive(chat, "variables"), tokens);
            char *name = mem_printf("%s, %s", text_of(item, "template"), text_of(chat, "name"));
            check_rendering(name, chat_template, variables, expected);
            expected = expected->next;
            free(name);
            cJSON_Delete(variables);
        }
        chat_template_destroy(chat_template);
        free(source);
        free(path);
    }
    cJSON_Delete(fixture);
    free(folder);
}

/* ---- origins ---- */

/* "kind message loop:text|..." of every span. */
static char *describe(const Rendering *rendering)
{
    static const char *const kinds[] = {"template", "content", "reasoning",
                                        "call",     "other",   "role"};
    Str out = {0};
    uint32_t at = 0;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        assert_int_equal(span->begin, at); /* sorted, disjoint, without holes */
        assert_true(span->end > span->begin);
        at = span->end;
        str_printf(&out, "%s%s", i > 0 ? "|" : "", kinds[span->kind]);
        if (span->message >= 0) str_printf(&out, " %d", span->message);
        if (span->loop_message >= 0) str_printf(&out, "@%d", span->loop_message);
        if (span->generation) str_puts(&out, "!");
        str_printf(&out, ":%.*s", (int)(span->end - span->begin), rendering->text + span->begin);
    }
    assert_int_equal(at, rendering->length);
    return str_take(&out);
}

static const char conversation_json[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \" hi, you \", \"name\": \"Ann\"},"
    "{\"role\": \"assistant\", \"content\": \"<think>why</think>yes\", \"reasoning_content\": "
    "\"hm\","
    " \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"a\": \"x\\\"\", \"n\": 1.0}}]}],"
    " \"tools\": [{\"name\": \"f\"}], \"eos_token\": \"</s>\"}";

static void assert_origins(const char *source, const char *expected)
{
    Rendering rendering = render_json(source, conversation_json);
    char *found = describe(&rendering);
    assert_string_equal(found, expected);
    free(found);
    rendering_free(&rendering);
}

static void test_every_byte_names_the_field_it_came_from(void **state)
{
    (void)state;
    assert_origins("<{{ messages[0].role }}>{{ messages[0].content }}{{ eos_token }}",
                   "template:<|role 0:user|template:>|content 0: hi, you |template:</s>");
    assert_origins("{{ messages[1].reasoning_content }}{{ messages[0].name }}{{ tools[0].name }}",
                   "reasoning 1:hm|other 0:Ann|other:f");
    assert_origins("{{ '[' + messages[0].content ~ ']' }}",
                   "template:[|content 0: hi, you |template:]");
    assert_origins("{{ messages[1].tool_calls[0].arguments | tojson }}",
                   "call 1:{\"a\": \"x\\\"\", \"n\": 1.0}");
    assert_origins(
        "{{ {'k': messages[0].name, 'l': [messages[1].reasoning_content]} | tojson }}",
        "template:{\"k\": |other 0:\"Ann\"|template:, \"l\": [|reasoning 1:\"hm\"|template:]}");
}

static void test_origins_survive_string_methods(void **state)
{
    (void)state;
    assert_origins("{{ messages[0].content.strip() }}", "content 0:hi, you");
    assert_origins("{{ messages[1].content.split('</think>')[-1] }}", "content 1:yes");
    assert_origins("{{ messages[0].content | trim | upper }}", "content 0:HI, YOU");
    assert_origins("{{ ('<' + messages[0].name + '>')[1:-1] }}", "other 0:Ann");
    assert_origins("{{ ('<' + messages[0].name + '>')[::-1] }}",
                   "template:>|other 0:nnA|template:<");
    assert_origins("{{ messages[0].name.replace('nn', 'bb') }}", "other 0:A|template:bb");
    assert_origins("{{ [messages[0].name, messages[0].role] | join('+') }}",
                   "other 0:Ann|template:+|role 0:user");
    assert_origins("{{ '%s-%5s' % (messages[0].name, messages[0].role) }}",
                   "other 0:Ann|template:- |role 0:user");
    assert_origins("{{ '{0}/{1:>5}'.format(messages[0].name, messages[0].role) }}",
                   "other 0:Ann|template:/ |role 0:user");
    assert_origins("{% for c in messages[0].name %}{{ c }}.{% endfor %}",
                   "other 0:A|template:.|other 0:n|template:.|other 0:n|template:.");
    assert_origins("{{ [messages[0].name] }}", "template:[|other 0:'Ann'|template:]");
    assert_origins("{{ ('a\n' + messages[0].name) | indent }}", "template:a\n    |other 0:Ann");
}

static void test_template_text_knows_the_message_its_loop_stands_at(void **state)
{
    (void)state;
    assert_origins("{% for m in messages %}<{{ m.name }}>{% endfor %}.",
                   "template@0:<|other 0@0:Ann|template@0:>|template@1:<>|template:.");
    assert_origins("{% set a = 'A' %}{% for m in messages[1:] %}{{ a }}{% for x in 'bc' %}{{ x }}"
                   "{% endfor %}{% endfor %}",
                   "template@1:Abc");
    assert_origins("{% macro f(m) %}({{ m.name }}){% endmacro %}{% for m in messages %}{{ f(m) }}"
                   "{% endfor %}",
                   "template@0:(|other 0@0:Ann|template@0:)|template@1:()");
    assert_origins("{% for i in range(2) %}{% set m = messages[i] %}{% set p = messages[0] %}-"
                   "{% endfor %}",
                   "template@0:-|template@1:-");
    assert_origins(
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + '<' %}"
        "{% endfor %}{{ ns.t }}",
        "template@0:<|template@1:<");
}

static void test_generation_blocks_are_marked(void **state)
{
    (void)state;
    assert_origins("a{% generation %}b{{ messages[0].name }}{% endgeneration %}c",
                   "template:a|template!:b|other 0!:Ann|template:c");
    Rendering rendering = render_json("a{% generation %}b{% endgeneration %}", "{}");
    assert_true(rendering.has_generation_blocks);
    rendering_free(&rendering);
}

/* ---- harm ---- */

static void assert_refused(const char *source, Status expected, const char *text)
{
    Error err = {0};
    Rendering rendering = {0};
    cJSON *variables = cJSON_CreateObject();
    assert_fails(render_source(source, variables, &rendering, &err), expected, &err, text);
    cJSON_Delete(variables);
}

static void test_blocks_have_to_give_text(void **state)
{
    (void)state;
    assert_refused("{% filter length %}abc{% endfilter %}", ERR_DATA,
                   "t:1: what a filter or call block gives: expected str instance, int found");
    assert_refused("{% set x %}{% filter length %}abc{% endfilter %}{% endset %}", ERR_DATA,
                   "expected str instance, int found");
    assert_refused("{% call dict() %}x{% endcall %}", ERR_DATA,
                   "expected str instance, dict found");
}

static void test_macros_name_each_argument_once(void **state)
{
    (void)state;
    assert_refused("{% macro m(a, b, a=1) %}{% endmacro %}", ERR_DATA,
                   "t:1: duplicate argument 'a'");
}

static void test_endless_work_is_stopped(void **state)
{
    (void)state;
    assert_refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                   ERR_RESOURCE, "steps");
    assert_refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ERR_RESOURCE, "recurses");
    assert_refused("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", ERR_RESOURCE,
                   "recurses");
    assert_refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", ERR_RESOURCE,
                   "recurses");
}

#define SHARED_TUPLES                                                                              \
    "{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}"        \
    "{% endfor %}"

/* What is short to write and long to compute has its steps counted as it goes on. */
static void test_long_work_in_one_call_is_stopped(void **state)
{
    (void)state;
    static const char *const shared[] = {
        SHARED_TUPLES "{{ {ns.a: 1}|length }}", SHARED_TUPLES "{{ [ns.a]|unique|list|length }}",
        SHARED_TUPLES "{{ {}.get(ns.a) }}", SHARED_TUPLES "{{ ns.a in {} }}"};
    for (size_t i = 0; i < TEST_RUNS(sizeof shared / sizeof shared[0]); i++)
        assert_refused(shared[i], ERR_RESOURCE, "steps");
    assert_refused("{% set c = 'b' * 1000000 ~ 'a' %}{{ ('a' * 1000000).strip(c) }}", ERR_RESOURCE,
                   "steps");
    static const char *const calls[] = {"s.isupper()", "s|title", "s.swapcase()", "[s, s]|min"};
    for (size_t i = 0; i < TEST_RUNS(sizeof calls / sizeof calls[0]); i++) {
        char *source = mem_printf("{%% set s = '\u00c9' * 1000000 %%}{%% for i in range(20) %%}"
                                  "{%% set x = %s %%}{%% endfor %%}",
                                  calls[i]);
        assert_refused(source, ERR_RESOURCE, "steps");
        free(source);
    }
}

static void test_memory_is_bounded(void **state)
{
    (void)state;
    assert_refused("{{ 'a' * 1000000000000 }}", ERR_RESOURCE, "MiB");
    assert_refused("{{ [0] * 1000000000000 }}", ERR_RESOURCE, "items");
    assert_refused("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}"
                   "{% set ns.s = ns.s + ns.s %}{% endfor %}",
                   ERR_RESOURCE, "MiB");
    assert_refused("{% set ns = namespace(s=[0]) %}{% for i in range(99) %}"
                   "{% set ns.s = ns.s + ns.s %}{% endfor %}",
                   ERR_RESOURCE, "MiB");
    assert_refused("{% set x = 'x' * 100000 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
                   ERR_RESOURCE, "MiB");
    assert_refused("{{ '%1000000d%1000000d' % (1, 2) * 999999 }}", ERR_RESOURCE, "MiB");
    assert_refused("{{ 'a'.center(999999999999) }}", ERR_RESOURCE, "MiB");
}

/* A text of `count` pieces. */
static char *repeat(const char *piece, size_t count, const char *middle)
{
    Str out = {0};
    for (size_t i = 0; i < count; i++)
        str_puts(&out, piece);
    str_puts(&out, middle);
    return str_take(&out);
}

static void test_deep_sources_are_refused(void **state)
{
    (void)state;
    static const char *const pieces[] = {"(",  "[",    "{{ -",  "not ",   "{% if x %}",
                                         "a.", "a|e|", "1 + ",  "1 and ", "x if x else ",
                                         "a[", "f(",   "{'a':", "- "};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        char *inner = repeat(pieces[i], 20000, "1");
        char *source = mem_printf("{{ %s }}", inner);
        ChatTemplate *chat_template = NULL;
        Error err = {0};
        Status status = chat_template_compile(source, strlen(source), "t", &chat_template, &err);
        if (status != ERR_DATA) fail_msg("20000 times \"%s\" was compiled", pieces[i]);
        free(inner);
        free(source);
    }
}

static void test_deep_data_is_refused(void **state)
{
    (void)state;
    assert_refused("{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}"
                   "{% endfor %}{{ ns.x }}",
                   ERR_RESOURCE, "recurses");
    assert_refused("{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}"
                   "{% endfor %}{{ ns.x == [ns.x] or ns.x | tojson }}",
                   ERR_RESOURCE, "recurses");
}

static void test_bytes_that_are_not_text_are_refused(void **state)
{
    (void)state;
    Error err = {0};
    ChatTemplate *chat_template = NULL;
    assert_fails(chat_template_compile("a\xff", 2, "folder/x.jinja", &chat_template, &err),
                 ERR_DATA, &err, "folder/x.jinja: not valid UTF-8 at byte 1");
    cJSON *variables = cJSON_CreateObject();
    cJSON_AddStringToObject(variables, "s", "\xc3(");
    Rendering rendering = {0};
    assert_fails(render_source("{{ s|length }}", variables, &rendering, &err), ERR_DATA, &err,
                 "not valid UTF-8");
    cJSON_Delete(variables);
}

/* ---- threads ---- */

static void *render_many(void *context)
{
    const ChatTemplate *chat_template = context;
    cJSON *variables = cJSON_Parse(conversation_json);
    size_t total = 0;
    for (int i = 0; i < 200; i++) {
        Rendering rendering = {0};
        if (chat_template_render(chat_template, variables, NOW, &rendering, NULL) == OK)
            total += rendering.length;
        rendering_free(&rendering);
    }
    cJSON_Delete(variables);
    return (void *)total;
}

static void test_one_template_serves_threads(void **state)
{
    (void)state;
    static const char source[] =
        "{% for m in messages %}{{ m.content|upper }}{{ 'é'|length }}{{ m|tojson }}{% endfor %}";
    Error err = {0};
    ChatTemplate *chat_template = NULL;
    assert_ok(chat_template_compile(source, strlen(source), "t", &chat_template, &err), &err);
    pthread_t thread[4];
    void *total[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, render_many, chat_template), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], &total[i]);
        assert_true(total[i] != NULL);
        assert_ptr_equal(total[i], total[0]);
    }
    chat_template_destroy(chat_template);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters_give_what_jinja2_gives),
        cmocka_unit_test(test_tests_give_what_jinja2_gives),
        cmocka_unit_test(test_methods_give_what_python_gives),
        cmocka_unit_test(test_expressions_give_what_jinja2_gives),
        cmocka_unit_test(test_statements_give_what_jinja2_gives),
        cmocka_unit_test(test_whitespace_is_controlled_as_in_jinja2),
        cmocka_unit_test(test_errors_give_line_and_reason_as_jinja2),
        cmocka_unit_test(test_published_templates_render_as_in_jinja2),
        cmocka_unit_test(test_every_byte_names_the_field_it_came_from),
        cmocka_unit_test(test_origins_survive_string_methods),
        cmocka_unit_test(test_template_text_knows_the_message_its_loop_stands_at),
        cmocka_unit_test(test_generation_blocks_are_marked),
        cmocka_unit_test(test_blocks_have_to_give_text),
        cmocka_unit_test(test_macros_name_each_argument_once),
        cmocka_unit_test(test_endless_work_is_stopped),
        cmocka_unit_test(test_long_work_in_one_call_is_stopped),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_deep_sources_are_refused),
        cmocka_unit_test(test_deep_data_is_refused),
        cmocka_unit_test(test_bytes_that_are_not_text_are_refused),
        cmocka_unit_test(test_one_template_serves_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
