#include "text/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/text_model.h"

static const char *const known_roles[] = {"system", "developer", "user",        "assistant",
                                          "tool",   "function",  "observation", "ipython"};

#define NUM_ROLES (sizeof known_roles / sizeof known_roles[0])

static bool has_value(const cJSON *value)
{
    return value != NULL && !cJSON_IsNull(value);
}

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool role_is(const cJSON *message, const char *role)
{
    return strcmp(member(message, "role")->valuestring, role) == 0;
}

/* ---- checks ---- */

static Status check_role(const cJSON *message, int index, Error *err)
{
    const cJSON *role = member(message, "role");
    if (!cJSON_IsString(role))
        return error_set(err, ERR_DATA, "messages[%d].role is %s, expected a string", index,
                         role == NULL ? "missing" : json_type_name(role));
    for (size_t i = 0; i < NUM_ROLES; i++)
        if (strcmp(role->valuestring, known_roles[i]) == 0) return OK;
    const char *near = str_nearest(role->valuestring, known_roles, NUM_ROLES);
    return error_set(err, ERR_DATA,
                     "messages[%d].role is \"%.64s\"%s%s%s\n"
                     "  expected system, developer, user, assistant, tool, function, observation "
                     "or ipython",
                     index, role->valuestring, near != NULL ? "; did you mean \"" : "",
                     near != NULL ? near : "", near != NULL ? "\"?" : "");
}

static Status check_parts(const cJSON *content, int index, Error *err)
{
    int i = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, content)
    {
        const cJSON *type = member(part, "type");
        if (!cJSON_IsObject(part) || !cJSON_IsString(type))
            return error_set(
                err, ERR_DATA,
                "messages[%d].content[%d] is %s, expected {\"type\": \"text\", "
                "\"text\": ...}",
                index, i, cJSON_IsObject(part) ? "an object without a type" : json_type_name(part));
        if (strcmp(type->valuestring, "text") != 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "messages[%d].content[%d].type is \"%.64s\"; only text can be trained",
                             index, i, type->valuestring);
        if (!cJSON_IsString(member(part, "text")))
            return error_set(
                err, ERR_DATA, "messages[%d].content[%d].text is %s, expected a string", index, i,
                member(part, "text") == NULL ? "missing" : json_type_name(member(part, "text")));
        i++;
    }
    return OK;
}

/* The message's reasoning under whichever of its names it stands, or NULL. */
static const cJSON *reasoning_of(const cJSON *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (has_value(member(message, names[i]))) return member(message, names[i]);
    return NULL;
}

static Status check_content(const cJSON *message, int index, Error *err)
{
    const cJSON *content = member(message, "content");
    if (cJSON_IsString(content)) return OK;
    if (cJSON_IsArray(content)) return check_parts(content, index, err);
    bool may_lack = role_is(message, "assistant") &&
                    (has_value(member(message, "tool_calls")) || reasoning_of(message) != NULL);
    if (!has_value(content) && may_lack) return OK;
    return error_set(err, ERR_DATA,
                     "messages[%d].content is %s, expected a string or a list of text parts%s",
                     index, content == NULL ? "missing" : json_type_name(content),
                     role_is(message, "assistant") ? " (or tool_calls)" : "");
}

static Status check_tool_calls(const cJSON *message, int index, Error *err)
{
    const cJSON *calls = member(message, "tool_calls");
    if (!has_value(calls)) return OK;
    if (!cJSON_IsArray(calls))
        return error_set(err, ERR_DATA, "messages[%d].tool_calls is %s, expected a list", index,
                         json_type_name(calls));
    int i = 0;
    const cJSON *call;
    cJSON_ArrayForEach(call, calls)
    {
        if (!cJSON_IsObject(call))
            return error_set(err, ERR_DATA, "messages[%d].tool_calls[%d] is %s, expected an object",
                             index, i, json_type_name(call));
        i++;
    }
    return OK;
}

static Status check_messages(const cJSON *messages, Error *err)
{
    if (!cJSON_IsArray(messages))
        return error_set(err, ERR_DATA, "messages is %s, expected a list",
                         json_type_name(messages));
    if (messages->child == NULL)
        return error_set(err, ERR_DATA, "messages is an empty list, expected at least one message");
    int index = 0;
    bool answered = false; /* an assistant has spoken */
    const cJSON *message;
    cJSON_ArrayForEach(message, messages)
    {
        if (!cJSON_IsObject(message))
            return error_set(err, ERR_DATA,
                             "messages[%d] is %s, expected an object with role and "
                             "content",
                             index, json_type_name(message));
        TRY(check_role(message, index, err));
        TRY(check_content(message, index, err));
        TRY(check_tool_calls(message, index, err));
        bool of_tool = role_is(message, "tool") || role_is(message, "function");
        if (of_tool && !answered)
            return error_set(err, ERR_DATA,
                             "messages[%d].role is \"%s\", expected an assistant message before "
                             "it that called a tool",
                             index, member(message, "role")->valuestring);
        answered = answered || role_is(message, "assistant");
        index++;
    }
    return OK;
}

/* ---- what the template gets ---- */

static void add_reference(cJSON *object, const char *key, const cJSON *value)
{
    cJSON_AddItemReferenceToObject(object, key, (cJSON *)value);
}

static char *join_parts(const cJSON *parts)
{
    Str text = {0};
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) str_puts(&text, member(part, "text")->valuestring);
    return str_take(&text);
}

/* The content in the form that the template takes, or NULL if it has it already. */
static cJSON *adapt_content(const TextModel *model, const cJSON *content, bool fill)
{
    if (!has_value(content)) return fill ? cJSON_CreateString("") : NULL;
    if (cJSON_IsArray(content) && !model->takes_parts) {
        char *text = join_parts(content);
        cJSON *joined = cJSON_CreateString(text);
        free(text);
        return joined;
    }
    if (cJSON_IsString(content) && model->takes_parts && !model->takes_strings) {
        cJSON *parts = cJSON_CreateArray(), *part = cJSON_CreateObject();
        cJSON_AddStringToObject(part, "type", "text");
        add_reference(part, "text", content);
        cJSON_AddItemToArray(parts, part);
        return parts;
    }
    return NULL;
}

/* A message as templates expect it: reasoning under its standard name and the one that gpt-oss uses
 * (as transformers fills them in), content in a form that the template takes. NULL if it can stay
 * as it is. */
static cJSON *adapt_message(const TextModel *model, const cJSON *message, bool fill_content)
{
    const cJSON *reasoning = reasoning_of(message), *content = member(message, "content");
    cJSON *adapted_content = adapt_content(model, content, fill_content);
    if (reasoning == NULL && adapted_content == NULL) return NULL;
    cJSON *adapted = cJSON_CreateObject();
    if (reasoning != NULL && member(message, "thinking") == NULL)
        add_reference(adapted, "thinking", reasoning);
    for (const cJSON *item = message->child; item != NULL; item = item->next) {
        if (adapted_content != NULL && item == content) continue;
        if (reasoning != NULL && strcmp(item->string, "reasoning_content") == 0) continue;
        add_reference(adapted, item->string, item);
    }
    if (reasoning != NULL) add_reference(adapted, "reasoning_content", reasoning);
    if (adapted_content != NULL) cJSON_AddItemToObject(adapted, "content", adapted_content);
    return adapted;
}

/* *ret_owned is a list of adapted messages, or NULL when all may stay as they are. */
static void adapt_messages(const TextModel *model, const cJSON *messages, bool fill_content,
                           cJSON **ret_owned)
{
    cJSON *list = cJSON_CreateArray();
    bool changed = false;
    const cJSON *message;
    cJSON_ArrayForEach(message, messages)
    {
        cJSON *adapted = adapt_message(model, message, fill_content);
        changed = changed || adapted != NULL;
        if (adapted != NULL) {
            cJSON_AddItemToArray(list, adapted);
        } else {
            cJSON_AddItemReferenceToArray(list, (cJSON *)message);
        }
    }
    if (!changed) {
        cJSON_Delete(list);
        list = NULL;
    }
    *ret_owned = list;
}

static bool lacks_content(const cJSON *messages)
{
    const cJSON *message;
    cJSON_ArrayForEach(message, messages) if (!has_value(member(message, "content"))) return true;
    return false;
}

/* Tools as a list: given as one, as the text of one, or not at all. */
static Status find_tools(const cJSON *tools, const cJSON **ret_tools, cJSON **ret_owned, Error *err)
{
    *ret_tools = NULL;
    if (!has_value(tools)) return OK;
    if (cJSON_IsString(tools)) {
        Error fault;
        if (json_parse(tools->valuestring, strlen(tools->valuestring), "tools", ret_owned,
                       &fault) != OK)
            return error_set(err, ERR_DATA, "%s\n  expected the JSON text of a list of tools",
                             fault.message);
        tools = *ret_owned;
    }
    if (!cJSON_IsArray(tools))
        return error_set(err, ERR_DATA, "tools is %s, expected a list or the JSON text of one",
                         json_type_name(tools));
    int i = 0;
    const cJSON *tool;
    cJSON_ArrayForEach(tool, tools)
    {
        if (!cJSON_IsObject(tool))
            return error_set(err, ERR_DATA, "tools[%d] is %s, expected an object", i,
                             json_type_name(tool));
        i++;
    }
    *ret_tools = tools;
    return OK;
}

static Status render_once(const TextModel *model, const ChatVariables *variables, bool fill_content,
                          Rendering *ret, Error *err)
{
    cJSON *owned = NULL;
    adapt_messages(model, variables->messages, fill_content, &owned);
    ChatVariables adapted = *variables;
    if (owned != NULL) adapted.messages = owned;
    Status status = text_model_render(model, &adapted, ret, err);
    cJSON_Delete(owned);
    return status;
}

/* Some templates must see that there is no content, others fail on it: those get "". */
static Status render(const TextModel *model, const ChatVariables *variables, Rendering *ret,
                     Error *err)
{
    Status status = render_once(model, variables, false, ret, err);
    if (status != ERR_DATA || !lacks_content(variables->messages)) return status;
    return render_once(model, variables, true, ret, err);
}

/* ---- did all of it come out? ---- */

static bool is_blank_text(const cJSON *content)
{
    if (cJSON_IsString(content))
        return content->valuestring[strspn(content->valuestring, " \t\r\n")] == '\0';
    const cJSON *part;
    cJSON_ArrayForEach(part, content) if (!is_blank_text(member(part, "text"))) return false;
    return true;
}

/* A template that passes over a message without a word would train on another conversation than was
 * given. */
static Status check_rendered(const cJSON *messages, const Rendering *rendering, Error *err)
{
    int count = cJSON_GetArraySize(messages);
    bool *seen = mem_calloc((size_t)count, sizeof *seen);
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->message >= 0 && span->message < count && span->kind != ORIGIN_ROLE)
            seen[span->message] = true;
    }
    Status status = OK;
    int index = 0;
    const cJSON *message;
    cJSON_ArrayForEach(message, messages)
    {
        bool needed = !role_is(message, "system") && !role_is(message, "developer") &&
                      !is_blank_text(member(message, "content"));
        if (status == OK && needed && !seen[index])
            status = error_set(err, ERR_DATA,
                               "messages[%d] (%s) does not appear in what the chat template "
                               "renders\n"
                               "  expected an order of roles that the template knows, usually user "
                               "and assistant in turn",
                               index, member(message, "role")->valuestring);
        index++;
    }
    free(seen);
    return status;
}

/* ---- ids and mask ---- */

typedef struct RangeList {
    uint32_t (*range)[2];
    size_t count, capacity;
} RangeList;

static void range_append(RangeList *list, uint32_t begin, uint32_t end, bool join)
{
    if (join && list->count > 0 && list->range[list->count - 1][1] == begin) {
        list->range[list->count - 1][1] = end;
        return;
    }
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        list->range = mem_realloc(list->range, list->capacity, sizeof *list->range);
    }
    list->range[list->count][0] = begin;
    list->range[list->count++][1] = end;
}

/* The length of the added token, none of the control tokens, that the text begins with; 0: none
 * does. */
static uint32_t added_token_length(const TextModel *model, const char *text, uint32_t length)
{
    char token[256];
    if (!model->added_first[(unsigned char)text[0]]) return 0;
    for (size_t i = 0; i < model->num_added_lengths; i++) {
        uint32_t n = model->added_length[i];
        if (n > length || n >= sizeof token) continue;
        memcpy(token, text, n);
        token[n] = '\0';
        int32_t id = tokenizer_token_id(model->tokenizer, token);
        if (id >= 0 && tokenizer_id_kind(model->tokenizer, id) == TOKEN_KIND_ADDED) return n;
    }
    return 0;
}

/* Where added tokens are looked for: in text of the template (and role names, which some templates
 * build tokens from). In an assistant's text, "<think>" or "<tool_call>" is what the model itself
 * writes; control tokens are not. */
static RangeList special_ranges(const TextModel *model, const Rendering *rendering,
                                const bool *is_assistant)
{
    RangeList list = {0};
    bool joinable = false;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->kind == ORIGIN_TEMPLATE || span->kind == ORIGIN_ROLE) {
            range_append(&list, span->begin, span->end, joinable);
            joinable = true;
            continue;
        }
        joinable = false;
        if (span->message < 0 || !is_assistant[span->message]) continue;
        for (uint32_t at = span->begin; at < span->end; at++) {
            uint32_t length = added_token_length(model, rendering->text + at, span->end - at);
            if (length == 0) continue;
            range_append(&list, at, at + length, false);
            at += length - 1;
        }
    }
    return list;
}

static Status encode(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                     const Rendering *rendering, bool is_prompt, TokenizedConversation *ret,
                     Error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(messages), at = 0;
    bool *is_assistant = mem_calloc(count, sizeof(bool)),
         *trained = mem_calloc(count, sizeof(bool));
    const cJSON *message;
    cJSON_ArrayForEach(message, messages)
    {
        const cJSON *weight = member(message, "step_loss_mask");
        bool off = cJSON_IsFalse(weight) || (cJSON_IsNumber(weight) && weight->valuedouble == 0);
        is_assistant[at] = role_is(message, "assistant");
        trained[at] = is_assistant[at] && !off;
        at++;
    }
    RangeList ranges = special_ranges(model, rendering, is_assistant);
    SpecialRanges special = {.range = (const uint32_t(*)[2])ranges.range, .count = ranges.count};
    Encoding encoding = {0};
    Status status = tokenizer_encode(model->tokenizer, cache, rendering->text, rendering->length,
                                     &special, false, &encoding, err);
    if (status == OK) {
        *ret = (TokenizedConversation){.length = encoding.length};
        ret->token = mem_calloc(encoding.length, sizeof *ret->token);
        ret->loss_mask = mem_calloc(encoding.length, sizeof *ret->loss_mask);
        for (size_t i = 0; i < encoding.length; i++)
            ret->token[i] = encoding.span[i].id;
        MaskRequest request = {.rendering = rendering,
                               .encoding = &encoding,
                               .trained = trained,
                               .num_messages = count,
                               .is_prompt = is_prompt};
        ret->trained_tokens = loss_mask_fill(model, &request, ret->loss_mask);
    }
    encoding_free(&encoding);
    free(ranges.range);
    free(is_assistant);
    free(trained);
    return status;
}

Status conversation_encode(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                           const cJSON *tools, const ConversationOptions *options,
                           TokenizedConversation *ret, Error *err)
{
    cJSON *owned_tools = NULL;
    Rendering rendering = {0};
    ChatVariables variables = {.messages = messages,
                               .kwargs = options->template_kwargs,
                               .add_generation_prompt = options->add_generation_prompt,
                               .now = options->now};
    TRY(check_messages(messages, err));
    Status status = find_tools(tools, &variables.tools, &owned_tools, err);
    if (status == OK) {
        status = render(model, &variables, &rendering, err);
        if (status == ERR_DATA) err->status = status = ERR_INVALID; /* the template's refusal */
    }
    if (status == OK) status = check_rendered(messages, &rendering, err);
    if (status == OK)
        status =
            encode(model, cache, messages, &rendering, options->add_generation_prompt, ret, err);
    rendering_free(&rendering);
    cJSON_Delete(owned_tools);
    return status;
}

void tokenized_conversation_free(TokenizedConversation *conversation)
{
    free(conversation->token);
    free(conversation->loss_mask);
    *conversation = (TokenizedConversation){0};
}
