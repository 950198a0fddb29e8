/* ChatText: what all rollout functions need that make something of chats: how the job's records
 * are read, the model's tokenizer and chat template, and refusals that name the record. Const once
 * open; any number of threads, each with its own TokenizerCache. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_TEXT_H
#define TROUPE_ROLLOUT_WORKER_CHAT_TEXT_H

#include "rollout_worker/chat_record.h"
#include "rollout_worker/rollout.h"
#include "text/conversation.h"

/* What templates that print today's date are told, 26 July 2024 (Llama 3.1's own default): a sample
 * must be the same on the day on which a run is resumed. */
#define CHAT_TEMPLATE_TIME INT64_C(1721952000)

/* The keys of one of data.sources; borrowed from the configuration. */
typedef struct SourceKeys {
    const char *name;
    RecordKeys key;
} SourceKeys;

typedef struct ChatText {
    const JobConfig *config; /* borrowed */
    ChatReader reader;
    TextModel *model;
    SourceKeys *source; /* [num_sources] */
    int num_sources;
} ChatText;

/* Loads what the job names, and tries the chat template once. Nothing is left behind on failure. */
Status chat_text_open(const JobConfig *config, ChatText *ret, Error *err);
/* What is odd about them, a sentence or two a line; owned by the caller. NULL: nothing. */
char *chat_text_warnings(const ChatText *text);
void chat_text_close(ChatText *text); /* accepts a zeroed one */

/* chat_record_read of a parsed record, by the keys of its set, or of its source. */
Status chat_text_read(const ChatText *text, const RolloutRecord *record, const cJSON *json,
                      ChatRecord *ret, Error *err);

/* conversation_encode of `messages`, which are those of `chat`, or some of them; options->now and
 * template_kwargs are set here. A failure is completed to what every refusal of a record says. */
Status chat_text_encode(const ChatText *text, TokenizerCache *cache, const RolloutRecord *record,
                        const ChatRecord *chat, const cJSON *messages, ConversationOptions options,
                        TokenizedConversation *ret, Error *err);

/* A sentence on "messages[i]" with the names that the record has for them: the key of its list, and
 * numbers that do not count a system prompt that stands beside. Owned by the caller. */
char *chat_text_own_names(const ChatRecord *chat, const char *sentence);

/* What to say of messages that the template passed over, as data.not_rendered judges it; owned by
 * the caller. NULL: nothing was lost. */
char *chat_text_lost(const RolloutRecord *record, const ChatRecord *chat,
                     const TokenizedConversation *encoded);

/* The token with which the template ends what an assistant says ("<|im_end|>"), or -1. */
int32_t chat_text_turn_end(const ChatText *text);

/* Why a record is rejected when this is what reading or rendering it came to. */
RejectReason chat_reject_reason(Status status);

#endif
