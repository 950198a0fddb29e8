/* Whether agent/nvml.h says what NVIDIA's own header says. Built where that one is found; there is
 * nothing to run. */
#include <stddef.h>

#include <nvml.h>

#include "agent/nvml.h"

_Static_assert(sizeof(NvmlMemory) == sizeof(nvmlMemory_t), "nvmlMemory_t");
_Static_assert(offsetof(NvmlMemory, total) == offsetof(nvmlMemory_t, total), "total");
_Static_assert(sizeof(NvmlResult) == sizeof(nvmlReturn_t) && NVML_SUCCESS == 0, "nvmlReturn_t");
_Static_assert(sizeof(NvmlDevice) == sizeof(nvmlDevice_t), "nvmlDevice_t");
_Static_assert(NVML_DEVICE_MIG_ENABLE == 1, "a GPU that is divided");
_Static_assert(NVML_DEVICE_UUID_V2_BUFFER_SIZE <= 96, "Gpu.id");

/* The functions, with NVIDIA's types for ours. */
#define NvmlResult nvmlReturn_t
#define NvmlDevice nvmlDevice_t
#define NvmlMemory nvmlMemory_t
#define COMPARE(here, there, arguments)                                                            \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&there), nvmlReturn_t(*) arguments),    \
                   #there);
NVML_FUNCTIONS(COMPARE)
_Static_assert(__builtin_types_compatible_p(__typeof__(&nvmlErrorString),
                                            const char *(*)(nvmlReturn_t)),
               "nvmlErrorString");
