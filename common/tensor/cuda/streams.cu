/* Streams and events of the process's one device, for communicators. */
#include <stdio.h>

#include "tensor/cuda/device.cuh"
#include "tensor/cuda/table.h"

/* A thread's first kernel would do it too; whoever only looks at events, or calls NCCL, has none.
 */
static void use_device(void)
{
    (void)cuda_stream();
}

static void *kernel_stream(void)
{
    return cuda_stream();
}

static void *create_stream(void)
{
    cudaStream_t stream = NULL;
    int least = 0, greatest = 0;
    (void)cuda_stream();
    cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest),
               "cudaDeviceGetStreamPriorityRange");
    cuda_check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest),
               "cudaStreamCreateWithPriority");
    return stream;
}

/* What ends is not looked at: of a device that is lost event_query has told, and the process is to
 * say so in its own words. What the stream still has to do is done. */
static void destroy_stream(void *stream)
{
    if (stream == NULL) return;
    (void)cudaStreamDestroy((cudaStream_t)stream);
}

static void *create_event(void)
{
    cudaEvent_t event = NULL;
    (void)cuda_stream();
    cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    return event;
}

static void destroy_event(void *event)
{
    if (event == NULL) return;
    (void)cudaEventDestroy((cudaEvent_t)event);
}

static void record_event(void *event, void *stream)
{
    cuda_check(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream), "cudaEventRecord");
}

static void wait_for_event(void *stream, void *event)
{
    cuda_check(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event, 0),
               "cudaStreamWaitEvent");
}

static EventState query_event(void *event, char *text, size_t size)
{
    cudaError_t status = cudaEventQuery((cudaEvent_t)event);
    if (status == cudaSuccess) return EVENT_DONE;
    if (status == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* no error, but the next launch would take it for its own */
        return EVENT_PENDING;
    }
    snprintf(text, size, "the CUDA device is lost: %s (%s)", cudaGetErrorString(status),
             cudaGetErrorName(status));
    return EVENT_FAILED;
}

static DeviceStreams fill_streams()
{
    DeviceStreams streams = {};
    streams.bytes = sizeof(DeviceStreams);
    streams.use = use_device;
    streams.kernel_stream = kernel_stream;
    streams.stream_create = create_stream;
    streams.stream_destroy = destroy_stream;
    streams.event_create = create_event;
    streams.event_destroy = destroy_event;
    streams.event_record = record_event;
    streams.stream_wait = wait_for_event;
    streams.event_query = query_event;
    streams.reduce_parts = cuda_reduce_parts;
    return streams;
}

const DeviceStreams *cuda_streams(void)
{
    static const DeviceStreams streams = fill_streams();
    return &streams;
}
