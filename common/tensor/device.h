/* Device: what the kernels of this process run on. The CPU's table is linked into every program;
 * the CUDA table stands in a library of its own, libtroupe_cuda.so, which is built where CUDA's
 * compiler is and loaded when a device of that kind is asked for (cuda/library.h). So one build
 * serves both kinds of machine, and no program needs CUDA to start.
 *
 * The library is looked for in this order: the file that the environment names in
 * TROUPE_CUDA_LIBRARY, and then nowhere else; beside the program; in ../lib of the program's
 * folder; where the dynamic loader looks. It is used only when it was made for this interface and
 * this table of kernels. The device is the first one that the process sees: whoever starts it (the
 * node agent) shows it that one alone. Once per process and kind, by any thread. */
#ifndef TROUPE_TENSOR_DEVICE_H
#define TROUPE_TENSOR_DEVICE_H

#include "base/error.h"
#include "tensor/device_memory.h"
#include "tensor/kernels.h"
#include "tensor/streams.h"

typedef enum { DEVICE_CPU, DEVICE_CUDA } DeviceKind;

/* "cpu", "cuda": as jobs and options name it. */
const char *device_kind_name(DeviceKind kind);

typedef struct DeviceOptions {
    int num_threads;     /* CPU: that compute; at least 1 */
    const char *library; /* CUDA: this file, in place of looking for one; NULL: look */
} DeviceOptions;

typedef struct DeviceInfo {
    char name[128]; /* "NVIDIA H100 80GB HBM3"; of the CPU "CPU" */
    /* For people: "NVIDIA H100 80GB HBM3 (sm_90, 0000:1b:00.0), 78.6 of 79.2 GiB free, CUDA driver
     * 13.0, runtime 13.0". */
    char text[320];
    int64_t memory_total, memory_free; /* bytes, before the caller took any; 0: not known */
    const DeviceStreams *streams;      /* NULL: its kernels are done when they return; static */
    const DeviceMemory *memory;        /* NULL: all of it is the host's; static */
    const char *note; /* what people should know who compute in bf16 there, or NULL; static */
} DeviceInfo;

/* The kernels of a device, for good, and in *ret_info (NULL: not wanted) what it is. `kernels` is
 * static. ERR_RESOURCE when this machine has no such device or this build no library for it,
 * ERR_UNSUPPORTED for a library or a device that is not fit: the message says where it was looked
 * for, what was found, what is expected, and what to do. */
Status device_open(DeviceKind kind, const DeviceOptions *options, const KernelTable **ret,
                   DeviceInfo *ret_info, Error *err);

#endif
