/* The data source and the rollout worker as processes, under a controller that only says hello: the
 * samples of a stream with good, bad, long and cut records are the same after kill -9 of either, at
 * any position. */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "cluster.pb-c.h"
#include "sample/sample.h"
#include "tests/data_source/ask.h"

#define RECORDS 18 /* 12 chats and 6 bad ones */

typedef struct Worker {
    const char *program;
    char endpoint[128];
    pid_t pid;
    uint64_t incarnation;
    bool met; /* said hello */
    Handle *handle;
} Worker;

typedef struct Controller {
    Loop *loop;
    Actor *actor;
    char folder[96], endpoint[128];
    Worker source, rollout;
    int beats;
} Controller;

static const ActorIdentity identity = {
    .name = "controller", .job = 9, .generation = 1, .incarnation = 1};

/* ---- the controller ---- */

static void on_hello(void *self, Call *call)
{
    Controller *c = self;
    Bytes body = call_body(call);
    Troupe__ActorHelloRequest *hello =
        troupe__actor_hello_request__unpack(NULL, body.length, body.data);
    assert_non_null(hello);
    Worker *worker = strcmp(hello->actor, "data_source") == 0 ? &c->source : &c->rollout;
    worker->met = hello->incarnation == worker->incarnation;
    char *yaml = mem_printf("name: processes\n"
                            "run_dir: run\n"
                            "model: {path: %s, init: random}\n"
                            "data: {train: [train.jsonl], max_length: 200, too_long: truncate}\n"
                            "cluster: {heartbeat_ms: 100}\n",
                            PROJECT_SOURCE_DIR "/deploy/examples/tiny/model");
    Troupe__ActorHelloReply reply = TROUPE__ACTOR_HELLO_REPLY__INIT;
    reply.config_yaml = yaml;
    reply.config_dir = c->folder;
    size_t length = troupe__actor_hello_reply__get_packed_size(&reply);
    uint8_t *packed = mem_alloc(length);
    troupe__actor_hello_reply__pack(&reply, packed);
    call_reply(call, (Bytes){packed, length}, (Bytes){0});
    troupe__actor_hello_request__free_unpacked(hello, NULL);
    free(packed);
    free(yaml);
}

static void on_beat(void *self, Call *call)
{
    ((Controller *)self)->beats++;
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static void stop_loop(void *loop)
{
    loop_stop(loop);
}

static void worker_spawn(Controller *c, Worker *worker)
{
    static uint64_t incarnations = 100;
    worker->incarnation = ++incarnations;
    worker->met = false;
    char *program = mem_printf("%s/bin/%s", PROJECT_BINARY_DIR, worker->program);
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)worker->incarnation);
    worker->pid = fork();
    assert_true(worker->pid >= 0);
    if (worker->pid == 0) {
        char parent[16];
        snprintf(parent, sizeof parent, "%d", (int)getppid());
        execl(program, program, "--parent", parent, "--actor", worker->program, "--incarnation",
              number, "--generation", "1", "--job", "9", "--controller", c->endpoint, "--inbox",
              worker->endpoint, (char *)NULL);
        _exit(127);
    }
    free(program);
    LoopTimer *timer = loop_add_timer(c->loop, 10, 10, stop_loop, c->loop);
    while (!worker->met) {
        loop_run(c->loop);
        assert_int_equal(waitpid(worker->pid, NULL, WNOHANG), 0);
    }
    loop_remove_timer(timer);
    Error err = {0};
    handle_close(worker->handle);
    assert_ok(
        handle_open(c->loop, &identity, worker->program, worker->endpoint, &worker->handle, &err),
        &err);
}

static void worker_kill(Worker *worker)
{
    int status;
    assert_int_equal(kill(worker->pid, SIGKILL), 0);
    assert_int_equal(waitpid(worker->pid, &status, 0), worker->pid);
    assert_true(WIFSIGNALED(status));
}

/* Ends a worker as the agent does; it has two seconds. */
static void worker_end(Controller *c, Worker *worker)
{
    int status = -1;
    assert_int_equal(kill(worker->pid, SIGTERM), 0);
    int64_t until = clock_ms() + 10000;
    LoopTimer *timer = loop_add_timer(c->loop, 10, 10, stop_loop, c->loop);
    while (waitpid(worker->pid, &status, WNOHANG) == 0) {
        assert_true(clock_ms() < until);
        loop_run(c->loop);
    }
    loop_remove_timer(timer);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    handle_close(worker->handle);
}

/* ---- the data ---- */

static void write_data(const char *folder)
{
    static const char *const bad[] = {
        "{\"messages\": [{\"role\": \"user\", \"content\": \"cut",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\ud800b\"}]}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}",
        "{\"conversation\": []}",
    };
    Error err = {0};
    Str text = {0};
    char *chats = NULL, *path = path_join(folder, "train.jsonl");
    size_t length = 0;
    assert_ok(file_read(TEST_SOURCE_DIR "/rollout_worker/fixtures/chats.jsonl", 1 << 20, &chats,
                        &length, &err),
              &err);
    str_append(&text, chats, length);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        str_printf(&text, "%s\r\n\n", bad[i]);
    str_puts(&text, "{\"messages\": [{\"role\": \"user\", \"content\": \"torn last li");
    assert_ok(file_write_atomic(path, text.data, text.length, &err), &err);
    str_free(&text);
    free(chats);
    free(path);
}

static void controller_open(Controller *c)
{
    Error err = {0};
    *c = (Controller){.source.program = "data_source", .rollout.program = "rollout_worker"};
    snprintf(c->folder, sizeof c->folder, "/tmp/troupe-processes-%d", (int)getpid());
    snprintf(c->endpoint, sizeof c->endpoint, "ipc://%s/controller", c->folder);
    snprintf(c->source.endpoint, sizeof c->source.endpoint, "ipc://%s/source", c->folder);
    snprintf(c->rollout.endpoint, sizeof c->rollout.endpoint, "ipc://%s/rollout", c->folder);
    assert_ok(folder_create(c->folder, &err), &err);
    write_data(c->folder);
    static const ActorMethod methods[] = {{"controller.hello", on_hello},
                                          {"controller.beat", on_beat}};
    assert_ok(loop_create(&c->loop, &err), &err);
    ActorOptions options = {.identity = identity,
                            .endpoint = c->endpoint,
                            .methods = methods,
                            .num_methods = 2,
                            .self = c};
    assert_ok(actor_create(c->loop, &options, &c->actor, &err), &err);
}

static void controller_close(Controller *c)
{
    Error err = {0};
    actor_destroy(c->actor);
    loop_destroy(c->loop);
    assert_ok(folder_remove(c->folder, &err), &err);
}

/* All that positions [first, first + count) come to: the metadata of each, and the packed samples.
 */
static Str collect(Controller *c, uint64_t first, uint32_t count)
{
    Str all = {0};
    Troupe__LeaseRequest request = TROUPE__LEASE_REQUEST__INIT;
    request.set = "train";
    request.first = first;
    request.count = count;
    request.data_source = c->source.endpoint;
    Answer answer;
    Troupe__LeaseReply *lease;
    do { /* as the controller does when an actor is on its way back */
        lease = ask_run(c->loop, c->rollout.handle, &request, &answer);
        str_append(&all, answer.body, answer.body_length);
        answer_free(&answer);
    } while (lease == NULL && answer.status == ERR_UNAVAILABLE);
    if (lease == NULL) fail_msg("%s: %s", status_name(answer.status), answer.err.message);
    assert_int_equal(lease->n_samples, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(lease->samples[i]->position, first + i);
        if (lease->samples[i]->status == SAMPLE_REJECTED) continue;
        Troupe__FetchReply *fetched = ask_fetch(c->loop, c->rollout.handle, "train",
                                                &lease->samples[i]->position, 1, &answer);
        if (fetched == NULL) fail_msg("%s", answer.err.message);
        str_append(&all, answer.attachment, answer.attachment_length);
        troupe__fetch_reply__free_unpacked(fetched, NULL);
        answer_free(&answer);
    }
    troupe__lease_reply__free_unpacked(lease, NULL);
    return all;
}

static void assert_same(Controller *c, uint64_t first, uint32_t count, const Str *expected)
{
    Str found = collect(c, first, count);
    assert_int_equal(found.length, expected->length);
    assert_memory_equal(found.data, expected->data, found.length);
    str_free(&found);
}

/* Two epochs: each record comes twice, 12 are samples, 6 are refused by file and line. */
static void check_stream(Controller *c)
{
    Troupe__LeaseRequest request = TROUPE__LEASE_REQUEST__INIT;
    request.set = "train";
    request.count = 2 * RECORDS;
    request.data_source = c->source.endpoint;
    Answer answer;
    Troupe__LeaseReply *lease = ask_run(c->loop, c->rollout.handle, &request, &answer);
    if (lease == NULL) fail_msg("%s", answer.err.message);
    int completed = 0, truncated = 0, refused[2] = {0};
    for (size_t i = 0; i < lease->n_samples; i++) {
        const Troupe__SampleMeta *meta = lease->samples[i];
        completed += meta->status == SAMPLE_COMPLETED;
        truncated += meta->status == SAMPLE_TRUNCATED;
        if (meta->status != SAMPLE_REJECTED) continue;
        /* the long question leaves nothing to train after the cut */
        bool bad = meta->reject_reason == REJECT_BAD_RECORD;
        assert_true(bad || meta->reject_reason == REJECT_NOTHING_TO_TRAIN);
        assert_true(str_starts_with(meta->reject_message, c->folder));
        if (bad) assert_non_null(strstr(meta->reject_message, "train.jsonl:"));
        refused[bad]++;
    }
    assert_int_equal(refused[true], 2 * 6);
    assert_int_equal(refused[false], 2);
    assert_int_equal(truncated, 2);
    assert_int_equal(completed, 2 * RECORDS - 2 * 6 - 4);
    troupe__lease_reply__free_unpacked(lease, NULL);
    answer_free(&answer);
}

static void test_samples_survive_kill_of_either_process(void **state)
{
    (void)state;
    Controller c;
    controller_open(&c);
    worker_spawn(&c, &c.source);
    worker_spawn(&c, &c.rollout);
    check_stream(&c);
    Str near = collect(&c, 5, 20), far = collect(&c, UINT64_C(7000000000001), 11);

    worker_kill(&c.source);
    worker_spawn(&c, &c.source);
    assert_same(&c, UINT64_C(7000000000001), 11, &far);
    worker_kill(&c.rollout);
    worker_spawn(&c, &c.rollout);
    assert_same(&c, 5, 20, &near);
    worker_kill(&c.source);
    worker_kill(&c.rollout);
    worker_spawn(&c, &c.rollout);
    worker_spawn(&c, &c.source);
    assert_same(&c, UINT64_C(7000000000001), 11, &far);
    assert_same(&c, 5, 20, &near);
    LoopTimer *timer = loop_add_timer(c.loop, 10, 10, stop_loop, c.loop);
    while (c.beats < 4)
        loop_run(c.loop);
    loop_remove_timer(timer);

    worker_end(&c, &c.source);
    worker_end(&c, &c.rollout);
    str_free(&near);
    str_free(&far);
    controller_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_survive_kill_of_either_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
