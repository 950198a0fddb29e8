#include "sim_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define VIRTUAL_MS_MAX (4 * 3600 * 1000)
#define SESSIONS_MAX   60
#define BEAT_MS        500
/* Nothing but a fault may hold a run up for so long: detection of silence and of standing still
 * (dead_ms, progress_s), a death's delays and the deadlines of calls are all below it. */
#define STALL_MS 70000

/* ---- chance ---- */

uint64_t draw(World *w)
{
    return rng_mix(w->seed ^ rng_mix(++w->draws));
}

int64_t draw_below(World *w, int64_t bound)
{
    return (int64_t)(draw(w) % (uint64_t)bound);
}

bool chance(World *w, double probability)
{
    return probability > 0 && (double)(draw(w) >> 11) * 0x1p-53 < probability;
}

int64_t latency(World *w)
{
    return 1 + draw_below(w, chance(w, 0.05) ? 2000 : 20);
}

/* ---- the books ---- */

void violate(World *w, const char *format, ...)
{
    if (w->result.violation[0] != '\0') return;
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(w->result.violation, sizeof w->result.violation, "at %lld ms: %s",
             (long long)w->now_ms, what);
    w->over = true;
}

void moved(World *w)
{
    w->moved_ms = w->now_ms;
}

void disturbed(World *w)
{
    w->moved_ms = w->now_ms;
}

static void check_that_it_moves(World *w)
{
    /* A lost reply is known at the deadline of its call, and those are minutes. */
    if (w->faults->lost_reply > 0 || w->over || w->now_ms - w->moved_ms < STALL_MS) return;
    JobView job = controller_job(w->controller);
    violate(w, "nothing has happened for %d s: %s, waits for %s", STALL_MS / 1000, job.phase,
            job.waits_for);
}

int64_t steps_of_all(const World *w)
{
    int64_t steps = 0;
    for (int i = 0; i < w->num_stages; i++)
        steps += w->stage[i].config->train.num_steps;
    return steps;
}

/* ---- the data: a pure function of set and position ---- */

int sim_set(const Effect *fx)
{
    if (strcmp(fx->call.set_name, "train") == 0) return 0;
    return strcmp(fx->call.set_name, "eval") == 0 ? 1 : 2;
}

int64_t sim_records(int set)
{
    return set == 0 ? SIM_RECORDS : set == 1 ? SIM_EVAL_RECORDS : SIM_EVAL_RECORDS - 3;
}

SampleMeta sample_at(const World *w, int set, int64_t position)
{
    int64_t records = sim_records(set);
    int64_t bad = set == 0 ? w->faults->bad_records : set == 1 ? w->faults->bad_eval_records : 0;
    int64_t record = (position * 7 + position / records * 5) % records; /* an order per epoch */
    uint64_t h =
        rng_mix((uint64_t)record + 77 + 1000 * (uint64_t)set + 1000000 * (uint64_t)w->stage_now);
    SampleMeta meta = {
        .position = position,
        .status = SAMPLE_COMPLETED,
        .length = 5 + (int32_t)(h >> 20 & 63),
        .trained_tokens = 1 + (int32_t)(h >> 30 & 3),
    };
    bool bad_position = set == 0 && position > 0 && position == w->faults->bad_position;
    if (record < bad || bad_position)
        meta.reject_reason =
            w->faults->bad_as != REJECT_NONE ? w->faults->bad_as : REJECT_BAD_RECORD;
    else if (h % 9 == 0)
        meta.reject_reason = REJECT_TOO_LONG;
    if (meta.reject_reason != REJECT_NONE) meta.status = SAMPLE_REJECTED;
    return meta;
}

/* ---- time ---- */

static bool earlier(const Pending *a, const Pending *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void swap(Pending **a, Pending **b)
{
    Pending *other = *a;
    *a = *b;
    *b = other;
}

static void push_pending(World *w, const Pending *pending)
{
    if (w->heap_count == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity != 0 ? 2 * w->heap_capacity : 256;
        w->heap = mem_realloc(w->heap, (size_t)w->heap_capacity, sizeof *w->heap);
    }
    Pending *mine = w->idle;
    if (mine != NULL)
        w->idle = mine->next;
    else
        mine = mem_alloc(sizeof *mine);
    *mine = *pending;
    mine->order = w->order++;
    mine->epoch = w->epoch;
    int at = w->heap_count++;
    w->heap[at] = mine;
    for (; at > 0 && earlier(w->heap[at], w->heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&w->heap[at], &w->heap[(at - 1) / 2]);
}

void push(World *w, int64_t delay_ms, const Event *event)
{
    push_pending(w, &(Pending){.at_ms = w->now_ms + delay_ms, .event = *event});
}

void push_run(World *w, int64_t delay_ms, void (*run)(World *w, void *argument), void *argument)
{
    push_pending(w, &(Pending){.at_ms = w->now_ms + delay_ms, .run = run, .argument = argument});
}

/* It is to be given back when it was told. */
static Pending *pop(World *w)
{
    Pending *first = w->heap[0];
    w->heap[0] = w->heap[--w->heap_count];
    for (int at = 0;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2 && child < w->heap_count; child++)
            if (earlier(w->heap[child], w->heap[least])) least = child;
        if (least == at) return first;
        swap(&w->heap[at], &w->heap[least]);
        at = least;
    }
}

static void give_back(World *w, Pending *pending)
{
    pending->next = w->idle;
    w->idle = pending;
}

static void free_heap(World *w)
{
    while (w->heap_count > 0)
        give_back(w, w->heap[--w->heap_count]);
    for (Pending *next; w->idle != NULL; w->idle = next) {
        next = w->idle->next;
        free(w->idle);
    }
    free(w->heap);
}

/* ---- effects ---- */

/* A step is done: the wait for the next one has only begun. */
static void check_wait(World *w)
{
    JobView job = controller_job(w->controller);
    if (strncmp(job.waits_for, "training step", 13) == 0 && job.waits_since_ms != w->now_ms)
        violate(w, "the wait for %s began %lld ms ago, before the step did", job.waits_for,
                (long long)(w->now_ms - job.waits_since_ms));
}

/* What a step says it took, waiting included, lies between the step before and now. */
static void check_times(World *w, const Effect *fx)
{
    const Plan *plan = fx->step.plan;
    double turn_ms = 1000 * (fx->step.seconds + fx->step.wait_s);
    if (fx->step.wait_s < 0 || turn_ms > (double)(w->now_ms - w->told_ms) + 0.5)
        violate(w, "step %lld took %.0f ms, %.0f of them waiting, %lld ms after the one before",
                (long long)fx->step.step, turn_ms, 1000 * fx->step.wait_s,
                (long long)(w->now_ms - w->told_ms));
    if (plan->begun_ms > plan->done_ms || plan->done_ms > w->now_ms)
        violate(w, "the samples of step %lld were made from %lld to %lld", (long long)fx->step.step,
                (long long)plan->begun_ms, (long long)plan->done_ms);
    w->told_ms = w->now_ms;
}

void check_start_of_stage(World *w, int64_t begin)
{
    if (job_refers_to_start(w->config) && begin > 0 && !w->disk.landed[begin])
        violate(w, "a stage stays near to step %lld, of which there is no checkpoint",
                (long long)begin);
}

static void enter_stage(World *w, int stage)
{
    w->stage_now = stage;
    w->config = w->stage[stage].config;
    note_group_sizes(w);
    w->result.stages++;
    if (w->controller != NULL) check_start_of_stage(w, controller_job(w->controller).stage_begin);
}

/* What a real controller writes down before anything else. */
static void keep_swap(World *w, const Effect *fx)
{
    CHECK(fx->swapped.stage < STAGES_MAX);
    w->stage[fx->swapped.stage - 1].swapped = true;
    w->stage[fx->swapped.stage - 1].last_step = fx->swapped.last_step;
    w->stage[fx->swapped.stage] = (Stage){.config = w->faults->swap};
    w->num_stages = fx->swapped.stage + 1;
}

static void carry_out(World *w, const Effect *fx)
{
    switch (fx->kind) {
    case FX_START_AGENT:
        start_agent(w, fx->node);
        break;
    case FX_GROUP:
        answer_group(w, fx);
        break;
    case FX_SPAWN:
        spawn_process(w, fx);
        break;
    case FX_KILL: {
        Process *process = &w->process[fx->actor];
        bool ending = strcmp(controller_job(w->controller).phase, "ending") == 0;
        w->result.killed_amid += process->alive && !ending;
        if (process->incarnation == fx->incarnation) kill_process(w, process, "killed as asked");
        break;
    }
    case FX_CALL:
        answer_call(w, fx);
        break;
    case FX_CHECKPOINT_BEGIN:
    case FX_CHECKPOINT_FILES:
    case FX_CHECKPOINT_COMMIT:
    case FX_CHECKPOINT_ABANDON:
    case FX_LEDGER_APPEND:
    case FX_LEDGER_REWIND:
        disk_effect(w, fx);
        break;
    case FX_STAGE:
        enter_stage(w, fx->stage.stage);
        break;
    case FX_SWAPPED:
        keep_swap(w, fx);
        break;
    case FX_REPORT_STEP:
        check_wait(w);
        check_times(w, fx);
        break;
    case FX_REPORT_EVAL:
        w->result.evaluations++;
        moved(w);
        break;
    case FX_LOG:
        if (strcmp(fx->log.event, "tried_again") != 0) break;
        w->result.troubles_told++;
        snprintf(w->result.trouble, sizeof w->result.trouble, "%s", fx->log.text);
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
    for (int i = 0; i < w->effects.count && w->result.violation[0] == '\0'; i++)
        carry_out(w, &w->effects.item[i]);
    w->effects.count = 0;
}

static void feed(World *w, const Event *event)
{
    controller_step(w->controller, event, w->now_ms, &w->effects);
    carry_out_all(w);
}

/* ---- sessions ---- */

static void begin_books(World *w)
{
    w->epoch++;
    w->over = w->stopping = false;
    w->causes = 0;
    w->moved_ms = w->now_ms;
}

static void start_controller(World *w)
{
    controller_destroy(w->controller);
    w->effects.count = 0;
    begin_books(w);
    ControllerStart start = {
        .stage = w->stage,
        .num_stages = w->num_stages,
        .nonce = draw(w),
        .num_nodes = w->num_nodes,
        .embedded_agent = w->num_nodes == 1,
        .checkpoint = w->disk.has_checkpoint ? "folder" : NULL,
        .state = w->disk.saved,
        .data_fingerprint = w->disk.has_checkpoint ? "fingerprint" : NULL,
    };
    Error err = {0};
    if (controller_check_start(&start, &err) != OK) { /* as its shell does */
        w->controller = NULL;
        w->over = true;
        w->result.status = err.status;
        snprintf(w->result.message, sizeof w->result.message, "%s", err.message);
        return;
    }
    w->controller = controller_create(&start, w->now_ms, &w->effects);
    if (w->process == NULL) {
        w->num_actors = controller_num_actors(w->controller);
        w->process = mem_calloc((size_t)w->num_actors, sizeof *w->process);
        while (controller_actor(w->controller, w->first_train).role != ROLE_TRAIN)
            w->first_train++;
        w->first_behind = 1;
        while (w->first_behind < w->first_train &&
               strchr(controller_actor(w->controller, w->first_behind).name, '.') == NULL)
            w->first_behind++;
    }
    carry_out_all(w);
}

static void restart_controller(World *w)
{
    kill_everything(w);
    disk_controller_died(w);
    w->result.restarts_of_controller++;
    if (w->faults->later != NULL) w->stage[0].config = w->faults->later;
    start_controller(w);
}

/* The last words of a run that was stopped say what the disk holds. A commit that is still out may
 * land after them. */
static void check_promise(World *w)
{
    const char *message = w->result.message;
    char expected[64] = "Committed: nothing.";
    if (w->config->rollout.only) { /* it has nothing to commit */
        if (strstr(message, "batches are in") == NULL) violate(w, "the message: %s", message);
        return;
    }
    if (strstr(message, "is being committed yet") != NULL) return;
    if (w->disk.has_checkpoint)
        snprintf(expected, sizeof expected, "Committed: step %lld (",
                 (long long)w->disk.saved.step);
    if (strstr(message, expected) == NULL)
        violate(w, "the disk has \"%s\", the message: %s", expected, message);
    bool anew = strstr(message, "The same command begins anew") != NULL;
    if (anew == w->disk.has_checkpoint) violate(w, "wrong advice: %s", message);
}

/* Whether the end of a session says what deserves it, and is one after which people give the same
 * command again. */
static bool deserves_another(World *w)
{
    const SimFaults *faults = w->faults;
    const char *message = w->result.message;
    bool again = strstr(message, "same command") != NULL;
    switch (w->result.status) {
    case ERR_CANCELLED:
        check_promise(w);
        return w->stopping;
    case ERR_RESOURCE:
        return (faults->failed_save > 0 && again && strstr(message, "checkpoint") != NULL) ||
               (faults->failed_append > 0 && again && strstr(message, "ledger") != NULL);
    case ERR_UNAVAILABLE:
        if (strstr(message, "restarts_max") == NULL) return false;
        if (faults->lost_reply == 0 && w->causes <= w->config->cluster.restarts_max)
            violate(w, "gave up after %d faults: %s", w->causes, message);
        return true;
    default:
        return false;
    }
}

static bool is_tidy(World *w)
{
    w->result.leftover_processes = 0;
    for (int i = 0; i < w->num_actors; i++)
        w->result.leftover_processes += w->process[i].alive;
    w->result.leftover_cpu = lent_cpu(w);
    return w->result.leftover_processes == 0 && w->result.leftover_cpu == 0;
}

static void end_session(World *w)
{
    bool another = deserves_another(w);
    if (!is_tidy(w))
        violate(w, "%d processes and %g CPUs are left", w->result.leftover_processes,
                w->result.leftover_cpu);
    if (!another || w->result.restarts_of_controller >= SESSIONS_MAX ||
        w->result.violation[0] != '\0')
        return;
    w->result.ended[w->result.status]++;
    restart_controller(w);
}

/* ---- faults ---- */

static Process *random_process(World *w)
{
    Process *process = &w->process[draw_below(w, w->num_actors)];
    return process->alive ? process : NULL;
}

static bool take_one(int *left, bool possible)
{
    if (*left <= 0 || !possible) return false;
    --*left;
    return true;
}

static void strike(World *w)
{
    w->causes++;
    w->result.deaths++;
    disturbed(w);
}

static void inject_fault(World *w)
{
    w->next_fault_ms = w->now_ms + 20 + draw_below(w, 4000);
    Process *process = random_process(w);
    int node = (int)draw_below(w, w->num_nodes);
    switch (draw_below(w, 6)) {
    case 0:
        if (!take_one(&w->kills_left, process != NULL)) break;
        strike(w);
        kill_process(w, process, "killed by signal 9 (SIGKILL)");
        break;
    case 1:
        if (!take_one(&w->hangs_left, process != NULL && !process->hung)) break;
        strike(w);
        process->hung = true;
        break;
    case 2:
        if (!take_one(&w->agent_kills_left, w->node[node].up && w->node[node].dialled)) break;
        strike(w);
        kill_agent(w, node);
        break;
    case 3:
        if (!take_one(&w->stuck_left, process != NULL && !process->stuck)) break;
        strike(w);
        process->stuck = true;
        break;
    case 4:
        if (take_one(&w->controller_kills_left, true)) restart_controller(w);
        break;
    default:
        if (w->stopping ? !w->faults->impatient : !take_one(&w->stops_left, true)) break;
        w->stopping = true;
        feed(w, &(Event){.kind = EV_STOP});
        break;
    }
}

/* ---- the run ---- */

static void beats(World *w)
{
    for (int i = 0; i < w->num_actors && !w->over; i++) {
        Process *process = &w->process[i];
        if (!process->alive || process->hung || w->now_ms < process->next_beat_ms) continue;
        process->next_beat_ms = w->now_ms + BEAT_MS;
        Event event = {.kind = EV_ACTOR_BEAT, .actor = i, .incarnation = process->incarnation};
        bool busy = w->now_ms < process->busy_until_ms;
        if (busy && !process->stuck) process->progress++;
        if (busy && w->faults->open_ms > 0) moved(w);
        event.beat.progress = process->progress;
        event.beat.working = process->held + busy;
        event.beat.doing = "simulated";
        event.beat.waiting_for = "";
        bool makes = controller_actor(w->controller, i).role == ROLE_ROLLOUT;
        event.beat.trouble = makes && w->faults->trouble != NULL ? w->faults->trouble : "";
        feed(w, &event);
    }
}

static void advance_time(World *w)
{
    int64_t tick = w->now_ms + 100;
    if (w->heap_count > 0 && w->heap[0]->at_ms <= tick) {
        Pending *pending = pop(w);
        w->now_ms = pending->at_ms > w->now_ms ? pending->at_ms : w->now_ms;
        if (pending->run != NULL)
            pending->run(w, pending->argument);
        else if (pending->epoch == w->epoch)
            feed(w, &pending->event);
        give_back(w, pending);
    } else {
        w->now_ms = tick;
        feed(w, &(Event){.kind = EV_TICK});
    }
    beats(w);
    if (w->swap_ms != 0 && w->now_ms >= w->swap_ms && !w->over) {
        w->swap_ms = 0;
        feed(w, &(Event){.kind = EV_SWAP, .swap.config = w->faults->swap});
    }
    if (w->now_ms >= w->next_fault_ms && !w->over) inject_fault(w);
    check_that_it_moves(w);
    if (w->over && w->result.violation[0] == '\0') end_session(w);
}

static World make_world(const JobConfig *const *config, int count, const SimFaults *faults,
                        uint64_t seed)
{
    CHECK(faults->nodes <= NODES_HERE && count < STAGES_MAX);
    World w = {
        .config = config[0],
        .num_stages = count,
        .faults = faults,
        .seed = seed,
        .arena = arena_create(),
        .num_nodes = faults->nodes > 1 ? faults->nodes : 1,
        .kills_left = faults->kills,
        .agent_kills_left = faults->agent_kills,
        .hangs_left = faults->hangs,
        .stuck_left = faults->stuck,
        .controller_kills_left = faults->controller_kills,
        .stops_left = faults->stops,
    };
    for (int i = 0; i < count; i++)
        w.stage[i] = (Stage){.config = config[i]};
    note_group_sizes(&w);
    for (int i = 0; i < w.num_nodes; i++)
        w.node[i].up = w.num_nodes > 1;
    return w;
}

SimResult sim_run(const JobConfig *config, const SimFaults *faults, uint64_t seed)
{
    return sim_run_stages(&config, 1, faults, seed);
}

SimResult sim_run_stages(const JobConfig *const *config, int count, const SimFaults *faults,
                         uint64_t seed)
{
    World w = make_world(config, count, faults, seed);
    w.next_fault_ms = draw_below(&w, 2000);
    if (faults->swap != NULL) w.swap_ms = 1 + draw_below(&w, 20000);
    start_controller(&w);
    while (!w.over && w.now_ms < VIRTUAL_MS_MAX)
        advance_time(&w);
    w.result.finished = w.over && w.result.violation[0] == '\0';
    w.result.weights = w.disk.saved_weights;
    w.result.saved = w.disk.saved;
    w.result.ledger_end = w.disk.ledger_end[w.disk.ledger_steps];
    w.result.steps = w.disk.saved.step;
    w.result.end_ms = w.now_ms;
    if (!w.over)
        snprintf(w.result.message, sizeof w.result.message, "in phase %s, waits for %s",
                 controller_job(w.controller).phase, controller_job(w.controller).waits_for);
    controller_destroy(w.controller);
    effect_list_free(&w.effects);
    arena_destroy(w.arena);
    free_heap(&w);
    free(w.process);
    return w.result;
}
