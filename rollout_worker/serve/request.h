/* ServeRequest: what the body of an HTTP request asks for, the same for OpenAI's and SGLang's
 * forms. Pure: a body and a model's text side in, prompts with their sampling parameters or a
 * refusal out. Every field that a body may have stands in the tables of request_rules.c; docs/
 * serving.md lists them. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_REQUEST_H
#define TROUPE_ROLLOUT_WORKER_SERVE_REQUEST_H

#include <cjson/cJSON.h>

#include "rollout_worker/engine/sampling.h"
#include "rollout_worker/serve/refusal.h"
#include "rollout_worker/tools/tool_format.h"

#define SERVE_SAMPLES_MAX 1024 /* of one request, over all of its prompts */

typedef enum {
    API_CHAT,       /* /v1/chat/completions */
    API_COMPLETION, /* /v1/completions */
    API_GENERATE,   /* /generate */
} ServeApi;

/* The model that answers. Borrowed for as long as anything is served. */
typedef struct ServeModel {
    const char *name; /* by which clients ask for it */
    const TextModel *text;
    const ToolFormat *tool_format; /* in which it writes calls; NULL: they stay in its text */
    int64_t vocab_size;
    int32_t max_length; /* tokens of a sequence, prompt included */
    int64_t created;    /* seconds since 1970 */
} ServeModel;

typedef struct ServePrompt {
    int32_t *token; /* [length], owned */
    int32_t length;
    char *text;            /* as it was given, for `echo`; NULL unless asked for; owned */
    int n;                 /* samples */
    SamplingParams params; /* a copy (sampling_copy) */
} ServePrompt;

typedef struct ServeRequest {
    ServeApi api;
    ServePrompt *prompt; /* [num_prompts], owned */
    int num_prompts;
    bool batched; /* /generate: a list was given, and so a list is the answer */
    bool stream, include_usage, logprobs, echo, text_in_logprobs;
    bool keep_special, keep_stop; /* in the text: control tokens, the stop string that ended it */
    cJSON *tools; /* that an answer's calls are read with, owned; NULL: they stay in the text */
    char *rid;    /* the client's own name for it, or NULL; owned */
} ServeRequest;

/* Reads a body. On failure *ret is untouched and the refusal says which field, what was found and
 * what is accepted. */
Status serve_request_parse(const ServeModel *model, ServeApi api, const char *body, size_t length,
                           ServeRequest *ret, Refusal *refusal);
void serve_request_clear(ServeRequest *request); /* leaves zeros */

int serve_request_samples(const ServeRequest *request); /* over all prompts */

#endif
