/* Steps 1 and 2 of the loop: positions of the ordered streams go to rollout workers ahead of
 * training, and what comes of them is judged and kept in the stream; what is left over of a step
 * and has grown too old is let go of. */
#include "core/core.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/plural.h"

#define LEASE_RETRY_MS     100 /* after one that failed */
#define GIVE_UP_TIMEOUT_MS 10000

/* ---- 1 lease ---- */

int lease_slots(const Controller *c)
{
    return (c->end_rollout - c->first_rollout) * LEASES_PER_WORKER;
}

static Lease *free_lease(Controller *c)
{
    for (int i = 0; i < lease_slots(c); i++)
        if (c->lease[i].id == 0) return &c->lease[i];
    return NULL;
}

static int least_loaded_worker(const Controller *c)
{
    int best = -1;
    for (int i = c->first_rollout; i < c->end_rollout; i++) {
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

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Positions that are let out at once for the next step, of which some may be rejected. */
static int64_t over_sampled(const Controller *c)
{
    double factor = push_is_used(c) ? c->config->rollout.over_sampling : 1;
    return (int64_t)ceil((double)job_groups_per_batch(c) * factor);
}

/* Steps that have no plan yet and may be leased for; what is leased beyond the last step would
 * never be trained. Answers may be behind the weights that they train by max_staleness: version v
 * is what step v trains from, so with it answers are made for steps up to v + max_staleness.
 * Without weights that change it is prefetch_steps that says how far. */
static int64_t steps_ahead(const Controller *c, const Lane *lane)
{
    int64_t ahead = c->config->rollout.prefetch_steps + 1;
    /* Of these very weights, and not of those before that are on show until they are published. */
    if (lane->stream.set == SET_EVAL) return push_is_used(c) && !push_is_newest(c) ? 0 : ahead;
    int64_t planned =
        c->step + (lane->running.state != PLAN_SLOT_EMPTY) + (lane->next.state != PLAN_SLOT_EMPTY);
    if (push_is_used(c) && !push_is_all(c))
        ahead = c->push.version + c->config->rollout.max_staleness - planned;
    ahead = least(ahead, c->total_steps - planned);
    return ahead < 0 ? 0 : ahead;
}

/* Leases stop here. With weights of version v, whose first is 1, there are in all steps, planned
 * ones and those ahead, (v + max_staleness) batches that are accepted or on their way: the capacity
 * of AReaL (Fu et al. 2025, section 5.1), whose versions begin with 0. What is rejected makes room.
 * Over-sampling exceeds it by what it lets out more for the next step; what no step will train, at
 * the end of an epoch, does not count, or a step would wait for that and then for its own. */
static int64_t lease_limit(const Controller *c, const Lane *lane)
{
    int64_t steps = steps_ahead(c, lane);
    if (steps == 0) return lane->planned;
    return most(remainder_reach(c, lane, steps, job_groups_per_batch(c)),
                remainder_reach(c, lane, 1, over_sampled(c)));
}

/* Positions of a lease. Generation takes long: what may be leased is shared evenly. */
static int lease_size(const Controller *c)
{
    int64_t size = c->config->rollout.lease_size;
    int64_t share = (over_sampled(c) + lease_slots(c) - 1) / lease_slots(c);
    return (int)(push_is_used(c) ? least(size, share) : size);
}

void lease_ahead(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    const DataSet *data = core_set(c, set);
    lane->stream.now_ms = c->now_ms;
    if (data == NULL || !data->open || !supervise_ready(c, 0) || c->failure.status != OK) return;
    for (;;) {
        int worker = least_loaded_worker(c);
        Lease *lease = free_lease(c);
        if (worker < 0 || lease == NULL) return;
        int64_t first;
        /* What is below, plans have. When the holder of some of it is lost, a rank that has not
         * fetched it says so and the plan is made anew; until then it is not leased: made again
         * it might be judged otherwise. */
        LeaseTerms terms = {worker, c->push.version, lane->planned, lease_limit(c, lane),
                            lease_size(c)};
        int count = stream_lease(&lane->stream, &terms, &first);
        if (count == 0) return;
        *lease = (Lease){core_next_id(c), set, worker, first, count, terms.version};
        Effect *effect = core_call(c, worker, CALL_LEASE, lease->id, WORK_TIMEOUT_MS);
        effect->call.set = set;
        effect->call.set_name = data->name;
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

void lease_drop_set(Controller *c, SetName set)
{
    for (int i = 0; i < lease_slots(c); i++)
        if (c->lease[i].id != 0 && c->lease[i].set == set) drop_lease(c, &c->lease[i]);
}

/* ---- 2 roll out ---- */

/* Which groups train. An evaluation takes whatever there is. */
static GroupFilter filter_for(const Controller *c, SetName set)
{
    bool learns = push_is_used(c) && !push_is_all(c) && set == SET_TRAIN;
    return learns ? group_filter(&c->config->algorithm) : (GroupFilter){.size_min = 1};
}

static void take_samples(Controller *c, SetName set, const Event *event)
{
    Stream *stream = &lane_of(c, set)->stream;
    GroupFilter filter = filter_for(c, set);
    stream->now_ms = c->now_ms;
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

void lease_reply(Controller *c, const Event *event)
{
    Lease *lease = NULL;
    for (int i = 0; i < lease_slots(c); i++)
        if (c->lease[i].id == event->reply.id) lease = &c->lease[i];
    if (lease == NULL) return; /* dropped meanwhile */
    if (event->status == OK)
        take_samples(c, lease->set, event);
    else if (gang_is_retryable(event->status))
        c->actor[event->actor].lease_after_ms = c->now_ms + LEASE_RETRY_MS;
    else
        core_finish_until(c, event->status, "mend what is said above", event->message);
    drop_lease(c, lease);
}

/* ---- what is left over ---- */

/* Its worker need not end what nobody wants. */
static void give_up(Controller *c, Lease *lease)
{
    if (supervise_ready(c, lease->worker)) {
        Effect *effect = core_call(c, lease->worker, CALL_GIVE_UP, 0, GIVE_UP_TIMEOUT_MS);
        effect->call.set = lease->set;
        effect->call.set_name = core_set(c, lease->set)->name;
        effect->call.lease.first = lease->first;
        effect->call.lease.count = lease->count;
    }
    drop_lease(c, lease);
}

/* Only over-sampling leaves anything over: what is leased without it is for a step that may train
 * it. The plan has just been made; none that is yet to be made is for an earlier step than the one
 * after it. What is dropped must not depend on what happens to be finished, so it is all that was
 * let out at once, and belongs to this step: whoever goes on from a checkpoint begins behind it. */
void lease_let_go_of_stale(Controller *c, Plan *plan)
{
    Stream *stream = &lane_of(c, plan->set)->stream;
    bool ages = push_is_used(c) && plan->set == SET_TRAIN && c->config->rollout.load == NULL;
    int64_t oldest = plan->step + 1 - c->config->rollout.max_staleness;
    if (!ages || c->config->rollout.over_sampling <= 1) return;
    if (c->config->rollout.too_stale == TOO_STALE_DROP) {
        int64_t out = least(plan->first_position + over_sampled(c),
                            remainder_seam(c, stream, plan->end_position - 1));
        int64_t end = stream_drop_stale(stream, plan->end_position, out, oldest, c->push.version);
        int dropped = (int)(end - plan->end_position);
        plan->dropped[GROUP_TOO_STALE] += dropped;
        for (int64_t p = plan->end_position; p < end; p++)
            plan_pass_over(plan, p, group_verdict_name(GROUP_TOO_STALE));
        plan->end_position = end;
    }
    for (int i = 0; i < lease_slots(c); i++) {
        Lease *lease = &c->lease[i];
        if (lease->id == 0 || lease->set != plan->set || lease->version >= oldest) continue;
        plan->given_up += lease->count;
        give_up(c, lease);
    }
    plan->recomputed += (int)stream_free_stale(stream, plan->end_position, oldest);
    if (plan->given_up + plan->recomputed + plan->dropped[GROUP_TOO_STALE] > 0)
        core_log(c, LOG_DEBUG, "too_stale",
                 "left over of step %lld and too old for later ones: %d group%s dropped, %d to be "
                 "answered again, %d given up in work",
                 (long long)plan->step, plan->dropped[GROUP_TOO_STALE],
                 plural(plan->dropped[GROUP_TOO_STALE]), plan->recomputed, plan->given_up);
}

void lease_worker_lost(Controller *c, int actor)
{
    for (int i = 0; i < lease_slots(c); i++)
        if (c->lease[i].id != 0 && c->lease[i].worker == actor) drop_lease(c, &c->lease[i]);
    for (SetName set = 0; set < SET_COUNT; set++)
        stream_worker_lost(&c->lane[set].stream, actor);
}

/* The new one must open the sets again. Leases are read from the old one, and whether their worker
 * notices that it has died is not for us to rely on. */
void lease_source_lost(Controller *c)
{
    for (int i = 0; i < c->num_sets; i++)
        c->set[i].asked = c->set[i].open = false;
    for (SetName set = 0; set < SET_COUNT; set++)
        lease_drop_set(c, set);
}

void lease_forget_all(Controller *c)
{
    int all = (c->first_follower - c->first_rollout) * LEASES_PER_WORKER; /* of any stage */
    memset(c->lease, 0, (size_t)all * sizeof *c->lease);
    for (int i = 0; i < c->num_actors; i++)
        c->actor[i].leases = 0;
}
