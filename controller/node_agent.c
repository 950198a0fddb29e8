/* node_agent: owns its machine: what is reserved, which actor processes run, their logs and their
 * deaths. A daemon that outlives jobs; with --embedded it belongs to the controller that started it
 * and ends with it. When the controller of a job goes away, the job's actors are killed and its
 * groups released. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "actor/handle.h"
#include "agent_process.h"
#include "agent_reservation.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/version.h"
#include "cluster.pb-c.h"

#define SWEEP_MS          1000
#define NOTICE_TIMEOUT_MS 2000
#define NOTICES_MAX                                                                                \
    15 /* tries to tell the controller of a death, before it must be dead itself                   \
        */

static const char usage[] =
    "usage: node_agent --endpoint ipc://PATH|tcp://127.0.0.1:PORT [--cpus N] [--memory BYTES] "
    "[--name NODE]\n"
    "                  [--embedded]\n"
    "Owns this machine for Troupe: reserves, starts and watches actor processes.\n";

typedef struct Agent Agent;

/* A job whose controller has said hello. */
typedef struct Job {
    Agent *agent;
    char *name;
    char *controller_endpoint;
    Handle *controller;
    bool gone;
    struct Job *next;
} Job;

typedef struct AgentActor {
    Agent *agent;
    Job *job; /* NULL once the job is gone */
    char *name, *executable;
    uint64_t incarnation;
    AgentProcess *process;
    struct AgentActor *next;
} AgentActor;

struct Agent {
    Loop *loop;
    Actor *inbox;
    ActorIdentity identity;
    Reservations *reservations;
    Job *jobs;
    AgentActor *actors;
    char *program_folder;
    bool stopping;
};

/* ---- answers ---- */

static void reply_with(Call *call, const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size(message);
    uint8_t *body = mem_alloc(length);
    protobuf_c_message_pack(message, body);
    call_reply(call, (Bytes){body, length}, (Bytes){0});
    free(body);
}

static void reply_empty(Call *call)
{
    Troupe__Empty empty = TROUPE__EMPTY__INIT;
    reply_with(call, &empty.base);
}

static void refuse_unreadable(Call *call)
{
    call_failf(call, ERR_INVALID, "the request cannot be read");
}

static void fill_resources(Troupe__Resources *to, NodeResources from)
{
    troupe__resources__init(to);
    to->cpu = from.cpu;
    to->gpu = (uint32_t)from.gpu;
    to->memory_bytes = (uint64_t)from.memory_bytes;
}

/* ---- jobs ---- */

static Job *find_job(const Agent *agent, const char *name)
{
    for (Job *job = agent->jobs; job != NULL; job = job->next)
        if (!job->gone && strcmp(job->name, name) == 0) return job;
    return NULL;
}

/* Its actors die; the job itself is freed when the last of them is buried. */
static void job_gone(Job *job, const char *why)
{
    if (job->gone) return;
    job->gone = true;
    log_event(LOG_INFO, "job_gone", F_STR("job", job->name), F_STR("why", why));
    for (AgentActor *actor = job->agent->actors; actor != NULL; actor = actor->next)
        if (actor->job == job) agent_process_kill(actor->process, 0);
    reservations_release_job(job->agent->reservations, job->name);
}

static void on_controller_connection(void *argument, bool connected)
{
    if (!connected) job_gone(argument, "the connection to its controller broke");
}

static void bury_jobs(Agent *agent)
{
    for (Job **link = &agent->jobs; *link != NULL;) {
        Job *job = *link;
        bool in_use = !job->gone;
        for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
            in_use = in_use || actor->job == job;
        if (in_use) {
            link = &job->next;
            continue;
        }
        *link = job->next;
        handle_close(job->controller);
        free(job->controller_endpoint);
        free(job->name);
        free(job);
    }
}

static Status open_job(Agent *agent, const Troupe__AgentHelloRequest *hello, Error *err)
{
    Job *old = find_job(agent, hello->job_name);
    if (old != NULL && strcmp(old->controller_endpoint, hello->controller_endpoint) == 0) return OK;
    if (old != NULL) job_gone(old, "another controller took the job over");
    Job *job = mem_calloc(1, sizeof *job);
    Status status = handle_open(agent->loop, &agent->identity, "the controller",
                                hello->controller_endpoint, &job->controller, err);
    if (status != OK) {
        free(job);
        return status;
    }
    job->agent = agent;
    job->name = mem_strdup(hello->job_name);
    job->controller_endpoint = mem_strdup(hello->controller_endpoint);
    job->next = agent->jobs;
    agent->jobs = job;
    handle_watch(job->controller, on_controller_connection, job);
    return OK;
}

static void on_hello(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__AgentHelloRequest *hello =
        troupe__agent_hello_request__unpack(NULL, body.length, body.data);
    Error err;
    if (hello == NULL) {
        refuse_unreadable(call);
    } else if (open_job(agent, hello, &err) != OK) {
        call_fail(call, &err);
    } else {
        Troupe__AgentHelloReply reply = TROUPE__AGENT_HELLO_REPLY__INIT;
        Troupe__Resources total, room;
        fill_resources(&total, reservations_total(agent->reservations));
        fill_resources(&room, reservations_free(agent->reservations));
        reply.node = agent->identity.name;
        reply.pid = (uint32_t)getpid();
        reply.total = &total;
        reply.free = &room;
        reply.version = TROUPE_VERSION;
        reply_with(call, &reply.base);
    }
    if (hello != NULL) troupe__agent_hello_request__free_unpacked(hello, NULL);
}

/* ---- groups ---- */

static void answer_prepare(Agent *agent, Call *call, bool granted)
{
    int count = reservations_count(agent->reservations);
    Troupe__PrepareReply reply = TROUPE__PREPARE_REPLY__INIT;
    Troupe__Resources room, *held = mem_calloc((size_t)count + 1, sizeof *held);
    Troupe__Holder *holder = mem_calloc((size_t)count + 1, sizeof *holder);
    Troupe__Holder **list = mem_calloc((size_t)count + 1, sizeof *list);
    for (int i = 0; i < count; i++) {
        HeldGroup group = reservations_group(agent->reservations, i);
        fill_resources(&held[i], group.held);
        troupe__holder__init(&holder[i]);
        holder[i].job_name = (char *)group.job;
        holder[i].group = (char *)group.group;
        holder[i].held = &held[i];
        list[i] = &holder[i];
    }
    fill_resources(&room, reservations_free(agent->reservations));
    reply.granted = granted;
    reply.free = &room;
    reply.n_holders = granted ? 0 : (size_t)count;
    reply.holders = list;
    reply_with(call, &reply.base);
    free(list);
    free(holder);
    free(held);
}

static void on_prepare(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__PrepareRequest *request = troupe__prepare_request__unpack(NULL, body.length, body.data);
    if (request == NULL || request->n_bundles > BUNDLES_MAX) {
        refuse_unreadable(call);
    } else if (find_job(agent, request->job_name) == NULL) {
        call_failf(call, ERR_UNAVAILABLE, "job %s has not said hello", request->job_name);
    } else {
        BundleSpec *bundle = mem_calloc(request->n_bundles, sizeof *bundle);
        for (size_t i = 0; i < request->n_bundles; i++) {
            const Troupe__Resources *need = request->bundles[i]->need;
            bundle[i].index = (int)request->bundles[i]->index;
            if (need != NULL)
                bundle[i].need =
                    (NodeResources){need->cpu, (int)need->gpu, (int64_t)need->memory_bytes};
        }
        answer_prepare(agent, call,
                       reservations_prepare(agent->reservations, request->group, request->job_name,
                                            bundle, (int)request->n_bundles,
                                            clock_ms() + request->lease_ms));
        free(bundle);
    }
    if (request != NULL) troupe__prepare_request__free_unpacked(request, NULL);
}

static void on_commit(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__GroupRequest *request = troupe__group_request__unpack(NULL, body.length, body.data);
    Error err;
    if (request == NULL)
        refuse_unreadable(call);
    else if (reservations_commit(agent->reservations, request->group, &err) != OK)
        call_fail(call, &err);
    else
        reply_empty(call);
    if (request != NULL) troupe__group_request__free_unpacked(request, NULL);
}

static void on_release(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__GroupRequest *request = troupe__group_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        refuse_unreadable(call);
        return;
    }
    reservations_release(agent->reservations, request->group);
    reply_empty(call);
    troupe__group_request__free_unpacked(request, NULL);
}

/* ---- death notices ---- */

typedef struct Notice {
    Job *job;
    uint8_t *body;
    size_t length;
    int tries;
} Notice;

static void send_notice(Notice *notice);

static void on_notice_answered(void *argument, const Reply *reply)
{
    Notice *notice = argument;
    bool again = reply->status == ERR_TIMEOUT && notice->tries < NOTICES_MAX && !notice->job->gone;
    if (again) {
        send_notice(notice);
        return;
    }
    free(notice->body);
    free(notice);
}

static void send_notice(Notice *notice)
{
    notice->tries++;
    CallOptions options = {.method = "controller.actor_exited",
                           .body = {notice->body, notice->length},
                           .timeout_ms = NOTICE_TIMEOUT_MS};
    Error err;
    if (handle_call(notice->job->controller, &options, on_notice_answered, notice, &err) == OK)
        return;
    log_event(LOG_WARN, "notice_lost", F_STR("why", err.message));
    free(notice->body);
    free(notice);
}

static void tell_controller(const AgentActor *actor, const ProcessDeath *death)
{
    Troupe__ActorExited exited = TROUPE__ACTOR_EXITED__INIT;
    exited.actor = actor->name;
    exited.incarnation = actor->incarnation;
    exited.pid = (uint32_t)death->pid;
    exited.exit_code = death->exit_code;
    exited.signal = (uint32_t)death->signal;
    exited.reason = (char *)death->reason;
    exited.stderr_tail = (char *)death->output_tail;
    Notice *notice = mem_calloc(1, sizeof *notice);
    notice->job = actor->job;
    notice->length = troupe__actor_exited__get_packed_size(&exited);
    notice->body = mem_alloc(notice->length);
    troupe__actor_exited__pack(&exited, notice->body);
    send_notice(notice);
}

static void reap_strays(Agent *agent)
{
    int known[ACTORS_MAX], count = 0;
    for (AgentActor *actor = agent->actors; actor != NULL && count < ACTORS_MAX;
         actor = actor->next)
        known[count++] = agent_process_pid(actor->process);
    int strays = agent_reap_strays(known, count);
    if (strays > 0) log_event(LOG_WARN, "strays_killed", F_INT("count", strays));
}

static void on_death(void *context, AgentProcess *process, const ProcessDeath *death)
{
    AgentActor *actor = context;
    Agent *agent = actor->agent;
    log_event(LOG_INFO, "actor_exited", F_STR("actor", actor->name), F_INT("pid", death->pid),
              F_STR("reason", death->reason));
    if (!actor->job->gone) tell_controller(actor, death);
    AgentActor **link = &agent->actors;
    while (*link != actor)
        link = &(*link)->next;
    *link = actor->next;
    agent_process_destroy(process);
    free(actor->name);
    free(actor->executable);
    free(actor);
    reap_strays(agent);
    bury_jobs(agent);
    if (agent->stopping && agent->actors == NULL) loop_stop(agent->loop);
}

/* ---- actors ---- */

static AgentActor *find_actor(const Agent *agent, const char *name, uint64_t incarnation)
{
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (actor->incarnation == incarnation && strcmp(actor->name, name) == 0) return actor;
    return NULL;
}

/* Only programs of Troupe's own folder, by plain name. */
static Status program_path(const Agent *agent, const char *name, char **ret, Error *err)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL)
        return error_set(err, ERR_INVALID, "\"%s\" is not the plain name of a program", name);
    char *path = path_join(agent->program_folder, name);
    if (access(path, X_OK) != 0) {
        Status status = error_set(err, ERR_NOT_FOUND, "there is no program %s", path);
        free(path);
        return status;
    }
    *ret = path;
    return OK;
}

static Status spawn_actor(Agent *agent, const Troupe__SpawnRequest *request, int *ret_pid,
                          Error *err)
{
    const char *job_name = NULL;
    char *program = NULL;
    AgentActor *known = find_actor(agent, request->actor, request->incarnation);
    if (known != NULL) { /* a repeated message */
        *ret_pid = agent_process_pid(known->process);
        return OK;
    }
    TRY(reservations_find(agent->reservations, request->group, (int)request->bundle, &job_name,
                          err));
    Job *job = find_job(agent, job_name);
    if (job == NULL) return error_set(err, ERR_UNAVAILABLE, "job %s is gone", job_name);
    TRY(program_path(agent, request->executable, &program, err));
    AgentActor *actor = mem_calloc(1, sizeof *actor);
    ProcessOrder order = {
        .loop = agent->loop,
        .program = program,
        .argument = (const char *const *)request->argument,
        .num_arguments = (int)request->n_argument,
        .environment = (const char *const *)request->environment,
        .num_environment = (int)request->n_environment,
        .log_path = request->log_path,
        .on_death = on_death,
        .context = actor,
    };
    Status status = agent_process_spawn(&order, &actor->process, err);
    free(program);
    if (status != OK) {
        free(actor);
        return status;
    }
    actor->agent = agent;
    actor->job = job;
    actor->name = mem_strdup(request->actor);
    actor->executable = mem_strdup(request->executable);
    actor->incarnation = request->incarnation;
    actor->next = agent->actors;
    agent->actors = actor;
    *ret_pid = agent_process_pid(actor->process);
    return OK;
}

static void on_spawn(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__SpawnRequest *request = troupe__spawn_request__unpack(NULL, body.length, body.data);
    Error err;
    int pid = 0;
    if (request == NULL) {
        refuse_unreadable(call);
    } else if (agent->stopping) {
        call_failf(call, ERR_UNAVAILABLE, "the agent is stopping");
    } else if (spawn_actor(agent, request, &pid, &err) != OK) {
        call_fail(call, &err);
    } else {
        Troupe__SpawnReply reply = TROUPE__SPAWN_REPLY__INIT;
        reply.pid = (uint32_t)pid;
        reply_with(call, &reply.base);
    }
    if (request != NULL) troupe__spawn_request__free_unpacked(request, NULL);
}

static void on_kill(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__KillRequest *request = troupe__kill_request__unpack(NULL, body.length, body.data);
    AgentActor *actor =
        request != NULL ? find_actor(agent, request->actor, request->incarnation) : NULL;
    if (request == NULL) {
        refuse_unreadable(call);
    } else if (actor == NULL) {
        call_failf(call, ERR_NOT_FOUND, "there is no process of actor %s with that incarnation",
                   request->actor);
    } else {
        agent_process_kill(actor->process, (int)request->grace_ms);
        reply_empty(call);
    }
    if (request != NULL) troupe__kill_request__free_unpacked(request, NULL);
}

/* ---- status ---- */

static void on_status(void *self, Call *call)
{
    Agent *agent = self;
    Troupe__AgentStatusReply reply = TROUPE__AGENT_STATUS_REPLY__INIT;
    Troupe__AgentHelloReply node = TROUPE__AGENT_HELLO_REPLY__INIT;
    Troupe__Resources total, room;
    Troupe__AgentActor *actor_message = mem_calloc(ACTORS_MAX, sizeof *actor_message);
    Troupe__AgentActor **list = mem_calloc(ACTORS_MAX, sizeof *list);
    fill_resources(&total, reservations_total(agent->reservations));
    fill_resources(&room, reservations_free(agent->reservations));
    node.node = agent->identity.name;
    node.pid = (uint32_t)getpid();
    node.total = &total;
    node.free = &room;
    node.version = TROUPE_VERSION;
    reply.node = &node;
    for (AgentActor *actor = agent->actors; actor != NULL && reply.n_actors < ACTORS_MAX;
         actor = actor->next) {
        Troupe__AgentActor *message = &actor_message[reply.n_actors];
        troupe__agent_actor__init(message);
        message->actor = actor->name;
        message->job_name = actor->job->name;
        message->pid = (uint32_t)agent_process_pid(actor->process);
        message->executable = actor->executable;
        list[reply.n_actors++] = message;
    }
    reply.actors = list;
    reply_with(call, &reply.base);
    free(list);
    free(actor_message);
}

static const ActorMethod methods[] = {
    {"agent.hello", on_hello},     {"agent.prepare", on_prepare}, {"agent.commit", on_commit},
    {"agent.release", on_release}, {"agent.spawn", on_spawn},     {"agent.kill", on_kill},
    {"agent.status", on_status},
};

/* ---- life ---- */

static void on_sweep(void *argument)
{
    Agent *agent = argument;
    reservations_expire(agent->reservations, clock_ms());
    reap_strays(agent);
    bury_jobs(agent);
}

static void on_signal(void *argument, int signal_number)
{
    Agent *agent = argument;
    (void)signal_number;
    agent->stopping = true;
    for (Job *job = agent->jobs; job != NULL; job = job->next)
        job_gone(job, "the agent was told to stop");
    if (agent->actors == NULL) loop_stop(agent->loop);
}

typedef struct AgentOptions {
    const char *endpoint, *name;
    NodeResources total;
    bool embedded;
} AgentOptions;

static Status parse_options(int argc, char **argv, AgentOptions *ret, Error *err)
{
    static const struct option names[] = {
        {"endpoint", required_argument, NULL, 'e'},
        {"cpus", required_argument, NULL, 'c'},
        {"memory", required_argument, NULL, 'm'},
        {"name", required_argument, NULL, 'n'},
        {"embedded", no_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    ret->total.cpu = (double)sysconf(_SC_NPROCESSORS_ONLN);
    ret->total.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'e':
            ret->endpoint = optarg;
            break;
        case 'c':
            ret->total.cpu = atof(optarg);
            break;
        case 'm':
            ret->total.memory_bytes = atoll(optarg);
            break;
        case 'n':
            ret->name = optarg;
            break;
        case 'x':
            ret->embedded = true;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            return error_set(err, ERR_INVALID, "unknown or incomplete option %s\n%s",
                             argv[optind - 1], usage);
        }
    }
    if (ret->endpoint == NULL)
        return error_set(err, ERR_INVALID, "--endpoint is missing\n%s", usage);
    if (ret->total.cpu <= 0) return error_set(err, ERR_INVALID, "--cpus must be more than 0");
    return OK;
}

/* An embedded agent dies with its controller; the check after it closes the gap before the request
 * took hold. */
static void follow_parent(void)
{
    int parent = (int)getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if ((int)getppid() != parent || parent == 1) exit(0);
}

static Status agent_open(Agent *agent, const AgentOptions *options, Error *err)
{
    char self[4096];
    size_t size = sizeof self;
    if (uv_exepath(self, &size) != 0)
        return error_set(err, ERR_IO, "could not find this program's folder");
    agent->program_folder = path_folder(self);
    agent->reservations = reservations_create(&options->total);
    agent->identity = (ActorIdentity){.incarnation = (uint64_t)clock_ns()};
    if (options->name != NULL)
        snprintf(agent->identity.name, sizeof agent->identity.name, "%s", options->name);
    else
        gethostname(agent->identity.name, sizeof agent->identity.name - 1);
    if (getrandom(&agent->identity.incarnation, sizeof agent->identity.incarnation, 0) < 0)
        return error_set_errno(err, errno, "could not draw a random number");
    TRY(loop_create(&agent->loop, err));
    ActorOptions actor = {.identity = agent->identity,
                          .endpoint = options->endpoint,
                          .methods = methods,
                          .num_methods = sizeof methods / sizeof *methods,
                          .self = agent};
    TRY(actor_create(agent->loop, &actor, &agent->inbox, err));
    TRY(loop_add_signal(agent->loop, SIGTERM, on_signal, agent, err));
    return loop_add_signal(agent->loop, SIGINT, on_signal, agent, err);
}

static void agent_close(Agent *agent)
{
    for (Job *job = agent->jobs; job != NULL; job = job->next)
        job->gone = true;
    bury_jobs(agent);
    actor_destroy(agent->inbox);
    loop_destroy(agent->loop);
    reservations_destroy(agent->reservations);
    free(agent->program_folder);
}

int main(int argc, char **argv)
{
    Agent agent = {0};
    AgentOptions options = {0};
    Error err = {0};
    Status status = parse_options(argc, argv, &options, &err);
    if (status == OK && options.embedded) follow_parent();
    if (status == OK) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        signal(SIGPIPE, SIG_IGN);
        status = log_open("node_agent", NULL, LOG_INFO, &err);
    }
    if (status == OK) status = agent_open(&agent, &options, &err);
    if (status == OK) {
        log_event(LOG_INFO, "agent_up", F_STR("node", agent.identity.name),
                  F_STR("endpoint", actor_endpoint(agent.inbox)),
                  F_REAL("cpus", options.total.cpu));
        LoopTimer *sweep = loop_add_timer(agent.loop, SWEEP_MS, SWEEP_MS, on_sweep, &agent);
        loop_run(agent.loop);
        loop_remove_timer(sweep);
    } else {
        fprintf(stderr, "node_agent: %s\n", err.message);
    }
    agent_close(&agent);
    return status_exit_code(status);
}
