/* What a loss mask covers: over the shared templates, and rule by rule. */
#include "text/conversation_support.h"
#include "text/text_model.h"

/* ---- the mask over all shared templates ---- */

static bool occurs(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* What stands between the marks of `marked`. */
static char *trained_text(const char *text)
{
    Str out = {0};
    for (const char *at = text; (at = strstr(at, "[[")) != NULL;) {
        const char *end = strstr(at, "]]");
        str_append(&out, at + 2, (size_t)(end - at) - 2);
        str_putc(&out, '\1');
        at = end;
    }
    return str_take(&out);
}

static bool check_mask(const char *name, const char *path)
{
    TextModel *model = load_model(TINY_MODEL, path);
    cJSON *messages = parse("[{\"role\":\"user\",\"content\":\"zebra one\"},"
                            "{\"role\":\"assistant\",\"content\":\"apple two\"},"
                            "{\"role\":\"user\",\"content\":\"zebra three\"},"
                            "{\"role\":\"assistant\",\"content\":\"apple four\"}]");
    TokenizedConversation conversation = {0};
    Error err = {0};
    Status status = conversation_encode(model, NULL, messages, NULL, &plain, &conversation, &err);
    if (status == OK) {
        char *text = marked(model, &conversation), *trained = trained_text(text);
        if (!occurs(trained, "apple two") || !occurs(trained, "apple four") ||
            occurs(trained, "zebra") || occurs(trained, "user"))
            fail_msg("%s trains on: %s", name, text);
        free(trained);
        free(text);
        tokenized_conversation_free(&conversation);
    }
    cJSON_Delete(messages);
    text_model_destroy(model);
    return status == OK;
}

static void test_masks_of_published_templates_cover_answers_and_nothing_of_users(void **state)
{
    (void)state;
    char *folder = shared_path("data/chat_templates");
    if (folder == NULL) skip();
    cJSON *fixture = read_fixture("template_renders.json");
    int count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fixture, "templates"))
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "template"));
        char *path = path_join(folder, name);
        count += check_mask(name, path);
        free(path);
    }
    assert_true(count >= 30); /* the others need tools or other variables */
    cJSON_Delete(fixture);
    free(folder);
}

/* trl's twin of this one template trains the newline of the header; a changed template has no twin.
 */
static void test_qwen2_5_trains_what_trls_twin_trains(void **state)
{
    (void)state;
    char *folder = shared_path("data/tokenizers/qwen3");
    char *path = shared_path("data/chat_templates/Qwen-Qwen2.5-7B-Instruct.jinja");
    if (folder == NULL || path == NULL) skip();
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"b\"}]";
    TextModel *model = load_model(folder, path);
    assert_marked(model, messages, &plain,
                  "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                  "<|im_start|>assistant[[\nb<|im_end|>\n]]");
    text_model_destroy(model);
    Error err = {0};
    char *source = NULL;
    size_t length;
    assert_ok(file_read(path, 1 << 20, &source, &length, &err), &err);
    char *spaced = mem_printf("%s\n \n", source), *changed = mem_printf("%s.", source);
    assert_int_equal(header_rule_of(spaced, length + 3), HEADER_LINE_END_TRAINED);
    assert_int_equal(header_rule_of(changed, length + 1), HEADER_NOT_TRAINED);
    model = load_with_template(changed);
    assert_marked(model, messages, &plain,
                  "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                  "<|im_start|>assistant\n[[b<|im_end|>\n]].");
    text_model_destroy(model);
    free(spaced);
    free(changed);
    free(source);
    free(path);
    free(folder);
}

/* ---- rules ---- */

static void test_a_prompt_trains_nothing_of_its_end(void **state)
{
    (void)state;
    TextModel *model = load_model(TINY_MODEL, NULL);
    ConversationOptions prompt = {.add_generation_prompt = true};
    assert_marked(
        model,
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
        "{\"role\":\"user\",\"content\":\"c\"}]",
        &prompt,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[b<|im_end|>\n]]"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n");
    text_model_destroy(model);
}

static void test_a_header_is_trained_where_the_reference_trains_it(void **state)
{
    (void)state;
    TextModel *model = load_with_template(chatml);
    model->header_rule = HEADER_TRAINED;
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
        "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]";
    assert_marked(model, messages, &plain,
                  "<|im_start|>user\na<|im_end|>\n[[<|im_start|>assistant\nb<|im_end|>\n]]"
                  "<|im_start|>user\nc<|im_end|>\n[[<|im_start|>assistant\nd<|im_end|>\n]]");
    text_model_destroy(model);
}

static void test_a_generation_prompt_in_the_loop_is_a_header(void **state)
{
    (void)state;
    TextModel *model = load_with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% if loop.last and add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% endfor "
        "%}");
    assert_marked(
        model, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]",
        &plain, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[b<|im_end|>\n]]");
    text_model_destroy(model);
}

static void test_an_answer_behind_a_tools_without_header_is_trained_from_its_start(void **state)
{
    (void)state;
    TextModel *model = load_with_template(
        "{% for m in messages %}{% if m.role == 'tool' %}<out>{{ m.content }}{% else %}"
        "{% if loop.first or loop.previtem.role != 'tool' %}<|im_start|>{{ m.role }}\n"
        "{% else %}</out>{% endif %}"
        "{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.arguments|tojson }}"
        "{% else %}<say>{{ m.content }}<|im_end|>\n{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '</out>' if messages[-1].role == 'tool' else '<|im_start|>assistant\n' }}{% endif %}");
    assert_marked(model,
                  "[{\"role\":\"user\",\"content\":\"a\"},"
                  "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":"
                  "{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},"
                  "{\"role\":\"tool\",\"content\":\"3\"},"
                  "{\"role\":\"assistant\",\"content\":\"b\"}]",
                  &plain,
                  "<|im_start|>user\n<say>a<|im_end|>\n<|im_start|>assistant\n"
                  "[[<call>{\"x\": 1}]]<out>3</out>[[<say>b<|im_end|>\n]]");
    text_model_destroy(model);
}

static void test_a_message_with_step_loss_mask_zero_is_not_trained(void **state)
{
    (void)state;
    TextModel *model = load_model(TINY_MODEL, NULL);
    assert_marked(model,
                  "[{\"role\":\"user\",\"content\":\"a\"},"
                  "{\"role\":\"assistant\",\"content\":\"b\",\"step_loss_mask\":0},"
                  "{\"role\":\"user\",\"content\":\"c\"},"
                  "{\"role\":\"assistant\",\"content\":\"d\",\"step_loss_mask\":1}]",
                  &plain,
                  "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                  "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[d<|im_end|>\n]]");
    text_model_destroy(model);
}

static void test_a_message_with_weight_zero_is_not_trained(void **state)
{
    (void)state;
    TextModel *model = load_model(TINY_MODEL, NULL);
    assert_marked(
        model,
        "[{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0},"
        "{\"role\":\"assistant\",\"content\":\"c\",\"weight\":1,\"step_loss_mask\":false},"
        "{\"role\":\"assistant\",\"content\":\"d\",\"weight\":1}]",
        &plain,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>assistant\nc<|im_end|>\n<|im_start|>assistant\n[[d<|im_end|>\n]]");
    text_model_destroy(model);
}

/* Each system has its own name for it. */
static void test_a_message_that_others_would_not_train_is_not_trained(void **state)
{
    (void)state;
    static const char *const marks[] = {"\"train\":false", "\"training\":false", "\"loss\":false",
                                        "\"loss_mask\":0"};
    TextModel *model = load_model(TINY_MODEL, NULL);
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        char *messages = mem_printf("[{\"role\":\"user\",\"content\":\"a\",\"loss\":7},"
                                    "{\"role\":\"assistant\",\"content\":\"b\",%s},"
                                    "{\"role\":\"user\",\"content\":\"c\"},"
                                    "{\"role\":\"assistant\",\"content\":\"d\",\"train\":true}]",
                                    marks[i]);
        assert_marked(model, messages, &plain,
                      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                      "<|im_start|>user\nc<|im_end|>\n"
                      "<|im_start|>assistant\n[[d<|im_end|>\n]]");
        free(messages);
    }
    text_model_destroy(model);
}

static void test_a_turn_ended_by_the_next_ones_opener_trains_that(void **state)
{
    (void)state;
    TextModel *model = load_with_template(
        "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '<|im_end|>' }}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|im_end|>{% endif %}");
    assert_marked(
        model,
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
        "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]",
        &plain, "<|im_start|>a<|im_end|>[[b<|im_start|>]]c<|im_end|>[[d]]");
    text_model_destroy(model);
}

static void test_the_end_of_text_behind_the_last_turn_is_trained(void **state)
{
    (void)state;
    TextModel *model = load_with_template(
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% else %}<|endoftext|>{% endif %}");
    assert_marked(
        model, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]",
        &plain, "a<|im_end|>[[b<|im_end|><|endoftext|>]]");
    assert_marked(model, "[{\"role\":\"user\",\"content\":\"a\"}]", &plain,
                  "a<|im_end|><|endoftext|>");
    text_model_destroy(model);
}

/* ---- answers that do not come out in their own turn of the loop ---- */

#define TWO_TURNS                                                                                  \
    "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"           \
    "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]"

#define PROMPT  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define MESSAGE "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"

static const char marked_chatml[] =
    "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[b<|im_end|>\n]]"
    "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[d<|im_end|>\n]]";

static void assert_masks(const char *source, const char *messages_json, const char *expected)
{
    TextModel *model = load_with_template(source);
    assert_marked(model, messages_json, &plain, expected);
    text_model_destroy(model);
}

static const char merging[] =
    "{% set ns = namespace(buf='', role='') %}{% for m in messages %}"
    "{% if m.role != ns.role and ns.role %}<|im_start|>{{ ns.role }}\n{{ ns.buf }}<|im_end|>\n"
    "{% set ns.buf = '' %}{% endif %}{% set ns.role = m.role %}{% set ns.buf = ns.buf + m.content "
    "%}{% endfor %}<|im_start|>{{ ns.role }}\n{{ ns.buf }}<|im_end|>\n" PROMPT;

static void test_an_answer_written_at_the_next_message_is_trained(void **state)
{
    (void)state;
    assert_masks(merging, TWO_TURNS, marked_chatml);
    assert_masks(merging,
                 "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"A\"},"
                 "{\"role\":\"assistant\",\"content\":\"b\"},"
                 "{\"role\":\"assistant\",\"content\":\"B\"},"
                 "{\"role\":\"user\",\"content\":\"c\"},"
                 "{\"role\":\"assistant\",\"content\":\"d\",\"weight\":0}]",
                 "<|im_start|>user\naA<|im_end|>\n<|im_start|>assistant\n[[bB<|im_end|>\n]]"
                 "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n");
    assert_masks(
        merging,
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\"}]",
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[<|im_end|>\n]]");
}

static void test_an_answer_written_with_its_question_is_trained(void **state)
{
    (void)state;
    static const char expected[] =
        "<|im_start|>a<|im_end|>[[b<|endoftext|>]]<|im_start|>c<|im_end|>[[d<|endoftext|>]]";
    assert_masks("{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}"
                 "<|im_end|>{% if loop.nextitem is defined %}{{ loop.nextitem.content }}"
                 "<|endoftext|>{% endif %}{% endif %}{% endfor %}",
                 TWO_TURNS, expected);
    assert_masks("{% set bots = messages|selectattr('role', 'equalto', 'assistant')|list %}"
                 "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>"
                 "{% if bots[loop.index0] is defined %}{{ bots[loop.index0].content }}"
                 "<|endoftext|>{% endif %}{% endfor %}",
                 TWO_TURNS, expected);
}

static void test_messages_rendered_outside_of_a_loop_over_them_train_no_header(void **state)
{
    (void)state;
    assert_masks("{% set ns = namespace(ms=[]) %}{% for m in messages %}"
                 "{% set ns.ms = ns.ms + [dict(m, content=m.content|trim)] %}{% endfor %}"
                 "{% for m in ns.ms %}" MESSAGE "{% endfor %}" PROMPT,
                 TWO_TURNS, marked_chatml);
    assert_masks("{% macro show(i) %}{% if i < messages|length %}<|im_start|>{{ messages[i].role }}"
                 "\n{{ messages[i].content }}<|im_end|>\n{{ show(i + 1) }}{% endif %}{% endmacro %}"
                 "{{ show(0) }}" PROMPT,
                 TWO_TURNS, marked_chatml);
    assert_masks("{% for m in messages[:-1] %}" MESSAGE
                 "{% endfor %}{% set m = messages[-1] %}" MESSAGE PROMPT,
                 TWO_TURNS, marked_chatml);
}

/* Reasoning behind the header, a model's end of text behind the last turn, a call named once more
 * in the header of its answer. */
static void test_what_stands_around_a_displaced_answer_is_told_apart(void **state)
{
    (void)state;
    assert_masks("{% for i in range(messages|length) %}"
                 "<|im_start|>{{ messages[i].role }}\n{% if i % 2 %}<think>\n\n</think>{% endif %}"
                 "{{ messages[i].content }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>"
                 "{% endif %}",
                 TWO_TURNS,
                 "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
                 "[[<think>\n\n</think>b<|im_end|>\n]]"
                 "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
                 "[[<think>\n\n</think>d<|im_end|>\n<|endoftext|>]]");
    assert_masks("{% for m in messages %}<|im_start|>{{ m.role }}"
                 "{% if m.role == 'tool' %} {{ messages[loop.index0 - 1].tool_calls[0].name }}"
                 "{% endif %}{{ '\n' }}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.name }}"
                 "{% endfor %}<|im_end|>\n{% endfor %}" PROMPT,
                 "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\","
                 "\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]},"
                 "{\"role\":\"tool\",\"content\":\"3\"},"
                 "{\"role\":\"assistant\",\"content\":\"b\"}]",
                 "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[f<|im_end|>\n]]"
                 "<|im_start|>tool f\n3<|im_end|>\n<|im_start|>assistant\n[[b<|im_end|>\n]]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks_of_published_templates_cover_answers_and_nothing_of_users),
        cmocka_unit_test(test_qwen2_5_trains_what_trls_twin_trains),
        cmocka_unit_test(test_a_prompt_trains_nothing_of_its_end),
        cmocka_unit_test(test_a_header_is_trained_where_the_reference_trains_it),
        cmocka_unit_test(test_a_generation_prompt_in_the_loop_is_a_header),
        cmocka_unit_test(test_an_answer_behind_a_tools_without_header_is_trained_from_its_start),
        cmocka_unit_test(test_a_message_with_step_loss_mask_zero_is_not_trained),
        cmocka_unit_test(test_a_message_with_weight_zero_is_not_trained),
        cmocka_unit_test(test_a_message_that_others_would_not_train_is_not_trained),
        cmocka_unit_test(test_a_turn_ended_by_the_next_ones_opener_trains_that),
        cmocka_unit_test(test_the_end_of_text_behind_the_last_turn_is_trained),
        cmocka_unit_test(test_an_answer_written_at_the_next_message_is_trained),
        cmocka_unit_test(test_an_answer_written_with_its_question_is_trained),
        cmocka_unit_test(test_messages_rendered_outside_of_a_loop_over_them_train_no_header),
        cmocka_unit_test(test_what_stands_around_a_displaced_answer_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
