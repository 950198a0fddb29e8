/* Rollout workers whose tensor-parallel ranks are processes of their own (job_has_rank_processes):
 * "rollout-0" is rank 0, which gets prompts and answers for all; those behind it, "rollout-0.1" and
 * so on, compute their part of each of its steps and are asked for nothing else. They are one
 * group, which is made when all of them are up: rank 0 makes its ids, all join. Who loses one loses
 * them all (supervise.c); a new group is made of the new processes. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

#define GROUP_TIMEOUT_MS 30000

int ranks_leader(const Controller *c, int actor)
{
    if (actor < c->first_follower || actor >= c->first_train) return actor;
    return c->first_rollout + (actor - c->first_follower) / c->followers;
}

int ranks_count(const Controller *c, int worker)
{
    return job_has_rank_processes(c->config) && worker >= c->first_rollout &&
                   worker < c->first_follower
               ? c->followers
               : 0;
}

int ranks_follower(const Controller *c, int worker, int i)
{
    return c->first_follower + (worker - c->first_rollout) * c->followers + i;
}

static RankGroup *group_of(const Controller *c, int worker)
{
    return &c->rank_group[worker - c->first_rollout];
}

bool ranks_are_joined(const Controller *c, int worker)
{
    return ranks_count(c, worker) == 0 || group_of(c, worker)->state == RANKS_JOINED;
}

bool ranks_adopt(const Controller *c, int worker)
{
    bool any = c->actor[worker].adopt_out;
    for (int i = 0; i < ranks_count(c, worker); i++)
        any = any || c->actor[ranks_follower(c, worker, i)].adopt_out;
    return any;
}

void ranks_reset(Controller *c, int worker)
{
    if (c->followers > 0) group_of(c, worker)->state = RANKS_APART;
}

static bool are_all_up(const Controller *c, int worker)
{
    bool all = supervise_ready(c, worker);
    for (int i = 0; i < ranks_count(c, worker); i++)
        all = all && supervise_ready(c, ranks_follower(c, worker, i));
    return all;
}

static void ask_for_group(Controller *c, int worker)
{
    RankGroup *group = group_of(c, worker);
    group->state = RANKS_NAMING;
    group->call_id = core_next_id(c);
    core_call(c, worker, CALL_GROUP, group->call_id, GROUP_TIMEOUT_MS);
}

static void ask_to_join(Controller *c, int worker)
{
    RankGroup *group = group_of(c, worker);
    group->state = RANKS_JOINING;
    group->answers = 0;
    group->call_id = core_next_id(c);
    for (int i = -1; i < ranks_count(c, worker); i++) {
        int actor = i < 0 ? worker : ranks_follower(c, worker, i);
        Effect *effect = core_call(c, actor, CALL_JOIN, group->call_id, WORK_TIMEOUT_MS);
        effect->call.join.tensor_id = group->tensor_id.bytes;
        effect->call.join.plan_id = group->plan_id.bytes;
    }
}

void ranks_advance(Controller *c)
{
    for (int worker = c->first_rollout; worker < c->end_rollout; worker++)
        if (ranks_count(c, worker) > 0 && group_of(c, worker)->state == RANKS_APART &&
            are_all_up(c, worker))
            ask_for_group(c, worker);
}

void ranks_reply(Controller *c, const Event *event)
{
    int worker = ranks_leader(c, event->actor);
    RankGroup *group = group_of(c, worker);
    if (event->reply.id != group->call_id) return; /* of a group that is no more */
    if (event->status != OK) {
        supervise_reply_failed(c, event);
    } else if (group->state == RANKS_NAMING) {
        memcpy(group->tensor_id.bytes, event->reply.group_ids.tensor_id, COMM_ID_BYTES);
        memcpy(group->plan_id.bytes, event->reply.group_ids.plan_id, COMM_ID_BYTES);
        ask_to_join(c, worker);
    } else if (group->state == RANKS_JOINING && ++group->answers > ranks_count(c, worker)) {
        group->state = RANKS_JOINED;
    }
}

bool ranks_describe_wait(const Controller *c, char *text, size_t size)
{
    for (int worker = c->first_rollout; worker < c->end_rollout; worker++) {
        if (ranks_are_joined(c, worker)) continue;
        snprintf(text, size, "the ranks of %s to join each other", c->actor[worker].name);
        return true;
    }
    return false;
}
