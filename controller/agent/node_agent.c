/* node_agent: owns its machine: what is reserved, which actor processes run, their logs and their
 * deaths. A daemon that outlives jobs; with --embedded it belongs to the controller that started it
 * and ends with it. When the controller of a job goes away, the job's actors are killed and its
 * groups released. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actor/typed.h"
#include "agent/gpu_inventory.h"
#include "agent/guard.h"
#include "agent/job.h"
#include "agent/process.h"
#include "agent/reservation.h"
#include "agent/strays.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/options.h"
#include "base/str.h"
#include "base/version.h"
#include "cluster.pb-c.h"
#include "net/socket.h"

enum {
    SWEEP_MS = 1000,
    SWEEP_SOON_MS = 10,  /* after a stray was killed: to reap it */
    TAKE_OVER_MS = 3000, /* an agent before this one may still be on its way out */
};

static const char usage[] =
    "usage: node_agent --endpoint ipc:///PATH [--cpus N] [--gpus N] [--memory BYTES] [--name "
    "NODE]\n"
    "Owns this machine for Troupe: reserves, starts and watches the processes of jobs that name "
    "its\n"
    "endpoint in cluster.agents. (A job without agents starts one of its own.)\n"
    "\n"
    "  --endpoint ipc:///PATH   socket, in a folder that only you may enter (made when missing)\n"
    "  --cpus N                 CPUs to give to jobs; default: all\n"
    "  --gpus N                 GPUs to give to jobs, of which there are so many; default: all "
    "in\n"
    "                           CUDA_VISIBLE_DEVICES; 0: none is looked for\n"
    "  --memory BYTES           memory to give to jobs; default: all\n"
    "  --name NODE              default: the host's name\n"
    "  --host HOST              agents that say the same share memory between their processes, "
    "others\n"
    "                           do not; default: told by the system\n"
    "\n"
    "Ctrl-C or SIGTERM: ends it, and the processes that it started.\n"
    "\n"
    "What a controller says that starts one of its own:\n"
    "  --embedded PID           belongs to this process, and ends with it\n";

typedef struct Agent Agent;

typedef struct AgentActor {
    Agent *agent;
    AgentJob *job;
    char *name, *group;
    uint64_t incarnation;
    AgentProcess *process;
    char *inbox;    /* endpoint whose socket file goes with it; NULL if it has none */
    int guard_slot; /* of the inbox */
    struct AgentActor *next;
} AgentActor;

/* A release that waits for the actors of its group to be dead: then only its share is free. */
typedef struct Release {
    Call *call;
    char *group;
    uint64_t job; /* serial */
    struct Release *next;
} Release;

struct Agent {
    Loop *loop;
    Actor *inbox;
    AgentGuard *guard;
    ActorIdentity identity;
    Reservations *reservations;
    GpuInventory gpus;
    AgentJob *jobs;
    uint64_t num_jobs; /* ever */
    AgentActor *actors;
    Release *releases;
    LoopTimer *sweep;
    char *program_folder, *host;
    bool stopping;
};

/* ---- answers ---- */

static void fill_resources(Troupe__Resources *to, NodeResources from)
{
    troupe__resources__init(to);
    to->cpu = from.cpu;
    to->gpu = (uint32_t)from.gpu;
    to->memory_bytes = (uint64_t)from.memory_bytes;
}

/* ---- jobs ---- */

static AgentJob *find_job(const Agent *agent, uint64_t controller)
{
    for (AgentJob *job = agent->jobs; job != NULL; job = job->next)
        if (!job->gone && job->controller == controller) return job;
    return NULL;
}

/* The job whose controller makes this call. Otherwise the call is answered: the controller has not
 * said hello, or is another one by now. */
static AgentJob *job_of_call(const Agent *agent, Call *call)
{
    AgentJob *job = find_job(agent, call_sender_incarnation(call));
    if (job == NULL)
        call_failf(call, ERR_UNAVAILABLE,
                   "this controller has not said hello to agent %s (or no longer counts there)",
                   agent->identity.name);
    return job;
}

/* Its actors die; its groups are released and it is closed when the last of them is buried. */
static void on_job_gone(void *context, AgentJob *job, const char *why)
{
    Agent *agent = context;
    log_event(LOG_INFO, "job_gone", F_STR("job", job->name), F_STR("why", why));
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (actor->job == job) agent_process_kill(actor->process);
    loop_restart_timer(agent->sweep, 0); /* buries it outside of its own callbacks */
}

static void bury_jobs(Agent *agent)
{
    for (AgentJob **link = &agent->jobs; *link != NULL;) {
        AgentJob *job = *link;
        bool in_use = !job->gone;
        for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
            in_use = in_use || actor->job == job;
        if (in_use) {
            link = &job->next;
            continue;
        }
        *link = job->next;
        reservations_release_job(agent->reservations, job->serial);
        agent_job_close(job);
    }
}

static Status open_job(Agent *agent, const Troupe__AgentHelloRequest *hello, uint64_t controller,
                       Error *err)
{
    if (find_job(agent, controller) != NULL) return OK; /* a repeated message */
    for (AgentJob *job = agent->jobs; job != NULL; job = job->next)
        if (strcmp(job->endpoint, hello->controller_endpoint) == 0)
            agent_job_give_up(job, "another controller took its place");
    AgentJob *job = NULL;
    AgentJobOptions options = {.loop = agent->loop,
                               .self = &agent->identity,
                               .serial = ++agent->num_jobs,
                               .controller = controller,
                               .name = hello->job_name,
                               .endpoint = hello->controller_endpoint,
                               .on_gone = on_job_gone,
                               .context = agent};
    TRY(agent_job_open(&options, &job, err));
    job->next = agent->jobs;
    agent->jobs = job;
    return OK;
}

static void describe_node(const Agent *agent, Troupe__AgentHelloReply *ret,
                          Troupe__Resources *total, Troupe__Resources *room)
{
    fill_resources(total, reservations_total(agent->reservations));
    fill_resources(room, reservations_free(agent->reservations));
    troupe__agent_hello_reply__init(ret);
    ret->node = (char *)agent->identity.name;
    ret->pid = (uint32_t)getpid();
    ret->guard_pid = (uint32_t)agent_guard_pid(agent->guard);
    ret->total = total;
    ret->free = room;
    ret->version = TROUPE_VERSION;
    ret->no_gpu = (char *)agent->gpus.why_none;
    ret->host = agent->host;
}

static void on_hello(void *self, Call *call)
{
    Agent *agent = self;
    Bytes body = call_body(call);
    Troupe__AgentHelloRequest *hello =
        troupe__agent_hello_request__unpack(NULL, body.length, body.data);
    Error err;
    if (hello == NULL) {
        call_refuse_unreadable(call);
    } else if (open_job(agent, hello, call_sender_incarnation(call), &err) != OK) {
        call_fail(call, &err);
    } else {
        Troupe__AgentHelloReply reply;
        Troupe__Resources total, room;
        describe_node(agent, &reply, &total, &room);
        call_reply_message(call, &reply.base);
    }
    if (hello != NULL) troupe__agent_hello_request__free_unpacked(hello, NULL);
}

/* ---- groups ---- */

/* Who holds what, as messages that live until free_holders. */
static size_t list_holders(const Agent *agent, Troupe__Holder ***ret)
{
    int count = reservations_count(agent->reservations);
    Troupe__Holder **list = mem_calloc((size_t)count + 1, sizeof *list);
    for (int i = 0; i < count; i++) {
        HeldGroup group = reservations_group(agent->reservations, i);
        list[i] = mem_calloc(1, sizeof **list);
        troupe__holder__init(list[i]);
        list[i]->job_name = (char *)group.owner.job_name;
        list[i]->group = (char *)group.group;
        list[i]->held = mem_calloc(1, sizeof *list[i]->held);
        fill_resources(list[i]->held, group.held);
    }
    *ret = list;
    return (size_t)count;
}

static void free_holders(Troupe__Holder **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i]->held);
        free(list[i]);
    }
    free(list);
}

static void answer_prepare(Agent *agent, Call *call, bool granted)
{
    Troupe__PrepareReply reply = TROUPE__PREPARE_REPLY__INIT;
    Troupe__Resources room;
    fill_resources(&room, reservations_free(agent->reservations));
    reply.granted = granted;
    reply.free = &room;
    if (!granted) reply.n_holders = list_holders(agent, &reply.holders);
    call_reply_message(call, &reply.base);
    if (!granted) free_holders(reply.holders, reply.n_holders);
}

static Status prepare(Agent *agent, AgentJob *job, const Troupe__PrepareRequest *request,
                      bool *ret_granted, Error *err)
{
    if (request->n_bundles > BUNDLES_MAX)
        return error_set(err, ERR_INVALID, "%zu bundles, at most %d are possible",
                         request->n_bundles, BUNDLES_MAX);
    BundleSpec *bundle = mem_calloc(request->n_bundles + 1, sizeof *bundle);
    for (size_t i = 0; i < request->n_bundles; i++) {
        const Troupe__Resources *need = request->bundles[i]->need;
        bundle[i].index = (int)request->bundles[i]->index;
        bundle[i].gpu_of = (int)request->bundles[i]->gpu_of;
        if (need != NULL)
            bundle[i].need =
                (NodeResources){need->cpu, (int)need->gpu, (int64_t)need->memory_bytes};
    }
    Status status = reservations_prepare(
        agent->reservations, request->group, (ReservationOwner){job->serial, job->name}, bundle,
        (int)request->n_bundles, clock_ms() + request->lease_ms, ret_granted, err);
    free(bundle);
    return status;
}

static void on_prepare(void *self, Call *call)
{
    Agent *agent = self;
    Error err;
    bool granted = false;
    AgentJob *job = job_of_call(agent, call);
    if (job == NULL) return;
    Bytes body = call_body(call);
    Troupe__PrepareRequest *request = troupe__prepare_request__unpack(NULL, body.length, body.data);
    if (request == NULL)
        call_refuse_unreadable(call);
    else if (prepare(agent, job, request, &granted, &err) != OK)
        call_fail(call, &err);
    else
        answer_prepare(agent, call, granted);
    if (request != NULL) troupe__prepare_request__free_unpacked(request, NULL);
}

static void on_commit(void *self, Call *call)
{
    Agent *agent = self;
    Error err;
    AgentJob *job = job_of_call(agent, call);
    if (job == NULL) return;
    Bytes body = call_body(call);
    Troupe__GroupRequest *request = troupe__group_request__unpack(NULL, body.length, body.data);
    if (request == NULL)
        call_refuse_unreadable(call);
    else if (reservations_commit(agent->reservations, request->group, job->serial, &err) != OK)
        call_fail(call, &err);
    else
        call_reply_empty(call);
    if (request != NULL) troupe__group_request__free_unpacked(request, NULL);
}

static bool has_actors(const Agent *agent, const char *group, uint64_t job)
{
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (actor->job->serial == job && strcmp(actor->group, group) == 0) return true;
    return false;
}

/* Carries out the releases whose actors are dead. */
static void finish_releases(Agent *agent)
{
    for (Release **link = &agent->releases; *link != NULL;) {
        Release *release = *link;
        if (has_actors(agent, release->group, release->job)) {
            link = &release->next;
            continue;
        }
        *link = release->next;
        reservations_release(agent->reservations, release->group, release->job);
        call_reply_empty(release->call);
        free(release->group);
        free(release);
    }
}

static void on_release(void *self, Call *call)
{
    Agent *agent = self;
    AgentJob *job = job_of_call(agent, call);
    if (job == NULL) return;
    Bytes body = call_body(call);
    Troupe__GroupRequest *request = troupe__group_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    Release *release = mem_alloc(sizeof *release);
    *release = (Release){call, mem_strdup(request->group), job->serial, agent->releases};
    agent->releases = release;
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (actor->job == job && strcmp(actor->group, request->group) == 0)
            agent_process_kill(actor->process);
    finish_releases(agent);
    troupe__group_request__free_unpacked(request, NULL);
}

/* ---- deaths ---- */

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
    PackedMessage body = message_pack(&exited.base);
    agent_job_notify(actor->job, (Bytes){body.data, body.length});
    free(body.data);
}

static bool is_actor(const void *context, int pid)
{
    const Agent *agent = context;
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (agent_process_pid(actor->process) == pid) return true;
    return false;
}

static void kill_strays(Agent *agent)
{
    if (agent_kill_strays(is_actor, agent) > 0) loop_restart_timer(agent->sweep, SWEEP_SOON_MS);
}

static void forget_actor(AgentActor *actor)
{
    AgentActor **link = &actor->agent->actors;
    while (*link != actor)
        link = &(*link)->next;
    *link = actor->next;
    agent_guard_remove(actor->agent->guard, actor->guard_slot);
    agent_process_destroy(actor->process);
    free(actor->inbox);
    free(actor->group);
    free(actor->name);
    free(actor);
}

static void on_death(void *context, AgentProcess *process, const ProcessDeath *death)
{
    AgentActor *actor = context;
    Agent *agent = actor->agent;
    (void)process;
    log_event(LOG_INFO, "actor_exited", F_STR("actor", actor->name), F_INT("pid", death->pid),
              F_STR("reason", death->reason));
    if (actor->inbox != NULL) socket_remove_file(actor->inbox);
    tell_controller(actor, death);
    forget_actor(actor);
    kill_strays(agent);
    finish_releases(agent);
    bury_jobs(agent);
    if (agent->stopping && agent->actors == NULL) loop_stop(agent->loop);
}

/* ---- actors ---- */

static AgentActor *find_actor(const Agent *agent, const AgentJob *job, const char *name,
                              uint64_t incarnation)
{
    for (AgentActor *actor = agent->actors; actor != NULL; actor = actor->next)
        if (actor->job == job && actor->incarnation == incarnation &&
            strcmp(actor->name, name) == 0)
            return actor;
    return NULL;
}

/* The endpoint that an actor is told to bind, or NULL. */
static const char *find_inbox(const Troupe__SpawnRequest *request)
{
    for (size_t i = 0; i + 1 < request->n_argument; i++)
        if (strcmp(request->argument[i], "--inbox") == 0) return request->argument[i + 1];
    return NULL;
}

/* Only programs of Troupe's own folder, by plain name. */
static Status find_program(const Agent *agent, const char *name, char **ret, Error *err)
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

/* What CUDA shall see of the GPUs, in `ret_ids`, and the CPUs near any of them. */
static void describe_gpus(const Agent *agent, const BundleGpus *gpus, Str *ret_ids,
                          cpu_set_t *ret_cpus)
{
    CPU_ZERO(ret_cpus);
    for (int i = 0; i < gpus->count; i++) {
        const Gpu *gpu = &agent->gpus.gpu[gpus->gpu[i]];
        str_printf(ret_ids, "%s%s", i > 0 ? "," : "", gpu->id);
        CPU_OR(ret_cpus, ret_cpus, &gpu->cpus);
    }
}

static Status start_process(AgentActor *actor, const Troupe__SpawnRequest *request,
                            const BundleGpus *gpus, Error *err)
{
    char *program = NULL;
    Str ids = {0};
    cpu_set_t cpus;
    TRY(find_program(actor->agent, request->executable, &program, err));
    describe_gpus(actor->agent, gpus, &ids, &cpus);
    ProcessOrder order = {
        .loop = actor->agent->loop,
        .program = program,
        .argument = (const char *const *)request->argument,
        .num_arguments = (int)request->n_argument,
        .visible_gpus = gpus->count > 0 ? str_text(&ids) : NULL,
        .cpus = &cpus,
        .log_path = request->log_path,
        .on_death = on_death,
        .context = actor,
    };
    Status status = agent_process_spawn(&order, &actor->process, err);
    if (status == OK && gpus->count > 0)
        log_event(LOG_INFO, "gpu", F_STR("actor", request->actor), F_STR("id", str_text(&ids)),
                  F_INT("cpus_near", CPU_COUNT(&cpus)));
    str_free(&ids);
    free(program);
    return status;
}

static Status spawn_actor(Agent *agent, AgentJob *job, const Troupe__SpawnRequest *request,
                          int *ret_pid, Error *err)
{
    AgentActor *known = find_actor(agent, job, request->actor, request->incarnation);
    if (known != NULL) { /* a repeated message */
        *ret_pid = agent_process_pid(known->process);
        return OK;
    }
    BundleGpus gpus;
    TRY(reservations_find(agent->reservations, request->group, job->serial, (int)request->bundle,
                          &gpus, err));
    AgentActor *actor = mem_calloc(1, sizeof *actor);
    actor->agent = agent;
    Status status = start_process(actor, request, &gpus, err);
    if (status != OK) {
        free(actor);
        return status;
    }
    const char *inbox = find_inbox(request);
    actor->guard_slot = inbox != NULL ? agent_guard_add(agent->guard, inbox) : -1;
    actor->inbox = mem_strdup(inbox);
    actor->job = job;
    actor->name = mem_strdup(request->actor);
    actor->group = mem_strdup(request->group);
    actor->incarnation = request->incarnation;
    actor->next = agent->actors;
    agent->actors = actor;
    *ret_pid = agent_process_pid(actor->process);
    return OK;
}

static void on_spawn(void *self, Call *call)
{
    Agent *agent = self;
    Error err;
    int pid = 0;
    AgentJob *job = job_of_call(agent, call);
    if (job == NULL) return;
    Bytes body = call_body(call);
    Troupe__SpawnRequest *request = troupe__spawn_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else if (agent->stopping) {
        call_failf(call, ERR_UNAVAILABLE, "the agent is stopping");
    } else if (spawn_actor(agent, job, request, &pid, &err) != OK) {
        call_fail(call, &err);
    } else {
        Troupe__SpawnReply reply = TROUPE__SPAWN_REPLY__INIT;
        reply.pid = (uint32_t)pid;
        call_reply_message(call, &reply.base);
    }
    if (request != NULL) troupe__spawn_request__free_unpacked(request, NULL);
}

static void on_kill(void *self, Call *call)
{
    Agent *agent = self;
    AgentJob *job = job_of_call(agent, call);
    if (job == NULL) return;
    Bytes body = call_body(call);
    Troupe__KillRequest *request = troupe__kill_request__unpack(NULL, body.length, body.data);
    AgentActor *actor =
        request != NULL ? find_actor(agent, job, request->actor, request->incarnation) : NULL;
    if (request == NULL) {
        call_refuse_unreadable(call);
    } else if (actor == NULL) {
        call_failf(call, ERR_NOT_FOUND, "there is no process of actor %s with that incarnation",
                   request->actor);
    } else {
        agent_process_kill(actor->process);
        call_reply_empty(call);
    }
    if (request != NULL) troupe__kill_request__free_unpacked(request, NULL);
}

static const ActorMethod methods[] = {
    {"agent.hello", on_hello},     {"agent.prepare", on_prepare}, {"agent.commit", on_commit},
    {"agent.release", on_release}, {"agent.spawn", on_spawn},     {"agent.kill", on_kill},
};

/* ---- life ---- */

static void on_sweep(void *argument)
{
    Agent *agent = argument;
    loop_restart_timer(agent->sweep, SWEEP_MS);
    reservations_expire(agent->reservations, clock_ms());
    kill_strays(agent);
    bury_jobs(agent);
}

static void on_child_signal(void *argument, int signal_number)
{
    (void)signal_number;
    kill_strays(argument);
}

static void on_stop_signal(void *argument, int signal_number)
{
    Agent *agent = argument;
    log_event(LOG_INFO, "agent_stopping", F_INT("signal", signal_number));
    agent->stopping = true;
    for (AgentJob *job = agent->jobs; job != NULL; job = job->next)
        agent_job_give_up(job, "the agent was told to stop");
    if (agent->actors == NULL) loop_stop(agent->loop);
}

typedef struct AgentOptions {
    const char *endpoint, *name, *host;
    NodeResources total; /* gpu: known when they have been looked for */
    int gpus;            /* to give; 0: none is looked for; -1: all that there are */
    pid_t controller;    /* of an embedded agent; 0: a daemon */
} AgentOptions;

static Status parse_amount(const char *option, double max, double *ret, Error *err)
{
    char *end = NULL;
    double value = strtod(optarg, &end);
    if (end == optarg || *end != '\0' || !(value > 0 && value <= max))
        return error_set(err, ERR_INVALID, "%s %s: expected a number above 0, at most %g", option,
                         optarg, max);
    *ret = value;
    return OK;
}

static Status parse_option(int option, AgentOptions *ret, Error *err)
{
    double amount = 0;
    uint64_t gpus = 0;
    switch (option) {
    case 'e':
        ret->endpoint = optarg;
        return OK;
    case 'c':
        return parse_amount("--cpus", 1e6, &ret->total.cpu, err);
    case 'm':
        TRY(parse_amount("--memory", 1e18, &amount, err));
        ret->total.memory_bytes = (int64_t)amount;
        return OK;
    case 'g':
        TRY(option_number("--gpus", optarg, NODE_GPUS_MAX, &gpus, err));
        ret->gpus = (int)gpus;
        return OK;
    case 'n':
        ret->name = optarg;
        return OK;
    case 'o':
        ret->host = optarg;
        return OK;
    case 'x':
        TRY(parse_amount("--embedded", INT32_MAX, &amount, err));
        ret->controller = (pid_t)amount;
        return OK;
    default:
        fputs(usage, stdout);
        exit(0);
    }
}

/* Whoever can call an agent runs programs as its user. Until there are keys, that is told by the
 * file system alone: a socket in a folder of the user's own. */
static Status check_endpoint(const char *endpoint, Error *err)
{
    struct stat info;
    if (!str_starts_with(endpoint, "ipc:///"))
        return error_set(err, ERR_UNSUPPORTED,
                         "--endpoint %s: an agent serves only jobs of its own machine and user so "
                         "far, because there are no keys yet.\nExpected ipc:///PATH.",
                         endpoint);
    char *folder = path_folder(endpoint + strlen("ipc://"));
    Status status = OK;
    if (stat(folder, &info) == 0 && (info.st_uid != geteuid() || (info.st_mode & 077) != 0))
        status =
            error_set(err, ERR_INVALID,
                      "--endpoint %s: others may enter the folder %s (mode %04o), and whoever "
                      "reaches an agent runs programs as its user.\n"
                      "Expected a folder of your own with mode 0700: chmod 700 it, or name one "
                      "that does not exist yet.",
                      endpoint, folder, (unsigned)info.st_mode & 07777);
    free(folder);
    return status;
}

static Status parse_options(int argc, char **argv, AgentOptions *ret, Error *err)
{
    static const struct option names[] = {
        {"endpoint", required_argument, NULL, 'e'},
        {"cpus", required_argument, NULL, 'c'},
        {"gpus", required_argument, NULL, 'g'},
        {"memory", required_argument, NULL, 'm'},
        {"name", required_argument, NULL, 'n'},
        {"embedded", required_argument, NULL, 'x'},
        {"host", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    ret->total.cpu = (double)sysconf(_SC_NPROCESSORS_ONLN);
    ret->gpus = -1;
    ret->total.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", names, NULL)) != -1;) {
        if (option == '?' || option == ':') return option_refuse(option, argv, names, usage, err);
        TRY(parse_option(option, ret, err));
    }
    if (optind < argc)
        return error_set(err, ERR_INVALID, "unexpected argument \"%s\"\n%s", argv[optind], usage);
    if (ret->endpoint == NULL)
        return error_set(err, ERR_INVALID, "--endpoint is missing\n%s", usage);
    return check_endpoint(ret->endpoint, err);
}

static Status make_identity(const AgentOptions *options, ActorIdentity *ret, Error *err)
{
    *ret = (ActorIdentity){0};
    if (options->name != NULL)
        snprintf(ret->name, sizeof ret->name, "%s", options->name);
    else if (gethostname(ret->name, sizeof ret->name - 1) != 0)
        return error_set_errno(err, errno, "could not learn this machine's name");
    if (getrandom(&ret->incarnation, sizeof ret->incarnation, 0) < 0)
        return error_set_errno(err, errno, "could not draw a random number");
    return OK;
}

/* An agent of the same controller that was killed a moment ago may still hold the name. */
static Status bind_inbox(Agent *agent, const char *endpoint, int64_t patience_ms, Error *err)
{
    ActorOptions actor = {.identity = agent->identity,
                          .endpoint = endpoint,
                          .methods = methods,
                          .num_methods = sizeof methods / sizeof *methods,
                          .self = agent};
    int64_t end_ms = clock_ms() + patience_ms;
    for (;;) {
        Status status = actor_create(agent->loop, &actor, &agent->inbox, err);
        if (status != ERR_EXISTS || clock_ms() >= end_ms) return status;
        usleep(20000);
    }
}

static Status look_for_gpus(Agent *agent, AgentOptions *options, Error *err)
{
    GpuInventory *gpus = &agent->gpus;
    int asked = options->gpus;
    if (asked != 0)
        gpu_inventory_read(gpus);
    else
        snprintf(gpus->why_none, sizeof gpus->why_none, "--gpus is 0");
    options->total.gpu = asked < 0 ? gpus->count : asked;
    if (asked <= gpus->count) return OK;
    if (gpus->count == 0)
        return error_set(err, ERR_RESOURCE,
                         "--gpus %d: no GPU is there to give (%s).\nMend that, or leave --gpus "
                         "out.",
                         asked, gpus->why_none);
    return error_set(err, ERR_RESOURCE,
                     "--gpus %d: %d GPU%s there to give, of those that CUDA_VISIBLE_DEVICES lets "
                     "it have.\nGive --gpus %d, or leave it out.",
                     asked, gpus->count, gpus->count == 1 ? " is" : "s are", gpus->count);
}

static Status agent_open(Agent *agent, AgentOptions *options, Error *err)
{
    char self[4096];
    size_t size = sizeof self;
    if (uv_exepath(self, &size) != 0)
        return error_set(err, ERR_IO, "could not find this program's folder");
    agent->program_folder = path_folder(self);
    agent->host = options->host != NULL ? mem_strdup(options->host) : process_host();
    TRY(look_for_gpus(agent, options, err));
    agent->reservations = reservations_create(&options->total);
    TRY(make_identity(options, &agent->identity, err));
    TRY(loop_create(&agent->loop, err));
    agent->sweep = loop_make_timer(agent->loop, on_sweep, agent);
    TRY(bind_inbox(agent, options->endpoint, options->controller != 0 ? TAKE_OVER_MS : 0, err));
    agent_guard_add(agent->guard, actor_endpoint(agent->inbox));
    TRY(loop_add_signal(agent->loop, SIGTERM, on_stop_signal, agent, err));
    TRY(loop_add_signal(agent->loop, SIGINT, on_stop_signal, agent, err));
    TRY(loop_add_signal(agent->loop, SIGCHLD, on_child_signal, agent, err));
    loop_restart_timer(agent->sweep, SWEEP_MS);
    return OK;
}

static void agent_close(Agent *agent)
{
    for (Release *release = agent->releases; release != NULL;) {
        Release *next = release->next;
        call_failf(release->call, ERR_UNAVAILABLE, "the agent is stopping");
        free(release->group);
        free(release);
        release = next;
    }
    if (agent->reservations != NULL) {
        bury_jobs(agent);
        NodeResources total = reservations_total(agent->reservations);
        NodeResources room = reservations_free(agent->reservations);
        CHECK(agent->jobs != NULL || (room.cpu == total.cpu && room.gpu == total.gpu &&
                                      room.memory_bytes == total.memory_bytes));
    }
    actor_destroy(agent->inbox);
    loop_destroy(agent->loop);
    reservations_destroy(agent->reservations);
    free(agent->program_folder);
    free(agent->host);
}

int main(int argc, char **argv)
{
    Agent agent = {0};
    AgentOptions options = {0};
    Error err = {0};
    Status status = parse_options(argc, argv, &options, &err);
    if (status == OK) status = agent_guard_start(options.controller, &agent.guard, &err);
    if (status == OK) status = log_open("node_agent", NULL, LOG_INFO, &err);
    signal(SIGPIPE, SIG_IGN);
    process_let_threads_sleep(); /* those of the actors, which share the machine */
    if (status == OK) status = agent_open(&agent, &options, &err);
    if (status == OK) {
        log_event(LOG_INFO, "agent_up", F_STR("node", agent.identity.name),
                  F_STR("endpoint", actor_endpoint(agent.inbox)), F_REAL("cpus", options.total.cpu),
                  F_INT("gpus", options.total.gpu));
        loop_run(agent.loop);
    } else {
        fprintf(stderr, "node_agent: %s\n", err.message);
    }
    agent_close(&agent);
    return status_exit_code(status);
}
