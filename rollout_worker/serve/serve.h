/* The HTTP front of a Generator: OpenAI's /v1/chat/completions, /v1/completions and /v1/models,
 * SGLang's /generate and /abort_request, /health (docs/serving.md). Every connection has a thread,
 * which waits for its samples and looks whether its client is still there: a client that goes away
 * aborts its request. Listens on loopback, or on any other address with a token. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_SERVE_H
#define TROUPE_ROLLOUT_WORKER_SERVE_SERVE_H

#include "rollout_worker/serve/generator.h"
#include "rollout_worker/serve/request.h"

typedef struct ServeOptions {
    Generator generator; /* must outlive the server */
    ServeModel model;
    const char *host;    /* an address, IPv4 or IPv6; NULL: 127.0.0.1. Borrowed, as all below */
    int port;            /* 0: any that is free */
    const char *token;   /* that clients must give; NULL: none, on loopback only */
    int connections_max; /* 0: 256; who comes then waits until one ends */
    /* Milliseconds that a client has, however many bytes come meanwhile, before its connection is
     * cut off; 0: the default. */
    int header_ms; /* for the head of its first request: 20 s */
    int body_ms;   /* for a body: 60 s */
    int idle_ms;   /* for the head of a further request: 60 s */
    int answer_ms; /* to take a whole answer, or a piece of a stream (at most 32 KiB): 120 s */
} ServeOptions;

typedef struct Server Server;

/* ERR_INVALID: a host that is no address, or is beyond loopback without a token. ERR_EXISTS: the
 * port is in use. */
Status serve_start(const ServeOptions *options, Server **ret, Error *err);

/* Whether nobody listens there now. ERR_EXISTS: somebody does. */
Status serve_try_port(const char *host, int port, Error *err);

const char *serve_url(const Server *server); /* http://127.0.0.1:8000; borrowed */
int serve_calls(const Server *server);       /* requests being answered */

/* From now on requests are refused (503); those in work go on. */
void serve_drain(Server *server);

/* Aborts what is in work, ends all connections and frees the server. Accepts NULL. */
void serve_stop(Server *server);

/* A token from a file: its first line, at least 16 printable characters; the file must not be
 * readable by others. *ret is owned by the caller. */
Status serve_token_read(const char *path, char **ret, Error *err);

#endif
