#include "rollout_worker/chat_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "config/source_set.h"
#include "text/text_check.h"

void chat_text_close(ChatText *text)
{
    text_model_destroy(text->model);
    chat_reader_clear(&text->reader);
    free(text->source);
    *text = (ChatText){0};
}

Status chat_text_open(const JobConfig *config, ChatText *ret, Error *err)
{
    ChatText text = {.config = config, .num_sources = config->data.sources.count};
    text.source = mem_calloc((size_t)text.num_sources, sizeof *text.source);
    for (int i = 0; i < text.num_sources; i++) {
        TrainSource source = train_source(config, i);
        text.source[i] = (SourceKeys){source.name, source.record};
    }
    Status status = chat_reader_create(config, &text.reader, err);
    if (status == OK)
        status =
            text_model_load(config->model.tokenizer, config->model.chat_template, &text.model, err);
    if (status == OK) status = text_model_try(text.model, text.reader.template_kwargs, err);
    if (status == OK)
        *ret = text;
    else
        chat_text_close(&text);
    return status;
}

char *chat_text_warnings(const ChatText *text)
{
    return text_model_warnings(text->model, text->reader.template_kwargs);
}

Status chat_text_read(const ChatText *text, const RolloutRecord *record, const cJSON *json,
                      ChatRecord *ret, Error *err)
{
    ChatReader reader = text->reader;
    int set = record->set != NULL ? eval_set_find(text->config, record->set) : -1;
    if (set >= 0) reader.key = eval_set(text->config, set).record;
    for (int i = 0; record->part != NULL && i < text->num_sources; i++)
        if (strcmp(text->source[i].name, record->part) == 0) reader.key = text->source[i].key;
    return chat_record_read(&reader, json, record->source, ret, err);
}

char *chat_text_own_names(const ChatRecord *chat, const char *sentence)
{
    static const char list[] = "messages";
    const size_t length = sizeof list - 1;
    const ChatConversation *conversation = &chat->conversation;
    const char *key = conversation->list_key;
    Str out = {0};
    if (key == NULL || !str_starts_with(sentence, list)) return mem_strdup(sentence);
    const char *rest = sentence + length;
    char *end = NULL;
    long index = *rest == '[' ? strtol(rest + 1, &end, 10) : -1;
    if (end == NULL || *end != ']')
        str_printf(&out, "%.80s%s", key, rest);
    else if (index < conversation->num_added)
        str_printf(&out, "system%s", end + 1);
    else
        str_printf(&out, "%.80s[%ld%s", key, index - conversation->num_added, end);
    return str_take(&out);
}

/* Completes what the text layer says of a conversation to what every refusal of a record says. */
static void explain_refusal(const RolloutRecord *record, const ChatRecord *chat, Error *err)
{
    bool by_template = chat_reject_reason(err->status) == REJECT_TEMPLATE;
    bool by_limits = by_template && err->status != ERR_INVALID;
    ChatShape shape = chat->conversation.shape;
    char *found = chat_text_own_names(chat, err->message);
    error_set(err, err->status, "%s: %s%s%s%s%s", record->source, found,
              shape != SHAPE_MESSAGES ? "\n  found: messages made of the shape " : "",
              shape != SHAPE_MESSAGES ? chat_shape_name(shape) : "",
              by_limits     ? "\n  expected: a chat template that comes to an end within its limits"
                              "\n  to do: correct the template, or name another one in "
                              "model.chat_template"
              : by_template ? "\n  expected: a conversation that the chat template accepts"
                              "\n  to do: correct it, or name another template in "
                              "model.chat_template"
                            : "\n  to do: correct the record, or drop it",
              by_template ? text_missing_name_hint(found) : "");
    free(found);
}

Status chat_text_encode(const ChatText *text, TokenizerCache *cache, const RolloutRecord *record,
                        const ChatRecord *chat, const cJSON *messages, ConversationOptions options,
                        TokenizedConversation *ret, Error *err)
{
    options.now = CHAT_TEMPLATE_TIME;
    options.template_kwargs = chat->template_kwargs;
    Status status =
        conversation_encode(text->model, cache, messages, chat->tools, &options, ret, err);
    if (status != OK) explain_refusal(record, chat, err);
    return status;
}

char *chat_text_lost(const RolloutRecord *record, const ChatRecord *chat,
                     const TokenizedConversation *encoded)
{
    ChatShape shape = chat->conversation.shape;
    if (encoded->lost == NULL) return NULL;
    char *lost = chat_text_own_names(chat, encoded->lost);
    char *message =
        mem_printf("%s: %s%s%s\n  to do: correct the record, name another template in "
                   "model.chat_template, or set data.not_rendered to keep",
                   record->source, lost,
                   shape != SHAPE_MESSAGES ? "\n  found: messages made of the shape " : "",
                   shape != SHAPE_MESSAGES ? chat_shape_name(shape) : "");
    free(lost);
    return message;
}

static int32_t first_trained_control(const Tokenizer *tokenizer,
                                     const TokenizedConversation *conversation)
{
    for (size_t i = 0; i < conversation->length; i++)
        if (conversation->loss_mask[i] &&
            tokenizer_id_kind(tokenizer, conversation->token[i]) == TOKEN_KIND_CONTROL)
            return conversation->token[i];
    return -1;
}

int32_t chat_text_turn_end(const ChatText *text)
{
    static const char CHAT[] = "[{\"role\": \"user\", \"content\": \"a\"}, "
                               "{\"role\": \"assistant\", \"content\": \"b\"}]";
    TokenizedConversation conversation = {0};
    ConversationOptions options = {.now = CHAT_TEMPLATE_TIME};
    cJSON *messages = cJSON_Parse(CHAT);
    int32_t id = -1;
    if (conversation_encode(text->model, NULL, messages, NULL, &options, &conversation, NULL) == OK)
        id = first_trained_control(text_model_tokenizer(text->model), &conversation);
    tokenized_conversation_free(&conversation);
    cJSON_Delete(messages);
    return id;
}

RejectReason chat_reject_reason(Status status)
{
    switch (status) {
    case ERR_INVALID:
    case ERR_RESOURCE: /* the template's limits */
    case ERR_TIMEOUT:
        return REJECT_TEMPLATE;
    case ERR_NOT_FOUND:
        return REJECT_NOTHING_TO_TRAIN;
    default:
        return REJECT_BAD_RECORD;
    }
}
