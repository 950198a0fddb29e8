/* The job's placement group: one bundle per actor, reserved on the agents all-or-nothing by two
 * phases. Phase one locks every node's share (prepare), phase two makes it ours (commit); a refusal
 * releases what was granted and tries again. A group that no set of nodes could ever hold ends the
 * run at once with the missing bundle and who holds what. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plural.h"
#include "core/placement.h"

#define GROUP_RETRY_MS   500
#define AGENT_STARTS_MAX 4 /* in a row, none of which came to a hello */

static void call_node(Controller *c, int node, GroupCall call)
{
    Effect *effect = effect_add(c->fx, FX_GROUP);
    effect->node = node;
    effect->group.call = call;
    effect->group.group = c->group_id;
    effect->group.bundle = c->node[node].bundle;
    effect->group.num_bundles = c->node[node].num_bundles;
    c->node[node].pending++;
}

static void release_nodes(Controller *c)
{
    for (int i = 0; i < c->num_nodes; i++) {
        NodeRecord *node = &c->node[i];
        if (node->up && node->num_bundles > 0) call_node(c, i, GROUP_RELEASE);
        node->prepared = node->committed = false;
    }
}

static bool nobody_is_asked(const Controller *c)
{
    for (int i = 0; i < c->num_nodes; i++)
        if (c->node[i].up && c->node[i].pending > 0) return false;
    return true;
}

void group_give_back(Controller *c)
{
    if (c->group_state == GROUP_NONE || c->group_state == GROUP_GIVING_BACK) return;
    release_nodes(c);
    c->group_state = nobody_is_asked(c) ? GROUP_NONE : GROUP_GIVING_BACK;
}

/* ---- making the group ---- */

static void share_out(Controller *c, const int *node_of)
{
    for (int i = 0; i < c->num_nodes; i++) {
        NodeRecord *node = &c->node[i];
        node->bundle = mem_realloc(node->bundle, (size_t)c->num_actors, sizeof *node->bundle);
        node->num_bundles = 0;
        node->prepared = node->committed = false;
    }
    for (int b = 0; b < c->num_actors; b++) {
        NodeRecord *node = &c->node[node_of[b]];
        node->bundle[node->num_bundles++] = c->bundle[b];
        c->actor[b].node = node_of[b];
    }
}

static PlacementOutcome solve(Controller *c, int *node_of, char *why, size_t why_size)
{
    PlacementNode *nodes = mem_calloc((size_t)c->num_nodes, sizeof *nodes);
    for (int i = 0; i < c->num_nodes; i++)
        nodes[i] = (PlacementNode){
            .name = c->node[i].name,
            .total = c->node[i].total,
            .free = c->node[i].free,
            .holders = c->group_wait,
            .no_gpu = c->node[i].no_gpu,
        };
    PlacementOutcome outcome =
        placement_solve(&(PlacementRequest){.nodes = nodes,
                                            .num_nodes = c->num_nodes,
                                            .bundles = c->bundle,
                                            .num_bundles = c->num_actors,
                                            .strategy = c->config->cluster.strategy},
                        node_of, why, why_size);
    free(nodes);
    return outcome;
}

static void try_to_place(Controller *c)
{
    for (int i = 0; i < c->num_nodes; i++)
        if (!c->node[i].up) return;
    if (c->now_ms < c->group_retry_ms) return;
    int *node_of = mem_calloc((size_t)c->num_actors, sizeof *node_of);
    char why[ERROR_MESSAGE_MAX] = "";
    PlacementOutcome outcome = solve(c, node_of, why, sizeof why);
    if (outcome == PLACEMENT_INFEASIBLE) {
        core_finish(c, ERR_RESOURCE, "%s", why);
    } else {
        /* Blocked for now: ask all the same, on what would fit an empty cluster; the refusal brings
         * fresh figures. */
        share_out(c, node_of);
        c->group_id = core_next_id(c);
        c->group_state = GROUP_PREPARING;
        for (int i = 0; i < c->num_nodes; i++)
            if (c->node[i].num_bundles > 0) call_node(c, i, GROUP_PREPARE);
    }
    free(node_of);
}

static bool all_nodes(const Controller *c, GroupState state)
{
    for (int i = 0; i < c->num_nodes; i++) {
        const NodeRecord *node = &c->node[i];
        if (node->num_bundles == 0) continue;
        if (state == GROUP_PREPARING ? !node->prepared : !node->committed) return false;
    }
    return true;
}

void group_advance(Controller *c)
{
    switch (c->group_state) {
    case GROUP_NONE:
        try_to_place(c);
        break;
    case GROUP_PREPARING:
        if (!all_nodes(c, GROUP_PREPARING)) break;
        c->group_state = GROUP_COMMITTING;
        for (int i = 0; i < c->num_nodes; i++)
            if (c->node[i].num_bundles > 0) call_node(c, i, GROUP_COMMIT);
        break;
    case GROUP_COMMITTING:
        if (!all_nodes(c, GROUP_COMMITTING)) break;
        if (!send_check_hosts(c)) break;
        c->group_state = GROUP_READY;
        c->group_wait[0] = '\0';
        core_log(c, LOG_INFO, "group_ready", "%d bundle%s on %d node%s", c->num_actors,
                 plural(c->num_actors), c->num_nodes, plural(c->num_nodes));
        break;
    case GROUP_READY:
    case GROUP_GIVING_BACK:
        break;
    }
}

/* ---- events ---- */

static void refuse(Controller *c, const char *why)
{
    snprintf(c->group_wait, sizeof c->group_wait, "%s", why);
    group_give_back(c);
    c->group_retry_ms = c->now_ms + GROUP_RETRY_MS;
}

static void on_reply(Controller *c, const Event *event)
{
    NodeRecord *node = &c->node[event->node];
    if (event->group.group != c->group_id || node->pending == 0) return;
    node->pending--;
    if (c->group_state == GROUP_GIVING_BACK && nobody_is_asked(c)) c->group_state = GROUP_NONE;
    if (event->group.call == GROUP_RELEASE) return;
    if (c->group_state != GROUP_PREPARING && c->group_state != GROUP_COMMITTING) return;
    if (event->status != OK) {
        refuse(c, event->message);
    } else if (event->group.call == GROUP_COMMIT) {
        node->committed = true;
    } else {
        node->free = event->group.free;
        if (event->group.granted)
            node->prepared = true;
        else
            refuse(c, event->group.holders);
    }
}

/* The node is gone with every process on it. The group is broken, so all of it is made anew; the
 * survivors on other nodes are killed, because a gang cannot span two groups. */
static void on_agent_lost(Controller *c, const Event *event)
{
    NodeRecord *node = &c->node[event->node];
    bool was_up = node->up;
    node->up = false;
    node->pending = 0;
    if (!was_up && ++node->failed_starts >= AGENT_STARTS_MAX && c->embedded_agent) {
        core_finish(c, ERR_UNAVAILABLE, "the node agent does not start: %s", event->message);
        return;
    }
    for (int i = 0; i < c->num_actors; i++)
        if (c->actor[i].node == event->node) c->actor[i].process = false;
    if (c->phase == PHASE_ENDING) {
        if (c->group_state == GROUP_GIVING_BACK && nobody_is_asked(c)) c->group_state = GROUP_NONE;
        return;
    }
    effect_add(c->fx, FX_START_AGENT)->node = event->node;
    if (!was_up) return;
    core_log(c, LOG_WARN, "agent_lost", "%s: %s", node->name, event->message);
    if (c->group_state == GROUP_READY) {
        char reason[REASON_MAX];
        snprintf(reason, sizeof reason, "the agent of node %s is gone (%s)", node->name,
                 event->message);
        supervise_node_lost(c, reason);
    }
    group_give_back(c);
    if (c->group_state == GROUP_GIVING_BACK && nobody_is_asked(c)) c->group_state = GROUP_NONE;
}

void group_event(Controller *c, const Event *event)
{
    CHECK(event->node >= 0 && event->node < c->num_nodes);
    NodeRecord *node = &c->node[event->node];
    if (event->kind == EV_AGENT_UP) {
        node->up = true;
        node->failed_starts = 0;
        node->pending = 0;
        snprintf(node->name, sizeof node->name, "%s", event->agent.name);
        snprintf(node->host, sizeof node->host, "%s", event->agent.host);
        node->pid = event->agent.pid;
        node->guard_pid = event->agent.guard_pid;
        node->total = event->agent.total;
        node->free = event->agent.free;
        snprintf(node->no_gpu, sizeof node->no_gpu, "%s",
                 event->agent.no_gpu != NULL ? event->agent.no_gpu : "");
    } else if (event->kind == EV_AGENT_LOST) {
        on_agent_lost(c, event);
    } else {
        on_reply(c, event);
    }
}
