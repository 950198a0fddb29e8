#include "actor/actor_process.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/process.h"
#include "base/version.h"
#include "cluster.pb-c.h"

#define HELLO_TIMEOUT_MS 10000
#define METHODS_MAX      32

struct ActorProcess {
    const ActorProcessSpec *spec;
    ActorIdentity identity;
    ActorIdentity unfenced; /* the same with generation 0 */
    uint64_t parent;        /* the agent's process */
    const char *controller_endpoint, *inbox_endpoint;
    Loop *loop;
    Actor *inbox;
    Handle *controller;
    JobConfig *config;
    TrainPlace place;
    pthread_t preparer;
    bool preparing; /* it runs, or has not been joined */
    Status prepared;
    Error prepare_error;
    void *self;
    ActorMethod method[METHODS_MAX]; /* the spec's, behind a gate that waits for start */
    Call *early[64];                 /* calls that came before start */
    int num_early;
    LoopTimer *beat;
    int64_t heard_ms; /* when the controller answered last */
    _Atomic uint64_t progress;
    char doing[DOING_BYTES];
    Status exit_status;
    Error error;
};

Loop *actor_process_loop(ActorProcess *process)
{
    return process->loop;
}

const ActorIdentity *actor_process_identity(const ActorProcess *process)
{
    return &process->unfenced;
}

const JobConfig *actor_process_config(const ActorProcess *process)
{
    return process->config;
}

TrainPlace actor_process_train_place(const ActorProcess *process)
{
    return process->place;
}

void actor_process_progress(ActorProcess *process)
{
    atomic_fetch_add_explicit(&process->progress, 1, memory_order_relaxed);
}

void actor_process_set_doing(ActorProcess *process, const char *doing)
{
    snprintf(process->doing, sizeof process->doing, "%s", doing);
    actor_process_progress(process);
}

static void finish(ActorProcess *process, Status status, const char *why)
{
    process->exit_status = status;
    if (status != OK) error_set(&process->error, status, "%s", why);
    loop_stop(process->loop);
}

void actor_process_fail(ActorProcess *process, const Error *why)
{
    finish(process, why->status, why->message);
}

/* ---- beats ---- */

static int64_t resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) return 0;
    if (fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    fclose(file);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static void on_beat_answered(void *argument, const Reply *reply)
{
    ActorProcess *process = argument;
    if (reply->status == OK) process->heard_ms = clock_ms();
}

static void send_beat(void *argument)
{
    ActorProcess *process = argument;
    ActorReport report = {.progress =
                              atomic_load_explicit(&process->progress, memory_order_relaxed)};
    memcpy(report.doing, process->doing, sizeof report.doing);
    report.working = process->preparing;
    if (process->spec->describe != NULL && process->self != NULL)
        process->spec->describe(process->self, &report);
    Troupe__BeatRequest beat = TROUPE__BEAT_REQUEST__INIT;
    beat.actor = process->identity.name;
    beat.incarnation = process->identity.incarnation;
    beat.progress = report.progress;
    beat.working = (uint32_t)report.working;
    beat.doing = report.doing;
    beat.waiting_for = report.waiting_for;
    beat.trouble = report.trouble;
    beat.notice = report.notice;
    beat.rss_bytes = (uint64_t)resident_bytes();
    uint8_t body[sizeof report + 256];
    size_t length = troupe__beat_request__pack(&beat, body);
    CallOptions options = {.method = "controller.beat",
                           .body = {body, length},
                           .timeout_ms = (int)process->config->cluster.suspect_ms};
    Error err;
    if (handle_call(process->controller, &options, on_beat_answered, process, &err) != OK)
        log_event(LOG_WARN, "beat_not_sent", F_STR("why", err.message));
    if (clock_ms() - process->heard_ms > process->config->cluster.dead_ms)
        finish(process, ERR_UNAVAILABLE, "the controller does not answer any more");
}

/* ---- calls that come before start wait for it ---- */

static const ActorMethod *find_method(const ActorProcess *process, const char *name)
{
    for (int i = 0; i < process->spec->num_methods; i++)
        if (strcmp(process->spec->methods[i].name, name) == 0) return &process->spec->methods[i];
    return NULL;
}

/* A recovery raises the generation of the job; an actor that survives it learns so from the first
 * call that is made in the new one, and from then on refuses the old one. */
static void follow_generation(ActorProcess *process, const Call *call)
{
    if (call_generation(call) <= process->identity.generation) return;
    process->identity.generation = call_generation(call);
    actor_set_generation(process->inbox, process->identity.generation);
    handle_set_generation(process->controller, process->identity.generation);
}

static void gate(void *argument, Call *call)
{
    ActorProcess *process = argument;
    follow_generation(process, call);
    if (process->self != NULL)
        find_method(process, call_method(call))->handler(process->self, call);
    else if (process->num_early < (int)(sizeof process->early / sizeof *process->early))
        process->early[process->num_early++] = call;
    else
        call_failf(call, ERR_UNAVAILABLE, "%s has not started", process->identity.name);
}

static void on_ping(void *self, Call *call)
{
    follow_generation(self, call);
    call_reply(call, call_body(call), call_attachment(call));
}

static void on_stop(void *argument, Call *call)
{
    call_reply(call, (Bytes){0}, (Bytes){0});
    finish(argument, OK, "");
}

/* ---- hello ---- */

/* What came before it is answered now. */
static void begin(ActorProcess *process)
{
    Error err;
    Status status = process->spec->start(process, &process->self, &err);
    if (status != OK) {
        finish(process, status, err.message);
        return;
    }
    CHECK(process->self != NULL);
    process->heard_ms = clock_ms(); /* nobody could be heard meanwhile */
    for (int i = 0; i < process->num_early; i++)
        gate(process, process->early[i]);
    process->num_early = 0;
}

static void on_prepared(void *argument)
{
    ActorProcess *process = argument;
    pthread_join(process->preparer, NULL);
    process->preparing = false;
    if (process->prepared == OK)
        begin(process);
    else
        finish(process, process->prepared, process->prepare_error.message);
}

static void *prepare(void *argument)
{
    ActorProcess *process = argument;
    process->prepared = process->spec->prepare(process, &process->prepare_error);
    loop_post(process->loop, on_prepared, process);
    return NULL;
}

static Status take_answer(ActorProcess *process, const Troupe__ActorHelloReply *hello, Error *err)
{
    TRY(job_config_parse(hello->config_yaml, "the controller's configuration", hello->config_dir,
                         &process->config, err));
    process->config->generating_before = (int)hello->generating_before;
    if (hello->train != NULL)
        process->place = (TrainPlace){(int)hello->train->tp_rank, (int)hello->train->tp_size,
                                      (int)hello->train->dp_rank, (int)hello->train->dp_size};
    return OK;
}

static void begin_beats(ActorProcess *process)
{
    int64_t period = process->config->cluster.heartbeat_ms;
    process->heard_ms = clock_ms();
    process->beat = loop_add_timer(process->loop, period, period, send_beat, process);
}

static void on_hello_answered(void *argument, const Reply *reply)
{
    ActorProcess *process = argument;
    if (reply->status == ERR_CANCELLED) return; /* we are leaving */
    if (reply->status != OK) {
        finish(process, reply->status, reply->error->message);
        return;
    }
    Error err;
    Status status;
    Troupe__ActorHelloReply *hello =
        troupe__actor_hello_reply__unpack(NULL, reply->body.length, reply->body.data);
    if (hello == NULL)
        status = error_set(&err, ERR_INTERNAL, "the controller's answer cannot be read");
    else
        status = take_answer(process, hello, &err);
    if (hello != NULL) troupe__actor_hello_reply__free_unpacked(hello, NULL);
    if (status != OK) {
        finish(process, status, err.message);
        return;
    }
    begin_beats(process);
    if (process->spec->prepare == NULL) {
        begin(process);
        return;
    }
    process->preparing = true;
    int failed = pthread_create(&process->preparer, NULL, prepare, process);
    CHECKF(failed == 0, "could not start a thread: %s", strerror(failed));
}

static Status say_hello(ActorProcess *process, Error *err)
{
    Troupe__ActorHelloRequest hello = TROUPE__ACTOR_HELLO_REQUEST__INIT;
    hello.actor = process->identity.name;
    hello.incarnation = process->identity.incarnation;
    hello.pid = (uint32_t)getpid();
    hello.endpoint = (char *)actor_endpoint(process->inbox);
    hello.version = TROUPE_VERSION;
    uint8_t body[ACTOR_NAME_MAX + ENDPOINT_MAX + 256];
    size_t length = troupe__actor_hello_request__pack(&hello, body);
    CallOptions options = {
        .method = "controller.hello", .body = {body, length}, .timeout_ms = HELLO_TIMEOUT_MS};
    return handle_call(process->controller, &options, on_hello_answered, process, err);
}

/* ---- life ---- */

static Status parse_number(const char *option, uint64_t min, uint64_t max, uint64_t *ret,
                           Error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(optarg, &end, 10);
    if (errno != 0 || end == optarg || *end != '\0' || optarg[0] == '-' || value < min ||
        value > max)
        return error_set(err, ERR_INVALID,
                         "%s %s: expected a whole number from %" PRIu64 " to %" PRIu64, option,
                         optarg, min, max);
    *ret = value;
    return OK;
}

static Status parse_option(ActorProcess *process, int option, Error *err)
{
    ActorIdentity *identity = &process->identity;
    uint64_t number = 0;
    switch (option) {
    case 'p':
        return parse_number("--parent", 1, INT32_MAX, &process->parent, err);
    case 'a':
        if (strlen(optarg) >= sizeof identity->name)
            return error_set(err, ERR_INVALID, "--actor %s: at most %zu bytes", optarg,
                             sizeof identity->name - 1);
        snprintf(identity->name, sizeof identity->name, "%s", optarg);
        return OK;
    case 'i':
        return parse_number("--incarnation", 1, UINT64_MAX, &identity->incarnation, err);
    case 'g':
        TRY(parse_number("--generation", 1, UINT32_MAX, &number, err));
        identity->generation = (uint32_t)number;
        return OK;
    case 'j':
        return parse_number("--job", 0, UINT64_MAX, &identity->job, err);
    case 'c':
        process->controller_endpoint = optarg;
        return OK;
    default:
        process->inbox_endpoint = optarg;
        return OK;
    }
}

/* For people who start one by hand. */
static const char start_hint[] = "To run a job: controller --config JOB.YAML";

static Status parse_arguments(ActorProcess *process, int argc, char **argv, Error *err)
{
    static const struct option names[] = {
        {"parent", required_argument, NULL, 'p'},      {"actor", required_argument, NULL, 'a'},
        {"incarnation", required_argument, NULL, 'i'}, {"generation", required_argument, NULL, 'g'},
        {"job", required_argument, NULL, 'j'},         {"controller", required_argument, NULL, 'c'},
        {"inbox", required_argument, NULL, 'b'},       {0},
    };
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", names, NULL)) != -1;) {
        if (option == '?' || option == ':')
            return option_refuse(option, argv, names, start_hint, err);
        TRY(parse_option(process, option, err));
    }
    if (optind < argc)
        return error_set(err, ERR_INVALID, "unexpected argument \"%s\"", argv[optind]);
    if (process->parent == 0 || process->identity.name[0] == '\0' ||
        process->identity.incarnation == 0 || process->identity.generation == 0 ||
        process->controller_endpoint == NULL || process->inbox_endpoint == NULL)
        return error_set(
            err, ERR_INVALID,
            "%s is started by a node agent, which tells it --parent, --actor, --incarnation, "
            "--generation, --job, --controller and --inbox.\n%s",
            process->spec->program, start_hint);
    return OK;
}

/* Dies with the agent; the check closes the gap before the request took hold. Who that is must be
 * told: process 1 may be the agent, or whoever inherits its orphans. */
static void follow_parent(uint64_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if ((uint64_t)getppid() != parent) _exit(0);
}

static void on_signal(void *argument, int signal_number)
{
    (void)signal_number;
    finish(argument, OK, "");
}

static Status open_process(ActorProcess *process, Error *err)
{
    static const ActorMethod own[] = {{"actor.ping", on_ping}, {"actor.stop", on_stop}};
    CHECK(process->spec->num_methods <= METHODS_MAX);
    for (int i = 0; i < process->spec->num_methods; i++)
        process->method[i] = (ActorMethod){process->spec->methods[i].name, gate};
    process->unfenced = process->identity;
    process->unfenced.generation = 0;
    TRY(loop_create(&process->loop, err));
    ActorOptions options = {.identity = process->identity,
                            .endpoint = process->inbox_endpoint,
                            .methods = process->method,
                            .num_methods = process->spec->num_methods,
                            .self = process};
    TRY(actor_create(process->loop, &options, &process->inbox, err));
    actor_add_methods(process->inbox, own, sizeof own / sizeof *own, process);
    TRY(loop_add_signal(process->loop, SIGTERM, on_signal, process, err));
    TRY(handle_open(process->loop, &process->identity, "the controller",
                    process->controller_endpoint, &process->controller, err));
    return say_hello(process, err);
}

static void close_process(ActorProcess *process)
{
    loop_remove_timer(process->beat);
    if (process->preparing) pthread_join(process->preparer, NULL);
    if (process->self != NULL) process->spec->stop(process->self);
    for (int i = 0; i < process->num_early; i++)
        call_failf(process->early[i], ERR_UNAVAILABLE, "%s could not start",
                   process->identity.name);
    handle_close(process->controller);
    actor_destroy(process->inbox);
    loop_destroy(process->loop);
    job_config_destroy(process->config);
}

int actor_process_run(int argc, char **argv, const ActorProcessSpec *spec)
{
    ActorProcess process = {.spec = spec, .doing = "starting"};
    Error err = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("%s is a process of a job: a node agent starts it and says what it is to do.\n%s\n",
               spec->program, start_hint);
        return 0;
    }
    process_raise_file_limit(); /* a handle takes several, and so does every data file */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the controller's affair */
    Status status = parse_arguments(&process, argc, argv, &err);
    if (status == OK) follow_parent(process.parent);
    if (status == OK) status = log_open(process.identity.name, NULL, LOG_INFO, &err);
    if (status == OK) status = open_process(&process, &err);
    if (status == OK) {
        loop_run(process.loop);
        status = process.exit_status;
        err = process.error;
    }
    if (status != OK) fprintf(stderr, "%s: %s\n", spec->program, err.message);
    close_process(&process);
    return status_exit_code(status);
}
