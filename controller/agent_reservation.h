/* Reservations: what a node has, and which placement groups hold how much of it. Two phases:
 * prepare locks a group's share for a while, commit makes it stand until released. Exact: free plus
 * held is total, always. Pure; no clock. */
#ifndef TROUPE_CONTROLLER_AGENT_RESERVATION_H
#define TROUPE_CONTROLLER_AGENT_RESERVATION_H

#include "event.h"

typedef struct Reservations Reservations;

typedef struct HeldGroup {
    const char *group, *job;
    NodeResources held;
    bool committed;
} HeldGroup;

Reservations *reservations_create(const NodeResources *total);
void reservations_destroy(Reservations *reservations);

/* Locks all bundles or none. False: not enough is free. A group that holds its share already is
 * granted again (a repeated message). The lock falls away at `expires_ms` unless committed. */
bool reservations_prepare(Reservations *reservations, const char *group, const char *job,
                          const BundleSpec *bundle, int num_bundles, int64_t expires_ms);

/* ERR_NOT_FOUND when the lock has fallen away. */
Status reservations_commit(Reservations *reservations, const char *group, Error *err);
void reservations_release(Reservations *reservations,
                          const char *group); /* an unknown group is fine */
void reservations_release_job(Reservations *reservations, const char *job);
void reservations_expire(Reservations *reservations, int64_t now_ms);

/* ERR_NOT_FOUND unless the group is committed and has this bundle. `ret_job` is borrowed. */
Status reservations_find(const Reservations *reservations, const char *group, int bundle,
                         const char **ret_job, Error *err);

NodeResources reservations_total(const Reservations *reservations);
NodeResources reservations_free(const Reservations *reservations);
int reservations_count(const Reservations *reservations);
HeldGroup reservations_group(const Reservations *reservations, int index); /* borrowed */

#endif
