/* Tests of what every actor executable does, with a make-believe controller in this process and a
 * real actor process beside it. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/typed.h"
#include "actor/handle.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/version.h"
#include "cluster.pb-c.h"

enum { LONG_MS = 20000, DEAD_MS = 1500 };

typedef struct Controller {
    Loop *loop;
    Actor *actor;
    Handle *handle; /* to the actor, once it said hello */
    char folder[64], endpoint[128], actor_endpoint[128];
    const char *job_name;
    bool refuses, silent;
    int hellos, beats;
    uint64_t progress;
    char doing[200], waiting_for[200];
    pid_t pid;
} Controller;

static void on_hello(void *self, Call *call)
{
    Controller *c = self;
    Bytes body = call_body(call);
    Troupe__ActorHelloRequest *hello =
        troupe__actor_hello_request__unpack(NULL, body.length, body.data);
    assert_non_null(hello);
    assert_string_equal(hello->actor, "train-1");
    assert_string_equal(hello->version, TROUPE_VERSION);
    assert_true(hello->incarnation == 4242);
    assert_int_equal(hello->pid, c->pid);
    snprintf(c->actor_endpoint, sizeof c->actor_endpoint, "%s", hello->endpoint);
    troupe__actor_hello_request__free_unpacked(hello, NULL);
    c->hellos++;
    if (c->refuses) {
        call_failf(call, ERR_EXISTS, "train-1 is here already");
        return;
    }
    char *yaml =
        mem_printf("name: %s\nmodel:\n  path: m\ndata:\n  train: [a.jsonl]\ntrain:\n  lr: 0.125\n"
                   "  num_epochs: 1\n"
                   "cluster:\n  heartbeat_ms: 100\n  suspect_ms: 500\n  dead_ms: %d\n",
                   c->job_name, DEAD_MS);
    Troupe__TrainRole role = TROUPE__TRAIN_ROLE__INIT;
    role.tp_rank = 1;
    role.tp_size = 2;
    role.dp_size = 1;
    Troupe__ActorHelloReply reply = TROUPE__ACTOR_HELLO_REPLY__INIT;
    reply.config_yaml = yaml;
    reply.config_dir = "/";
    reply.train = &role;
    call_reply_message(call, &reply.base);
    free(yaml);
}

static void on_beat(void *self, Call *call)
{
    Controller *c = self;
    Bytes body = call_body(call);
    Troupe__BeatRequest *beat = troupe__beat_request__unpack(NULL, body.length, body.data);
    assert_non_null(beat);
    c->beats++;
    c->progress = beat->progress;
    assert_true(beat->rss_bytes > 1u << 18);
    snprintf(c->doing, sizeof c->doing, "%s", beat->doing);
    snprintf(c->waiting_for, sizeof c->waiting_for, "%s", beat->waiting_for);
    troupe__beat_request__free_unpacked(beat, NULL);
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static const ActorMethod controller_methods[] = {
    {"controller.hello", on_hello},
    {"controller.beat", on_beat},
};

static const ActorIdentity controller_identity = {
    .name = "controller", .job = 9, .generation = 3, .incarnation = 1};

static void controller_open(Controller *c)
{
    Error err = {0};
    *c = (Controller){.job_name = "process"};
    snprintf(c->folder, sizeof c->folder, "/tmp/troupe-process-%d", (int)getpid());
    snprintf(c->endpoint, sizeof c->endpoint, "ipc://%s/controller", c->folder);
    assert_ok(loop_create(&c->loop, &err), &err);
    ActorOptions options = {.identity = controller_identity,
                            .endpoint = c->endpoint,
                            .methods = controller_methods,
                            .num_methods = 2,
                            .self = c};
    assert_ok(actor_create(c->loop, &options, &c->actor, &err), &err);
}

static void controller_close(Controller *c)
{
    Error err = {0};
    handle_close(c->handle);
    actor_destroy(c->actor);
    loop_destroy(c->loop);
    assert_ok(folder_remove(c->folder, &err), &err);
}

static void stop_loop(void *argument)
{
    loop_stop(argument);
}

static void turn(Controller *c)
{
    LoopTimer *timer = loop_add_timer(c->loop, 2, 0, stop_loop, c->loop);
    loop_run(c->loop);
    loop_remove_timer(timer);
}

/* Starts the actor with its standard error in a file of the folder. */
static void start_actor(Controller *c)
{
    char inbox[128], log[128];
    snprintf(inbox, sizeof inbox, "ipc://%s/train-1", c->folder);
    snprintf(log, sizeof log, "%s/log", c->folder);
    c->pid = fork();
    if (c->pid != 0) return;
    int fd = open(log, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(fd, STDERR_FILENO);
    char parent[16];
    snprintf(parent, sizeof parent, "%d", (int)getppid());
    execl(PROJECT_BINARY_DIR "/bin/test_program", "test_program", "--parent", parent, "--actor",
          "train-1", "--incarnation", "4242", "--generation", "3", "--job", "9", "--controller",
          c->endpoint, "--inbox", inbox, (char *)NULL);
    _exit(127);
}

static char *read_log(const Controller *c)
{
    char path[128], *text = NULL;
    Error err = {0};
    snprintf(path, sizeof path, "%s/log", c->folder);
    assert_ok(file_read(path, 1 << 20, &text, NULL, &err), &err);
    return text;
}

/* Waits for the end of the actor, serving meanwhile; returns its wait status. */
static int wait_for_end(Controller *c)
{
    int status = 0;
    for (;;) {
        pid_t got = waitpid(c->pid, &status, WNOHANG);
        assert_true(got >= 0);
        if (got == c->pid) return status;
        turn(c);
    }
}

static void assert_ends_with(Controller *c, int exit_code, const char *message)
{
    int status = wait_for_end(c);
    char *log = read_log(c);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != exit_code || strstr(log, message) == NULL)
        fail_msg("status %x, expected exit code %d and \"%s\" in:\n%s", status, exit_code, message,
                 log);
    free(log);
}

static void start_and_meet(Controller *c)
{
    Error err = {0};
    start_actor(c);
    while (c->beats < 2)
        turn(c);
    assert_ok(
        handle_open(c->loop, &controller_identity, "train-1", c->actor_endpoint, &c->handle, &err),
        &err);
}

typedef struct Waiter {
    Status status;
    bool done;
    uint8_t body[64];
    size_t length;
    char message[200];
} Waiter;

static void on_reply(void *argument, const Reply *reply)
{
    Waiter *waiter = argument;
    waiter->done = true;
    waiter->status = reply->status;
    waiter->length = reply->body.length;
    if (reply->body.length > 0 && reply->body.length <= sizeof waiter->body)
        memcpy(waiter->body, reply->body.data, reply->body.length);
    if (reply->error != NULL)
        snprintf(waiter->message, sizeof waiter->message, "%s", reply->error->message);
}

static Waiter call_actor(Controller *c, const char *method, const char *body)
{
    Error err = {0};
    Waiter waiter = {0};
    CallOptions options = {
        .method = method, .body = {(const uint8_t *)body, strlen(body)}, .timeout_ms = LONG_MS};
    assert_ok(handle_call(c->handle, &options, on_reply, &waiter, &err), &err);
    while (!waiter.done)
        turn(c);
    return waiter;
}

/* ---- the tests ---- */

static void test_process_says_hello_beats_and_stops_when_told(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    start_and_meet(&c);
    assert_int_equal(c.hellos, 1);
    assert_string_equal(c.doing, "learning rate 0.125");
    assert_string_equal(c.waiting_for, "rank 1 of 2");
    assert_int_equal(c.progress, 1);
    Waiter ping = call_actor(&c, "actor.ping", "hi");
    assert_true(ping.status == OK && ping.length == 2 && memcmp(ping.body, "hi", 2) == 0);
    handle_set_generation(c.handle, 4); /* after a recovery */
    assert_int_equal(call_actor(&c, "actor.ping", "").status, OK);
    handle_set_generation(c.handle, 3);
    Waiter stale = call_actor(&c, "actor.ping", "");
    assert_int_equal(stale.status, ERR_CANCELLED);
    assert_non_null(strstr(stale.message, "the caller is in generation 3, train-1 in 4"));
    handle_set_generation(c.handle, 4);
    assert_int_equal(call_actor(&c, "actor.stop", "").status, OK);
    assert_ends_with(&c, 0, "stopped cleanly");
    assert_false(path_exists(c.actor_endpoint + strlen("ipc://")));
    controller_close(&c);
}

static void test_process_stops_on_a_signal(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    start_and_meet(&c);
    kill(c.pid, SIGTERM);
    assert_ends_with(&c, 0, "stopped cleanly");
    controller_close(&c);
}

static void test_process_that_cannot_go_on_ends_with_what_happened(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    start_and_meet(&c);
    assert_int_equal(call_actor(&c, "test.fail", "").status, OK);
    assert_ends_with(&c, status_exit_code(ERR_UNAVAILABLE),
                     "test_program: what it works with is lost");
    controller_close(&c);
}

static void test_process_gives_up_without_a_controller(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    start_and_meet(&c);
    handle_close(c.handle);
    c.handle = NULL;
    actor_destroy(c.actor);
    c.actor = NULL;
    int64_t start_ms = clock_ms();
    assert_ends_with(&c, status_exit_code(ERR_UNAVAILABLE),
                     "the controller does not answer any more");
    assert_true(clock_ms() - start_ms >= DEAD_MS / 2);
    controller_close(&c);
}

static void test_process_ends_when_it_is_refused_or_cannot_start(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    c.refuses = true;
    start_actor(&c);
    assert_ends_with(&c, status_exit_code(ERR_EXISTS), "test_program: train-1 is here already");
    c.refuses = false;
    c.job_name = "refuse";
    start_actor(&c);
    assert_ends_with(&c, status_exit_code(ERR_DATA), "this job cannot be started");
    c.job_name = "x\n  bad: [";
    start_actor(&c);
    assert_ends_with(&c, status_exit_code(ERR_INVALID), "the controller's configuration");
    controller_close(&c);
}

static void test_process_beats_while_it_prepares_and_answers_then(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    c.job_name = "slow";
    start_and_meet(&c);
    assert_string_equal(c.doing, "starting");
    int beats = c.beats;
    assert_int_equal(call_actor(&c, "test.print", "\n").status, OK); /* by what `start` made */
    assert_true(c.beats > beats);
    while (strcmp(c.doing, "starting") == 0)
        turn(&c);
    assert_string_equal(c.doing, "learning rate 0.125");
    kill(c.pid, SIGTERM);
    assert_ends_with(&c, 0, "stopped cleanly");
    handle_close(c.handle);
    c.beats = 0;
    start_and_meet(&c); /* nothing is left waiting when it is told to stop meanwhile */
    kill(c.pid, SIGTERM);
    assert_int_equal(wait_for_end(&c), 0);
    c.job_name = "unprepared";
    start_actor(&c);
    assert_ends_with(&c, status_exit_code(ERR_RESOURCE), "test_program: there is no such device");
    controller_close(&c);
}

static void test_process_explains_a_wrong_command_line(void **state)
{
    (void)state;
    const char *const wrong[][2] = {
        {"", "is started by a node agent"},
        {"--actor a --incarnation x", "--incarnation x: expected a whole number from 1"},
        {"--actor a --incarnation 1 --generation 0", "--generation 0: expected a whole number"},
        {"--job -1", "--job -1: expected a whole number"},
        {"--nonsense", "unknown option --nonsense"},
        {"stray", "unexpected argument \"stray\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *command = mem_printf("%s/bin/test_program %s 2>&1", PROJECT_BINARY_DIR, wrong[i][0]);
        char text[2048] = "";
        FILE *pipe = popen(command, "r");
        size_t length = fread(text, 1, sizeof text - 1, pipe);
        text[length] = '\0';
        int status = pclose(pipe);
        assert_int_equal(WEXITSTATUS(status), 2);
        if (strstr(text, wrong[i][1]) == NULL) fail_msg("\"%s\" is not in:\n%s", wrong[i][1], text);
        free(command);
    }
}

/* The child of a process that dies without a word dies with it. */
static void test_process_dies_with_its_parent(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    int pids[2];
    assert_int_equal(pipe(pids), 0);
    pid_t parent = fork();
    if (parent == 0) {
        start_actor(&c);
        if (write(pids[1], &c.pid, sizeof c.pid) != sizeof c.pid) _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(pids[0], &c.pid, sizeof c.pid), sizeof c.pid);
    while (c.beats < 1)
        turn(&c);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    while (kill(c.pid, 0) == 0 || errno != ESRCH) /* until init has reaped it; else ctest's limit */
        turn(&c);
    close(pids[0]);
    close(pids[1]);
    controller_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process_says_hello_beats_and_stops_when_told),
        cmocka_unit_test(test_process_stops_on_a_signal),
        cmocka_unit_test(test_process_that_cannot_go_on_ends_with_what_happened),
        cmocka_unit_test(test_process_gives_up_without_a_controller),
        cmocka_unit_test(test_process_ends_when_it_is_refused_or_cannot_start),
        cmocka_unit_test(test_process_beats_while_it_prepares_and_answers_then),
        cmocka_unit_test(test_process_explains_a_wrong_command_line),
        cmocka_unit_test(test_process_dies_with_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
