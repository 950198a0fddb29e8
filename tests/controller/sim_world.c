#include "sim_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "comm/comm.h"

#define VIRTUAL_MS_MAX (4 * 3600 * 1000)
#define STEPS_MAX      512
#define RECORDS        96
#define EVAL_RECORDS   10
#define NODE_CPUS      16.0
#define PLANS_KEPT     2 /* of each set: one that runs and one that comes next */

/* What an actor process of the make-believe cluster is. */
typedef struct Process {
    bool alive, hung;
    int actor;
    uint64_t incarnation;
    int64_t next_beat_ms;
    uint64_t progress;
    /* train ranks */
    int64_t step;
    uint64_t weights;
    struct {
        uint64_t id, hash;
        int64_t step;
    } plan[SET_COUNT][PLANS_KEPT];
    int plans[SET_COUNT];
} Process;

typedef struct Pending {
    int64_t at_ms;
    uint64_t order;
    Event event;
    int epoch; /* of the controller that the event is meant for */
} Pending;

typedef struct World {
    const JobConfig *config;
    const SimFaults *faults;
    uint64_t seed, draws;
    int64_t now_ms;
    Pending *heap;
    int heap_count, heap_capacity;
    uint64_t order;
    Arena *arena;
    Controller *controller;
    EffectList effects;
    int epoch; /* of the controller: raised when it is killed */
    bool stopping;
    Process *process; /* by actor index: the newest incarnation */
    int num_actors;
    bool agent_up;
    double cpu_free;
    struct {
        uint64_t id;
        double cpu;
    } group;
    /* disk */
    CheckpointState saved;
    uint64_t saved_weights;
    bool has_checkpoint;
    uint64_t writing_weights;
    int64_t ledger_end[STEPS_MAX + 1]; /* positions consumed after each step */
    int64_t ledger_steps;
    int kills_left, agent_kills_left, hangs_left, controller_kills_left, stops_left;
    int64_t next_fault_ms;
    bool over;
    SimResult result;
} World;

/* ---- chance ---- */

static uint64_t draw(World *w)
{
    return rng_mix(w->seed ^ rng_mix(++w->draws));
}

static int64_t draw_below(World *w, int64_t bound)
{
    return (int64_t)(draw(w) % (uint64_t)bound);
}

static bool chance(World *w, double probability)
{
    return (double)(draw(w) >> 11) * 0x1p-53 < probability;
}

static int64_t latency(World *w)
{
    return 1 + draw_below(w, chance(w, 0.05) ? 2000 : 20);
}

/* ---- time ---- */

static bool earlier(const Pending *a, const Pending *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void push(World *w, int64_t delay_ms, const Event *event)
{
    if (w->heap_count == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity != 0 ? 2 * w->heap_capacity : 256;
        w->heap = mem_realloc(w->heap, (size_t)w->heap_capacity, sizeof *w->heap);
    }
    int at = w->heap_count++;
    w->heap[at] = (Pending){w->now_ms + delay_ms, w->order++, *event, w->epoch};
    while (at > 0 && earlier(&w->heap[at], &w->heap[(at - 1) / 2])) {
        Pending other = w->heap[at];
        w->heap[at] = w->heap[(at - 1) / 2];
        w->heap[(at - 1) / 2] = other;
        at = (at - 1) / 2;
    }
}

static Pending pop(World *w)
{
    Pending first = w->heap[0];
    w->heap[0] = w->heap[--w->heap_count];
    for (int at = 0;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2 && child < w->heap_count; child++)
            if (earlier(&w->heap[child], &w->heap[least])) least = child;
        if (least == at) break;
        Pending other = w->heap[at];
        w->heap[at] = w->heap[least];
        w->heap[least] = other;
        at = least;
    }
    return first;
}

/* ---- the data: a pure function of the position ---- */

static SampleMeta sample_at(int64_t position)
{
    uint64_t h = rng_mix((uint64_t)position % RECORDS + 77);
    bool rejected = h % 9 == 0;
    return (SampleMeta){
        .position = position,
        .status = rejected ? SAMPLE_REJECTED : SAMPLE_COMPLETED,
        .reject_reason = rejected ? REJECT_TOO_LONG : REJECT_NONE,
        .length = 5 + (int32_t)(h >> 20 & 63),
        .trained_tokens = 1 + (int32_t)(h >> 30 & 3),
    };
}

static uint64_t plan_hash(const Plan *plan)
{
    uint64_t hash = (uint64_t)plan->step;
    for (int i = 0; i < plan->num_samples; i++)
        hash = rng_mix(hash ^ (uint64_t)plan->sample[i].position * 31);
    for (int i = 0; i < plan->num_micro_batches; i++)
        hash = rng_mix(hash ^ (uint64_t)plan->micro_batch[i].count);
    return rng_mix(hash ^ (uint64_t)plan->end_position);
}

/* ---- deaths ---- */

static void die(World *w, Process *process, const char *how)
{
    if (!process->alive) return;
    process->alive = false;
    w->result.deaths++;
    if (!w->agent_up) return;
    push(w, 1 + draw_below(w, 20),
         &(Event){.kind = EV_ACTOR_EXITED,
                  .actor = process->actor,
                  .incarnation = process->incarnation,
                  .message = how});
}

static void kill_everything(World *w)
{
    for (int i = 0; i < w->num_actors; i++)
        w->process[i].alive = false;
    w->agent_up = false;
    w->cpu_free = NODE_CPUS;
    w->group.id = 0;
}

static void kill_agent(World *w)
{
    if (!w->agent_up) return;
    w->result.deaths++;
    kill_everything(w);
    for (int i = 0; i < w->heap_count; i++) /* its hello will not be answered any more */
        if (w->heap[i].event.kind == EV_AGENT_UP) w->heap[i].event = (Event){.kind = EV_TICK};
    push(w, 1 + draw_below(w, 50),
         &(Event){.kind = EV_AGENT_LOST, .message = "killed by signal 9"});
}

static Process *random_process(World *w)
{
    Process *process = &w->process[draw_below(w, w->num_actors)];
    return process->alive ? process : NULL;
}

/* ---- answering calls ---- */

static void answer(World *w, const Effect *fx, int64_t delay_ms, Event *event)
{
    event->kind = EV_REPLY;
    event->actor = fx->actor;
    event->incarnation = fx->incarnation;
    event->reply.call = fx->call.call;
    event->reply.id = fx->call.id;
    if (event->status != OK && event->message == NULL) event->message = "made-up failure";
    push(w, delay_ms, event);
}

static void answer_nothing(World *w, const Effect *fx, Status status)
{
    int64_t delay_ms = status == ERR_TIMEOUT ? fx->call.timeout_ms : 1 + draw_below(w, 100);
    answer(w, fx, delay_ms, &(Event){.status = status});
}

static void answer_lease(World *w, const Effect *fx)
{
    Process *source = &w->process[fx->call.lease.data_source];
    if (!source->alive || source->hung) {
        answer_nothing(w, fx, source->alive ? ERR_TIMEOUT : ERR_UNAVAILABLE);
        return;
    }
    int count = fx->call.lease.count;
    SampleMeta *meta = arena_alloc(w->arena, (size_t)count * sizeof *meta);
    const char **why = arena_alloc(w->arena, (size_t)count * sizeof *why);
    for (int i = 0; i < count; i++)
        meta[i] = sample_at(fx->call.lease.first + i);
    Event event = {0};
    event.reply.lease.meta = meta;
    event.reply.lease.reject_message = why;
    event.reply.lease.count = count;
    answer(w, fx, latency(w), &event);
}

static void answer_fetch(World *w, const Effect *fx, Process *rank)
{
    const Plan *plan = fx->call.fetch.plan;
    int *lost = arena_alloc(w->arena, (size_t)plan->num_samples * sizeof *lost);
    int count = 0;
    for (int i = 0; i < plan->num_samples; i++) {
        int holder = plan->sample[i].holder;
        bool known = !w->process[holder].alive || w->process[holder].hung;
        for (int k = 0; k < count; k++)
            known = known && lost[k] != holder;
        if (known) lost[count++] = holder;
    }
    int slot = rank->plans[plan->set]++ % PLANS_KEPT;
    rank->plan[plan->set][slot].id = plan->id;
    rank->plan[plan->set][slot].step = plan->step;
    rank->plan[plan->set][slot].hash = plan_hash(plan);
    Event event = {0};
    event.reply.fetch.lost_holder = lost;
    event.reply.fetch.count = count;
    answer(w, fx, latency(w), &event);
}

/* Every rank computes alone here; that they agree, and that none steps without the others, is
 * checked from outside. */
static void answer_step(World *w, const Effect *fx, Process *rank)
{
    int slot = -1;
    for (int i = 0; i < PLANS_KEPT; i++)
        if (rank->plan[fx->call.set][i].id == fx->call.id) slot = i;
    CHECKF(slot >= 0, "rank %d was not given plan %llu", fx->actor,
           (unsigned long long)fx->call.id);
    Event event = {0};
    event.reply.step = (StepResult){.loss_sum = 1, .trained_tokens = 1, .tokens = 1};
    if (fx->call.call == CALL_STEP) {
        CHECKF(rank->plan[fx->call.set][slot].step == rank->step + 1,
               "rank %d is at step %lld, was asked for %lld", fx->actor, (long long)rank->step,
               (long long)rank->plan[fx->call.set][slot].step);
        rank->step++;
        rank->weights = rng_mix(rank->weights ^ rank->plan[fx->call.set][slot].hash);
    }
    answer(w, fx, latency(w), &event);
}

static void answer_start(World *w, const Effect *fx, Process *rank)
{
    bool from_checkpoint = fx->call.start.checkpoint != NULL;
    CHECK(from_checkpoint == w->has_checkpoint);
    rank->step = from_checkpoint ? w->saved.step : 0;
    rank->weights = from_checkpoint ? w->saved_weights : 1;
    Event event = {0};
    event.reply.start.step = rank->step;
    event.reply.start.parameters = 1;
    answer(w, fx, latency(w), &event);
}

static void answer_call(World *w, const Effect *fx)
{
    static const char id[COMM_ID_BYTES] = "id";
    Process *process = &w->process[fx->actor];
    if (!process->alive || process->incarnation != fx->incarnation) {
        answer_nothing(w, fx, ERR_UNAVAILABLE);
        return;
    }
    bool lost = chance(w, w->faults->lost_reply) && fx->call.timeout_ms < 1000000;
    if (process->hung || lost) {
        answer_nothing(w, fx, ERR_TIMEOUT);
        return;
    }
    process->progress++;
    Event event = {0};
    switch (fx->call.call) {
    case CALL_OPEN_SET:
        event.reply.open_set.records = fx->call.set == SET_TRAIN ? RECORDS : EVAL_RECORDS;
        event.reply.open_set.fingerprint = "fingerprint";
        answer(w, fx, latency(w), &event);
        break;
    case CALL_LEASE:
        answer_lease(w, fx);
        break;
    case CALL_BOOTSTRAP:
        event.reply.bootstrap.tensor_group_id = fx->call.bootstrap.tensor_group ? id : NULL;
        event.reply.bootstrap.data_group_id = fx->call.bootstrap.data_group ? id : NULL;
        answer(w, fx, latency(w), &event);
        break;
    case CALL_START:
        answer_start(w, fx, process);
        break;
    case CALL_FETCH:
        answer_fetch(w, fx, process);
        break;
    case CALL_STEP:
    case CALL_EVALUATE:
        answer_step(w, fx, process);
        break;
    case CALL_SAVE:
        CHECK(process->step == fx->call.save.step);
        w->writing_weights = process->weights;
        answer(w, fx, latency(w), &event);
        break;
    default:
        answer(w, fx, latency(w), &event);
        break;
    }
}

/* ---- the agent ---- */

static void answer_group(World *w, const Effect *fx)
{
    Event event = {.kind = EV_GROUP_REPLY, .node = fx->node};
    event.group.call = fx->group.call;
    event.group.group = fx->group.group;
    if (!w->agent_up) {
        event.status = ERR_UNAVAILABLE;
        event.message = "the agent is gone";
    } else if (fx->group.call == GROUP_PREPARE) {
        double need = 0;
        for (int i = 0; i < fx->group.num_bundles; i++)
            need += fx->group.bundle[i].need.cpu;
        event.group.granted = need <= w->cpu_free;
        event.group.holders = "somebody";
        if (event.group.granted) {
            w->cpu_free -= need;
            w->group.id = fx->group.group;
            w->group.cpu = need;
        }
        event.group.free.cpu = w->cpu_free;
    } else if (fx->group.call == GROUP_RELEASE && w->group.id == fx->group.group) {
        w->cpu_free += w->group.cpu;
        w->group.id = 0;
    }
    push(w, latency(w), &event);
}

static void spawn(World *w, const Effect *fx)
{
    Process *process = &w->process[fx->actor];
    CHECKF(!process->alive, "actor %d is started while its old process lives", fx->actor);
    CHECK(!w->agent_up || w->group.id == fx->spawn.group);
    Event reply = {.kind = EV_SPAWN_REPLY, .actor = fx->actor, .incarnation = fx->incarnation};
    if (!w->agent_up) {
        reply.status = ERR_UNAVAILABLE;
        reply.message = "the agent is gone";
        push(w, 1, &reply);
        return;
    }
    *process = (Process){.alive = true, .actor = fx->actor, .incarnation = fx->incarnation};
    process->next_beat_ms = w->now_ms + 500;
    reply.hello.pid = 1000;
    push(w, latency(w), &reply);
    Event hello = {.kind = EV_ACTOR_HELLO, .actor = fx->actor, .incarnation = fx->incarnation};
    hello.hello.pid = 1000;
    hello.hello.endpoint = "sim";
    push(w, latency(w), &hello);
}

/* ---- effects ---- */

static void checkpoint_effect(World *w, const Effect *fx)
{
    Event event = {.kind =
                       fx->kind == FX_CHECKPOINT_BEGIN ? EV_CHECKPOINT_BEGUN : EV_CHECKPOINT_DONE};
    event.checkpoint.path = "folder";
    if (chance(w, w->faults->failed_save)) {
        event.status = ERR_RESOURCE;
        event.message = "no space left on device";
    } else if (fx->kind == FX_CHECKPOINT_COMMIT) {
        CHECK(w->ledger_steps == fx->checkpoint.state.step);
        w->saved = fx->checkpoint.state;
        w->saved_weights = w->writing_weights;
        w->has_checkpoint = true;
    }
    push(w, latency(w), &event);
}

static void append_to_ledger(World *w, const Plan *plan)
{
    CHECKF(plan->step == w->ledger_steps + 1, "step %lld follows step %lld in the ledger",
           (long long)plan->step, (long long)w->ledger_steps);
    CHECK(plan->step <= STEPS_MAX);
    CHECK(plan->first_position == w->ledger_end[w->ledger_steps]);
    w->ledger_end[++w->ledger_steps] = plan->end_position;
    uint64_t weights = w->process[w->num_actors - 1].weights;
    for (int i = 0; i < w->num_actors; i++)
        if (controller_actor(w->controller, i).role == ROLE_TRAIN && w->process[i].alive)
            CHECKF(w->process[i].weights == weights || !w->process[w->num_actors - 1].alive,
                   "ranks differ after step %lld", (long long)plan->step);
}

static void carry_out(World *w, const Effect *fx)
{
    switch (fx->kind) {
    case FX_START_AGENT: {
        w->agent_up = true;
        w->cpu_free = NODE_CPUS;
        Event event = {.kind = EV_AGENT_UP, .node = fx->node};
        event.agent.name = "node";
        event.agent.total.cpu = event.agent.free.cpu = NODE_CPUS;
        push(w, latency(w), &event);
        break;
    }
    case FX_GROUP:
        answer_group(w, fx);
        break;
    case FX_SPAWN:
        spawn(w, fx);
        break;
    case FX_KILL: {
        Process *process = &w->process[fx->actor];
        if (process->incarnation == fx->incarnation) die(w, process, "killed as asked");
        break;
    }
    case FX_CALL:
        answer_call(w, fx);
        break;
    case FX_CHECKPOINT_BEGIN:
    case FX_CHECKPOINT_COMMIT:
        checkpoint_effect(w, fx);
        break;
    case FX_LEDGER_APPEND:
        append_to_ledger(w, fx->ledger.plan);
        break;
    case FX_LEDGER_REWIND:
        w->ledger_steps = fx->checkpoint.state.step;
        CHECK(w->ledger_end[w->ledger_steps] == fx->checkpoint.state.next_position);
        break;
    case FX_EXIT:
        w->over = true;
        w->result.status = fx->exit.status;
        snprintf(w->result.message, sizeof w->result.message, "%s", fx->exit.message);
        break;
    default:
        break; /* reports */
    }
}

static void carry_out_all(World *w)
{
    for (int i = 0; i < w->effects.count; i++)
        carry_out(w, &w->effects.item[i]);
    w->effects.count = 0;
}

static void feed(World *w, const Event *event)
{
    controller_step(w->controller, event, w->now_ms, &w->effects);
    carry_out_all(w);
}

/* ---- the run ---- */

static void start_controller(World *w)
{
    controller_destroy(w->controller);
    w->effects.count = 0;
    w->epoch++;
    w->over = false;
    w->stopping = false;
    ControllerStart start = {
        .config = w->config,
        .nonce = draw(w),
        .num_nodes = 1,
        .embedded_agent = true,
        .checkpoint = w->has_checkpoint ? "folder" : NULL,
        .state = w->saved,
        .data_fingerprint = w->has_checkpoint ? "fingerprint" : NULL,
    };
    w->controller = controller_create(&start, w->now_ms, &w->effects);
    if (w->process == NULL) {
        w->num_actors = controller_num_actors(w->controller);
        w->process = mem_calloc((size_t)w->num_actors, sizeof *w->process);
    }
    carry_out_all(w);
}

static void restart_controller(World *w)
{
    kill_everything(w);
    w->result.restarts_of_controller++;
    start_controller(w);
}

static void inject_fault(World *w)
{
    w->next_fault_ms = w->now_ms + 20 + draw_below(w, 4000);
    Process *process = random_process(w);
    switch (draw_below(w, 5)) {
    case 0:
        if (w->kills_left > 0 && process != NULL) {
            w->kills_left--;
            die(w, process, "killed by signal 9 (SIGKILL)");
        }
        break;
    case 1:
        if (w->hangs_left > 0 && process != NULL) {
            w->hangs_left--;
            process->hung = true;
        }
        break;
    case 2:
        if (w->agent_kills_left > 0 && w->agent_up) {
            w->agent_kills_left--;
            kill_agent(w);
        }
        break;
    case 3:
        if (w->controller_kills_left > 0) {
            w->controller_kills_left--;
            restart_controller(w);
        }
        break;
    default:
        if (w->stops_left > 0 && !w->stopping) {
            w->stops_left--;
            w->stopping = true;
            feed(w, &(Event){.kind = EV_STOP});
        }
        break;
    }
}

static void beats(World *w)
{
    for (int i = 0; i < w->num_actors; i++) {
        Process *process = &w->process[i];
        if (!process->alive || process->hung || w->now_ms < process->next_beat_ms) continue;
        process->next_beat_ms = w->now_ms + 500;
        Event event = {.kind = EV_ACTOR_BEAT, .actor = i, .incarnation = process->incarnation};
        event.beat.progress = process->progress;
        event.beat.doing = "simulated";
        event.beat.waiting_for = "";
        feed(w, &event);
    }
}

static void advance_time(World *w)
{
    int64_t tick = w->now_ms + 100;
    if (w->heap_count > 0 && w->heap[0].at_ms <= tick) {
        Pending pending = pop(w);
        w->now_ms = pending.at_ms > w->now_ms ? pending.at_ms : w->now_ms;
        if (pending.epoch == w->epoch) feed(w, &pending.event);
    } else {
        w->now_ms = tick;
        feed(w, &(Event){.kind = EV_TICK});
    }
    beats(w);
    if (w->now_ms >= w->next_fault_ms && !w->over) inject_fault(w);
    if (w->over && w->stopping && w->result.status == ERR_CANCELLED) restart_controller(w);
}

SimResult sim_run(const JobConfig *config, const SimFaults *faults, uint64_t seed)
{
    World w = {
        .config = config,
        .faults = faults,
        .seed = seed,
        .cpu_free = NODE_CPUS,
        .kills_left = faults->kills,
        .agent_kills_left = faults->agent_kills,
        .hangs_left = faults->hangs,
        .controller_kills_left = faults->controller_kills,
        .stops_left = faults->stops,
    };
    w.arena = arena_create();
    w.next_fault_ms = draw_below(&w, 2000);
    start_controller(&w);
    while (!w.over && w.now_ms < VIRTUAL_MS_MAX)
        advance_time(&w);
    w.result.finished = w.over;
    w.result.weights = w.saved_weights;
    w.result.steps = w.saved.step;
    w.result.end_ms = w.now_ms;
    for (int i = 0; i < w.num_actors; i++)
        w.result.leftover_processes += w.process[i].alive;
    w.result.leftover_cpu = NODE_CPUS - w.cpu_free;
    if (!w.over)
        snprintf(w.result.message, sizeof w.result.message, "in phase %s, waits for %s",
                 controller_job(w.controller).phase, controller_job(w.controller).waits_for);
    controller_destroy(w.controller);
    effect_list_free(&w.effects);
    arena_destroy(w.arena);
    free(w.heap);
    free(w.process);
    return w.result;
}
