#include "fake.h"

#include <stdlib.h>
#include <string.h>

#include <deque>
#include <map>

#include "cuda_runtime.h"
#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/table.h"

FakeDevice fake_device = {2, 90, 13000, (size_t)1 << 30};
const char *fake_gemm_fault;

struct FakeEvent {
    size_t place; /* in line: behind how many operations it stands */
};

struct Operation {
    void *to;
    const void *from; /* NULL: bytes of `value` */
    size_t bytes;
    int value;
};

static std::deque<Operation> line;
static size_t done; /* operations that have left the line */
static std::map<void *, size_t> blocks;
static thread_local int thread_device;

/* ---- the line ---- */

static void run_until(size_t place)
{
    for (; done < place; done++, line.pop_front()) {
        const Operation &next = line.front();
        if (next.from != NULL)
            memcpy(next.to, next.from, next.bytes);
        else
            memset(next.to, next.value, next.bytes);
    }
}

size_t fake_copies_pending(void)
{
    return line.size();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    line.push_back({to, from, bytes, 0});
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    line.push_back({memory, NULL, bytes, value});
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    run_until(done + line.size());
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = NULL;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = (cudaEvent_t)calloc(1, sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
    event->place = done + line.size();
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    run_until(event->place);
    return cudaSuccess;
}

/* ---- memory ---- */

size_t fake_memory_used(void)
{
    size_t used = 0;
    for (const auto &block : blocks)
        used += block.second;
    return used;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (fake_memory_used() + bytes > fake_device.memory_bytes) return cudaErrorMemoryAllocation;
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*memory, 0xA5, bytes);
    blocks[*memory] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    if (blocks.erase(memory) != 1) return cudaErrorInvalidValue;
    cudaStreamSynchronize(NULL);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    *memory = aligned_alloc(4096, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = fake_device.memory_bytes;
    *available = *total - fake_memory_used();
    return cudaSuccess;
}

/* ---- the device ---- */

const char *cudaGetErrorString(cudaError_t)
{
    return "a sentence of the runtime";
}

const char *cudaGetErrorName(cudaError_t)
{
    return "cudaErrorName";
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (fake_device.driver_version < 13000) return cudaErrorInsufficientDriver;
    *count = fake_device.count;
    return fake_device.count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = fake_device.driver_version;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    if (device < 0 || device >= fake_device.count) return cudaErrorInvalidDevice;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "a card");
    properties->major = fake_device.sm / 10;
    properties->minor = fake_device.sm % 10;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int)
{
    strncpy(id, "0000:1b:00.0", (size_t)size);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    thread_device = device;
    return cudaSuccess;
}

int fake_thread_device(void)
{
    return thread_device;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *, const void *)
{
    return fake_device.sm == 99 ? cudaErrorNoKernelImageForDevice : cudaSuccess;
}

/* ---- what device.cu expects of the other sources ---- */

bool gemm_open(char *text, size_t size)
{
    if (fake_gemm_fault == NULL) return true;
    strncpy(text, fake_gemm_fault, size);
    return false;
}

const KernelTable *cuda_table(void)
{
    static KernelTable table;
    table.alloc = cuda_alloc;
    table.free = cuda_free;
    table.upload = cuda_upload;
    table.download = cuda_download;
    table.copy = cuda_copy;
    table.synchronize = cuda_synchronize;
    table.fill_zero = cuda_fill_zero;
    return &table;
}
