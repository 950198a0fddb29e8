#include "http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/str.h"

/* Reads a whole request into server->headers and server->body; false when the peer left. */
static bool read_request(HttpServer *server, int fd)
{
    Str text = {0};
    char bytes[4096];
    const char *end = NULL;
    size_t length = 0, whole = 0;
    while (end == NULL || text.length < whole) {
        ssize_t got = read(fd, bytes, sizeof bytes);
        if (got <= 0) break;
        str_append(&text, bytes, (size_t)got);
        end = strstr(str_text(&text), "\r\n\r\n");
        const char *field = strcasestr(str_text(&text), "content-length:");
        if (field != NULL) length = strtoul(field + strlen("content-length:"), NULL, 10);
        if (end != NULL) whole = (size_t)(end - text.data) + 4 + length;
    }
    bool complete = end != NULL && text.length >= whole;
    if (complete) {
        snprintf(server->headers, sizeof server->headers, "%.*s", (int)(end - text.data),
                 text.data);
        snprintf(server->body, sizeof server->body, "%s", end + 4);
    }
    str_free(&text);
    return complete;
}

static void respond(int fd, int status, const char *body, size_t length, size_t claimed)
{
    Str out = {0};
    str_printf(&out, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
               status, claimed);
    str_append(&out, body, length);
    size_t sent = 0;
    while (sent < out.length) {
        ssize_t got = send(fd, out.data + sent, out.length - sent, MSG_NOSIGNAL);
        if (got <= 0) break;
        sent += (size_t)got;
    }
    str_free(&out);
}

static void respond_text(int fd, int status, const char *body)
{
    respond(fd, status, body, strlen(body), strlen(body));
}

static void respond_group(const HttpServer *server, int fd)
{
    cJSON *body = NULL;
    Error err;
    CHECK(json_parse(server->body, strlen(server->body), "body", &body, &err) == OK);
    Str out = {0};
    int count = cJSON_GetArraySize(cJSON_GetObjectItem(body, "responses"));
    for (int i = 0; i < count; i++)
        str_printf(&out, "%s%d", i == 0 ? "[" : ", ", i);
    str_puts(&out, "]");
    respond_text(fd, 200, str_text(&out));
    str_free(&out);
    cJSON_Delete(body);
}

/* Keeps what has come until enough have, then answers each with the length of its response. */
static void answer_together(HttpServer *server, int fd)
{
    cJSON *body = NULL;
    Error err;
    CHECK(json_parse(server->body, strlen(server->body), "body", &body, &err) == OK);
    server->lengths[server->num_waiting] =
        (int)strlen(cJSON_GetObjectItem(body, "response")->valuestring);
    server->waiting[server->num_waiting++] = dup(fd);
    cJSON_Delete(body);
    for (int i = 0; server->num_waiting >= server->together && i < server->num_waiting; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", server->lengths[i]);
        respond_text(server->waiting[i], 200, text);
        close(server->waiting[i]);
    }
    if (server->num_waiting >= server->together) server->num_waiting = 0;
}

static void answer(HttpServer *server, int fd)
{
    static char large[2 << 20];
    const char *path = strchr(server->headers, ' ');
    path = path == NULL ? "" : path + 1;
    server->requests++;
    if (str_starts_with(path, "/number")) {
        respond_text(fd, 200, "0.5");
    } else if (str_starts_with(path, "/object")) {
        respond_text(fd, 200, "{\"score\": 2, \"reason\": \"fine\", \"extra\": {\"a\": [1]}}");
    } else if (str_starts_with(path, "/named")) {
        respond_text(fd, 201, "{\"reward\": 3}");
    } else if (str_starts_with(path, "/group")) {
        respond_group(server, fd);
    } else if (str_starts_with(path, "/together")) {
        answer_together(server, fd);
    } else if (str_starts_with(path, "/busy")) {
        respond_text(fd, server->requests <= 2 ? 503 : 200, "1");
    } else if (str_starts_with(path, "/slow")) {
        usleep(500000);
        respond_text(fd, 200, "1");
    } else if (str_starts_with(path, "/down")) {
        respond_text(fd, 500, "no memory");
    } else if (str_starts_with(path, "/wrong")) {
        respond_text(fd, 400, "what is this?");
    } else if (str_starts_with(path, "/text")) {
        respond_text(fd, 200, "quite good");
    } else if (str_starts_with(path, "/tool")) {
        respond_text(fd, 200, "{\"content\": \"found it\"}");
    } else if (str_starts_with(path, "/large")) {
        respond(fd, 200, large, sizeof large, sizeof large);
    } else if (str_starts_with(path, "/cut")) {
        respond(fd, 200, "0.", 2, 100);
    } else if (str_starts_with(path, "/silent")) {
        char byte;
        ssize_t got = read(fd, &byte, 1); /* until the caller loses patience */
        (void)got;
    }
}

static void *serve(void *argument)
{
    HttpServer *server = argument;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0) return NULL;
        if (read_request(server, fd)) answer(server, fd);
        close(fd);
    }
}

void http_server_start(HttpServer *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *server = (HttpServer){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    CHECK(bind(server->listener, (struct sockaddr *)&address, size) == 0);
    CHECK(listen(server->listener, 64) == 0);
    CHECK(getsockname(server->listener, (struct sockaddr *)&address, &size) == 0);
    server->port = ntohs(address.sin_port);
    CHECK(pthread_create(&server->thread, NULL, serve, server) == 0);
}

void http_server_stop(HttpServer *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    for (int i = 0; i < server->num_waiting; i++)
        close(server->waiting[i]);
    close(server->listener);
}
