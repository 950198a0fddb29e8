/* What TextModel holds; text_model.c loads it, conversation.c and loss_mask.c use it. Internal to
 * common/text. */
#ifndef TROUPE_TEXT_TEXT_MODEL_H
#define TROUPE_TEXT_TEXT_MODEL_H

#include "base/str.h"
#include "text/conversation.h"

/* What stands for the content of a message that has none, such as one of tool calls alone. */
typedef enum { CONTENT_ABSENT, CONTENT_NULL, CONTENT_EMPTY } MissingContent;

/* What of a turn's header is trained: nothing, the white space at its end, or all of it. */
typedef enum { HEADER_NOT_TRAINED, HEADER_LINE_END_TRAINED, HEADER_TRAINED } HeaderRule;

/* For a template of that source: HEADER_NOT_TRAINED unless trl's twin of it has it otherwise. */
HeaderRule header_rule_of(const char *source, size_t length);

struct TextModel {
    Tokenizer *tokenizer;
    ChatTemplate *chat_template;
    ChatTemplate *tool_template; /* used when there are tools; NULL: the same */
    Str sources;                 /* of the templates */
    cJSON *tokens; /* bos_token, eos_token ...: an object of strings for the template */
    int32_t eos_id;
    /* What the template writes to make the model answer, up to where its reasoning would begin: the
     * part of an assistant's turn that is not generated. "" if it writes nothing. */
    char *header;
    char *continuation; /* the same for an answer that goes on behind a tool's ("": it goes on where
                           the prompt ends); NULL: unknown */
    HeaderRule header_rule;
    bool takes_parts;            /* the template renders content given as a list of parts */
    bool takes_strings;          /* and content given as a string; if neither: strings are tried */
    bool takes_argument_objects; /* it renders the arguments of tool calls given as an object */
    bool takes_argument_texts;   /* and given as JSON text; if neither: they stay as they are */
    MissingContent missing_content; /* with which it renders tool calls */
};

/* The variables of one rendering. */
typedef struct ChatVariables {
    const cJSON *messages, *tools, *kwargs; /* tools and kwargs may be NULL */
    bool add_generation_prompt;
    int64_t now;
} ChatVariables;

/* Does a template have this word in quotes? */
bool text_model_spells(const TextModel *model, const char *word);

Status text_model_render(const TextModel *model, const ChatVariables *variables, Rendering *ret,
                         Error *err);

/* The messages in a form that the template takes (message_form.c): as transformers passes them,
 * with content and tool calls' arguments converted where the template cannot take them as they are.
 * *ret_owned is a list that refers to `messages`, or NULL when they may stay as they are. Fails
 * where arguments that must be an object are no JSON (ERR_DATA). */
Status messages_adapt(const TextModel *model, const cJSON *messages, MissingContent missing,
                      cJSON **ret_owned, Error *err);

/* The message's reasoning under whichever of its names it stands, or NULL. */
const cJSON *message_reasoning(const cJSON *message);

/* How one message came into a rendering (message_place.c). Sets of kinds are bits 1 << OriginKind.
 */
typedef struct MessagePlace {
    uint8_t kinds;         /* of its text, wherever it came out */
    uint8_t kinds_at_home; /* and of that written while the loop stood at it */
    bool is_used, is_lent; /* at its place the template's text stands, another message's */
    bool at_home;
} MessagePlace;

MessagePlace *message_places_find(const Rendering *rendering,
                                  size_t num_messages); /* owned by caller */
bool span_is_message_text(const OriginSpan *span);      /* content, reasoning, tool calls */
/* Text of a message that did not come out at home, and is no quotation of what did. */
bool span_is_displaced(const MessagePlace *places, const OriginSpan *span);
/* The message whose turn these bytes are part of, or -1. */
int32_t span_owner(const MessagePlace *places, const OriginSpan *span);

/* What a loss mask is made from. */
typedef struct MaskRequest {
    const Rendering *rendering;
    const Encoding *encoding; /* of the rendered text */
    const bool *trained;      /* [num_messages] an assistant's message that is to be trained */
    size_t num_messages;
    bool is_prompt; /* the rendering ends with a generation prompt */
} MaskRequest;

/* Fills mask[encoding->length] with 1 for the tokens that are trained, as conversation.h says.
 * Returns their number. */
size_t loss_mask_fill(const TextModel *model, const MaskRequest *request, uint8_t *mask);

#endif
