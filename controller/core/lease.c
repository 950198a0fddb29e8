/* Steps 1 and 2 of the loop: positions of the ordered streams go to rollout workers ahead of
 * training, and what comes of them is judged and kept in the stream. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

#define LEASE_RETRY_MS 100 /* after one that failed */

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
    return steps == 0 ? lane->planned : lane->planned + steps * job_groups_per_batch(c) + rejected;
}

/* Positions of a lease. Generation takes long: what it may be leased is shared evenly. */
static int lease_size(const Controller *c)
{
    int64_t size = c->config->rollout.lease_size;
    int64_t share = (job_groups_per_batch(c) + num_leases(c) - 1) / num_leases(c);
    return (int)(push_is_used(c) ? least(size, share) : size);
}

void lease_ahead(Controller *c, SetName set)
{
    Lane *lane = lane_of(c, set);
    const DataSet *data = core_set(c, set);
    if (data == NULL || !data->open || !supervise_ready(c, 0) || c->failure.status != OK) return;
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

void lease_reply(Controller *c, const Event *event)
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

void lease_worker_lost(Controller *c, int actor)
{
    for (int i = 0; i < num_leases(c); i++)
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
    memset(c->lease, 0, (size_t)num_leases(c) * sizeof *c->lease);
    for (int i = 0; i < c->num_actors; i++)
        c->actor[i].leases = 0;
}
