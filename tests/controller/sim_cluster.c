/* Nodes with their agents, actor processes, and how they answer calls. */
#include "sim_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "comm/comm.h"

#define NODE_CPUS 16.0
#define NODE_GPUS 4

bool is_train_rank(const World *w, int actor)
{
    return actor >= w->first_train;
}

static bool works(const Process *process)
{
    return process->alive && !process->hung && !process->stuck;
}

/* ---- deaths ---- */

/* What was on its way from a process that has died: its hello is lost, and whoever waits for an
 * answer hears soon that the connection broke, often before he hears why. */
static void break_lines(World *w, int actor)
{
    int count = w->heap_count, broken = 0;
    Event *news = mem_calloc((size_t)count + 1, sizeof *news);
    for (int i = 0; i < count; i++) {
        Event *event = &w->heap[i]->event;
        bool of_call = event->kind == EV_REPLY || event->kind == EV_SPAWN_REPLY;
        if (w->heap[i]->run != NULL || (!of_call && event->kind != EV_ACTOR_HELLO)) continue;
        if (event->actor != actor || w->heap[i]->epoch != w->epoch) continue;
        if (of_call) {
            news[broken] = *event;
            news[broken].status = ERR_UNAVAILABLE;
            news[broken++].message = "the connection broke";
        }
        *event = (Event){.kind = EV_TICK};
    }
    for (int i = 0; i < broken; i++)
        push(w, 1 + draw_below(w, 10), &news[i]);
    free(news);
}

void kill_process(World *w, Process *process, const char *how)
{
    if (!process->alive) return;
    process->alive = false;
    if (!w->node[process->node].up) return;
    break_lines(w, process->actor);
    push(w, 1 + draw_below(w, 20),
         &(Event){.kind = EV_ACTOR_EXITED,
                  .actor = process->actor,
                  .incarnation = process->incarnation,
                  .message = how});
}

static void end_node(World *w, int node)
{
    for (int i = 0; i < w->num_actors; i++)
        if (w->process[i].node == node) w->process[i].alive = false;
    w->node[node].group = 0;
    w->node[node].group_cpu = 0;
    w->node[node].group_gpu = 0;
}

static void agent_is_back(World *w, void *argument)
{
    Node *node = argument;
    node->up = true;
    if (node->dialled) start_agent(w, (int)(node - w->node));
}

void kill_agent(World *w, int node)
{
    for (int i = 0; i < w->num_actors; i++)
        if (w->process[i].alive && w->process[i].node == node) break_lines(w, i);
    end_node(w, node);
    w->node[node].up = false;
    for (int i = 0; i < w->heap_count; i++)
        if (w->heap[i]->run == NULL && w->heap[i]->event.kind == EV_AGENT_UP &&
            w->heap[i]->event.node == node)
            w->heap[i]->event = (Event){.kind = EV_TICK};
    /* An embedded agent's end is told when its guard has cleaned up behind it. */
    push(w, 1 + draw_below(w, chance(w, 0.3) ? 1500 : 50),
         &(Event){.kind = EV_AGENT_LOST, .node = node, .message = "killed by signal 9"});
    w->node[node].dialled = false;
    if (w->num_nodes > 1) /* a daemon: whoever minds the machine starts it again */
        push_run(w, 2000 + draw_below(w, 3000), agent_is_back, &w->node[node]);
}

void kill_everything(World *w)
{
    for (int i = 0; i < w->num_nodes; i++) {
        end_node(w, i);
        w->node[i].dialled = false;
        if (w->num_nodes == 1) w->node[i].up = false;
    }
}

/* ---- agents ---- */

double lent_cpu(const World *w)
{
    double cpu = 0;
    for (int i = 0; i < w->num_nodes; i++)
        cpu += w->node[i].group_cpu + w->node[i].group_gpu;
    return cpu;
}

static double free_cpu(const Node *node)
{
    return NODE_CPUS - node->group_cpu - node->others;
}

/* The embedded agent is started; one that runs by itself answers as soon as it is there. */
void start_agent(World *w, int i)
{
    static const char *const names[NODES_HERE] = {"node-0", "node-1", "node-2", "node-3"};
    Node *node = &w->node[i];
    node->dialled = true;
    if (w->num_nodes == 1) node->up = true;
    if (!node->up) return;
    Event event = {.kind = EV_AGENT_UP, .node = i};
    event.agent.name = names[i];
    event.agent.host = host_name(w, i);
    event.agent.total.cpu = NODE_CPUS;
    event.agent.free.cpu = free_cpu(node);
    event.agent.total.gpu = NODE_GPUS;
    event.agent.free.gpu = NODE_GPUS - node->group_gpu;
    push(w, latency(w), &event);
}

static void others_leave(World *w, void *argument)
{
    (void)w;
    ((Node *)argument)->others = 0;
}

/* Whose GPUs a bundle uses is on the same node, and has some. */
static void check_sharing(World *w, const Effect *fx, const BundleSpec *bundle)
{
    bool found = bundle->gpu_of == 0;
    for (int i = 0; i < fx->group.num_bundles; i++)
        found = found || (fx->group.bundle[i].index == bundle->gpu_of - 1 &&
                          fx->group.bundle[i].need.gpu > 0 && bundle->need.gpu == 0);
    if (!found) violate(w, "a bundle is to use GPUs that are not there");
}

static void prepare(World *w, const Effect *fx, Node *node, Event *event)
{
    double need = 0;
    int gpus = 0;
    for (int i = 0; i < fx->group.num_bundles; i++) {
        need += fx->group.bundle[i].need.cpu;
        gpus += fx->group.bundle[i].need.gpu;
        check_sharing(w, fx, &fx->group.bundle[i]);
    }
    if (node->others == 0 && chance(w, w->faults->refused_grant)) {
        node->others = NODE_CPUS - node->group_cpu;
        disturbed(w);
        push_run(w, 200 + draw_below(w, 4000), others_leave, node);
    }
    if (node->group != 0) violate(w, "two groups of one job on a node");
    event->group.granted = need <= free_cpu(node) && gpus <= NODE_GPUS - node->group_gpu;
    event->group.holders = "job of somebody (16 CPUs)";
    if (event->group.granted) {
        node->group = fx->group.group;
        node->group_cpu = need;
        node->group_gpu = gpus;
    }
    event->group.free.cpu = free_cpu(node);
    event->group.free.gpu = NODE_GPUS - node->group_gpu;
}

static void release(World *w, Node *node)
{
    for (int i = 0; i < w->num_actors; i++)
        if (w->process[i].alive && &w->node[w->process[i].node] == node)
            kill_process(w, &w->process[i], "its group was released");
    node->group = 0;
    node->group_cpu = 0;
    node->group_gpu = 0;
}

void answer_group(World *w, const Effect *fx)
{
    Node *node = &w->node[fx->node];
    Event event = {.kind = EV_GROUP_REPLY, .node = fx->node};
    event.group.call = fx->group.call;
    event.group.group = fx->group.group;
    if (!node->up) {
        event.status = ERR_UNAVAILABLE;
        event.message = "the agent is gone";
    } else if (fx->group.call == GROUP_PREPARE) {
        prepare(w, fx, node, &event);
    } else if (fx->group.call == GROUP_RELEASE) {
        if (node->group == fx->group.group) release(w, node);
    } else if (node->group != fx->group.group || chance(w, w->faults->refused_grant)) {
        event.status = ERR_NOT_FOUND;
        event.message = "its lease has run out";
        disturbed(w);
    }
    push(w, latency(w), &event);
}

void spawn_process(World *w, const Effect *fx)
{
    Process *process = &w->process[fx->actor];
    const Node *node = &w->node[fx->node];
    if (process->alive) violate(w, "actor %d is started while its old process lives", fx->actor);
    Event reply = {.kind = EV_SPAWN_REPLY, .actor = fx->actor, .incarnation = fx->incarnation};
    if (!node->up || node->group != fx->spawn.group) {
        if (node->up && node->group != 0) violate(w, "a process for a group that was given back");
        reply.status = ERR_UNAVAILABLE;
        reply.message = "the agent is gone";
        push(w, 1, &reply);
        return;
    }
    memset(process, 0, sizeof *process);
    process->alive = true;
    process->actor = fx->actor;
    process->node = fx->node;
    process->stage = w->stage_now;
    w->result.train_processes += is_train_rank(w, fx->actor);
    process->incarnation = fx->incarnation;
    process->next_beat_ms = w->now_ms + 500;
    reply.hello.pid = 1000;
    push(w, latency(w), &reply);
    Event hello = {.kind = EV_ACTOR_HELLO, .actor = fx->actor, .incarnation = fx->incarnation};
    hello.hello.pid = 1000;
    hello.hello.endpoint = "sim";
    push(w, latency(w), &hello);
}

/* ---- answering calls ---- */

void answer(World *w, const Effect *fx, int64_t delay_ms, Event *event)
{
    Process *process = &w->process[fx->actor];
    if (process->incarnation == fx->incarnation && process->busy_until_ms < w->now_ms + delay_ms &&
        event->status == OK)
        process->busy_until_ms = w->now_ms + delay_ms;
    event->kind = EV_REPLY;
    event->actor = fx->actor;
    event->incarnation = fx->incarnation;
    event->reply.call = fx->call.call;
    event->reply.id = fx->call.id;
    if (delay_ms > fx->call.timeout_ms) { /* the caller does not wait for so long */
        delay_ms = fx->call.timeout_ms;
        event->status = ERR_TIMEOUT;
    }
    if (event->status != OK && event->message == NULL) event->message = "made-up failure";
    push(w, delay_ms, event);
}

static void answer_failure(World *w, const Effect *fx, Status status)
{
    answer(w, fx, 1 + draw_below(w, 100), &(Event){.status = status});
}

static void answer_at_deadline(World *w, const Effect *fx)
{
    answer(w, fx, fx->call.timeout_ms, &(Event){.status = ERR_TIMEOUT});
}

/* ---- leases: a rollout worker reads from the data source, then makes samples ---- */

typedef struct Reading {
    Effect fx;
    uint64_t source; /* incarnation of the data source that it was told to read from */
    int64_t deadline_ms;
    bool deaf;
    int given_up; /* by the worker when it began */
    uint64_t order;
    int64_t begun_with; /* version */
} Reading;

static void give_up_lease(const World *w, const Effect *fx, Process *worker)
{
    int slot = worker->num_unwanted++ % UNWANTED_KEPT;
    worker->unwanted[slot].set = sim_set(fx);
    worker->unwanted[slot].first = fx->call.lease.first;
    worker->unwanted[slot].order = w->order;
}

static bool is_unwanted(const Process *worker, const Reading *reading)
{
    for (int i = 0; i < worker->num_unwanted && i < UNWANTED_KEPT; i++)
        if (worker->unwanted[i].set == sim_set(&reading->fx) &&
            worker->unwanted[i].first == reading->fx.call.lease.first &&
            worker->unwanted[i].order >= reading->order)
            return true;
    return false;
}

static void hold(Process *worker, int set, int64_t position)
{
    CHECK(position < POSITIONS_MAX);
    worker->holds[set][position / 64] |= 1ull << position % 64;
}

static bool holds(const Process *worker, int set, int64_t position)
{
    return worker->holds[set][position / 64] >> position % 64 & 1;
}

static void let_go(Process *worker, int set, int64_t below)
{
    if (below > POSITIONS_MAX) below = POSITIONS_MAX;
    for (int64_t i = 0; i < below / 64; i++)
        worker->holds[set][i] = 0;
    if (below % 64 != 0) worker->holds[set][below / 64] &= ~0ull << below % 64;
}

static void make_samples(World *w, const Reading *reading, Process *worker)
{
    const Effect *fx = &reading->fx;
    int size = w->group_size[sim_set(fx)], count = 0;
    size_t most = (size_t)(fx->call.lease.count * size);
    SampleMeta *meta = arena_alloc(w->arena, most * sizeof *meta);
    const char **why = arena_alloc(w->arena, most * sizeof *why);
    for (int i = 0; i < fx->call.lease.count; i++) {
        meta[count] = sample_at(w, sim_set(fx), fx->call.lease.first + i);
        if (meta[count].status == SAMPLE_REJECTED) {
            bool told = meta[count].reject_reason != REJECT_TOO_LONG;
            why[count++] = told ? "file:1: a bad record" : NULL;
            continue;
        }
        hold(worker, sim_set(fx), meta[count].position);
        if (generates(w)) make_group(w, worker, reading->begun_with, sim_set(fx), &meta[count]);
        count += size;
    }
    Event event = {0};
    event.reply.lease.meta = meta;
    event.reply.lease.reject_message = why;
    event.reply.lease.count = count;
    worker->progress++;
    answer(w, fx, latency(w), &event);
}

static void read_records(World *w, void *argument)
{
    Reading *reading = argument;
    const Effect *fx = &reading->fx;
    Process *worker = &w->process[fx->actor];
    Process *source = &w->process[fx->call.lease.data_source];
    if (!worker->alive || worker->incarnation != fx->incarnation) return;
    if (!works(worker)) {
        worker->held++;
        return;
    }
    if (worker->given_up != reading->given_up || is_unwanted(worker, reading)) {
        answer_failure(w, fx, ERR_CANCELLED);
        return;
    }
    bool same = source->alive && source->incarnation == reading->source;
    if (same && works(source)) {
        source->progress++;
        make_samples(w, reading, worker);
    } else if (w->now_ms >= reading->deadline_ms) {
        answer(w, fx, 1, &(Event){.status = ERR_TIMEOUT});
    } else if (!same && !reading->deaf) {
        answer_failure(w, fx, ERR_UNAVAILABLE); /* the connection broke */
    } else {
        if (same && source->stuck && !source->hung) source->held = 1;
        push_run(w, 100, read_records, reading);
    }
}

static void answer_lease(World *w, const Effect *fx)
{
    if (w->process[fx->actor].stage != w->stage_now)
        violate(w, "actor %d is of stage %d, leased in stage %d", fx->actor,
                w->process[fx->actor].stage, w->stage_now);
    Reading *reading = arena_alloc(w->arena, sizeof *reading);
    *reading = (Reading){.fx = *fx,
                         .source = w->process[fx->call.lease.data_source].incarnation,
                         .deadline_ms = w->now_ms + fx->call.timeout_ms,
                         .deaf = chance(w, w->faults->deaf_read),
                         .given_up = w->process[fx->actor].given_up,
                         .order = w->order,
                         .begun_with = w->process[fx->actor].adopted.version};
    check_lease(w, fx, &w->process[fx->actor]);
    if (fx->call.lease.first + fx->call.lease.count > POSITIONS_MAX)
        violate(w, "position %lld is leased", (long long)fx->call.lease.first);
    else
        push_run(w, latency(w), read_records, reading);
}

/* ---- train ranks ---- */

static uint64_t plan_hash(const Plan *plan)
{
    uint64_t hash = (uint64_t)plan->step;
    for (int i = 0; i < plan->num_samples; i++)
        hash = rng_mix(hash ^ ((uint64_t)plan->sample[i].position * 31 +
                               (uint64_t)plan->sample[i].index * 7 +
                               (uint64_t)(plan->sample[i].reward * 1024)));
    for (int i = 0; i < plan->num_micro_batches; i++)
        hash = rng_mix(hash ^ (uint64_t)plan->micro_batch[i].count);
    return rng_mix(hash ^ (uint64_t)plan->end_position);
}

/* But for what no batch is made of, where data.remainder does not wrap. */
static void check_epoch(World *w, const Plan *plan)
{
    RemainderPolicy policy = w->config->data.remainder;
    int64_t batch = job_samples_per_step(w->config) / w->group_size[SET_TRAIN];
    int64_t epoch = -1;
    if (plan->set != SET_TRAIN || policy == REMAINDER_WRAP) return;
    for (int i = 0; i < plan->num_samples; i++) {
        int64_t of = plan->sample[i].position / SIM_RECORDS;
        if (epoch >= 0 && of != epoch)
            violate(w, "step %lld trains samples of two epochs", (long long)plan->step);
        epoch = of;
    }
    bool ends = plan->end_position == (epoch + 1) * SIM_RECORDS;
    if (plan->num_groups != batch && (policy == REMAINDER_DROP || !ends))
        violate(w, "step %lld trains %d groups up to position %lld", (long long)plan->step,
                plan->num_groups, (long long)plan->end_position);
}

static void answer_fetch(World *w, const Effect *fx, Process *rank)
{
    const Plan *plan = fx->call.fetch.plan;
    check_versions(w, plan);
    check_epoch(w, plan);
    int *lost = arena_alloc(w->arena, (size_t)plan->num_samples * sizeof *lost);
    int count = 0;
    for (int i = 0; i < plan->num_samples; i++) {
        int holder = plan->sample[i].holder;
        const Process *worker = &w->process[holder];
        bool news = !worker->alive || worker->hung;
        if (!news && !holds(worker, sim_set(fx), plan->sample[i].position))
            violate(w, "actor %d does not hold the sample of position %lld", holder,
                    (long long)plan->sample[i].position);
        for (int k = 0; k < count; k++)
            news = news && lost[k] != holder;
        if (news) lost[count++] = holder;
    }
    int slot = rank->plans[sim_set(fx)]++ % PLANS_KEPT;
    rank->plan[sim_set(fx)][slot].id = plan->id;
    rank->plan[sim_set(fx)][slot].step = plan->step;
    rank->plan[sim_set(fx)][slot].hash = plan_hash(plan);
    Event event = {0};
    event.reply.fetch.lost_holder = lost;
    event.reply.fetch.count = count;
    answer(w, fx, latency(w), &event);
}

/* A rank computes nothing alone: when another one does not get on, it waits in a collective; unless
 * that one stands still after the last. */
static bool gang_works(World *w)
{
    for (int i = w->first_train; i < w->num_actors; i++) {
        const Process *other = &w->process[i];
        bool after_all = other->alive && !other->hung && other->stuck && chance(w, 0.5);
        if (!works(other) && !after_all) return false;
    }
    return true;
}

static void answer_step(World *w, const Effect *fx, Process *rank)
{
    int slot = -1;
    for (int i = 0; i < PLANS_KEPT; i++)
        if (rank->plan[sim_set(fx)][i].id == fx->call.id) slot = i;
    if (slot < 0) {
        violate(w, "rank %d was not given plan %llu", fx->actor, (unsigned long long)fx->call.id);
        return;
    }
    if (rank->stage != w->stage_now)
        violate(w, "rank %d was not told of stage %d", fx->actor, w->stage_now);
    Event event = {0};
    event.reply.step = (StepResult){.loss_sum = 1, .trained_tokens = 1, .tokens = 1};
    if (fx->call.call == CALL_STEP) {
        if (rank->plan[sim_set(fx)][slot].step != rank->step + 1)
            violate(w, "rank %d is at step %lld, was asked for %lld", fx->actor,
                    (long long)rank->step, (long long)rank->plan[sim_set(fx)][slot].step);
        rank->step++;
        rank->weights = rng_mix(rank->weights ^ rank->plan[sim_set(fx)][slot].hash);
        w->result.steps_begun++;
    } else {
        bool last = rank->step >= steps_of_all(w);
        event.reply.step.loss_sum = (double)(rank->weights % 1000);
        if (last && rank->step > w->disk.saved.step && w->faults->failed_save == 0 &&
            w->config->checkpoint.keep_best == 0)
            violate(w, "the last evaluation is made before the last step is saved");
        moved(w);
    }
    answer(w, fx, latency(w), &event);
}

static void answer_start(World *w, const Effect *fx, Process *rank)
{
    bool from_checkpoint = fx->call.start.checkpoint != NULL;
    if (from_checkpoint != w->disk.has_checkpoint)
        violate(w, "rank %d starts %s a checkpoint, but there is %s", fx->actor,
                from_checkpoint ? "from" : "without", w->disk.has_checkpoint ? "one" : "none");
    if (w->disk.landing.pending) violate(w, "ranks load while a commit is under way");
    check_start_of_stage(w, fx->call.start.stage_begin);
    rank->step = from_checkpoint ? w->disk.saved.step : 0;
    rank->weights = from_checkpoint ? w->disk.saved_weights : 1;
    rank->stage = w->stage_now; /* a start says which */
    Event event = {0};
    event.reply.start.step = rank->step;
    event.reply.start.parameters = 1;
    moved(w);
    answer(w, fx, latency(w), &event);
}

static void answer_bootstrap(World *w, const Effect *fx)
{
    static const char id[COMM_ID_BYTES] = "id";
    Event event = {0};
    event.reply.bootstrap.tensor_group_id = fx->call.bootstrap.tensor_group ? id : NULL;
    event.reply.bootstrap.data_group_id = fx->call.bootstrap.data_group ? id : NULL;
    answer(w, fx, latency(w), &event);
}

static void answer_open(World *w, const Effect *fx)
{
    Event event = {0};
    event.reply.open_set.records = sim_records(sim_set(fx));
    event.reply.open_set.fingerprint = "fingerprint";
    event.reply.open_set.changes = "";
    static const int64_t of_source[SIM_SOURCES] = {SIM_RECORDS / 2, SIM_RECORDS / 8, 0};
    bool mixed = sim_set(fx) == 0 && w->config->data.sources.count > 0;
    event.reply.open_set.source_records = of_source;
    event.reply.open_set.num_sources = mixed ? SIM_SOURCES : 1;
    answer(w, fx, w->faults->open_ms + latency(w), &event);
}

/* ---- all calls ---- */

/* The loop thread answers these, whatever the working thread does. */
static bool answered_by_loop(const World *w, const Effect *fx, Process *process)
{
    Event event = {0};
    switch (fx->call.call) {
    case CALL_BOOTSTRAP:
        answer_bootstrap((World *)w, fx);
        return true;
    case CALL_FETCH:
        answer_fetch((World *)w, fx, process);
        return true;
    case CALL_ABANDON:
        answer_abandon((World *)w, fx, process);
        return true;
    case CALL_GIVE_UP:
        give_up_lease(w, fx, process);
        answer((World *)w, fx, latency((World *)w), &event);
        return true;
    case CALL_RELEASE_SAMPLES:
        let_go(process, sim_set(fx), fx->call.release.below);
        answer((World *)w, fx, latency((World *)w), &event);
        return true;
    default:
        return false;
    }
}

static void ends_itself(World *w, Process *process)
{
    w->result.left++;
    kill_process(w, process, "exited with code 0");
}

static void has_tidied_up(World *w, void *argument)
{
    Process *process = argument;
    bool same = process->leaves == process->incarnation;
    if (same && process->alive && !process->hung) ends_itself(w, process);
}

/* Most processes end at once; one that waits for somebody else's program does not. */
static void leave(World *w, const Effect *fx, Process *process)
{
    if (process->stuck || chance(w, w->faults->never_leaves)) {
        answer_at_deadline(w, fx);
        return;
    }
    if (chance(w, 0.5)) {
        ends_itself(w, process);
        return;
    }
    process->leaves = process->incarnation; /* says so, and tidies up first */
    process->given_up++;
    answer(w, fx, latency(w), &(Event){0});
    push_run(w, draw_below(w, 3000), has_tidied_up, process);
}

void answer_call(World *w, const Effect *fx)
{
    Process *process = &w->process[fx->actor];
    if (!process->alive || process->incarnation != fx->incarnation) {
        answer_failure(w, fx, ERR_UNAVAILABLE);
        return;
    }
    bool lost = chance(w, w->faults->lost_reply) && fx->call.timeout_ms < 1000000;
    if (process->hung || lost) {
        if (!process->hung) disturbed(w);
        answer_at_deadline(w, fx);
        return;
    }
    if (fx->call.call == CALL_LEAVE) {
        leave(w, fx, process);
        return;
    }
    if (answered_by_loop(w, fx, process)) return;
    bool collective =
        is_train_rank(w, fx->actor) && fx->call.call != CALL_MEET && fx->call.call != CALL_SEND;
    if (process->stuck || (collective && !gang_works(w))) {
        process->held++;
        return;
    }
    process->progress++;
    if (collective && fx->call.call != CALL_REST_RANK) take_gpu(w, process);
    switch (fx->call.call) {
    case CALL_REST:
    case CALL_REST_RANK:
        process->has_gpu = false;
        check_rest(w, fx->actor);
        answer(w, fx, latency(w), &(Event){0});
        break;
    case CALL_OPEN_SET:
        answer_open(w, fx);
        break;
    case CALL_LEASE:
        answer_lease(w, fx);
        break;
    case CALL_START:
        answer_start(w, fx, process);
        break;
    case CALL_CONFIGURE:
        process->stage = w->stage_now;
        answer(w, fx, latency(w), &(Event){0});
        break;
    case CALL_PUBLISH:
        answer_publish(w, fx, process);
        break;
    case CALL_GROUP:
        answer_group_ids(w, fx, process);
        break;
    case CALL_JOIN:
        answer_join(w, fx, process);
        break;
    case CALL_ADOPT:
        answer_adopt(w, fx, process);
        break;
    case CALL_MEET:
        answer_meet(w, fx, process);
        break;
    case CALL_SEND:
    case CALL_RECEIVE:
        answer_move(w, fx, process);
        break;
    case CALL_SAVE:
        if (process->step != fx->call.save.step)
            violate(w, "rank %d saves step %lld, was asked for %lld", fx->actor,
                    (long long)process->step, (long long)fx->call.save.step);
        answer(w, fx, latency(w), &(Event){0});
        break;
    default:
        answer_step(w, fx, process);
        break;
    }
}
