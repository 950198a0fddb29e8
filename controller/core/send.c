/* Weights on their way to rollout workers of other hosts than the train ranks' (push.c has the
 * rest). Who has no board to read on its host is a receiver: it gets a version over NCCL, in a
 * group of which rank r of data-parallel index 0 is the root, one group for each tensor-parallel
 * rank (model/weight_line.h). A send is of the newest version, to those that lack it, while the
 * train ranks stand at it: no step begins before it is over.
 *
 *   meet   the roots make an id for each group, unless the receivers are those of the last send
 *   move   roots send and receivers receive; all answer
 *   end    when somebody is lost or has failed, all others abandon the send
 *
 * Nobody in such a group sees the others die, and NCCL waits for the dead: so it is this part that
 * ends a send, within the time in which a death is known. A lost receiver costs the others this
 * send and a new id for the next, nothing else; they generate meanwhile with what they have. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a death may be known later than what it leads to, as in supervise.c. */
#define DEATH_NOTICE_MS 2000

/* ---- who reads where ---- */

static const char *host_of(const Controller *c, int actor)
{
    int node = c->actor[actor].node;
    return node >= 0 ? c->node[node].host : "";
}

/* All ranks of it. */
static bool is_on_host(const Controller *c, int dp_rank, const char *host)
{
    for (int i = c->first_train; i < c->num_actors; i++)
        if (gang_dp_rank(c, i) == dp_rank && strcmp(host_of(c, i), host) != 0) return false;
    return true;
}

int send_board_of(const Controller *c, int worker)
{
    int beside = c->bundle[worker].gpu_of - 1;
    if (beside >= c->first_train) return gang_dp_rank(c, beside);
    for (int d = 0; d < c->config->train.dp_size; d++)
        if (is_on_host(c, d, host_of(c, worker))) return d;
    return -1;
}

bool send_is_receiver(const Controller *c, int worker)
{
    return send_board_of(c, worker) < 0;
}

bool send_shows_board(const Controller *c, int rank)
{
    for (int i = c->first_rollout; i < c->first_train; i++)
        if (send_board_of(c, i) == gang_dp_rank(c, rank)) return true;
    return false;
}

/* On CPUs, and between GPUs where each rank is a process: no such worker receives yet. */
static void refuse_hosts(Controller *c, int worker)
{
    bool cpus = c->config->device == JOB_CPU;
    core_finish(c, ERR_UNSUPPORTED,
                "%s: %s is on host %s (node %s), but %s is on host %s (node %s): %s.\n"
                "Write cluster.strategy: strict_pack, or name agents of one host in "
                "cluster.agents; %s.",
                cpus ? "device: cpu" : "train.tp_size", c->actor[worker].name, host_of(c, worker),
                c->node[c->actor[worker].node].name, c->actor[c->first_train].name,
                host_of(c, c->first_train), c->node[c->actor[c->first_train].node].name,
                cpus ? "on CPUs, weights reach rollout workers through the memory of their host "
                       "alone"
                     : "a rollout worker of several tensor-parallel ranks, each a process, reads "
                       "weights on its own host alone",
                cpus ? "between hosts weights go from GPU to GPU (device: cuda)"
                     : "with train.tp_size: 1 weights go between hosts");
}

bool send_check_hosts(Controller *c)
{
    bool apart = c->followers > 0; /* in whichever stage: the places stay these */
    if (!apart && (c->config->device != JOB_CPU || !push_is_used(c))) return true;
    for (int i = c->first_rollout; i < c->first_train; i++) {
        if (!send_is_receiver(c, i)) continue;
        refuse_hosts(c, i);
        return false;
    }
    return true;
}

/* ---- who is in a send ---- */

static bool is_root(const Controller *c, int actor)
{
    return actor >= c->first_train && gang_dp_rank(c, actor) == 0;
}

static bool is_member(const Controller *c, int actor)
{
    return c->send.incarnation[actor] != 0;
}

static bool is_there(const Controller *c, int actor)
{
    return supervise_ready(c, actor) && c->actor[actor].process;
}

/* The weights that there are, and that the train ranks stand at. */
static bool lacks_weights(const Controller *c, int worker)
{
    const ActorRecord *record = &c->actor[worker];
    return send_is_receiver(c, worker) && record->received < c->push.version &&
           record->adopted < c->push.version;
}

/* At first, those that are on their way are waited for: a group is made once instead of once for
 * each of them. Supervision bounds how long that takes. */
static bool is_worth_waiting(const Controller *c, int worker)
{
    return !c->send.has_sent && c->actor[worker].state != ACTOR_DEAD && !is_there(c, worker);
}

static bool is_due(const Controller *c)
{
    bool any = false;
    if (c->push.version == 0 || c->push.publishing != 0 || !push_is_newest(c)) return false;
    for (int i = c->first_rollout; i < c->end_rollout; i++) {
        if (!lacks_weights(c, i)) continue;
        if (is_worth_waiting(c, i)) return false;
        any = any || is_there(c, i);
    }
    return any;
}

/* Whoever takes over weights yet is waited for, so that it gets these together with the others. */
static bool is_anybody_adopting(const Controller *c)
{
    for (int i = c->first_rollout; i < c->end_rollout; i++)
        if (lacks_weights(c, i) && is_there(c, i) && c->actor[i].adopting > 0) return true;
    return false;
}

bool send_holds_training(const Controller *c)
{
    return push_is_used(c) && (c->send.state != SEND_NONE || is_due(c));
}

/* Chooses the members. True when the groups of the last send are theirs. */
static bool choose_members(Controller *c)
{
    bool same = c->send.has_group;
    c->send.size = 1;
    for (int i = 0; i < c->num_actors; i++) {
        bool receives =
            i >= c->first_rollout && i < c->end_rollout && lacks_weights(c, i) && is_there(c, i);
        uint64_t incarnation = receives || is_root(c, i) ? c->actor[i].incarnation : 0;
        same = same && c->send.incarnation[i] == incarnation;
        c->send.incarnation[i] = incarnation;
        c->send.size += receives;
    }
    return same;
}

static Effect *call_member(Controller *c, int actor, CallKind call)
{
    Effect *effect = core_call(c, actor, call, c->send.id, WORK_TIMEOUT_MS);
    c->actor[actor].send_id = c->send.id;
    return effect;
}

/* ---- meet, move ---- */

static void begin_meeting(Controller *c)
{
    c->send.state = SEND_MEETING;
    c->send.id = core_next_id(c);
    c->send.has_group = false;
    for (int i = c->first_train; i < c->num_actors; i++)
        if (is_root(c, i)) call_member(c, i, CALL_MEET)->call.meet.size = c->send.size;
}

static void fill_move(const Controller *c, Effect *effect, int actor, int rank)
{
    int part = c->actor[actor].role == ROLE_TRAIN ? c->actor[actor].rank : 0;
    effect->call.move.version = c->send.version;
    effect->call.move.id = c->send.id;
    effect->call.move.group = c->send.group + part;
    effect->call.move.num_groups = rank == 0 ? 1 : (int)c->config->train.tp_size;
    effect->call.move.rank = rank;
    effect->call.move.size = c->send.size;
}

static void begin_move(Controller *c)
{
    int rank = 0;
    c->send.state = SEND_MOVING;
    c->send.has_group = c->send.has_sent = true;
    c->send.id = core_next_id(c);
    for (int i = c->first_rollout; i < c->num_actors; i++) {
        if (!is_member(c, i)) continue;
        CallKind call = is_root(c, i) ? CALL_SEND : CALL_RECEIVE;
        fill_move(c, call_member(c, i, call), i, is_root(c, i) ? 0 : ++rank);
    }
}

static void begin(Controller *c)
{
    c->send.version = c->push.version;
    c->send.failure.status = OK;
    c->send.lost = false;
    if (choose_members(c))
        begin_move(c);
    else
        begin_meeting(c);
}

/* ---- end ---- */

/* Everybody who may be in it still. Whoever stood still in it begins to be watched anew. */
static void abandon(Controller *c)
{
    for (int i = 0; i < c->num_actors; i++) {
        if (!is_member(c, i) || !is_there(c, i)) continue;
        if (c->actor[i].incarnation != c->send.incarnation[i]) continue;
        c->actor[i].progress_ms = c->now_ms;
        Effect *effect = core_call(c, i, CALL_ABANDON, 0, ABANDON_TIMEOUT_MS);
        effect->call.abandon.id = c->send.id;
    }
    c->send.has_group = false;
}

static void end_early(Controller *c)
{
    if (c->send.state == SEND_MOVING) abandon(c);
    c->send.state = SEND_ENDING;
    c->send.since_ms = c->now_ms;
}

static void note_lost(Controller *c)
{
    for (int i = 0; i < c->num_actors; i++)
        if (is_member(c, i) &&
            (!is_there(c, i) || c->actor[i].incarnation != c->send.incarnation[i]))
            c->send.lost = true;
}

static bool is_answered(const Controller *c)
{
    for (int i = 0; i < c->num_actors; i++)
        if (is_member(c, i) && is_there(c, i) && c->actor[i].send_id == c->send.id &&
            c->actor[i].incarnation == c->send.incarnation[i])
            return false;
    return true;
}

/* Nobody has died, and yet it failed. The network between hosts is to blame, or a worker: a fresh
 * one may have better luck, and the budget of restarts bounds how often that is tried. */
static void judge_failure(Controller *c)
{
    int to_blame = c->send.failed_actor;
    if (c->send.lost || c->send.failure.status == OK) return;
    Event event = {
        .kind = EV_REPLY, .status = c->send.failure.status, .message = c->send.failure.message};
    for (int i = c->first_rollout; i < c->first_train && is_root(c, to_blame); i++)
        if (gang_is_retryable(event.status) && is_member(c, i)) to_blame = i;
    event.actor = to_blame;
    supervise_reply_failed(c, &event);
}

/* A root waits for the receivers, which are watched; nobody holds it up from here on. */
static void watch_roots(Controller *c)
{
    if (c->now_ms - c->send.since_ms <= c->config->cluster.progress_s * 1000) return;
    for (int i = c->first_train; i < c->num_actors; i++)
        if (is_member(c, i) && c->actor[i].send_id == c->send.id) {
            supervise_lost(c, i, "it does not come out of a send of weights that was abandoned");
            return;
        }
}

static void advance_ending(Controller *c)
{
    if (!is_answered(c)) {
        watch_roots(c);
        return;
    }
    if (!c->send.lost && c->now_ms - c->send.since_ms < DEATH_NOTICE_MS) return;
    core_log(c, LOG_WARN, "weights_not_sent", "version %lld to rollout workers of other hosts: %s",
             (long long)c->send.version,
             c->send.lost ? "one of them, or a train worker, was lost" : c->send.failure.message);
    c->send.state = SEND_NONE;
    judge_failure(c);
}

static void finish(Controller *c)
{
    for (int i = c->first_rollout; i < c->first_train; i++)
        if (is_member(c, i)) c->actor[i].received = c->send.version;
    c->send.state = SEND_NONE;
}

void send_advance(Controller *c)
{
    if (c->send.state == SEND_NONE) {
        bool idle = c->lane[SET_TRAIN].running.state == PLAN_SLOT_EMPTY;
        if (idle && is_due(c) && !is_anybody_adopting(c)) begin(c);
        return;
    }
    note_lost(c);
    if (c->send.state == SEND_ENDING)
        advance_ending(c);
    else if (c->send.lost || c->send.failure.status != OK)
        end_early(c);
    else if (is_answered(c) && c->send.state == SEND_MEETING)
        begin_move(c);
    else if (is_answered(c))
        finish(c);
}

void send_reset(Controller *c)
{
    if (c->send.state == SEND_MOVING) abandon(c);
    c->send.state = SEND_NONE;
    c->send.has_group = c->send.has_sent = false;
    for (int i = 0; i < c->num_actors; i++)
        c->actor[i].received = 0;
}

/* ---- answers ---- */

static void note_failure(Controller *c, const Event *event)
{
    if (c->send.state == SEND_ENDING || c->send.failure.status != OK) return; /* they follow */
    c->send.failure.status = event->status;
    snprintf(c->send.failure.message, sizeof c->send.failure.message, "%s: %s",
             c->actor[event->actor].name, event->message);
    c->send.failed_actor = event->actor;
}

static void keep_id(Controller *c, const Event *event)
{
    const void *group = event->reply.meet.group;
    if (group != NULL)
        memcpy(c->send.group[c->actor[event->actor].rank].bytes, group, sizeof(CommId));
}

void send_reply(Controller *c, const Event *event)
{
    ActorRecord *record = &c->actor[event->actor];
    if (event->reply.id != record->send_id || record->send_id != c->send.id) return;
    record->send_id = 0;
    if (c->send.state == SEND_NONE) return; /* of ranks that are gone */
    if (event->status != OK)
        note_failure(c, event);
    else if (event->reply.call == CALL_MEET)
        keep_id(c, event);
}

bool send_describe_wait(const Controller *c, char *text, size_t size)
{
    if (c->send.state == SEND_NONE) return false;
    for (int i = 0; i < c->num_actors; i++) {
        if (!is_member(c, i) || c->actor[i].send_id != c->send.id) continue;
        snprintf(text, size, "weights of step %lld on their way to other hosts; %s %s",
                 (long long)(c->send.version - 1), c->actor[i].name,
                 c->actor[i].waiting_for[0] != '\0' ? c->actor[i].waiting_for : "has not answered");
        return true;
    }
    return false;
}
