/* The step loop, for SFT and RL alike:
 *
 * 1. lease: positions of the ordered stream go to rollout workers, ahead of training (lease.c)
 * 2. roll out: workers make samples, keep them, and say what they are (lease.c)
 * 3. plan: the first accepted samples by position are balanced, packed, fetched (job_plan_ahead)
 * 4. train: every rank runs forward, backward and one optimizer step (job_run_next, on_result)
 * 5. commit: positions are consumed, written to the ledger, released (commit_step); then what is
 *    due: new weights for rollout workers that generate (push.c), an evaluation, a checkpoint
 *    (choose_work). Where both share GPUs in turns, turn.c says whose it is
 *
 * Supervised training, reinforcement learning in step with its own weights and asynchronous
 * reinforcement learning differ in how far ahead of training positions are leased (lease.c).
 *
 * It is level-triggered: after every event job_advance looks at what there is and does what is
 * missing, so a lost worker or a failed call needs no path of its own: its positions are simply
 * free again. */
#include "core/core.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plural.h"
#include "base/str.h"
#include "config/source_set.h"

#define RELEASE_TIMEOUT_MS   10000
#define FETCH_TIMEOUT_MS     60000
#define SKIPPED_IN_A_ROW_MAX 5
#define POSITIONS_MAX        ((int64_t)1 << 60) /* of a run: sums of them fit into 63 bits */

/* Positions that make a batch: each gives a group of samples. */
int64_t job_groups_per_batch(const Controller *c)
{
    return job_samples_per_step(c->config) / c->lane[SET_TRAIN].stream.group_size;
}

/* ---- sets ---- */

/* In the order `window` the run begins before the data is counted, and then is of the length that
 * the job says, whatever is found later: it must not depend on when that was. */
static bool needs_count(const JobConfig *config)
{
    if (!train_is_counted_late(config)) return true;
    for (int i = 0; i < train_source_count(config); i++)
        if (train_source(config, i).repeat > 0) return true; /* passes are of so many records */
    if (config->data.num_samples > 0) return false;
    return config->train.num_steps == 0 || config->data.remainder != REMAINDER_WRAP;
}

/* Records of an epoch as far as the run goes by them. */
static int64_t records_of_epoch(Controller *c, int64_t found)
{
    int64_t said = c->config->data.num_samples;
    if (found == 0) return said > 0 ? said : RECORDS_UNKNOWN;
    char *wrong = train_wrong_count(c->config, found);
    if (wrong != NULL) core_log(c, LOG_WARN, "num_samples_corrected", "%s", wrong);
    free(wrong);
    return found;
}

static void open_sets(Controller *c)
{
    if (!supervise_ready(c, 0)) return;
    for (int i = 0; i < c->num_sets; i++) {
        if (c->set[i].asked) continue;
        c->set[i].asked = true;
        Effect *effect = core_call(c, 0, CALL_OPEN_SET, (uint64_t)i, WORK_TIMEOUT_MS);
        effect->call.set = i == 0 ? SET_TRAIN : SET_EVAL;
        effect->call.set_name = c->set[i].name;
        effect->call.open.known = i == 0 ? c->fingerprint[c->done.stage] : NULL;
        effect->call.open.count = i > 0 || needs_count(c->config);
    }
}

bool job_sets_are_open(const Controller *c)
{
    for (int i = 0; i < c->num_sets; i++)
        if (!c->set[i].open) return false;
    return true;
}

/* Steps of the stage by the end of its epochs: those made and those that what is left makes. More
 * than the schedule has where earlier ones were smaller, by another batch or remainder. */
static int64_t steps_to_end(const Controller *c, int64_t records, int64_t batch, int64_t end)
{
    int64_t left = end > c->next_position ? end - c->next_position : 0, steps;
    if (c->config->data.remainder == REMAINDER_WRAP)
        steps = left / batch;
    else
        steps = job_steps_of_epochs(c->config, left % records, batch, 1) +
                job_steps_of_epochs(c->config, records, batch, left / records);
    return stage_step(c) + steps;
}

/* Fixes how long the run is, once the number of records is known, or that it is not. `told`: it was
 * before the data source died, and is no other. */
static void measure_run(Controller *c, int64_t records, bool told)
{
    Stream *stream = &lane_of(c, SET_TRAIN)->stream;
    int64_t batch = job_groups_per_batch(c);
    if (c->config->train.num_steps > 0) {
        stream->end = INT64_MAX / 2;
        c->schedule_steps = c->config->train.num_steps;
    } else if (records == RECORDS_UNKNOWN) {
        core_finish(c, ERR_INVALID,
                    "train.num_epochs is %lld, but a reader of the training data does not say how "
                    "many records an epoch has.\n"
                    "Write train.num_steps, or give the reader its num_records.",
                    (long long)c->config->train.num_epochs);
        return;
    } else if (records > POSITIONS_MAX / c->config->train.num_epochs) {
        core_finish(c, ERR_INVALID,
                    "train.num_epochs is %lld, of %lld records each: more positions than a run can "
                    "have (%lld)\nWrite train.num_steps.",
                    (long long)c->config->train.num_epochs, (long long)records,
                    (long long)POSITIONS_MAX);
        return;
    } else {
        stream->end = records * c->config->train.num_epochs;
        c->schedule_steps = push_is_all(c) ? (stream->end + batch - 1) / batch
                                           : job_steps_of_epochs(c->config, records, batch,
                                                                 c->config->train.num_epochs);
    }
    if (!remainder_check(c, records)) return;
    if (!sources_measure(c,
                         c->config->train.num_steps > 0
                             ? job_positions_of_steps(c->config, records, batch, c->schedule_steps)
                             : stream->end))
        return;
    if (records != RECORDS_UNKNOWN && !told)
        core_log(c, LOG_INFO, "epoch",
                 "%lld record%s, %lld a step: %lld step%s and %lld record%s over, %s",
                 (long long)records, plural(records), (long long)batch,
                 (long long)(records / batch), plural(records / batch),
                 (long long)(records % batch), plural(records % batch), remainder_fate(c));
    const Stage *stage = &c->stage[c->done.stage];
    int64_t steps = c->schedule_steps;
    if (c->config->train.num_steps == 0 && !push_is_all(c) && steps > 0) {
        int64_t to_end = steps_to_end(c, records, batch, stream->end);
        if (to_end > steps) steps = to_end;
    }
    c->total_steps = c->done.stage_begin + steps;
    if (stage->swapped && stage->last_step < c->total_steps) c->total_steps = stage->last_step;
    if (c->schedule_steps > 0 && c->step >= c->total_steps && !stage_has_next(c))
        core_log(c, LOG_INFO, "nothing_to_train",
                 "the checkpoint stands at step %lld, the job asks for %lld step%s",
                 (long long)c->step, (long long)c->total_steps, plural(c->total_steps));
    if (c->schedule_steps == 0)
        core_finish(c, ERR_INVALID,
                    "a batch takes %lld records, but the training set has %lld record%s in "
                    "%lld epoch%s.\n"
                    "Use a smaller batch, more data, or data.remainder: pad.",
                    (long long)batch, (long long)records, plural(records),
                    (long long)c->config->train.num_epochs, plural(c->config->train.num_epochs));
}

/* Which files a folder, a glob or a name of the Hub stands for, and what is hardly meant; once. */
static void tell_entries(Controller *c, const Event *event)
{
    static const char warning[] = "warning: ";
    for (int i = 0; i < event->reply.open_set.num_entries; i++) {
        const char *line = event->reply.open_set.entry[i];
        bool warns = str_starts_with(line, warning);
        core_log(c, warns ? LOG_WARN : LOG_INFO, "data", "%s",
                 warns ? line + strlen(warning) : line);
    }
}

static void on_open(Controller *c, const Event *event)
{
    int index = (int)event->reply.id;
    DataSet *set = &c->set[index];
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    const char *fingerprint = event->reply.open_set.fingerprint;
    if (!set->told) tell_entries(c, event);
    set->open = set->told = true;
    set->records = event->reply.open_set.records;
    if (index > 0) {
        if (index == 1 + c->eval.at) evaluate_set_is_open(c);
        return;
    }
    int64_t records = records_of_epoch(c, set->records);
    int64_t *known_records = &lane_of(c, SET_TRAIN)->stream.records;
    bool told = c->total_steps > 0 && *known_records == records;
    *known_records = records;
    if (!identity_accept(c, event)) return;
    sources_take(c, event);
    char **known = &c->fingerprint[c->done.stage];
    free(*known);
    *known = mem_strdup(fingerprint);
    measure_run(c, records, told);
}

/* ---- 3 plan ---- */

static PlanOptions plan_options(const Controller *c, SetName set)
{
    bool trains = set == SET_TRAIN, pads = trains && remainder_is_padded(c);
    int64_t batch = job_groups_per_batch(c);
    return (PlanOptions){
        .num_groups = (int)batch,
        .allow_fewer = !trains || push_is_all(c) || pads,
        .epoch = pads ? c->lane[SET_TRAIN].stream.records : 0,
        .groups_of_update = trains ? (int)(batch / c->config->train.num_steps_per_rollout) : 0,
        .dp_size = (int)c->config->train.dp_size,
        .max_tokens = c->config->train.max_tokens_per_gpu,
        .micro_batch_size = (int)c->config->train.micro_batch_size,
    };
}

/* Positions from lane->planned on without a gap. What stands before is in the two plans. */
static int64_t groups_ready(const Lane *lane)
{
    int64_t planned = lane->running.plan.num_groups + lane->next.plan.num_groups;
    int64_t ready = lane->stream.accepted_ahead - planned;
    return ready > 0 ? ready : 0; /* a lost holder may have opened a gap in a plan */
}

/* Looking before a plan is tried: events are many more than plans, and a plan looks at every
 * sample. */
static bool can_plan(const Controller *c, const Lane *lane)
{
    const Stream *stream = &lane->stream;
    int64_t ready = groups_ready(lane);
    if (stream->front >= stream->end || stream_is_full(stream)) return true;
    bool epoch_is_there = stream->front >= remainder_seam(c, stream, lane->planned);
    return ready >= (epoch_is_there ? remainder_least(c) : job_groups_per_batch(c));
}

int64_t job_samples_ready(const Controller *c)
{
    const Lane *lane = &c->lane[SET_TRAIN];
    return groups_ready(lane) * lane->stream.group_size;
}

/* Records that are passed over by policy may stand one behind the other in any number: a file of
 * another shape, or conversations sorted by length. As long as there may be others, the window is
 * made wider. What was made in vain of good records, and an epoch without a batch, is not waited
 * for. */
static bool widen_window(Lane *lane)
{
    Stream *stream = &lane->stream;
    if (stream->rejected_ahead >= stream->records) return false;
    for (int64_t p = lane->planned; p < stream->front; p++) {
        RejectReason why = stream_samples(stream, p)->reject_reason;
        bool passed = why != REJECT_NONE && reject_is_of_record(why);
        if (stream_slot(stream, p)->state == SLOT_REJECTED && !passed) return false;
    }
    return stream_widen(stream);
}

static const char *why_crowded(const Controller *c)
{
    return push_is_used(c) ? "Their answers are all equally good or bad: look at the reward, at "
                             "algorithm.dynamic_filter, and at easier or harder prompts."
                           : "`controller data inspect` shows why.";
}

static void end_crowded(Controller *c, SetName set)
{
    const Stream *stream = &c->lane[set].stream;
    if (c->failure.status != OK) return;
    core_finish_committed(
        c, ERR_DATA,
        "%lld of the last %lld records of the %s set were rejected: there is hardly anything to "
        "train on.\n%s",
        (long long)stream->rejected_ahead, (long long)stream->capacity, core_set(c, set)->name,
        why_crowded(c));
    snprintf(c->failure.remedy, sizeof c->failure.remedy, "once fewer are rejected");
}

void job_plan_ahead(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    if (c->gang.state != GANG_READY || lane->next.state != PLAN_SLOT_EMPTY || lane->over) return;
    if (lane->stream.records < 0) return;
    remainder_drop(c, lane);
    if (!can_plan(c, lane)) return;
    int64_t step = c->step + 1 + (lane->running.state == PLAN_SLOT_RUNNING);
    if (set == SET_TRAIN && step > c->total_steps) return;
    PlanOptions options = plan_options(c, set);
    Plan plan = {0};
    switch (plan_make(&lane->stream, lane->planned, &options, &plan)) {
    case PLAN_WAITS:
        return;
    case PLAN_ENDS:
        lane->over = true;
        return;
    case PLAN_CROWDED:
        if (widen_window(lane))
            lease_ahead(c, set);
        else
            end_crowded(c, set);
        return;
    case PLAN_MADE:
        break;
    }
    plan.id = core_next_id(c);
    plan.step = step;
    remainder_pass_over(c, &plan);
    lease_let_go_of_stale(c, &plan);
    remainder_pass_over(c, &plan); /* what is too old may have been all but the end of an epoch */
    lane->planned = plan.end_position;
    lane->next = (PlanSlot){.state = PLAN_SLOT_FETCHING, .plan = plan};
    if (set == SET_TRAIN && push_is_all(c)) { /* there is nobody to fetch them */
        stream_take(&lane->stream, plan.first_position, plan.end_position);
        lane->next.state = PLAN_SLOT_FETCHED;
        return;
    }
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, CALL_FETCH, plan.id, FETCH_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.set_name = core_set(c, set)->name;
        effect->call.fetch.plan = &lane->next.plan;
        effect->call.fetch.dp_rank = gang_dp_rank(c, i);
    }
}

/* A rank could not reach some holders: what they hold is leased again and the plan made anew. */
static void lose_holders(Lane *lane, const Event *event)
{
    lane->next.broken = true;
    for (int i = 0; i < event->reply.fetch.count; i++)
        stream_worker_lost(&lane->stream, event->reply.fetch.lost_holder[i]);
}

static void on_fetch(Controller *c, const Event *event)
{
    Lane *lane = NULL;
    for (SetName set = 0; set < SET_COUNT; set++) {
        PlanSlot *next = &c->lane[set].next;
        if (next->state == PLAN_SLOT_FETCHING && next->plan.id == event->reply.id)
            lane = &c->lane[set];
    }
    if (lane == NULL) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    if (event->reply.fetch.count > 0) lose_holders(lane, event);
    if (++lane->next.answers < core_num_train(c)) return;
    if (lane->next.broken) {
        lane->planned = lane->next.plan.first_position;
        plan_clear(&lane->next.plan);
        lane->next = (PlanSlot){0};
    } else {
        stream_take(&lane->stream, lane->next.plan.first_position, lane->next.plan.end_position);
        lane->next.state = PLAN_SLOT_FETCHED;
    }
}

/* ---- 4 train (and evaluate) ---- */

static void commit_step(Controller *c);

void job_run_next(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    CHECK(lane->next.state == PLAN_SLOT_FETCHED && lane->running.state == PLAN_SLOT_EMPTY);
    lane->running = lane->next;
    lane->next = (PlanSlot){0};
    lane->running.state = PLAN_SLOT_RUNNING;
    lane->running.answers = 0;
    lane->running.started_ms = c->now_ms;
    lane->running.waited_ms = c->now_ms - c->idle_since_ms;
    if (set == SET_TRAIN && push_is_all(c)) {
        commit_step(c);
        return;
    }
    CallKind call = set == SET_TRAIN ? CALL_STEP : CALL_EVALUATE;
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, call, lane->running.plan.id, WORK_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.set_name = core_set(c, set)->name;
        effect->call.step.plan = &lane->running.plan;
        effect->call.step.first_step = c->done.stage_begin;
        effect->call.step.total_steps = c->schedule_steps;
        effect->call.step.by_rewards = push_is_used(c);
    }
}

/* ---- 5 commit ---- */

void job_release(Controller *c, SetName set, int64_t below)
{
    for (int i = c->first_rollout; i < c->end_rollout; i++) {
        if (!supervise_ready(c, i)) continue;
        Effect *effect = core_call(c, i, CALL_RELEASE_SAMPLES, 0, RELEASE_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.set_name = core_set(c, set)->name;
        effect->call.release.below = below;
    }
}

static void commit_step(Controller *c)
{
    Lane *lane = lane_of(c, SET_TRAIN);
    PlanSlot *running = &lane->running;
    CHECK(running->plan.first_position == c->next_position);
    c->step++;
    c->next_position = running->plan.end_position;
    c->done.step = c->step;
    c->done.next_position = c->next_position;
    c->done.consumed_samples += running->plan.num_samples;
    c->done.rejected_samples += running->plan.rejected;
    c->done.trained_tokens += running->plan.trained_tokens;
    records_consumed(c, &lane->stream, c->next_position);
    int num_sources = sources_consumed(c, &lane->stream, c->next_position);
    c->done.bad_records += stream_consume(&lane->stream, c->next_position);
    c->done.records = stream_known_records(&lane->stream, 0);
    c->retired = running->plan; /* the effects below point to it */
    effect_add(c->fx, FX_LEDGER_APPEND)->ledger =
        (LedgerEntry){&c->retired, c->done.stage, c->done.records, c->fingerprint[c->done.stage]};
    Effect *report = effect_add(c->fx, FX_REPORT_STEP);
    report->step.plan = &c->retired;
    report->step.result = running->result;
    report->step.algorithm = &c->config->algorithm;
    report->step.rewards = c->config->rollout.reward;
    report->step.step = c->step;
    report->step.stage = c->done.stage;
    report->step.records = c->done.records;
    report->step.only = push_is_all(c);
    report->step.source = c->source_step;
    report->step.num_sources = num_sources;
    report->step.seconds = (double)(c->now_ms - running->started_ms) / 1000;
    report->step.wait_s = (double)running->waited_ms / 1000;
    c->idle_since_ms = c->now_ms;
    job_release(c, SET_TRAIN, c->next_position);
    c->skipped_in_a_row = running->result.skipped ? c->skipped_in_a_row + 1 : 0;
    *running = (PlanSlot){0};
    if (c->skipped_in_a_row >= SKIPPED_IN_A_ROW_MAX)
        core_finish_committed(
            c, ERR_DATA,
            "the gradient was not finite in %d steps in a row, up to step %lld.\n"
            "Weights are untouched by these steps; lower train.lr, or look at the batch in "
            "the ledger.",
            c->skipped_in_a_row, (long long)c->step);
}

static void on_result(Controller *c, const Event *event)
{
    SetName set = event->reply.call == CALL_STEP ? SET_TRAIN : SET_EVAL;
    PlanSlot *running = &c->lane[set].running;
    if (running->state != PLAN_SLOT_RUNNING || running->plan.id != event->reply.id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    c->lane[set].of_rank[c->actor[event->actor].rank] = event->reply.step;
    if (++running->answers < core_num_train(c)) return;
    running->result = result_of_ranks(c, c->lane[set].of_rank);
    int64_t took_ms = c->now_ms - running->started_ms, *usual_ms = &c->lane[set].usual_ms;
    *usual_ms = *usual_ms == 0 ? took_ms : (9 * *usual_ms + took_ms) / 10;
    if (set == SET_TRAIN)
        commit_step(c);
    else
        evaluate_commit_piece(c);
}

/* ---- lanes ---- */

void lane_restart(Lane *lane, int64_t base)
{
    plan_clear(&lane->running.plan);
    plan_clear(&lane->next.plan);
    lane->running = lane->next = (PlanSlot){0};
    lane->planned = base;
    lane->over = false;
    stream_restart(&lane->stream, base);
}

void lane_renew(Controller *c, SetName set)
{
    const JobConfig *config = c->config;
    Lane *lane = lane_of(c, set);
    int64_t group = !push_is_used(c)   ? 1
                    : set == SET_TRAIN ? config->rollout.n_samples_per_prompt
                                       : eval_set_samples_max(config);
    int64_t steps =
        push_is_used(c) && !push_is_all(c)
            ? config->rollout.max_staleness + (int64_t)ceil(config->rollout.over_sampling)
            : config->rollout.prefetch_steps;
    int64_t ahead = (steps + 2) * job_samples_per_step(config) / group;
    lane_restart(lane, 0);
    stream_free(&lane->stream);
    stream_init(&lane->stream, set, 8 * ahead + 1024, (int)group);
    lane->usual_ms = 0;
}

bool job_is_due(int64_t interval, int64_t step)
{
    return interval > 0 && step > 0 && step % interval == 0;
}

/* ---- what to do next ---- */

/* A run, or a stage of one, of whose data all was passed over by policy has done nothing of what it
 * was asked for. What was kept of it did not fill a batch. */
static void end_untrained(Controller *c)
{
    const Stream *stream = &c->lane[SET_TRAIN].stream;
    core_finish_committed(
        c, ERR_DATA,
        "%lld of the %lld records of the run were rejected, and a batch takes %lld: there is "
        "hardly anything to train on.\n%s",
        (long long)stream->rejected_ahead, (long long)(stream->front - stream->base),
        (long long)job_groups_per_batch(c), why_crowded(c));
    core_finish_failed(c);
}

static void choose_work(Controller *c)
{
    Lane *lane = lane_of(c, SET_TRAIN);
    bool stopping = c->stop_requests > 0;
    bool out_of_data = lane->over && lane->next.state == PLAN_SLOT_EMPTY;
    bool at_end = c->step >= c->total_steps || out_of_data;
    bool untrained = out_of_data && stage_step(c) == 0 && c->schedule_steps > 0;
    if (best_is_used(c) && stage_step(c) > 0 && evaluate_is_due(c, at_end) && !core_is_stopping(c))
        evaluate_begin(c);             /* the checkpoint is to say what came of it */
    else if (save_is_due(c, at_end)) { /* whatever comes of the evaluation, the training is kept */
        if (turn_take(c, TURN_OF_TRAINING)) save_begin(c);
    } else if (c->failure.status != OK)
        core_finish_failed(c);
    else if (untrained && !stopping)
        end_untrained(c);
    else if (evaluate_is_due(c, at_end) && !stopping)
        evaluate_begin(c);
    else if (at_end && stage_has_next(c) && !stopping) {
        if (turn_take(c, TURN_OF_TRAINING)) stage_enter(c, c->done.stage + 1);
    } else if (at_end && !stage_has_next(c))
        core_finish(c, OK, "%s",
                    out_of_data && c->step < c->total_steps
                        ? "the data ended before the planned steps: samples were skipped"
                        : "");
    else if (stopping)
        core_finish(c, ERR_CANCELLED, "%s", "stopped as asked");
    else if (lane->next.state == PLAN_SLOT_FETCHED && !send_holds_training(c) &&
             turn_take(c, TURN_OF_TRAINING))
        job_run_next(c, SET_TRAIN);
}

void job_reply(Controller *c, const Event *event)
{
    if (c->phase == PHASE_ENDING) return;
    switch (event->reply.call) {
    case CALL_OPEN_SET:
        on_open(c, event);
        break;
    case CALL_LEASE:
        lease_reply(c, event);
        break;
    case CALL_FETCH:
        on_fetch(c, event);
        break;
    case CALL_STEP:
    case CALL_EVALUATE:
        on_result(c, event);
        break;
    case CALL_SAVE:
        save_reply(c, event);
        break;
    case CALL_PUBLISH:
    case CALL_ADOPT:
    case CALL_MEET:
    case CALL_SEND:
    case CALL_RECEIVE:
        push_reply(c, event);
        break;
    case CALL_GROUP:
    case CALL_JOIN:
        ranks_reply(c, event);
        break;
    case CALL_REST:
    case CALL_REST_RANK:
        turn_reply(c, event);
        break;
    default:
        break; /* a release that is lost only costs memory until the next */
    }
}

void job_advance(Controller *c)
{
    if (c->phase == PHASE_ENDING) return;
    if (c->phase != PHASE_TRAINING) c->idle_since_ms = c->now_ms;
    open_sets(c);
    turn_advance(c);
    ranks_advance(c);
    if (c->save.rewind_owed) return; /* where to go on from is not known yet */
    push_advance(c);
    lease_ahead(c, SET_TRAIN);
    job_plan_ahead(c, SET_TRAIN);
    if (c->phase != PHASE_EVALUATING) evaluate_check_set(c);
    if (c->phase == PHASE_STARTING && c->gang.state == GANG_READY && job_sets_are_open(c))
        c->phase = PHASE_TRAINING;
    if (c->phase == PHASE_STARTING && c->failure.status != OK) core_finish_failed(c);
    if (c->phase == PHASE_STARTING && c->stop_requests > 0)
        core_finish(c, ERR_CANCELLED, "%s", "stopped before the first step of this session");
    push_advance(c); /* before an evaluation or a checkpoint, which ranks do one after the other */
    if (c->phase == PHASE_TRAINING && c->lane[SET_TRAIN].running.state == PLAN_SLOT_EMPTY)
        choose_work(c);
    if (c->phase == PHASE_EVALUATING) evaluate_advance(c);
    job_plan_ahead(c, SET_TRAIN);
}

/* ---- going back ---- */

/* One of a later step is made again; one of this very step too, where what came of it is to be in a
 * checkpoint and is not. */
static void forget_evaluation(Controller *c)
{
    bool known = c->eval.last_step <= c->step && (!best_is_used(c) || stage_step(c) == 0);
    if (known && c->eval.last_step >= c->saved.evaluated) return;
    c->eval.last_step = c->saved.evaluated > 0 ? c->saved.evaluated : -1;
}

void job_roll_back(Controller *c)
{
    save_roll_back(c);
    if (c->done.stage != c->saved.stage) stage_enter(c, c->saved.stage);
    c->done = c->saved;
    c->step = c->saved.step;
    c->next_position = c->saved.next_position;
    forget_evaluation(c);
    c->eval.bad_records = 0;
    c->skipped_in_a_row = 0;
    lane_restart(&c->lane[SET_TRAIN], c->next_position);
    lease_forget_all(c);
    evaluate_enter(c, 0);
    c->phase = PHASE_STARTING;
}
