/* Lists of messages in their two forms, {"role", "content"} as OpenAI has it and {"from", "value"}
 * as ShareGPT has it, turned into the first. A ShareGPT `function_call`, whose value is the JSON
 * text of one call or of a list, becomes an assistant's tool_calls, and so does OpenAI's older
 * `function_call`. What a role means and whether
 * contents are right is judged where they are rendered (text/conversation.h). Part of
 * chat_shapes.c; any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_MESSAGES_H
#define TROUPE_ROLLOUT_WORKER_CHAT_MESSAGES_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/error.h"

/* Something of a record, and what messages call it. */
typedef struct RecordPlace {
    const char *source; /* "file:line" */
    const char *key;
} RecordPlace;

/* A list with a message in ShareGPT's form. */
bool messages_have_from(const cJSON *list);

/* A list with a call in the form that OpenAI had before tools: an assistant's `function_call`, and
 * role `function` for what comes of it. Appended, they are tool_calls and role `tool`. */
bool messages_have_function_call(const cJSON *list);

/* The first message that is an object with `role` or `from`: what lists of messages are known by.
 */
bool messages_are_likely(const cJSON *value);

/* Appends to *list what `value` says: a list of messages or one of them, in either form, or a text,
 * which becomes the content of a message of `role`. The list refers to the record. ERR_DATA for
 * anything else, for a name after `from` that is not known, and for forms mixed in one list. */
Status messages_append(cJSON *list, const cJSON *value, const char *role, const RecordPlace *place,
                       Error *err);

/* Appends {"role": role, "content": content}; the content is referred to. */
void messages_append_one(cJSON *list, const char *role, const cJSON *content);

/* Whether the message's role is this one. */
bool message_has_role(const cJSON *message, const char *role);

/* "key "messages" is a string" with what was expected; returns ERR_DATA. */
Status refuse_type(const RecordPlace *place, const cJSON *value, const char *expected,
                   const char *remedy, Error *err);

#endif
