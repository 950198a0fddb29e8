/* Refusal: why a request gets no answer, in the form in which OpenAI's API says it: a sentence, the
 * parameter that it is about, a code for programs, an HTTP status. Plain data, any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_REFUSAL_H
#define TROUPE_ROLLOUT_WORKER_SERVE_REFUSAL_H

#include "base/error.h"
#include "base/str.h"

#define REFUSAL_PARAM_MAX 96

typedef struct Refusal {
    Error error;
    char param[REFUSAL_PARAM_MAX]; /* "" when it is about none */
    const char *code;              /* static, or NULL */
    int http_status;               /* 0: by error.status */
} Refusal;

/* A parameter that is not what it may be: 400. Returns ERR_INVALID. */
Status refuse_param(Refusal *refusal, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Any other refusal; `code` may be NULL. Returns ERR_INVALID. */
Status refuse_request(Refusal *refusal, int http_status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* 400 for what the client did wrong, 429 when full, 503 when not ready or ending, else 500. */
int refusal_http_status(const Refusal *refusal);

/* {"error": {"message", "type", "param", "code"}} */
void refusal_append_json(const Refusal *refusal, Str *out);

#endif
