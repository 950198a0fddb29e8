#include "agent/gpu_inventory.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/nvml.h"

#define LIBRARY_VARIABLE "TROUPE_NVML_LIBRARY"

typedef struct Nvml {
    void *library;
    const char *(*error_text)(NvmlResult);
#define MEMBER(here, there, arguments) NvmlResult(*here) arguments;
    NVML_FUNCTIONS(MEMBER)
#undef MEMBER
} Nvml;

/* ---- the library ---- */

static bool find_function(const Nvml *nvml, const char *name, void *to, GpuInventory *ret)
{
    void *symbol = dlsym(nvml->library, name);
    memcpy(to, &symbol, sizeof symbol);
    if (symbol == NULL)
        snprintf(ret->why_none, sizeof ret->why_none, "NVML has no %s: the driver is too old",
                 name);
    return symbol != NULL;
}

static bool load(Nvml *nvml, GpuInventory *ret)
{
    const char *named = getenv(LIBRARY_VARIABLE);
    if (named == NULL || named[0] == '\0') named = NVML_LIBRARY_NAME;
    nvml->library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        snprintf(ret->why_none, sizeof ret->why_none,
                 "%s cannot be loaded: there is no NVIDIA driver, or a container was not given "
                 "its \"utility\" part",
                 named);
        return false;
    }
    if (!find_function(nvml, "nvmlErrorString", &nvml->error_text, ret)) return false;
#define FIND(here, there, arguments)                                                               \
    if (!find_function(nvml, #there, &nvml->here, ret)) return false;
    NVML_FUNCTIONS(FIND)
#undef FIND
    return true;
}

static bool worked(const Nvml *nvml, NvmlResult result, const char *what, GpuInventory *ret)
{
    if (result == 0) return true;
    snprintf(ret->why_none, sizeof ret->why_none, "NVML %s: %s", what, nvml->error_text(result));
    return false;
}

/* ---- what is shown ---- */

/* Whether a list shows a GPU: by its number or the beginning of its id. A negative number, or
 * nothing between commas, ends the list, as for CUDA. NULL shows all. */
static bool is_shown(const char *visible, unsigned index, const Gpu *gpu)
{
    if (visible == NULL) return true;
    for (const char *at = visible; *at != '\0';) {
        at += strspn(at, " ");
        size_t length = strcspn(at, ",");
        while (length > 0 && at[length - 1] == ' ')
            length--;
        char *end = NULL;
        long number = strtol(at, &end, 10);
        bool is_number = length > 0 && end == at + length;
        if (length == 0 || (is_number && number < 0)) return false;
        if (is_number && (unsigned long)number == index) return true;
        if (!is_number && strncmp(gpu->id, at, length) == 0) return true;
        at += strcspn(at, ",");
        at += *at == ',';
    }
    return false;
}

/* ---- GPUs ---- */

static bool add_gpu(const Nvml *nvml, NvmlDevice device, unsigned index, const char *visible,
                    GpuInventory *ret)
{
    Gpu gpu = {.memory_bytes = 0};
    NvmlMemory memory = {0, 0, 0};
    if (ret->count == NODE_GPUS_MAX) return true;
    if (!worked(nvml, nvml->id(device, gpu.id, sizeof gpu.id), "does not name a GPU", ret))
        return false;
    if (!is_shown(visible, index, &gpu)) return true;
    /* What follows is not known of everything that computes. */
    if (nvml->name(device, gpu.name, sizeof gpu.name) != 0) snprintf(gpu.name, 4, "GPU");
    if (nvml->memory(device, &memory) == 0) {
        gpu.memory_bytes = (int64_t)memory.total;
        gpu.memory_free = (int64_t)memory.free;
    }
    unsigned long words[sizeof gpu.cpus / sizeof(unsigned long)] = {0};
    if (nvml->cpus(device, sizeof words / sizeof *words, words) == 0)
        memcpy(&gpu.cpus, words, sizeof words);
    ret->gpu[ret->count++] = gpu;
    return true;
}

/* The instances of a GPU that is divided; it has no other use then. Their CPUs are its own. */
static bool add_instances(const Nvml *nvml, NvmlDevice device, unsigned index, const char *visible,
                          GpuInventory *ret)
{
    unsigned most = 0;
    unsigned long words[sizeof(cpu_set_t) / sizeof(unsigned long)] = {0};
    bool tells = nvml->cpus(device, sizeof words / sizeof *words, words) == 0;
    if (nvml->mig_count(device, &most) != 0) most = 0;
    for (unsigned i = 0; i < most; i++) {
        NvmlDevice instance = NULL;
        int before = ret->count;
        if (nvml->mig_device(device, i, &instance) != 0) continue; /* a place without one */
        if (!add_gpu(nvml, instance, index, visible, ret)) return false;
        if (tells && ret->count > before) memcpy(&ret->gpu[before].cpus, words, sizeof words);
    }
    return true;
}

static void read_all(const Nvml *nvml, const char *visible, GpuInventory *ret)
{
    unsigned count = 0;
    if (!worked(nvml, nvml->count(&count), "does not count GPUs", ret)) return;
    for (unsigned i = 0; i < count; i++) {
        NvmlDevice device = NULL;
        unsigned mode = 0, pending = 0;
        if (!worked(nvml, nvml->device(i, &device), "does not show a GPU", ret)) return;
        bool divided = nvml->mig_mode(device, &mode, &pending) == 0 && mode == 1;
        if (!(divided ? add_instances : add_gpu)(nvml, device, i, visible, ret)) return;
    }
    if (ret->count > 0) return;
    if (count == 0)
        snprintf(ret->why_none, sizeof ret->why_none, "the NVIDIA driver sees none");
    else
        snprintf(ret->why_none, sizeof ret->why_none,
                 "of %u that are there CUDA_VISIBLE_DEVICES=%s shows none", count,
                 visible != NULL ? visible : "");
}

void gpu_inventory_read(GpuInventory *ret)
{
    Nvml nvml = {.library = NULL};
    *ret = (GpuInventory){.count = 0};
    if (load(&nvml, ret) && worked(&nvml, nvml.init(), "does not start", ret)) {
        read_all(&nvml, getenv("CUDA_VISIBLE_DEVICES"), ret);
        nvml.shutdown();
    }
    if (nvml.library != NULL) dlclose(nvml.library);
    if (ret->why_none[0] != '\0') ret->count = 0; /* half of them would be wrong, too */
}

const Gpu *gpu_inventory_freest(const GpuInventory *inventory)
{
    const Gpu *best = NULL;
    for (int i = 0; i < inventory->count; i++)
        if (best == NULL || inventory->gpu[i].memory_free > best->memory_free)
            best = &inventory->gpu[i];
    return best;
}
