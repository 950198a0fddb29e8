#include "rollout_worker/generate/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/label.h"
#include "rollout_worker/record.h"

static bool role_is(const cJSON *message, const char *role)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(message, "role");
    return cJSON_IsString(value) && strcmp(value->valuestring, role) == 0;
}

/* How many of the messages are the prompt: those that the record says are; else all up to the last
 * user message; else, where nobody asked, those before the last turn of the assistant. */
static int count_prompt(const ChatConversation *conversation)
{
    int given = conversation->num_prompt_messages, last_user = 0, last_other = 0, at = 0;
    const cJSON *message;
    cJSON_ArrayForEach(message, conversation->messages)
    {
        at++;
        if (given > 0 && at > given) break;
        if (role_is(message, "user")) last_user = at;
        if (!role_is(message, "assistant")) last_other = at;
    }
    if (given > 0) return last_other; /* an answer is not asked for behind an answer */
    return last_user > 0 ? last_user : last_other;
}

static Status take_prompt(Prompt *prompt, Error *err)
{
    const ChatConversation *conversation = &prompt->chat.conversation;
    int count = count_prompt(conversation), at = 0;
    if (count == 0)
        return record_refuse(err, prompt->record->source, "there is nothing to answer", NULL,
                             "a message of the user before those of the assistant",
                             "add the question, or drop the record");
    prompt->messages = cJSON_CreateArray();
    cJSON *message;
    cJSON_ArrayForEach(message, conversation->messages) if (at++ < count)
        CHECK(cJSON_AddItemReferenceToArray(prompt->messages, message));
    return OK;
}

Status prompt_read(const PromptUse *use, TokenizerCache *cache, const RolloutRecord *record,
                   Prompt *ret, Error *err)
{
    ConversationOptions options = {.add_generation_prompt = true, .keep_text = true};
    ret->record = record;
    if (record->error[0] != '\0') return error_set(err, ERR_DATA, "%s", record->error);
    TRY(record_parse(record->text, record->length, record->source, &ret->json, err));
    TRY(chat_text_read(use->text, record, ret->json, &ret->chat, err));
    TRY(take_prompt(ret, err));
    int count = cJSON_GetArraySize(ret->messages);
    if (ret->chat.tools == NULL) ret->chat.tools = use->tools;
    ret->label = label_take(&ret->chat, count);
    if (use->rewards != NULL)
        TRY(label_check(use->rewards, record, ret->json, &ret->chat, ret->label, err));
    TRY(chat_text_encode(use->text, cache, record, &ret->chat, ret->messages, options,
                         &ret->conversation, err));
    chat_notes_of_prompt(record, &ret->chat, count, &ret->conversation, &ret->notes);
    return OK;
}

void prompt_clear(Prompt *prompt)
{
    tokenized_conversation_free(&prompt->conversation);
    free(prompt->label);
    chat_notes_clear(&prompt->notes);
    cJSON_Delete(prompt->messages);
    chat_record_clear(&prompt->chat);
    cJSON_Delete(prompt->json);
    *prompt = (Prompt){0};
}

/* A sample has to have room for one token of an answer. */
static void reject_too_long(const Prompt *prompt, long long max_length, Sample *ret)
{
    char *message = mem_printf("%s: the prompt has %zu tokens and leaves no room for an answer\n"
                               "  expected: at most %lld (data.max_length less one)\n"
                               "  to do: raise data.max_length, or drop the record",
                               prompt->record->source, prompt->conversation.length, max_length - 1);
    rollout_reject(ret, REJECT_TOO_LONG, message);
    free(message);
}

bool prompt_is_refused(const Prompt *prompt, const JobConfig *config, bool needs_room, Sample *ret)
{
    bool too_long = prompt->conversation.length >= (size_t)config->data.max_length;
    const char *lost = prompt->notes.text[NOTE_NOT_RENDERED];
    if (config->data.not_rendered != POLICY_KEEP && lost != NULL)
        rollout_reject(ret, REJECT_NOT_RENDERED, lost);
    else if (needs_room && too_long)
        reject_too_long(prompt, (long long)config->data.max_length, ret);
    else
        return false;
    return true;
}
