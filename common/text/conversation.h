/* Conversation: from a chat record to token ids and a loss mask, by one full render of the model's
 * own template.
 *
 * A token carries loss when its bytes come from an assistant message (content, reasoning, tool
 * calls with the template's text between them) or from the terminator that closes that turn (the
 * end-of-turn token and the newline that the template writes with it), so that the model learns to
 * stop. The turn's header, which is what the template writes to ask for an answer, carries none; a
 * think block behind it does (header_rule.c has five templates whose reference differs). With {%
 * generation %} blocks in the template their extent is the mask instead. Messages are never
 * rendered alone. A message with `step_loss_mask: 0` (slime), `weight: 0` (OpenAI),
 * `train: false` or `training: false` (axolotl), `loss: false` (ms-swift) or `loss_mask: 0` is not
 * trained, nor is one of the prompt.
 *
 * Text of messages and tools never becomes a special token ("special": true in tokenizer.json),
 * whatever it spells: those are the template's alone. Added tokens that are not special ("<think>",
 * "<tool_response>") are recognised everywhere, as by the reference. */
#ifndef TROUPE_TEXT_CONVERSATION_H
#define TROUPE_TEXT_CONVERSATION_H

#include "text/chat_template.h"
#include "text/tokenizer/tokenizer.h"

/* A model's text side: tokenizer.json, the chat template (chat_template.jinja, or the chat_template
 * of tokenizer_config.json) and its bos/eos tokens. Const once loaded; any thread. */
typedef struct TextModel TextModel;

/* `template_path` overrides the folder's own template when not NULL. `folder` may be a model folder
 * or a tokenizer.json. */
Status text_model_load(const char *folder, const char *template_path, TextModel **ret, Error *err);
void text_model_destroy(TextModel *model); /* accepts NULL */
const Tokenizer *text_model_tokenizer(const TextModel *model);
int32_t text_model_eos_id(const TextModel *model); /* -1 if there is none */
/* Whether arguments of tool calls that are JSON text are parsed for this template: it renders an
 * object as the model should write it, and a text encoded a second time. */
bool text_model_parses_arguments(const TextModel *model);

typedef struct ConversationOptions {
    bool add_generation_prompt;   /* for prompts; training renders whole conversations without it */
    const cJSON *template_kwargs; /* apply_chat_template_kwargs: an object, or NULL */
    size_t num_prompt_messages;   /* the first so many messages are context and carry no loss */
    bool keep_text;               /* the result has `text` and `span`, too */
    int64_t now; /* for templates that print the date: seconds since 1970; 0: the clock's */
} ConversationOptions;

typedef struct TokenizedConversation {
    int32_t *token;     /* [length], owned */
    uint8_t *loss_mask; /* [length], owned */
    size_t length;
    size_t trained_tokens;
    char *text;      /* what was rendered, NUL-terminated, owned; NULL unless asked for */
    TokenSpan *span; /* [length] where in `text` each token stands, owned; NULL with it */
    size_t text_length;
    /* A sentence on what of the conversation the template passed over (a message with content, the
     * calls of one, the reasoning of a last answer that is trained, the tools), and below it what
     * it expected; owned. NULL: nothing. */
    char *lost;
    /* A sentence on the first special token that a text of it spells, which stays text here and
     * would be a token in transformers; owned. NULL: none. */
    char *spelled;
} TokenizedConversation;

void tokenized_conversation_free(TokenizedConversation *conversation);

/* `messages`: a list of objects with role and content (a string, or a list of parts, whose texts
 * are joined unless the template takes parts); reasoning under reasoning_content, thinking or
 * reasoning; tool_calls with arguments as an object or as JSON text, which reach the template as
 * they are unless it takes only the other form. `tools`: a list, a JSON string of one, or NULL.
 * Roles, types and what the template makes of their order are checked; errors are ERR_DATA
 * (ERR_UNSUPPORTED for images and the like) and name the message ("messages[2].role is ..."). Where
 * the template itself fails on a conversation of right form, or raises an error, that is
 * ERR_INVALID with its line. `cache` may be NULL. */
Status conversation_encode(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                           const cJSON *tools, const ConversationOptions *options,
                           TokenizedConversation *ret, Error *err);

/* The tokens behind the content of messages[turn], an assistant's turn that was generated and whose
 * content here is a placeholder: its terminator, the messages after it, and, with
 * add_generation_prompt, the header of the next turn. None carries loss. ERR_UNSUPPORTED when the
 * template does not render the placeholder as it is. Otherwise as conversation_encode. */
Status conversation_follow(const TextModel *model, TokenizerCache *cache, const cJSON *messages,
                           int turn, const cJSON *tools, const ConversationOptions *options,
                           TokenizedConversation *ret, Error *err);

/* Whether the message itself says that it is not trained. */
bool message_is_masked(const cJSON *message);

/* ERR_DATA when template_kwargs would replace what is made from the conversation itself. */
Status conversation_check_kwargs(const cJSON *kwargs, Error *err);

#endif
