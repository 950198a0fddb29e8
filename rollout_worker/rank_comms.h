/* RankComms: the two groups in which the tensor-parallel ranks of a rollout worker work together
 * when each is a process of its own: one of the job's device, over which they compute, and one of
 * shared memory, by which rank 0 tells the others what a step does. That is the host's, and would
 * pass through a GPU and back twice per token otherwise. All ranks are on one host. */
#ifndef TROUPE_ROLLOUT_WORKER_RANK_COMMS_H
#define TROUPE_ROLLOUT_WORKER_RANK_COMMS_H

#include "comm/comm.h"
#include "config/job.h"

typedef struct RankGroupId { /* plain data, sent in messages */
    CommId tensor, plan;
} RankGroupId;

typedef struct RankComms {
    Comm *tensor, *plan; /* both or none */
} RankComms;

/* By rank 0; needs no open device, but may take its time (comm_id_create_nccl). */
Status rank_group_id_make(const JobConfig *config, RankGroupId *ret, Error *err);

/* By every rank, of train.tp_size, at the same time. `device` is looked at with device: cuda. A
 * rank other than 0 waits for the next step as long as rank 0 lives: one that hangs is the
 * controller's to find. */
Status rank_comms_join(const JobConfig *config, const RankGroupId *id, int rank,
                       const CommDevice *device, RankComms *ret, Error *err);
void rank_comms_destroy(RankComms *comms); /* zeroes it */

#endif
