/* What tests of the Hub stand on: the server of hub_server.py, and data sets on it. A failure fails
 * the test. */
#ifndef TROUPE_TESTS_HUB_SUPPORT_H
#define TROUPE_TESTS_HUB_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "hub/access.h"

#define SERVER_ROOT "server"
#define HUB_CACHE   "cache/hub"
#define COMMIT_A    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define COMMIT_B    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

typedef struct HubServer {
    pid_t pid;
    int input; /* closing it ends the server */
    int port, cdn_port;
} HubServer;

/* Whether there is Python to run it. */
bool hub_server_is_possible(void);
/* `scheme`: http, or https with the certificate that hub_make_certificate has made. */
void hub_server_start(const char *scheme, HubServer *ret);
void hub_server_stop(HubServer *server);

/* Makes tls/ca.pem, tls/cert.pem and tls/key.pem with openssl; false: there is none. */
bool hub_make_certificate(void);

/* Of the server, quick to try again; its texts are the caller's to free. */
HubAccess hub_server_access(const char *scheme, const HubServer *server);

/* Empties server and cache; the repository a/set has the commit A as main. */
void hub_make_fresh(void);
void hub_put(const char *repo, const char *commit, const char *path, const char *text);
void hub_put_lines(const char *repo, const char *commit, const char *path, int begin, int end);
void hub_set_refs(const char *repo, const char *json);
void hub_set_faults(const char *json);

/* How many requests held `part` in their line of requests.jsonl; and forgets them. */
int hub_requests_with(const char *part);
void hub_forget_requests(void);

#endif
