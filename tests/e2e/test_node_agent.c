/* Tests of the real node agent with real actor processes: reserving, spawning, deaths of everybody,
 * and that nothing is left afterwards. This process plays the controller. Every process of a test
 * has the test's own folder on its command line, which is how leftovers are found. */
#include "test.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
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
#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "cluster.pb-c.h"

enum { LONG_MS = 20000, GONE_MS = 10000, ACTORS = 4 };

typedef struct Exit {
    char actor[32], reason[128], tail[STDERR_TAIL_BYTES];
    int exit_code, signal;
} Exit;

/* An actor as the controller knows it. */
typedef struct Member {
    char name[32], endpoint[128];
    uint64_t incarnation;
    pid_t pid;
    bool up;
    Handle *handle;
} Member;

typedef struct Stage {
    Loop *loop;
    ActorIdentity self;
    Actor *inbox;
    Handle *agent;
    char folder[64], agent_endpoint[128], endpoint[128];
    pid_t guard, agent_pid;
    Member members[ACTORS];
    int num_members;
    uint32_t bundle; /* in which the next one is spawned */
    Exit exits[16];
    int num_exits;
} Stage;

/* ---- this process as controller ---- */

static void on_hello(void *self, Call *call)
{
    Stage *stage = self;
    Bytes body = call_body(call);
    Troupe__ActorHelloRequest *hello =
        troupe__actor_hello_request__unpack(NULL, body.length, body.data);
    for (int i = 0; i < stage->num_members; i++) {
        Member *member = &stage->members[i];
        if (member->incarnation != hello->incarnation) continue;
        member->up = true;
        member->pid = (pid_t)hello->pid;
        snprintf(member->endpoint, sizeof member->endpoint, "%s", hello->endpoint);
    }
    troupe__actor_hello_request__free_unpacked(hello, NULL);
    Troupe__ActorHelloReply reply = TROUPE__ACTOR_HELLO_REPLY__INIT;
    reply.config_yaml =
        "name: agent\nmodel:\n  path: m\ndata:\n  train: [a.jsonl]\ntrain:\n  num_epochs: 1\n";
    reply.config_dir = "/";
    call_reply_message(call, &reply.base);
}

static void on_beat(void *self, Call *call)
{
    (void)self;
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static void on_actor_exited(void *self, Call *call)
{
    Stage *stage = self;
    Bytes body = call_body(call);
    Troupe__ActorExited *exited = troupe__actor_exited__unpack(NULL, body.length, body.data);
    Exit *exit = &stage->exits[stage->num_exits++ % 16];
    snprintf(exit->actor, sizeof exit->actor, "%s", exited->actor);
    snprintf(exit->reason, sizeof exit->reason, "%s", exited->reason);
    snprintf(exit->tail, sizeof exit->tail, "%s", exited->stderr_tail);
    exit->exit_code = exited->exit_code;
    exit->signal = (int)exited->signal;
    troupe__actor_exited__free_unpacked(exited, NULL);
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static const ActorMethod methods[] = {
    {"controller.hello", on_hello},
    {"controller.beat", on_beat},
    {"controller.actor_exited", on_actor_exited},
};

static void stop_loop(void *argument)
{
    loop_stop(argument);
}

static void turn(Stage *stage)
{
    LoopTimer *timer = loop_add_timer(stage->loop, 2, 0, stop_loop, stage->loop);
    loop_run(stage->loop);
    loop_remove_timer(timer);
}

typedef struct Answer {
    bool done;
    Status status;
    char message[ERROR_MESSAGE_MAX];
    uint8_t *body;
    size_t length;
} Answer;

static void on_answer(void *argument, const Reply *reply)
{
    Answer *answer = argument;
    answer->done = true;
    answer->status = reply->status;
    if (reply->status != OK) {
        snprintf(answer->message, sizeof answer->message, "%s", reply->error->message);
        return;
    }
    answer->length = reply->body.length;
    answer->body = mem_alloc(reply->body.length + 1);
    if (answer->length > 0) memcpy(answer->body, reply->body.data, answer->length);
    answer->body[answer->length] = '\0';
}

/* Calls and waits; the body of the answer is the caller's. */
static Answer call_bytes(Stage *stage, Handle *handle, const char *method, Bytes body)
{
    Answer answer = {0};
    Error err = {0};
    CallOptions options = {.method = method, .body = body, .timeout_ms = LONG_MS};
    assert_ok(handle_call(handle, &options, on_answer, &answer, &err), &err);
    while (!answer.done)
        turn(stage);
    return answer;
}

static Answer call_message(Stage *stage, const char *method, const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = mem_alloc(length + 1);
    protobuf_c_message_pack(message, bytes);
    Answer answer = call_bytes(stage, stage->agent, method, (Bytes){bytes, length});
    free(bytes);
    return answer;
}

static Error error_of(const Answer *answer)
{
    Error err = {.status = answer->status};
    snprintf(err.message, sizeof err.message, "%s", answer->message);
    return err;
}

/* ---- the agent ---- */

static void start_agent(Stage *stage, bool embedded)
{
    stage->guard = fork();
    if (stage->guard != 0) return;
    setsid();
    char log[128];
    snprintf(log, sizeof log, "%s/agent.log", stage->folder);
    int fd = open(log, O_CREAT | O_APPEND | O_WRONLY, 0600);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    char controller[16];
    snprintf(controller, sizeof controller, "%d", (int)getppid());
    execl(PROJECT_BINARY_DIR "/bin/node_agent", "node_agent", "--endpoint", stage->agent_endpoint,
          "--cpus", "4", "--memory", "1000", "--name", "n1", embedded ? "--embedded" : NULL,
          controller, (char *)NULL);
    _exit(127);
}

static Answer greet(Stage *stage)
{
    Troupe__AgentHelloRequest hello = TROUPE__AGENT_HELLO_REQUEST__INIT;
    hello.job_name = "tiny";
    hello.controller_endpoint = (char *)actor_endpoint(stage->inbox);
    Answer answer = call_message(stage, "agent.hello", &hello.base);
    Error err = error_of(&answer);
    assert_ok(answer.status, &err);
    return answer;
}

static void say_hello(Stage *stage)
{
    Answer answer = greet(stage);
    Troupe__AgentHelloReply *reply =
        troupe__agent_hello_reply__unpack(NULL, answer.length, answer.body);
    assert_string_equal(reply->node, "n1");
    assert_true(reply->total->cpu == 4 && reply->total->memory_bytes == 1000);
    stage->agent_pid = (pid_t)reply->pid;
    troupe__agent_hello_reply__free_unpacked(reply, NULL);
    free(answer.body);
}

/* A controller of its own: loop, inbox and a line to the agent. */
static void open_controller(Stage *stage, const char *inbox_name)
{
    Error err = {0};
    stage->self = (ActorIdentity){.name = "controller",
                                  .job = 5,
                                  .generation = 1,
                                  .incarnation = rng_mix((uint64_t)clock_ns())};
    snprintf(stage->endpoint, sizeof stage->endpoint, "ipc://%s/%s", stage->folder, inbox_name);
    assert_ok(loop_create(&stage->loop, &err), &err);
    ActorOptions options = {.identity = stage->self,
                            .endpoint = stage->endpoint,
                            .methods = methods,
                            .num_methods = sizeof methods / sizeof *methods,
                            .self = stage};
    assert_ok(actor_create(stage->loop, &options, &stage->inbox, &err), &err);
    assert_ok(handle_open(stage->loop, &stage->self, "node_agent", stage->agent_endpoint,
                          &stage->agent, &err),
              &err);
}

static void close_controller(Stage *stage)
{
    for (int i = 0; i < stage->num_members; i++)
        handle_close(stage->members[i].handle);
    handle_close(stage->agent);
    actor_destroy(stage->inbox);
    loop_destroy(stage->loop);
}

static void name_folder(Stage *stage)
{
    static int count;
    *stage = (Stage){0};
    snprintf(stage->folder, sizeof stage->folder, "/tmp/troupe-e2e-%d-%d", (int)getpid(), count++);
    snprintf(stage->agent_endpoint, sizeof stage->agent_endpoint, "ipc://%s/agent", stage->folder);
    assert_int_equal(mkdir(stage->folder, 0700), 0);
}

static void stage_open(Stage *stage)
{
    name_folder(stage);
    start_agent(stage, true);
    open_controller(stage, "controller");
    say_hello(stage);
}

/* ---- what is left ---- */

static bool mentions(int pid, const char *text)
{
    char path[64], line[4096];
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return false;
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    for (ssize_t i = 0; i < length; i++)
        if (line[i] == '\0') line[i] = ' ';
    line[length > 0 ? length : 0] = '\0';
    return strstr(line, text) != NULL;
}

/* Processes of this test's folder, this one apart. */
static int count_processes(const Stage *stage)
{
    DIR *proc = opendir("/proc");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;)
        if (isdigit((unsigned char)entry->d_name[0]) && atoi(entry->d_name) != getpid() &&
            mentions(atoi(entry->d_name), stage->folder))
            count++;
    closedir(proc);
    return count;
}

static bool is_gone(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    return access(path, F_OK) != 0;
}

#define wait_until(stage, condition)                                                               \
    do {                                                                                           \
        int64_t end_ms = clock_ms() + GONE_MS;                                                     \
        while (!(condition)) {                                                                     \
            if (clock_ms() > end_ms) fail_msg("still not true: %s", #condition);                   \
            turn(stage);                                                                           \
        }                                                                                          \
    } while (0)

/* Sockets in the folder other than the controller's. */
static int count_sockets(const Stage *stage)
{
    DIR *folder = opendir(stage->folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_type == DT_SOCK && strncmp(entry->d_name, "controller", 10) != 0) count++;
    closedir(folder);
    return count;
}

static void assert_nothing_left(Stage *stage)
{
    wait_until(stage, count_processes(stage) == 0);
    assert_int_equal(count_sockets(stage), 0);
}

/* Ends the agent in order and checks that nothing is left. */
static void stage_close(Stage *stage)
{
    Error err = {0};
    int status = 0;
    kill(stage->guard, SIGTERM);
    assert_int_equal(waitpid(stage->guard, &status, 0), stage->guard);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_nothing_left(stage);
    close_controller(stage);
    assert_ok(folder_remove(stage->folder, &err), &err);
}

/* ---- groups ---- */

/* agent.prepare for bundles 0 .. count-1 of `cpu` CPUs each; returns granted. */
static bool prepare(Stage *stage, const char *group, int count, double cpu, uint32_t lease_ms,
                    char *holder, size_t holder_size)
{
    Troupe__PrepareRequest request = TROUPE__PREPARE_REQUEST__INIT;
    Troupe__Resources need = TROUPE__RESOURCES__INIT;
    Troupe__Bundle bundle[8], *list[8];
    need.cpu = cpu;
    for (int i = 0; i < count; i++) {
        troupe__bundle__init(&bundle[i]);
        bundle[i].index = (uint32_t)i;
        bundle[i].need = &need;
        list[i] = &bundle[i];
    }
    request.group = (char *)group;
    request.job_name = "tiny";
    request.n_bundles = (size_t)count;
    request.bundles = list;
    request.lease_ms = lease_ms;
    Answer answer = call_message(stage, "agent.prepare", &request.base);
    Error err = error_of(&answer);
    assert_ok(answer.status, &err);
    Troupe__PrepareReply *reply = troupe__prepare_reply__unpack(NULL, answer.length, answer.body);
    bool granted = reply->granted;
    if (holder != NULL && reply->n_holders > 0)
        snprintf(holder, holder_size, "%s %s %g", reply->holders[0]->job_name,
                 reply->holders[0]->group, reply->holders[0]->held->cpu);
    troupe__prepare_reply__free_unpacked(reply, NULL);
    free(answer.body);
    return granted;
}

static Answer group_call(Stage *stage, const char *method, const char *group)
{
    Troupe__GroupRequest request = TROUPE__GROUP_REQUEST__INIT;
    request.group = (char *)group;
    Answer answer = call_message(stage, method, &request.base);
    free(answer.body);
    answer.body = NULL;
    return answer;
}

static void reserve(Stage *stage, const char *group, int count, double cpu)
{
    assert_true(prepare(stage, group, count, cpu, 5000, NULL, 0));
    assert_int_equal(group_call(stage, "agent.commit", group).status, OK);
}

/* As a repeated hello says it. */
static double free_cpus(Stage *stage)
{
    Answer answer = greet(stage);
    Troupe__AgentHelloReply *reply =
        troupe__agent_hello_reply__unpack(NULL, answer.length, answer.body);
    double cpus = reply->free->cpu;
    troupe__agent_hello_reply__free_unpacked(reply, NULL);
    free(answer.body);
    return cpus;
}

static void test_groups_are_locked_committed_and_given_back(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage);
    char holder[128] = "";
    assert_true(prepare(&stage, "g1", 3, 1, 5000, NULL, 0));
    assert_true(free_cpus(&stage) == 1);
    assert_false(prepare(&stage, "g2", 2, 1, 5000, holder, sizeof holder));
    assert_string_equal(holder, "tiny g1 3");
    assert_true(prepare(&stage, "short", 1, 1, 50, NULL, 0));
    wait_until(&stage, free_cpus(&stage) == 1); /* its lease ran out */
    Answer late = group_call(&stage, "agent.commit", "short");
    Error err = error_of(&late);
    assert_fails(late.status, ERR_NOT_FOUND, &err, "holds nothing here");
    assert_int_equal(group_call(&stage, "agent.commit", "g1").status, OK);
    assert_int_equal(group_call(&stage, "agent.release", "g1").status, OK);
    assert_int_equal(group_call(&stage, "agent.release", "g1").status, OK);
    assert_true(free_cpus(&stage) == 4);
    stage_close(&stage);
}

/* ---- actors ---- */

static Answer spawn(Stage *stage, const char *group, const char *name, const char *executable)
{
    assert_true(stage->num_members < ACTORS);
    Member *member = &stage->members[stage->num_members++];
    char *incarnation, *inbox, *log;
    member->incarnation = 100 + (uint64_t)stage->num_members;
    snprintf(member->name, sizeof member->name, "%s", name);
    incarnation = mem_printf("%llu", (unsigned long long)member->incarnation);
    inbox = mem_printf("ipc://%s/%s.%d", stage->folder, name, stage->num_members);
    log = mem_printf("%s/%s.log", stage->folder, name);
    char *arguments[] = {
        "--actor", (char *)name, "--incarnation", incarnation,     "--generation", "1",
        "--job",   "5",          "--controller",  stage->endpoint, "--inbox",      inbox};
    Troupe__SpawnRequest request = TROUPE__SPAWN_REQUEST__INIT;
    request.actor = (char *)name;
    request.incarnation = member->incarnation;
    request.group = (char *)group;
    request.bundle = stage->bundle;
    request.executable = (char *)executable;
    request.n_argument = sizeof arguments / sizeof *arguments;
    request.argument = arguments;
    request.log_path = log;
    Answer answer = call_message(stage, "agent.spawn", &request.base);
    free(answer.body);
    answer.body = NULL;
    free(incarnation);
    free(inbox);
    free(log);
    return answer;
}

/* Spawns and waits until it is up. */
static Member *spawn_member(Stage *stage, const char *group, const char *name)
{
    Error err = {0};
    Answer answer = spawn(stage, group, name, "test_program");
    err = error_of(&answer);
    assert_ok(answer.status, &err);
    Member *member = &stage->members[stage->num_members - 1];
    wait_until(stage, member->up);
    assert_ok(handle_open(stage->loop, &stage->self, name, member->endpoint, &member->handle, &err),
              &err);
    answer = call_bytes(stage, member->handle, "actor.ping", (Bytes){0});
    free(answer.body);
    assert_int_equal(answer.status, OK);
    return member;
}

static void tell(Stage *stage, Member *member, const char *method, const char *body)
{
    CallOptions options = {
        .method = method, .body = {(const uint8_t *)body, strlen(body)}, .timeout_ms = LONG_MS};
    static Answer ignored;
    Error err = {0};
    free(ignored.body);
    ignored = (Answer){0};
    assert_ok(handle_call(member->handle, &options, on_answer, &ignored, &err), &err);
    (void)stage;
}

static const Exit *last_exit(Stage *stage, int count)
{
    wait_until(stage, stage->num_exits >= count);
    assert_int_equal(stage->num_exits, count);
    return &stage->exits[(count - 1) % 16];
}

static char *read_log(const Stage *stage, const char *name)
{
    char path[160], *text = NULL;
    Error err = {0};
    snprintf(path, sizeof path, "%s/%s.log", stage->folder, name);
    assert_ok(file_read(path, 1 << 20, &text, NULL, &err), &err);
    return text;
}

static void test_actor_runs_logs_and_stops(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    Member *member = spawn_member(&stage, "g", "rollout-0");
    Answer printed = call_bytes(&stage, member->handle, "test.print",
                                (Bytes){(const uint8_t *)"$HOME and $TROUPE_NOTHING\n", 26});
    assert_int_equal(printed.status, OK);
    free(printed.body);
    tell(&stage, member, "actor.stop", "");
    const Exit *exit = last_exit(&stage, 1);
    assert_string_equal(exit->actor, "rollout-0");
    assert_string_equal(exit->reason, "exited with code 0");
    assert_int_equal(exit->exit_code, 0);
    char *log = read_log(&stage, "rollout-0");
    assert_non_null(strstr(log, " and nothing\n"));
    assert_non_null(strstr(log, "stopped cleanly\n"));
    free(log);
    assert_true(free_cpus(&stage) == 3); /* the group outlives its actor */
    stage_close(&stage);
}

/* Bundles 0 and 1 with a GPU each, 2 that uses the one of 1, and 3 that has none. */
static void reserve_gpus(Stage *stage, const char *group)
{
    Troupe__PrepareRequest request = TROUPE__PREPARE_REQUEST__INIT;
    Troupe__Resources with = TROUPE__RESOURCES__INIT, without = TROUPE__RESOURCES__INIT;
    Troupe__Bundle bundle[4], *list[4];
    with.cpu = without.cpu = 0.5;
    with.gpu = 1;
    for (uint32_t i = 0; i < 4; i++) {
        troupe__bundle__init(&bundle[i]);
        bundle[i].index = i;
        bundle[i].need = i < 2 ? &with : &without;
        list[i] = &bundle[i];
    }
    bundle[2].gpu_of = 1 + 1;
    request.group = (char *)group;
    request.job_name = "tiny";
    request.n_bundles = 4;
    request.bundles = list;
    request.lease_ms = 5000;
    Answer answer = call_message(stage, "agent.prepare", &request.base);
    Error err = error_of(&answer);
    assert_ok(answer.status, &err);
    Troupe__PrepareReply *reply = troupe__prepare_reply__unpack(NULL, answer.length, answer.body);
    assert_true(reply->granted && reply->free->gpu == 0);
    troupe__prepare_reply__free_unpacked(reply, NULL);
    free(answer.body);
    assert_int_equal(group_call(stage, "agent.commit", group).status, OK);
}

/* What CUDA would see of the machine's GPUs there, and whether it runs on `cpu` alone. */
static void assert_sees(Stage *stage, uint32_t bundle, const char *gpus, int cpu)
{
    cpu_set_t ours, its;
    char name[16], *line = mem_printf("sees %s\n", gpus);
    snprintf(name, sizeof name, "train-%u", bundle);
    stage->bundle = bundle;
    Member *member = spawn_member(stage, "g", name);
    Answer printed = call_bytes(stage, member->handle, "test.print",
                                (Bytes){(const uint8_t *)"sees $CUDA_VISIBLE_DEVICES\n", 27});
    free(printed.body);
    char *log = NULL;
    for (int tries = 0; tries < 200 && (log == NULL || strstr(log, line) == NULL); tries++) {
        free(log);
        turn(stage);
        log = read_log(stage, name);
    }
    if (strstr(log, line) == NULL) fail_msg("%s, not: %s", log, line);
    assert_int_equal(sched_getaffinity(0, sizeof ours, &ours), 0);
    assert_int_equal(sched_getaffinity(member->pid, sizeof its, &its), 0);
    if (cpu >= 0 && CPU_ISSET(cpu, &ours))
        assert_true(CPU_COUNT(&its) == 1 && CPU_ISSET(cpu, &its));
    else
        assert_true(CPU_EQUAL(&its, &ours));
    free(log);
    free(line);
}

static void test_actors_see_their_own_gpus_and_run_near_them(void **state)
{
    (void)state;
    Stage stage;
    setenv("TROUPE_NVML_LIBRARY", PROJECT_BINARY_DIR "/bin/nvml_library.so", 1);
    setenv("CUDA_VISIBLE_DEVICES", "0,1", 1);
    stage_open(&stage);
    reserve_gpus(&stage, "g");
    assert_sees(&stage, 0, "GPU-a000-of-a-test", 0);
    assert_sees(&stage, 1, "GPU-b000-of-a-test", 1);
    assert_sees(&stage, 2, "GPU-b000-of-a-test", 1);
    assert_sees(&stage, 3, "0,1", -1); /* as the agent: nothing of it is ours to take away */
    assert_int_equal(group_call(&stage, "agent.release", "g").status, OK);
    reserve_gpus(&stage, "next"); /* whose actors died have given theirs back */
    stage_close(&stage);
    unsetenv("CUDA_VISIBLE_DEVICES");
    unsetenv("TROUPE_NVML_LIBRARY");
}

static void test_deaths_are_told_with_their_cause(void **state)
{
    (void)state;
    const struct {
        const char *how, *reason, *tail;
        int exit_code, signal;
    } deaths[] = {
        {"abort", "killed by signal 6 (SIGABRT)", "about to die: abort", -1, SIGABRT},
        {"segv", "killed by signal 11 (SIGSEGV)", "about to die: segv", -1, SIGSEGV},
        {"exit", "exited with code 3", "about to die: exit", 3, 0},
    };
    Stage stage;
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    for (int i = 0; i < 3; i++) {
        Member *member = spawn_member(&stage, "g", "train-0");
        tell(&stage, member, "test.crash", deaths[i].how);
        const Exit *exit = last_exit(&stage, i + 1);
        assert_string_equal(exit->reason, deaths[i].reason);
        assert_int_equal(exit->exit_code, deaths[i].exit_code);
        assert_int_equal(exit->signal, deaths[i].signal);
        assert_true(str_ends_with(exit->tail, deaths[i].tail));
    }
    Member *member = spawn_member(&stage, "g", "train-0");
    kill(member->pid, SIGKILL);
    const Exit *exit = last_exit(&stage, 4);
    assert_string_equal(exit->reason, "killed by signal 9 (SIGKILL)");
    assert_false(path_exists(member->endpoint + strlen("ipc://")));
    stage_close(&stage);
}

static void test_strays_die_with_their_actor(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    Member *member = spawn_member(&stage, "g", "rollout-0");
    Answer answer = call_bytes(&stage, member->handle, "test.stray", (Bytes){0});
    assert_int_equal(answer.status, OK);
    pid_t stray = atoi((char *)answer.body);
    free(answer.body);
    assert_true(stray > 1);
    kill(member->pid, SIGKILL);
    last_exit(&stage, 1);
    wait_until(&stage, is_gone(stray));
    stage_close(&stage);
}

static Status kill_member(Stage *stage, const Troupe__KillRequest *request)
{
    Answer answer = call_message(stage, "agent.kill", &request->base);
    free(answer.body);
    return answer.status;
}

static void test_kill_and_release_end_actors(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage);
    reserve(&stage, "g", 2, 1);
    Member *member = spawn_member(&stage, "g", "rollout-0");
    Troupe__KillRequest kill_request = TROUPE__KILL_REQUEST__INIT;
    kill_request.actor = member->name;
    kill_request.incarnation = member->incarnation;
    assert_int_equal(kill_member(&stage, &kill_request), OK);
    assert_string_equal(last_exit(&stage, 1)->reason, "killed by signal 9 (SIGKILL) by its agent");
    assert_int_equal(kill_member(&stage, &kill_request), ERR_NOT_FOUND);
    member = spawn_member(&stage, "g", "rollout-1");
    assert_true(free_cpus(&stage) == 2);
    assert_int_equal(group_call(&stage, "agent.release", "g").status, OK);
    assert_true(is_gone(member->pid)); /* the answer comes when the share is really free */
    assert_true(free_cpus(&stage) == 4);
    stage_close(&stage);
}

static void test_wrong_spawns_are_refused(void **state)
{
    (void)state;
    Stage stage;
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    assert_true(prepare(&stage, "uncommitted", 1, 1, 5000, NULL, 0));
    const struct {
        const char *group, *executable, *text;
        Status status;
    } wrong[] = {
        {"uncommitted", "test_program", "is not committed here", ERR_NOT_FOUND},
        {"g", "../bin/test_program", "not the plain name of a program", ERR_INVALID},
        {"g", "no_such_program", "there is no program", ERR_NOT_FOUND},
    };
    for (int i = 0; i < 3; i++) {
        Answer answer = spawn(&stage, wrong[i].group, "x", wrong[i].executable);
        Error err = error_of(&answer);
        assert_fails(answer.status, wrong[i].status, &err, wrong[i].text);
    }
    Answer unreadable =
        call_bytes(&stage, stage.agent, "agent.spawn", (Bytes){(const uint8_t *)"\xFF", 1});
    assert_int_equal(unreadable.status, ERR_INVALID);
    stage_close(&stage);
}

/* ---- deaths of the others ---- */

static void test_killed_agent_leaves_nothing(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage);
    reserve(&stage, "g", 2, 1);
    Member *member = spawn_member(&stage, "g", "rollout-0");
    Answer answer = call_bytes(&stage, member->handle, "test.stray", (Bytes){0});
    free(answer.body);
    spawn_member(&stage, "g", "train-0");
    kill(stage.agent_pid, SIGKILL);
    int status = 0;
    assert_int_equal(waitpid(stage.guard, &status, 0), stage.guard);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL); /* AGENT_KILLED_CODE */
    assert_nothing_left(&stage);
    close_controller(&stage);
    assert_ok(folder_remove(stage.folder, &err), &err);
}

static void test_killed_guard_leaves_nothing(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    spawn_member(&stage, "g", "rollout-0");
    kill(stage.guard, SIGKILL);
    assert_int_equal(waitpid(stage.guard, NULL, 0), stage.guard);
    assert_nothing_left(&stage);
    close_controller(&stage);
    assert_ok(folder_remove(stage.folder, &err), &err);
}

static void test_both_killed_at_once_leave_no_process(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    spawn_member(&stage, "g", "rollout-0");
    kill(stage.guard, SIGSTOP); /* so that neither can act on the other's death */
    kill(stage.agent_pid, SIGKILL);
    kill(stage.guard, SIGKILL);
    assert_int_equal(waitpid(stage.guard, NULL, 0), stage.guard);
    wait_until(&stage, count_processes(&stage) == 0);
    close_controller(&stage);
    assert_ok(folder_remove(stage.folder, &err), &err);
}

/* A controller in a process of its own, with one actor and one stray; says when they are up. */
static pid_t fork_controller(Stage *stage, bool own_agent)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (own_agent) start_agent(stage, true);
        open_controller(stage, "controller");
        say_hello(stage);
        reserve(stage, "g", 1, 1);
        Member *member = spawn_member(stage, "g", "rollout-0");
        Answer answer = call_bytes(stage, member->handle, "test.stray", (Bytes){0});
        if (answer.status != OK || write(ready[1], &byte, 1) != 1) _exit(1);
        for (;;)
            turn(stage);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void wait_for_count(const Stage *stage, int count)
{
    int64_t end_ms = clock_ms() + GONE_MS;
    while (count_processes(stage) != count) {
        if (clock_ms() > end_ms)
            fail_msg("%d processes are left, expected %d", count_processes(stage), count);
        usleep(2000);
    }
}

static void test_killed_controller_takes_its_embedded_agent_along(void **state)
{
    (void)state;
    Stage stage;
    Error err = {0};
    name_folder(&stage);
    pid_t controller = fork_controller(&stage, true);
    assert_true(count_processes(&stage) >= 4); /* guard, agent, actor, stray */
    kill(controller, SIGKILL);
    assert_int_equal(waitpid(controller, NULL, 0), controller);
    wait_for_count(&stage, 0);
    assert_int_equal(count_sockets(&stage), 0);
    assert_ok(folder_remove(stage.folder, &err), &err);
}

static void test_agent_outlives_a_controller_and_cleans_up_after_it(void **state)
{
    (void)state;
    Stage stage;
    name_folder(&stage);
    start_agent(&stage, false);
    pid_t guard = stage.guard, controller = fork_controller(&stage, false);
    kill(controller, SIGKILL);
    assert_int_equal(waitpid(controller, NULL, 0), controller);
    wait_for_count(&stage, 2); /* guard and agent stay */
    stage.guard = guard;
    open_controller(&stage, "controller"); /* the next controller, under the same name */
    say_hello(&stage);
    wait_until(&stage, free_cpus(&stage) == 4);
    reserve(&stage, "g", 4, 1);
    stage_close(&stage);
}

static void test_replaced_controller_has_no_say(void **state)
{
    (void)state;
    Stage stage, other;
    stage_open(&stage);
    reserve(&stage, "g", 1, 1);
    Member *member = spawn_member(&stage, "g", "rollout-0");
    other = stage;
    other.num_members = 0;
    open_controller(&other, "controller-2");
    Answer stranger = group_call(&other, "agent.release", "g");
    Error err = error_of(&stranger);
    assert_fails(stranger.status, ERR_UNAVAILABLE, &err, "has not said hello");
    say_hello(&other); /* another job: both count */
    assert_int_equal(group_call(&other, "agent.release", "g").status, OK); /* none of its own */
    assert_false(is_gone(member->pid));
    assert_true(free_cpus(&stage) == 3);
    close_controller(&other);
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_are_locked_committed_and_given_back),
        cmocka_unit_test(test_actor_runs_logs_and_stops),
        cmocka_unit_test(test_actors_see_their_own_gpus_and_run_near_them),
        cmocka_unit_test(test_deaths_are_told_with_their_cause),
        cmocka_unit_test(test_strays_die_with_their_actor),
        cmocka_unit_test(test_kill_and_release_end_actors),
        cmocka_unit_test(test_wrong_spawns_are_refused),
        cmocka_unit_test(test_killed_agent_leaves_nothing),
        cmocka_unit_test(test_killed_guard_leaves_nothing),
        cmocka_unit_test(test_both_killed_at_once_leave_no_process),
        cmocka_unit_test(test_killed_controller_takes_its_embedded_agent_along),
        cmocka_unit_test(test_agent_outlives_a_controller_and_cleans_up_after_it),
        cmocka_unit_test(test_replaced_controller_has_no_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
