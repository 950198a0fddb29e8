/* ChatTemplate: the Jinja templates of published models, rendered as transformers renders them
 * (trim_blocks, lstrip_blocks, loop controls, sandboxed; `raise_exception`, `strftime_now`,
 * `tojson` as there). Compiled once, then const; any number of threads may render at once.
 *
 * Every byte of the output knows where it came from: the template's own text, or a field of a
 * message. From that one render come the loss mask and the places where special tokens may stand
 * (conversation.h).
 *
 * Templates come from model folders, so they are not trusted: depth, steps, output and time are
 * bounded. */
#ifndef TROUPE_TEXT_CHAT_TEMPLATE_H
#define TROUPE_TEXT_CHAT_TEMPLATE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

typedef struct ChatTemplate ChatTemplate;

/* Compiles a template; `where` names it in messages. A syntax error gives template line and reason.
 */
Status chat_template_compile(const char *source, size_t length, const char *where,
                             ChatTemplate **ret, Error *err);
void chat_template_destroy(ChatTemplate *chat_template); /* accepts NULL */

/* Appends the names of the variables that it may read from outside. */
void chat_template_list_variables(const ChatTemplate *chat_template, StringList *ret);

typedef enum {
    ORIGIN_TEMPLATE,  /* literal text of the template or computed from it; bos_token, eos_token and
                         the like */
    ORIGIN_CONTENT,   /* messages[i].content */
    ORIGIN_REASONING, /* messages[i].reasoning_content and its other names */
    ORIGIN_TOOL_CALL, /* messages[i].tool_calls, and literals between its pieces belong to
                         ORIGIN_TEMPLATE */
    ORIGIN_OTHER, /* any other input: tools, documents, keyword arguments, other fields of messages
                   */
    ORIGIN_ROLE,  /* messages[i].role */
} OriginKind;

/* A run of output bytes [begin, end) with one origin; runs are sorted, disjoint and cover the
 * output. `message` is the index in the messages list, or -1 (always for template text).
 * `loop_message` tells which message the innermost loop over the messages stood at (-1: none).
 * `generation` is true inside a {% generation %} block. */
typedef struct OriginSpan {
    uint32_t begin, end;
    OriginKind kind;
    int32_t message;
    int32_t loop_message;
    bool generation;
} OriginSpan;

typedef struct Rendering {
    char *text; /* NUL-terminated, owned */
    size_t length;
    OriginSpan *span; /* owned */
    size_t num_spans;
    bool has_generation_blocks; /* the template uses {% generation %} */
} Rendering;

void rendering_free(Rendering *rendering);

/* Renders with these variables (all borrowed): `variables` is an object whose members become
 * top-level names: messages, tools, add_generation_prompt, bos_token, eos_token, enable_thinking
 * ... `now` is the time that strftime_now shows, seconds since 1970, in UTC. A template's own
 * failure (raise_exception, a wrong type) is ERR_DATA, "where:line: reason"; one that uses up its
 * limits is ERR_RESOURCE or ERR_TIMEOUT. */
Status chat_template_render(const ChatTemplate *chat_template, const cJSON *variables, int64_t now,
                            Rendering *ret, Error *err);

#endif
