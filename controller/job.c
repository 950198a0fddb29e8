/* The step loop, for SFT and RL alike:
 *
 * 1. lease: positions of the ordered stream go to rollout workers, ahead of training (lease_ahead)
 * 2. roll out: workers make samples, keep them, and say what they are (on_lease)
 * 3. plan: the first accepted samples by position are balanced, packed, fetched (plan_ahead)
 * 4. train: every rank runs forward, backward and one optimizer step (run_next, on_result)
 * 5. commit: positions are consumed, written to the ledger, released (commit_step); then what is
 *    due: new weights for rollout workers that generate (push.c), an evaluation, a checkpoint
 *    (choose_work)
 *
 * Supervised training, reinforcement learning in step with its own weights and asynchronous
 * reinforcement learning differ in how far ahead of training positions are leased (steps_ahead).
 *
 * It is level-triggered: after every event job_advance looks at what there is and does what is
 * missing, so a lost worker or a failed call needs no path of its own: its positions are simply
 * free again. */
#include "core.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_RETRY_MS       100 /* after one that failed */
#define RELEASE_TIMEOUT_MS   10000
#define FETCH_TIMEOUT_MS     60000
#define WORK_TIMEOUT_MS      (24 * 3600 * 1000) /* a fuse: supervision sees who does not get on */
#define SKIPPED_IN_A_ROW_MAX 5

static Lane *lane_of(Controller *c, SetName set)
{
    return &c->lane[set];
}

/* Positions that make a batch: each gives a group of samples. */
static int64_t groups_per_batch(const Controller *c)
{
    return c->config->train.global_batch_size / c->lane[SET_TRAIN].stream.group_size;
}

/* ---- sets ---- */

static void open_sets(Controller *c)
{
    if (!supervise_ready(c, 0)) return;
    for (SetName set = 0; set < SET_COUNT; set++) {
        if (c->lane[set].asked) continue;
        if (set == SET_EVAL && c->config->data.eval.count == 0) continue;
        c->lane[set].asked = true;
        Effect *effect = core_call(c, 0, CALL_OPEN_SET, set, WORK_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.open.known = set == SET_TRAIN ? c->fingerprint : NULL;
    }
}

static bool sets_are_open(const Controller *c)
{
    return c->lane[SET_TRAIN].open && (c->config->data.eval.count == 0 || c->lane[SET_EVAL].open);
}

/* Fixes how long the run is, once the number of records is known. */
static void measure_run(Controller *c, int64_t records)
{
    Stream *stream = &lane_of(c, SET_TRAIN)->stream;
    int64_t batch = groups_per_batch(c);
    if (c->config->train.num_steps > 0) {
        stream->end = INT64_MAX / 2;
        c->total_steps = c->config->train.num_steps;
    } else {
        stream->end = records * c->config->train.num_epochs;
        c->total_steps = stream->end / batch;
    }
    if (c->total_steps > 0 && c->step >= c->total_steps)
        core_log(c, LOG_INFO, "nothing_to_train",
                 "the checkpoint stands at step %lld, the job asks for %lld steps",
                 (long long)c->step, (long long)c->total_steps);
    if (c->total_steps == 0)
        core_finish(c, ERR_INVALID,
                    "a batch takes %lld records, but the training set has %lld records in "
                    "%lld epochs.\n"
                    "Use a smaller batch or more data.",
                    (long long)batch, (long long)records, (long long)c->config->train.num_epochs);
}

static void on_open(Controller *c, const Event *event)
{
    SetName set = (SetName)event->reply.id;
    Lane *lane = lane_of(c, set);
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    const char *fingerprint = event->reply.open_set.fingerprint;
    lane->open = true;
    lane->stream.records = event->reply.open_set.records;
    if (set == SET_EVAL) {
        lane->stream.end = lane->stream.records;
        return;
    }
    if (!identity_accept(c, event)) return;
    free(c->fingerprint);
    c->fingerprint = mem_strdup(fingerprint);
    measure_run(c, lane->stream.records);
}

/* ---- 1 lease ---- */

static int num_leases(const Controller *c)
{
    return (c->first_train - c->first_rollout) * LEASES_PER_WORKER;
}

static Lease *free_lease(Controller *c)
{
    for (int i = 0; i < num_leases(c); i++)
        if (c->lease[i].id == 0) return &c->lease[i];
    return NULL;
}

static int least_loaded_worker(const Controller *c)
{
    int best = -1;
    for (int i = c->first_rollout; i < c->first_train; i++) {
        const ActorRecord *record = &c->actor[i];
        if (!supervise_ready(c, i) || record->leases >= LEASES_PER_WORKER) continue;
        if (c->now_ms < record->lease_after_ms || !push_is_current(c, i)) continue;
        if (best < 0 || record->leases < c->actor[best].leases) best = i;
    }
    return best;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Steps that have no plan yet, of the prefetch_steps ahead: what is leased beyond the last step
 * would never be trained. What is generated now may be behind the weights that it trains by
 * max_staleness: version v is what step v trains from, so it is for steps up to v + max_staleness.
 */
static int64_t steps_ahead(const Controller *c, const Lane *lane)
{
    int64_t ahead = c->config->rollout.prefetch_steps + 1;
    if (lane->stream.set == SET_EVAL) return ahead;
    int64_t planned =
        c->step + (lane->running.state != PLAN_SLOT_EMPTY) + (lane->next.state != PLAN_SLOT_EMPTY);
    ahead = least(ahead, c->total_steps - planned);
    if (push_is_used(c))
        ahead = least(ahead, c->push.version + c->config->rollout.max_staleness - planned);
    return ahead < 0 ? 0 : ahead;
}

/* Leases stop here: enough for the batch in training and prefetch_steps beyond it, rejected ones
 * not counted. */
static int64_t lease_limit(const Controller *c, const Lane *lane)
{
    int64_t rejected =
        lane->stream.rejected_ahead - lane->running.plan.rejected - lane->next.plan.rejected;
    int64_t steps = steps_ahead(c, lane);
    return steps == 0 ? lane->planned : lane->planned + steps * groups_per_batch(c) + rejected;
}

/* Positions of a lease. Generation takes long: what it may be leased is shared evenly. */
static int lease_size(const Controller *c)
{
    int64_t size = c->config->rollout.lease_size;
    int64_t share = (groups_per_batch(c) + num_leases(c) - 1) / num_leases(c);
    return (int)(push_is_used(c) ? least(size, share) : size);
}

static void lease_ahead(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    if (!lane->open || !supervise_ready(c, 0) || c->failure.status != OK) return;
    for (;;) {
        int worker = least_loaded_worker(c);
        Lease *lease = free_lease(c);
        if (worker < 0 || lease == NULL) return;
        int64_t first;
        /* What is below, plans have. When the holder of some of it is lost, a rank that has not
         * fetched it says so and the plan is made anew; until then it is not leased: made again
         * it might be judged otherwise. */
        int count = stream_lease(&lane->stream, worker, lane->planned, lease_limit(c, lane),
                                 lease_size(c), &first);
        if (count == 0) return;
        *lease = (Lease){core_next_id(c), set, worker, first, count};
        Effect *effect = core_call(c, worker, CALL_LEASE, lease->id, WORK_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.lease.first = first;
        effect->call.lease.count = count;
        effect->call.lease.data_source = 0;
        c->actor[worker].leases++;
    }
}

/* Its positions that were not delivered are free again; an answer that comes yet is ignored. */
static void drop_lease(Controller *c, Lease *lease)
{
    stream_lease_failed(&lane_of(c, lease->set)->stream, lease->worker, lease->first, lease->count);
    c->actor[lease->worker].leases--;
    lease->id = 0;
}

static void drop_leases(Controller *c, SetName set)
{
    for (int i = 0; i < num_leases(c); i++)
        if (c->lease[i].id != 0 && c->lease[i].set == set) drop_lease(c, &c->lease[i]);
}

/* ---- 2 roll out ---- */

/* Which groups train. An evaluation takes whatever there is. */
static GroupFilter filter_for(const Controller *c, SetName set)
{
    const AlgorithmConfig *algorithm = &c->config->algorithm;
    bool learns = push_is_used(c) && set == SET_TRAIN;
    return (GroupFilter){
        .size_min = learns && advantage_needs_group(algorithm->advantage_estimator) ? 2 : 1,
        .zero_variance = learns && algorithm->dynamic_filter == FILTER_ZERO_VARIANCE,
    };
}

static void take_samples(Controller *c, SetName set, const Event *event)
{
    Stream *stream = &lane_of(c, set)->stream;
    GroupFilter filter = filter_for(c, set);
    const SampleMeta *meta = event->reply.lease.meta;
    int end = event->reply.lease.count, size;
    for (int i = 0; i < end && c->phase != PHASE_ENDING; i += size) {
        for (size = 1; i + size < end && meta[i + size].position == meta[i].position; size++)
            ;
        if (size > stream->group_size) {
            core_finish(c, ERR_INTERNAL, "%s made %d samples of position %lld, expected at most %d",
                        c->actor[event->actor].name, size, (long long)meta[i].position,
                        stream->group_size);
            return;
        }
        GroupVerdict verdict = group_judge(&filter, &meta[i], size);
        if (!stream_deliver(stream, event->actor, &meta[i], size, verdict)) continue;
        for (int j = i; j < i + size && c->phase != PHASE_ENDING; j++)
            if (meta[j].status == SAMPLE_REJECTED)
                records_rejected(c, set, &meta[j], event->reply.lease.reject_message[j]);
            else if (meta[j].notes != 0)
                records_noted(c, event->reply.lease.reject_message[j]);
    }
}

static void on_lease(Controller *c, const Event *event)
{
    Lease *lease = NULL;
    for (int i = 0; i < num_leases(c); i++)
        if (c->lease[i].id == event->reply.id) lease = &c->lease[i];
    if (lease == NULL) return; /* dropped meanwhile */
    if (event->status == OK)
        take_samples(c, lease->set, event);
    else if (gang_is_retryable(event->status))
        c->actor[event->actor].lease_after_ms = c->now_ms + LEASE_RETRY_MS;
    else
        core_finish_committed(c, event->status, "%s", event->message);
    drop_lease(c, lease);
}

void job_worker_lost(Controller *c, int actor)
{
    for (int i = 0; i < num_leases(c); i++)
        if (c->lease[i].id != 0 && c->lease[i].worker == actor) drop_lease(c, &c->lease[i]);
    for (SetName set = 0; set < SET_COUNT; set++)
        stream_worker_lost(&c->lane[set].stream, actor);
}

/* The new one must open the sets again. Leases are read from the old one, and whether their worker
 * notices that it has died is not for us to rely on. */
void job_source_lost(Controller *c)
{
    for (SetName set = 0; set < SET_COUNT; set++) {
        c->lane[set].asked = c->lane[set].open = false;
        drop_leases(c, set);
    }
}

/* ---- 3 plan ---- */

static PlanOptions plan_options(const Controller *c, SetName set)
{
    return (PlanOptions){
        .num_groups = (int)groups_per_batch(c),
        .allow_fewer = set == SET_EVAL,
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
    return groups_ready(lane) >= groups_per_batch(c) || stream->front >= stream->end ||
           stream_is_full(stream);
}

int64_t job_samples_ready(const Controller *c)
{
    const Lane *lane = &c->lane[SET_TRAIN];
    return groups_ready(lane) * lane->stream.group_size;
}

static void plan_ahead(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    if (c->gang.state != GANG_READY || lane->next.state != PLAN_SLOT_EMPTY || lane->over) return;
    if (lane->stream.records < 0 || !can_plan(c, lane)) return;
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
        core_finish_committed(
            c, ERR_DATA,
            "%lld of the last %lld records of the %s set were rejected: there is hardly "
            "anything to train on.\n%s",
            (long long)lane->stream.rejected_ahead, (long long)lane->stream.capacity, set_name(set),
            push_is_used(c) ? "Their answers are all equally good or bad: look at the reward, at "
                              "algorithm.dynamic_filter, and at easier or harder prompts."
                            : "`controller data inspect` shows why.");
        return;
    case PLAN_MADE:
        break;
    }
    plan.id = core_next_id(c);
    plan.step = step;
    lane->planned = plan.end_position;
    lane->next = (PlanSlot){.state = PLAN_SLOT_FETCHING, .plan = plan};
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, CALL_FETCH, plan.id, FETCH_TIMEOUT_MS);
        effect->call.set = set;
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

static void run_next(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    CHECK(lane->next.state == PLAN_SLOT_FETCHED && lane->running.state == PLAN_SLOT_EMPTY);
    lane->running = lane->next;
    lane->next = (PlanSlot){0};
    lane->running.state = PLAN_SLOT_RUNNING;
    lane->running.answers = 0;
    lane->running.started_ms = c->now_ms;
    CallKind call = set == SET_TRAIN ? CALL_STEP : CALL_EVALUATE;
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, call, lane->running.plan.id, WORK_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.step.plan = &lane->running.plan;
        effect->call.step.total_steps = c->total_steps;
        effect->call.step.by_rewards = push_is_used(c);
    }
}

/* Sums over data-parallel ranks; the ranks of one tensor-parallel group report the same numbers, so
 * the first counts. */
static void add_result(StepResult *sum, const StepResult *one)
{
    sum->loss_sum += one->loss_sum;
    sum->trained_tokens += one->trained_tokens;
    sum->tokens += one->tokens;
    sum->correct += one->correct;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* As add_result. */
static void add_policy(PolicyFigures *sum, const PolicyFigures *one, bool first)
{
    static const size_t sums[] = {
#define SUM(field) offsetof(PolicyFigures, field)
        SUM(tokens),         SUM(loss),
        SUM(policy_loss),    SUM(kl_loss),
        SUM(entropy),        SUM(ref_kl),
        SUM(old_kl),         SUM(old_kl3),
        SUM(ratio),          SUM(clipped_low),
        SUM(clipped_high),   SUM(clipped_dual),
        SUM(advantage),      SUM(advantage_squared),
        SUM(correction),     SUM(corrected),
        SUM(rollout_tokens), SUM(rollout_difference),
        SUM(reward_kl),      SUM(value_loss),
        SUM(value_tokens),   SUM(value_clipped),
#undef SUM
    };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *(double *)((char *)sum + sums[i]) += *(const double *)((const char *)one + sums[i]);
    sum->log_probs_compared += one->log_probs_compared;
    sum->log_probs_differ += one->log_probs_differ;
    sum->rollout_difference_max = most(sum->rollout_difference_max, one->rollout_difference_max);
    sum->ratio_max = most(sum->ratio_max, one->ratio_max);
    sum->ratio_min = first || one->ratio_min < sum->ratio_min ? one->ratio_min : sum->ratio_min;
    sum->normaliser = one->normaliser;
    sum->critic_grad_norm = one->critic_grad_norm;
    sum->groups = one->groups;
    sum->zero_variance_groups = one->zero_variance_groups;
    sum->passes_s = most(sum->passes_s, one->passes_s);
    sum->critic_s = most(sum->critic_s, one->critic_s);
}

static void merge_result(Controller *c, StepResult *sum, const Event *event)
{
    const StepResult *one = &event->reply.step;
    if (c->actor[event->actor].rank % c->config->train.tp_size == 0) {
        add_result(sum, one);
        if (one->has_policy) add_policy(&sum->policy, &one->policy, !sum->has_policy);
        sum->has_policy |= one->has_policy;
    }
    sum->flops += one->flops;
    sum->grad_norm = one->grad_norm;
    sum->lr = one->lr;
    sum->skipped |= one->skipped;
    if (one->forward_s > sum->forward_s) sum->forward_s = one->forward_s;
    if (one->backward_s > sum->backward_s) sum->backward_s = one->backward_s;
    if (one->comm_s > sum->comm_s) sum->comm_s = one->comm_s;
    if (one->optimizer_s > sum->optimizer_s) sum->optimizer_s = one->optimizer_s;
}

/* ---- 5 commit ---- */

static void release_samples(Controller *c, SetName set, int64_t below)
{
    for (int i = c->first_rollout; i < c->first_train; i++) {
        if (!supervise_ready(c, i)) continue;
        Effect *effect = core_call(c, i, CALL_RELEASE_SAMPLES, 0, RELEASE_TIMEOUT_MS);
        effect->call.set = set;
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
    c->done.bad_records += stream_consume(&lane->stream, c->next_position);
    c->done.records = lane->stream.records;
    c->retired = running->plan; /* the effects below point to it */
    effect_add(c->fx, FX_LEDGER_APPEND)->ledger.plan = &c->retired;
    Effect *report = effect_add(c->fx, FX_REPORT_STEP);
    report->step.plan = &c->retired;
    report->step.result = running->result;
    report->step.step = c->step;
    report->step.seconds = (double)(c->now_ms - running->started_ms) / 1000;
    release_samples(c, SET_TRAIN, c->next_position);
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

static void commit_evaluation_piece(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    PlanSlot *running = &lane->running;
    add_result(&c->eval.result, &running->result);
    c->eval.samples += running->plan.num_samples;
    c->eval.bad_records += stream_consume(&lane->stream, running->plan.end_position);
    release_samples(c, SET_EVAL, running->plan.end_position);
    plan_clear(&running->plan);
    *running = (PlanSlot){0};
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
    merge_result(c, &running->result, event);
    if (++running->answers < core_num_train(c)) return;
    int64_t took_ms = c->now_ms - running->started_ms, *usual_ms = &c->lane[set].usual_ms;
    *usual_ms = *usual_ms == 0 ? took_ms : (9 * *usual_ms + took_ms) / 10;
    if (set == SET_TRAIN)
        commit_step(c);
    else
        commit_evaluation_piece(c);
}

/* ---- evaluation ---- */

static void restart_lane(Lane *lane, int64_t base)
{
    plan_clear(&lane->running.plan);
    plan_clear(&lane->next.plan);
    lane->running = lane->next = (PlanSlot){0};
    lane->planned = base;
    lane->over = false;
    stream_restart(&lane->stream, base);
}

/* An evaluation by generation: what came of a position. */
static void add_answers(AnswerFigures *sum, const SampleMeta *answer, int count)
{
    int judged = 0, right = 0;
    for (int i = 0; i < count; i++) {
        if (!sample_meta_trains(&answer[i])) {
            sum->unjudged += answer[i].reject_reason == REJECT_UNJUDGED;
            continue;
        }
        judged++;
        right += answer[i].right;
        sum->truncated += answer[i].status == SAMPLE_TRUNCATED;
        sum->reward += (double)answer[i].reward;
        sum->reward_squared += (double)answer[i].reward * (double)answer[i].reward;
        sum->tokens += answer[i].trained_tokens;
    }
    if (judged == 0) return;
    sum->prompts++;
    sum->answers += judged;
    sum->right += right;
    for (int i = 0; i < PASS_AT_MAX && 1 << i <= judged; i++) {
        sum->pass[i] += pass_at_k(judged, right, 1 << i);
        sum->pass_of[i]++;
    }
}

/* Answers of an evaluation need no plan: their rewards say all. */
static void take_answers(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    int64_t front = lane->stream.front;
    if (front == lane->planned) return;
    for (int64_t p = lane->planned; p < front; p++)
        add_answers(&c->eval.answers, stream_samples(&lane->stream, p),
                    stream_slot(&lane->stream, p)->samples);
    c->eval.bad_records += stream_consume(&lane->stream, front);
    lane->planned = front;
    lane->over = front >= lane->stream.end;
    release_samples(c, SET_EVAL, front);
}

static void begin_evaluation(Controller *c)
{
    c->phase = PHASE_EVALUATING;
    drop_leases(c, SET_EVAL);
    restart_lane(lane_of(c, SET_EVAL), 0);
    c->eval.checked = true; /* every record is rolled out now */
    c->eval.bad_records = 0;
    c->eval.samples = 0;
    c->eval.result = (StepResult){0};
    c->eval.answers = (AnswerFigures){0};
    c->eval.started_ms = c->now_ms;
}

static void advance_evaluation(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    lease_ahead(c, SET_EVAL);
    if (push_is_used(c))
        take_answers(c);
    else
        plan_ahead(c, SET_EVAL);
    if (lane->running.state != PLAN_SLOT_EMPTY) return;
    if (core_is_stopping(c)) {
        c->phase = PHASE_TRAINING; /* an evaluation is not worth waiting for */
    } else if (lane->next.state == PLAN_SLOT_FETCHED) {
        run_next(c, SET_EVAL);
        plan_ahead(c, SET_EVAL);
    } else if (lane->over && lane->next.state == PLAN_SLOT_EMPTY) {
        Effect *report = effect_add(c->fx, FX_REPORT_EVAL);
        report->eval.step = c->step;
        report->eval.samples = c->eval.samples;
        report->eval.result = c->eval.result;
        report->eval.generated = push_is_used(c);
        report->eval.answers = c->eval.answers;
        report->eval.seconds = (double)(c->now_ms - c->eval.started_ms) / 1000;
        report->eval.at_end = c->step >= c->total_steps;
        c->eval.last_step = c->step;
        c->phase = PHASE_TRAINING;
    }
}

bool job_is_due(int64_t interval, int64_t step)
{
    return interval > 0 && step > 0 && step % interval == 0;
}

static bool evaluation_is_due(const Controller *c, bool at_end)
{
    if (c->config->data.eval.count == 0 || c->eval.last_step == c->step) return false;
    if (at_end) return c->stop_requests == 0;
    if (c->step == 0) return c->config->eval.before_train;
    return job_is_due(c->config->eval.interval, c->step);
}

/* Rolls the evaluation set out once beside the first steps, so that a bad record in it ends the run
 * now and not after all the training. Its samples are let go at once. */
static void check_evaluation_set(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    bool cheap = c->config->rollout.function == ROLLOUT_SFT;
    if (c->eval.checked || !cheap || !lane->open || c->step >= c->total_steps) return;
    if (evaluation_is_due(c, false)) return; /* it sees them all */
    lease_ahead(c, SET_EVAL);
    int64_t front = lane->stream.front;
    if (front > lane->planned) {
        c->eval.bad_records += stream_consume(&lane->stream, front);
        lane->planned = front;
        release_samples(c, SET_EVAL, front);
    }
    c->eval.checked = front >= lane->stream.end;
}

/* ---- what to do next ---- */

static void choose_work(Controller *c)
{
    Lane *lane = lane_of(c, SET_TRAIN);
    bool stopping = c->stop_requests > 0;
    bool out_of_data = lane->over && lane->next.state == PLAN_SLOT_EMPTY;
    bool at_end = c->step >= c->total_steps || out_of_data;
    if (save_is_due(c, at_end)) /* first: whatever comes of the evaluation, the training is kept */
        save_begin(c);
    else if (c->failure.status != OK)
        core_finish_failed(c);
    else if (evaluation_is_due(c, at_end) && !stopping)
        begin_evaluation(c);
    else if (at_end)
        core_finish(c, OK, "%s",
                    out_of_data && c->step < c->total_steps
                        ? "the data ended before the planned steps: samples were skipped"
                        : "");
    else if (stopping)
        core_finish(c, ERR_CANCELLED, "%s", "stopped as asked");
    else if (lane->next.state == PLAN_SLOT_FETCHED)
        run_next(c, SET_TRAIN);
}

void job_reply(Controller *c, const Event *event)
{
    if (c->phase == PHASE_ENDING) return;
    switch (event->reply.call) {
    case CALL_OPEN_SET:
        on_open(c, event);
        break;
    case CALL_LEASE:
        on_lease(c, event);
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
        push_reply(c, event);
        break;
    default:
        break; /* a release that is lost only costs memory until the next */
    }
}

void job_advance(Controller *c)
{
    if (c->phase == PHASE_ENDING) return;
    open_sets(c);
    if (c->save.rewind_owed) return; /* where to go on from is not known yet */
    push_advance(c);
    lease_ahead(c, SET_TRAIN);
    plan_ahead(c, SET_TRAIN);
    if (c->phase != PHASE_EVALUATING) check_evaluation_set(c);
    if (c->phase == PHASE_STARTING && c->gang.state == GANG_READY && sets_are_open(c))
        c->phase = PHASE_TRAINING;
    if (c->phase == PHASE_STARTING && c->failure.status != OK) core_finish_failed(c);
    if (c->phase == PHASE_STARTING && c->stop_requests > 0)
        core_finish(c, ERR_CANCELLED, "%s", "stopped before the first step of this session");
    push_advance(c); /* before an evaluation or a checkpoint, which ranks do one after the other */
    if (c->phase == PHASE_TRAINING && c->lane[SET_TRAIN].running.state == PLAN_SLOT_EMPTY)
        choose_work(c);
    if (c->phase == PHASE_EVALUATING) advance_evaluation(c);
    plan_ahead(c, SET_TRAIN);
}

/* ---- going back ---- */

void job_roll_back(Controller *c)
{
    save_roll_back(c);
    c->done = c->saved;
    c->step = c->saved.step;
    c->next_position = c->saved.next_position;
    if (c->eval.last_step > c->step) c->eval.last_step = -1;
    c->eval.bad_records = 0;
    c->skipped_in_a_row = 0;
    restart_lane(&c->lane[SET_TRAIN], c->next_position);
    restart_lane(&c->lane[SET_EVAL], 0);
    memset(c->lease, 0, (size_t)num_leases(c) * sizeof *c->lease);
    for (int i = 0; i < c->num_actors; i++)
        c->actor[i].leases = 0;
    c->phase = PHASE_STARTING;
}

/* ---- what is waited for ---- */

static void describe_actors(const Controller *c, char *text, size_t size)
{
    for (int i = 0; i < c->num_actors; i++) {
        const ActorRecord *record = &c->actor[i];
        if (supervise_ready(c, i)) continue;
        snprintf(text, size, "%s is %s%s%s", record->name, actor_state_name(record->state),
                 record->reason[0] != '\0' ? ": " : "", record->reason);
        return;
    }
}

/* "training step 7; train-0 waits for rank 1 in all_reduce" */
static void describe_ranks(const Controller *c, char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void describe_ranks(const Controller *c, char *text, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, size, format, args);
    va_end(args);
    for (int i = c->first_train; i < c->num_actors && used < (int)size; i++)
        if (c->actor[i].waiting_for[0] != '\0')
            used += snprintf(text + used, size - (size_t)used, "; %s waits for %s",
                             c->actor[i].name, c->actor[i].waiting_for);
}

/* Each piece of work has a name of its own: how long it is waited for begins anew with it. */
static void describe_work(const Controller *c, char *text, size_t size)
{
    bool evaluating = c->phase == PHASE_EVALUATING;
    const Lane *lane = &c->lane[evaluating ? SET_EVAL : SET_TRAIN];
    if (lane->running.state == PLAN_SLOT_RUNNING && evaluating)
        describe_ranks(c, text, size, "the evaluation of samples %lld to %lld",
                       (long long)lane->running.plan.first_position,
                       (long long)lane->running.plan.end_position - 1);
    else if (lane->running.state == PLAN_SLOT_RUNNING)
        describe_ranks(c, text, size, "training step %lld", (long long)lane->running.plan.step);
    else if (c->phase == PHASE_SAVING)
        describe_ranks(c, text, size, "the checkpoint of step %lld to be written",
                       (long long)c->step);
    else if (lane->next.state == PLAN_SLOT_FETCHING)
        describe_ranks(
            c, text, size, "train ranks to fetch the samples of %s %lld",
            evaluating ? "the evaluation from" : "step",
            (long long)(evaluating ? lane->next.plan.first_position : lane->next.plan.step));
    else if (lane->next.state == PLAN_SLOT_EMPTY && !push_describe_wait(c, text, size))
        snprintf(text, size, "samples from position %lld on from the rollout workers",
                 (long long)lane->planned);
}

void job_describe_wait(Controller *c, char *text, size_t size)
{
    text[0] = '\0';
    if (c->phase == PHASE_ENDING || c->phase == PHASE_OVER) return;
    for (int i = 0; i < c->num_nodes; i++) {
        if (c->node[i].up) continue;
        snprintf(text, size, "the node agent %d to answer", i);
        return;
    }
    if (c->group_state != GROUP_READY) {
        snprintf(text, size, "the placement group%s%s", c->group_wait[0] != '\0' ? ": " : "",
                 c->group_wait);
        return;
    }
    describe_actors(c, text, size);
    if (text[0] != '\0') return;
    if (c->save.rewind_owed)
        snprintf(text, size, "the commit of the checkpoint of step %lld",
                 (long long)c->save.state.step);
    else if (c->gang.state != GANG_READY)
        describe_ranks(c, text, size, "train ranks to load the model");
    else if (!sets_are_open(c))
        snprintf(text, size, "data_source to open the data set: %s", c->actor[0].doing);
    else
        describe_work(c, text, size);
}
