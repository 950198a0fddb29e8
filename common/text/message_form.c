/* What a template gets of a conversation: the messages as transformers passes them to it (without
 * members that are null, reasoning under its standard names), and in a form that this template
 * takes: content as a string or as parts, arguments of tool calls as an object or as JSON text. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/text_model.h"

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static void add_reference(cJSON *object, const char *key, const cJSON *value)
{
    cJSON_AddItemReferenceToObject(object, key, (cJSON *)value);
}

const cJSON *message_reasoning(const cJSON *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const cJSON *value = member(message, names[i]);
        if (value != NULL && !cJSON_IsNull(value)) return value;
    }
    return NULL;
}

/* ---- content ---- */

static char *join_parts(const cJSON *parts)
{
    Str text = {0};
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) str_puts(&text, member(part, "text")->valuestring);
    return str_take(&text);
}

/* The content in the form that the template takes, or NULL if it has it already. */
static cJSON *adapt_content(const TextModel *model, const cJSON *content, MissingContent missing)
{
    if (content == NULL || cJSON_IsNull(content))
        return missing == CONTENT_EMPTY  ? cJSON_CreateString("")
               : missing == CONTENT_NULL ? cJSON_CreateNull()
                                         : NULL;
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

/* ---- tool calls ---- */

/* Where the name and the arguments of a call stand: in its function, or in the call itself. */
static const cJSON *call_function(const cJSON *call)
{
    const cJSON *function = member(call, "function");
    return cJSON_IsObject(function) ? function : call;
}

static bool wants_object(const TextModel *model, const cJSON *arguments)
{
    return cJSON_IsString(arguments) && model->takes_argument_objects &&
           !model->takes_argument_texts;
}

static bool wants_text(const TextModel *model, const cJSON *arguments)
{
    return (cJSON_IsObject(arguments) || cJSON_IsArray(arguments)) && model->takes_argument_texts &&
           !model->takes_argument_objects;
}

/* The other form of the arguments. No text at all stands for no arguments. */
static Status convert_arguments(const cJSON *arguments, cJSON **ret, Error *err)
{
    const char *text = arguments->valuestring;
    if (!cJSON_IsString(arguments)) {
        Str json = {0};
        json_append(&json, arguments);
        *ret = cJSON_CreateString(str_text(&json));
        str_free(&json);
        return OK;
    }
    if (text[strspn(text, " \t\r\n")] == '\0') text = "{}";
    return json_parse(text, strlen(text), "arguments", ret, err);
}

/* A copy of `object` that refers to its members, but for `replaced`, which `value` (taken) stands
 * for. */
static cJSON *copy_with(const cJSON *object, const cJSON *replaced, cJSON *value)
{
    cJSON *copy = cJSON_CreateObject();
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        if (item == replaced)
            cJSON_AddItemToObject(copy, item->string, value);
        else
            add_reference(copy, item->string, item);
    }
    return copy;
}

/* Appends the call to *list, its arguments in the form that the template takes. */
static Status adapt_call(const TextModel *model, const cJSON *call, cJSON *list, bool *ret_changed,
                         Error *err)
{
    const cJSON *function = call_function(call), *arguments = member(function, "arguments");
    if (!wants_object(model, arguments) && !wants_text(model, arguments)) {
        cJSON_AddItemReferenceToArray(list, (cJSON *)call);
        return OK;
    }
    cJSON *converted = NULL;
    TRY(convert_arguments(arguments, &converted, err));
    cJSON *copy = copy_with(function, arguments, converted);
    if (function != call) copy = copy_with(call, function, copy);
    cJSON_AddItemToArray(list, copy);
    *ret_changed = true;
    return OK;
}

/* The tool calls in the form that the template takes: *ret is NULL if they have it already. */
static Status adapt_calls(const TextModel *model, const cJSON *calls, int index, cJSON **ret,
                          Error *err)
{
    if (!cJSON_IsArray(calls) || calls->child == NULL) return OK;
    cJSON *list = cJSON_CreateArray();
    bool changed = false;
    Status status = OK;
    int i = 0;
    Error fault;
    for (const cJSON *call = calls->child; call != NULL && status == OK; call = call->next, i++) {
        status = adapt_call(model, call, list, &changed, &fault);
        if (status != OK)
            error_set(err, status,
                      "messages[%d].tool_calls[%d] has arguments that are not JSON: %s\n"
                      "  expected an object, or the JSON text of one",
                      index, i, fault.message);
    }
    if (status == OK && changed) {
        *ret = list;
        list = NULL;
    }
    cJSON_Delete(list);
    return status;
}

/* ---- messages ---- */

/* The message with `content` and `calls` (both taken; NULL: its own) and reasoning under its
 * standard name and the one that gpt-oss uses, as transformers fills them in. */
static cJSON *rebuild_message(const cJSON *message, cJSON *content, cJSON *calls)
{
    const cJSON *reasoning = message_reasoning(message);
    cJSON *rebuilt = cJSON_CreateObject();
    if (reasoning != NULL && member(message, "thinking") == NULL)
        add_reference(rebuilt, "thinking", reasoning);
    for (const cJSON *item = message->child; item != NULL; item = item->next) {
        if (cJSON_IsNull(item)) continue;
        if (content != NULL && strcmp(item->string, "content") == 0) continue;
        if (calls != NULL && strcmp(item->string, "tool_calls") == 0) continue;
        if (reasoning != NULL && strcmp(item->string, "reasoning_content") == 0) continue;
        add_reference(rebuilt, item->string, item);
    }
    if (reasoning != NULL) add_reference(rebuilt, "reasoning_content", reasoning);
    if (content != NULL) cJSON_AddItemToObject(rebuilt, "content", content);
    if (calls != NULL) cJSON_AddItemToObject(rebuilt, "tool_calls", calls);
    return rebuilt;
}

/* Whether the message is already what the template takes: most are, and cost nothing then. */
static bool message_stays(const TextModel *model, const cJSON *message)
{
    const cJSON *content = NULL, *calls = NULL;
    for (const cJSON *item = message->child; item != NULL; item = item->next) {
        if (cJSON_IsNull(item)) return false;
        if (strcmp(item->string, "content") == 0) content = item;
        if (strcmp(item->string, "tool_calls") == 0) calls = item;
    }
    if (message_reasoning(message) != NULL) return false;
    if (!cJSON_IsString(content) || (model->takes_parts && !model->takes_strings)) return false;
    const cJSON *call = cJSON_IsArray(calls) ? calls->child : NULL;
    for (; call != NULL; call = call->next) {
        const cJSON *arguments = member(call_function(call), "arguments");
        if (wants_object(model, arguments) || wants_text(model, arguments)) return false;
    }
    return true;
}

static bool all_stay(const TextModel *model, const cJSON *messages)
{
    for (const cJSON *message = messages->child; message != NULL; message = message->next)
        if (!message_stays(model, message)) return false;
    return true;
}

/* Appends the message to *list in the form that the template takes. */
static Status adapt_message(const TextModel *model, const cJSON *message, int index,
                            MissingContent missing, cJSON *list, Error *err)
{
    cJSON *calls = NULL;
    if (message_stays(model, message)) {
        cJSON_AddItemReferenceToArray(list, (cJSON *)message);
        return OK;
    }
    TRY(adapt_calls(model, member(message, "tool_calls"), index, &calls, err));
    cJSON *content = adapt_content(model, member(message, "content"), missing);
    cJSON_AddItemToArray(list, rebuild_message(message, content, calls));
    return OK;
}

Status messages_adapt(const TextModel *model, const cJSON *messages, MissingContent missing,
                      cJSON **ret_owned, Error *err)
{
    if (all_stay(model, messages)) return OK;
    cJSON *list = cJSON_CreateArray();
    int index = 0;
    Status status = OK;
    for (const cJSON *message = messages->child; message != NULL && status == OK;
         message = message->next)
        status = adapt_message(model, message, index++, missing, list, err);
    if (status == OK) {
        *ret_owned = list;
        list = NULL;
    }
    cJSON_Delete(list);
    return status;
}
