/* The HTTP server beside clients that mean it no good, or are slow: who may hold a connection, and
 * for how long. Over real sockets, with a generator that answers after a while. */
#include "test.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/serve/serve.h"

#define TINY_MODEL PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

#define HEADER_MS 600
#define BODY_MS   600
#define ANSWER_MS 400
#define LATE_MS   30000 /* much later than any of these, on a busy machine too */

#define ASK "{\"input_ids\": [5], \"sampling_params\": {\"max_new_tokens\": 1}}"

/* ---- a generator: one token, after a while ---- */

static int think_ms;

typedef struct Work {
    GenerationSink sink;
    int num_samples;
} Work;

static void *work_main(void *argument)
{
    Work *work = argument;
    usleep((useconds_t)think_ms * 1000);
    for (int i = 0; i < work->num_samples; i++) {
        Generation result = {.index = (uint32_t)i, .length = 1, .finish = FINISH_LENGTH};
        result.token = mem_calloc(1, sizeof *result.token);
        result.log_prob = mem_calloc(1, sizeof *result.log_prob);
        result.version_run = mem_calloc(1, sizeof *result.version_run);
        result.version_run[0] = (VersionRun){1, 1};
        result.num_version_runs = 1;
        result.token[0] = 6;
        result.temperature = 1;
        result.stop_token = result.stop_string = -1;
        work->sink.on_result(work->sink.context, &result);
    }
    free(work);
    return NULL;
}

static Status submit(void *self, const GenerateRequest *request, const GenerationSink *sink,
                     uint64_t *ret_id, Error *err)
{
    (void)self, (void)err;
    pthread_t thread;
    Work *work = mem_calloc(1, sizeof *work);
    *work = (Work){*sink, request->num_samples};
    *ret_id = 1;
    assert_int_equal(pthread_create(&thread, NULL, work_main, work), 0);
    pthread_detach(thread);
    return OK;
}

static void abort_request(void *self, uint64_t id)
{
    (void)self, (void)id;
}

static GeneratorState state_of(void *self)
{
    (void)self;
    return (GeneratorState){.weight_version = 1, .ready = true};
}

/* ---- the server ---- */

static TextModel *text;

static int load_text(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(text_model_load(TINY_MODEL, NULL, &text, &err), &err);
    return 0;
}

static int free_text(void **state)
{
    (void)state;
    text_model_destroy(text);
    return 0;
}

static Server *start(int connections_max)
{
    Server *server = NULL;
    Error err = {0};
    ServeOptions options = {
        .generator = {submit, abort_request, state_of, NULL},
        .model = {"tiny", text, NULL, 1024, 100, 0},
        .connections_max = connections_max,
        .header_ms = HEADER_MS,
        .body_ms = BODY_MS,
        .idle_ms = HEADER_MS,
        .answer_ms = ANSWER_MS,
    };
    assert_ok(serve_start(&options, &server, &err), &err);
    return server;
}

/* ---- clients ---- */

static int port_of(const Server *server)
{
    return atoi(strrchr(serve_url(server), ':') + 1);
}

/* -1: nobody listens any more. */
static int reach_port(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

static int reach(const Server *server)
{
    int fd = reach_port(port_of(server));
    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *words)
{
    assert_true(send(fd, words, strlen(words), MSG_NOSIGNAL) == (ssize_t)strlen(words));
}

static char *post(const char *body)
{
    return mem_printf("POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      "Content-Length: %zu\r\n\r\n%s",
                      strlen(body), body);
}

/* Says the words a byte at a time, the last one again and again, for as long as anybody listens.
 * Milliseconds until nobody did; LATE_MS when it is not cut off. */
static int64_t dribble(int fd, const char *words)
{
    int64_t began = clock_ms();
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};
    while (clock_ms() - began < LATE_MS) {
        if (words[0] != '\0' && send(fd, words, 1, MSG_NOSIGNAL) != 1) break;
        if (words[0] != '\0' && words[1] != '\0') words++;
        if (poll(&end, 1, 20) > 0) break;
    }
    return clock_ms() - began;
}

/* What comes until the server ends the connection, or `end` is in it. */
static char *hear(int fd, const char *end)
{
    Str heard = {0};
    char bytes[4096];
    struct pollfd more = {.fd = fd, .events = POLLIN};
    while (end == NULL || strstr(str_text(&heard), end) == NULL) {
        assert_int_equal(poll(&more, 1, LATE_MS), 1);
        ssize_t count = recv(fd, bytes, sizeof bytes, 0);
        if (count <= 0) break;
        str_append(&heard, bytes, (size_t)count);
    }
    return str_take(&heard);
}

static void assert_answered(int fd)
{
    char *answer = hear(fd, "output_ids");
    assert_non_null(answer);
    if (strstr(answer, "HTTP/1.1 200") == NULL) fail_msg("%s", answer);
    free(answer);
}

/* ---- tests ---- */

static void test_a_client_that_sends_no_request_is_cut_off(void **state)
{
    (void)state;
    Server *server = start(0);
    static const char *const words[] = {"",
                                        "GET /health HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (int i = 0; i < 2; i++) {
        int fd = reach(server);
        assert_in_range(dribble(fd, words[i]), HEADER_MS / 2, LATE_MS / 2);
        close(fd);
    }
    serve_stop(server);
}

static void test_a_client_that_never_ends_its_body_is_cut_off(void **state)
{
    (void)state;
    Server *server = start(0);
    static const char *const words[] = {"", "{\"input_ids\": [5], \"sampling_params\": {"};
    for (int i = 0; i < 2; i++) {
        int fd = reach(server);
        say(fd, "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n");
        assert_in_range(dribble(fd, words[i]), BODY_MS / 2, LATE_MS / 2);
        close(fd);
    }
    serve_stop(server);
}

/* Nor does a body that is refused before it comes hold its connection. */
static void test_a_refused_client_that_goes_on_talking_is_cut_off(void **state)
{
    (void)state;
    Server *server = start(0);
    int fd = reach(server);
    say(fd, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n");
    char *answer = hear(fd, "there is nothing at");
    assert_non_null(strstr(answer, "HTTP/1.1 404"));
    free(answer);
    assert_true(dribble(fd, "x") < LATE_MS / 2);
    close(fd);
    serve_stop(server);
}

/* The time is the client's, not that of the answer; and it begins anew with each request. */
static void test_an_answer_may_take_longer_than_its_request(void **state)
{
    (void)state;
    Server *server = start(0);
    char *request = post(ASK);
    int fd = reach(server);
    for (int i = 0; i < 3; i++) {
        think_ms = 3 * BODY_MS / 2;
        say(fd, request);
        assert_answered(fd);
    }
    /* A request in pieces, as over a slow line. */
    think_ms = 0;
    for (size_t at = 0, length = strlen(request); at < length; at += 40) {
        assert_true(send(fd, request + at, length - at < 40 ? length - at : 40, MSG_NOSIGNAL) > 0);
        usleep(20000);
    }
    assert_answered(fd);
    assert_in_range(dribble(fd, ""), HEADER_MS / 2, LATE_MS / 2); /* no further request */
    close(fd);
    free(request);
    serve_stop(server);
}

/* Where all connections are held it may be turned away at once, and comes again. */
static int reach_at_last(const Server *server, const char *request)
{
    int64_t began = clock_ms();
    for (;;) {
        int fd = reach(server);
        if (send(fd, request, strlen(request), MSG_NOSIGNAL) > 0) {
            char *answer = hear(fd, "output_ids");
            bool answered = answer != NULL && strstr(answer, "HTTP/1.1 200") != NULL;
            free(answer);
            if (answered) return fd;
        }
        close(fd);
        assert_true(clock_ms() - began < LATE_MS / 2);
        usleep(20000);
    }
}

/* All connections are held, and yet who has something to ask gets an answer. */
static void test_slow_clients_keep_others_out_for_a_while_only(void **state)
{
    (void)state;
    Server *server = start(3);
    char *request = post(ASK);
    int slow[3], fd;
    think_ms = 0;
    for (int i = 0; i < 3; i++) {
        slow[i] = reach(server);
        say(slow[i], "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{");
    }
    fd = reach_at_last(server, request);
    close(fd);
    for (int i = 0; i < 3; i++)
        close(slow[i]);
    free(request);
    serve_stop(server);
}

/* A large answer that is not taken: it does not fit what lies between the two sides. */
static void test_a_client_that_does_not_take_its_answer_is_cut_off(void **state)
{
    (void)state;
    Server *server = start(1);
    char *large = post("{\"input_ids\": [5], \"return_logprob\": true, \"sampling_params\": "
                       "{\"max_new_tokens\": 1, \"n\": 1024}}");
    char *request = post(ASK);
    think_ms = 0;
    int fd = reach(server), few = 2048;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof few), 0);
    say(fd, large);
    int other = reach_at_last(server, request);
    close(other);
    close(fd);
    free(large);
    free(request);
    serve_stop(server);
}

typedef struct Asker {
    int port;
    pthread_t thread;
    int answers;
} Asker;

/* Until the server is gone. */
static void *ask_main(void *argument)
{
    Asker *asker = argument;
    char *request = post(ASK), bytes[4096];
    for (int fd; (fd = reach_port(asker->port)) >= 0; close(fd)) {
        while (send(fd, request, strlen(request), MSG_NOSIGNAL) > 0 &&
               recv(fd, bytes, sizeof bytes, 0) > 0)
            asker->answers++;
    }
    free(request);
    return NULL;
}

static void test_a_server_stops_under_load(void **state)
{
    (void)state;
    int answers = 0;
    think_ms = 2;
    for (int cycle = 0; cycle < 8; cycle++) {
        Server *server = start(4);
        Asker asker[6];
        for (int i = 0; i < 6; i++) {
            asker[i] = (Asker){.port = port_of(server)};
            assert_int_equal(pthread_create(&asker[i].thread, NULL, ask_main, &asker[i]), 0);
        }
        usleep(30000 + cycle * 3000);
        int64_t began = clock_ms();
        serve_stop(server);
        assert_true(clock_ms() - began < LATE_MS);
        for (int i = 0; i < 6; i++) {
            pthread_join(asker[i].thread, NULL);
            answers += asker[i].answers;
        }
    }
    assert_true(answers > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_client_that_sends_no_request_is_cut_off),
        cmocka_unit_test(test_a_client_that_never_ends_its_body_is_cut_off),
        cmocka_unit_test(test_a_refused_client_that_goes_on_talking_is_cut_off),
        cmocka_unit_test(test_an_answer_may_take_longer_than_its_request),
        cmocka_unit_test(test_slow_clients_keep_others_out_for_a_while_only),
        cmocka_unit_test(test_a_client_that_does_not_take_its_answer_is_cut_off),
        cmocka_unit_test(test_a_server_stops_under_load),
    };
    return cmocka_run_group_tests(tests, load_text, free_text);
}
