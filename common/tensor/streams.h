/* DeviceStreams: what a communicator needs of a device whose kernels run while the host goes on:
 * the stream they run on, streams and events of its own, and a sum over ranks. The CUDA library has
 * one; the CPU, whose kernels are done when they return, has none. Streams and events are the
 * device's own handles (cudaStream_t, cudaEvent_t), handed on to NCCL as they are. Any thread that
 * has called `use`. Nothing here fails but what says so: as with kernels, an error of the device
 * stops the process. */
#ifndef TROUPE_TENSOR_STREAMS_H
#define TROUPE_TENSOR_STREAMS_H

#include "tensor/tensor.h"

/* out[i] = the sum (or maximum) of parts[0 * stride + i], parts[1 * stride + i] ... in that order,
 * taken in f32 and rounded once to the type, f32 or bf16, of all of them. A NaN in any part gives a
 * NaN. `out` overlaps no part. */
typedef struct PartReduction {
    void *out;
    const void *parts;
    int num_parts;
    int64_t count, stride; /* elements */
    DType dtype;
    bool maximum;
} PartReduction;

typedef enum { EVENT_DONE, EVENT_PENDING, EVENT_FAILED } EventState;

typedef struct DeviceStreams {
    size_t bytes; /* sizeof(DeviceStreams), for whoever loads it */
    /* Makes the device current in the calling thread, once per thread, before all else. */
    void (*use)(void);
    /* The one that the calling thread's kernels run on. */
    void *(*kernel_stream)(void);
    /* Another one, whose work goes first where both have some: of the highest priority, and never
     * waiting for the default stream. */
    void *(*stream_create)(void);
    void (*stream_destroy)(void *stream); /* accepts NULL */
    void *(*event_create)(void);          /* measures no time */
    void (*event_destroy)(void *event);   /* accepts NULL */
    /* What `stream` has been given so far; recorded again, the event forgets what it was. */
    void (*event_record)(void *event, void *stream);
    /* What `stream` is given from now on waits for what the event stands for; the host does not. */
    void (*stream_wait)(void *stream, void *event);
    /* Whether all that the event stands for has run. EVENT_FAILED with a sentence in `text`: the
     * device is lost, and whatever kernel is called next stops the process. */
    EventState (*event_query)(void *event, char *text, size_t size);
    void (*reduce_parts)(void *stream, const PartReduction *reduction);
} DeviceStreams;

#endif
