#include "rollout_worker/chat_record.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "rollout_worker/chat_messages.h"
#include "rollout_worker/record.h"
#include "text/conversation.h"

static const cJSON *value_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

Status chat_reader_create(const JobConfig *config, ChatReader *ret, Error *err)
{
    static const char key[] = "data.apply_chat_template_kwargs";
    const char *text = config->data.apply_chat_template_kwargs;
    ChatReader reader = {.key = eval_set_record_keys(config, -1)};
    if (text != NULL) TRY(json_parse(text, strlen(text), key, &reader.template_kwargs, err));
    Status status = conversation_check_kwargs(reader.template_kwargs, err);
    if (status != OK) {
        chat_reader_clear(&reader);
        err->status = ERR_INVALID;
        return error_prefix(err, "%s", key);
    }
    *ret = reader;
    return OK;
}

void chat_reader_clear(ChatReader *reader)
{
    cJSON_Delete(reader->template_kwargs);
    *reader = (ChatReader){0};
}

void chat_record_clear(ChatRecord *record)
{
    chat_conversation_clear(&record->conversation);
    cJSON_Delete(record->owned_tools);
    cJSON_Delete(record->owned_kwargs);
    *record = (ChatRecord){0};
}

/* ---- tools ---- */

static const char older_key[] = "functions"; /* of OpenAI, before there were tools */

/* The tools stand at the tool key of the record, at "tools" in its metadata, or at "functions". */
static Status find_tools(const ChatReader *reader, const cJSON *record, const char *source,
                         const cJSON **ret, Error *err)
{
    RecordPlace place = {source, reader->key.tool};
    const cJSON *tools = record_value(record, place.key);
    if (tools == NULL) {
        const cJSON *metadata = record_value(record, reader->key.metadata);
        place.key = "metadata.tools";
        tools = cJSON_IsObject(metadata) ? value_of(metadata, "tools") : NULL;
    }
    if (tools == NULL && cJSON_IsArray(value_of(record, older_key)))
        tools = value_of(record, older_key);
    if (tools != NULL && !cJSON_IsArray(tools) && !cJSON_IsString(tools))
        return refuse_type(&place, tools, "a list of tools, or a string with such a list in JSON",
                           "convert it, or name another key in data.tool_key", err);
    *ret = tools;
    return OK;
}

static bool is_bare_tool(const cJSON *tool)
{
    return cJSON_IsObject(tool) && cJSON_IsString(value_of(tool, "name")) &&
           value_of(tool, "function") == NULL && value_of(tool, "type") == NULL;
}

/* LLaMA-Factory's shapes have tools as {"name", "description", "parameters"}; templates expect that
 * inside {"type": "function", "function": ...}. Text that is not JSON is left to be refused later.
 */
static void wrap_bare_tools(ChatRecord *ret)
{
    const cJSON *tools = ret->tools;
    cJSON *parsed = NULL;
    if (cJSON_IsString(tools)) {
        if (json_parse(tools->valuestring, strlen(tools->valuestring), "", &parsed, NULL) != OK)
            return;
        tools = parsed;
    }
    cJSON *list = cJSON_CreateArray();
    bool bare = false;
    for (const cJSON *tool = cJSON_IsArray(tools) ? tools->child : NULL; tool != NULL;
         tool = tool->next) {
        cJSON *copy = cJSON_Duplicate(tool, true);
        bare = bare || is_bare_tool(tool);
        if (is_bare_tool(tool)) {
            cJSON *wrapped = cJSON_CreateObject();
            cJSON_AddStringToObject(wrapped, "type", "function");
            cJSON_AddItemToObject(wrapped, "function", copy);
            copy = wrapped;
        }
        cJSON_AddItemToArray(list, copy);
    }
    cJSON_Delete(parsed);
    if (bare) {
        ret->tools = ret->owned_tools = list;
        list = NULL;
    }
    cJSON_Delete(list);
}

/* ---- what the template is told ---- */

/* The record's own stand under TRL's name or slime's. */
static Status find_kwargs(const cJSON *record, const char *source, const cJSON **ret, Error *err)
{
    static const char *const keys[] = {"chat_template_kwargs", "apply_chat_template_kwargs"};
    *ret = NULL;
    for (int i = 0; i < 2; i++) {
        RecordPlace place = {source, keys[i]};
        const cJSON *kwargs = value_of(record, keys[i]);
        if (kwargs == NULL) continue;
        if (*ret != NULL)
            return record_refuse(err, source, "two keys say what the chat template is told",
                                 "both \"chat_template_kwargs\" and \"apply_chat_template_kwargs\"",
                                 "one of them", "remove one");
        if (!cJSON_IsObject(kwargs))
            return refuse_type(&place, kwargs, "an object, as in {\"enable_thinking\": false}",
                               "correct the record, or drop it", err);
        Error fault;
        if (conversation_check_kwargs(kwargs, &fault) != OK)
            return record_refuse(err, source, fault.message, keys[i],
                                 "names of the chat template's own, such as enable_thinking",
                                 "remove it there");
        *ret = kwargs;
    }
    return OK;
}

/* The record's win over the job's, name by name. */
static void merge_kwargs(const ChatReader *reader, const cJSON *own, ChatRecord *ret)
{
    const cJSON *job = reader->template_kwargs;
    ret->template_kwargs = own != NULL ? own : job;
    if (own == NULL || job == NULL) return;
    cJSON *merged = cJSON_CreateObject();
    for (const cJSON *item = own->child; item != NULL; item = item->next)
        cJSON_AddItemReferenceToObject(merged, item->string, (cJSON *)item);
    for (const cJSON *item = job->child; item != NULL; item = item->next)
        if (cJSON_GetObjectItemCaseSensitive(own, item->string) == NULL)
            cJSON_AddItemReferenceToObject(merged, item->string, (cJSON *)item);
    ret->template_kwargs = ret->owned_kwargs = merged;
}

/* ---- the whole ---- */

static Status check_message_keys(const ChatConversation *conversation, const char *source,
                                 Error *err)
{
    const cJSON *messages = conversation->messages;
    const char *key = conversation->list_key;
    int index = -conversation->num_added;
    for (const cJSON *message = messages->child; message != NULL; message = message->next) {
        char place[64];
        index++;
        if (!cJSON_IsObject(message) || record_check_keys(message, source, "", NULL) == OK)
            continue;
        snprintf(place, sizeof place, " in %.40s[%d]", key != NULL ? key : "messages", index - 1);
        return record_check_keys(message, source, place, err);
    }
    return OK;
}

Status chat_record_read(const ChatReader *reader, const cJSON *record, const char *source,
                        ChatRecord *ret, Error *err)
{
    const cJSON *kwargs = NULL;
    ChatRecord read = {0};
    TRY(record_check_keys(record, source, "", err));
    Status status =
        chat_conversation_read(record, reader->key.input, source, &read.conversation, err);
    if (status == OK) status = check_message_keys(&read.conversation, source, err);
    if (status == OK) status = find_tools(reader, record, source, &read.tools, err);
    if (status == OK) status = find_kwargs(record, source, &kwargs, err);
    if (status != OK) {
        chat_record_clear(&read);
        return status;
    }
    bool older = read.tools != NULL && strcmp(read.tools->string, older_key) == 0;
    ChatShape shape = read.conversation.shape;
    if (older || shape == SHAPE_CONVERSATIONS || shape == SHAPE_ALPACA) wrap_bare_tools(&read);
    merge_kwargs(reader, kwargs, &read);
    read.label = record_value(record, reader->key.label);
    read.label_key = reader->key.label;
    read.metadata = record_value(record, reader->key.metadata);
    *ret = read;
    return OK;
}
