/* ToolFormat: how a model writes the calls of tools into its turn. A table of known formats; which
 * one a model has is learnt from its chat template, by rendering a call and looking which format
 * reads it back. A template that none reads is refused, and so is a name that there is not. Any
 * thread. */
#ifndef TROUPE_ROLLOUT_WORKER_TOOLS_TOOL_FORMAT_H
#define TROUPE_ROLLOUT_WORKER_TOOLS_TOOL_FORMAT_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "text/conversation.h"

/* One call of a turn; all owned. */
typedef struct ToolCall {
    char *name;       /* "" when it could not be read */
    cJSON *arguments; /* an object; NULL with a fault */
    char *fault;      /* why this is no call, in words for the model; NULL: it is one */
} ToolCall;

typedef struct ToolCalls {
    ToolCall *call; /* [count], in the order of the text */
    int count;
} ToolCalls;

void tool_calls_clear(ToolCalls *calls);

typedef struct ToolFormat {
    const char *name;
    /* Appends the calls of a text without reasoning. `tools`: what may be called, in OpenAI's form,
     * or NULL; formats that write bare values learn from it which are texts. */
    void (*parse)(const char *text, const cJSON *tools, ToolCalls *ret);
} ToolFormat;

/* The format of a name; an unknown one is ERR_INVALID and its message lists all. */
Status tool_format_find(const char *name, const ToolFormat **ret, Error *err);

/* The format in which the model's chat template writes calls. ERR_UNSUPPORTED when it writes none,
 * or in a format that is not known. */
Status tool_format_detect(const TextModel *model, const ToolFormat **ret, Error *err);

/* The calls in a generated turn, which may begin with reasoning: what stands in it is no call, and
 * where it is not closed there is none. *ret is zeroed by the caller. */
void tool_format_read(const ToolFormat *format, const char *turn, const cJSON *tools,
                      ToolCalls *ret);

#endif
