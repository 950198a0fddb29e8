/* Weights on their way from the train ranks to the rollout workers that generate with them. Version
 * v is what step v trains from: of v - 1 steps. Two phases: every rank shows its part on a board of
 * its own (publish), then each rollout worker takes it over by itself (adopt), a late one or one
 * that was started again as soon as it is there. A board has two slots, so a version is written
 * over the one before the newest, and only when nobody reads that any more; where that takes longer
 * than a step, versions are left out. Every call is work with
 * a deadline that supervision watches: a rank or a worker that does not get on is started again,
 * and no push hangs. */
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
    for (int i = c->first_rollout; i < c->end_rollout; i++)
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
    for (int i = c->first_rollout; i < c->end_rollout; i++) {
        const ActorRecord *record = &c->actor[i];
        if (!record->process || (turn_is_used(c) && !record->awake)) continue;
        if (record->adopted > 0 && record->adopted <= version) return false;
        if (record->adopting > 0 && record->adopting <= version) return false;
    }
    return true;
}

/* The ranks of one data-parallel index hold the whole model. */
static void publish(Controller *c, int64_t version)
{
    c->push.publishing = version;
    c->push.answers = 0;
    c->push.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++)
        if (gang_dp_rank(c, i) == 0)
            core_call(c, i, CALL_PUBLISH, c->push.call_id, WORK_TIMEOUT_MS)->call.publish.version =
                version;
}

static void adopt(Controller *c, int actor)
{
    ActorRecord *record = &c->actor[actor];
    record->adopting = c->push.version;
    record->awake = true;
    record->adopt_id = core_next_id(c);
    Effect *effect = core_call(c, actor, CALL_ADOPT, record->adopt_id, WORK_TIMEOUT_MS);
    effect->call.adopt.version = c->push.version;
    effect->call.adopt.board = c->push.board;
    effect->call.adopt.num_boards = (int)c->config->train.tp_size;
    effect->call.adopt.restart = record->adopted == 0;
}

/* One that rests wakes with the weights that it has, or newer ones; at the end of the run nobody
 * needs it to. */
static bool is_to_adopt(const Controller *c, int actor)
{
    const ActorRecord *record = &c->actor[actor];
    if (record->adopting > 0) return false;
    return record->adopted < c->push.version || (turn_is_used(c) && !record->awake && !is_over(c));
}

void push_advance(Controller *c)
{
    if (!push_is_used(c) || c->gang.state != GANG_READY || c->schedule_steps == 0) return;
    int64_t wanted = wanted_version(c);
    bool free = c->push.publishing == 0 && nobody_reads(c, c->push.version - 1);
    /* Not behind a step that is under way: the weights would be those after it. */
    if (free && c->push.version < wanted && c->lane[SET_TRAIN].running.state == PLAN_SLOT_EMPTY &&
        turn_take(c, TURN_OF_TRAINING))
        publish(c, wanted);
    for (int i = c->first_rollout; i < c->end_rollout && c->push.version > 0; i++)
        if (supervise_ready(c, i) && is_to_adopt(c, i) && turn_take(c, TURN_OF_GENERATION))
            adopt(c, i);
}

static void on_published(Controller *c, const Event *event)
{
    if (c->push.publishing == 0 || event->reply.id != c->push.call_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    int tp_size = (int)c->config->train.tp_size;
    c->push.board[c->actor[event->actor].rank % tp_size] = *event->reply.publish.board;
    if (++c->push.answers < tp_size) return;
    c->push.version = c->push.publishing;
    c->push.publishing = 0;
}

static void on_adopted(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (record->adopting == 0 || event->reply.id != record->adopt_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    record->adopted = record->adopting;
    record->adopting = 0;
}

void push_reply(Controller *c, const Event *event)
{
    if (event->reply.call == CALL_PUBLISH)
        on_published(c, event);
    else
        on_adopted(c, event);
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
    for (int i = c->first_rollout; i < c->end_rollout; i++)
        if (c->push.version > 0 && c->actor[i].adopted < c->push.version) {
            snprintf(text, size, "%s to take over the weights of step %lld", c->actor[i].name,
                     (long long)(c->push.version - 1));
            return true;
        }
    return false;
}
