/* Lease: one rollout.run on its way through this worker. The records are read from the data source
 * in pieces, a bounded number of bytes ahead of the threads; each becomes a task of the pool; when
 * the last one is done the samples go to the store and their metadata back to the caller, in
 * position order. A lease that cannot be read fails whole: it may be run again here or elsewhere.
 * Loop thread only. */
#ifndef TROUPE_ROLLOUT_WORKER_LEASE_H
#define TROUPE_ROLLOUT_WORKER_LEASE_H

#include "actor/handle.h"
#include "base/limits.h"
#include "rollout_worker/pool.h"
#include "rollout_worker/store.h"

typedef struct Lease Lease;

/* What the leases of a worker share. Zero-initialise, then set the first four; the rest is
 * lease.c's. */
typedef struct LeaseHost {
    Loop *loop;
    const ActorIdentity *identity;
    RolloutPool *pool;
    SampleStore *store;
    Handle *source; /* to the data source that was last named; NULL: none yet */
    char source_endpoint[ENDPOINT_MAX];
    bool source_lost; /* the connection to it broke and is not back */
    Lease *leases;
    int num_leases;
} LeaseHost;

/* Takes a call of rollout.run and answers it sooner or later. */
void lease_start(LeaseHost *host, Call *call);

/* Fails the lease of these positions as cancelled: nobody wants it. Does nothing where there is
 * none. */
void lease_give_up(LeaseHost *host, const char *set, uint64_t first, uint32_t count);

/* Fails all leases as cancelled, saying why: their caller does not wait for them any more. */
void lease_host_give_up(LeaseHost *host, const char *why);

/* Fails all leases as unavailable and closes the way to the data source. After the pool was
 * destroyed. */
void lease_host_close(LeaseHost *host);

/* Tasks that the pool has not done. */
int lease_host_working(const LeaseHost *host);

/* What the leases are doing ("rollout train 64..127", "idle") and what they wait for ("" or the
 * data source). */
void lease_host_describe(const LeaseHost *host, char *ret_doing, size_t doing_bytes,
                         char *ret_waiting, size_t waiting_bytes);

#endif
