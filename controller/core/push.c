/* Weights on their way from the train ranks to the rollout workers that generate with them. Version
 * v is what step v trains from: of v - 1 steps. Two phases: every rank shows its part on a board of
 * its own (publish), then each rollout worker takes it over by itself (adopt), a late one or one
 * that was started again as soon as it is there; those of other hosts receive it before (send.c). A
 * board has two slots, so a version is written over the one before the newest, and only when nobody
 * reads that any more; where that takes longer than a step, versions are left out. Where a worker's
 * ranks are processes each has the board of its own train rank, and the last to be asked is the
 * worker (ranks.c). Every call is work with a deadline that supervision watches: a rank or a worker
 * that does not get on is started again, and no push hangs. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

bool push_is_used(const Controller *c)
{
    return c->config->rollout.function != ROLLOUT_SFT;
}

bool push_is_all(const Controller *c)
{
    return push_is_used(c) && c->config->rollout.only;
}

/* Where nothing is trained steps go by and the weights stay those of the beginning. */
static int64_t newest_version(const Controller *c)
{
    return (push_is_all(c) ? c->saved.step : c->step) + 1;
}

bool push_is_newest(const Controller *c)
{
    return c->push.version == newest_version(c);
}

void push_reset(Controller *c)
{
    c->push.version = c->push.publishing = 0;
    send_reset(c);
    for (int i = c->first_rollout; i < c->first_train; i++)
        c->actor[i].adopted = c->actor[i].adopting = 0;
}

static bool is_over(const Controller *c)
{
    return c->stop_requests > 0 || (c->step >= c->total_steps && c->num_sets == 1);
}

/* The weights that there are now are wanted by the next step, or by an evaluation. */
static int64_t wanted_version(const Controller *c)
{
    return is_over(c) ? c->push.version : newest_version(c);
}

bool push_is_on_show(const Controller *c)
{
    return c->push.publishing == 0 && c->push.version > 0 && c->push.version >= wanted_version(c);
}

static bool nobody_reads(const Controller *c, int64_t version)
{
    for (int i = c->first_rollout; i < c->first_train; i++) {
        const ActorRecord *record = &c->actor[i];
        if (!record->process || (turn_is_used(c) && !record->awake)) continue;
        if (send_is_receiver(c, i)) continue; /* it has sets of its own */
        if (record->adopted > 0 && record->adopted <= version) return false;
        if (record->adopting > 0 && record->adopting <= version) return false;
    }
    return true;
}

static void on_show(Controller *c)
{
    c->push.version = c->push.publishing;
    c->push.publishing = 0;
}

/* The ranks of one data-parallel index hold the whole model; of several, those show it whose boards
 * are read. */
static void publish(Controller *c, int64_t version)
{
    c->push.publishing = version;
    c->push.calls = c->push.answers = 0;
    c->push.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++) {
        c->push.digest[c->actor[i].rank] = 0;
        if (!send_shows_board(c, i)) continue;
        c->push.calls++;
        core_call(c, i, CALL_PUBLISH, c->push.call_id, WORK_TIMEOUT_MS)->call.publish.version =
            version;
    }
    if (c->push.calls == 0) on_show(c);
}

/* What the ranks behind a rollout worker have said of the weights that they have ready. */
static const uint64_t *digests_behind(Controller *c, int worker, int count)
{
    uint64_t *digest = arena_alloc(c->scratch, (size_t)(count + 1) * sizeof *digest);
    for (int i = 0; i < count; i++)
        digest[i] = c->actor[ranks_follower(c, worker, i)].digest;
    return digest;
}

/* A rank that is a process gets the board of its own train rank. */
static void adopt(Controller *c, int actor)
{
    ActorRecord *record = &c->actor[actor];
    int behind = ranks_count(c, ranks_leader(c, actor));
    record->adopt_out = true;
    record->adopting = c->push.version;
    record->awake = true;
    record->adopt_id = core_next_id(c);
    Effect *effect = core_call(c, actor, CALL_ADOPT, record->adopt_id, WORK_TIMEOUT_MS);
    effect->call.adopt.version = c->push.version;
    int tp_size = (int)c->config->train.tp_size, reads = send_board_of(c, actor);
    effect->call.adopt.board =
        reads >= 0 ? c->push.board + reads * tp_size + record->tp_rank : NULL;
    effect->call.adopt.num_boards = reads < 0 ? 0 : behind > 0 ? 1 : tp_size;
    effect->call.adopt.num_digests = record->tp_rank == 0 ? behind : 0;
    effect->call.adopt.digest = digests_behind(c, actor, effect->call.adopt.num_digests);
    effect->call.adopt.restart = record->adopted == 0;
}

/* One that rests wakes with the weights that it has, or newer ones; at the end of the run nobody
 * needs it to. */
static bool is_to_adopt(const Controller *c, int actor)
{
    const ActorRecord *record = &c->actor[actor];
    if (record->adopting > 0) return false;
    if (send_is_receiver(c, actor) && record->received < c->push.version) return false;
    return record->adopted < c->push.version || (turn_is_used(c) && !record->awake && !is_over(c));
}

/* The ranks behind a rollout worker have the weights ready before it is asked to go over to them,
 * which it does with all of them in one step. What is asked of them once more, for new train ranks,
 * waits for every answer to what was asked before: a worker that goes over to weights relies on the
 * others having just these. */
static void adopt_together(Controller *c, int worker)
{
    int behind = ranks_count(c, worker);
    bool ready = true;
    if (!supervise_ready(c, worker) || !ranks_are_joined(c, worker)) return;
    if (behind > 0 && ranks_adopt(c, worker)) return;
    for (int i = 0; i < behind; i++) {
        int rank = ranks_follower(c, worker, i);
        if (!is_to_adopt(c, rank)) continue;
        ready = false;
        if (supervise_ready(c, rank) && turn_take(c, TURN_OF_GENERATION)) adopt(c, rank);
    }
    if (ready && is_to_adopt(c, worker) && turn_take(c, TURN_OF_GENERATION)) adopt(c, worker);
}

void push_advance(Controller *c)
{
    if (!push_is_used(c) || c->gang.state != GANG_READY || c->schedule_steps == 0) return;
    int64_t wanted = wanted_version(c);
    bool free = c->push.publishing == 0 && c->send.state == SEND_NONE &&
                nobody_reads(c, c->push.version - 1);
    /* Not behind a step that is under way: the weights would be those after it. */
    if (free && c->push.version < wanted && c->lane[SET_TRAIN].running.state == PLAN_SLOT_EMPTY &&
        turn_take(c, TURN_OF_TRAINING))
        publish(c, wanted);
    if (!is_over(c) || c->send.state != SEND_NONE) send_advance(c);
    for (int i = c->first_rollout; i < c->end_rollout && c->push.version > 0; i++)
        adopt_together(c, i);
}

/* Ranks that hold the same part of the model have the same weights, or training is broken. */
static void check_replicas(Controller *c, int actor)
{
    int rank = c->actor[actor].rank, tp_size = (int)c->config->train.tp_size;
    for (int i = c->first_train; i < c->num_actors; i++) {
        int other = c->actor[i].rank;
        if (other % tp_size != rank % tp_size || c->push.digest[other] == 0) continue;
        if (c->push.digest[other] == c->push.digest[rank]) continue;
        core_finish(c, ERR_DATA,
                    "%s and %s hold the same part of the model, but their weights of step %lld "
                    "differ (digests %016llx and %016llx).\nA GPU or its memory may be at fault; "
                    "the last checkpoint was written before.",
                    c->actor[i].name, c->actor[actor].name, (long long)c->push.publishing - 1,
                    (unsigned long long)c->push.digest[other],
                    (unsigned long long)c->push.digest[rank]);
        return;
    }
}

static void on_published(Controller *c, const Event *event)
{
    if (c->push.publishing == 0 || event->reply.id != c->push.call_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    int rank = c->actor[event->actor].rank;
    c->push.board[rank] = *event->reply.publish.board;
    c->push.digest[rank] = event->reply.publish.digest;
    check_replicas(c, event->actor);
    if (++c->push.answers == c->push.calls) on_show(c);
}

static void on_adopted(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    record->adopt_out = false;
    if (record->adopting == 0 || event->reply.id != record->adopt_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    record->adopted = record->adopting;
    record->adopting = 0;
    record->digest = event->reply.adopt.digest;
}

void push_reply(Controller *c, const Event *event)
{
    if (event->reply.call == CALL_PUBLISH)
        on_published(c, event);
    else if (event->reply.call == CALL_ADOPT)
        on_adopted(c, event);
    else
        send_reply(c, event);
}

bool push_is_current(const Controller *c, int actor)
{
    const ActorRecord *record = &c->actor[actor];
    bool rests = turn_is_used(c) && (!record->awake || c->turn.state != TURN_OF_GENERATION);
    return !push_is_used(c) ||
           (c->push.version > 0 && record->adopted == c->push.version && !rests);
}

bool push_describe_wait(const Controller *c, char *text, size_t size)
{
    if (!push_is_used(c)) return false;
    if (c->push.publishing != 0) {
        snprintf(text, size, "train ranks to show the weights of step %lld",
                 (long long)(c->push.publishing - 1));
        return true;
    }
    if (send_describe_wait(c, text, size)) return true;
    for (int i = c->first_rollout; i < c->end_rollout; i++)
        if (c->push.version > 0 && c->actor[i].adopted < c->push.version) {
            snprintf(text, size, "%s to take over the weights of step %lld", c->actor[i].name,
                     (long long)(c->push.version - 1));
            return true;
        }
    return false;
}
