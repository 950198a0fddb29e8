/* Memory, order and errors of the process's one device.
 *
 * ONE STREAM FOR ALL THREADS. kernels.h promises the order of one thread's calls; a stream for each
 * thread would keep that, but not what threads arrange among themselves with locks and joins:
 * memory that one thread uploads and another reads, or frees. In a single stream the device's order
 * is the order of calls, whoever makes them, so every order that host code can see holds on the
 * device as well, and a freed block can be given out again at once. What is lost is kernels of two
 * threads side by side; each fills the device.
 *
 * Memory comes from cudaMalloc: whole blocks of it can be shared with other processes and
 * registered with NCCL, which those of CUDA's own pool cannot. Freed blocks are kept for the next
 * of their size, since cudaMalloc and cudaFree wait for the device. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/library.h"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/table.h"

#define SM_MIN      80 /* bf16 products */
#define SMALL_STEP  ((size_t)512)
#define LARGE_STEP  ((size_t)2 << 20) /* of CUDA's own pages: rounding up to them costs nothing */
#define LARGE_BYTES ((size_t)1 << 20)

#define STAGE_BYTES ((size_t)4 << 20)
#define STAGES      8

/* A block of device memory. */
typedef struct Block {
    struct Block *next;
    void *memory;
    size_t bytes;
} Block;

/* Pinned memory, which the device copies from while the host goes on. `done` is recorded behind the
 * last copy of a stage. */
typedef struct Stage {
    char *memory;
    cudaEvent_t done;
} Stage;

static struct {
    bool is_open;
    int device, sm;
    char name[128];
    cudaStream_t stream;
    Block *used, *unused;
    size_t bytes_used, bytes_unused;

    Stage upload[STAGES];
    int upload_stage;
    size_t upload_filled; /* of that stage */

    Stage download[2];
} state;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of opening and of the blocks */
static pthread_mutex_t upload_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t download_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- errors ---- */

void cuda_check(cudaError_t status, const char *what)
{
    if (status == cudaSuccess) return;
    fprintf(stderr,
            "CUDA device %d (%s): %s: %s (%s). Errors of kernels are seen by later calls; with "
            "CUDA_LAUNCH_BLOCKING=1 in the environment, by their own.\n",
            state.device, state.name, what, cudaGetErrorString(status), cudaGetErrorName(status));
    fflush(stderr);
    abort();
}

static void set_text(char *text, size_t size, const char *what, cudaError_t status)
{
    snprintf(text, size, "%s: %s (%s)", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

/* ---- threads ---- */

cudaStream_t cuda_stream(void)
{
    static thread_local bool bound;
    if (!bound) { /* every thread begins with device 0 */
        CHECKF(state.is_open, "a kernel was called before the device was opened");
        cuda_check(cudaSetDevice(state.device), "cudaSetDevice");
        bound = true;
    }
    return state.stream;
}

int cuda_sm(void)
{
    return state.sm;
}

/* ---- blocks ---- */

static size_t rounded(size_t bytes)
{
    size_t step = bytes < LARGE_BYTES ? SMALL_STEP : LARGE_STEP;
    return bytes == 0 ? step : (bytes + step - 1) / step * step;
}

/* Takes out the block that `memory` is, or, for NULL, one of `bytes`. */
static Block *take(Block **list, const void *memory, size_t bytes)
{
    for (Block **at = list; *at != NULL; at = &(*at)->next) {
        Block *block = *at;
        if (memory != NULL ? block->memory != memory : block->bytes != bytes) continue;
        *at = block->next;
        return block;
    }
    return NULL;
}

static void put(Block **list, Block *block)
{
    block->next = *list;
    *list = block;
}

static void release_unused(void)
{
    for (Block *block; (block = state.unused) != NULL;) {
        state.unused = block->next;
        cuda_check(cudaFree(block->memory), "cudaFree");
        free(block);
    }
    state.bytes_unused = 0;
}

[[noreturn]] static void stop_out_of_memory(size_t bytes)
{
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&available, &total);
    fprintf(
        stderr,
        "CUDA device %d (%s): out of memory: %zu bytes asked for; this process holds %zu, %zu of "
        "%zu are free on the device. Train or decode fewer tokens at once, or on more devices.\n",
        state.device, state.name, bytes, state.bytes_used, available, total);
    fflush(stderr);
    abort();
}

static Block *new_block(size_t bytes)
{
    Block *block = (Block *)calloc(1, sizeof *block);
    CHECK(block != NULL);
    block->bytes = bytes;
    cudaError_t status = cudaMalloc(&block->memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        release_unused();
        status = cudaMalloc(&block->memory, bytes);
    }
    if (status == cudaErrorMemoryAllocation) stop_out_of_memory(bytes);
    cuda_check(status, "cudaMalloc");
    return block;
}

/* Of undefined contents. */
static void *take_memory(size_t bytes)
{
    size_t size = rounded(bytes);
    (void)cuda_stream();
    pthread_mutex_lock(&lock);
    Block *block = take(&state.unused, NULL, size);
    if (block != NULL)
        state.bytes_unused -= size;
    else
        block = new_block(size);
    put(&state.used, block);
    state.bytes_used += size;
    pthread_mutex_unlock(&lock);
    return block->memory;
}

void *cuda_alloc(size_t bytes)
{
    void *memory = take_memory(bytes);
    cuda_check(cudaMemsetAsync(memory, 0, rounded(bytes), cuda_stream()), "alloc");
    return memory;
}

void cuda_free(void *memory)
{
    if (memory == NULL) return;
    pthread_mutex_lock(&lock);
    Block *block = take(&state.used, memory, 0);
    CHECKF(block != NULL, "free of memory that alloc did not give");
    state.bytes_used -= block->bytes;
    state.bytes_unused += block->bytes;
    put(&state.unused, block);
    pthread_mutex_unlock(&lock);
}

/* A thread's; given back when it ends, without a call of CUDA, which may have ended before. */
struct Scratch {
    void *memory;
    size_t bytes;
    ~Scratch()
    {
        cuda_free(memory);
    }
};

void *cuda_scratch(size_t bytes)
{
    static thread_local Scratch scratch;
    if (scratch.bytes >= bytes && scratch.memory != NULL) return scratch.memory;
    cuda_free(scratch.memory);
    scratch.memory = NULL;
    scratch.memory = take_memory(bytes + bytes / 4);
    scratch.bytes = bytes + bytes / 4;
    return scratch.memory;
}

/* ---- copies ---- */

static Stage stage_create(void)
{
    Stage stage = {};
    cuda_check(cudaHostAlloc((void **)&stage.memory, STAGE_BYTES, cudaHostAllocDefault),
               "cudaHostAlloc");
    cuda_check(cudaEventCreateWithFlags(&stage.done, cudaEventDisableTiming), "cudaEventCreate");
    return stage;
}

/* Place for up to `bytes` in the stage that is being filled, at least one; the next stage is taken
 * once the device has read it. */
static char *upload_place(size_t bytes, size_t *ret_bytes)
{
    Stage *stage = &state.upload[state.upload_stage];
    if (state.upload_filled == STAGE_BYTES) {
        cuda_check(cudaEventRecord(stage->done, cuda_stream()), "upload");
        state.upload_stage = (state.upload_stage + 1) % STAGES;
        state.upload_filled = 0;
        stage = &state.upload[state.upload_stage];
        cuda_check(cudaEventSynchronize(stage->done), "upload");
    }
    size_t left = STAGE_BYTES - state.upload_filled;
    *ret_bytes = bytes < left ? bytes : left;
    char *place = stage->memory + state.upload_filled;
    state.upload_filled += (*ret_bytes + 63) / 64 * 64;
    if (state.upload_filled > STAGE_BYTES) state.upload_filled = STAGE_BYTES;
    return place;
}

/* By way of pinned memory, so that the caller's is read when this returns while the copy itself
 * stands in line behind the kernels. */
void cuda_upload(void *to, const void *host_from, size_t bytes)
{
    cudaStream_t stream = cuda_stream();
    pthread_mutex_lock(&upload_lock);
    for (size_t done = 0, piece = 0; done < bytes; done += piece) {
        char *place = upload_place(bytes - done, &piece);
        memcpy(place, (const char *)host_from + done, piece);
        cuda_check(cudaMemcpyAsync((char *)to + done, place, piece, cudaMemcpyHostToDevice, stream),
                   "upload");
    }
    pthread_mutex_unlock(&upload_lock);
}

/* One piece is on its way while the one before is read. */
void cuda_download(void *host_to, const void *from, size_t bytes)
{
    cudaStream_t stream = cuda_stream();
    pthread_mutex_lock(&download_lock);
    for (size_t begin = 0; begin < bytes + STAGE_BYTES; begin += STAGE_BYTES) {
        int turn = (int)(begin / STAGE_BYTES % 2);
        if (begin < bytes) {
            size_t piece = bytes - begin < STAGE_BYTES ? bytes - begin : STAGE_BYTES;
            Stage *stage = &state.download[turn];
            cuda_check(cudaMemcpyAsync(stage->memory, (const char *)from + begin, piece,
                                       cudaMemcpyDeviceToHost, stream),
                       "download");
            cuda_check(cudaEventRecord(stage->done, stream), "download");
        }
        if (begin > 0) {
            size_t before = begin - STAGE_BYTES;
            size_t piece = bytes - before < STAGE_BYTES ? bytes - before : STAGE_BYTES;
            Stage *stage = &state.download[1 - turn];
            cuda_check(cudaEventSynchronize(stage->done), "download");
            memcpy((char *)host_to + before, stage->memory, piece);
        }
    }
    pthread_mutex_unlock(&download_lock);
    if (bytes == 0) cuda_synchronize();
}

void cuda_copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 0) return;
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream()), "copy");
}

void cuda_synchronize(void)
{
    cuda_check(cudaStreamSynchronize(cuda_stream()), "synchronize");
}

void cuda_fill_zero(Tensor y)
{
    if (tensor_bytes(&y) == 0) return;
    cuda_check(cudaMemsetAsync(y.data, 0, tensor_bytes(&y), cuda_stream()), "fill_zero");
}

/* ---- the library ---- */

static int version_major(int version)
{
    return version / 1000;
}

static int version_minor(int version)
{
    return version % 1000 / 10;
}

static int count_devices(char *text, size_t size)
{
    int count = 0, driver = 0, runtime = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0) return count;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        snprintf(text, size,
                 "no NVIDIA driver: libcuda.so.1 is not found, or not one that works (%s)",
                 cudaGetErrorName(status));
    else if (status == cudaErrorInsufficientDriver)
        snprintf(text, size,
                 "the NVIDIA driver is for CUDA %d.%d, and this build wants %d.%d or later of it",
                 version_major(driver), version_minor(driver), version_major(runtime), 0);
    else if (status == cudaSuccess || status == cudaErrorNoDevice)
        snprintf(text, size, "the NVIDIA driver shows this process no device%s",
                 getenv("CUDA_VISIBLE_DEVICES") != NULL ? ": see CUDA_VISIBLE_DEVICES" : "");
    else
        set_text(text, size, "the NVIDIA driver cannot list its devices", status);
    return 0;
}

static bool describe_device(int device, CudaDevice *ret, char *text, size_t size)
{
    CudaDevice found = {};
    cudaDeviceProp properties;
    size_t available = 0, total = 0;
    cudaError_t status = cudaGetDeviceProperties(&properties, device);
    if (status == cudaSuccess)
        status = cudaDeviceGetPCIBusId(found.pci_bus_id, (int)sizeof found.pci_bus_id, device);
    if (status == cudaSuccess) status = cudaSetDevice(device);
    if (status == cudaSuccess) status = cudaMemGetInfo(&available, &total);
    if (status != cudaSuccess && count_devices(text, size) == 0) return false;
    if (status != cudaSuccess) {
        char what[64];
        (void)cudaGetLastError();
        snprintf(what, sizeof what, "CUDA device %d cannot be used", device);
        set_text(text, size, what, status);
        return false;
    }
    snprintf(found.name, sizeof found.name, "%.127s", properties.name);
    found.sm = properties.major * 10 + properties.minor;
    found.memory_total = (int64_t)total;
    found.memory_free = (int64_t)available;
    (void)cudaDriverGetVersion(&found.driver_version);
    (void)cudaRuntimeGetVersion(&found.runtime_version);
    *ret = found;
    return true;
}

__global__ void nothing_kernel()
{
}

/* Whether the device is one this library has code for. */
static bool is_supported(int device, const CudaDevice *found, char *text, size_t size)
{
    cudaFuncAttributes attributes;
    if (found->sm < SM_MIN) {
        snprintf(text, size,
                 "CUDA device %d (%s) has compute capability %d.%d, and bf16 needs %d.%d: choose "
                 "another device, or device: cpu",
                 device, found->name, found->sm / 10, found->sm % 10, SM_MIN / 10, SM_MIN % 10);
        return false;
    }
    cudaError_t status = cudaFuncGetAttributes(&attributes, (const void *)nothing_kernel);
    if (status == cudaSuccess) return true;
    (void)cudaGetLastError();
    char what[256];
    snprintf(what, sizeof what, "%s has no code for CUDA device %d (%s, compute capability %d.%d)",
             CUDA_LIBRARY_NAME, device, found->name, found->sm / 10, found->sm % 10);
    set_text(text, size, what, status);
    return false;
}

static bool open_locked(int device, char *text, size_t size)
{
    CudaDevice found;
    if (state.is_open && state.device == device) return true;
    if (state.is_open) {
        snprintf(text, size, "CUDA device %d: this process has already opened device %d", device,
                 state.device);
        return false;
    }
    if (!describe_device(device, &found, text, size)) return false;
    if (!is_supported(device, &found, text, size) || !gemm_open(text, size)) return false;
    state.device = device;
    state.sm = found.sm;
    memcpy(state.name, found.name, sizeof state.name);
    cuda_check(cudaStreamCreateWithFlags(&state.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    for (int i = 0; i < STAGES; i++)
        state.upload[i] = stage_create();
    for (int i = 0; i < 2; i++)
        state.download[i] = stage_create();
    state.is_open = true;
    return true;
}

static const KernelTable *open_device(int device, char *text, size_t size)
{
    pthread_mutex_lock(&lock);
    bool is_open = open_locked(device, text, size);
    pthread_mutex_unlock(&lock);
    return is_open ? cuda_table() : NULL;
}

extern "C" __attribute__((visibility("default"))) const CudaLibrary *troupe_cuda_library(void)
{
    static const CudaLibrary library = {CUDA_LIBRARY_ABI, sizeof(KernelTable), count_devices,
                                        describe_device,  open_device,         cuda_streams};
    return &library;
}
