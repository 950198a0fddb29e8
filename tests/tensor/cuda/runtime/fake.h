/* What a test says to the device of cuda_runtime.h. */
#ifndef TROUPE_TESTS_CUDA_FAKE_H
#define TROUPE_TESTS_CUDA_FAKE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct FakeDevice {
    int count, sm, driver_version;
    size_t memory_bytes;
} FakeDevice;

extern FakeDevice fake_device;
extern bool fake_device_is_lost;    /* whoever looks at an event is told */
extern const char *fake_gemm_fault; /* what gemm_open says; NULL: it opens */

extern bool fake_has_no_vmm;        /* the device knows no virtual memory management */
extern bool fake_shares_nothing;    /* it knows it, and gives out no descriptors */
extern bool fake_reads_need_writes; /* nothing can be mapped to be read alone */
/* What fails of recording: 1 to begin, 2 to end, 3 to make it ready, 4 to bring it to the device, 5
 * every kernel that is recorded; 0: nothing. */
extern int fake_capture_fault;
int fake_graphs(void); /* that were not destroyed, ready ones included */

size_t fake_memory_used(void);
size_t fake_vmm_bytes(void);    /* of these, behind addresses that were reserved ... */
size_t fake_vmm_reserved(void); /* ... which are so many */
size_t fake_copies_pending(void);
/* Of the highest priority, and not waiting for the default stream. */
bool fake_stream_is_first(const void *stream);
int fake_last_error(void);    /* of the calling thread; cudaError_t */
int fake_thread_device(void); /* the calling thread's, as the runtime sees it */
/* Bytes of shared memory that a kernel has which asks for them, as those of attention do. */
int fake_shared_allowed(void);

#ifdef __cplusplus
}
#endif
#endif
