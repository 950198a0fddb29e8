#include "rollout_worker/chat_check.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- arguments ---- */

static const cJSON *function_of(const cJSON *call)
{
    const cJSON *function = member(call, "function");
    return cJSON_IsObject(function) ? function : call;
}

/* What the arguments are in place of an object, or NULL. `err` is for a text that is no JSON. */
static const char *bad_arguments(const cJSON *call, bool prints_texts, Error *err)
{
    const cJSON *arguments = member(function_of(call), "arguments");
    cJSON *json = NULL;
    if (arguments == NULL) return "there are none";
    if (!cJSON_IsString(arguments))
        return cJSON_IsObject(arguments) ? NULL : json_type_name(arguments);
    const char *text = arguments->valuestring, *what = NULL;
    if (text[strspn(text, " \t\r\n")] == '\0') return prints_texts ? "an empty text" : NULL;
    if (json_parse(text, strlen(text), "arguments", &json, err) != OK) return err->message;
    if (!cJSON_IsObject(json)) what = json_type_name(json);
    cJSON_Delete(json);
    return what;
}

char *chat_find_bad_arguments(const cJSON *messages, bool prints_texts)
{
    int m = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next, m++) {
        const cJSON *calls = member(message, "tool_calls");
        int c = 0;
        for (const cJSON *call = cJSON_IsArray(calls) ? calls->child : NULL; call != NULL;
             call = call->next, c++) {
            Error err = {0};
            const char *what = bad_arguments(call, prints_texts, &err);
            if (what != NULL)
                return mem_printf("messages[%d].tool_calls[%d] has arguments that are neither an "
                                  "object nor the JSON text of one: %s",
                                  m, c, what);
        }
    }
    return NULL;
}

char *chat_find_unnamed_call(const cJSON *messages)
{
    int m = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next, m++) {
        const cJSON *calls = member(message, "tool_calls");
        int c = 0;
        for (const cJSON *call = cJSON_IsArray(calls) ? calls->child : NULL; call != NULL;
             call = call->next, c++) {
            const cJSON *name = member(function_of(call), "name");
            if (cJSON_IsString(name) && name->valuestring[0] != '\0') continue;
            return mem_printf("messages[%d].tool_calls[%d] has no name of a function: %s", m, c,
                              name == NULL           ? "it is missing"
                              : cJSON_IsString(name) ? "it is empty"
                                                     : json_type_name(name));
        }
    }
    return NULL;
}

/* ---- answers ---- */

static bool is_blank(const cJSON *content)
{
    if (cJSON_IsString(content))
        return content->valuestring[strspn(content->valuestring, " \t\r\n")] == '\0';
    if (!cJSON_IsArray(content)) return true;
    for (const cJSON *part = content->child; part != NULL; part = part->next)
        if (!is_blank(member(part, "text"))) return false;
    return true;
}

static bool is_empty_answer(const cJSON *message)
{
    static const char *const thoughts[] = {"reasoning_content", "thinking", "reasoning"};
    const cJSON *role = member(message, "role");
    if (!cJSON_IsString(role) || strcmp(role->valuestring, "assistant") != 0) return false;
    for (int i = 0; i < 3; i++)
        if (!is_blank(member(message, thoughts[i]))) return false;
    return is_blank(member(message, "content")) &&
           cJSON_GetArraySize(member(message, "tool_calls")) == 0 && !message_is_masked(message);
}

char *chat_find_empty_answer(const cJSON *messages, int first)
{
    int m = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next, m++)
        if (m >= first && is_empty_answer(message))
            return mem_printf("messages[%d] is an answer that says nothing", m);
    return NULL;
}

/* ---- all of it ---- */

/* "file:line: <what>" and a line on what becomes of it; takes `what`, which may be NULL. */
static char *complete(const RolloutRecord *record, const ChatRecord *chat, char *what,
                      const char *fate)
{
    if (what == NULL) return NULL;
    char *named = chat_text_own_names(chat, what);
    char *text = mem_printf("%s: %s\n  %s", record->source, named, fate);
    free(named);
    free(what);
    return text;
}

static void note_spelled(const RolloutRecord *record, const ChatRecord *chat,
                         const TokenizedConversation *encoded, ChatNotes *ret)
{
    if (encoded->spelled == NULL) return;
    ret->text[NOTE_SPELLED_CONTROL] =
        complete(record, chat, mem_strdup(encoded->spelled),
                 "it stays text here; transformers would make the token of it");
}

void chat_notes_find(const ChatText *text, const RolloutRecord *record, const ChatRecord *chat,
                     const TokenizedConversation *encoded, ChatNotes *ret)
{
    const ChatConversation *conversation = &chat->conversation;
    const cJSON *messages = conversation->messages;
    bool prints_texts = !text_model_parses_arguments(text->model);
    ret->text[NOTE_NOT_RENDERED] = chat_text_lost(record, chat, encoded);
    ret->text[NOTE_EMPTY_ANSWER] =
        complete(record, chat, chat_find_empty_answer(messages, conversation->num_prompt_messages),
                 "it is trained as the end of a turn and no more");
    ret->text[NOTE_BAD_ARGUMENTS] =
        complete(record, chat, chat_find_bad_arguments(messages, prints_texts),
                 "they are trained as the template writes them");
    ret->text[NOTE_UNNAMED_CALL] = complete(record, chat, chat_find_unnamed_call(messages),
                                            "it is trained as the template writes it");
    note_spelled(record, chat, encoded, ret);
}

void chat_notes_of_prompt(const RolloutRecord *record, const ChatRecord *chat, int num_prompt,
                          const TokenizedConversation *encoded, ChatNotes *ret)
{
    ret->text[NOTE_NOT_RENDERED] = chat_text_lost(record, chat, encoded);
    note_spelled(record, chat, encoded, ret);
    bool alone = chat->conversation.shape == SHAPE_PROMPT;
    if (!alone || chat->conversation.num_prompt_messages <= num_prompt) return;
    ret->text[NOTE_PREFILL_CUT] = complete(
        record, chat, mem_printf("messages[%d] ends the prompt, and is an assistant's", num_prompt),
        "it is left out: an answer is generated to what stands before it");
}

void chat_notes_clear(ChatNotes *notes)
{
    for (int i = 0; i < NOTE_COUNT; i++)
        free(notes->text[i]);
    *notes = (ChatNotes){0};
}

void chat_notes_put(const ChatNotes *notes, Sample *sample)
{
    if (sample->status == SAMPLE_REJECTED) return;
    for (int i = 0; i < NOTE_COUNT; i++) {
        if (notes->text[i] == NULL) continue;
        sample->notes |= 1u << i;
        sample->note_message[i] = mem_strdup(notes->text[i]);
    }
}
