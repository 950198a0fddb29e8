/* The part of NVML that is used here, as its manual describes it: the functions keep their names
 * and types for good (a change gets a new suffix), so no header of NVIDIA's is needed to build.
 * Where one is found, the tests compare. */
#ifndef TROUPE_CONTROLLER_AGENT_NVML_H
#define TROUPE_CONTROLLER_AGENT_NVML_H

#define NVML_LIBRARY_NAME "libnvidia-ml.so.1"

typedef int NvmlResult;                     /* nvmlReturn_t: 0 is success */
typedef struct NvmlDeviceState *NvmlDevice; /* nvmlDevice_t */

typedef struct NvmlMemory { /* nvmlMemory_t; bytes */
    unsigned long long total, free, used;
} NvmlMemory;

/* name here, name there, arguments */
#define NVML_FUNCTIONS(X)                                                                          \
    X(init, nvmlInit_v2, (void))                                                                   \
    X(shutdown, nvmlShutdown, (void))                                                              \
    X(count, nvmlDeviceGetCount_v2, (unsigned *))                                                  \
    X(device, nvmlDeviceGetHandleByIndex_v2, (unsigned, NvmlDevice *))                             \
    X(id, nvmlDeviceGetUUID, (NvmlDevice, char *, unsigned))                                       \
    X(name, nvmlDeviceGetName, (NvmlDevice, char *, unsigned))                                     \
    X(memory, nvmlDeviceGetMemoryInfo, (NvmlDevice, NvmlMemory *))                                 \
    X(cpus, nvmlDeviceGetCpuAffinity, (NvmlDevice, unsigned, unsigned long *))                     \
    X(mig_mode, nvmlDeviceGetMigMode, (NvmlDevice, unsigned *, unsigned *))                        \
    X(mig_count, nvmlDeviceGetMaxMigDeviceCount, (NvmlDevice, unsigned *))                         \
    X(mig_device, nvmlDeviceGetMigDeviceHandleByIndex, (NvmlDevice, unsigned, NvmlDevice *))

#endif
