/* Comm: collectives among the ranks of a group, one table per kind: self (one rank), shm (ranks
 * on one host, shared memory), nccl (one GPU per rank, any hosts). Bootstrap is NCCL's shape for
 * all kinds: rank 0 makes an id, the controller carries it to the others, everyone creates with the
 * same id.
 *
 * WHOSE MEMORY. A Tensor's data is device memory, as kernels.h has it: for self and shm that of the
 * host, for nccl that of the rank's GPU. Only what is called `host_...` or is an array of double is
 * ordinary memory.
 *
 * EVERY KIND SUMS ALIKE. Sums are taken in rank order in float32 and rounded once, so the result is
 * bit-identical on every rank, from run to run, and on every kind; that of an element does not
 * depend on how many others go with it, so row invariance (kernels.h) survives tensor parallelism.
 * For nccl this means that NCCL only moves bytes and a kernel of ours sums: NCCL's own sums follow
 * the ring, the tree or the switch that it picks by message size, round a bf16 at every hop, and so
 * differ between a prefill and a decode step of the same token.
 *
 * WHEN. A call of self and shm is done when it returns. One of nccl is queued behind the calling
 * thread's kernels when it returns, and the kernels called next wait for it, the host does not:
 * what it leaves counts only after comm_settle has said OK. Calls that give something to the host
 * (comm_all_reduce_f64, comm_broadcast_host, comm_barrier) are done when they return on every kind.
 * After a failure the device may still write a tensor's memory, which lives until comm_destroy.
 *
 * Every call but comm_send and comm_recv is collective: all ranks call the same operations in the
 * same order with the same sizes. Every call has a deadline; a rank that dies, aborts or lags past
 * it makes the call fail on the others with a message that names the missing ranks and the
 * operation, and the Comm is unusable from then on, on every rank: whoever fails first says why,
 * the others repeat it. Ranks that meet in different calls are told so (ERR_INTERNAL) instead of
 * waiting for ever. For nccl, a call that was queued fails in comm_settle or in a later call, and
 * ranks know this much of those on rank 0's host alone: what happens on another shows as an error
 * of NCCL's network or at the deadline. A Comm is used by one thread at a time, except comm_abort
 * and comm_describe_wait, which any thread may call.
 *
 * ERR_TIMEOUT: a rank did not come in time; ERR_UNAVAILABLE: one is dead or has left;
 * ERR_CANCELLED: comm_abort. Wrong types and sizes are bugs of the caller and CHECKed. */
#ifndef TROUPE_COMM_COMM_H
#define TROUPE_COMM_COMM_H

#include "tensor/kernels.h"
#include "tensor/streams.h"

#define COMM_ID_BYTES 256

typedef struct CommId {
    char bytes[COMM_ID_BYTES]; /* opaque; the kind's own */
} CommId;

typedef enum { COMM_SELF, COMM_SHM, COMM_NCCL } CommKind;
typedef enum { COMM_SUM, COMM_MAX } CommOp;

typedef struct Comm Comm;

/* Rank 0 makes what the others need to find it. For shm: an anonymous memory file (memfd) of
 * this process, named by pid and descriptor, so that nothing is left in /dev/shm whoever is
 * killed. `staging_bytes` is the size of each rank's slot, at most 512 KB (more is slower): larger
 * tensors go in pieces. A rank takes two to three times that of memory, and 128 KB at most for
 * what it sends. */
Status comm_id_create(CommKind kind, int size, size_t staging_bytes, CommId *ret, Error *err);

/* For an id that no Comm will be created with in this process: frees what comm_id_create made. */
void comm_id_discard(const CommId *id);

/* Joins as `rank` of `size`; waits up to timeout_ms for the others. In the process that made the
 * id, rank 0's call takes the id over, also on failure. Not for nccl. */
Status comm_create(CommKind kind, const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                   Error *err);
void comm_destroy(Comm *comm); /* accepts NULL */

/* ---- the kind nccl ---- */

/* The device that a rank's tensors lie on, and the NCCL it uses. */
typedef struct CommDevice {
    const KernelTable *kernels;   /* its memory functions */
    const DeviceStreams *streams; /* as CudaLibrary gives them */
    /* NULL: the file that the environment names in TROUPE_NCCL_LIBRARY, or libnccl.so.2, where the
     * system finds it. */
    const char *nccl_library;
} CommDevice;

/* Whether this kind can be had here, as far as it shows without a device: loads NCCL, as the others
 * do. `library` is CommDevice's. */
Status comm_check_nccl(const char *library, Error *err);

/* As comm_id_create and comm_create. Of the device an id wants `nccl_library` alone. NCCL is loaded
 * when the first id is made or the first group joined, and stays. `staging_bytes` of device memory
 * is what each rank takes; larger tensors go in pieces. ERR_UNSUPPORTED: there is no NCCL, or one
 * that is too old; the message says where it was looked for and what is needed. */
Status comm_id_create_nccl(const CommDevice *device, int size, size_t staging_bytes, CommId *ret,
                           Error *err);
Status comm_create_nccl(const CommDevice *device, const CommId *id, int rank, int size,
                        int timeout_ms, Comm **ret, Error *err);

/* Of a group that moves data beside what its ranks compute, rank 0 on a host that has no other:
 * a broadcast is queued behind the kernels that were called so far, on a stream of its own, and
 * what is called later does not wait for it. Who is lost shows as an error of NCCL's network, at
 * the deadline, or by comm_abort. */
Status comm_id_create_apart(const CommDevice *device, int size, size_t staging_bytes, CommId *ret,
                            Error *err);

/* The two halves of comm_create_nccl. Between them, and while it joins, any thread may abort it;
 * it is the caller's to destroy, whether it has joined or not. */
Status comm_open_nccl(const CommDevice *device, const CommId *id, int rank, int size,
                      int timeout_ms, Comm **ret, Error *err);
Status comm_join_nccl(Comm *comm, Error *err);

/* ---- calls ---- */

int comm_rank(const Comm *comm);
int comm_size(const Comm *comm);
void comm_set_timeout(Comm *comm,
                      int timeout_ms); /* for all later calls; default: that of comm_create */

/* In place on tensor (f32 or bf16; bf16 is summed in f32 and rounded once; f64 sums via
 * comm_all_reduce_f64). The maximum of values of which one is NaN is NaN. */
Status comm_all_reduce(Comm *comm, Tensor tensor, CommOp op, Error *err);
Status comm_all_reduce_f64(Comm *comm, double *values, int count, CommOp op, Error *err);

/* The same in two halves: what is called between them may overlap with it, and leaves the tensor
 * and this Comm alone. nccl moves and sums meanwhile, on a stream of its own. On self and shm the
 * second half does all of it: the cores that would sum are those that compute, so nothing can be
 * gained, and a rank that comes early computes on instead of waiting. The bits are
 * comm_all_reduce's. */
Status comm_all_reduce_start(Comm *comm, Tensor tensor, CommOp op, Error *err);
Status comm_all_reduce_finish(Comm *comm, Error *err);

/* out = the ranks' tensors, one after the other in rank order; out has size * count(in) elements
 * of any type. `in` may be this rank's own place in out, otherwise they do not overlap. */
Status comm_all_gather(Comm *comm, Tensor out, Tensor in, Error *err);
/* out = this rank's piece (count(in) / size elements) of the sum over ranks; f32 or bf16. `out`
 * may be that piece of in, otherwise they do not overlap. */
Status comm_reduce_scatter(Comm *comm, Tensor out, Tensor in, Error *err);
Status comm_broadcast(Comm *comm, Tensor tensor, int root, Error *err);
/* Of ordinary memory. */
Status comm_broadcast_host(Comm *comm, void *host_data, size_t bytes, int root, Error *err);
Status comm_barrier(Comm *comm, Error *err);

/* A tensor of any type from one rank to one other: two ranks call, the others go on. Both name the
 * same type and count; messages of a pair arrive in the order they were sent; one to a rank itself
 * is ERR_INVALID and leaves the Comm usable.
 *
 * RENDEZVOUS. A send is done when its recv is, so ranks that exchange order themselves: one sends
 * first, the other receives first. Two that both send first, or both receive first, or of which one
 * is in a collective call that wants the other, are told so at once by shm (ERR_INTERNAL); by nccl
 * at the deadline, and its small sends may go through all the same. A longer ring of ranks that
 * wait for each other ends at the deadline on every kind. */
Status comm_send(Comm *comm, Tensor tensor, int to, Error *err);
Status comm_recv(Comm *comm, Tensor tensor, int from, Error *err);

/* Waits until all calls so far are done, on the device too, and says whether all went well: before
 * anything that they led to is believed (a loss, a sampled token) or kept (weights, a file). */
Status comm_settle(Comm *comm, Error *err);

/* Makes every pending and later call on every rank fail at once with ERR_CANCELLED (nccl: on rank
 * 0's host; elsewhere at the latest at the deadline). */
void comm_abort(Comm *comm);

/* What this rank is in ("all_reduce #8123, waiting for rank 1"), or "" when in no call: read by
 * the loop thread for the actor's beat. Copies into `text`. */
void comm_describe_wait(const Comm *comm, char *text, size_t size);

#endif
