/* A test double: NCCL's C API over processes of one host, and a device of which it knows the
 * streams, both in one shared object that comm_nccl.c loads as it loads NCCL. It moves what it is
 * given, and behaves as NCCL does where a caller can go wrong:
 *
 * - Nothing has happened when a call returns: streams are threads, which take their time.
 * - Calls return ncclInProgress, the first ones for a while, and what they queue is on the stream
 * only when that is over; a call on a communicator that is still in progress is refused.
 * - A peer that dies, lags or makes another call is not reported: the call stays on the device for
 *   ever, until ncclCommAbort.
 * - A communicator that was aborted or destroyed is gone: using it ends the process.
 *
 * What it is told to do wrong (nccl_double_plan) it does in this process alone. */
#ifndef TROUPE_TESTS_NCCL_DOUBLE_H
#define TROUPE_TESTS_NCCL_DOUBLE_H

#include "tensor/kernels.h"
#include "tensor/streams.h"

typedef enum {
    DOUBLE_WORKS,
    DOUBLE_HANGS,   /* the call stays on the device */
    DOUBLE_ERRS,    /* the same, and ncclCommGetAsyncError gives `result` from then on */
    DOUBLE_REFUSES, /* the call returns `result` */
    DOUBLE_BLOCKS,  /* the call does not return before the communicator is aborted; then `result` */
    DOUBLE_IS_STUCK, /* the call stays in progress */
    DOUBLE_DIES,     /* the process is killed when the device comes to the call */
} DoubleFault;

typedef struct DoublePlan {
    DoubleFault fault;
    int call;   /* of this process's calls of ncclAllGather, ncclBroadcast, groups, and sends and
                   recvs in none: as   nccl_double_calls counts; 0: joining */
    int result; /* ncclResult_t */
} DoublePlan;

void nccl_double_plan(const DoublePlan *plan);
int nccl_double_calls(void); /* so far, in this process */

const DeviceStreams *nccl_double_streams(void);
/* The memory functions alone; memory is the host's, and the calling thread's stream orders it. */
const KernelTable *nccl_double_kernels(void);
/* The same for kernels that are done when they return, as the CPU's are: their stream (NULL) is the
 * host itself, which waits in a call until what is queued there has run. Other streams are as
 * above. */
const DeviceStreams *nccl_double_host_streams(void);
/* Memory of a device that may be touched between `enter` and `leave` alone, by any thread
 * (tests/tensor/fenced_kernels.h). Going in is dear: the double does it twice for a call, and waits
 * for nothing inside. `arrive` brings what the calling thread has uploaded. */
typedef struct DoubleFence {
    void (*enter)(void), (*leave)(void), (*arrive)(void);
} DoubleFence;

void nccl_double_fence(const DoubleFence *fence); /* before the first call, once */
/* Something to run on a stream: a kernel of the test's own. */
void nccl_double_run(void *stream, void (*kernel)(void *), void *argument);
/* Waits for all that the stream has been given. */
void nccl_double_synchronize(void *stream);

#endif
