/* A server of a few lines for tests of the reward `http` and of tools: one thread, one connection
 * at a time, answers by the path of the request. */
#ifndef TROUPE_TESTS_HTTP_SERVER_H
#define TROUPE_TESTS_HTTP_SERVER_H

#include <pthread.h>

typedef struct HttpServer {
    int port;
    int listener;
    pthread_t thread;
    int together; /* requests to /together that are answered at once, when the last has come */
    int waiting[16], lengths[16], num_waiting;
    int requests;       /* that were answered; read after http_server_stop or between calls */
    char body[8192];    /* of the last request */
    char headers[4096]; /* of the last request */
} HttpServer;

/* Paths: /number gives 0.5; /object {"score": 2, ...}; /named {"reward": 3}; /group a score for
 * each response; /busy 503 twice and then 1; /wrong 400; /text words; /tool {"content": "found
 * it"}; /slow 1 after 0.2 s; /silent no answer; /large 2
 * MiB; /cut half an answer; /together the length of the response, when `together` requests have
 * come. */
void http_server_start(HttpServer *server);
void http_server_stop(HttpServer *server);

#endif
