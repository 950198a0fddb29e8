/* Kernels that are recorded and launched as one (tensor/graphs.h), by CUDA's stream capture.
 *
 * All threads share one stream (device.cu), and a stream that is being captured records whatever
 * anybody calls. So what is recorded goes to a stream of its own, which stands in for the kernels'
 * in the calling thread alone (cuda_record_on); the graph is launched into the kernels' stream. */
#include <pthread.h>
#include <stdio.h>

#include "tensor/cuda/device.cuh"
#include "tensor/cuda/table.h"

static pthread_mutex_t recorder = PTHREAD_MUTEX_INITIALIZER; /* held from begin to end */
static cudaStream_t stream;                                  /* that is recorded */

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
    cuda_record_on(stream);
    return true;
}

static DeviceGraph *end_graph(char *text, size_t size)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    cuda_record_on(NULL);
    bool fine = is_fine(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture", text, size) &&
                is_fine(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate", text, size);
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
