/* What the tests of conversations share: models with a template of the test's own, and texts with
 * their trained parts marked. */
#ifndef TROUPE_TESTS_CONVERSATION_SUPPORT_H
#define TROUPE_TESTS_CONVERSATION_SUPPORT_H

#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/conversation.h"

#define TINY_MODEL PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

static inline char *shared_path(const char *name)
{
    const char *folder = getenv("TROUPE_SHARED");
    char *path = path_join(folder != NULL ? folder : PROJECT_SOURCE_DIR "/../shared", name);
    if (path_exists(path)) return path;
    print_message("skipped: %s is absent\n", path);
    free(path);
    return NULL;
}

static inline TextModel *load_model(const char *folder, const char *template_path)
{
    Error err = {0};
    TextModel *model = NULL;
    assert_ok(text_model_load(folder, template_path, &model, &err), &err);
    return model;
}

/* The tiny model with a template of its own, given as source. */
static inline TextModel *load_with_template(const char *source)
{
    Error err = {0};
    assert_ok(file_write_atomic("template.jinja", source, strlen(source), &err), &err);
    return load_model(TINY_MODEL, "template.jinja");
}

static inline cJSON *parse(const char *json)
{
    Error err = {0};
    cJSON *value = NULL;
    assert_ok(json_parse(json, strlen(json), "messages", &value, &err), &err);
    return value;
}

static inline cJSON *read_fixture(const char *name)
{
    Error err = {0};
    char *path = mem_printf(TEST_SOURCE_DIR "/text/fixtures/%s", name);
    cJSON *json = NULL;
    assert_ok(json_read(path, 1 << 24, &json, &err), &err);
    free(path);
    return json;
}

static inline TokenizedConversation encode(const TextModel *model, const cJSON *messages,
                                           const ConversationOptions *options)
{
    Error err = {0};
    TokenizedConversation conversation = {0};
    assert_ok(conversation_encode(model, NULL, messages, NULL, options, &conversation, &err), &err);
    return conversation;
}

/* The conversation's text with its trained parts between "[[" and "]]". */
static inline char *marked(const TextModel *model, const TokenizedConversation *conversation)
{
    Str out = {0};
    bool inside = false;
    for (size_t begin = 0, end; begin < conversation->length; begin = end) {
        for (end = begin; end < conversation->length; end++)
            if (conversation->loss_mask[end] != conversation->loss_mask[begin]) break;
        char *text = NULL;
        size_t length;
        Error err = {0};
        assert_ok(tokenizer_decode(text_model_tokenizer(model), conversation->token + begin,
                                   end - begin, false, &text, &length, &err),
                  &err);
        inside = conversation->loss_mask[begin];
        str_printf(&out, inside ? "[[%s]]" : "%s", text);
        free(text);
    }
    return str_take(&out);
}

static inline void assert_marked(const TextModel *model, const char *messages_json,
                                 const ConversationOptions *options, const char *expected)
{
    cJSON *messages = parse(messages_json);
    TokenizedConversation conversation = encode(model, messages, options);
    char *text = marked(model, &conversation);
    assert_string_equal(text, expected);
    free(text);
    tokenized_conversation_free(&conversation);
    cJSON_Delete(messages);
}

static const ConversationOptions plain = {.now = 1767225600};
static const char chatml[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#endif
