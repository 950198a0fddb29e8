/* Shapes of chat data sets, and one form for all of them: the messages that chat templates take. A
 * record tells its shape by its keys; nothing has to be registered.
 *
 *   messages          {"messages": [{"role", "content", ...}, ...]}           OpenAI
 *   conversations     {"conversations": [{"from", "value"}, ...]}             ShareGPT
 *   Alpaca            {"instruction", "input", "output", "system", "history"}
 *   prompt            {"prompt": text or messages}                            RL: with a label
 *   prompt and answer {"prompt", "completion"}                                TRL
 *   pair              {"chosen", "rejected"} as whole conversations, or behind a prompt
 *
 * Other names for the same, where nothing else in the record could be meant: "context" for "input"
 * and "response" for "output" (Dolly); "question", "query" or "input" for "prompt" and "answer" or
 * "output" for "completion", in one of the pairs that data sets have. A prompt that repeats what a
 * conversation beside it begins with (UltraChat) counts as absent, and so do messages that repeat
 * the chosen ones (UltraFeedback).
 *
 * Lists of messages may be in either form wherever they stand; "conversation" does for
 * "conversations", "response" for "completion", and a text at the top under "system" opens a
 * conversation that has no system message of its own. Conversions are those of TRL
 * (`maybe_convert_to_chatml`, `maybe_extract_prompt`) and of LLaMA-Factory
 * (`AlpacaDatasetConverter`, `SharegptDatasetConverter`); tests compare them. Members that are null
 * count as absent. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_SHAPES_H
#define TROUPE_ROLLOUT_WORKER_CHAT_SHAPES_H

#include <cjson/cJSON.h>

#include "base/error.h"

typedef enum {
    SHAPE_MESSAGES,
    SHAPE_CONVERSATIONS,
    SHAPE_ALPACA,
    SHAPE_PROMPT,
    SHAPE_PROMPT_ANSWER,
    SHAPE_PAIR,
    SHAPE_COUNT,
} ChatShape;

const char *chat_shape_name(ChatShape shape); /* "ShareGPT conversations" */

/* A conversation in the one form. Its lists refer to the record, which has to outlive it. */
typedef struct ChatConversation {
    ChatShape shape;
    const cJSON *messages; /* the list to train on; of a pair with the chosen answer */
    const cJSON *rejected; /* of a pair the list with the rejected answer, else NULL */
    /* The first so many messages are given and not learned: a prompt, or what a pair has in common.
     * All of them where there is no answer. 0 in a plain conversation, where whatever an assistant
     * says is learned. */
    int num_prompt_messages;
    /* The key under which the record has the list, and how many messages were put before it; NULL:
     * the list is made of several keys. Borrowed. */
    const char *list_key;
    int num_added;
    cJSON *owned[2]; /* what of the lists is not the record's own */
} ChatConversation;

void chat_conversation_clear(ChatConversation *conversation);

/* `input_key`: where the conversation stands (a list of messages, or a text, which is a prompt);
 * then nothing else of the record is looked at but "system". NULL: by its shape. `source` is
 * "file:line". ERR_DATA when the shape cannot be told, when keys of two shapes are there, or when
 * something is not what its shape says. */
Status chat_conversation_read(const cJSON *record, const char *input_key, const char *source,
                              ChatConversation *ret, Error *err);

#endif
