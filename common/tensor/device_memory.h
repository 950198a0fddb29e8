/* DeviceMemory: what can be done with memory of a device beside allocating it for oneself:
 * processes of one host share some, and pools of it are given back for a while and had again at the
 * same addresses. The CUDA library has one; the CPU has none. Any thread; what fails says so, and
 * `text` receives a sentence of at most `size` bytes with what was found. An error of the device
 * itself stops the process, as with kernels.
 *
 * Both rest on one thing: an address and the memory behind it are apart (CUDA's virtual memory
 * management). So what is shared stays whole for whoever has opened it, also when its maker dies,
 * and a pool's arrays lie where they lay when their memory comes back. Why not cudaIpc... and
 * cudaMalloc: docs/devices.md. */
#ifndef TROUPE_TENSOR_DEVICE_MEMORY_H
#define TROUPE_TENSOR_DEVICE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_ID_BYTES 16

/* What the calling thread allocates belongs to the pool that it is in. POOL_FIXED is where every
 * thread begins; its memory is never given back while it is in use. */
typedef enum { POOL_FIXED, POOL_STATE, POOL_SCRATCH, NUM_POOLS } MemoryPool;

typedef struct DeviceMemory {
    size_t bytes; /* sizeof(DeviceMemory), for whoever loads it */
    /* Tells the opened device, or instance of one, from all others: the same in every process. */
    void (*identify)(unsigned char ret[DEVICE_ID_BYTES]);

    /* ---- shared between processes ---- */
    bool (*can_share)(char *text, size_t size); /* false with a sentence: nothing can be */
    /* Memory, of undefined contents, that the descriptor *ret_fd stands for: whoever gets that from
     * us can open it. The caller closes both. NULL with a sentence: this device, its driver or the
     * machine's settings do not allow it, or it has no room. */
    void *(*share)(size_t bytes, int *ret_fd, char *text, size_t size);
    /* The memory of a descriptor of another process, `bytes` of it, to be read by kernels of this
     * device: also another device's, where the two reach each other. The descriptor stays the
     * caller's. The memory lives until every side has closed it or died. */
    void *(*open)(int fd, size_t bytes, char *text, size_t size);
    void (*close)(void *memory); /* what share or open gave; accepts NULL */

    /* ---- pools ---- */
    /* Whether there are any but POOL_FIXED; before the first pool_enter. */
    bool (*has_pools)(char *text, size_t size);
    MemoryPool (*pool_enter)(MemoryPool pool); /* returns the one before */
    /* Waits for all kernels, and gives the pool's memory back: `keep`: what is in it goes to the
     * host's memory. Until it is restored nobody touches it, and nothing is allocated there.
     * Returns the bytes that the device has gained. */
    int64_t (*pool_release)(MemoryPool pool, bool keep);
    /* At the same addresses; without `keep` its contents are undefined. False, and nothing changes,
     * when others have taken the memory meanwhile. A pool that is not released stays as it is. */
    bool (*pool_restore)(MemoryPool pool, char *text, size_t size);
} DeviceMemory;

#endif
