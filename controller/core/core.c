/* Creation, dispatch of events and the views; the decisions are in supervise.c, group.c, gang.c,
 * job.c, push.c and save.c. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/source_set.h"

const char *actor_state_name(ActorState state)
{
    static const char *const names[] = {"pending",    "starting", "alive", "suspect",
                                        "restarting", "leaving",  "dead"};
    return names[state];
}

/* ---- small services ---- */

uint64_t core_next_id(Controller *c)
{
    return ++c->counter;
}

int core_num_train(const Controller *c)
{
    return c->num_actors - c->first_train;
}

static const char *scratch_print(Controller *c, const char *format, va_list args)
{
    char text[ERROR_MESSAGE_MAX];
    vsnprintf(text, sizeof text, format, args);
    return arena_strndup(c->scratch, text, strlen(text));
}

void core_log(Controller *c, int level, const char *event, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = scratch_print(c, format, args);
    va_end(args);
    Effect *effect = effect_add(c->fx, FX_LOG);
    effect->log.level = level;
    effect->log.event = event;
    effect->log.text = text;
}

void core_finish(Controller *c, Status status, const char *format, ...)
{
    if (c->phase == PHASE_ENDING || c->phase == PHASE_OVER) return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->exit_message, sizeof c->exit_message, format, args);
    va_end(args);
    c->exit_status = status;
    c->phase = PHASE_ENDING;
    c->ending_since_ms = c->now_ms;
    save_abandon(c);
    supervise_kill_all(c);
    group_give_back(c);
}

void core_finish_committed(Controller *c, Status status, const char *format, ...)
{
    if (c->failure.status != OK || c->phase == PHASE_ENDING || c->phase == PHASE_OVER) return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->failure.message, sizeof c->failure.message, format, args);
    va_end(args);
    c->failure.status = status;
    if (c->step > c->saved.step || c->lane[SET_TRAIN].running.state == PLAN_SLOT_RUNNING)
        core_log(c, LOG_ERROR, "ending", "finishing the step and committing first; the reason: %s",
                 c->failure.message);
}

void core_finish_until(Controller *c, Status status, const char *first, const char *message)
{
    if (c->failure.status != OK) return;
    core_finish_committed(c, status, "%s", message);
    snprintf(c->failure.first, sizeof c->failure.first, "%s", first);
}

bool core_is_stopping(const Controller *c)
{
    return c->stop_requests > 0 || c->failure.status != OK;
}

/* Before anything is committed the same command begins anew, with whatever data it finds. */
static void finish_uncommitted(Controller *c)
{
    RolloutFunction function = c->config->rollout.function;
    bool validated = c->config->rollout.load == NULL &&
                     (function == ROLLOUT_SFT || function == ROLLOUT_GENERATE);
    if (c->failure.where != NOT_AT_A_RECORD)
        core_finish(c, c->failure.status, "%s\nNo step is committed: mend the record, or set %s%s.",
                    c->failure.message, c->failure.remedy,
                    validated ? "; `controller data inspect --count all` counts such "
                                "records without a run"
                              : "");
    else if (c->failure.remedy[0] != '\0')
        core_finish(c, c->failure.status,
                    "%s\nNo step is committed: the same command begins anew %s.",
                    c->failure.message, c->failure.remedy);
    else
        core_finish(c, c->failure.status, "%s", c->failure.message);
}

/* Behind a commit, training data that differs is refused: with the way to accept it, which the
 * order `window` has none of. */
static void finish_at_record(Controller *c)
{
    bool trained = c->failure.where == AT_TRAIN_RECORD;
    const char *mended = !trained ? ", or\nwith the record mended"
                         : train_is_counted_late(c->config)
                             ? ""
                             : ", or\nwith the record mended, and then tells how to accept the "
                               "changed data";
    core_finish(c, c->failure.status,
                "%s\nStep %lld is committed: the same command goes on from there with %s%s.",
                c->failure.message, (long long)c->step, c->failure.remedy, mended);
}

void core_finish_failed(Controller *c)
{
    if (c->step == 0 || push_is_all(c))
        finish_uncommitted(c);
    else if (c->step > c->saved.step)
        core_finish(c, c->failure.status, "%s\nThe steps after step %lld could not be committed.",
                    c->failure.message, (long long)c->saved.step);
    else if (c->failure.where != NOT_AT_A_RECORD)
        finish_at_record(c);
    else if (c->failure.first[0] != '\0')
        core_finish(c, c->failure.status,
                    "%s\nStep %lld is committed. First %s; then the same command goes on from "
                    "there.",
                    c->failure.message, (long long)c->step, c->failure.first);
    else
        core_finish(c, c->failure.status,
                    "%s\nStep %lld is committed: the same command goes on from there%s%s.",
                    c->failure.message, (long long)c->step, c->failure.remedy[0] != '\0' ? " " : "",
                    c->failure.remedy);
}

DataSet *core_set(Controller *c, SetName set)
{
    int index = set == SET_TRAIN ? 0 : 1 + c->eval.at;
    return index < c->num_sets ? &c->set[index] : NULL;
}

Effect *core_call(Controller *c, int actor, CallKind call, uint64_t id, int timeout_ms)
{
    ActorRecord *record = &c->actor[actor];
    Effect *effect = effect_add(c->fx, FX_CALL);
    effect->actor = actor;
    effect->incarnation = record->incarnation;
    effect->call.call = call;
    effect->call.id = id;
    effect->call.timeout_ms = timeout_ms;
    supervise_call_made(c, actor, call);
    return effect;
}

/* ---- creation ---- */

static int add_actor(Controller *c, Role role, int rank, double cpu)
{
    int index = c->num_actors++;
    ActorRecord *record = &c->actor[index];
    record->role = role;
    record->rank = rank;
    record->node = -1;
    record->since_ms = c->now_ms;
    if (role == ROLE_DATA_SOURCE)
        snprintf(record->name, sizeof record->name, "%s", role_name(role));
    else
        snprintf(record->name, sizeof record->name, "%s-%d", role_name(role), rank);
    c->bundle[index] = (BundleSpec){.index = index, .need = {.cpu = cpu}};
    return index;
}

/* Of all stages: the placement group has a bundle for each. */
static int most_rollout_workers(const Controller *c)
{
    int64_t most = c->config->cluster.rollout_workers_max;
    for (int i = 0; i < c->num_stages; i++)
        if (c->stage[i].config->rollout.num_workers > most)
            most = c->stage[i].config->rollout.num_workers;
    return (int)most;
}

static bool generates(const Controller *c)
{
    bool any = c->config->rollout.function != ROLLOUT_SFT;
    for (int i = 0; i < c->num_stages; i++)
        any = any || c->stage[i].config->rollout.function != ROLLOUT_SFT;
    return any;
}

/* Rollout workers whose ranks are processes have this many more; in whichever stage. */
static int ranks_behind(const Controller *c)
{
    bool any = job_has_rank_processes(c->config);
    for (int i = 0; i < c->num_stages; i++)
        any = any || job_has_rank_processes(c->stage[i].config);
    return any ? (int)c->config->train.tp_size - 1 : 0;
}

/* The train rank whose GPU a rollout worker, or a rank of one, uses: the ranks of a worker those of
 * one data-parallel index, each that of its own part of the model. */
static int gpu_owner(const Controller *c, int actor)
{
    int num_train = c->num_actors - c->first_train, worker = ranks_leader(c, actor);
    int place = (worker - c->first_rollout) * (1 + c->followers) + c->actor[actor].tp_rank;
    return c->first_train + place % num_train;
}

/* A GPU for each train worker. Rollout workers use these, in turn; that costs nothing while they do
 * not generate, which a later stage may have them do. Or each has its own. */
static void share_gpus(Controller *c)
{
    bool own = !c->config->rollout.colocate && generates(c);
    if (c->config->device == JOB_CPU) return;
    for (int i = c->first_train; i < c->num_actors; i++)
        c->bundle[i].need.gpu = 1;
    for (int i = c->first_rollout; i < c->first_train; i++) {
        if (own) c->bundle[i].need.gpu = 1;
        if (c->config->rollout.colocate) c->bundle[i].gpu_of = 1 + gpu_owner(c, i);
    }
}

/* The ranks of a rollout worker have a memory in common, and read what train ranks of one
 * data-parallel index show on their host. */
static void keep_together(Controller *c)
{
    int tp_size = (int)c->config->train.tp_size;
    if (c->followers == 0) return;
    for (int i = c->first_train; i < c->num_actors; i++)
        if (c->actor[i].rank % tp_size != 0)
            c->bundle[i].beside = 1 + i - c->actor[i].rank % tp_size;
    for (int i = c->first_follower; i < c->first_train; i++)
        if (c->bundle[i].gpu_of == 0) c->bundle[i].beside = 1 + ranks_leader(c, i);
}

/* Rank 0's CPUs are shared by all of them. */
static void add_followers(Controller *c, double cpu)
{
    for (int worker = c->first_rollout; worker < c->first_follower; worker++) {
        for (int r = 1; r <= c->followers; r++) {
            ActorRecord *record = &c->actor[add_actor(c, ROLE_ROLLOUT, c->actor[worker].rank, cpu)];
            record->tp_rank = r;
            snprintf(record->name, sizeof record->name, "%s-%d.%d", role_name(ROLE_ROLLOUT),
                     record->rank, r);
        }
    }
}

static void add_actors(Controller *c)
{
    const JobConfig *config = c->config;
    int num_rollout = most_rollout_workers(c);
    int num_train = (int)(config->train.tp_size * config->train.dp_size);
    c->followers = ranks_behind(c);
    size_t count = (size_t)(1 + num_rollout * (1 + c->followers) + num_train);
    double cpu = config->cluster.cpus_per_rollout_worker / (1 + c->followers);
    c->actor = mem_calloc(count, sizeof *c->actor);
    c->bundle = mem_calloc(count, sizeof *c->bundle);
    add_actor(c, ROLE_DATA_SOURCE, 0, config->cluster.cpus_per_data_source);
    c->first_rollout = c->num_actors;
    for (int i = 0; i < num_rollout; i++)
        add_actor(c, ROLE_ROLLOUT, i, cpu);
    c->first_follower = c->num_actors;
    add_followers(c, cpu);
    c->first_train = c->num_actors;
    if (c->followers > 0) c->rank_group = mem_calloc((size_t)num_rollout, sizeof *c->rank_group);
    for (int i = 0; i < num_train; i++)
        add_actor(c, ROLE_TRAIN, i, config->cluster.cpus_per_train_worker);
    share_gpus(c);
    keep_together(c);
}

Status controller_check_start(const ControllerStart *start, Error *err)
{
    if (start->checkpoint == NULL ||
        start->stage[start->num_stages - 1].config->checkpoint.resume != RESUME_NEVER)
        return OK;
    return error_set(err, ERR_EXISTS,
                     "checkpoint.resume is never, but this run has a checkpoint: %s\n"
                     "To begin anew, give another run_dir or move this one away; to go on from the "
                     "checkpoint, set checkpoint.resume: auto.",
                     start->checkpoint);
}

Controller *controller_create(const ControllerStart *start, int64_t now_ms, EffectList *effects)
{
    CHECK(start->num_nodes > 0);
    Controller *c = mem_calloc(1, sizeof *c);
    c->nonce = start->nonce;
    c->embedded_agent = start->embedded_agent;
    c->checkpoint_size = start->checkpoint_size;
    c->generation = 1;
    c->now_ms = now_ms;
    c->fx = effects;
    c->scratch = arena_create();
    stage_take(c, start);
    add_actors(c);
    c->num_nodes = start->num_nodes;
    c->node = mem_calloc((size_t)c->num_nodes, sizeof *c->node);
    c->gang.tensor_id = mem_calloc((size_t)c->config->train.dp_size, sizeof(CommId));
    c->gang.data_id = mem_calloc((size_t)c->config->train.tp_size, sizeof(CommId));
    c->push.board = mem_calloc((size_t)core_num_train(c), sizeof *c->push.board);
    c->push.digest = mem_calloc((size_t)core_num_train(c), sizeof *c->push.digest);
    c->send.incarnation = mem_calloc((size_t)c->num_actors, sizeof *c->send.incarnation);
    c->send.group = mem_calloc((size_t)c->config->train.tp_size, sizeof *c->send.group);
    for (SetName set = 0; set < SET_COUNT; set++) {
        stream_init(&c->lane[set].stream, set, 1, 1); /* until the stage is entered */
        c->lane[set].of_rank = mem_calloc((size_t)core_num_train(c), sizeof(StepResult));
    }
    c->lease = mem_calloc((size_t)((c->first_follower - c->first_rollout) * LEASES_PER_WORKER),
                          sizeof *c->lease);
    for (Role role = 0; role < ROLE_COUNT; role++)
        c->budget[role].time_ms =
            mem_calloc((size_t)c->config->cluster.restarts_max + 1, sizeof(int64_t));
    c->checkpoint = mem_strdup(start->checkpoint);
    c->saved = start->state;
    c->eval.last_step = -1;
    c->save.tried_step = start->checkpoint != NULL ? start->state.step : -1;
    c->done.stage = -1; /* in none */
    job_roll_back(c);
    for (int i = 0; i < c->num_nodes; i++)
        effect_add(effects, FX_START_AGENT)->node = i;
    return c;
}

void controller_destroy(Controller *c)
{
    if (c == NULL) return;
    for (SetName set = 0; set < SET_COUNT; set++) {
        stream_free(&c->lane[set].stream);
        free(c->lane[set].of_rank);
        plan_clear(&c->lane[set].running.plan);
        plan_clear(&c->lane[set].next.plan);
    }
    plan_clear(&c->retired);
    for (Role role = 0; role < ROLE_COUNT; role++)
        free(c->budget[role].time_ms);
    free(c->lease);
    free(c->rank_group);
    for (int i = 0; i < c->num_nodes; i++)
        free(c->node[i].bundle);
    free(c->node);
    free(c->gang.tensor_id);
    free(c->gang.data_id);
    free(c->push.board);
    free(c->push.digest);
    free(c->send.incarnation);
    free(c->send.group);
    free(c->actor);
    free(c->bundle);
    free(c->checkpoint);
    stage_free(c);
    free(c->save.folder);
    records_forget_messages(&c->rejects_logged);
    records_forget_messages(&c->notes_logged);
    arena_destroy(c->scratch);
    free(c);
}

/* ---- the step ---- */

static void take_event(Controller *c, const Event *event)
{
    switch (event->kind) {
    case EV_TICK:
        break;
    case EV_STOP:
        c->stop_requests++;
        core_log(c, LOG_INFO, "stop_requested", "%s",
                 c->stop_requests == 1
                     ? "finishing the step, then committing; again to stop at once"
                     : "stopping at once");
        break;
    case EV_AGENT_UP:
    case EV_AGENT_LOST:
    case EV_GROUP_REPLY:
        group_event(c, event);
        break;
    case EV_SPAWN_REPLY:
    case EV_ACTOR_HELLO:
    case EV_ACTOR_BEAT:
    case EV_ACTOR_EXITED:
        supervise_event(c, event);
        break;
    case EV_REPLY: {
        const ActorRecord *record = &c->actor[event->actor];
        if (event->incarnation != record->incarnation || !supervise_ready(c, event->actor)) break;
        supervise_call_answered(c, event->actor, event->reply.call);
        if (event->reply.call == CALL_BOOTSTRAP || event->reply.call == CALL_START ||
            event->reply.call == CALL_CONFIGURE)
            gang_reply(c, event);
        else
            job_reply(c, event);
        break;
    }
    case EV_CHECKPOINT_BEGUN:
    case EV_CHECKPOINT_DONE:
        save_event(c, event);
        break;
    case EV_LEDGER_FAILED:
        save_ledger_failed(c, event);
        break;
    case EV_SWAP:
        stage_swap(c, event);
        break;
    }
}

#define ENDING_MS 3000

/* Everything is being given back; leave when it is (and a commit that is out has come about or
 * not), or when waiting longer would not help. */
static void advance_ending(Controller *c)
{
    bool settled = supervise_all_gone(c) && c->group_state == GROUP_NONE && !c->save.committing;
    if (!settled && c->now_ms - c->ending_since_ms < ENDING_MS) return;
    c->phase = PHASE_OVER;
    if (c->exit_status == ERR_CANCELLED) {
        size_t used = strlen(c->exit_message);
        c->exit_message[used++] = '\n';
        save_describe_end(c, c->exit_message + used, sizeof c->exit_message - used);
    }
    Effect *effect = effect_add(c->fx, FX_EXIT);
    effect->exit.status = c->exit_status;
    effect->exit.message = c->exit_message;
}

/* Whatever waits for longer than WAIT_SAID_MS says what for, again once it is known who waits for
 * whom, and from time to time. */
#define WAIT_SAID_MS  5000
#define WAIT_AGAIN_MS 30000

/* A step (or a piece of an evaluation) that takes as long as they take is work, not waiting. */
static int64_t patience_ms(const Controller *c)
{
    const Lane *lane = &c->lane[c->phase == PHASE_EVALUATING ? SET_EVAL : SET_TRAIN];
    bool running = lane->running.state == PLAN_SLOT_RUNNING;
    return running && 3 * lane->usual_ms > WAIT_SAID_MS ? 3 * lane->usual_ms : WAIT_SAID_MS;
}

/* Before the first semicolon stands what is waited for, behind it who waits for whom, which may
 * change meanwhile. */
static bool same_wait(const char *a, const char *b)
{
    size_t length = strcspn(a, ";");
    return length == strcspn(b, ";") && strncmp(a, b, length) == 0;
}

static void note_waiting(Controller *c)
{
    char text[sizeof c->waits_for] = "";
    job_describe_wait(c, text, sizeof text);
    if (!same_wait(text, c->waits_for)) {
        c->waits_since_ms = c->now_ms;
        c->waits_logged_ms = 0;
        c->waits_logged_whom = false;
    }
    memcpy(c->waits_for, text, sizeof text);
    if (text[0] == '\0' || c->now_ms - c->waits_since_ms < patience_ms(c)) return;
    bool whom_is_known = strchr(text, ';') != NULL;
    bool news = c->waits_logged_ms == 0 || (whom_is_known && !c->waits_logged_whom);
    if (!news && c->now_ms - c->waits_logged_ms < WAIT_AGAIN_MS) return;
    c->waits_logged_ms = c->now_ms;
    c->waits_logged_whom = whom_is_known;
    core_log(c, LOG_INFO, "waiting", "for %llds: %s",
             (long long)((c->now_ms - c->waits_since_ms) / 1000), text);
}

#define TROUBLE_AGAIN_MS 30000

/* What rollout workers ask rewards, tools and functions for in vain is said at once, as it may be
 * long until anything is given up for it. */
static void note_trouble(Controller *c)
{
    int first = -1, others = -1;
    for (int i = c->num_actors - 1; i >= 0; i--) {
        if (c->actor[i].trouble[0] == '\0' || !supervise_ready(c, i)) continue;
        first = i;
        others++;
    }
    if (first < 0) return;
    if (c->trouble_logged_ms != 0 && c->now_ms - c->trouble_logged_ms < TROUBLE_AGAIN_MS) return;
    c->trouble_logged_ms = c->now_ms;
    char more[64] = "";
    if (others > 0)
        snprintf(more, sizeof more, "; %d other worker%s too", others, others > 1 ? "s" : "");
    core_log(c, LOG_WARN, "tried_again", "%s: %s%s", c->actor[first].name, c->actor[first].trouble,
             more);
}

void controller_step(Controller *c, const Event *event, int64_t now_ms, EffectList *effects)
{
    CHECK(now_ms >= c->now_ms);
    c->now_ms = now_ms;
    c->fx = effects;
    arena_reset(c->scratch);
    plan_clear(&c->retired);
    if (c->phase == PHASE_OVER) return;
    take_event(c, event);
    if (c->stop_requests > 1) core_finish(c, ERR_CANCELLED, "%s", "stopped at once, as asked");
    if (c->phase != PHASE_ENDING) {
        group_advance(c);
        supervise_advance(c);
        gang_advance(c);
        job_advance(c);
        note_waiting(c);
        note_trouble(c);
    }
    if (c->phase == PHASE_ENDING) advance_ending(c);
}

/* ---- views ---- */

int controller_num_actors(const Controller *c)
{
    return c->num_actors;
}

ActorView controller_actor(const Controller *c, int actor)
{
    CHECK(actor >= 0 && actor < c->num_actors);
    const ActorRecord *record = &c->actor[actor];
    return (ActorView){
        .name = record->name,
        .role = record->role,
        .rank = record->rank,
        .state = record->state,
        .reason = record->reason,
        .node = record->node,
        .incarnation = record->incarnation,
        .pid = record->pid,
        .endpoint = record->endpoint,
        .doing = record->doing,
        .waiting_for = record->waiting_for,
        .trouble = record->trouble,
        .since_ms = record->since_ms,
        .beat_ms = record->beat_ms,
        .progress_ms = record->progress_ms,
        .rss_bytes = record->rss_bytes,
        .restarts = record->restarts,
    };
}

int controller_find_actor(const Controller *c, const char *name)
{
    for (int i = 0; i < c->num_actors; i++)
        if (strcmp(c->actor[i].name, name) == 0) return i;
    return -1;
}

int controller_num_nodes(const Controller *c)
{
    return c->num_nodes;
}

NodeView controller_node(const Controller *c, int node)
{
    CHECK(node >= 0 && node < c->num_nodes);
    const NodeRecord *record = &c->node[node];
    return (NodeView){.up = record->up,
                      .name = record->name,
                      .pid = record->up ? record->pid : 0,
                      .guard_pid = record->up ? record->guard_pid : 0,
                      .cpus = record->total.cpu,
                      .gpus = record->total.gpu};
}

JobView controller_job(const Controller *c)
{
    static const char *const phases[] = {"starting", "training", "evaluating",
                                         "saving",   "ending",   "done"};
    const Lane *train = &c->lane[SET_TRAIN];
    return (JobView){
        .phase = phases[c->phase],
        .waits_for = c->waits_for,
        .waits_since_ms = c->waits_since_ms,
        .stage = c->done.stage,
        .stage_name = c->config->stage,
        .num_stages = c->num_stages,
        .stage_begin = c->done.stage_begin,
        .step = c->step,
        .total_steps = c->total_steps,
        .next_position = c->next_position,
        .records = stream_known_records(&train->stream, -1),
        .generation = c->generation,
        .samples_ready = (int)job_samples_ready(c),
        .consumed_samples = c->done.consumed_samples,
        .rejected_samples = c->done.rejected_samples,
        .tally = c->done.tally,
        .last_checkpoint = c->checkpoint,
        .best = c->saved.best.count > 0 ? c->saved.best.item[0] : (BestItem){0},
        .data_fingerprint = c->fingerprint[c->done.stage],
        .finished = c->phase == PHASE_OVER,
    };
}

uint32_t controller_generation(const Controller *c)
{
    return c->generation;
}
