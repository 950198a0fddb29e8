#include "text/text_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "text/text_model.h"

static const char probe[] = "[{\"role\":\"user\",\"content\":\"Hello\"},"
                            "{\"role\":\"assistant\",\"content\":\"Hello back!\"}]";

static Status encode_probe(const TextModel *model, const cJSON *kwargs, TokenizedConversation *ret,
                           Error *err)
{
    cJSON *messages = cJSON_Parse(probe);
    ConversationOptions options = {.template_kwargs = kwargs, .keep_text = true, .now = 1};
    Status status = conversation_encode(model, NULL, messages, NULL, &options, ret, err);
    cJSON_Delete(messages);
    return status;
}

const char *text_missing_name_hint(const char *message)
{
    const char *at = strstr(message, "' is undefined");
    if (at == NULL) return "";
    while (at > message && at[-1] != '\'' && at[-1] != ' ')
        at--;
    return at > message && at[-1] == '\''
               ? "\nA name of the template's own is given in data.apply_chat_template_kwargs."
               : "";
}

Status text_model_try(const TextModel *model, const cJSON *kwargs, Error *err)
{
    TokenizedConversation conversation = {0};
    Status status = conversation_check_kwargs(kwargs, err);
    if (status != OK) {
        err->status = ERR_INVALID;
        error_prefix(err, "data.apply_chat_template_kwargs");
        return error_append(err, "Remove it there.");
    }
    status = encode_probe(model, kwargs, &conversation, err);
    tokenized_conversation_free(&conversation);
    if (status == OK) return OK;
    const char *hint = text_missing_name_hint(err->message);
    err->status = ERR_DATA;
    return error_append(err,
                        "Expected a chat template that renders a plain conversation, a user's "
                        "message and an answer to it.%s\n"
                        "Correct it, or name another one at model.chat_template.",
                        hint);
}

/* ---- marks that are no tokens ---- */

/* The length of the mark that the text begins with, such as <|im_end|>; 0: none. */
static size_t mark_length(const char *text)
{
    static const char *const open[] = {"<|", "<｜"}, *const close[] = {"|>", "｜>"};
    for (int i = 0; i < 2; i++) {
        if (!str_starts_with(text, open[i])) continue;
        const char *end = strstr(text + strlen(open[i]), close[i]);
        if (end == NULL || end - text > 64) continue;
        size_t length = (size_t)(end - text) + strlen(close[i]);
        char inside[80];
        snprintf(inside, sizeof inside, "%.*s", (int)length - 1, text + 1);
        if (strpbrk(inside, "< \n\t\"'") == NULL) return length;
    }
    return 0;
}

static size_t count_tokens(const TextModel *model, const char *text, size_t length)
{
    Encoding encoding = {0};
    Error ignored;
    bool good = tokenizer_encode(model->tokenizer, NULL, text, length, NULL, false, &encoding,
                                 &ignored) == OK;
    size_t count = good ? encoding.length : 0;
    encoding_free(&encoding);
    return count;
}

/* The template's words for turns: the probe's contents have none of them. */
static void warn_of_marks(const TextModel *model, const TokenizedConversation *conversation,
                          Str *out)
{
    Str seen = {0};
    for (const char *at = conversation->text; *at != '\0'; at++) {
        size_t length = mark_length(at);
        if (length == 0) continue;
        char *mark = mem_strndup(at, length);
        size_t tokens = count_tokens(model, mark, length);
        if (tokens > 1 && strstr(str_text(&seen), mark) == NULL) {
            str_printf(out,
                       "The chat template writes %s, which is no token of the tokenizer: it "
                       "becomes %zu. Does the template belong to this tokenizer? Another is named "
                       "in model.chat_template.\n",
                       mark, tokens);
            str_puts(&seen, mark);
        }
        free(mark);
        at += length - 1;
    }
    str_free(&seen);
}

/* What stands behind the probe's answer must hold a token that ends a generation. */
static void warn_of_end(const TextModel *model, const TokenizedConversation *conversation, Str *out)
{
    const char *answer = strstr(conversation->text, "Hello back!");
    if (answer == NULL) return;
    size_t end = (size_t)(answer - conversation->text) + strlen("Hello back!"), tokens = 0;
    for (size_t t = 0; t < conversation->length; t++) {
        int32_t id = conversation->token[t];
        if (!conversation->loss_mask[t] || conversation->span[t].end <= end) continue;
        if (id == model->eos_id || tokenizer_id_kind(model->tokenizer, id) != TOKEN_KIND_TEXT)
            return;
        tokens++;
    }
    if (tokens == 0) {
        str_puts(out, "The chat template writes nothing behind an answer that is trained: the "
                      "model does not learn to end one.\n");
        return;
    }
    Str tail = {0};
    str_put_escaped(&tail, conversation->text + end);
    str_printf(out,
               "The chat template ends an answer with %s, of which the tokenizer makes %zu tokens "
               "of plain text: the model learns to write them, and nothing ends a generation.\n",
               str_text(&tail), tokens);
    str_free(&tail);
}

/* ---- keyword arguments ---- */

static void list_variables(const TextModel *model, StringList *ret)
{
    chat_template_list_variables(model->chat_template, ret);
    if (model->tool_template != NULL) chat_template_list_variables(model->tool_template, ret);
}

static bool is_listed(const StringList *list, const char *name)
{
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->item[i], name) == 0) return true;
    return false;
}

/* Whether every conversation has the name without being told. */
static bool is_given(const TextModel *model, const char *name)
{
    static const char *const names[] = {"messages", "tools", "documents", "add_generation_prompt"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0) return true;
    return cJSON_GetObjectItemCaseSensitive(model->tokens, name) != NULL;
}

static void warn_of_unread(const TextModel *model, const StringList *names, const char *key,
                           Str *out)
{
    const char *nearest = str_nearest(key, (const char *const *)names->item, (size_t)names->count);
    str_printf(out, "data.apply_chat_template_kwargs: the chat template never reads %s",
               QUOTED(key));
    if (nearest != NULL && !is_given(model, nearest)) {
        str_printf(out, "; did you mean %s?\n", nearest);
        return;
    }
    int count = 0;
    for (int i = 0; i < names->count; i++)
        if (!is_given(model, names->item[i]) && count++ < 8)
            str_printf(out, "%s%s", count == 1 ? "; it reads " : ", ", names->item[i]);
    str_puts(out, count == 0 ? "; there is nothing that it is told\n" : "\n");
}

static void warn_of_text(const cJSON *item, Str *out)
{
    static const char *const truths[] = {"true", "yes", "on"}, *const lies[] = {"false", "no",
                                                                                "off"};
    const char *text = item->valuestring;
    Str lower = {0};
    for (const char *at = text; *at != '\0'; at++)
        str_putc(&lower, *at >= 'A' && *at <= 'Z' ? (char)(*at + 32) : *at);
    bool truth = false, lie = false;
    for (int i = 0; i < 3; i++) {
        truth = truth || strcmp(str_text(&lower), truths[i]) == 0;
        lie = lie || strcmp(str_text(&lower), lies[i]) == 0;
    }
    if (!truth && !lie && lower.length >= 4) {
        const char *nearest =
            str_nearest(str_text(&lower), (const char *[]){truths[0], lies[0]}, 2);
        truth = nearest == truths[0];
        lie = nearest == lies[0];
    }
    str_free(&lower);
    if (truth || lie)
        str_printf(out,
                   "data.apply_chat_template_kwargs: %s is the text %s, and to a template every "
                   "text but an empty one is true; did you mean %s?\n",
                   item->string, QUOTED(text), truth ? "true" : "false");
}

char *text_model_warnings(const TextModel *model, const cJSON *kwargs)
{
    Str out = {0};
    StringList names = {0};
    TokenizedConversation conversation = {0};
    if (encode_probe(model, kwargs, &conversation, NULL) == OK) {
        warn_of_marks(model, &conversation, &out);
        warn_of_end(model, &conversation, &out);
    }
    tokenized_conversation_free(&conversation);
    list_variables(model, &names);
    for (const cJSON *item = kwargs != NULL ? kwargs->child : NULL; item != NULL;
         item = item->next) {
        if (!is_listed(&names, item->string))
            warn_of_unread(model, &names, item->string, &out);
        else if (cJSON_IsString(item))
            warn_of_text(item, &out);
    }
    string_list_free(&names);
    return out.length > 0 ? str_take(&out) : NULL;
}
