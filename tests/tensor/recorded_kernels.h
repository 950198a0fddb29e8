/* A device that records (tensor/graphs.h), over the kernels of any other one: what is called
 * between begin and end is kept with its arguments, and called when the graph is launched, when
 * memory holds what it then holds. So a step that is launched with an address, a shape or an upload
 * of an earlier one generates something else. What cannot be recorded stops the process here. And
 * it counts, for tests that hold a step to its number of launches. One thread at a time records and
 * launches. */
#ifndef TROUPE_TESTS_RECORDED_KERNELS_H
#define TROUPE_TESTS_RECORDED_KERNELS_H

#include "tensor/kernels.h"

/* Once per process and `inner`. */
const KernelTable *recorded_kernels(const KernelTable *inner);

/* Calls so far, of all threads. */
typedef struct RecordedCounts {
    int64_t kernels; /* of generation, copies and fills: that ran when they were called */
    int64_t uploads, downloads, waits;
    int64_t graphs, launches;             /* recorded; launched */
    int64_t launched;                     /* kernels of all launches */
    int64_t graphs_left;                  /* not destroyed */
    int64_t uploaded, downloaded, copied; /* bytes, but of launches */
} RecordedCounts;

RecordedCounts recorded_counts(void);

typedef enum { RECORDS, FAILS_TO_BEGIN, FAILS_TO_END } RecordedFault;
void recorded_fail(RecordedFault fault);

#endif
