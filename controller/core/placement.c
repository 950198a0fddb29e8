#include "core/placement.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/plural.h"
#include "base/str.h"

#define NODES_SHOWN 3

static bool fits(const NodeResources *need, const NodeResources *room)
{
    return need->cpu <= room->cpu + 1e-9 && need->gpu <= room->gpu &&
           need->memory_bytes <= room->memory_bytes;
}

static void take(NodeResources *room, const NodeResources *need)
{
    room->cpu -= need->cpu;
    room->gpu -= need->gpu;
    room->memory_bytes -= need->memory_bytes;
}

static NodeResources sum_of(const BundleSpec *bundles, int count)
{
    NodeResources sum = {0};
    for (int i = 0; i < count; i++) {
        sum.cpu += bundles[i].need.cpu;
        sum.gpu += bundles[i].need.gpu;
        sum.memory_bytes += bundles[i].need.memory_bytes;
    }
    return sum;
}

/* True if bundle a is to be placed before b: the most demanding first, so that small ones fill what
 * is left. */
static bool before(const BundleSpec *a, const BundleSpec *b)
{
    if (a->need.gpu != b->need.gpu) return a->need.gpu > b->need.gpu;
    if (a->need.cpu != b->need.cpu) return a->need.cpu > b->need.cpu;
    return a->need.memory_bytes > b->need.memory_bytes;
}

/* Indices of the bundles in that order (insertion sort: stable, and groups are small). Owned by the
 * caller. */
static int *placing_order(const BundleSpec *bundles, int count)
{
    int *order = mem_calloc((size_t)count, sizeof *order);
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && before(&bundles[i], &bundles[order[at - 1]]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    return order;
}

/* Best fit within the strategy: PACK prefers nodes that the group uses already, SPREAD those it
 * uses least. */
static int choose_node(const PlacementRequest *request, const NodeResources *room, const int *used,
                       const NodeResources *need)
{
    int best = -1;
    for (int n = 0; n < request->num_nodes; n++) {
        if (!fits(need, &room[n])) continue;
        if (request->strategy == STRICT_SPREAD && used[n] > 0) continue;
        bool better = best < 0;
        if (request->strategy == PACK) better = better || (used[n] > 0 && used[best] == 0);
        if (request->strategy == SPREAD) better = better || used[n] < used[best];
        if (better) best = n;
    }
    return best;
}

/* Places all bundles into `room` (which it uses up). Returns the first bundle that finds no place,
 * or -1. */
static int place_each(const PlacementRequest *request, NodeResources *room, int *node_of)
{
    int *used = mem_calloc((size_t)request->num_nodes, sizeof *used);
    int *order = placing_order(request->bundles, request->num_bundles);
    int missing = -1;
    for (int i = 0; i < request->num_bundles && missing < 0; i++) {
        const NodeResources *need = &request->bundles[order[i]].need;
        int node = choose_node(request, room, used, need);
        if (node < 0) {
            missing = order[i];
        } else {
            take(&room[node], need);
            used[node]++;
            node_of[order[i]] = node;
        }
    }
    free(order);
    free(used);
    return missing;
}

/* One node for everything: the first that has room. */
static bool place_together(const PlacementRequest *request, const NodeResources *room, int *node_of)
{
    NodeResources all = sum_of(request->bundles, request->num_bundles);
    for (int n = 0; n < request->num_nodes; n++) {
        if (!fits(&all, &room[n])) continue;
        for (int b = 0; b < request->num_bundles; b++)
            node_of[b] = n;
        return true;
    }
    return false;
}

/* STRICT_SPREAD is a matching of bundles to nodes. Most demanding first with the tightest node is
 * not always enough when needs differ in several dimensions, so augmenting paths (Kuhn 1955) find a
 * matching whenever there is one. */
static bool augment(const PlacementRequest *request, const NodeResources *room, int bundle,
                    int *bundle_of, bool *seen)
{
    for (int n = 0; n < request->num_nodes; n++) {
        if (seen[n] || !fits(&request->bundles[bundle].need, &room[n])) continue;
        seen[n] = true;
        if (bundle_of[n] < 0 || augment(request, room, bundle_of[n], bundle_of, seen)) {
            bundle_of[n] = bundle;
            return true;
        }
    }
    return false;
}

static int place_apart(const PlacementRequest *request, const NodeResources *room, int *node_of)
{
    int *bundle_of = mem_calloc((size_t)request->num_nodes, sizeof *bundle_of);
    bool *seen = mem_calloc((size_t)request->num_nodes, sizeof *seen);
    int missing = -1;
    for (int n = 0; n < request->num_nodes; n++)
        bundle_of[n] = -1;
    for (int b = 0; b < request->num_bundles && missing < 0; b++) {
        memset(seen, 0, (size_t)request->num_nodes * sizeof *seen);
        if (!augment(request, room, b, bundle_of, seen)) missing = b;
    }
    for (int n = 0; n < request->num_nodes && missing < 0; n++)
        if (bundle_of[n] >= 0) node_of[bundle_of[n]] = n;
    free(seen);
    free(bundle_of);
    return missing;
}

/* Tries the strategy on free or on total resources. Returns the bundle without a place, or -1 when
 * all have one. */
static int try_on(const PlacementRequest *request, bool empty_nodes, int *node_of)
{
    NodeResources *room = mem_calloc((size_t)request->num_nodes, sizeof *room);
    for (int n = 0; n < request->num_nodes; n++)
        room[n] = empty_nodes ? request->nodes[n].total : request->nodes[n].free;
    int missing = -1;
    if (request->strategy == STRICT_PACK || request->strategy == PACK) {
        if (!place_together(request, room, node_of))
            missing = request->strategy == PACK ? place_each(request, room, node_of) : 0;
    } else if (request->strategy == SPREAD) {
        if (place_apart(request, room, node_of) >= 0) missing = place_each(request, room, node_of);
    } else {
        missing = place_apart(request, room, node_of);
    }
    free(room);
    return missing;
}

/* ---- saying why ---- */

/* GPUs where there are some, or the group needs any. */
static void put_resources(Str *text, const NodeResources *resources, bool with_gpu)
{
    str_printf(text, "%g CPU%s", resources->cpu, resources->cpu == 1 ? "" : "s");
    if (resources->gpu > 0 || with_gpu)
        str_printf(text, ", %d GPU%s", resources->gpu, plural(resources->gpu));
    if (resources->memory_bytes > 0)
        str_printf(text, ", %.1f GiB", (double)resources->memory_bytes / (1 << 30));
}

static void put_node(Str *text, const PlacementNode *node, bool with_gpu)
{
    str_printf(text, "\n  node %s: free ", node->name);
    put_resources(text, &node->free, with_gpu);
    str_puts(text, " of ");
    put_resources(text, &node->total, with_gpu);
    if (with_gpu && node->no_gpu != NULL && node->no_gpu[0] != '\0')
        str_printf(text, "; no GPU: %s", node->no_gpu);
    if (node->holders != NULL && node->holders[0] != '\0')
        str_printf(text, "; held by %s", node->holders);
}

/* What would help: all nodes together tell whether GPUs are missing. */
static const char *remedy(const PlacementRequest *request, const NodeResources *all, bool ever)
{
    int gpus = 0;
    for (int n = 0; n < request->num_nodes; n++)
        gpus += request->nodes[n].total.gpu;
    if (!ever) return "It is tried again until there is room.";
    if (all->gpu > gpus)
        return "A train worker takes a GPU, and so does a rollout worker with rollout.colocate: "
               "false. Take fewer, or write device: cpu.";
    return "Lower train.tp_size, train.dp_size, rollout.num_workers or cluster.cpus_per_..., or "
           "give more CPUs (cluster.cpus).";
}

static void explain(const PlacementRequest *request, int missing, bool ever, char *why, size_t size)
{
    static const char *const names[] = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"};
    Str text = {0};
    NodeResources all = sum_of(request->bundles, request->num_bundles);
    bool with_gpu = all.gpu > 0;
    str_printf(&text, "the placement group (%d bundle%s, %s, ", request->num_bundles,
               plural(request->num_bundles), names[request->strategy]);
    put_resources(&text, &all, with_gpu);
    str_printf(&text, " in all) %s: ", ever ? "can never be placed" : "is blocked");
    if (request->strategy == STRICT_PACK) {
        str_puts(&text, "no node has room for all of it");
    } else {
        str_printf(&text, "bundle %d needs ", request->bundles[missing].index);
        put_resources(&text, &request->bundles[missing].need, false);
        str_puts(&text, " and finds no place");
    }
    for (int n = 0; n < request->num_nodes && n < NODES_SHOWN; n++)
        put_node(&text, &request->nodes[n], with_gpu);
    if (request->num_nodes > NODES_SHOWN)
        str_printf(&text, " (and %d more node%s)", request->num_nodes - NODES_SHOWN,
                   plural(request->num_nodes - NODES_SHOWN));
    str_printf(&text, "\n%s", remedy(request, &all, ever));
    strncpy(why, str_text(&text), size - 1);
    why[size - 1] = '\0';
    str_free(&text);
}

static PlacementOutcome solve(const PlacementRequest *request, int *ret_node, char *why,
                              size_t why_size)
{
    int *node_of = mem_calloc((size_t)request->num_bundles, sizeof *node_of);
    PlacementOutcome outcome = PLACEMENT_FOUND;
    int missing = try_on(request, false, node_of);
    if (missing >= 0) {
        int never = try_on(request, true, node_of);
        outcome = never >= 0 ? PLACEMENT_INFEASIBLE : PLACEMENT_BLOCKED;
        explain(request, never >= 0 ? never : missing, never >= 0, why, why_size);
    }
    if (outcome != PLACEMENT_INFEASIBLE)
        memcpy(ret_node, node_of, (size_t)request->num_bundles * sizeof *node_of);
    free(node_of);
    return outcome;
}

/* The place of the bundle of this index. */
static int find_bundle(const BundleSpec *bundles, int count, int index)
{
    for (int i = 0; i < count; i++)
        if (bundles[i].index == index) return i;
    check_failed(__FILE__, __LINE__, "index", "no bundle %d in its group", index);
}

static int tie_of(const BundleSpec *bundle)
{
    return bundle->gpu_of != 0 ? bundle->gpu_of : bundle->beside;
}

/* The bundle whose node it shares and that shares no other one's: follows one after the other. */
static int find_root(const PlacementRequest *request, int at)
{
    int ties = 0;
    while (tie_of(&request->bundles[at]) != 0) {
        CHECK(ties++ < request->num_bundles);
        at = find_bundle(request->bundles, request->num_bundles, tie_of(&request->bundles[at]) - 1);
    }
    return at;
}

/* Bundles that share the node of another one go where that goes: they are added to it. */
PlacementOutcome placement_solve(const PlacementRequest *request, int *ret_node, char *why,
                                 size_t why_size)
{
    CHECK(request->num_nodes > 0 && request->num_bundles > 0 && why_size > 0);
    int count = 0, total = request->num_bundles;
    BundleSpec *whole = mem_calloc((size_t)total, sizeof *whole);
    int *owner = mem_calloc((size_t)total, sizeof *owner);
    int *node_of = mem_calloc((size_t)total, sizeof *node_of);
    for (int i = 0; i < total; i++) {
        if (tie_of(&request->bundles[i]) != 0) continue;
        owner[i] = count;
        whole[count++] = request->bundles[i];
    }
    for (int i = 0; i < total; i++) {
        const BundleSpec *bundle = &request->bundles[i];
        if (tie_of(bundle) == 0) continue;
        owner[i] = owner[find_root(request, i)];
        whole[owner[i]].need.cpu += bundle->need.cpu;
        whole[owner[i]].need.gpu += bundle->need.gpu;
        whole[owner[i]].need.memory_bytes += bundle->need.memory_bytes;
    }
    PlacementRequest of_whole = *request;
    of_whole.bundles = whole;
    of_whole.num_bundles = count;
    PlacementOutcome outcome = solve(&of_whole, node_of, why, why_size);
    for (int i = 0; outcome != PLACEMENT_INFEASIBLE && i < total; i++)
        ret_node[i] = node_of[owner[i]];
    free(node_of);
    free(owner);
    free(whole);
    return outcome;
}
