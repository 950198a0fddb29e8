/* What is odd about a conversation, and trained all the same because the reference tools do. Any
 * thread. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_CHECK_H
#define TROUPE_ROLLOUT_WORKER_CHAT_CHECK_H

#include <cjson/cJSON.h>

/* The arguments of a tool call may be the JSON text of an object. A text that is none reaches the
 * template as it is, as in transformers: the model learns to write calls that nobody can parse.
 * Returns a sentence on the first such call ("messages[1].tool_calls[0] has arguments that are not
 * ..."), owned; NULL: there is none. `messages` is a list of objects. */
char *chat_find_bad_arguments(const cJSON *messages);

/* An answer without a word, a call or a thought teaches to answer nothing; often it is what a data
 * set lost on its way. Looks at the assistant's messages from `first` on that are in the loss; the
 * same kind of sentence, or NULL. */
char *chat_find_empty_answer(const cJSON *messages, int first);

#endif
