/* Reservations: what a node has, and which placement groups of which jobs hold how much of it. Two
 * phases: prepare locks a group's share for a while, commit makes it stand until released. Exact:
 * CPUs are counted in ten-thousandths, and what is free is total minus what the groups hold, never
 * a second book. Which GPUs a bundle gets is decided when it is locked: the lowest that are free,
 * in the order of the bundles, so that neighbours among ranks are neighbours among GPUs. Pure; no
 * clock. */
#ifndef TROUPE_CONTROLLER_AGENT_RESERVATION_H
#define TROUPE_CONTROLLER_AGENT_RESERVATION_H

#include "core/event.h"

typedef struct Reservations Reservations;

/* Two jobs may bear one name; their ids differ. */
typedef struct ReservationOwner {
    uint64_t job;
    const char *job_name;
} ReservationOwner;

typedef struct HeldGroup {
    const char *group;
    ReservationOwner owner;
    NodeResources held;
    bool committed;
} HeldGroup;

Reservations *reservations_create(const NodeResources *total);
void reservations_destroy(Reservations *reservations);

/* Locks all bundles or none; *ret_granted is false when not enough is free. The lock falls away at
 * `expires_ms` unless committed. A group that holds its share already is granted again, its lock
 * renewed (a repeated message). Fails for needs that are not amounts, and for a group of another
 * job. */
Status reservations_prepare(Reservations *reservations, const char *group, ReservationOwner owner,
                            const BundleSpec *bundle, int num_bundles, int64_t expires_ms,
                            bool *ret_granted, Error *err);

/* ERR_NOT_FOUND when the lock has fallen away, or was another job's. */
Status reservations_commit(Reservations *reservations, const char *group, uint64_t job, Error *err);
void reservations_release(Reservations *reservations, const char *group,
                          uint64_t job); /* an unknown group is fine */
void reservations_release_job(Reservations *reservations, uint64_t job);
void reservations_expire(Reservations *reservations, int64_t now_ms);

/* The GPUs of a bundle: numbers from 0 to what the node has. */
typedef struct BundleGpus {
    int gpu[NODE_GPUS_MAX];
    int count;
} BundleGpus;

/* ERR_NOT_FOUND unless the group is committed, the job's, and has this bundle. *ret_gpus are those
 * that the bundle holds alone, in ascending order, or those of the bundle whose GPUs it uses. */
Status reservations_find(const Reservations *reservations, const char *group, uint64_t job,
                         int bundle, BundleGpus *ret_gpus, Error *err);

NodeResources reservations_total(const Reservations *reservations);
NodeResources reservations_free(const Reservations *reservations);
int reservations_count(const Reservations *reservations);
HeldGroup reservations_group(const Reservations *reservations, int index); /* borrowed */

#endif
