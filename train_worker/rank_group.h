/* The groups in which the train workers of a job work together, one over the parts of a model and
 * one over the parts of a batch: of the kind that the job's device takes. Ranks on CPUs sum in
 * shared memory, ranks on GPUs over NCCL; one alone needs neither. */
#ifndef TROUPE_TRAIN_WORKER_RANK_GROUP_H
#define TROUPE_TRAIN_WORKER_RANK_GROUP_H

#include "comm/comm.h"
#include "config/job.h"

/* Whether this machine has what the job's ranks work together by. The message begins with the key
 * `device`. */
Status rank_group_check(const JobConfig *config, Error *err);

/* By rank 0, of `size` ranks; needs no open device. */
Status rank_group_id_create(const JobConfig *config, int size, CommId *ret, Error *err);

/* By every rank, whose device `device` is. Calls have cluster.collective_timeout_s from then on. */
Status rank_group_join(const JobConfig *config, const CommDevice *device, const CommId *id,
                       int rank, int size, Comm **ret, Error *err);

#endif
