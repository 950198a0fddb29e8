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

bool fake_device_is_lost;
int fake_capture_fault;
static int num_graphs;

struct FakeEvent {
    cudaStream_t stream; /* NULL: never recorded */
    size_t place;        /* in its line: behind how many operations it stands */
};

struct Operation {
    void *to;
    const void *from; /* NULL: bytes of `value` */
    size_t bytes;
    int value;
    FakeEvent wait; /* with a stream: nothing but this */
};

struct FakeGraph {
    std::deque<Operation> operations;
};

/* No part of the graph that it was made from. */
struct FakeGraphExec {
    std::deque<Operation> operations;
};

struct FakeStream {
    std::deque<Operation> line;
    size_t done; /* operations that have left the line */
    unsigned flags;
    int priority;
    FakeGraph *graph; /* NULL: it runs what it is given */
    bool is_invalid;  /* what is recorded */
};

static std::deque<FakeStream> streams; /* which do not move */
static std::map<void *, size_t> blocks;
static thread_local cudaStream_t
    strict; /* that the thread records, and calls nothing else meanwhile */
static thread_local int thread_device;
static thread_local cudaError_t last_error;

/* ---- lines ---- */

static void run_until(cudaStream_t stream, size_t place)
{
    while (stream->done < place) {
        const Operation next = stream->line.front();
        if (next.wait.stream != NULL)
            run_until(next.wait.stream, next.wait.place);
        else if (next.from != NULL)
            memcpy(next.to, next.from, next.bytes);
        else
            memset(next.to, next.value, next.bytes);
        stream->line.pop_front();
        stream->done++;
    }
}

static size_t end_of(cudaStream_t stream)
{
    return stream->done + stream->line.size();
}

size_t fake_copies_pending(void)
{
    size_t pending = 0;
    for (const FakeStream &stream : streams)
        pending += stream.line.size();
    return pending;
}

/* What is no kernel, from a thread that records: the recording is lost. */
static bool is_refused(void)
{
    if (strict == NULL) return false;
    strict->is_invalid = true;
    last_error = cudaErrorStreamCaptureUnsupported;
    return true;
}

static cudaError_t put(cudaStream_t stream, const Operation &operation)
{
    if (stream->graph != NULL && fake_capture_fault == 5) stream->is_invalid = true;
    if (stream->graph != NULL && stream->is_invalid)
        return last_error = cudaErrorStreamCaptureInvalidated;
    (stream->graph != NULL ? stream->graph->operations : stream->line).push_back(operation);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream)
{
    return put(stream, {to, from, bytes, 0, {}});
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    return put(stream, {memory, NULL, bytes, value, {}});
}

/* ---- streams and events ---- */

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    streams.push_back({{}, 0, flags, priority, NULL, false});
    *stream = &streams.back();
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

bool fake_stream_is_first(const void *stream)
{
    return ((const FakeStream *)stream)->priority == -5 &&
           ((const FakeStream *)stream)->flags == cudaStreamNonBlocking;
}

/* Its memory stays for events that were recorded there. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return cudaStreamSynchronize(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (is_refused()) return last_error;
    run_until(stream, end_of(stream));
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (event->stream != NULL) stream->line.push_back({NULL, NULL, 0, 0, *event});
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = (cudaEvent_t)calloc(1, sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return fake_device_is_lost ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    *event = {stream, end_of(stream)};
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (is_refused()) return last_error;
    if (event->stream != NULL) run_until(event->stream, event->place);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaStream_t stream = event->stream;
    if (fake_device_is_lost) return last_error = cudaErrorLaunchFailure;
    if (stream == NULL || stream->done >= event->place) return cudaSuccess;
    run_until(stream, stream->done + 1);
    return last_error = cudaErrorNotReady;
}

int fake_last_error(void)
{
    return last_error;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    /* In the other mode, threads that allocate meanwhile would spoil it. */
    if (mode == cudaStreamCaptureModeGlobal || stream->graph != NULL) return cudaErrorInvalidValue;
    if (fake_capture_fault == 1) return last_error = cudaErrorInvalidValue;
    stream->graph = new FakeGraph();
    stream->is_invalid = false;
    strict = mode == cudaStreamCaptureModeThreadLocal ? stream : NULL;
    num_graphs++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = stream->graph;
    stream->graph = NULL;
    strict = NULL;
    if (fake_capture_fault != 2 && !stream->is_invalid) return cudaSuccess;
    cudaGraphDestroy(*graph);
    *graph = NULL;
    return last_error = cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long)
{
    if (fake_capture_fault == 3) return last_error = cudaErrorMemoryAllocation;
    *ready = new FakeGraphExec{graph->operations};
    num_graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return fake_capture_fault == 4 ? last_error = cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream)
{
    for (const Operation &operation : ready->operations)
        put(stream, operation);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    num_graphs--;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready)
{
    delete ready;
    num_graphs--;
    return cudaSuccess;
}

int fake_graphs(void)
{
    return num_graphs;
}

/* ---- memory ---- */

size_t fake_memory_used(void)
{
    size_t used = fake_vmm_bytes();
    for (const auto &block : blocks)
        used += block.second;
    return used;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (is_refused()) return last_error;
    if (fake_memory_used() + bytes > fake_device.memory_bytes) return cudaErrorMemoryAllocation;
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*memory, 0xA5, bytes);
    blocks[*memory] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    if (blocks.erase(memory) != 1) return cudaErrorInvalidValue;
    for (FakeStream &stream : streams)
        cudaStreamSynchronize(&stream);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    *memory = aligned_alloc(4096, bytes);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
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
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
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

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int)
{
    *value = fake_device.sm == 90 ? 227 << 10 : 99 << 10;
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

#define STATIC_SHARED 1024 /* of every kernel, in bytes */
static int shared_allowed;

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *)
{
    attributes->sharedSizeBytes = STATIC_SHARED;
    return fake_device.sm == 99 ? cudaErrorNoKernelImageForDevice : cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value)
{
    int most = 0;
    (void)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    shared_allowed = value;
    return value >= 0 && value <= most - STATIC_SHARED ? cudaSuccess : cudaErrorInvalidValue;
}

int fake_shared_allowed(void)
{
    cuda_allow_shared(&shared_allowed, "a kernel");
    return shared_allowed;
}

/* ---- what device.cu and streams.cu expect of the other sources ---- */

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
    table.graphs = cuda_graphs();
    return &table;
}

/* A copy of the first part is enough to see when it runs. */
void cuda_reduce_parts(void *stream, const PartReduction *reduction)
{
    const size_t bytes = (size_t)reduction->count * dtype_size(reduction->dtype);
    cudaMemcpyAsync(reduction->out, reduction->parts, bytes, cudaMemcpyDeviceToDevice,
                    (cudaStream_t)stream);
}
