/* The double's device: streams are threads with a list of work, memory is the host's. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "tests/comm/nccl_double.h"
#include "tests/comm/double_fence.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct Work {
    struct Work *next;
    void (*kernel)(void *);
    void *argument;
} Work;

typedef struct Stream {
    struct Stream *next; /* in the list of all */
    pthread_t thread;
    Work *first, **last;
    uint64_t given, done;
    bool closing;
} Stream;

typedef struct Event {
    Stream *stream;
    uint64_t given;
} Event;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static _Thread_local Stream *own_stream;

/* ---- memory behind a fence ---- */

static DoubleFence fence;

EXPORT void nccl_double_fence(const DoubleFence *given)
{
    fence = *given;
}

bool double_is_fenced(void)
{
    return fence.enter != NULL;
}

void double_enter(void)
{
    if (double_is_fenced()) fence.enter();
}

void double_leave(void)
{
    if (double_is_fenced()) fence.leave();
}

void double_arrive(const void *stream)
{
    if (double_is_fenced() && stream == NULL) fence.arrive();
}

/* ---- streams ---- */

/* A child of a fork has none of its parent's threads, and its locks are free. */
static void reset_in_child(void)
{
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&changed, NULL);
    own_stream = NULL;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, reset_in_child);
}

static void *run_stream(void *argument)
{
    Stream *stream = argument;
    pthread_mutex_lock(&mutex);
    for (;;) {
        while (stream->first == NULL && !stream->closing)
            pthread_cond_wait(&changed, &mutex);
        Work *work = stream->first;
        if (work == NULL) break;
        stream->first = work->next;
        if (stream->first == NULL) stream->last = &stream->first;
        pthread_mutex_unlock(&mutex);
        if (stream->done % 7 == 3) usleep(50); /* a device takes its time */
        work->kernel(work->argument);
        free(work);
        pthread_mutex_lock(&mutex);
        stream->done++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *create_stream(void)
{
    Stream *stream = mem_calloc(1, sizeof *stream);
    stream->last = &stream->first;
    CHECK(pthread_create(&stream->thread, NULL, run_stream, stream) == 0);
    return stream;
}

static void destroy_stream(void *handle)
{
    Stream *stream = handle;
    if (stream == NULL) return;
    pthread_mutex_lock(&mutex);
    stream->closing = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    pthread_join(stream->thread, NULL);
    free(stream);
}

/* Lives as long as the process. */
static void *kernel_stream(void)
{
    if (own_stream == NULL) own_stream = create_stream();
    return own_stream;
}

EXPORT void nccl_double_run(void *handle, void (*kernel)(void *), void *argument)
{
    Stream *stream = handle;
    if (stream == NULL) {
        kernel(argument);
        return;
    }
    Work *work = mem_calloc(1, sizeof *work);
    *work = (Work){NULL, kernel, argument};
    pthread_mutex_lock(&mutex);
    *stream->last = work;
    stream->last = &work->next;
    stream->given++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

EXPORT void nccl_double_synchronize(void *handle)
{
    Stream *stream = handle;
    pthread_mutex_lock(&mutex);
    uint64_t given = stream->given;
    while (stream->done < given)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

/* ---- events ---- */

static void use_device(void)
{
}

static void *create_event(void)
{
    return mem_calloc(1, sizeof(Event));
}

static void destroy_event(void *event)
{
    free(event);
}

static void record_event(void *handle, void *stream)
{
    Event *event = handle;
    double_arrive(stream);
    pthread_mutex_lock(&mutex);
    event->stream = stream;
    event->given = event->stream != NULL ? event->stream->given : 0;
    pthread_mutex_unlock(&mutex);
}

static bool has_run(const Event *event)
{
    return event->stream == NULL || event->stream->done >= event->given;
}

static EventState query_event(void *event, char *text, size_t size)
{
    (void)text;
    (void)size;
    pthread_mutex_lock(&mutex);
    bool done = has_run(event);
    pthread_mutex_unlock(&mutex);
    return done ? EVENT_DONE : EVENT_PENDING;
}

static void wait_kernel(void *argument)
{
    pthread_mutex_lock(&mutex);
    while (!has_run(argument))
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    free(argument);
}

static void wait_for_event(void *stream, void *event)
{
    Event *copy = mem_alloc(sizeof *copy);
    *copy = *(Event *)event;
    nccl_double_run(stream, wait_kernel, copy);
}

/* ---- the sum ---- */

static float part_at(const PartReduction *r, int part, int64_t i)
{
    int64_t at = part * r->stride + i;
    return r->dtype == DTYPE_F32 ? ((const float *)r->parts)[at]
                                 : bf16_to_f32(((const uint16_t *)r->parts)[at]);
}

static void reduce_kernel(void *argument)
{
    PartReduction *r = argument;
    double_enter();
    for (int64_t i = 0; i < r->count; i++) {
        float acc = part_at(r, 0, i);
        for (int p = 1; p < r->num_parts; p++) {
            float x = part_at(r, p, i);
            acc = !r->maximum ? acc + x : x > acc || x != x ? x : acc;
        }
        if (r->dtype == DTYPE_F32)
            ((float *)r->out)[i] = acc;
        else
            ((uint16_t *)r->out)[i] = bf16_from_f32(acc);
    }
    double_leave();
    free(r);
}

static void reduce_parts(void *stream, const PartReduction *reduction)
{
    PartReduction *copy = mem_alloc(sizeof *copy);
    *copy = *reduction;
    nccl_double_run(stream, reduce_kernel, copy);
}

static void *host_stream(void)
{
    return NULL;
}

/* But for the stream of kernels. */
#define STREAMS                                                                                    \
    .bytes = sizeof(DeviceStreams), .use = use_device, .stream_create = create_stream,             \
    .stream_destroy = destroy_stream, .event_create = create_event,                                \
    .event_destroy = destroy_event, .event_record = record_event, .stream_wait = wait_for_event,   \
    .event_query = query_event, .reduce_parts = reduce_parts

EXPORT const DeviceStreams *nccl_double_streams(void)
{
    static const DeviceStreams streams = {STREAMS, .kernel_stream = kernel_stream};
    return &streams;
}

EXPORT const DeviceStreams *nccl_double_host_streams(void)
{
    static const DeviceStreams streams = {STREAMS, .kernel_stream = host_stream};
    return &streams;
}

/* ---- memory ---- */

typedef struct Copy {
    void *to;
    void *from;
    size_t bytes;
    bool owns_from;
} Copy;

static void copy_kernel(void *argument)
{
    Copy *copy = argument;
    memcpy(copy->to, copy->from, copy->bytes);
    if (copy->owns_from) free(copy->from);
    free(copy);
}

static void queue_copy(void *to, void *from, size_t bytes, bool owns_from)
{
    Copy *copy = mem_alloc(sizeof *copy);
    *copy = (Copy){to, from, bytes, owns_from};
    nccl_double_run(kernel_stream(), copy_kernel, copy);
}

static void *device_alloc(size_t bytes)
{
    return mem_calloc(1, bytes);
}

static void upload(void *to, const void *from, size_t bytes)
{
    void *kept = mem_alloc(bytes + 1);
    memcpy(kept, from, bytes);
    queue_copy(to, kept, bytes, true);
}

static void copy_on_device(void *to, const void *from, size_t bytes)
{
    queue_copy(to, (void *)from, bytes, false);
}

static void synchronize(void)
{
    nccl_double_synchronize(kernel_stream());
}

static void download(void *to, const void *from, size_t bytes)
{
    synchronize();
    memcpy(to, from, bytes);
}

EXPORT const KernelTable *nccl_double_kernels(void)
{
    static const KernelTable kernels = {
        .name = "double",
        .alloc = device_alloc,
        .free = free,
        .upload = upload,
        .download = download,
        .copy = copy_on_device,
        .synchronize = synchronize,
    };
    return &kernels;
}
