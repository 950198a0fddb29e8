/* Rollout function `sft`: a conversation becomes one sample: rendered whole by the model's chat
 * template, tokenized, and masked so that only what the assistant said carries loss
 * (text/conversation.h). The record's keys are those of job.yaml's data section. What is too long
 * or has nothing to train is told apart from what is wrong: the controller applies the policies
 * skip and stop, this function only truncates. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/chat_check.h"
#include "rollout_worker/chat_text.h"
#include "rollout_worker/record.h"

#define TOKENIZER_CACHE_BYTES (4u << 20) /* per thread */

static void sft_close(void *shared)
{
    if (shared == NULL) return;
    chat_text_close(shared);
    free(shared);
}

static Status sft_open(const JobConfig *config, void **ret_shared, Error *err)
{
    ChatText text = {0};
    TRY(chat_text_open(config, &text, err));
    ChatText *shared = mem_alloc(sizeof *shared);
    *shared = text;
    *ret_shared = shared;
    return OK;
}

static void *sft_open_thread(const void *shared)
{
    const ChatText *text = shared;
    return tokenizer_cache_create(text_model_tokenizer(text->model), TOKENIZER_CACHE_BYTES);
}

static void sft_close_thread(void *scratch)
{
    tokenizer_cache_destroy(scratch);
}

/* ---- from tokens to a sample ---- */

static void reject_too_long(const RolloutRecord *record, size_t length, size_t length_max,
                            Sample *ret)
{
    char *message = mem_printf("%s: the conversation has %zu tokens\n"
                               "  expected: at most %zu (data.max_length)\n"
                               "  to do: raise data.max_length, or set data.too_long to truncate",
                               record->source, length, length_max);
    rollout_reject(ret, REJECT_TOO_LONG, message);
    free(message);
}

static void reject_untrained(const RolloutRecord *record, size_t length, size_t whole, Sample *ret)
{
    char *message =
        length < whole
            ? mem_printf("%s: none of the first %zu tokens carries loss\n"
                         "  found: a conversation of %zu tokens that was truncated\n"
                         "  expected: assistant text within data.max_length\n"
                         "  to do: raise data.max_length, or drop the record",
                         record->source, length, whole)
            : mem_printf(
                  "%s: no token carries loss\n"
                  "  found: %zu tokens, none of them from an assistant message that is trained\n"
                  "  expected: at least one assistant message (without \"step_loss_mask\": 0)\n"
                  "  to do: add the answer, or drop the record",
                  record->source, length);
    rollout_reject(ret, REJECT_NOTHING_TO_TRAIN, message);
    free(message);
}

/* Makes the sample from the first tokens of the conversation, whose arrays it takes. */
static void fill_sample(const ChatText *text, const RolloutRecord *record,
                        TokenizedConversation *conversation, Sample *ret)
{
    size_t whole = conversation->length, length = whole;
    size_t length_max = (size_t)text->config->data.max_length;
    if (length > length_max) {
        if (text->config->data.too_long != POLICY_TRUNCATE) {
            reject_too_long(record, length, length_max, ret);
            return;
        }
        length = length_max;
    }
    const uint8_t *first = length > 0 ? memchr(conversation->loss_mask, 1, length) : NULL;
    if (first == NULL) {
        reject_untrained(record, length, whole, ret);
        return;
    }
    ret->status = length < whole ? SAMPLE_TRUNCATED : SAMPLE_COMPLETED;
    ret->length = (int32_t)length;
    ret->prompt_length = (int32_t)(first - conversation->loss_mask);
    ret->token = mem_realloc(conversation->token, length, sizeof *ret->token);
    ret->loss_mask = mem_realloc(conversation->loss_mask, length, 1);
    conversation->token = NULL;
    conversation->loss_mask = NULL;
}

/* A second set of the arrays that a sample takes. */
static TokenizedConversation copy_tokens(const TokenizedConversation *conversation)
{
    size_t length = conversation->length;
    TokenizedConversation copy = {.length = length};
    copy.token = mem_calloc(length, sizeof *copy.token);
    copy.loss_mask = mem_calloc(length, sizeof *copy.loss_mask);
    memcpy(copy.token, conversation->token, length * sizeof *copy.token);
    memcpy(copy.loss_mask, conversation->loss_mask, length);
    return copy;
}

/* ---- from a record to tokens ---- */

/* A prompt alone is a record of RL: there is nothing in it to learn from here. */
static bool has_no_answer(const ChatConversation *conversation)
{
    int given = conversation->num_prompt_messages;
    return given > 0 && given == cJSON_GetArraySize(conversation->messages);
}

/* ERR_NOT_FOUND, which is REJECT_NOTHING_TO_TRAIN. */
static Status refuse_no_answer(const RolloutRecord *record, const ChatConversation *conversation,
                               Error *err)
{
    bool alone = conversation->shape == SHAPE_PROMPT;
    record_refuse(err, record->source,
                  alone ? "the record holds a prompt and no answer to learn"
                        : "\"label\" is false: the answer is one not to be learned",
                  NULL, "an answer under \"completion\", or a list of messages with one",
                  alone ? "add the answer, or name the key of a whole conversation in "
                          "data.input_key"
                        : "drop the record, or leave data.nothing_to_train at skip");
    return err->status = ERR_NOT_FOUND;
}

/* A record on its way. */
typedef struct SftTask {
    const ChatText *text;
    TokenizerCache *cache;
    const RolloutRecord *record;
    RolloutTrace *trace; /* NULL: nobody looks */
} SftTask;

static Status encode(const SftTask *task, const cJSON *json, TokenizedConversation *ret,
                     ChatNotes *notes, Error *err)
{
    const RolloutRecord *record = task->record;
    ChatRecord chat = {0};
    TRY(chat_text_read(task->text, record, json, &chat, err));
    const ChatConversation *conversation = &chat.conversation;
    ConversationOptions options = {
        .num_prompt_messages = (size_t)conversation->num_prompt_messages,
        .keep_text = task->trace != NULL,
    };
    if (task->trace != NULL) task->trace->shape = chat_shape_name(conversation->shape);
    Status status = chat_text_encode(task->text, task->cache, record, &chat, conversation->messages,
                                     options, ret, err);
    /* There is no row before the first token whose logits could be trained to predict it. */
    if (status == OK && ret->length > 0) ret->loss_mask[0] = 0;
    if (status == OK && has_no_answer(conversation))
        status = refuse_no_answer(record, conversation, err);
    if (status == OK) chat_notes_find(task->text, record, &chat, ret, notes);
    chat_record_clear(&chat);
    return status;
}

static void make_sample(const SftTask *task, Sample *ret)
{
    const RolloutRecord *record = task->record;
    if (record->error[0] != '\0') {
        rollout_reject(ret, REJECT_BAD_RECORD, record->error);
        return;
    }
    Error err = {0};
    cJSON *json = NULL;
    TokenizedConversation conversation = {0}, taken = {0};
    ChatNotes notes = {0};
    Status status = record_parse(record->text, record->length, record->source, &json, &err);
    if (status == OK) status = encode(task, json, &conversation, &notes, &err);
    if (status == OK && task->trace != NULL) taken = copy_tokens(&conversation);
    if (status != OK)
        rollout_reject(ret, chat_reject_reason(status), err.message);
    else if (notes.text[NOTE_NOT_RENDERED] != NULL &&
             task->text->config->data.not_rendered != POLICY_KEEP)
        rollout_reject(ret, REJECT_NOT_RENDERED, notes.text[NOTE_NOT_RENDERED]);
    else
        fill_sample(task->text, record, task->trace != NULL ? &taken : &conversation, ret);
    chat_notes_put(&notes, ret);
    if (task->trace != NULL) {
        task->trace->conversation = conversation;
        conversation = (TokenizedConversation){0};
    }
    tokenized_conversation_free(&taken);
    tokenized_conversation_free(&conversation);
    chat_notes_clear(&notes);
    cJSON_Delete(json);
}

static Status sft_run(void *shared, void *scratch, const RolloutRecord *record, RolloutGroup *ret,
                      Error *err)
{
    (void)err;
    make_sample(&(SftTask){shared, scratch, record, NULL}, rollout_group_add(ret, record));
    return OK;
}

static void sft_explain(void *shared, void *scratch, const RolloutRecord *record, Sample *ret,
                        RolloutTrace *ret_trace)
{
    ret->position = record->position;
    make_sample(&(SftTask){shared, scratch, record, ret_trace}, ret);
}

static char *sft_warnings(const void *shared)
{
    return chat_text_warnings(shared);
}

const RolloutTable rollout_sft = {
    .name = "sft",
    .open = sft_open,
    .close = sft_close,
    .open_thread = sft_open_thread,
    .close_thread = sft_close_thread,
    .run = sft_run,
    .explain = sft_explain,
    .warnings = sft_warnings,
};
