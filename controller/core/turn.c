/* Whose turn it is on GPUs that training and generation share (rollout.offload). Whoever is to work
 * takes the turn first (turn_take); the others are told to rest, which means that they give the
 * GPU's memory back, and have answered when the turn goes over. So no two of them ever hold it at a
 * time, whatever dies meanwhile: who is dead has nothing, and a new process begins with nothing.
 *
 * Generation has the turn from when weights are adopted until the samples of a step are fetched;
 * training has it for the step, for the weights that come of it, and for a checkpoint that is due.
 * A rank or a worker that is resting wakes by itself when it is asked for work. Every call is work
 * with a deadline that supervision watches, as those of push.c are. */
#include "core/core.h"

#include <stdio.h>

bool turn_is_used(const Controller *c)
{
    return c->config->rollout.offload == OFFLOAD_ON && push_is_used(c) && !push_is_all(c);
}

/* New ranks take the turn; what they had is gone with their processes. */
void turn_reset(Controller *c)
{
    c->turn.state = TURN_TO_TRAINING;
}

static bool holds(const Controller *c, int worker)
{
    return c->actor[worker].process && c->actor[worker].awake;
}

/* A rank behind a rollout worker computes until that one rests. */
static bool is_needed(const Controller *c, int worker)
{
    int leader = ranks_leader(c, worker);
    return leader != worker && holds(c, leader);
}

/* True when there is nobody left. */
static bool rest_workers(Controller *c)
{
    bool all = true;
    for (int i = c->first_rollout; i < c->first_train; i++) {
        ActorRecord *record = &c->actor[i];
        if (!holds(c, i)) continue;
        all = false;
        if (record->rest_id != 0 || record->adopting > 0 || !supervise_ready(c, i)) continue;
        if (is_needed(c, i)) continue;
        record->rest_id = core_next_id(c);
        core_call(c, i, CALL_REST, record->rest_id, WORK_TIMEOUT_MS);
    }
    return all;
}

static void rest_ranks(Controller *c)
{
    c->turn.state = TURN_TO_GENERATION;
    c->turn.answers = 0;
    c->turn.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++)
        core_call(c, i, CALL_REST_RANK, c->turn.call_id, WORK_TIMEOUT_MS);
}

/* Work that the ranks have, or are about to be given before anything is generated. */
static bool training_goes_on(const Controller *c)
{
    const Lane *lane = &c->lane[SET_TRAIN];
    bool at_end = c->step >= c->total_steps || (lane->over && lane->next.state == PLAN_SLOT_EMPTY);
    return c->gang.state != GANG_READY || lane->running.state != PLAN_SLOT_EMPTY ||
           c->phase == PHASE_SAVING || !push_is_on_show(c) ||
           (c->phase == PHASE_TRAINING &&
            (lane->next.state == PLAN_SLOT_FETCHED || save_is_due(c, at_end)));
}

bool turn_take(Controller *c, TurnState wanted)
{
    if (!turn_is_used(c)) return true;
    turn_advance(c);
    if (c->turn.state == wanted) return true;
    if (wanted == TURN_OF_TRAINING && c->turn.state == TURN_OF_GENERATION) {
        c->turn.state = TURN_TO_TRAINING;
        turn_advance(c);
    }
    if (wanted == TURN_OF_GENERATION && c->turn.state == TURN_OF_TRAINING && !training_goes_on(c))
        rest_ranks(c);
    return c->turn.state == wanted;
}

void turn_advance(Controller *c)
{
    if (!turn_is_used(c)) return;
    if (c->turn.state == TURN_TO_TRAINING && rest_workers(c)) c->turn.state = TURN_OF_TRAINING;
}

static void on_worker_rests(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (record->rest_id == 0 || event->reply.id != record->rest_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    record->rest_id = 0;
    record->awake = false;
}

static void on_rank_rests(Controller *c, const Event *event)
{
    if (c->turn.state != TURN_TO_GENERATION || event->reply.id != c->turn.call_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    if (++c->turn.answers == core_num_train(c)) c->turn.state = TURN_OF_GENERATION;
}

void turn_reply(Controller *c, const Event *event)
{
    if (event->reply.call == CALL_REST)
        on_worker_rests(c, event);
    else
        on_rank_rests(c, event);
}

bool turn_describe_wait(const Controller *c, char *text, size_t size)
{
    if (!turn_is_used(c)) return false;
    if (c->turn.state == TURN_TO_GENERATION)
        snprintf(text, size, "train ranks to give the GPU to generation");
    for (int i = c->first_rollout; i < c->first_train && c->turn.state == TURN_TO_TRAINING; i++)
        if (holds(c, i)) {
            snprintf(text, size, "%s to give the GPU to training", c->actor[i].name);
            return true;
        }
    return c->turn.state == TURN_TO_GENERATION;
}
