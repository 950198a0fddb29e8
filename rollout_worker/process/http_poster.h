/* HttpPoster: a server of the user's that is sent JSON and answers with JSON. Each post has one
 * time limit, for all of its tries and the pauses between them, which double. What may pass is
 * tried again: no connection, a broken one, 408, 425, 429 and 5xx; any other status says that the
 * request is wrong, which does not pass. Connections are kept and shared; at most `connections` are
 * in use at a time. The limit is that of the tries and pauses: a post that must wait for a
 * connection waits for as long as the server answers others, and gives up when it has answered
 * none for the time limit. Redirections are not followed. A post ends soon after nobody wants it
 * any more; a try that is made again is told to who waits. Open and close on one thread, post on
 * any number. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_HTTP_POSTER_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_HTTP_POSTER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "rollout_worker/process/wanted.h"

#define POSTER_HEADERS_MAX     64
#define POSTER_CONNECTIONS_MAX 1024
#define POSTER_ANSWER_BYTES    (1u << 20) /* of an answer, at most */

typedef struct HttpPoster HttpPoster;

typedef struct HttpPosterOptions {
    char *url;                            /* owned: http_poster_options_clear */
    char *header[POSTER_HEADERS_MAX + 1]; /* "name: value"; owned; ends with NULL */
    int64_t timeout_ms, attempts, backoff_ms, backoff_ms_max, connections;
} HttpPosterOptions;

/* 120 s, 10 attempts, 1 s to 30 s, 64 connections. */
HttpPosterOptions http_poster_defaults(void);
void http_poster_options_clear(HttpPosterOptions *options);

/* Reads `url` (must be there), headers (an object of names and texts), timeout_ms, attempts,
 * backoff_ms, backoff_ms_max and connections of a JSON object; other keys are the caller's. `where`
 * names it in messages. */
Status http_poster_read_options(const cJSON *json, const char *where, HttpPosterOptions *ret,
                                Error *err);

Status http_poster_open(const HttpPosterOptions *options, HttpPoster **ret,
                        Error *err);        /* copies */
void http_poster_close(HttpPoster *poster); /* accepts NULL; no post may be under way */

#define POSTER_REASON_BYTES 256

/* Why a post failed. */
typedef struct HttpOutcome {
    bool permanent;                   /* trying again cannot help */
    char reason[POSTER_REASON_BYTES]; /* with the URL */
} HttpOutcome;

/* Posts a body. OK: *answer holds the body of a 2xx answer. ERR_TIMEOUT, ERR_UNAVAILABLE: *ret says
 * why. ERR_CANCELLED: nobody wants it (`wanted` may be NULL: for ever). */
Status http_poster_post(HttpPoster *poster, const Str *body, const Wanted *wanted, Str *answer,
                        HttpOutcome *ret);

#endif
