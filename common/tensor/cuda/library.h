/* What libtroupe_cuda.so exports: one function, found by its name, that gives one constant table.
 * The programs link neither CUDA nor this library; device.h loads it when a job asks for it, checks
 * `abi` and `kernel_table_bytes` before anything else, and uses nothing of it but this table.
 *
 * The library loads on every machine that has cuBLASLt; a driver it looks for by itself and misses
 * with a sentence. `text` receives that sentence, cut to `size`, with its values and what to do; it
 * is untouched where all is well. */
#ifndef TROUPE_TENSOR_CUDA_LIBRARY_H
#define TROUPE_TENSOR_CUDA_LIBRARY_H

#include "tensor/device_memory.h"
#include "tensor/kernels.h"
#include "tensor/streams.h"

#define CUDA_LIBRARY_NAME   "libtroupe_cuda.so"
#define CUDA_LIBRARY_SYMBOL "troupe_cuda_library"
#define CUDA_LIBRARY_ABI    3

typedef struct CudaDevice {
    char name[128];
    char pci_bus_id[32];                 /* as NVML and sysfs write it: 0000:1b:00.0 */
    int sm;                              /* compute capability: 90 is 9.0 */
    int64_t memory_total, memory_free;   /* bytes, at the time of the call */
    int driver_version, runtime_version; /* CUDA's: 13000 is 13.0 */
} CudaDevice;

typedef struct CudaLibrary {
    int abi;                   /* CUDA_LIBRARY_ABI */
    size_t kernel_table_bytes; /* sizeof(KernelTable) */
    /* The number of devices this process sees; 0 with a sentence in `text`: no driver, a driver too
     * old for the runtime, none visible. Opens none. */
    int (*count)(char *text, size_t size);
    /* Of device 0 <= `device` < count. Makes a context there and keeps it: so only of the device to
     * be opened, or in a process that ends soon. */
    bool (*describe)(int device, CudaDevice *ret, char *text, size_t size);
    /* Opens the one device of this process, for good: the kernels of the table run there, whichever
     * thread calls them. Again with the same device gives the same table; with another one it
     * fails. NULL with a sentence in `text`: busy, out of memory, older than sm_80. */
    const KernelTable *(*open)(int device, char *text, size_t size);
    /* For communicators on the device that was opened: one constant table, which may be read
     * before, and whose functions may be called after. */
    const DeviceStreams *(*streams)(void);
    /* The same of its memory. */
    const DeviceMemory *(*memory)(void);
} CudaLibrary;

#ifdef __cplusplus
extern "C" {
#endif
const CudaLibrary *troupe_cuda_library(void);
#ifdef __cplusplus
}
#endif

#endif
