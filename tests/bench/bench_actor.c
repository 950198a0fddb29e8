/* Actor calls beside the raw libzmq floor of the same run: round trip, calls per second with 1,000
 * in flight, time from spawn to the first reply, and placement groups made and removed per second,
 * the last two through a real node agent. The two sides of every ratio take turns, so that the
 * machine's moods hit both. Sockets are ipc, bodies 64 bytes.
 *
 * usage: bench_actor [rounds]   (default 20)
 *
 * The floor is a DEALER and a ROUTER that block: no envelope, no loop, no deadline. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "actor/actor_process.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "cluster.pb-c.h"

enum {
    BODY_BYTES = 64,
    WINDOW = 1000,
    TURN = 20,     /* round trips of one side before the other has its turn */
    TURNS = 25,    /* per round */
    CALLS = 20000, /* per turn */
    SPAWNS = 20,
    GROUPS = 100, /* in flight at a time */
    TIMEOUT_MS = 60000,
};

static const uint8_t body[BODY_BYTES] = "sixty-four bytes of nothing in particular";

typedef struct Bench {
    char folder[64], raw_endpoint[128], actor_endpoint[128];
    Loop *loop;
    ActorIdentity self;
    void *zmq, *raw; /* the floor's context and DEALER */
    Handle *echo;
    Actor *inbox;
    Handle *agent;
    pid_t raw_server, actor_server;
    int rounds;
    /* of the run that is under way */
    int64_t start_ns, *times;
    int sent, received, goal;
    char said_hello[128]; /* endpoint of the actor that did so last */
} Bench;

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_actor: %s\n", err->message);
    exit(1);
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

typedef struct Quantiles {
    double p50, p99;
} Quantiles;

static Quantiles quantiles(int64_t *times, int count)
{
    qsort(times, (size_t)count, sizeof *times, compare_times);
    return (Quantiles){(double)times[count / 2], (double)times[count * 99 / 100]};
}

/* ---- the two servers ---- */

static void serve_raw(const char *endpoint)
{
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    const int no_limit = 0;
    zmq_setsockopt(router, ZMQ_SNDHWM, &no_limit, sizeof no_limit);
    zmq_setsockopt(router, ZMQ_RCVHWM, &no_limit, sizeof no_limit);
    if (zmq_bind(router, endpoint) != 0) _exit(1);
    for (;;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, router, 0) < 0) _exit(1);
        int more = zmq_msg_more(&part);
        if (zmq_msg_send(&part, router, more ? ZMQ_SNDMORE : 0) < 0) _exit(1);
    }
}

static void on_echo(void *self, Call *call)
{
    (void)self;
    call_reply(call, call_body(call), (Bytes){0});
}

static const ActorMethod echo_methods[] = {{"bench.echo", on_echo}};

static void serve_actor(const char *endpoint)
{
    Loop *loop = NULL;
    Actor *actor = NULL;
    Error err;
    ActorOptions options = {
        .identity = {.name = "echo", .job = 1, .generation = 1, .incarnation = 1},
        .endpoint = endpoint,
        .methods = echo_methods,
        .num_methods = 1,
    };
    stop_on(loop_create(&loop, &err), &err);
    stop_on(actor_create(loop, &options, &actor, &err), &err);
    loop_run(loop);
}

static pid_t fork_server(void (*serve)(const char *endpoint), const char *endpoint)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(endpoint);
    _exit(0);
}

/* CPU time of this process and one other: it tells the cost of a call on a busy machine too. */
static int64_t cpu_ns(pid_t other)
{
    struct timespec mine, theirs;
    clockid_t clock;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &mine);
    if (clock_getcpuclockid(other, &clock) != 0 || clock_gettime(clock, &theirs) != 0) return 0;
    return (int64_t)(mine.tv_sec + theirs.tv_sec) * 1000000000 + mine.tv_nsec + theirs.tv_nsec;
}

/* What the agent spawns: this program again, as an actor. */
static Status start_actor(ActorProcess *process, void **ret_self, Error *err)
{
    (void)err;
    *ret_self = process;
    return OK;
}

static void stop_actor(void *self)
{
    (void)self;
}

static int run_as_actor(int argc, char **argv)
{
    const ActorProcessSpec spec = {.program = "bench_actor",
                                   .methods = echo_methods,
                                   .num_methods = 1,
                                   .start = start_actor,
                                   .stop = stop_actor};
    return actor_process_run(argc, argv, &spec);
}

/* ---- round trip ---- */

static void *open_raw(Bench *bench, const char *endpoint)
{
    void *dealer = zmq_socket(bench->zmq, ZMQ_DEALER);
    const int no_limit = 0;
    zmq_setsockopt(dealer, ZMQ_SNDHWM, &no_limit, sizeof no_limit);
    zmq_setsockopt(dealer, ZMQ_RCVHWM, &no_limit, sizeof no_limit);
    zmq_setsockopt(dealer, ZMQ_LINGER, &no_limit, sizeof no_limit);
    zmq_connect(dealer, endpoint);
    return dealer;
}

static void trip_raw(void *dealer)
{
    uint8_t answer[BODY_BYTES];
    if (zmq_send(dealer, body, BODY_BYTES, 0) < 0 || zmq_recv(dealer, answer, BODY_BYTES, 0) < 0) {
        fprintf(stderr, "bench_actor: the floor broke: %s\n", zmq_strerror(zmq_errno()));
        exit(1);
    }
}

static void send_echo(Bench *bench, ReplyCallback callback)
{
    Error err;
    CallOptions options = {
        .method = "bench.echo", .body = {body, BODY_BYTES}, .timeout_ms = TIMEOUT_MS};
    stop_on(handle_call(bench->echo, &options, callback, bench, &err), &err);
}

static void on_trip(void *argument, const Reply *reply)
{
    Bench *bench = argument;
    int64_t now_ns = clock_ns();
    stop_on(reply->status, reply->error);
    bench->times[bench->received++] = now_ns - bench->start_ns;
    if (bench->received == bench->goal) {
        loop_stop(bench->loop);
        return;
    }
    bench->start_ns = clock_ns();
    send_echo(bench, on_trip);
}

static void trip_actor(Bench *bench, int64_t *times, int count)
{
    bench->times = times;
    bench->received = 0;
    bench->goal = count;
    bench->start_ns = clock_ns();
    send_echo(bench, on_trip);
    loop_run(bench->loop);
}

static void bench_trips(Bench *bench)
{
    int turns = bench->rounds * TURNS, count = turns * TURN;
    int64_t *raw = mem_calloc((size_t)count, sizeof *raw);
    int64_t *actor = mem_calloc((size_t)count, sizeof *actor);
    int64_t raw_cpu_ns = 0, actor_cpu_ns = 0;
    trip_actor(bench, actor, TURN); /* warm-up, and connections */
    trip_raw(bench->raw);
    for (int turn = 0; turn < turns; turn++) {
        int64_t before_ns = cpu_ns(bench->raw_server);
        for (int i = 0; i < TURN; i++) {
            int64_t start_ns = clock_ns();
            trip_raw(bench->raw);
            raw[turn * TURN + i] = clock_ns() - start_ns;
        }
        raw_cpu_ns += cpu_ns(bench->raw_server) - before_ns;
        before_ns = cpu_ns(bench->actor_server);
        trip_actor(bench, actor + turn * TURN, TURN);
        actor_cpu_ns += cpu_ns(bench->actor_server) - before_ns;
    }
    Quantiles r = quantiles(raw, count), a = quantiles(actor, count);
    printf("round trip p50           %8.1f us   floor %8.1f us   %.2f x   (target <= 2 x)\n",
           a.p50 / 1e3, r.p50 / 1e3, a.p50 / r.p50);
    printf("round trip p99           %8.1f us   floor %8.1f us   %.2f x\n", a.p99 / 1e3,
           r.p99 / 1e3, a.p99 / r.p99);
    printf("  CPU of both ends       %8.1f us   floor %8.1f us   %.2f x\n",
           (double)actor_cpu_ns / count / 1e3, (double)raw_cpu_ns / count / 1e3,
           (double)actor_cpu_ns / (double)raw_cpu_ns);
    free(actor);
    free(raw);
}

/* ---- calls per second ---- */

static double pipeline_raw(void *dealer)
{
    uint8_t answer[BODY_BYTES];
    int sent = 0, received = 0;
    int64_t start_ns = clock_ns();
    while (received < CALLS) {
        while (sent < CALLS && sent - received < WINDOW) {
            zmq_send(dealer, body, BODY_BYTES, 0);
            sent++;
        }
        if (zmq_recv(dealer, answer, BODY_BYTES, 0) < 0) exit(1);
        received++;
        while (zmq_recv(dealer, answer, BODY_BYTES, ZMQ_DONTWAIT) >= 0)
            received++;
    }
    return CALLS / ((double)(clock_ns() - start_ns) / 1e9);
}

static void on_pipelined(void *argument, const Reply *reply)
{
    Bench *bench = argument;
    stop_on(reply->status, reply->error);
    bench->received++;
    if (bench->sent < CALLS) {
        bench->sent++;
        send_echo(bench, on_pipelined);
    } else if (bench->received == CALLS) {
        loop_stop(bench->loop);
    }
}

static double pipeline_actor(Bench *bench)
{
    bench->received = 0;
    bench->sent = WINDOW;
    int64_t start_ns = clock_ns();
    for (int i = 0; i < WINDOW; i++)
        send_echo(bench, on_pipelined);
    loop_run(bench->loop);
    return CALLS / ((double)(clock_ns() - start_ns) / 1e9);
}

static int compare_rates(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void bench_pipeline(Bench *bench)
{
    double *raw = mem_calloc((size_t)bench->rounds, sizeof *raw);
    double *actor = mem_calloc((size_t)bench->rounds, sizeof *actor);
    int64_t raw_cpu_ns = 0, actor_cpu_ns = 0;
    for (int round = 0; round < bench->rounds; round++) {
        int64_t before_ns = cpu_ns(bench->raw_server);
        raw[round] = pipeline_raw(bench->raw);
        raw_cpu_ns += cpu_ns(bench->raw_server) - before_ns;
        before_ns = cpu_ns(bench->actor_server);
        actor[round] = pipeline_actor(bench);
        actor_cpu_ns += cpu_ns(bench->actor_server) - before_ns;
    }
    qsort(raw, (size_t)bench->rounds, sizeof *raw, compare_rates);
    qsort(actor, (size_t)bench->rounds, sizeof *actor, compare_rates);
    double r = raw[bench->rounds / 2], a = actor[bench->rounds / 2];
    double calls = (double)bench->rounds * CALLS;
    printf("calls/s, %d in flight  %8.0f/s    floor %8.0f/s    %.2f x   (target >= 250000/s)\n",
           WINDOW, a, r, a / r);
    printf("  best round             %8.0f/s    floor %8.0f/s\n", actor[bench->rounds - 1],
           raw[bench->rounds - 1]);
    printf("  CPU of both ends       %8.2f us   floor %8.2f us   %.2f x\n",
           (double)actor_cpu_ns / calls / 1e3, (double)raw_cpu_ns / calls / 1e3,
           (double)actor_cpu_ns / (double)raw_cpu_ns);
    free(actor);
    free(raw);
}

/* ---- the agent ---- */

static void on_hello(void *self, Call *call)
{
    Bench *bench = self;
    Bytes bytes = call_body(call);
    Troupe__ActorHelloRequest *hello =
        troupe__actor_hello_request__unpack(NULL, bytes.length, bytes.data);
    snprintf(bench->said_hello, sizeof bench->said_hello, "%s", hello->endpoint);
    troupe__actor_hello_request__free_unpacked(hello, NULL);
    Troupe__ActorHelloReply reply = TROUPE__ACTOR_HELLO_REPLY__INIT;
    reply.config_yaml =
        "name: bench\nmodel:\n  path: m\ndata:\n  train: [a.jsonl]\ntrain:\n  num_epochs: 1\n";
    reply.config_dir = "/";
    uint8_t packed[256];
    call_reply(call, (Bytes){packed, troupe__actor_hello_reply__pack(&reply, packed)}, (Bytes){0});
    loop_stop(bench->loop);
}

static void on_news(void *self, Call *call)
{
    (void)self;
    call_reply(call, (Bytes){0}, (Bytes){0});
}

static const ActorMethod controller_methods[] = {
    {"controller.hello", on_hello},
    {"controller.beat", on_news},
    {"controller.actor_exited", on_news},
};

static void on_done(void *argument, const Reply *reply)
{
    Bench *bench = argument;
    stop_on(reply->status, reply->error);
    if (++bench->received == bench->goal) loop_stop(bench->loop);
}

static void call_with(Bench *bench, Handle *handle, const char *method,
                      const ProtobufCMessage *message)
{
    Error err;
    uint8_t packed[2048];
    size_t length = message != NULL ? protobuf_c_message_pack(message, packed) : 0;
    CallOptions options = {.method = method, .body = {packed, length}, .timeout_ms = TIMEOUT_MS};
    stop_on(handle_call(handle, &options, on_done, bench, &err), &err);
}

static void wait_for(Bench *bench, int goal)
{
    bench->goal = goal;
    if (bench->received < goal) loop_run(bench->loop);
    bench->received = 0;
}

static void call_and_wait(Bench *bench, Handle *handle, const char *method,
                          const ProtobufCMessage *message)
{
    bench->received = 0;
    bench->goal = 1;
    call_with(bench, handle, method, message);
    loop_run(bench->loop);
    bench->received = 0;
}

static void start_agent(Bench *bench, const char *program_folder)
{
    char program[4096], endpoint[128];
    Error err;
    snprintf(program, sizeof program, "%s/node_agent", program_folder);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/agent", bench->folder);
    if (fork() == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        char self[16];
        snprintf(self, sizeof self, "%d", (int)getppid());
        execl(program, program, "--endpoint", endpoint, "--embedded", self, "--cpus", "1000",
              (char *)NULL);
        _exit(127);
    }
    stop_on(handle_open(bench->loop, &bench->self, "node_agent", endpoint, &bench->agent, &err),
            &err);
    Troupe__AgentHelloRequest hello = TROUPE__AGENT_HELLO_REQUEST__INIT;
    hello.job_name = "bench";
    hello.controller_endpoint = (char *)actor_endpoint(bench->inbox);
    call_and_wait(bench, bench->agent, "agent.hello", &hello.base);
}

static void prepare_group(Bench *bench, char *name)
{
    Troupe__PrepareRequest request = TROUPE__PREPARE_REQUEST__INIT;
    Troupe__Bundle bundle = TROUPE__BUNDLE__INIT, *list[] = {&bundle};
    Troupe__Resources need = TROUPE__RESOURCES__INIT;
    need.cpu = 1;
    bundle.need = &need;
    request.group = name;
    request.job_name = "bench";
    request.n_bundles = 1;
    request.bundles = list;
    request.lease_ms = TIMEOUT_MS;
    call_with(bench, bench->agent, "agent.prepare", &request.base);
}

static void group_call(Bench *bench, const char *method, char *name)
{
    Troupe__GroupRequest request = TROUPE__GROUP_REQUEST__INIT;
    request.group = name;
    call_with(bench, bench->agent, method, &request.base);
}

/* One group after the other (three calls in turn), and GROUPS at a time (Ray's shape: make all,
 * wait, remove all). */
static void bench_groups(Bench *bench)
{
    static char names[GROUPS][16];
    int count = bench->rounds * GROUPS;
    int64_t *single = mem_calloc((size_t)count, sizeof *single);
    int64_t pipelined_ns = 0;
    for (int i = 0; i < GROUPS; i++)
        snprintf(names[i], sizeof names[i], "group-%d", i);
    for (int round = 0; round < bench->rounds; round++) {
        for (int i = 0; i < GROUPS; i++) {
            int64_t start_ns = clock_ns();
            prepare_group(bench, names[i]);
            wait_for(bench, 1);
            group_call(bench, "agent.commit", names[i]);
            wait_for(bench, 1);
            group_call(bench, "agent.release", names[i]);
            wait_for(bench, 1);
            single[round * GROUPS + i] = clock_ns() - start_ns;
        }
        int64_t start_ns = clock_ns();
        for (int i = 0; i < GROUPS; i++)
            prepare_group(bench, names[i]);
        wait_for(bench, GROUPS);
        for (int i = 0; i < GROUPS; i++)
            group_call(bench, "agent.commit", names[i]);
        wait_for(bench, GROUPS);
        for (int i = 0; i < GROUPS; i++)
            group_call(bench, "agent.release", names[i]);
        wait_for(bench, GROUPS);
        pipelined_ns += clock_ns() - start_ns;
    }
    Quantiles q = quantiles(single, count);
    printf("group made and removed   %8.1f us p50, %.1f us p99; %d at a time %8.0f/s\n",
           q.p50 / 1e3, q.p99 / 1e3, GROUPS, count / ((double)pipelined_ns / 1e9));
    free(single);
}

/* ---- from spawn to the first reply ---- */

static int64_t spawn_raw(Bench *bench, const char *program, int number)
{
    char endpoint[160];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/raw-%d", bench->folder, number);
    int64_t start_ns = clock_ns();
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, "--raw-echo", endpoint, (char *)NULL);
        _exit(127);
    }
    void *dealer = zmq_socket(bench->zmq, ZMQ_DEALER);
    const int soon_ms = 1, no_linger = 0;
    zmq_setsockopt(dealer, ZMQ_RECONNECT_IVL, &soon_ms, sizeof soon_ms);
    zmq_setsockopt(dealer, ZMQ_LINGER, &no_linger, sizeof no_linger);
    zmq_connect(dealer, endpoint);
    trip_raw(dealer);
    int64_t time_ns = clock_ns() - start_ns;
    zmq_close(dealer);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return time_ns;
}

static int64_t spawn_actor(Bench *bench, int number)
{
    char incarnation[16], inbox[160], log[160], *group = "spawn";
    Error err;
    snprintf(incarnation, sizeof incarnation, "%d", 1000 + number);
    snprintf(inbox, sizeof inbox, "ipc://%s/actor-%d", bench->folder, number);
    snprintf(log, sizeof log, "%s/actor.log", bench->folder);
    char *arguments[] = {"--actor",       "echo",
                         "--incarnation", incarnation,
                         "--generation",  "1",
                         "--job",         "1",
                         "--controller",  (char *)actor_endpoint(bench->inbox),
                         "--inbox",       inbox};
    Troupe__SpawnRequest request = TROUPE__SPAWN_REQUEST__INIT;
    request.actor = "echo";
    request.incarnation = (uint64_t)(1000 + number);
    request.group = group;
    request.executable = "bench_actor";
    request.n_argument = sizeof arguments / sizeof *arguments;
    request.argument = arguments;
    request.log_path = log;
    int64_t start_ns = clock_ns();
    call_with(bench, bench->agent, "agent.spawn", &request.base);
    bench->goal = 2; /* more than comes: only a hello stops the loop */
    bench->said_hello[0] = '\0';
    while (bench->said_hello[0] == '\0')
        loop_run(bench->loop);
    Handle *handle = NULL;
    stop_on(handle_open(bench->loop, &bench->self, "echo", bench->said_hello, &handle, &err), &err);
    call_and_wait(bench, handle, "bench.echo", NULL);
    int64_t time_ns = clock_ns() - start_ns;
    call_and_wait(bench, handle, "actor.stop", NULL);
    handle_close(handle);
    return time_ns;
}

static void bench_spawns(Bench *bench, const char *program)
{
    int64_t raw[SPAWNS], actor[SPAWNS];
    char *group = "spawn";
    prepare_group(bench, group);
    wait_for(bench, 1);
    group_call(bench, "agent.commit", group);
    wait_for(bench, 1);
    for (int i = 0; i < SPAWNS; i++) {
        raw[i] = spawn_raw(bench, program, i);
        actor[i] = spawn_actor(bench, i);
    }
    group_call(bench, "agent.release", group);
    wait_for(bench, 1);
    Quantiles r = quantiles(raw, SPAWNS), a = quantiles(actor, SPAWNS);
    printf("spawn to first reply p50 %8.1f ms   floor %8.1f ms   %.2f x   (worst %.1f ms)\n",
           a.p50 / 1e6, r.p50 / 1e6, a.p50 / r.p50, (double)actor[SPAWNS - 1] / 1e6);
}

/* From nothing: an agent is started, says hello, reserves, spawns an actor, which answers. */
static void bench_cold_start(Bench *bench, const char *program_folder)
{
    int64_t start_ns = clock_ns();
    char *group = "first";
    start_agent(bench, program_folder);
    prepare_group(bench, group);
    wait_for(bench, 1);
    group_call(bench, "agent.commit", group);
    wait_for(bench, 1);
    char *spawn = "spawn"; /* spawn_actor's group */
    prepare_group(bench, spawn);
    wait_for(bench, 1);
    group_call(bench, "agent.commit", spawn);
    wait_for(bench, 1);
    int64_t ready_ns = clock_ns() - start_ns;
    ready_ns += spawn_actor(bench, SPAWNS);
    printf("agent start to first actor reply %.1f ms   (target <= 150 ms)\n",
           (double)ready_ns / 1e6);
    group_call(bench, "agent.release", spawn);
    wait_for(bench, 1);
    group_call(bench, "agent.release", group);
    wait_for(bench, 1);
}

/* ---- the whole ---- */

static void bench_open(Bench *bench)
{
    Error err;
    snprintf(bench->folder, sizeof bench->folder, "/tmp/troupe-bench-%d", (int)getpid());
    snprintf(bench->raw_endpoint, sizeof bench->raw_endpoint, "ipc://%s/raw", bench->folder);
    snprintf(bench->actor_endpoint, sizeof bench->actor_endpoint, "ipc://%s/echo", bench->folder);
    stop_on(folder_create(bench->folder, &err), &err);
    bench->raw_server =
        fork_server(serve_raw, bench->raw_endpoint); /* before this process has threads */
    bench->actor_server = fork_server(serve_actor, bench->actor_endpoint);
    bench->zmq = zmq_ctx_new();
    bench->raw = open_raw(bench, bench->raw_endpoint);
    bench->self = (ActorIdentity){.name = "bench", .job = 1, .generation = 1, .incarnation = 2};
    stop_on(loop_create(&bench->loop, &err), &err);
    stop_on(
        handle_open(bench->loop, &bench->self, "echo", bench->actor_endpoint, &bench->echo, &err),
        &err);
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/controller", bench->folder);
    ActorOptions options = {.identity = bench->self,
                            .endpoint = endpoint,
                            .methods = controller_methods,
                            .num_methods = 3,
                            .self = bench};
    stop_on(actor_create(bench->loop, &options, &bench->inbox, &err), &err);
}

static void bench_close(Bench *bench)
{
    Error err;
    handle_close(bench->echo);
    handle_close(bench->agent);
    actor_destroy(bench->inbox); /* the agent follows its controller */
    loop_destroy(bench->loop);
    zmq_close(bench->raw);
    zmq_ctx_term(bench->zmq);
    stop_on(folder_remove(bench->folder, &err), &err);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--raw-echo") == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve_raw(argv[2]);
    }
    if (argc > 2) return run_as_actor(argc, argv);
    char program[4096];
    size_t size = sizeof program;
    Bench bench = {.rounds = argc == 2 ? atoi(argv[1]) : 20};
    if (bench.rounds < 1 || uv_exepath(program, &size) != 0) {
        fprintf(stderr, "usage: bench_actor [rounds]\n");
        return 2;
    }
    char *folder = path_folder(program);
    bench_open(&bench);
    bench_cold_start(&bench, folder);
    bench_spawns(&bench, program);
    bench_trips(&bench);
    bench_pipeline(&bench);
    bench_groups(&bench);
    bench_close(&bench);
    free(folder);
    return 0;
}
