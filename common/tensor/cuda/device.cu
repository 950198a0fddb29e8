/* Memory, order and errors of the process's one device.
 *
 * ONE STREAM FOR ALL THREADS. kernels.h promises the order of one thread's calls; a stream for each
 * thread would keep that, but not what threads arrange among themselves with locks and joins:
 * memory that one thread uploads and another reads, or frees. In a single stream the device's order
 * is the order of calls, whoever makes them, so every order that host code can see holds on the
 * device as well, and a freed block can be given out again at once. What is lost is kernels of two
 * threads side by side; each fills the device.
 *
 * Memory comes from cudaMalloc: whole blocks of it can be registered with NCCL, which those of
 * CUDA's own pool cannot. Freed blocks are kept for the next of their size, since cudaMalloc and
 * cudaFree wait for the device.
 *
 * Large blocks of the pools that can be given back (tensor/device_memory.h) are addresses of their
 * own with memory behind them (vmm.cuh). What is smaller than its pages stays where all else is:
 * it would gain nothing. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/library.h"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/table.h"
#include "tensor/cuda/vmm.cuh"
#include "tensor/device_memory.h"

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
    MemoryPool pool; /* not POOL_FIXED: by vmm.cuh */
    void *kept;      /* pinned: what was in it when it was released; or NULL */
} Block;

/* Pinned memory, which the device copies from while the host goes on. `done` is recorded behind the
 * last copy of a stage. */
typedef struct Stage {
    char *memory;
    cudaEvent_t done;
} Stage;

static struct {
    bool is_open;
    int device;
    int shared_max; /* bytes of a block */
    char name[128];
    cudaStream_t stream;
    Block *used, *unused;
    size_t bytes_used, bytes_unused;
    bool has_pools; /* some thread was in one that can be given back */
    bool is_released[NUM_POOLS];
    bool is_kept[NUM_POOLS]; /* of those: with their contents */

    Stage upload[STAGES];
    int upload_stage;
    size_t upload_filled; /* of that stage */

    Stage download[2];
} state;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of opening and of the blocks */
static pthread_mutex_t upload_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t download_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- errors ---- */

static void set_text(char *text, size_t size, const char *what, cudaError_t status)
{
    snprintf(text, size, "%s: %s (%s)", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

void cuda_check(cudaError_t status, const char *what)
{
    char why[512];
    if (status == cudaSuccess) return;
    if (cuda_is_recording()) {
        (void)cudaGetLastError();
        set_text(why, sizeof why, what, status);
        cuda_spoil_recording(why);
        return;
    }
    fprintf(stderr,
            "CUDA device %d (%s): %s: %s (%s). Errors of kernels are seen by later calls; with "
            "CUDA_LAUNCH_BLOCKING=1 in the environment, by their own.\n",
            state.device, state.name, what, cudaGetErrorString(status), cudaGetErrorName(status));
    fflush(stderr);
    abort();
}

/* ---- threads ---- */

static thread_local cudaStream_t recording;

void cuda_record_on(cudaStream_t stream)
{
    recording = stream;
}

bool cuda_is_recording(void)
{
    return recording != NULL;
}

const char *cuda_device_name(void)
{
    return state.name;
}

/* What is no kernel is done now, on the kernels' own stream, and would be missing when the graph is
 * launched: so there will be none. */
static void do_now(const char *what)
{
    char why[128];
    if (recording == NULL) return;
    snprintf(why, sizeof why, "%s was called while kernels are recorded", what);
    cuda_spoil_recording(why);
}

cudaStream_t cuda_stream(void)
{
    static thread_local bool bound;
    if (!bound) { /* every thread begins with device 0 */
        CHECKF(state.is_open, "a kernel was called before the device was opened");
        cuda_check(cudaSetDevice(state.device), "cudaSetDevice");
        bound = true;
    }
    return recording != NULL ? recording : state.stream;
}

size_t cuda_shared_max(void)
{
    return (size_t)state.shared_max;
}

void cuda_allow_shared(const void *kernel, const char *what)
{
    cudaFuncAttributes attributes;
    (void)cuda_stream(); /* the thread's device is ours from here on */
    cuda_check(cudaFuncGetAttributes(&attributes, kernel), what);
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    state.shared_max - (int)attributes.sharedSizeBytes),
               what);
}

/* ---- blocks ---- */

static size_t rounded(size_t bytes)
{
    size_t step = bytes < LARGE_BYTES ? SMALL_STEP : LARGE_STEP;
    return bytes == 0 ? step : (bytes + step - 1) / step * step;
}

/* Takes out the block that `memory` is, or, for NULL, one of `bytes` of the pool. */
static Block *take(Block **list, const void *memory, size_t bytes, MemoryPool pool)
{
    for (Block **at = list; *at != NULL; at = &(*at)->next) {
        Block *block = *at;
        if (memory != NULL ? block->memory != memory : block->bytes != bytes || block->pool != pool)
            continue;
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

static void destroy_block(Block *block)
{
    if (block->pool == POOL_FIXED) {
        cuda_check(cudaFree(block->memory), "cudaFree");
    } else {
        vmm_unback(block->memory, block->bytes);
        vmm_unreserve(block->memory, block->bytes);
    }
    if (block->kept != NULL) cuda_check(cudaFreeHost(block->kept), "cudaFreeHost");
    free(block);
}

/* Of the pools that can be given back, what may still be in use by kernels is waited for. */
static void release_unused(void)
{
    cuda_check(cudaStreamSynchronize(state.stream), "free");
    for (Block *block; (block = state.unused) != NULL;) {
        state.unused = block->next;
        destroy_block(block);
    }
    state.bytes_unused = 0;
}

/* why: what a pool was refused with; "": the runtime says no more. */
[[noreturn]] static void stop_out_of_memory(size_t bytes, const char *why)
{
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&available, &total);
    fprintf(
        stderr,
        "CUDA device %d (%s): out of memory: %zu bytes asked for; this process holds %zu, %zu of "
        "%zu are free on the device. Train or decode fewer tokens at once, or on more "
        "devices.%s%s\n",
        state.device, state.name, bytes, state.bytes_used, available, total,
        why[0] != '\0' ? " The driver says: " : "", why);
    fflush(stderr);
    abort();
}

static bool fill_block(Block *block, char *why, size_t size)
{
    why[0] = '\0';
    if (block->pool != POOL_FIXED) return vmm_back(block->memory, block->bytes, NULL, why, size);
    cudaError_t status = cudaMalloc(&block->memory, block->bytes);
    if (status != cudaErrorMemoryAllocation) cuda_check(status, "cudaMalloc");
    if (status != cudaSuccess) (void)cudaGetLastError();
    return status == cudaSuccess;
}

static Block *new_block(size_t bytes, MemoryPool pool)
{
    char why[256];
    Block *block = (Block *)calloc(1, sizeof *block);
    CHECK(block != NULL);
    block->bytes = bytes;
    block->pool = pool;
    if (pool != POOL_FIXED) block->memory = vmm_reserve(bytes);
    if (fill_block(block, why, sizeof why)) return block;
    release_unused();
    if (!fill_block(block, why, sizeof why)) stop_out_of_memory(bytes, why);
    return block;
}

static thread_local MemoryPool entered = POOL_FIXED;

/* Of undefined contents. */
static void *take_memory(size_t bytes, MemoryPool pool)
{
    size_t size = rounded(bytes);
    if (pool != POOL_FIXED && size >= vmm_step())
        size = (size + vmm_step() - 1) / vmm_step() * vmm_step();
    else
        pool = POOL_FIXED;
    do_now("alloc");
    (void)cuda_stream();
    pthread_mutex_lock(&lock);
    CHECKF(!state.is_released[pool], "an allocation in a pool that is given back");
    Block *block = take(&state.unused, NULL, size, pool);
    if (block != NULL)
        state.bytes_unused -= size;
    else
        block = new_block(size, pool);
    put(&state.used, block);
    state.bytes_used += size;
    pthread_mutex_unlock(&lock);
    return block->memory;
}

void *cuda_alloc(size_t bytes)
{
    void *memory = take_memory(bytes, entered);
    cuda_check(cudaMemsetAsync(memory, 0, rounded(bytes), state.stream), "alloc");
    return memory;
}

/* A block of a pool that is given back has nothing to be kept for. */
void cuda_free(void *memory)
{
    if (memory == NULL) return;
    do_now("free");
    pthread_mutex_lock(&lock);
    Block *block = take(&state.used, memory, 0, POOL_FIXED);
    CHECKF(block != NULL, "free of memory that alloc did not give");
    state.bytes_used -= block->bytes;
    if (state.is_released[block->pool]) {
        vmm_unreserve(block->memory, block->bytes);
        if (block->kept != NULL) cuda_check(cudaFreeHost(block->kept), "cudaFreeHost");
        free(block);
    } else {
        state.bytes_unused += block->bytes;
        put(&state.unused, block);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- pools that can be given back ---- */

static MemoryPool enter_pool(MemoryPool pool)
{
    const MemoryPool before = entered;
    if (pool != POOL_FIXED) state.has_pools = true;
    entered = pool;
    return before;
}

static bool has_pools(char *text, size_t size)
{
    return vmm_open(state.device, text, size);
}

/* To or from the host's memory, of every block of the pool. Pinned memory is had once, for good:
 * it takes as long to have as to fill. */
static void move_kept(MemoryPool pool, bool out)
{
    cudaStream_t stream = cuda_stream();
    for (Block *block = state.used; block != NULL; block = block->next) {
        if (block->pool != pool) continue;
        if (block->kept == NULL)
            cuda_check(cudaHostAlloc(&block->kept, block->bytes, cudaHostAllocDefault),
                       "cudaHostAlloc");
        cuda_check(out ? cudaMemcpyAsync(block->kept, block->memory, block->bytes,
                                         cudaMemcpyDeviceToHost, stream)
                       : cudaMemcpyAsync(block->memory, block->kept, block->bytes,
                                         cudaMemcpyHostToDevice, stream),
                   "pool");
    }
}

static int64_t release_pool(MemoryPool pool, bool keep)
{
    int64_t gained = 0;
    CHECK(pool != POOL_FIXED);
    (void)cuda_stream();
    pthread_mutex_lock(&lock);
    if (!state.is_released[pool]) {
        if (keep) move_kept(pool, true);
        gained += (int64_t)state.bytes_unused;
        release_unused(); /* which waits for the stream */
        for (Block *block = state.used; block != NULL; block = block->next) {
            if (block->pool != pool) continue;
            vmm_unback(block->memory, block->bytes);
            gained += (int64_t)block->bytes;
        }
        state.is_released[pool] = true;
        state.is_kept[pool] = keep;
    }
    pthread_mutex_unlock(&lock);
    return gained;
}

/* On failure what was had is given back. */
static bool back_pool(MemoryPool pool, char *text, size_t size)
{
    for (Block *block = state.used; block != NULL; block = block->next) {
        if (block->pool != pool || vmm_back(block->memory, block->bytes, NULL, text, size))
            continue;
        for (Block *had = state.used; had != block; had = had->next)
            if (had->pool == pool) vmm_unback(had->memory, had->bytes);
        return false;
    }
    return true;
}

static bool restore_pool(MemoryPool pool, char *text, size_t size)
{
    CHECK(pool != POOL_FIXED);
    (void)cuda_stream();
    pthread_mutex_lock(&lock);
    bool is_there = !state.is_released[pool];
    if (!is_there) {
        release_unused();
        is_there = back_pool(pool, text, size);
        if (is_there && state.is_kept[pool]) move_kept(pool, false);
        state.is_released[pool] = !is_there;
    }
    pthread_mutex_unlock(&lock);
    return is_there;
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
    do_now("a kernel that needs memory of its own");
    if (scratch.bytes >= bytes && scratch.memory != NULL) return scratch.memory;
    cuda_free(scratch.memory);
    scratch.memory = NULL;
    scratch.memory = take_memory(bytes + bytes / 4, state.has_pools ? POOL_SCRATCH : POOL_FIXED);
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
        cuda_check(cudaEventRecord(stage->done, state.stream), "upload");
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
    do_now("upload");
    (void)cuda_stream();
    pthread_mutex_lock(&upload_lock);
    for (size_t done = 0, piece = 0; done < bytes; done += piece) {
        char *place = upload_place(bytes - done, &piece);
        memcpy(place, (const char *)host_from + done, piece);
        cuda_check(
            cudaMemcpyAsync((char *)to + done, place, piece, cudaMemcpyHostToDevice, state.stream),
            "upload");
    }
    pthread_mutex_unlock(&upload_lock);
}

/* One piece is on its way while the one before is read. */
void cuda_download(void *host_to, const void *from, size_t bytes)
{
    do_now("download");
    (void)cuda_stream();
    pthread_mutex_lock(&download_lock);
    for (size_t begin = 0; begin < bytes + STAGE_BYTES; begin += STAGE_BYTES) {
        int turn = (int)(begin / STAGE_BYTES % 2);
        if (begin < bytes) {
            size_t piece = bytes - begin < STAGE_BYTES ? bytes - begin : STAGE_BYTES;
            Stage *stage = &state.download[turn];
            cuda_check(cudaMemcpyAsync(stage->memory, (const char *)from + begin, piece,
                                       cudaMemcpyDeviceToHost, state.stream),
                       "download");
            cuda_check(cudaEventRecord(stage->done, state.stream), "download");
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
    do_now("synchronize");
    (void)cuda_stream();
    cuda_check(cudaStreamSynchronize(state.stream), "synchronize");
}

void cuda_fill_zero(Tensor y)
{
    if (tensor_bytes(&y) == 0) return;
    cuda_check(cudaMemsetAsync(y.data, 0, tensor_bytes(&y), cuda_stream()), "fill_zero");
}

/* ---- memory that processes share ---- */

/* What share or open gave. */
typedef struct Shared {
    struct Shared *next;
    void *memory;
    size_t bytes;
} Shared;

static Shared *shared;

static bool can_share(char *text, size_t size)
{
    return vmm_open(state.device, text, size) && vmm_shares(text, size);
}

/* `fd` of another process; -1: memory of our own, and its descriptor in *ret_fd. */
static void *add_shared(size_t bytes, int fd, int *ret_fd, char *text, size_t size)
{
    (void)cuda_stream();
    if (!can_share(text, size)) return NULL;
    Shared *one = (Shared *)calloc(1, sizeof *one);
    CHECK(one != NULL);
    one->bytes = (bytes + vmm_step() - 1) / vmm_step() * vmm_step();
    one->memory = vmm_reserve(one->bytes);
    if (fd >= 0 ? !vmm_back_with(one->memory, one->bytes, fd, text, size)
                : !vmm_back(one->memory, one->bytes, ret_fd, text, size)) {
        vmm_unreserve(one->memory, one->bytes);
        free(one);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    one->next = shared;
    shared = one;
    pthread_mutex_unlock(&lock);
    return one->memory;
}

static void *share_memory(size_t bytes, int *ret_fd, char *text, size_t size)
{
    return add_shared(bytes, -1, ret_fd, text, size);
}

static void *open_shared(int fd, size_t bytes, char *text, size_t size)
{
    return add_shared(bytes, fd, NULL, text, size);
}

static void close_shared(void *memory)
{
    if (memory == NULL) return;
    cuda_synchronize(); /* nothing reads it any more */
    pthread_mutex_lock(&lock);
    Shared **at = &shared;
    while (*at != NULL && (*at)->memory != memory)
        at = &(*at)->next;
    Shared *one = *at;
    CHECKF(one != NULL, "close of memory that is not shared");
    *at = one->next;
    pthread_mutex_unlock(&lock);
    vmm_unback(one->memory, one->bytes);
    vmm_unreserve(one->memory, one->bytes);
    free(one);
}

static void identify(unsigned char ret[DEVICE_ID_BYTES])
{
    char text[1];
    memset(ret, 0, DEVICE_ID_BYTES);
    if (vmm_open(state.device, text, sizeof text)) vmm_identify(ret);
}

static const DeviceMemory *device_memory(void)
{
    static const DeviceMemory memory = {sizeof(DeviceMemory), identify,     can_share, share_memory,
                                        open_shared,          close_shared, has_pools, enter_pool,
                                        release_pool,         restore_pool};
    return &memory;
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
    memcpy(state.name, found.name, sizeof state.name);
    cuda_check(
        cudaDeviceGetAttribute(&state.shared_max, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
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
                                        describe_device,  open_device,         cuda_streams,
                                        device_memory};
    return &library;
}
