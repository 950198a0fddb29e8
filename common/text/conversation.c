#include "text/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* The role that another form of chat data, or another service, has under this name; or NULL. */
static const char *foreign_role(const char *name)
{
    static const struct {
        const char *name, *role;
    } others[] = {{"human", "user"},        {"gpt", "assistant"}, {"model", "assistant"},
                  {"bot", "assistant"},     {"ai", "assistant"},  {"chatbot", "assistant"},
                  {"chatgpt", "assistant"}, {"prompter", "user"}, {"tool_response", "tool"}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcasecmp(name, others[i].name) == 0) return others[i].role;
    return NULL;
}

/* What was meant by a role that is not known, or NULL: then it may be the template's own. */
static const char *meant_role(const char *name)
{
    const char *role = foreign_role(name);
    return role != NULL ? role : str_nearest(name, known_roles, NUM_ROLES);
}

static Status check_role(const cJSON *message, int index, Error *err)
{
    const cJSON *role = member(message, "role");
    if (!cJSON_IsString(role))
        return error_set(err, ERR_DATA, "messages[%d].role is %s, expected a string", index,
                         role == NULL ? "missing" : json_type_name(role));
    for (size_t i = 0; i < NUM_ROLES; i++)
        if (strcmp(role->valuestring, known_roles[i]) == 0) return OK;
    const char *near = meant_role(role->valuestring);
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

static Status check_content(const cJSON *message, int index, Error *err)
{
    const cJSON *content = member(message, "content");
    if (cJSON_IsString(content)) return OK;
    if (cJSON_IsArray(content)) return check_parts(content, index, err);
    bool may_lack = role_is(message, "assistant") && (has_value(member(message, "tool_calls")) ||
                                                      message_reasoning(message) != NULL);
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

/* 0 or false under any of these takes a message out of the loss: slime's name, OpenAI's, axolotl's
 * two, ms-swift's, and one that several have. */
static const char *const weight_keys[] = {"step_loss_mask", "weight", "train",
                                          "training",       "loss",   "loss_mask"};

#define NUM_WEIGHT_KEYS (sizeof weight_keys / sizeof weight_keys[0])

static bool is_zero(const cJSON *weight)
{
    return cJSON_IsFalse(weight) || (cJSON_IsNumber(weight) && weight->valuedouble == 0);
}

static Status check_weights(const cJSON *message, int index, Error *err)
{
    for (size_t i = 0; i < NUM_WEIGHT_KEYS; i++) {
        const cJSON *weight = member(message, weight_keys[i]);
        bool number = cJSON_IsNumber(weight);
        if (!has_value(weight) || cJSON_IsBool(weight) || is_zero(weight) ||
            (number && weight->valuedouble == 1))
            continue;
        char value[32];
        snprintf(value, sizeof value, "%g", weight->valuedouble);
        return error_set(err, ERR_DATA, "messages[%d].%s is %s, expected 0 or 1", index,
                         weight_keys[i], number ? value : json_type_name(weight));
    }
    return OK;
}

bool message_is_masked(const cJSON *message)
{
    bool zero = false;
    for (size_t i = 0; i < NUM_WEIGHT_KEYS; i++)
        zero = zero || is_zero(member(message, weight_keys[i]));
    return zero;
}

/* A role that the template may have of its own: one that it spells ("control" of Granite), or any
 * word that is neither a slip of a known role nor another system's name for one. Whether it then
 * renders the message is seen from what comes out. */
static bool may_be_own_role(const TextModel *model, const cJSON *message)
{
    const char *role = cJSON_GetStringValue(member(message, "role"));
    if (role == NULL || role[0] == '\0') return false;
    return text_model_spells(model, role) || meant_role(role) == NULL;
}

static Status check_messages(const TextModel *model, const cJSON *messages, Error *err)
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
        if (!may_be_own_role(model, message)) TRY(check_role(message, index, err));
        TRY(check_content(message, index, err));
        TRY(check_tool_calls(message, index, err));
        if (role_is(message, "assistant")) TRY(check_weights(message, index, err));
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
        if (tools->valuestring[strspn(tools->valuestring, " \t\r\n")] == '\0') return OK;
        Error fault;
        if (json_parse(tools->valuestring, strlen(tools->valuestring), "tools", ret_owned,
                       &fault) != OK)
            return error_set(err, ERR_DATA, "%s\n  expected the JSON text of a list of tools",
                             fault.message);
        tools = *ret_owned;
        if (cJSON_IsNull(tools)) return OK;
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
    if (i > 0) *ret_tools = tools; /* an empty list makes some templates speak of tools */
    return OK;
}

static Status render_once(const TextModel *model, const ChatVariables *variables,
                          MissingContent missing, Rendering *ret, Error *err)
{
    cJSON *owned = NULL;
    TRY(messages_adapt(model, variables->messages, missing, &owned, err));
    ChatVariables adapted = *variables;
    if (owned != NULL) adapted.messages = owned;
    Status status = text_model_render(model, &adapted, ret, err);
    if (status == ERR_DATA) err->status = status = ERR_INVALID; /* the template's refusal */
    cJSON_Delete(owned);
    return status;
}

/* Some templates must see that there is no content, others fail on it: those get "". */
static Status render(const TextModel *model, const ChatVariables *variables, Rendering *ret,
                     Error *err)
{
    Status status = render_once(model, variables, model->missing_content, ret, err);
    if (status != ERR_INVALID || !lacks_content(variables->messages)) return status;
    return render_once(model, variables, CONTENT_EMPTY, ret, err);
}

/* What conversation_encode works on. */
typedef struct Encoder {
    const TextModel *model;
    const cJSON *messages;
    const ConversationOptions *options;
} Encoder;

static bool is_trained(const Encoder *encoder, const cJSON *message, size_t index)
{
    return role_is(message, "assistant") && index >= encoder->options->num_prompt_messages &&
           !message_is_masked(message);
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

/* Sets of kinds, bits 1 << OriginKind: what of each message came out. The calls of an answer count
 * where its turn is, not where the tool's reply names them. */
static uint8_t *rendered_kinds(const Rendering *rendering, int count)
{
    uint8_t *kinds = mem_calloc((size_t)count, sizeof *kinds);
    MessagePlace *places = message_places_find(rendering, (size_t)count);
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->message < 0) continue;
        bool quoted = span->kind == ORIGIN_TOOL_CALL && span_owner(places, span) != span->message;
        if (!quoted) kinds[span->message] |= (uint8_t)(1u << span->kind);
    }
    free(places);
    return kinds;
}

/* Has the caller told the template to have no reasoning? */
static bool is_reasoning_off(const cJSON *kwargs)
{
    return cJSON_IsFalse(member(kwargs, "enable_thinking")) ||
           cJSON_IsFalse(member(kwargs, "thinking"));
}

/* Reasoning that is to be learned and cannot be dropped as that of earlier turns, which the model
 * will not see again: that of the last answer. */
static bool needs_reasoning(const Encoder *encoder, const cJSON *message, int index)
{
    const cJSON *reasoning = message_reasoning(message);
    if (reasoning == NULL || is_blank_text(reasoning)) return false;
    for (const cJSON *later = message->next; later != NULL; later = later->next)
        if (role_is(later, "assistant") || role_is(later, "user")) return false;
    return is_trained(encoder, message, (size_t)index) &&
           !is_reasoning_off(encoder->options->template_kwargs);
}

/* A template that passes over a message, its calls or its reasoning without a word makes another
 * conversation of it than was given. */
static void describe_lost(const Encoder *encoder, const cJSON *message, int index, unsigned kinds,
                          Str *ret)
{
    static const char missing[] = "in what the chat template renders\n  expected: ";
    const unsigned role = 1u << ORIGIN_ROLE, reasoning = 1u << ORIGIN_REASONING,
                   call = 1u << ORIGIN_TOOL_CALL, other = 1u << ORIGIN_OTHER;
    if (!is_blank_text(member(message, "content")) && (kinds & ~role) == 0)
        str_printf(ret,
                   "messages[%d] (%s) does not appear %sroles and an order of them that the "
                   "template knows, usually an optional system message, then user and assistant "
                   "in turn",
                   index, member(message, "role")->valuestring, missing);
    else if (cJSON_GetArraySize(member(message, "tool_calls")) > 0 && (kinds & call) == 0)
        str_printf(ret, "messages[%d].tool_calls do not appear %sa chat template that knows tools",
                   index, missing);
    else if (cJSON_IsObject(member(message, "function_call")) && (kinds & (call | other)) == 0)
        str_printf(ret,
                   "messages[%d].function_call does not appear %sthe call under \"tool_calls\"",
                   index, missing);
    else if ((kinds & reasoning) == 0 && needs_reasoning(encoder, message, index))
        str_printf(ret,
                   "messages[%d].%s does not appear %sa chat template that renders the reasoning "
                   "of an answer",
                   index, message_reasoning(message)->string, missing);
}

/* Text of tools has no message; beside them only keyword arguments have none either. */
static bool shows_tools(const Rendering *rendering)
{
    for (size_t i = 0; i < rendering->num_spans; i++)
        if (rendering->span[i].kind == ORIGIN_OTHER && rendering->span[i].message < 0) return true;
    return false;
}

/* Do the tools change anything, if only a number computed from them? */
static bool tools_matter(const TextModel *model, const ChatVariables *variables,
                         const Rendering *rendering)
{
    if (variables->tools == NULL || shows_tools(rendering)) return true;
    if (model->tool_template != NULL) return false; /* another template without them */
    Error ignored;
    Rendering other = {0};
    ChatVariables without = *variables;
    without.tools = NULL;
    bool same = render(model, &without, &other, &ignored) == OK &&
                other.length == rendering->length &&
                memcmp(other.text, rendering->text, other.length) == 0;
    rendering_free(&other);
    return !same;
}

/* What left no trace, the first of it, of messages[from] and later; from 0 of the tools, too. NULL:
 * all is there. Owned. */
static char *find_lost(const Encoder *encoder, const ChatVariables *variables,
                       const Rendering *rendering, int from)
{
    const cJSON *messages = variables->messages;
    uint8_t *kinds = rendered_kinds(rendering, cJSON_GetArraySize(messages));
    Str text = {0};
    int index = 0;
    for (const cJSON *message = messages->child; message != NULL && text.length == 0;
         message = message->next, index++)
        if (index >= from) describe_lost(encoder, message, index, kinds[index], &text);
    if (from == 0 && text.length == 0 && !tools_matter(encoder->model, variables, rendering))
        str_puts(&text, "the tools do not appear in what the chat template renders\n"
                        "  expected: a chat template that knows tools");
    free(kinds);
    return text.length > 0 ? str_take(&text) : NULL;
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

/* Where special tokens are looked for: in text of the template (and role names, which some
 * templates build tokens from). */
static RangeList special_ranges(const Rendering *rendering)
{
    RangeList list = {0};
    bool joinable = false;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        bool allowed = span->kind == ORIGIN_TEMPLATE || span->kind == ORIGIN_ROLE;
        if (allowed) range_append(&list, span->begin, span->end, joinable);
        joinable = allowed;
    }
    return list;
}

/* A sentence on the special tokens that texts of the conversation spell, or NULL. Owned. */
static char *describe_withheld(const TextModel *model, const Rendering *rendering,
                               const Withheld *withheld)
{
    const char *token = tokenizer_id_token(model->tokenizer, withheld->first.id);
    char place[48] = "what is told to the chat template", times[48] = "";
    if (withheld->count == 0) return NULL;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->end <= withheld->first.begin || span->message < 0) continue;
        if (span->begin <= withheld->first.begin)
            snprintf(place, sizeof place, "messages[%d]", span->message);
        break;
    }
    if (withheld->count > 1)
        snprintf(times, sizeof times, ", the first of %zu such places", withheld->count);
    return mem_printf("%s spells the special token %s%s", place, QUOTED(token), times);
}

/* Takes text and spans where they are wanted. */
static void fill_conversation(const Encoder *encoder, const bool *trained, Rendering *rendering,
                              Encoding *encoding, TokenizedConversation *ret)
{
    *ret = (TokenizedConversation){.length = encoding->length};
    ret->token = mem_calloc(encoding->length, sizeof *ret->token);
    ret->loss_mask = mem_calloc(encoding->length, sizeof *ret->loss_mask);
    for (size_t i = 0; i < encoding->length; i++)
        ret->token[i] = encoding->span[i].id;
    MaskRequest request = {.rendering = rendering,
                           .encoding = encoding,
                           .trained = trained,
                           .num_messages = (size_t)cJSON_GetArraySize(encoder->messages),
                           .is_prompt = encoder->options->add_generation_prompt};
    ret->trained_tokens = loss_mask_fill(encoder->model, &request, ret->loss_mask);
    ret->spelled = describe_withheld(encoder->model, rendering, &encoding->withheld);
    if (!encoder->options->keep_text) return;
    ret->text = rendering->text;
    ret->text_length = rendering->length;
    ret->span = encoding->span;
    rendering->text = NULL;
    encoding->span = NULL;
}

static Status encode(const Encoder *encoder, TokenizerCache *cache, Rendering *rendering,
                     TokenizedConversation *ret, Error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(encoder->messages), at = 0;
    bool *trained = mem_calloc(count, sizeof(bool));
    const cJSON *message;
    cJSON_ArrayForEach(message, encoder->messages)
    {
        trained[at] = is_trained(encoder, message, at);
        at++;
    }
    RangeList ranges = special_ranges(rendering);
    SpecialRanges special = {
        .range = (const uint32_t(*)[2])ranges.range, .count = ranges.count, .added_anywhere = true};
    Encoding encoding = {0};
    Status status = tokenizer_encode(encoder->model->tokenizer, cache, rendering->text,
                                     rendering->length, &special, false, &encoding, err);
    if (status == OK) fill_conversation(encoder, trained, rendering, &encoding, ret);
    encoding_free(&encoding);
    free(ranges.range);
    free(trained);
    return status;
}

/* *ret_lost is what find_lost says of messages[from] and later. */
static Status render_checked(const Encoder *encoder, const cJSON *tools, int from, Rendering *ret,
                             char **ret_lost, Error *err)
{
    cJSON *owned_tools = NULL;
    const ConversationOptions *options = encoder->options;
    ChatVariables variables = {.messages = encoder->messages,
                               .kwargs = options->template_kwargs,
                               .add_generation_prompt = options->add_generation_prompt,
                               .now = options->now};
    TRY(check_messages(encoder->model, encoder->messages, err));
    Status status = find_tools(tools, &variables.tools, &owned_tools, err);
    if (status == OK) status = render(encoder->model, &variables, ret, err);
    if (status == OK) *ret_lost = find_lost(encoder, &variables, ret, from);
    cJSON_Delete(owned_tools);
    return status;
}

Status conversation_encode(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                           const cJSON *tools, const ConversationOptions *options,
                           TokenizedConversation *ret, Error *err)
{
    char *lost = NULL;
    Rendering rendering = {0};
    Encoder encoder = {model, messages, options};
    Status status = render_checked(&encoder, tools, 0, &rendering, &lost, err);
    if (status == OK) status = encode(&encoder, cache, &rendering, ret, err);
    if (status == OK) {
        ret->lost = lost;
        lost = NULL;
    }
    free(lost);
    rendering_free(&rendering);
    return status;
}

/* ---- what follows a turn ---- */

/* Where the content of a message ends in the rendering. False unless all of it came out there, as
 * it is. */
static bool find_content_end(const Rendering *rendering, const cJSON *messages, int turn,
                             uint32_t *ret)
{
    const char *content =
        cJSON_GetStringValue(member(cJSON_GetArrayItem(messages, turn), "content"));
    uint32_t begin = 0, end = 0;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->message != turn || span->kind != ORIGIN_CONTENT) continue;
        if (end != span->begin || end == 0) begin = span->begin;
        end = span->end;
    }
    *ret = end;
    return content != NULL && end - begin == strlen(content) && end > begin &&
           memcmp(rendering->text + begin, content, end - begin) == 0;
}

/* Leaves of a rendering what stands from `begin` on. */
static void cut_before(Rendering *rendering, uint32_t begin)
{
    size_t kept = 0;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        OriginSpan span = rendering->span[i];
        if (span.end <= begin) continue;
        span.begin = span.begin < begin ? 0 : span.begin - begin;
        span.end -= begin;
        rendering->span[kept++] = span;
    }
    rendering->num_spans = kept;
    rendering->length -= begin;
    memmove(rendering->text, rendering->text + begin, rendering->length + 1);
}

Status conversation_follow(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                           int turn, const cJSON *tools, const ConversationOptions *options,
                           TokenizedConversation *ret, Error *err)
{
    uint32_t begin = 0;
    Rendering rendering = {0};
    ConversationOptions untrained = *options;
    untrained.num_prompt_messages = (size_t)cJSON_GetArraySize(messages);
    Encoder encoder = {model, messages, &untrained};
    char *lost = NULL;
    Status status = render_checked(&encoder, tools, turn + 1, &rendering, &lost, err);
    if (lost != NULL)
        status = error_set(err, ERR_UNSUPPORTED,
                           "the chat template cannot continue a conversation with tools: %s", lost);
    free(lost);
    if (status == OK && !find_content_end(&rendering, messages, turn, &begin))
        status = error_set(err, ERR_UNSUPPORTED,
                           "the chat template does not render the content of messages[%d] as it "
                           "is: what follows a generated turn cannot be told",
                           turn);
    if (status == OK) {
        cut_before(&rendering, begin);
        status = encode(&encoder, cache, &rendering, ret, err);
    }
    if (status == OK) {
        memset(ret->loss_mask, 0, ret->length);
        ret->trained_tokens = 0;
    }
    rendering_free(&rendering);
    return status;
}

Status conversation_check_kwargs(const cJSON *kwargs, Error *err)
{
    static const char *const taken[] = {"messages", "tools", "add_generation_prompt"};
    for (const cJSON *item = kwargs != NULL ? kwargs->child : NULL; item != NULL; item = item->next)
        for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
            if (strcmp(item->string, taken[i]) == 0)
                return error_set(err, ERR_DATA,
                                 "\"%s\" is not the caller's to give a template: "
                                 "it is made from the conversation",
                                 taken[i]);
    return OK;
}

void tokenized_conversation_free(TokenizedConversation *conversation)
{
    free(conversation->token);
    free(conversation->loss_mask);
    free(conversation->text);
    free(conversation->span);
    free(conversation->lost);
    free(conversation->spelled);
    *conversation = (TokenizedConversation){0};
}
