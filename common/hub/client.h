/* HubClient: what is asked of the Hub over HTTP. A request is tried again where that can help (no
 * connection, one that broke, 408, 425, 429, 5xx), with pauses that double, or as long as the
 * server asks for; as long as bytes come, it goes on. Redirections are followed; only the Hub
 * itself is shown the token, no host that it sends us to. Proxies are libcurl's (https_proxy,
 * no_proxy).
 *
 * Requests block; any number of threads may make them, each has a connection of its own, which is
 * kept. */
#ifndef TROUPE_HUB_CLIENT_H
#define TROUPE_HUB_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "hub/access.h"
#include "hub/answer.h"
#include "hub/watch.h"

typedef struct HubClient HubClient;

/* Borrows the access and what the watch points to. */
HubClient *hub_client_create(const HubAccess *access, HubWatch watch);
void hub_client_destroy(HubClient *client); /* accepts NULL; no request is under way */
const HubAccess *hub_client_access(const HubClient *client);
const HubWatch *hub_client_watch(const HubClient *client);

/* Where an answer goes. */
typedef struct HubSink {
    /* From which byte on the body is wanted, before each try; NULL: from the first. */
    int64_t (*begin)(void *context);
    /* An answer of status 2xx begins; a failure ends the request. May be NULL. */
    Status (*header)(void *context, const HubHeader *header, Error *err);
    Status (*take)(void *context, const void *bytes, size_t length, Error *err);
    void *context;
} HubSink;

typedef struct HubRequest {
    const char *url;
    const char *what; /* for messages: "openai/gsm8k", "train.parquet of openai/gsm8k" */
    const char *etag; /* that the body has to have where only a part of it is wanted; NULL: any */
    HubSink sink;
    bool once; /* it is tried once: nobody depends on the answer */
} HubRequest;

/* OK: all of a 2xx answer is in the sink. *ret is its header, or that of the refusal; the caller's
 * to free, where it is not NULL.
 * ERR_INVALID, ERR_NOT_FOUND: the Hub refuses, with 401 or 403, or 404; 416 and 412, which say that
 * the part which is wanted is not there, are ERR_DATA. */
Status hub_client_get(HubClient *client, const HubRequest *request, HubHeader *ret, Error *err);

/* A small answer as a text, and perhaps (`ret_next`, owned) the page behind it. */
typedef struct HubText {
    Str text;
    char *next;
    HubHeader header;
} HubText;
Status hub_client_get_text(HubClient *client, const char *url, const char *what, bool once,
                           HubText *ret, Error *err);
void hub_text_free(HubText *text);

#endif
