#include "shell.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "actor/typed.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/rng.h"
#include "base/size_text.h"
#include "base/version.h"
#include "cluster.pb-c.h"
#include "config/stage_list.h"
#include "disk_room.h"
#include "local_node.h"
#include "resume.h"
#include "view/skipped.h"
#include "view/status.h"

#define TICK_MS 100

/* ---- effects ---- */

static const char *const executables[ROLE_COUNT] = {
    [ROLE_DATA_SOURCE] = "data_source",
    [ROLE_ROLLOUT] = "rollout_worker",
    [ROLE_TRAIN] = "train_worker",
};

/* What every actor executable is told (actor_process.h). */
static void spawn_actor(Shell *shell, const Effect *fx)
{
    ActorView view = controller_actor(shell->controller, fx->actor);
    char incarnation[24], generation[16], job[24], inbox[ENDPOINT_MAX];
    snprintf(incarnation, sizeof incarnation, "%llu", (unsigned long long)fx->incarnation);
    snprintf(generation, sizeof generation, "%u", controller_generation(shell->controller));
    snprintf(job, sizeof job, "%llu", (unsigned long long)shell->identity.job);
    snprintf(inbox, sizeof inbox, "ipc://%s/%s.%08x", shell->folder->sockets, view.name,
             (unsigned)(fx->incarnation & 0xFFFFFFFF));
    const char *arguments[] = {
        "--actor",       view.name,
        "--incarnation", incarnation,
        "--generation",  generation,
        "--job",         job,
        "--controller",  actor_endpoint(shell->inbox),
        "--inbox",       inbox,
    };
    char *log_name = mem_printf("%s.log", view.name);
    char *log_path = path_join(shell->folder->logs, log_name);
    agent_link_spawn(shell->agent[fx->node],
                     &(SpawnOrder){.actor = fx->actor,
                                   .incarnation = fx->incarnation,
                                   .group = fx->spawn.group,
                                   .bundle = fx->spawn.bundle,
                                   .name = view.name,
                                   .executable = executables[view.role],
                                   .log_path = log_path,
                                   .argument = arguments,
                                   .num_arguments = sizeof arguments / sizeof *arguments});
    free(log_path);
    free(log_name);
}

static void report_actor(Shell *shell, const Effect *fx)
{
    ActorView view = controller_actor(shell->controller, fx->actor);
    bool trouble =
        strcmp(fx->report.state, "suspect") == 0 || strcmp(fx->report.state, "restarting") == 0;
    const LogField field[] = {F_STR("name", view.name), F_STR("state", fx->report.state),
                              F_STR("reason", fx->report.reason), F_INT("pid", view.pid)};
    log_write(trouble ? LOG_WARN : LOG_DEBUG, "actor", field, view.pid > 0 ? 4 : 3);
}

static double peak_flops(const Shell *shell)
{
    double sum = 0;
    for (int i = 0; i < controller_num_actors(shell->controller); i++)
        sum += shell->peak_flops[i];
    return sum;
}

static void say_best(const Shell *shell, const JobView *job)
{
    char value[32];
    if (job->best.step == 0) return;
    snprintf(value, sizeof value, "%.6g", job->best.value);
    char *path = run_folder_checkpoint(shell->folder, job->best.step);
    log_event(LOG_INFO, "best", F_INT("step", job->best.step),
              F_STR(shell->config->eval.best_metric, value), F_STR("model", path));
    free(path);
}

static void say_how_to_try(const char *model)
{
    char *program = program_path("controller");
    char *command = mem_printf("%s serve --model %s", program, model);
    log_event(LOG_INFO, "try_it", F_STR("command", command));
    free(command);
    free(program);
}

/* For who asks when nobody is there to answer. */
static void leave_status(const Shell *shell)
{
    Error err = {0};
    ReportView last = reporter_view(shell->reporter);
    char *json = status_json(shell->config, shell->controller, &last, clock_ms());
    if (file_write_atomic(shell->folder->status, json, strlen(json), &err) != OK)
        log_event(LOG_WARN, "status_not_kept", F_STR("why", err.message));
    free(json);
}

/* The run is over. What went well is said here, a failure by whoever asked for the run. */
static void end(Shell *shell, const Effect *fx, const JobView *job)
{
    shell->exit_status = fx->exit.status;
    snprintf(shell->exit_message, sizeof shell->exit_message, "%s", fx->exit.message);
    if (fx->exit.status == OK && fx->exit.message[0] != '\0')
        log_event(LOG_WARN, "ended_early", F_STR("what", fx->exit.message),
                  F_INT("step", job->step), F_INT("planned_steps", job->total_steps));
    skipped_log(job);
    if (fx->exit.status == OK && shell->config->rollout.only)
        log_event(LOG_INFO, "done", F_INT("step", job->step),
                  F_STR("answers", shell->config->rollout.save));
    else if (fx->exit.status == OK)
        log_event(LOG_INFO, "done", F_INT("step", job->step),
                  F_STR("model", job->last_checkpoint != NULL ? job->last_checkpoint : "none"));
    if (fx->exit.status == OK) say_best(shell, job);
    if (fx->exit.status == OK) leave_status(shell);
    bool trained = fx->exit.status == OK && !shell->config->rollout.only;
    if (trained && job->last_checkpoint != NULL) say_how_to_try(job->last_checkpoint);
    loop_stop(shell->loop);
}

/* The run is another job from here on. */
static Status take_config(Shell *shell, const JobConfig *config, Error *err)
{
    char *before = shell->config_yaml;
    shell->config = config;
    shell->config_yaml = job_config_text(config);
    if (shell->keeper != NULL) keeper_set_config(shell->keeper, config, shell->config_yaml);
    free(before);
    char *path = path_join(shell->folder->path, "config.effective.yaml");
    Status status = file_write_atomic(path, shell->config_yaml, strlen(shell->config_yaml), err);
    free(path);
    return status;
}

static uint32_t count_generating(const Shell *shell, int stages)
{
    uint32_t count = 0;
    for (int i = 0; i < stages; i++)
        count += shell->stages.stage[i].config->rollout.function != ROLLOUT_SFT;
    return count;
}

/* For whoever looks at its answers when the run is at another stage. */
static void list_stage(const Shell *shell, int stage, int64_t steps_before)
{
    Error err = {0};
    const StageEntry entry = {.number = stage + 1,
                              .name = (char *)shell->config->stage,
                              .steps_before = steps_before,
                              .generating_before = (int)count_generating(shell, stage)};
    if (stage_list_enter(shell->folder->path, &entry, shell->config_yaml, &err) != OK)
        log_event(LOG_WARN, "stage_list", F_STR("why", err.message));
}

static void enter_stage(Shell *shell, int stage)
{
    const JobConfig *config = shell->stages.stage[stage].config;
    char of[32];
    Error err = {0};
    snprintf(of, sizeof of, "%d of %d", stage + 1, shell->stages.count);
    if (config != shell->config && take_config(shell, config, &err) != OK)
        log_event(LOG_WARN, "effective_config", F_STR("why", err.message));
    list_stage(shell, stage, controller_job(shell->controller).stage_begin);
    if (config->stage != NULL)
        log_event(LOG_INFO, "stage", F_STR("name", config->stage), F_STR("number", of));
}

static void carry_out(Shell *shell, const Effect *fx)
{
    JobView job = controller_job(shell->controller);
    switch (fx->kind) {
    case FX_START_AGENT:
        agent_link_start(shell->agent[fx->node]);
        break;
    case FX_GROUP:
        agent_link_group(shell->agent[fx->node], fx);
        break;
    case FX_SPAWN:
        spawn_actor(shell, fx);
        break;
    case FX_KILL:
        agent_link_kill(shell->agent[fx->node], controller_actor(shell->controller, fx->actor).name,
                        fx->actor, fx->incarnation);
        break;
    case FX_CALL:
        shell_call(shell, fx);
        break;
    case FX_CHECKPOINT_BEGIN:
        keeper_begin(shell->keeper, fx->checkpoint.save, fx->checkpoint.state.step);
        break;
    case FX_CHECKPOINT_FILES:
        keeper_add_files(shell->keeper, fx->checkpoint.save, fx->checkpoint.file,
                         fx->checkpoint.num_files);
        break;
    case FX_CHECKPOINT_COMMIT:
        keeper_commit(shell->keeper,
                      &(CommitOrder){.save = fx->checkpoint.save,
                                     .folder = fx->checkpoint.folder,
                                     .state = fx->checkpoint.state,
                                     .generation = controller_generation(shell->controller),
                                     .data_fingerprint = job.data_fingerprint});
        break;
    case FX_CHECKPOINT_ABANDON:
        keeper_abandon(shell->keeper, fx->checkpoint.save, fx->checkpoint.folder);
        break;
    case FX_LEDGER_APPEND:
        keeper_append(shell->keeper, &fx->ledger);
        break;
    case FX_LEDGER_REWIND:
        keeper_rewind(shell->keeper);
        reporter_rewind(shell->reporter, fx->checkpoint.state.step);
        break;
    case FX_STAGE:
        enter_stage(shell, fx->stage.stage);
        break;
    case FX_SWAPPED:
        shell_swapped(shell, fx);
        break;
    case FX_REPORT_STEP:
        reporter_step(shell->reporter, fx, &job, peak_flops(shell));
        break;
    case FX_REPORT_EVAL:
        reporter_eval(shell->reporter, fx, &job);
        break;
    case FX_REPORT_ACTOR:
        report_actor(shell, fx);
        break;
    case FX_LOG:
        log_event((LogLevel)fx->log.level, fx->log.event, F_STR("what", fx->log.text));
        break;
    case FX_EXIT:
        end(shell, fx, &job);
        break;
    }
}

static void carry_out_all(Shell *shell)
{
    for (int i = 0; i < shell->effects.count; i++)
        carry_out(shell, &shell->effects.item[i]);
    shell->effects.count = 0;
}

/* Calls carry the generation in which they are made: actors of a later one refuse them. */
static void follow_generation(Shell *shell)
{
    uint32_t generation = controller_generation(shell->controller);
    if (generation == shell->identity.generation) return;
    shell->identity.generation = generation;
    for (int i = 0; i < controller_num_actors(shell->controller); i++)
        if (shell->actor[i].handle != NULL)
            handle_set_generation(shell->actor[i].handle, generation);
}

void shell_feed(Shell *shell, const Event *event)
{
    CHECK(!shell->feeding); /* effects never answer from within: they post */
    shell->feeding = true;
    controller_step(shell->controller, event, clock_ms(), &shell->effects);
    follow_generation(shell);
    carry_out_all(shell);
    shell->feeding = false;
}

static void feed_from_part(void *context, const Event *event)
{
    shell_feed(context, event);
}

/* ---- the inbox ---- */

static void refuse(Call *call, const char *why)
{
    Error err;
    error_set(&err, ERR_INVALID, "%s", why);
    call_fail(call, &err);
}

static void answer_hello(Shell *shell, Call *call, ActorView view)
{
    Troupe__ActorHelloReply reply = TROUPE__ACTOR_HELLO_REPLY__INIT;
    Troupe__TrainRole role = TROUPE__TRAIN_ROLE__INIT;
    reply.config_yaml = shell->config_yaml;
    reply.config_dir = shell->folder->path;
    reply.generating_before = count_generating(shell, controller_job(shell->controller).stage);
    if (view.role == ROLE_TRAIN) {
        role.tp_size = (uint32_t)shell->config->train.tp_size;
        role.dp_size = (uint32_t)shell->config->train.dp_size;
        role.tp_rank = (uint32_t)view.rank % role.tp_size;
        role.dp_rank = (uint32_t)view.rank / role.tp_size;
        reply.train = &role;
    }
    call_reply_message(call, &reply.base);
}

static void on_hello(void *self, Call *call)
{
    Shell *shell = self;
    Bytes body = call_body(call);
    Troupe__ActorHelloRequest *hello =
        troupe__actor_hello_request__unpack(NULL, body.length, body.data);
    int actor = hello != NULL ? controller_find_actor(shell->controller, hello->actor) : -1;
    Error err = {0};
    if (actor < 0 || controller_actor(shell->controller, actor).incarnation != hello->incarnation) {
        refuse(call, "this job does not (or no longer) expect that actor");
    } else if (strcmp(hello->version, TROUPE_VERSION) != 0) {
        error_set(&err, ERR_UNSUPPORTED, "%s is version %s, the controller is %s", hello->actor,
                  hello->version, TROUPE_VERSION);
        call_fail(call, &err);
    } else {
        ActorLink *link = &shell->actor[actor];
        handle_close(link->handle);
        *link = (ActorLink){.incarnation = hello->incarnation};
        shell->identity.generation = controller_generation(shell->controller);
        Status status = handle_open(shell->loop, &shell->identity, hello->actor, hello->endpoint,
                                    &link->handle, &err);
        if (status != OK) log_event(LOG_ERROR, "no_line", F_STR("why", err.message));
        answer_hello(shell, call, controller_actor(shell->controller, actor));
        Event event = {.kind = EV_ACTOR_HELLO, .actor = actor, .incarnation = hello->incarnation};
        event.hello.pid = (int)hello->pid;
        event.hello.endpoint = hello->endpoint;
        shell_feed(shell, &event);
    }
    if (hello != NULL) troupe__actor_hello_request__free_unpacked(hello, NULL);
}

static void on_beat(void *self, Call *call)
{
    Shell *shell = self;
    Bytes body = call_body(call);
    Troupe__BeatRequest *beat = troupe__beat_request__unpack(NULL, body.length, body.data);
    int actor = beat != NULL ? controller_find_actor(shell->controller, beat->actor) : -1;
    call_reply_empty(call);
    if (actor >= 0) {
        Event event = {.kind = EV_ACTOR_BEAT, .actor = actor, .incarnation = beat->incarnation};
        event.beat.progress = beat->progress;
        event.beat.working = (int)beat->working;
        event.beat.doing = beat->doing;
        event.beat.waiting_for = beat->waiting_for;
        event.beat.trouble = beat->trouble;
        event.beat.notice = beat->notice;
        event.beat.rss_bytes = (int64_t)beat->rss_bytes;
        shell_feed(shell, &event);
    }
    if (beat != NULL) troupe__beat_request__free_unpacked(beat, NULL);
}

static void on_actor_exited(void *self, Call *call)
{
    Shell *shell = self;
    Bytes body = call_body(call);
    Troupe__ActorExited *exited = troupe__actor_exited__unpack(NULL, body.length, body.data);
    int actor = exited != NULL ? controller_find_actor(shell->controller, exited->actor) : -1;
    call_reply_empty(call);
    if (actor >= 0) {
        Event event = {.kind = EV_ACTOR_EXITED,
                       .actor = actor,
                       .incarnation = exited->incarnation,
                       .message = exited->reason};
        event.exited.stderr_tail = exited->stderr_tail;
        shell_feed(shell, &event);
        ActorLink *link = &shell->actor[actor];
        if (link->incarnation == exited->incarnation && link->handle != NULL)
            handle_fail(link->handle, exited->reason);
    }
    if (exited != NULL) troupe__actor_exited__free_unpacked(exited, NULL);
}

static void on_status(void *self, Call *call)
{
    Shell *shell = self;
    Troupe__StatusReply reply = TROUPE__STATUS_REPLY__INIT;
    ReportView last = reporter_view(shell->reporter);
    reply.json = status_json(shell->config, shell->controller, &last, clock_ms());
    call_reply_message(call, &reply.base);
    free(reply.json);
}

static void stop(Shell *shell)
{
    shell->stop_asked = true;
    shell_feed(shell, &(Event){.kind = EV_STOP});
}

static void on_stop(void *self, Call *call)
{
    call_reply_empty(call);
    stop(self);
}

static const ActorMethod methods[] = {
    {"controller.hello", on_hello},
    {"controller.beat", on_beat},
    {"controller.actor_exited", on_actor_exited},
    {"controller.status", on_status},
    {"controller.stop", on_stop},
    {"controller.swap", shell_on_swap},
};

/* ---- time and signals ---- */

static void on_tick(void *argument)
{
    Shell *shell = argument;
    shell_feed(shell, &(Event){.kind = EV_TICK});
    JobView job = controller_job(shell->controller);
    reporter_tick(shell->reporter, &job, clock_ms());
}

static void on_signal(void *argument, int signal_number)
{
    (void)signal_number;
    stop(argument);
}

/* The terminal is gone: nobody asks for anything more than an end in order, however often its shell
 * and the kernel say so. */
static void on_hangup(void *argument, int signal_number)
{
    Shell *shell = argument;
    (void)signal_number;
    if (!shell->stop_asked) stop(shell);
}

static void on_resize(void *argument, int signal_number)
{
    Shell *shell = argument;
    (void)signal_number;
    if (shell->reporter != NULL) reporter_resized(shell->reporter);
}

static bool is_ignored(int signal_number)
{
    struct sigaction now;
    return sigaction(signal_number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

static Status watch_signals(Shell *shell, Error *err)
{
    TRY(loop_add_signal(shell->loop, SIGINT, on_signal, shell, err));
    TRY(loop_add_signal(shell->loop, SIGTERM, on_signal, shell, err));
    TRY(loop_add_signal(shell->loop, SIGWINCH, on_resize, shell, err));
    if (is_ignored(SIGHUP)) return OK; /* nohup: the run is to outlive its terminal */
    return loop_add_signal(shell->loop, SIGHUP, on_hangup, shell, err);
}

/* ---- life ---- */

static uint64_t random_number(void)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != sizeof number) number = (uint64_t)clock_ns();
    return rng_mix(number);
}

static Status open_inbox(Shell *shell, Error *err)
{
    TRY(loop_create(&shell->loop, err));
    shell->identity = (ActorIdentity){
        .job = rng_key(0, shell->folder->path), .generation = 1, .incarnation = random_number()};
    snprintf(shell->identity.name, sizeof shell->identity.name, "controller");
    ActorOptions options = {.identity = shell->identity,
                            .endpoint = shell->folder->endpoint,
                            .methods = methods,
                            .num_methods = sizeof methods / sizeof *methods,
                            .self = shell};
    TRY(actor_create(shell->loop, &options, &shell->inbox, err));
    return watch_signals(shell, err);
}

static void create_agents(Shell *shell)
{
    bool embedded = shell->config->cluster.agents.count == 0;
    shell->num_agents = embedded ? 1 : shell->config->cluster.agents.count;
    shell->agent = mem_calloc((size_t)shell->num_agents, sizeof(AgentLink *));
    char *own = mem_printf("ipc://%s/agent", shell->folder->sockets);
    char *log_path = path_join(shell->folder->logs, "node_agent.log");
    for (int i = 0; i < shell->num_agents; i++)
        shell->agent[i] = agent_link_create(&(AgentLinkOptions){
            .loop = shell->loop,
            .self = &shell->identity,
            .node = i,
            .endpoint = embedded ? own : shell->config->cluster.agents.item[i],
            .embedded = embedded,
            .cpus = local_node_cpus(shell->config),
            .gpus = shell->config->device != JOB_CPU,
            .job_name = shell->config->name,
            .run_dir = shell->folder->path,
            .controller_endpoint = actor_endpoint(shell->inbox),
            .log_path = log_path,
            .feed = feed_from_part,
            .context = shell,
        });
    free(log_path);
    free(own);
}

/* Says at the start, while it is cheap, that a checkpoint will not fit. */
static void look_at_disk(Shell *shell)
{
    DiskRoom room;
    Error err = {0};
    char *warning = NULL;
    if (disk_room_look(shell->config, &room, &err) != OK) {
        log_event(LOG_WARN, "disk_room_unknown", F_STR("why", err.message));
        return;
    }
    size_text((uint64_t)room.checkpoint_bytes, shell->checkpoint_size);
    if (disk_room_check(&room, &warning, &err) != OK)
        log_event(LOG_WARN, "disk_room", F_STR("what", err.message));
    if (warning != NULL) log_event(LOG_WARN, "disk_room", F_STR("what", warning));
    free(warning);
    disk_room_free(&room);
}

static void start_core(Shell *shell, const Beginning *begin)
{
    ControllerStart start = {
        .stage = shell->stages.stage,
        .num_stages = shell->stages.count,
        .nonce = random_number(),
        .num_nodes = shell->num_agents,
        .embedded_agent = shell->config->cluster.agents.count == 0,
        .checkpoint = begin->path,
        .checkpoint_size = shell->checkpoint_size[0] != '\0' ? shell->checkpoint_size : NULL,
        .state = begin->state,
        .data_fingerprint = begin->path != NULL ? begin->manifest->data_fingerprint : NULL,
    };
    shell->controller = controller_create(&start, clock_ms(), &shell->effects);
    size_t count = (size_t)controller_num_actors(shell->controller);
    shell->actor = mem_calloc(count, sizeof *shell->actor);
    shell->peak_flops = mem_calloc(count, sizeof *shell->peak_flops);
    carry_out_all(shell);
}

static Status shell_open(Shell *shell, const Beginning *begin, Error *err)
{
    TRY(take_config(shell, shell->stages.stage[begin->state.stage].config, err));
    list_stage(shell, begin->state.stage, begin->state.stage_begin);
    TRY(open_inbox(shell, err));
    TRY(reporter_create(shell->folder->metrics, shell->screen, &shell->reporter, err));
    TRY(keeper_create(&(KeeperOptions){.loop = shell->loop,
                                       .config = shell->config,
                                       .folder = shell->folder,
                                       .config_yaml = shell->config_yaml,
                                       .begin = begin->manifest,
                                       .feed = feed_from_part,
                                       .context = shell},
                      &shell->keeper, err));
    create_agents(shell);
    look_at_disk(shell);
    start_core(shell, begin);
    return OK;
}

static void shell_close(Shell *shell)
{
    shell_swap_end(shell);
    for (int i = 0; i < shell->num_agents; i++)
        agent_link_destroy(shell->agent[i]);
    int num_actors = shell->controller != NULL ? controller_num_actors(shell->controller) : 0;
    for (int i = 0; i < num_actors; i++)
        handle_close(shell->actor[i].handle);
    keeper_destroy(shell->keeper);
    reporter_destroy(shell->reporter);
    actor_destroy(shell->inbox);
    loop_destroy(shell->loop);
    controller_destroy(shell->controller);
    effect_list_free(&shell->effects);
    free(shell->agent);
    free(shell->actor);
    free(shell->peak_flops);
    free(shell->config_yaml);
    run_stages_close(&shell->stages);
}

/* A stage that was swapped in and cannot begin would hold up the run for ever. */
static void advise_undo(const Shell *shell, Error *err)
{
    JobView job = controller_job(shell->controller);
    bool came = job.stage > 0 && shell->stages.stage[job.stage - 1].swapped;
    if (came && job.step == job.stage_begin && err->status != ERR_CANCELLED)
        error_append(err,
                     "The stage %s was swapped in. To go on without it: controller swap-rollout "
                     "--run %s --undo, then the run's own command.",
                     job.stage_name, shell->folder->path);
}

Status shell_run(const JobStages *job, const RunFolder *folder, const Screen *screen, Error *err)
{
    Shell shell = {.folder = folder, .screen = screen};
    process_raise_file_limit(); /* a handle to every actor */
    Beginning begin = {0};
    Status status = run_stages_open(job, folder, &shell.stages, err);
    if (status == OK)
        status = resume_find(shell.stages.stage, shell.stages.count, folder, &begin, err);
    if (status == OK) status = shell_open(&shell, &begin, err);
    beginning_free(&begin);
    if (status == OK) {
        LoopTimer *tick = loop_add_timer(shell.loop, TICK_MS, TICK_MS, on_tick, &shell);
        loop_run(shell.loop);
        loop_remove_timer(tick);
        status = shell.exit_status;
        if (status != OK) error_set(err, status, "%s", shell.exit_message);
        if (status != OK) job_config_locate(shell.config, err); /* as the checks before a run do */
        if (status != OK) advise_undo(&shell, err);
    }
    shell_close(&shell);
    return status;
}
