/* What may stand where libtroupe_cuda.so is looked for, one library for each LIBRARY_...: those
 * that device.c must refuse, and LIBRARY_FENCED, a device without hardware. Its kernels are the
 * CPU's over memory that the host cannot touch (fenced_kernels.h) and recorded as a GPU's are
 * (recorded_kernels.h), so whatever runs on it treats
 * device memory as a GPU wants it treated, and computes what the CPU computes, to the bit. Several
 * of them work together over the double of NCCL (tests/comm/nccl_double.h), which is to be named as
 * NCCL. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/cuda/library.h"

#ifdef LIBRARY_FENCED
#include "fenced_kernels.h"
#include "fenced_memory.h"
#include "recorded_kernels.h"
#include "tests/comm/nccl_double.h"

/* Address space; what is never used costs nothing. */
#define DEVICE_BYTES ((size_t)4 << 30)
#endif

#define MEMORY_TOTAL ((int64_t)4 << 30)
#define MEMORY_FREE  ((int64_t)3 << 30)

#ifdef LIBRARY_FENCED
/* It is the GPU that it was shown, and as large as a test says. */
static void set_memory(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES"), *folder = getenv("TEST_DEVICE_LEDGER"),
               *refuses = getenv("TEST_DEVICE_REFUSES");
    char ledger[512];
    fenced_memory_name(visible != NULL ? visible : "0");
    fenced_memory_shut_every(7);
    fenced_memory_refuse(refuses != NULL && strcmp(refuses, "share") == 0,
                         refuses != NULL && strcmp(refuses, "open") == 0);
    if (folder == NULL) return;
    snprintf(ledger, sizeof ledger, "%s/%.40s", folder, visible != NULL ? visible : "0");
    fenced_memory_limit(ledger, (size_t)atol(getenv("TEST_DEVICE_KB")) << 10);
}
#endif

static int count_devices(char *text, size_t size)
{
#ifdef LIBRARY_NO_DEVICE
    snprintf(text, size, "no driver answers");
    return 0;
#else
    (void)text, (void)size;
    return 1;
#endif
}

static bool describe_device(int device, CudaDevice *ret, char *text, size_t size)
{
    (void)device, (void)text, (void)size;
#ifdef LIBRARY_UNDESCRIBED
    snprintf(text, size, "error 999");
    return false;
#endif
    *ret = (CudaDevice){.name = "Test device without hardware",
                        .sm = 90,
                        .memory_total = MEMORY_TOTAL,
                        .memory_free = MEMORY_FREE,
                        .driver_version = 13020,
                        .runtime_version = 13000};
#ifdef LIBRARY_FENCED
    set_memory();
    if (getenv("TEST_DEVICE_LEDGER") != NULL) ret->memory_free = (int64_t)fenced_memory_free();
#endif
    /* It tells which GPU it was shown. */
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    snprintf(ret->pci_bus_id, sizeof ret->pci_bus_id, "%s",
             visible != NULL ? visible : "0000:1b:00.0");
#ifdef LIBRARY_OLD
    ret->sm = 75;
#endif
    return true;
}

static const KernelTable *open_device(int device, char *text, size_t size)
{
    (void)device, (void)text, (void)size;
#ifdef LIBRARY_FENCED
    static const KernelTable *table;
    if (table == NULL) {
        const char *slow = getenv("TEST_DEVICE_OPENS_S");
        if (slow != NULL) sleep((unsigned)atoi(slow));
        table = recorded_kernels(fenced_kernels(cpu_kernels(1), DEVICE_BYTES));
        nccl_double_fence(
            &(DoubleFence){fenced_kernels_enter, fenced_kernels_leave, fenced_kernels_arrive});
    }
    return table;
#else
    snprintf(text, size, "another process holds it");
    return NULL;
#endif
}

/* Kernels are done when they return, so the host itself is the stream they run on. */
static const DeviceStreams *device_streams(void)
{
#ifdef LIBRARY_FENCED
    return nccl_double_host_streams();
#elif defined(LIBRARY_STREAMS)
    static const DeviceStreams others = {.bytes = sizeof(DeviceStreams) - sizeof(void *)};
    return &others;
#else
    static const DeviceStreams none = {.bytes = sizeof(DeviceStreams)};
    return &none;
#endif
}

static const DeviceMemory *device_memory(void)
{
#ifdef LIBRARY_FENCED
    return fenced_memory();
#elif defined(LIBRARY_MEMORY)
    static const DeviceMemory others = {.bytes = sizeof(DeviceMemory) + sizeof(void *)};
    return &others;
#else
    static const DeviceMemory none = {.bytes = sizeof(DeviceMemory)};
    return &none;
#endif
}

static const CudaLibrary LIBRARY = {
#ifdef LIBRARY_ABI
    .abi = CUDA_LIBRARY_ABI + 6,
#else
    .abi = CUDA_LIBRARY_ABI,
#endif
#ifdef LIBRARY_SIZE
    .kernel_table_bytes = sizeof(KernelTable) - sizeof(void *),
#else
    .kernel_table_bytes = sizeof(KernelTable),
#endif
    .count = count_devices,
    .describe = describe_device,
    .open = open_device,
    .streams = device_streams,
    .memory = device_memory,
};

#ifdef LIBRARY_NO_SYMBOL
#define troupe_cuda_library troupe_another_library
const CudaLibrary *troupe_another_library(void);
#endif

__attribute__((visibility("default"))) const CudaLibrary *troupe_cuda_library(void)
{
    return &LIBRARY;
}
