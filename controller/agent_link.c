#include "agent_link.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor/typed.h"
#include "agent/guard.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/process.h"
#include "cluster.pb-c.h"

#define HELLO_TIMEOUT_MS 5000
#define GROUP_TIMEOUT_MS 5000
#define SPAWN_TIMEOUT_MS 10000
#define KILL_TIMEOUT_MS  5000
#define PREPARE_LEASE_MS 10000
#define REDIAL_MS        1000
#define ORPHAN_MS        2000 /* that an agent has to end behind its guard */
#define ORPHAN_LOOK_MS   20

struct AgentLink {
    AgentLinkOptions options;
    char *endpoint, *log_path;
    Handle *handle;
    uv_process_t process;
    bool running;         /* the embedded agent's guard, which is the process that was started */
    pid_t agent_pid;      /* of the embedded agent, once it said hello ... */
    uint64_t agent_ticks; /* ... and when that process started; 0: it did not */
    int64_t orphan_ms;    /* until which it may end by itself behind a guard that was killed; 0 */
    bool closing;
    bool told_lost; /* since the last start */
    LoopTimer *redial, *look;
};

static void dial(AgentLink *link);

static void feed(AgentLink *link, Event *event)
{
    event->node = link->options.node;
    link->options.feed(link->options.context, event);
}

static void tell_lost(AgentLink *link, const char *why)
{
    if (link->told_lost || link->closing) return;
    link->told_lost = true;
    feed(link, &(Event){.kind = EV_AGENT_LOST, .status = ERR_UNAVAILABLE, .message = why});
    if (link->handle != NULL) handle_fail(link->handle, why);
}

/* ---- the embedded agent's process ---- */

static void on_closed(uv_handle_t *handle)
{
    AgentLink *link = handle->data;
    link->running = false;
}

static void describe_end(const AgentLink *link, int exit_code, int signal_number, char *why,
                         size_t size)
{
    int agent_signal = exit_code > AGENT_KILLED_CODE ? exit_code - AGENT_KILLED_CODE : 0;
    char pid[32] = "";
    if (link->agent_ticks != 0) snprintf(pid, sizeof pid, " (pid %d)", (int)link->agent_pid);
    if (signal_number != 0)
        snprintf(why, size,
                 "the guard of the node agent (agent_guard, pid %d) was killed by signal %d (%s), "
                 "and the agent%s ends with it",
                 (int)uv_process_get_pid(&link->process), signal_number, strsignal(signal_number),
                 pid);
    else if (agent_signal != 0)
        snprintf(why, size, "the node agent%s was killed by signal %d (%s)", pid, agent_signal,
                 strsignal(agent_signal));
    else
        snprintf(why, size, "the node agent exited with code %d; see %s", exit_code,
                 link->log_path);
}

static void on_process_exit(uv_process_t *process, int64_t exit_code, int signal_number)
{
    AgentLink *link = process->data;
    char why[256];
    describe_end(link, (int)exit_code, signal_number, why, sizeof why);
    uv_close((uv_handle_t *)process, on_closed);
    tell_lost(link, why);
}

static int spawn_process(AgentLink *link, int log_fd)
{
    char cpus[32], self[16];
    snprintf(cpus, sizeof cpus, "%g", link->options.cpus);
    snprintf(self, sizeof self, "%d", (int)getpid());
    char *program = program_path("node_agent");
    char *arguments[] = {program,  "--endpoint", link->endpoint, "--embedded", self,
                         "--cpus", cpus,         "--gpus",       "0",          NULL};
    if (link->options.gpus) arguments[7] = NULL; /* all */
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = log_fd},
        {.flags = UV_INHERIT_FD, .data.fd = log_fd},
    };
    uv_process_options_t options = {
        .exit_cb = on_process_exit,
        .file = program,
        .args = arguments,
        .flags = UV_PROCESS_DETACHED, /* a Ctrl-C at the terminal is for the controller alone */
        .stdio_count = 3,
        .stdio = stdio,
    };
    link->process = (uv_process_t){.data = link};
    int failed = uv_spawn(loop_uv(link->options.loop), &link->process, &options);
    link->process.data = link;
    free(program);
    return failed;
}

static Status start_process(AgentLink *link, Error *err)
{
    FILE *log = fopen(link->log_path, "ae");
    if (log == NULL) return error_set_errno(err, errno, "could not open %s", link->log_path);
    int failed = spawn_process(link, fileno(log));
    fclose(log);
    link->running = failed == 0;
    if (failed == 0) return OK;
    uv_close((uv_handle_t *)&link->process, NULL);
    return error_set(err, ERR_UNAVAILABLE, "could not start the node agent: %s",
                     uv_strerror(failed));
}

/* ---- hello ---- */

static void redial_now(void *argument)
{
    AgentLink *link = argument;
    loop_remove_timer(link->redial);
    link->redial = NULL;
    dial(link);
}

static void redial_later(AgentLink *link)
{
    if (link->redial == NULL)
        link->redial = loop_add_timer(link->options.loop, REDIAL_MS, 0, redial_now, link);
}

static NodeResources unpack_resources(const Troupe__Resources *resources)
{
    if (resources == NULL) return (NodeResources){0};
    return (NodeResources){resources->cpu, (int)resources->gpu, (int64_t)resources->memory_bytes};
}

static void on_hello_reply(void *argument, const Reply *reply)
{
    AgentLink *link = argument;
    if (link->closing || reply->status == ERR_CANCELLED) return;
    Troupe__AgentHelloReply *hello = NULL;
    if (reply->status == OK)
        hello = troupe__agent_hello_reply__unpack(NULL, reply->body.length, reply->body.data);
    bool embedded = link->options.embedded;
    if (hello == NULL) {
        if (embedded)
            tell_lost(link,
                      reply->error != NULL ? reply->error->message : "its hello is unreadable");
        else
            redial_later(link);
        return;
    }
    /* An agent that is on its way out may still hold the name. */
    if (embedded && (int)hello->guard_pid != uv_process_get_pid(&link->process)) {
        troupe__agent_hello_reply__free_unpacked(hello, NULL);
        redial_later(link);
        return;
    }
    Event event = {.kind = EV_AGENT_UP};
    event.agent.name = hello->node;
    event.agent.pid = (int)hello->pid;
    event.agent.guard_pid = (int)hello->guard_pid;
    link->agent_pid = (pid_t)hello->pid;
    if (!embedded || !process_start_ticks(link->agent_pid, &link->agent_ticks))
        link->agent_ticks = 0;
    event.agent.total = unpack_resources(hello->total);
    event.agent.free = unpack_resources(hello->free);
    event.agent.no_gpu = hello->no_gpu;
    event.agent.host = hello->host;
    feed(link, &event);
    troupe__agent_hello_reply__free_unpacked(hello, NULL);
}

/* A call that could not even be sent: its callback runs later all the same, never from within the
 * caller. */
typedef struct FailedCall {
    ReplyCallback callback;
    void *argument;
    Error error;
} FailedCall;

static void fail_later(void *argument)
{
    FailedCall *failed = argument;
    failed->callback(failed->argument,
                     &(Reply){.status = failed->error.status, .error = &failed->error});
    free(failed);
}

static void call_agent(AgentLink *link, const char *method, const ProtobufCMessage *message,
                       int timeout_ms, ReplyCallback callback, void *argument)
{
    Error err = {0};
    Status status;
    if (link->handle == NULL)
        status = error_set(&err, ERR_UNAVAILABLE, "there is no line to the node agent");
    else
        status = handle_call_message(link->handle, &(MessageCall){method, message, timeout_ms},
                                     callback, argument, &err);
    if (status != OK) {
        FailedCall *failed = mem_alloc(sizeof *failed);
        *failed = (FailedCall){callback, argument, err};
        loop_post(link->options.loop, fail_later, failed);
    }
}

static void on_connection(void *argument, bool connected)
{
    AgentLink *link = argument;
    if (!connected && !link->options.embedded)
        tell_lost(link, "the connection to the node agent broke");
}

static void dial(AgentLink *link)
{
    Error err = {0};
    handle_close(link->handle);
    link->handle = NULL;
    if (handle_open(link->options.loop, link->options.self, "node_agent", link->endpoint,
                    &link->handle, &err) != OK) {
        tell_lost(link, err.message);
        return;
    }
    handle_watch(link->handle, on_connection, link);
    Troupe__AgentHelloRequest request = TROUPE__AGENT_HELLO_REQUEST__INIT;
    request.job_name = (char *)link->options.job_name;
    request.controller_endpoint = (char *)link->options.controller_endpoint;
    request.run_dir = (char *)link->options.run_dir;
    call_agent(link, "agent.hello", &request.base, HELLO_TIMEOUT_MS, on_hello_reply, link);
}

/* When the guard of the embedded agent is killed, the agent ends some moments after it, and it
 * still answers meanwhile, holds the name and has actors on their way out: nothing starts before it
 * is gone. One that does not end by itself is killed. */
static bool orphan_lives(AgentLink *link)
{
    if (link->running || link->agent_ticks == 0) return false;
    bool lives = process_is_alive(link->agent_pid, link->agent_ticks);
    if (lives && link->orphan_ms == 0) link->orphan_ms = clock_ms() + ORPHAN_MS;
    if (lives && clock_ms() >= link->orphan_ms) kill(link->agent_pid, SIGKILL);
    if (!lives) link->orphan_ms = 0;
    return lives;
}

static void start_now(void *argument)
{
    AgentLink *link = argument;
    Error err = {0};
    if (link->closing) return;
    if (orphan_lives(link)) {
        loop_restart_timer(link->look, ORPHAN_LOOK_MS);
        return;
    }
    link->told_lost = false;
    link->agent_ticks = 0;
    if (link->options.embedded && !link->running && start_process(link, &err) != OK) {
        tell_lost(link, err.message);
        return;
    }
    dial(link);
}

void agent_link_start(AgentLink *link)
{
    loop_post(link->options.loop, start_now,
              link); /* after the effect: starting may fail at once */
}

/* ---- groups ---- */

typedef struct GroupAsk {
    AgentLink *link;
    GroupCall call;
    uint64_t group;
} GroupAsk;

static void describe_holders(const Troupe__PrepareReply *reply, char *text, size_t size)
{
    int used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < reply->n_holders && used < (int)size; i++) {
        const Troupe__Holder *holder = reply->holders[i];
        const NodeResources held = unpack_resources(holder->held);
        char gpus[32] = "";
        if (held.gpu > 0) snprintf(gpus, sizeof gpus, ", %d GPU%s", held.gpu, plural(held.gpu));
        used +=
            snprintf(text + used, size - (size_t)used, "%sjob %s (%g CPU%s%s)", i > 0 ? ", " : "",
                     holder->job_name, held.cpu, held.cpu == 1 ? "" : "s", gpus);
    }
}

static void on_group_reply(void *argument, const Reply *reply)
{
    GroupAsk *ask = argument;
    char holders[512] = "";
    Event event = {.kind = EV_GROUP_REPLY, .status = reply->status};
    event.message = reply->error != NULL ? reply->error->message : NULL;
    event.group.call = ask->call;
    event.group.group = ask->group;
    Troupe__PrepareReply *prepared = NULL;
    if (reply->status == OK && ask->call == GROUP_PREPARE)
        prepared = troupe__prepare_reply__unpack(NULL, reply->body.length, reply->body.data);
    if (prepared != NULL) {
        describe_holders(prepared, holders, sizeof holders);
        event.group.granted = prepared->granted;
        event.group.free = unpack_resources(prepared->free);
    }
    event.group.holders = holders;
    if (!ask->link->closing) feed(ask->link, &event);
    if (prepared != NULL) troupe__prepare_reply__free_unpacked(prepared, NULL);
    free(ask);
}

static void prepare(AgentLink *link, const Effect *effect, char *group, GroupAsk *ask)
{
    int count = effect->group.num_bundles;
    Troupe__PrepareRequest request = TROUPE__PREPARE_REQUEST__INIT;
    Troupe__Bundle *bundle = mem_calloc((size_t)count, sizeof *bundle);
    Troupe__Resources *need = mem_calloc((size_t)count, sizeof *need);
    Troupe__Bundle **list = mem_calloc((size_t)count, sizeof *list);
    for (int i = 0; i < count; i++) {
        troupe__bundle__init(&bundle[i]);
        troupe__resources__init(&need[i]);
        need[i].cpu = effect->group.bundle[i].need.cpu;
        need[i].gpu = (uint32_t)effect->group.bundle[i].need.gpu;
        need[i].memory_bytes = (uint64_t)effect->group.bundle[i].need.memory_bytes;
        bundle[i].index = (uint32_t)effect->group.bundle[i].index;
        bundle[i].need = &need[i];
        bundle[i].gpu_of = (uint32_t)effect->group.bundle[i].gpu_of;
        list[i] = &bundle[i];
    }
    request.group = group;
    request.job_name = (char *)link->options.job_name;
    request.n_bundles = (size_t)count;
    request.bundles = list;
    request.lease_ms = PREPARE_LEASE_MS;
    call_agent(link, "agent.prepare", &request.base, GROUP_TIMEOUT_MS, on_group_reply, ask);
    free(list);
    free(need);
    free(bundle);
}

static char *group_name(const AgentLink *link, uint64_t group)
{
    return mem_printf("%016llx-%llu", (unsigned long long)link->options.self->incarnation,
                      (unsigned long long)group);
}

void agent_link_group(AgentLink *link, const Effect *effect)
{
    GroupAsk *ask = mem_calloc(1, sizeof *ask);
    *ask = (GroupAsk){link, effect->group.call, effect->group.group};
    char *group = group_name(link, effect->group.group);
    if (effect->group.call == GROUP_PREPARE) {
        prepare(link, effect, group, ask);
    } else {
        Troupe__GroupRequest request = TROUPE__GROUP_REQUEST__INIT;
        request.group = group;
        call_agent(link, effect->group.call == GROUP_COMMIT ? "agent.commit" : "agent.release",
                   &request.base, GROUP_TIMEOUT_MS, on_group_reply, ask);
    }
    free(group);
}

/* ---- actors ---- */

typedef struct ActorAsk {
    AgentLink *link;
    int actor;
    uint64_t incarnation;
} ActorAsk;

static void on_spawn_reply(void *argument, const Reply *reply)
{
    ActorAsk *ask = argument;
    Event event = {.kind = EV_SPAWN_REPLY,
                   .actor = ask->actor,
                   .incarnation = ask->incarnation,
                   .status = reply->status};
    event.message = reply->error != NULL ? reply->error->message : NULL;
    Troupe__SpawnReply *spawned = NULL;
    if (reply->status == OK)
        spawned = troupe__spawn_reply__unpack(NULL, reply->body.length, reply->body.data);
    if (spawned != NULL) {
        event.hello.pid = (int)spawned->pid;
        troupe__spawn_reply__free_unpacked(spawned, NULL);
    }
    if (!ask->link->closing) feed(ask->link, &event);
    free(ask);
}

void agent_link_spawn(AgentLink *link, const SpawnOrder *order)
{
    ActorAsk *ask = mem_calloc(1, sizeof *ask);
    *ask = (ActorAsk){link, order->actor, order->incarnation};
    char *group = group_name(link, order->group);
    Troupe__SpawnRequest request = TROUPE__SPAWN_REQUEST__INIT;
    request.actor = (char *)order->name;
    request.incarnation = order->incarnation;
    request.group = group;
    request.bundle = (uint32_t)order->bundle;
    request.executable = (char *)order->executable;
    request.n_argument = (size_t)order->num_arguments;
    request.argument = (char **)order->argument;
    request.log_path = (char *)order->log_path;
    call_agent(link, "agent.spawn", &request.base, SPAWN_TIMEOUT_MS, on_spawn_reply, ask);
    free(group);
}

/* A process that the agent does not know (any more) is gone: its death notice may have been for a
 * controller before us. */
static void on_kill_reply(void *argument, const Reply *reply)
{
    ActorAsk *ask = argument;
    if (reply->status == ERR_NOT_FOUND && !ask->link->closing)
        feed(ask->link, &(Event){.kind = EV_ACTOR_EXITED,
                                 .actor = ask->actor,
                                 .incarnation = ask->incarnation,
                                 .message = "its agent does not know it any more"});
    free(ask);
}

void agent_link_kill(AgentLink *link, const char *name, int actor, uint64_t incarnation)
{
    ActorAsk *ask = mem_calloc(1, sizeof *ask);
    *ask = (ActorAsk){link, actor, incarnation};
    Troupe__KillRequest request = TROUPE__KILL_REQUEST__INIT;
    request.actor = (char *)name;
    request.incarnation = incarnation;
    call_agent(link, "agent.kill", &request.base, KILL_TIMEOUT_MS, on_kill_reply, ask);
}

/* ---- life ---- */

AgentLink *agent_link_create(const AgentLinkOptions *options)
{
    AgentLink *link = mem_calloc(1, sizeof *link);
    link->options = *options;
    link->endpoint = mem_strdup(options->endpoint);
    link->log_path = mem_strdup(options->log_path);
    link->look = loop_make_timer(options->loop, start_now, link);
    return link;
}

void agent_link_destroy(AgentLink *link)
{
    if (link == NULL) return;
    link->closing = true;
    loop_remove_timer(link->redial);
    loop_remove_timer(link->look);
    handle_close(link->handle);
    if (link->running) {
        uv_process_kill(&link->process, SIGTERM);
        int64_t patience_ms = 2000;
        while (link->running && patience_ms > 0) {
            uv_run(loop_uv(link->options.loop), UV_RUN_NOWAIT);
            usleep(1000);
            patience_ms--;
        }
        if (link->running) {
            uv_process_kill(&link->process, SIGKILL);
            while (link->running)
                uv_run(loop_uv(link->options.loop), UV_RUN_ONCE);
        }
    }
    for (int64_t end_ms = clock_ms() + 2 * ORPHAN_MS; orphan_lives(link) && clock_ms() < end_ms;)
        usleep(1000);
    free(link->endpoint);
    free(link->log_path);
    free(link);
}
