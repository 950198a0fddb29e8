/* Placement: which node takes which bundle of a placement group. Pure and deterministic: nodes are
 * tried in the order given. Strategies as Ray names them: PACK (few nodes, spills over), SPREAD
 * (many nodes, doubles up when it must), STRICT_PACK (one node or none), STRICT_SPREAD (one node
 * per bundle or none). All bundles or nothing. Bundles that use the GPUs of another one (gpu_of),
 * or are beside it, count as one bundle with that. */
#ifndef TROUPE_CONTROLLER_CORE_PLACEMENT_H
#define TROUPE_CONTROLLER_CORE_PLACEMENT_H

#include <stddef.h>

#include "config/job.h"
#include "core/event.h"

typedef struct PlacementNode {
    const char *name;
    NodeResources total, free;
    const char *holders; /* who holds what is not free, as text; NULL or "" if unknown */
    const char *no_gpu;  /* why it has no GPU; NULL or "" if it has some, or nobody knows */
} PlacementNode;

typedef struct PlacementRequest {
    const PlacementNode *nodes;
    int num_nodes;
    const BundleSpec *bundles;
    int num_bundles;
    PlacementStrategy strategy;
} PlacementRequest;

typedef enum {
    PLACEMENT_FOUND,      /* fits what is free now */
    PLACEMENT_BLOCKED,    /* would fit if others gave back what they hold */
    PLACEMENT_INFEASIBLE, /* would not fit even empty nodes */
} PlacementOutcome;

/* ret_node[i] is the node of bundle i. For PLACEMENT_FOUND it fits the free resources, for
 * PLACEMENT_BLOCKED the empty nodes; for PLACEMENT_INFEASIBLE it is untouched. `why` explains the
 * last two in at most six lines: the bundle that finds no place and what it needs, what every node
 * has free and in total (the first few of many), who holds the rest, and what to change. */
PlacementOutcome placement_solve(const PlacementRequest *request, int *ret_node, char *why,
                                 size_t why_size);

#endif
