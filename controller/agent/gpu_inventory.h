/* GpuInventory: the NVIDIA GPUs of this machine, as the driver's management library NVML tells of
 * them. It is loaded when somebody asks (libnvidia-ml.so.1, or what the environment names in
 * TROUPE_NVML_LIBRARY): a build knows nothing of it, and a machine without it has no GPUs. Of a GPU
 * that is divided (MIG) its instances stand in its place. CUDA_VISIBLE_DEVICES hides from us what
 * it would hide from CUDA; numbers in it count in NVML's order, that of the PCI bus.
 *
 * What NVML says of the CPUs near a GPU is the topology that matters here, so no other library is
 * asked for it: a process that runs on these CPUs gets its memory from the node they belong to,
 * because Linux takes pages from where they are first touched. No state; any thread. */
#ifndef TROUPE_CONTROLLER_AGENT_GPU_INVENTORY_H
#define TROUPE_CONTROLLER_AGENT_GPU_INVENTORY_H

#include <sched.h>
#include <stdint.h>

#include "base/limits.h"

typedef struct Gpu {
    char id[96]; /* as CUDA_VISIBLE_DEVICES takes it: "GPU-...", of an instance "MIG-..." */
    char name[96];
    int64_t memory_bytes, memory_free;
    cpu_set_t cpus; /* near it; none: NVML does not tell */
} Gpu;

typedef struct GpuInventory {
    Gpu gpu[NODE_GPUS_MAX];
    int count;
    char why_none[256]; /* a sentence part when there is none; else "" */
} GpuInventory;

void gpu_inventory_read(GpuInventory *ret);

/* The one with the most free memory, the first of equals; NULL when there is none. */
const Gpu *gpu_inventory_freest(const GpuInventory *inventory);

#endif
