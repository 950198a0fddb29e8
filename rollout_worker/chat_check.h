/* What is odd about a conversation, and used all the same because the reference tools do. Any
 * thread. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_CHECK_H
#define TROUPE_ROLLOUT_WORKER_CHAT_CHECK_H

#include <cjson/cJSON.h>

#include "rollout_worker/chat_text.h"

/* The arguments of a tool call may be the JSON text of an object. What is no object and no such
 * text reaches the template as it is, as in transformers: the model learns to write calls that
 * nobody can parse. An empty text is one of these where the template prints texts as they are
 * (`prints_texts`); elsewhere it stands for no arguments. Returns a sentence on the first such call
 * ("messages[1].tool_calls[0] has arguments that are not ..."), owned; NULL: there is none.
 * `messages` is a list of objects. */
char *chat_find_bad_arguments(const cJSON *messages, bool prints_texts);

/* A tool call without the name of a function, the same way. */
char *chat_find_unnamed_call(const cJSON *messages);

/* An answer without a word, a call or a thought teaches to answer nothing; often it is what a data
 * set lost on its way. Looks at the assistant's messages from `first` on that are in the loss; the
 * same kind of sentence, or NULL. */
char *chat_find_empty_answer(const cJSON *messages, int first);

/* What is odd about a record: a message for people by SampleNote, owned; NULL: that is not. */
typedef struct ChatNotes {
    char *text[NOTE_COUNT];
} ChatNotes;

/* Of a conversation that could be rendered. */
void chat_notes_find(const ChatText *text, const RolloutRecord *record, const ChatRecord *chat,
                     const TokenizedConversation *encoded, ChatNotes *ret);
/* Of one of which the first `num_prompt` messages are to be answered; `encoded` is these. */
void chat_notes_of_prompt(const RolloutRecord *record, const ChatRecord *chat, int num_prompt,
                          const TokenizedConversation *encoded, ChatNotes *ret);
void chat_notes_clear(ChatNotes *notes);

/* Copies them to a sample that is not rejected. */
void chat_notes_put(const ChatNotes *notes, Sample *sample);

#endif
