#include "rollout_worker/serve/serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/serve/answer.h"
#include "rollout_worker/serve/peers.h"

#define BODY_BYTES_MAX     (64u << 20)
#define CONNECTIONS_MAX    256
#define HEADER_MS          20000
#define BODY_MS            60000
#define IDLE_MS            60000
#define ANSWER_MS          120000
#define LAST_WORDS_MS      2000 /* at the end, to clients in work */
#define TOKEN_BYTES_MIN    16
#define STREAM_BLOCK_BYTES (32u << 10)

typedef struct Exchange Exchange;

struct Server {
    ServeOptions options;
    char *token, *name, *url;
    struct MHD_Daemon *daemon;
    Peers *peers;
    pthread_mutex_t lock;
    Exchange *exchanges; /* with a call in work */
    _Atomic int calls;
    _Atomic bool draining; /* no new calls */
    _Atomic bool stopping; /* and those there are end */
};

/* One request and its answer. */
struct Exchange {
    Server *server;
    struct MHD_Connection *connection;
    Peer *peer;
    const struct Route *route;
    Refusal refusal; /* found before the body was there */
    bool refused;
    Str body;
    Call *call;
    Str out; /* of a stream: what the client has not got yet */
    size_t out_sent;
    bool failed; /* the stream ends after `out` */
    Exchange *next;
};

typedef enum MHD_Result (*RouteAnswer)(Exchange *exchange);

typedef struct Route {
    const char *method, *path;
    bool open; /* needs no token */
    RouteAnswer answer;
    ServeApi api;
} Route;

/* ---- sending ---- */

static int descriptor_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info != NULL ? info->connect_fd : -1;
}

/* What the client has time for now; 0: nothing, it is our turn. */
static void expect(const Exchange *exchange, int within_ms)
{
    peer_expect(exchange->server->peers, exchange->peer, within_ms);
}

static enum MHD_Result queue_response(Exchange *exchange, int http_status, const char *type,
                                      struct MHD_Response *response)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (http_status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (http_status == 429) MHD_add_response_header(response, "Retry-After", "1");
    expect(exchange, exchange->server->options.answer_ms);
    enum MHD_Result queued =
        MHD_queue_response(exchange->connection, (unsigned)http_status, response);
    MHD_destroy_response(response);
    return queued;
}

static enum MHD_Result send_json(Exchange *exchange, int http_status, Str *json)
{
    size_t length = json->length;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, str_take(json), MHD_RESPMEM_MUST_FREE);
    return queue_response(exchange, http_status, "application/json", response);
}

static enum MHD_Result send_refusal(Exchange *exchange, const Refusal *refusal)
{
    Str json = {0};
    refusal_append_json(refusal, &json);
    return send_json(exchange, refusal_http_status(refusal), &json);
}

/* ---- calls ---- */

static void enter_call(Exchange *exchange, Call *call)
{
    Server *server = exchange->server;
    exchange->call = call;
    atomic_fetch_add(&server->calls, 1);
    pthread_mutex_lock(&server->lock);
    exchange->next = server->exchanges;
    server->exchanges = exchange;
    pthread_mutex_unlock(&server->lock);
}

static void leave_call(Exchange *exchange)
{
    Server *server = exchange->server;
    if (exchange->call == NULL) return;
    pthread_mutex_lock(&server->lock);
    Exchange **link = &server->exchanges;
    while (*link != exchange)
        link = &(*link)->next;
    *link = exchange->next;
    pthread_mutex_unlock(&server->lock);
    call_destroy(exchange->call);
    exchange->call = NULL;
    atomic_fetch_sub(&server->calls, 1);
}

/* With rid NULL: all of them. */
static int abort_calls(Server *server, const char *rid)
{
    int count = 0;
    pthread_mutex_lock(&server->lock);
    for (Exchange *e = server->exchanges; e != NULL; e = e->next) {
        const char *own = e->call->request.rid != NULL ? e->call->request.rid : e->call->id;
        if (rid != NULL && strcmp(own, rid) != 0) continue;
        call_abort(e->call);
        count++;
    }
    pthread_mutex_unlock(&server->lock);
    return count;
}

/* A sample that was cut off here is an answer for /generate, and a failure for OpenAI's clients,
 * who know of no such end. */
static Status check_aborted(const Call *call, Refusal *refusal)
{
    for (int i = 0; i < call->num_choices && call->request.api != API_GENERATE; i++)
        if (call->choice[i].finished && call->choice[i].result.finish == FINISH_ABORT)
            return error_set(&refusal->error, ERR_UNAVAILABLE,
                             "the server is ending, and the answer was not finished");
    return OK;
}

static ssize_t read_stream(void *context, uint64_t position, char *buffer, size_t max)
{
    Exchange *exchange = context;
    (void)position;
    expect(exchange, 0);
    while (exchange->out_sent == exchange->out.length) {
        Refusal refusal = {0};
        Call *call = exchange->call;
        if (exchange->failed || call_is_finished(call)) return MHD_CONTENT_READER_END_OF_STREAM;
        str_clear(&exchange->out);
        exchange->out_sent = 0;
        Status status = call_wait(call, descriptor_of(exchange->connection), &refusal);
        if (status == ERR_CANCELLED) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (status == OK) status = check_aborted(call, &refusal);
        exchange->failed = status != OK;
        if (exchange->failed)
            answer_failure_event(&refusal, &exchange->out);
        else
            answer_events(call, &exchange->out);
    }
    size_t left = exchange->out.length - exchange->out_sent, count = left < max ? left : max;
    memcpy(buffer, exchange->out.data + exchange->out_sent, count);
    exchange->out_sent += count;
    expect(exchange, exchange->server->options.answer_ms);
    return (ssize_t)count;
}

/* Headers go when the first token is there, so that a request that the engine refuses has a status
 * of its own. */
static enum MHD_Result send_stream(Exchange *exchange)
{
    Refusal refusal = {0};
    Status status = call_wait(exchange->call, descriptor_of(exchange->connection), &refusal);
    if (status == ERR_CANCELLED) return MHD_NO;
    if (status == OK) status = check_aborted(exchange->call, &refusal);
    if (status != OK) return send_refusal(exchange, &refusal);
    answer_events(exchange->call, &exchange->out);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, exchange, NULL);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    return queue_response(exchange, 200, "text/event-stream", response);
}

static enum MHD_Result send_whole(Exchange *exchange)
{
    Refusal refusal = {0};
    Status status = OK;
    Str json = {0};
    while (status == OK && !call_is_finished(exchange->call))
        status = call_wait(exchange->call, descriptor_of(exchange->connection), &refusal);
    if (status == ERR_CANCELLED) return MHD_NO;
    if (status == OK) status = check_aborted(exchange->call, &refusal);
    if (status != OK) return send_refusal(exchange, &refusal);
    answer_whole(exchange->call, &json);
    return send_json(exchange, 200, &json);
}

static enum MHD_Result answer_call(Exchange *exchange)
{
    Server *server = exchange->server;
    Refusal refusal = {0};
    ServeRequest request = {0};
    Call *call = NULL;
    if (atomic_load(&server->draining)) {
        refuse_request(&refusal, 503, NULL, "the server is ending and takes no more requests");
        return send_refusal(exchange, &refusal);
    }
    Status status =
        serve_request_parse(&server->options.model, exchange->route->api, str_text(&exchange->body),
                            exchange->body.length, &request, &refusal);
    str_free(&exchange->body);
    bool stream = request.stream;
    if (status == OK)
        status = call_start(&server->options.generator, &server->options.model, &request, &call,
                            &refusal);
    if (status != OK) return send_refusal(exchange, &refusal);
    enter_call(exchange, call);
    if (atomic_load(&server->stopping)) call_abort(call); /* it came between */
    return stream ? send_stream(exchange) : send_whole(exchange);
}

/* ---- the small routes ---- */

static enum MHD_Result answer_health(Exchange *exchange)
{
    Server *server = exchange->server;
    const Generator *generator = &server->options.generator;
    GeneratorState state = generator->state(generator->self);
    bool ready = state.ready && !atomic_load(&server->draining);
    Str json = {0};
    str_printf(&json, "{\"status\":\"%s\"}", ready ? "ok" : "ending");
    return send_json(exchange, ready ? 200 : 503, &json);
}

static enum MHD_Result list_models(Exchange *exchange)
{
    Str json = {0};
    answer_models(&exchange->server->options.model, true, &json);
    return send_json(exchange, 200, &json);
}

static enum MHD_Result show_model(Exchange *exchange)
{
    Str json = {0};
    answer_models(&exchange->server->options.model, false, &json);
    return send_json(exchange, 200, &json);
}

static enum MHD_Result answer_model_info(Exchange *exchange)
{
    const ServeOptions *options = &exchange->server->options;
    GeneratorState state = options->generator.state(options->generator.self);
    Str json = {0};
    str_puts(&json, "{\"model_path\":");
    json_append_string(&json, options->model.name);
    str_printf(&json,
               ",\"is_generation\":true,\"weight_version\":\"%lld\",\"running\":%d,"
               "\"waiting\":%d}",
               (long long)state.weight_version, state.running, state.waiting);
    return send_json(exchange, 200, &json);
}

static enum MHD_Result answer_abort(Exchange *exchange)
{
    Refusal refusal = {0};
    cJSON *json = NULL;
    const char *rid = NULL;
    bool all = false;
    Status status = json_parse(str_text(&exchange->body), exchange->body.length, "the body", &json,
                               &refusal.error);
    if (status == OK && !cJSON_IsObject(json))
        status = refuse_request(&refusal, 400, NULL, "the body is %s, expected a JSON object",
                                json_type_name(json));
    if (status == OK) status = json_string_or(json, "rid", "the body", &rid, &refusal.error);
    if (status == OK) status = json_bool_or(json, "abort_all", "the body", &all, &refusal.error);
    if (status == OK && !all && (rid == NULL || rid[0] == '\0'))
        status = refuse_param(&refusal, "rid", "expected rid, or abort_all with true");
    if (status == OK) {
        Str text = {0};
        str_printf(&text, "{\"aborted\":%d}", abort_calls(exchange->server, all ? NULL : rid));
        cJSON_Delete(json);
        return send_json(exchange, 200, &text);
    }
    cJSON_Delete(json);
    return send_refusal(exchange, &refusal);
}

static const Route ROUTES[] = {
    {"POST", "/v1/chat/completions", false, answer_call, API_CHAT},
    {"POST", "/v1/completions", false, answer_call, API_COMPLETION},
    {"POST", "/generate", false, answer_call, API_GENERATE},
    {"POST", "/abort_request", false, answer_abort, 0},
    {"GET", "/v1/models", false, list_models, 0},
    {"GET", "/model_info", false, answer_model_info, 0},
    {"GET", "/get_model_info", false, answer_model_info, 0},
    {"GET", "/health", true, answer_health, 0},
};
#define NUM_ROUTES (sizeof ROUTES / sizeof *ROUTES)

static const Route SHOW_MODEL = {"GET", "/v1/models/{model}", false, show_model, 0};

/* ---- who asks for what ---- */

static Status find_route(const Server *server, const char *method, const char *path,
                         const Route **ret, Refusal *refusal)
{
    bool known = false;
    if (strcmp(method, "HEAD") == 0) method = "GET";
    for (size_t i = 0; i < NUM_ROUTES; i++) {
        if (strcmp(ROUTES[i].path, path) != 0) continue;
        known = true;
        *ret = &ROUTES[i];
        if (strcmp(ROUTES[i].method, method) == 0) return OK;
    }
    if (known)
        return refuse_request(refusal, 405, NULL, "%s takes %s, not %.16s", path, (*ret)->method,
                              method);
    if (str_starts_with(path, "/v1/models/")) {
        *ret = &SHOW_MODEL;
        const char *name = path + strlen("/v1/models/");
        if (strcmp(name, server->options.model.name) == 0) return OK;
        return refuse_request(refusal, 404, "model_not_found",
                              "the model %s does not exist; this server has %s", QUOTED(name),
                              server->options.model.name);
    }
    Str paths = {0};
    for (size_t i = 0; i < NUM_ROUTES; i++)
        str_printf(&paths, "%s%s %s", i > 0 ? ", " : "", ROUTES[i].method, ROUTES[i].path);
    refuse_request(refusal, 404, NULL, "there is nothing at %s; there is %s", QUOTED(path),
                   str_text(&paths));
    str_free(&paths);
    return ERR_INVALID;
}

/* As long as the token is, whatever was given: time says nothing of how much of it was right. */
static bool token_is(const char *token, const char *given)
{
    size_t length = strlen(token), given_length = strlen(given);
    unsigned char different = length != given_length;
    for (size_t i = 0; i < length; i++)
        different |= (unsigned char)(token[i] ^ (i < given_length ? given[i] : 0));
    return different == 0;
}

static Status check_token(const Exchange *exchange, Refusal *refusal)
{
    const char *token = exchange->server->token;
    if (token == NULL) return OK;
    const char *given = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND,
                                                    MHD_HTTP_HEADER_AUTHORIZATION);
    if (given == NULL)
        return refuse_request(refusal, 401, "invalid_api_key",
                              "this server wants a token: Authorization: Bearer TOKEN");
    if (strncasecmp(given, "Bearer ", 7) != 0 || !token_is(token, given + 7))
        return refuse_request(refusal, 401, "invalid_api_key", "the token is not this server's");
    return OK;
}

/* A web page anywhere can make a browser on this machine send requests to loopback; it cannot make
 * it leave out where the page came from. */
static Status check_origin(const Exchange *exchange, Refusal *refusal)
{
    static const char *const LOCAL[] = {"http://localhost", "http://127.0.0.1", "http://[::1]"};
    const char *origin =
        MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);
    if (origin == NULL || exchange->server->token != NULL) return OK;
    for (size_t i = 0; i < sizeof LOCAL / sizeof *LOCAL; i++) {
        size_t length = strlen(LOCAL[i]);
        if (strncmp(origin, LOCAL[i], length) == 0 &&
            (origin[length] == '\0' || origin[length] == ':'))
            return OK;
    }
    return refuse_request(refusal, 403, NULL,
                          "a page of %s may not use a server that has no token (--token-file)",
                          QUOTED(origin));
}

static Status check_size(const Exchange *exchange, Refusal *refusal)
{
    const char *length = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (length == NULL || strtoull(length, NULL, 10) <= BODY_BYTES_MAX) return OK;
    return refuse_request(refusal, 413, NULL, "a body of %.20s bytes, at most %u are taken", length,
                          BODY_BYTES_MAX);
}

/* ---- libmicrohttpd's callbacks ---- */

static Exchange *begin(Server *server, struct MHD_Connection *connection, const char *method,
                       const char *path)
{
    Exchange *exchange = mem_calloc(1, sizeof *exchange);
    Refusal *refusal = &exchange->refusal;
    exchange->server = server;
    exchange->connection = connection;
    exchange->peer =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    expect(exchange, server->options.body_ms);
    Status status = find_route(server, method, path, &exchange->route, refusal);
    bool open = exchange->route != NULL && exchange->route->open;
    Refusal unknown = {0};
    /* Without the token nobody learns even what there is. */
    if (!open && check_token(exchange, &unknown) != OK) {
        *refusal = unknown;
        status = unknown.error.status;
    }
    if (status == OK) status = check_origin(exchange, refusal);
    if (status == OK) status = check_size(exchange, refusal);
    exchange->refused = status != OK;
    return exchange;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *upload, size_t *upload_size, void **state)
{
    (void)version;
    if (*state == NULL) {
        Exchange *exchange = begin(context, connection, method, path);
        *state = exchange;
        /* Answered before the body is read: the connection ends with it. */
        return exchange->refused ? send_refusal(exchange, &exchange->refusal) : MHD_YES;
    }
    Exchange *exchange = *state;
    if (*upload_size > 0) {
        size_t room = BODY_BYTES_MAX + 1 - exchange->body.length;
        str_append(&exchange->body, upload, *upload_size < room ? *upload_size : room);
        *upload_size = 0;
        return MHD_YES;
    }
    if (exchange->body.length > BODY_BYTES_MAX) {
        refuse_request(&exchange->refusal, 413, NULL,
                       "a body of more than the %u bytes that are "
                       "taken",
                       BODY_BYTES_MAX);
        return send_refusal(exchange, &exchange->refusal);
    }
    expect(exchange, 0); /* while an answer is made, which takes as long as it takes */
    return exchange->route->answer(exchange);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    Exchange *exchange = *state;
    const Server *server = context;
    (void)connection;
    (void)code;
    if (exchange == NULL) return;
    leave_call(exchange);
    expect(exchange, server->options.idle_ms);
    str_free(&exchange->body);
    str_free(&exchange->out);
    free(exchange);
    *state = NULL;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **peer,
                          enum MHD_ConnectionNotificationCode code)
{
    Server *server = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *peer = peers_add(server->peers, descriptor_of(connection), server->options.header_ms);
    } else {
        peers_remove(server->peers, *peer);
        *peer = NULL;
    }
}

/* ---- lifecycle ---- */

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static Status parse_address(const char *host, int port, struct sockaddr_storage *ret, Error *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    *ret = (struct sockaddr_storage){0};
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    if (port < 0 || port > 65535)
        return error_set(err, ERR_INVALID, "port %d, allowed are 0 (any) to 65535", port);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
    } else {
        return error_set(err, ERR_INVALID,
                         "host %s is not an address of this machine, such as 127.0.0.1 or 0.0.0.0",
                         QUOTED(host));
    }
    return OK;
}

/* A listening socket of our own, so that a port in use is known from other failures. */
static Status listen_at(const ServeOptions *options, int *ret_socket, char **ret_url, Error *err)
{
    struct sockaddr_storage address;
    char text[INET6_ADDRSTRLEN];
    const char *host = options->host != NULL ? options->host : "127.0.0.1";
    TRY(parse_address(host, options->port, &address, err));
    if (!is_loopback(&address) && options->token == NULL)
        return error_set(err, ERR_INVALID,
                         "host %s can be reached by others, and there is no token.\nGive "
                         "--token-file FILE, or leave out --host to serve this machine alone.",
                         host);
    bool v6 = address.ss_family == AF_INET6;
    socklen_t size = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int one = 1, fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return error_set_errno(err, errno, "could not make a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 128) != 0) {
        int failed = errno;
        close(fd);
        if (failed == EADDRINUSE)
            return error_set(err, ERR_EXISTS,
                             "port %d of %s is in use by another program.\nGive --port another "
                             "number, or 0 for any that is free.",
                             options->port, host);
        return error_set_errno(err, failed, "could not listen at %s, port %d", host, options->port);
    }
    getsockname(fd, (struct sockaddr *)&address, &size);
    int port = ntohs(v6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                        : ((struct sockaddr_in *)&address)->sin_port);
    inet_ntop(address.ss_family,
              v6 ? (void *)&((struct sockaddr_in6 *)&address)->sin6_addr
                 : (void *)&((struct sockaddr_in *)&address)->sin_addr,
              text, sizeof text);
    *ret_url = mem_printf(v6 ? "http://[%s]:%d" : "http://%s:%d", text, port);
    *ret_socket = fd;
    return OK;
}

Status serve_try_port(const char *host, int port, Error *err)
{
    const ServeOptions options = {.host = host, .port = port, .token = ""};
    char *url = NULL;
    int fd = -1;
    TRY(listen_at(&options, &fd, &url, err));
    free(url);
    close(fd);
    return OK;
}

static void server_free(Server *server)
{
    peers_destroy(server->peers);
    pthread_mutex_destroy(&server->lock);
    free(server->token);
    free(server->name);
    free(server->url);
    free(server);
}

static void set_default(int *value, int preset)
{
    if (*value <= 0) *value = preset;
}

static void set_defaults(ServeOptions *options)
{
    set_default(&options->connections_max, CONNECTIONS_MAX);
    set_default(&options->header_ms, HEADER_MS);
    set_default(&options->body_ms, BODY_MS);
    set_default(&options->idle_ms, IDLE_MS);
    set_default(&options->answer_ms, ANSWER_MS);
}

Status serve_start(const ServeOptions *options, Server **ret, Error *err)
{
    int fd = -1;
    char *url = NULL;
    TRY(listen_at(options, &fd, &url, err));
    Server *server = mem_calloc(1, sizeof *server);
    pthread_mutex_init(&server->lock, NULL);
    server->options = *options;
    server->token = mem_strdup(options->token);
    server->name = mem_strdup(options->model.name);
    server->options.model.name = server->name;
    server->url = url;
    server->peers = peers_create();
    set_defaults(&server->options);
    server->daemon = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL,
        NULL, on_request, server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)server->options.connections_max, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_END);
    if (server->daemon == NULL) {
        close(fd);
        server_free(server);
        return error_set(err, ERR_RESOURCE, "could not start the HTTP server");
    }
    *ret = server;
    return OK;
}

const char *serve_url(const Server *server)
{
    return server->url;
}

int serve_calls(const Server *server)
{
    return atomic_load(&server->calls);
}

void serve_drain(Server *server)
{
    atomic_store(&server->draining, true);
}

void serve_stop(Server *server)
{
    if (server == NULL) return;
    serve_drain(server);
    atomic_store(&server->stopping, true);
    abort_calls(server, NULL);
    /* Clients that read get their last words. */
    for (int64_t until = clock_ms() + LAST_WORDS_MS; serve_calls(server) > 0;) {
        if (clock_ms() > until) break;
        usleep(5000);
    }
    MHD_stop_daemon(server->daemon);
    server_free(server);
}

/* ---- the token ---- */

Status serve_token_read(const char *path, char **ret, Error *err)
{
    struct stat about;
    char *bytes = NULL;
    size_t length = 0;
    if (stat(path, &about) != 0) return error_set_errno(err, errno, "token file %s", path);
    if ((about.st_mode & 077) != 0)
        return error_set(err, ERR_INVALID,
                         "token file %s can be read by others (mode %03o).\nTo do: chmod 600 %s",
                         path, about.st_mode & 0777u, path);
    TRY(file_read(path, 4096, &bytes, &length, err));
    size_t end = strcspn(bytes, "\r\n");
    Status status = OK;
    if (end < TOKEN_BYTES_MIN)
        status = error_set(err, ERR_INVALID,
                           "token file %s: its first line has %zu characters, expected at least "
                           "%d, such as those of: openssl rand -hex 32",
                           path, end, TOKEN_BYTES_MIN);
    for (size_t i = 0; status == OK && i < end; i++)
        if (bytes[i] <= ' ' || bytes[i] > '~')
            status = error_set(err, ERR_INVALID,
                               "token file %s: character %zu of its first line cannot stand in a "
                               "header, expected printable ASCII without spaces",
                               path, i + 1);
    if (status == OK) *ret = mem_strndup(bytes, end);
    free(bytes);
    return status;
}
