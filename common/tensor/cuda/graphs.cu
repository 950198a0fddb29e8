/* Kernels that are recorded and launched as one (tensor/graphs.h), by CUDA's stream capture.
 *
 * All threads share one stream (device.cu), and a stream that is being captured records whatever
 * anybody calls. So what is recorded goes to a stream of its own, which stands in for the kernels'
 * in the calling thread alone (cuda_record_on); the graph is launched into the kernels' stream.
 *
 * What cannot be recorded, or fails while it is, spoils the recording and nothing else: CUDA's own
 * is ended at once, another that allows every call takes what the thread calls until `end`, and is
 * thrown away. */
#include <pthread.h>
#include <stdio.h>

#include "tensor/cuda/device.cuh"
#include "tensor/cuda/table.h"

static pthread_mutex_t recorder = PTHREAD_MUTEX_INITIALIZER; /* held from begin to end */
static cudaStream_t stream;                                  /* that is recorded */
static char spoiled[512];                                    /* why; "": it is not */

/* Whether a call went well; else the sentence, and the runtime forgets the error. */
static bool is_fine(cudaError_t status, const char *what, char *text, size_t size)
{
    if (status == cudaSuccess) return true;
    (void)cudaGetLastError();
    snprintf(text, size, "%s: %s (%s)", what, cudaGetErrorString(status), cudaGetErrorName(status));
    return false;
}

static bool begin_graph(char *text, size_t size)
{
    (void)cuda_stream(); /* the thread's device is ours from here on */
    pthread_mutex_lock(&recorder);
    if (stream == NULL)
        cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    if (!is_fine(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                 "cudaStreamBeginCapture", text, size)) {
        pthread_mutex_unlock(&recorder);
        return false;
    }
    spoiled[0] = '\0';
    cuda_record_on(stream);
    return true;
}

/* Ends what CUDA records, without the calling thread's errors. */
static void drop_capture(void)
{
    cudaGraph_t graph = NULL;
    cuda_record_on(NULL);
    (void)cudaStreamEndCapture(stream, &graph);
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
}

/* Where CUDA takes no second recording, the thread's kernels run from here on. */
void cuda_spoil_recording(const char *why)
{
    if (spoiled[0] != '\0') return;
    snprintf(spoiled, sizeof spoiled, "%s", why);
    drop_capture();
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess)
        cuda_record_on(stream);
    else
        (void)cudaGetLastError();
}

static DeviceGraph *end_spoiled(char *text, size_t size)
{
    if (cuda_is_recording()) drop_capture();
    snprintf(text, size, "%s", spoiled);
    pthread_mutex_unlock(&recorder);
    return NULL;
}

static DeviceGraph *end_graph(char *text, size_t size)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    if (spoiled[0] != '\0') return end_spoiled(text, size);
    cuda_record_on(NULL);
    /* Brought to the device now, so that a want of memory shows here. */
    bool fine = is_fine(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture", text, size) &&
                is_fine(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate", text, size);
    if (fine && !is_fine(cudaGraphUpload(ready, cuda_stream()), "cudaGraphUpload", text, size)) {
        (void)cudaGraphExecDestroy(ready);
        fine = false;
    }
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    pthread_mutex_unlock(&recorder);
    return fine ? (DeviceGraph *)ready : NULL;
}

static void launch_graph(DeviceGraph *graph)
{
    cuda_check(cudaGraphLaunch((cudaGraphExec_t)graph, cuda_stream()), "cudaGraphLaunch");
}

/* The runtime keeps what is still running; of a device that is lost others have told. */
static void destroy_graph(DeviceGraph *graph)
{
    if (graph != NULL) (void)cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

const DeviceGraphs *cuda_graphs(void)
{
    static const DeviceGraphs graphs = {sizeof(DeviceGraphs), begin_graph, end_graph, launch_graph,
                                        destroy_graph};
    return &graphs;
}
