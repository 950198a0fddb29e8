/* Stands where NVML is looked for (TROUPE_NVML_LIBRARY). What it tells of is chosen by the
 * environment's TEST_NVML: "two" GPUs (also when it is not set), of which GPU i has i + 1 GiB free
 * and is near CPU i; "none"; "divided", one GPU of which two instances are made; "no_driver",
 * "lost", errors. It has no GPU: nothing computes here. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/nvml.h"

#define EXPORT __attribute__((visibility("default")))
#define MEMORY ((unsigned long long)80 << 30)

enum { DONE = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

struct NvmlDeviceState {
    unsigned number, instance; /* instance: from 1; 0: the whole GPU */
};

static struct NvmlDeviceState gpus[2] = {{0, 0}, {1, 0}}, instances[2] = {{0, 1}, {0, 2}};

/* As the manual has them; one place for all prototypes. */
#define PROTOTYPE(here, there, arguments) EXPORT NvmlResult there arguments;
NVML_FUNCTIONS(PROTOTYPE)
EXPORT const char *nvmlErrorString(NvmlResult result);

static bool is_case(const char *name)
{
    const char *chosen = getenv("TEST_NVML");
    return strcmp(chosen != NULL ? chosen : "two", name) == 0;
}

const char *nvmlErrorString(NvmlResult result)
{
    return result == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "GPU is lost";
}

NvmlResult nvmlInit_v2(void)
{
    return is_case("no_driver") ? DRIVER_NOT_LOADED : DONE;
}

NvmlResult nvmlShutdown(void)
{
    return DONE;
}

NvmlResult nvmlDeviceGetCount_v2(unsigned *ret)
{
    *ret = is_case("none") ? 0 : is_case("divided") ? 1 : 2;
    return DONE;
}

NvmlResult nvmlDeviceGetHandleByIndex_v2(unsigned index, NvmlDevice *ret)
{
    *ret = &gpus[index];
    return is_case("lost") && index == 1 ? GPU_IS_LOST : DONE;
}

NvmlResult nvmlDeviceGetUUID(NvmlDevice device, char *text, unsigned size)
{
    if (device->instance > 0)
        snprintf(text, size, "MIG-instance-%u", device->instance);
    else
        snprintf(text, size, "GPU-%c000-of-a-test", (char)('a' + device->number));
    return DONE;
}

NvmlResult nvmlDeviceGetName(NvmlDevice device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "Test GPU");
    return DONE;
}

NvmlResult nvmlDeviceGetMemoryInfo(NvmlDevice device, NvmlMemory *ret)
{
    *ret =
        (NvmlMemory){device->instance > 0 ? MEMORY / 2 : MEMORY, (1ull + device->number) << 30, 0};
    return DONE;
}

NvmlResult nvmlDeviceGetCpuAffinity(NvmlDevice device, unsigned size, unsigned long *ret)
{
    memset(ret, 0, size * sizeof *ret);
    if (device->instance > 0) return NOT_SUPPORTED;
    ret[0] = 1ul << device->number;
    return DONE;
}

NvmlResult nvmlDeviceGetMigMode(NvmlDevice device, unsigned *ret, unsigned *ret_pending)
{
    (void)device;
    *ret = *ret_pending = is_case("divided");
    return is_case("divided") ? DONE : NOT_SUPPORTED;
}

NvmlResult nvmlDeviceGetMaxMigDeviceCount(NvmlDevice device, unsigned *ret)
{
    (void)device;
    *ret = 7;
    return DONE;
}

NvmlResult nvmlDeviceGetMigDeviceHandleByIndex(NvmlDevice device, unsigned index, NvmlDevice *ret)
{
    (void)device;
    if (index != 2 && index != 5) return NOT_FOUND;
    *ret = &instances[index == 5];
    return DONE;
}
