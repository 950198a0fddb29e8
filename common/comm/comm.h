/* Comm: collectives among the ranks of a group, one table per kind: self (one rank), shm (ranks
 * on one host, shared memory), later Gloo and NCCL. Bootstrap is NCCL's shape for all kinds:
 * rank 0 makes an id, the controller carries it to the others, everyone creates with the same
 * id.
 *
 * Every call is collective: all ranks call the same operations in the same order with the same
 * sizes. Sums are taken in rank order in float32, so the result is bit-identical on every rank
 * and from run to run. Every call has a deadline; a rank that dies, aborts or lags past it makes
 * the call fail on the others with a message that names the missing ranks and the operation, and
 * the Comm is unusable from then on, on every rank: whoever fails first says why, the others
 * repeat it. Ranks that meet in different calls are told so (ERR_INTERNAL) instead of waiting
 * for ever. A Comm is used by one thread at a time, except comm_abort and comm_describe_wait,
 * which any thread may call.
 *
 * ERR_TIMEOUT: a rank did not come in time; ERR_UNAVAILABLE: one is dead or has left;
 * ERR_CANCELLED: comm_abort. Wrong types and sizes are bugs of the caller and CHECKed. */
#ifndef TROUPE_COMM_COMM_H
#define TROUPE_COMM_COMM_H

#include "tensor/tensor.h"

#define COMM_ID_BYTES 128

typedef struct CommId {
    char bytes[COMM_ID_BYTES]; /* opaque; the kind's own */
} CommId;

typedef enum { COMM_SELF, COMM_SHM } CommKind;
typedef enum { COMM_SUM, COMM_MAX } CommOp;

typedef struct Comm Comm;

/* Rank 0 makes what the others need to find it. For shm: an anonymous memory file (memfd) of
 * this process, named by pid and descriptor, so that nothing is left in /dev/shm whoever is
 * killed. `staging_bytes` is the size of each rank's slot, at most 512 KB (more is slower): larger
 * tensors go in pieces. A rank takes two to three times that of memory. */
Status comm_id_create(CommKind kind, int size, size_t staging_bytes, CommId *ret, Error *err);

/* For an id that no Comm will be created with in this process: frees what comm_id_create made. */
void comm_id_discard(const CommId *id);

/* Joins as `rank` of `size`; waits up to timeout_ms for the others. In the process that made the
 * id, rank 0's call takes the id over, also on failure. */
Status comm_create(CommKind kind, const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                   Error *err);
void comm_destroy(Comm *comm); /* accepts NULL */

int comm_rank(const Comm *comm);
int comm_size(const Comm *comm);
void comm_set_timeout(Comm *comm,
                      int timeout_ms); /* for all later calls; default: that of comm_create */

/* In place on tensor (f32 or bf16; bf16 is summed in f32 and rounded once; f64 sums via
 * comm_all_reduce_f64). The maximum of values of which one is NaN is NaN. */
Status comm_all_reduce(Comm *comm, Tensor tensor, CommOp op, Error *err);
Status comm_all_reduce_f64(Comm *comm, double *values, int count, CommOp op, Error *err);
/* out = the ranks' tensors, one after the other in rank order; out has size * count(in) elements
 * of any type. `in` may be this rank's own place in out, otherwise they do not overlap. */
Status comm_all_gather(Comm *comm, Tensor out, Tensor in, Error *err);
/* out = this rank's piece (count(in) / size elements) of the sum over ranks; f32 or bf16. `out`
 * may be that piece of in, otherwise they do not overlap. */
Status comm_reduce_scatter(Comm *comm, Tensor out, Tensor in, Error *err);
Status comm_broadcast(Comm *comm, Tensor tensor, int root, Error *err);
Status comm_barrier(Comm *comm, Error *err);

/* Makes every pending and later call on every rank fail at once with ERR_CANCELLED. */
void comm_abort(Comm *comm);

/* What this rank is in ("all_reduce #8123, waiting for rank 1"), or "" when in no call: read by
 * the loop thread for the actor's beat. Copies into `text`. */
void comm_describe_wait(const Comm *comm, char *text, size_t size);

#endif
