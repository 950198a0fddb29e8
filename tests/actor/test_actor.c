/* Tests of actor and handle: what a caller and a callee may rely on, with the peer alive, slow,
 * stale, damaged and dead. */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "actor/handle.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/memory.h"
#include "net/message.h"

enum { LONG_MS = 20000 };

/* ---- an actor that can do what the tests need ---- */

typedef struct Server {
    Call *kept[16];
    int num_kept;
    int runs;
    uint64_t last_number, out_of_order;
} Server;

static void serve_echo(void *self, Call *call)
{
    ((Server *)self)->runs++;
    call_reply(call, call_body(call), call_attachment(call));
}

static void serve_fail(void *self, Call *call)
{
    (void)self;
    call_failf(call, ERR_DATA, "record %d of %s is bad", 7, call_method(call));
}

static void serve_keep(void *self, Call *call)
{
    Server *server = self;
    server->kept[server->num_kept++] = call;
}

static void serve_number(void *self, Call *call)
{
    Server *server = self;
    uint64_t number;
    memcpy(&number, call_body(call).data, sizeof number);
    server->runs++;
    if (number <= server->last_number) server->out_of_order++;
    server->last_number = number;
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static const ActorMethod server_methods[] = {
    {"test.echo", serve_echo},
    {"test.fail", serve_fail},
    {"test.keep", serve_keep},
    {"test.number", serve_number},
};

/* ---- one loop with an actor and a handle to it ---- */

typedef struct Stage {
    Loop *loop;
    Actor *actor;
    Server server;
    Handle *handle;
    ActorIdentity caller;
    char endpoint[128];
} Stage;

static void make_endpoint(char *endpoint, size_t size, const char *name)
{
    snprintf(endpoint, size, "ipc:///tmp/troupe-test-%d-%s.sock", (int)getpid(), name);
}

static Actor *make_actor(Loop *loop, const char *endpoint, Server *server)
{
    Actor *actor = NULL;
    Error err = {0};
    ActorOptions options = {
        .identity = {.name = "server-0", .job = 77, .generation = 2, .incarnation = 1000},
        .endpoint = endpoint,
        .methods = server_methods,
        .num_methods = sizeof server_methods / sizeof *server_methods,
        .self = server,
    };
    assert_ok(actor_create(loop, &options, &actor, &err), &err);
    return actor;
}

static void stage_open(Stage *stage, const char *name)
{
    Error err = {0};
    *stage = (Stage){.caller = {.name = "caller", .job = 77, .generation = 2, .incarnation = 2000}};
    make_endpoint(stage->endpoint, sizeof stage->endpoint, name);
    assert_ok(loop_create(&stage->loop, &err), &err);
    stage->actor = make_actor(stage->loop, stage->endpoint, &stage->server);
    assert_ok(
        handle_open(stage->loop, &stage->caller, "server-0", stage->endpoint, &stage->handle, &err),
        &err);
}

static void answer_kept(Stage *stage, int index, const char *text)
{
    call_reply(stage->server.kept[index], (Bytes){(const uint8_t *)text, strlen(text)}, (Bytes){0});
    stage->server.kept[index] = NULL;
}

static void stage_close(Stage *stage)
{
    handle_close(stage->handle);
    actor_destroy(stage->actor);
    for (int i = 0; i < stage->server.num_kept;
         i++) /* their holder need not know that it is too late */
        if (stage->server.kept[i] != NULL) answer_kept(stage, i, "");
    loop_destroy(stage->loop);
}

/* What a callback was told; stops the loop when `awaited` answers are there. */
typedef struct Answers {
    Loop *loop;
    int awaited, count, good;
    Status status;
    char message[ERROR_MESSAGE_MAX];
    uint8_t body[64];
    size_t body_length, attachment_length;
    uint8_t first, last; /* bytes of the attachment */
} Answers;

static void on_answer(void *argument, const Reply *reply)
{
    Answers *answers = argument;
    answers->count++;
    answers->good += reply->status == OK;
    answers->status = reply->status;
    if (reply->status != OK) {
        snprintf(answers->message, sizeof answers->message, "%s", reply->error->message);
    } else {
        answers->body_length = reply->body.length;
        answers->attachment_length = reply->attachment.length;
        if (reply->body.length <= sizeof answers->body && reply->body.length > 0)
            memcpy(answers->body, reply->body.data, reply->body.length);
        if (reply->attachment.length > 0) {
            answers->first = reply->attachment.data[0];
            answers->last = reply->attachment.data[reply->attachment.length - 1];
        }
    }
    if (answers->count == answers->awaited) loop_stop(answers->loop);
}

static Bytes text_bytes(const char *text)
{
    return (Bytes){(const uint8_t *)text, strlen(text)};
}

static void send_call(Handle *handle, const char *method, Bytes body, int timeout_ms,
                      Answers *answers)
{
    Error err = {0};
    CallOptions options = {.method = method, .body = body, .timeout_ms = timeout_ms};
    assert_ok(handle_call(handle, &options, on_answer, answers, &err), &err);
}

/* Calls and waits. */
static Answers call_and_wait(Stage *stage, const char *method, const char *body, int timeout_ms)
{
    Answers answers = {.loop = stage->loop, .awaited = 1};
    send_call(stage->handle, method, text_bytes(body), timeout_ms, &answers);
    loop_run(stage->loop);
    assert_int_equal(answers.count, 1);
    return answers;
}

static void stop_loop(void *argument)
{
    loop_stop(argument);
}

static void run_for(Loop *loop, int ms)
{
    LoopTimer *timer = loop_add_timer(loop, ms, 0, stop_loop, loop);
    loop_run(loop);
    loop_remove_timer(timer);
}

/* ---- calls that end well ---- */

static void test_call_brings_body_and_attachment_back(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage, "bytes");
    const size_t sizes[] = {0, 1, 33, 100, 8192, 3u << 20, MESSAGE_BYTES_MAX};
    uint8_t *bytes = mem_calloc(MESSAGE_BYTES_MAX, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Answers answers = {.loop = stage.loop, .awaited = 1};
        if (sizes[i] > 0) bytes[0] = 7;
        if (sizes[i] > 1) bytes[sizes[i] - 1] = 9;
        CallOptions options = {.method = "test.echo",
                               .body = text_bytes("hello"),
                               .attachment = {bytes, sizes[i]},
                               .timeout_ms = LONG_MS};
        assert_ok(handle_call(stage.handle, &options, on_answer, &answers, &err), &err);
        loop_run(stage.loop);
        assert_int_equal(answers.status, OK);
        assert_int_equal(answers.body_length, 5);
        assert_memory_equal(answers.body, "hello", 5);
        assert_int_equal(answers.attachment_length, sizes[i]);
        if (sizes[i] > 1) assert_true(answers.first == 7 && answers.last == 9);
    }
    CallOptions large = {.method = "test.echo",
                         .attachment = {bytes, (size_t)MESSAGE_BYTES_MAX + 1},
                         .timeout_ms = LONG_MS};
    assert_fails(handle_call(stage.handle, &large, on_answer, NULL, &err), ERR_INVALID, &err,
                 "more than a message carries");
    free(bytes);
    stage_close(&stage);
}

static void test_calls_of_one_caller_arrive_in_order(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "order");
    Answers answers = {.loop = stage.loop, .awaited = 20000};
    for (uint64_t i = 1; i <= 20000; i++) /* the first ones before there is a connection */
        send_call(stage.handle, "test.number", (Bytes){(uint8_t *)&i, sizeof i}, LONG_MS, &answers);
    loop_run(stage.loop);
    assert_int_equal(answers.good, 20000);
    assert_int_equal(stage.server.runs, 20000);
    assert_int_equal(stage.server.out_of_order, 0);
    ActorStats stats = actor_stats(stage.actor);
    assert_int_equal(stats.missing, 0);
    assert_int_equal(stats.answers, 20000);
    stage_close(&stage);
}

static void test_kept_calls_can_be_answered_in_any_order(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "keep");
    Answers one = {.loop = stage.loop, .awaited = 1}, two = one;
    send_call(stage.handle, "test.keep", text_bytes("1"), LONG_MS, &one);
    send_call(stage.handle, "test.keep", text_bytes("2"), LONG_MS, &two);
    while (stage.server.num_kept < 2)
        run_for(stage.loop, 1);
    answer_kept(&stage, 1, "second");
    loop_run(stage.loop);
    assert_int_equal(one.count, 0);
    assert_memory_equal(two.body, "second", 6);
    answer_kept(&stage, 0, "first");
    loop_run(stage.loop);
    assert_memory_equal(one.body, "first", 5);
    stage_close(&stage);
}

/* ---- calls that end badly, and say why ---- */

static void test_errors_of_the_peer_arrive_whole(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "errors");
    Answers answers = call_and_wait(&stage, "test.fail", "", LONG_MS);
    assert_int_equal(answers.status, ERR_DATA);
    assert_string_equal(answers.message, "record 7 of test.fail is bad");
    answers = call_and_wait(&stage, "test.typo", "", LONG_MS);
    assert_int_equal(answers.status, ERR_NOT_FOUND);
    assert_string_equal(answers.message, "server-0 has no method \"test.typo\"");
    answers = call_and_wait(&stage, "test.ech", "", LONG_MS);
    assert_int_equal(answers.status, ERR_NOT_FOUND);
    stage_close(&stage);
}

static void test_stale_generation_is_refused_by_both_numbers(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "stale");
    actor_set_generation(stage.actor, 5);
    Answers answers = call_and_wait(&stage, "test.echo", "", LONG_MS);
    assert_int_equal(answers.status, ERR_CANCELLED);
    assert_string_equal(answers.message,
                        "stale generation: the caller is in generation 2, server-0 in 5");
    assert_int_equal(stage.server.runs, 0);
    handle_set_generation(stage.handle, 5);
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    handle_set_generation(stage.handle, 6);
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    stage_close(&stage);
}

static void test_another_job_is_refused(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage, "job");
    ActorIdentity stranger = {.name = "x", .job = 78, .generation = 9, .incarnation = 3};
    Handle *handle = NULL;
    assert_ok(handle_open(stage.loop, &stranger, "server-0", stage.endpoint, &handle, &err), &err);
    Answers answers = {.loop = stage.loop, .awaited = 1};
    send_call(handle, "test.echo", (Bytes){0}, LONG_MS, &answers);
    loop_run(stage.loop);
    assert_int_equal(answers.status, ERR_INVALID);
    assert_non_null(strstr(answers.message, "belongs to job 000000000000004d"));
    handle_close(handle);
    stage_close(&stage);
}

static void test_deadline_ends_a_call_and_drops_its_late_answer(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "deadline");
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    int64_t start_ms = clock_ms();
    Answers answers = call_and_wait(&stage, "test.keep", "", 50);
    assert_int_equal(answers.status, ERR_TIMEOUT);
    assert_string_equal(answers.message, "test.keep to server-0 got no answer before its deadline");
    assert_true(clock_ms() - start_ms >= 49);
    assert_int_equal(handle_calls_in_flight(stage.handle), 0);
    while (clock_ms() <= call_deadline_ms(stage.server.kept[0]))
        run_for(stage.loop, 5);
    answer_kept(&stage, 0, "");
    assert_int_equal(actor_stats(stage.actor).late, 1);
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    Error err = {0};
    CallOptions endless = {.method = "test.echo"};
    assert_fails(handle_call(stage.handle, &endless, on_answer, NULL, &err), ERR_INVALID, &err,
                 "timeout above 0");
    stage_close(&stage);
}

typedef struct Ending {
    Loop *loop;
    int *num_ended;
    int place;
} Ending;

static void on_ending(void *argument, const Reply *reply)
{
    Ending *ending = argument;
    assert_int_equal(reply->status, ERR_TIMEOUT);
    ending->place = (*ending->num_ended)++;
    if (*ending->num_ended == 5) loop_stop(ending->loop);
}

/* Deadlines far apart and out of order: calls end in the order of their deadlines, not of their
 * making. */
static void test_calls_end_in_the_order_of_their_deadlines(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage, "deadlines");
    const int timeouts[] = {200, 40, 120, 80, 100}, places[] = {4, 0, 3, 1, 2};
    int num_ended = 0;
    Ending endings[5];
    for (int i = 0; i < 5; i++) {
        endings[i] = (Ending){.loop = stage.loop, .num_ended = &num_ended};
        CallOptions options = {.method = "test.keep", .timeout_ms = timeouts[i]};
        assert_ok(handle_call(stage.handle, &options, on_ending, &endings[i], &err), &err);
    }
    loop_run(stage.loop);
    for (int i = 0; i < 5; i++)
        assert_int_equal(endings[i].place, places[i]);
    stage_close(&stage);
}

static void test_nobody_there_is_said(void **state)
{
    (void)state;
    Error err = {0};
    char endpoint[128];
    make_endpoint(endpoint, sizeof endpoint, "nobody");
    uint8_t *body = NULL;
    size_t length = 0;
    ActorIdentity self = {.name = "cli", .incarnation = 5};
    CallOptions options = {.method = "test.echo", .timeout_ms = 50};
    assert_fails(call_once(&self, "server-0", endpoint, &options, &body, &length, &err),
                 ERR_TIMEOUT, &err, endpoint);
}

static void test_calls_in_flight_have_a_cap(void **state)
{
    (void)state;
    Error err = {0};
    Loop *loop = NULL;
    Handle *handle = NULL;
    char endpoint[128];
    make_endpoint(endpoint, sizeof endpoint, "cap");
    ActorIdentity self = {.name = "caller", .incarnation = 5};
    assert_ok(loop_create(&loop, &err), &err);
    assert_ok(handle_open(loop, &self, "server-0", endpoint, &handle, &err), &err);
    Answers answers = {.loop = loop};
    for (int i = 0; i < CALLS_IN_FLIGHT_MAX; i++)
        send_call(handle, "test.echo", text_bytes("x"), LONG_MS, &answers);
    CallOptions more = {.method = "test.echo", .timeout_ms = LONG_MS};
    assert_fails(handle_call(handle, &more, on_answer, &answers, &err), ERR_RESOURCE, &err,
                 "65536 calls are in flight");
    handle_fail(handle, "node n1 is gone");
    assert_int_equal(answers.count, CALLS_IN_FLIGHT_MAX);
    assert_int_equal(answers.status, ERR_UNAVAILABLE);
    assert_string_equal(answers.message, "test.echo to server-0: node n1 is gone");
    send_call(handle, "test.echo", text_bytes("x"), LONG_MS, &answers);
    handle_close(handle);
    assert_int_equal(answers.status, ERR_CANCELLED);
    loop_destroy(loop);
}

static void close_on_answer(void *argument, const Reply *reply)
{
    Stage *stage = argument;
    if (stage->handle != NULL) assert_int_equal(reply->status, OK);
    Handle *handle = stage->handle;
    stage->handle = NULL;
    handle_close(handle);
    loop_stop(stage->loop);
}

static void test_handle_may_be_closed_from_its_own_callback(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage, "close");
    CallOptions options = {.method = "test.echo", .timeout_ms = LONG_MS};
    for (int i = 0; i < 100; i++)
        assert_ok(handle_call(stage.handle, &options, close_on_answer, &stage, &err), &err);
    loop_run(stage.loop);
    assert_null(stage.handle);
    stage_close(&stage);
}

static void test_stopping_actor_fails_its_open_calls(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "stop");
    Answers answers = {.loop = stage.loop, .awaited = 1};
    send_call(stage.handle, "test.keep", (Bytes){0}, LONG_MS, &answers);
    while (stage.server.num_kept < 1)
        run_for(stage.loop, 1);
    actor_destroy(stage.actor);
    stage.actor = NULL;
    loop_run(stage.loop);
    assert_int_equal(answers.status, ERR_UNAVAILABLE);
    assert_string_equal(answers.message, "server-0 has stopped");
    stage_close(&stage);
}

/* ---- bytes from strangers ---- */

static void test_malformed_frames_are_counted_and_dropped(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "malformed");
    void *raw = zmq_socket(loop_zmq_context(stage.loop), ZMQ_DEALER);
    const int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, stage.endpoint), 0);
    zmq_send(raw, "garbage", 7, 0);
    zmq_send(raw, "", 0, 0);
    zmq_send(raw, "a", 1, ZMQ_SNDMORE);
    zmq_send(raw, "b", 1, ZMQ_SNDMORE);
    zmq_send(raw, "c", 1, 0);
    Message reply = {.protocol = PROTOCOL_VERSION, .kind = MESSAGE_REPLY, .sequence = 1};
    message_send(raw, (Bytes){0}, &reply, (Bytes){0});
    while (actor_stats(stage.actor).malformed < 4)
        run_for(stage.loop, 1);
    Message newer = {.protocol = 99,
                     .sequence = 1,
                     .call = 1,
                     .timeout_ms = LONG_MS,
                     .method = text_bytes("test.echo")};
    message_send(raw, (Bytes){0}, &newer, (Bytes){0});
    while (actor_stats(stage.actor).refused < 1)
        run_for(stage.loop, 1);
    MessageFrames frames;
    while (message_receive(raw, false, &frames) != RECEIVE_OK)
        run_for(stage.loop, 1);
    Message answer;
    Error err = {0};
    assert_ok(message_decode(message_frame_bytes(&frames.envelope), &answer, &err), &err);
    assert_int_equal(answer.status, ERR_UNSUPPORTED);
    assert_memory_equal(answer.error.data, "server-0 speaks protocol 1, the caller 99", 41);
    message_frames_close(&frames);
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    zmq_close(raw);
    stage_close(&stage);
}

static void test_oversized_frame_costs_only_its_connection(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "oversized");
    void *raw = zmq_socket(loop_zmq_context(stage.loop), ZMQ_DEALER);
    const int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, stage.endpoint), 0);
    zmq_msg_t large;
    assert_int_equal(zmq_msg_init_size(&large, (size_t)MESSAGE_BYTES_MAX + 1), 0);
    memset(zmq_msg_data(&large), 0, zmq_msg_size(&large));
    assert_true(zmq_msg_send(&large, raw, 0) > 0);
    run_for(stage.loop, 50);
    assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
    assert_int_equal(actor_stats(stage.actor).calls, 1);
    zmq_close(raw);
    stage_close(&stage);
}

/* ---- faults ---- */

static void test_duplicates_run_once(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage, "duplicates");
    const FaultRule rule = {.duplicate_request = 1.0};
    const FaultPlan plan = {1, &rule, 1};
    handle_set_faults(stage.handle, &plan);
    Answers answers = {.loop = stage.loop, .awaited = 500};
    for (uint64_t i = 1; i <= 500; i++)
        send_call(stage.handle, "test.number", (Bytes){(uint8_t *)&i, sizeof i}, LONG_MS, &answers);
    loop_run(stage.loop);
    while (actor_stats(stage.actor).duplicates < 500)
        run_for(stage.loop, 1);
    assert_int_equal(answers.good, 500);
    assert_int_equal(stage.server.runs, 500);
    stage_close(&stage);
}

/* Under loss, repetition and reordering every call ends exactly once, and none runs twice. */
static void test_every_call_ends_once_under_faults(void **state)
{
    (void)state;
    enum { CALLS = 3000 };
    Stage stage;
    stage_open(&stage, "faults");
    const FaultRule rule = {.drop_request = 0.05,
                            .drop_reply = 0.05,
                            .duplicate_request = 0.05,
                            .delay_request = 0.05,
                            .delay_reply = 0.05,
                            .delay_ms_max = 20};
    const FaultPlan plan = {42, &rule, 1};
    handle_set_faults(stage.handle, &plan);
    Answers answers = {.loop = stage.loop, .awaited = CALLS};
    for (uint64_t i = 1; i <= CALLS; i++)
        send_call(stage.handle, "test.number", (Bytes){(uint8_t *)&i, sizeof i}, 1500, &answers);
    loop_run(stage.loop);
    run_for(stage.loop, 50);
    assert_int_equal(answers.count, CALLS);
    assert_int_equal(answers.status, ERR_TIMEOUT); /* the last to end are the lost ones */
    assert_in_range(answers.good, CALLS * 85 / 100, CALLS * 95 / 100);
    assert_in_range(stage.server.runs, answers.good, CALLS);
    assert_true(stage.server.out_of_order > 0);
    ActorStats stats = actor_stats(stage.actor);
    assert_int_equal(stats.calls + stats.missing, CALLS);
    stage_close(&stage);
}

/* ---- death ---- */

/* Serves in a process of its own until killed. */
static pid_t fork_server(const char *endpoint)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    Loop *loop = NULL;
    Error err = {0};
    static Server server;
    if (loop_create(&loop, &err) != OK) _exit(1);
    make_actor(loop, endpoint, &server);
    loop_run(loop);
    _exit(0);
}

typedef struct Watch {
    int connected, broken;
} Watch;

static void on_watch(void *argument, bool connected)
{
    Watch *watch = argument;
    watch->connected += connected;
    watch->broken += !connected;
}

static void test_death_of_the_peer_ends_calls_and_a_new_one_is_found(void **state)
{
    (void)state;
    Stage stage = {.caller = {.name = "caller", .job = 77, .generation = 2, .incarnation = 2000}};
    Error err = {0};
    Watch watch = {0};
    make_endpoint(stage.endpoint, sizeof stage.endpoint, "death");
    pid_t server = fork_server(stage.endpoint);
    assert_ok(loop_create(&stage.loop, &err), &err);
    assert_ok(
        handle_open(stage.loop, &stage.caller, "server-0", stage.endpoint, &stage.handle, &err),
        &err);
    handle_watch(stage.handle, on_watch, &watch);
    for (int life = 1; life <= 3; life++) {
        assert_int_equal(call_and_wait(&stage, "test.echo", "", LONG_MS).status, OK);
        while (watch.connected < life) /* the news comes another way than the answer */
            run_for(stage.loop, 1);
        Answers answers = {.loop = stage.loop, .awaited = 10};
        for (int i = 0; i < 10; i++)
            send_call(stage.handle, "test.keep", (Bytes){0}, LONG_MS, &answers);
        run_for(stage.loop, 20);
        kill(server, SIGKILL);
        int64_t start_ms = clock_ms();
        loop_run(stage.loop);
        assert_int_equal(answers.status, ERR_UNAVAILABLE);
        assert_string_equal(answers.message, "test.keep to server-0: the connection broke");
        assert_true(clock_ms() - start_ms < LONG_MS / 2); /* not by the deadline */
        assert_int_equal(watch.broken, life);
        assert_int_equal(waitpid(server, NULL, 0), server);
        server = life < 3 ? fork_server(stage.endpoint) : -1;
    }
    handle_close(stage.handle);
    loop_destroy(stage.loop);
    unlink(stage.endpoint + strlen("ipc://"));
}

static void test_call_once_answers_from_another_process(void **state)
{
    (void)state;
    Error err = {0};
    char endpoint[128];
    make_endpoint(endpoint, sizeof endpoint, "once");
    pid_t server = fork_server(endpoint);
    uint8_t *body = NULL;
    size_t length = 0;
    ActorIdentity self = {.name = "cli", .incarnation = 5};
    CallOptions options = {
        .method = "test.echo", .body = text_bytes("ping"), .timeout_ms = LONG_MS};
    assert_ok(call_once(&self, "server-0", endpoint, &options, &body, &length, &err), &err);
    assert_int_equal(length, 4);
    assert_string_equal((char *)body, "ping");
    free(body);
    options.method = "test.fail";
    assert_fails(call_once(&self, "server-0", endpoint, &options, &body, &length, &err), ERR_DATA,
                 &err, "record 7");
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(endpoint + strlen("ipc://"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_brings_body_and_attachment_back),
        cmocka_unit_test(test_calls_of_one_caller_arrive_in_order),
        cmocka_unit_test(test_kept_calls_can_be_answered_in_any_order),
        cmocka_unit_test(test_errors_of_the_peer_arrive_whole),
        cmocka_unit_test(test_stale_generation_is_refused_by_both_numbers),
        cmocka_unit_test(test_another_job_is_refused),
        cmocka_unit_test(test_deadline_ends_a_call_and_drops_its_late_answer),
        cmocka_unit_test(test_calls_end_in_the_order_of_their_deadlines),
        cmocka_unit_test(test_nobody_there_is_said),
        cmocka_unit_test(test_calls_in_flight_have_a_cap),
        cmocka_unit_test(test_handle_may_be_closed_from_its_own_callback),
        cmocka_unit_test(test_stopping_actor_fails_its_open_calls),
        cmocka_unit_test(test_malformed_frames_are_counted_and_dropped),
        cmocka_unit_test(test_oversized_frame_costs_only_its_connection),
        cmocka_unit_test(test_duplicates_run_once),
        cmocka_unit_test(test_every_call_ends_once_under_faults),
        cmocka_unit_test(test_death_of_the_peer_ends_calls_and_a_new_one_is_found),
        cmocka_unit_test(test_call_once_answers_from_another_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
