#define PINNED_C
#include "pinned.h"

#include <pthread.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

#include "tensor/cuda/gemm_choice.h"
#include "tensor/cuda/library.h"

#define ARENA_BYTES  ((size_t)2 << 30)
#define STACK_BYTES  ((size_t)16 << 20)
#define NUM_SIZES    48
#define HEADER_BYTES 64

/* Blocks are powers of two; what is freed is the next of its size. */
typedef struct Header {
    struct Header *next;
    int size;
} Header;

static char *arena;
static size_t used;
static Header *unused[NUM_SIZES];
static KernelTable table;
static const KernelTable *device;

void *pinned_aligned_alloc(size_t alignment, size_t bytes)
{
    int size = 0;
    CHECK(alignment <= HEADER_BYTES && arena != NULL);
    while (((size_t)1 << size) < bytes + HEADER_BYTES)
        size++;
    Header *header = unused[size];
    if (header != NULL) {
        unused[size] = header->next;
    } else {
        CHECKF(used + ((size_t)1 << size) <= ARENA_BYTES, "the tests' memory is too small");
        header = (Header *)(arena + used);
        used += ((size_t)1 << size) < HEADER_BYTES ? HEADER_BYTES : (size_t)1 << size;
        header->size = size;
    }
    return (char *)header + HEADER_BYTES;
}

void *pinned_malloc(size_t bytes)
{
    return pinned_aligned_alloc(HEADER_BYTES, bytes);
}

void *pinned_calloc(size_t count, size_t bytes)
{
    void *memory = pinned_malloc(count * bytes);
    memset(memory, 0, count * bytes);
    return memory;
}

void pinned_free(void *memory)
{
    if (memory == NULL) return;
    Header *header = (Header *)((char *)memory - HEADER_BYTES);
    header->next = unused[header->size];
    unused[header->size] = header;
}

void *pinned_realloc(void *memory, size_t bytes)
{
    void *larger = pinned_malloc(bytes);
    if (memory != NULL) {
        size_t old =
            ((size_t)1 << ((Header *)((char *)memory - HEADER_BYTES))->size) - HEADER_BYTES;
        memcpy(larger, memory, old < bytes ? old : bytes);
    }
    pinned_free(memory);
    return larger;
}

/* What is no kernel does not block by itself. */
static void fill_zero(Tensor y)
{
    device->fill_zero(y);
    device->synchronize();
}

static void scatter_rows(Tensor y, Tensor x, const int32_t *row)
{
    device->scatter_rows(y, x, row);
    device->synchronize();
}

/* A library's launches are its own: what it waits for is not ours to say. */
static void matmul(Tensor y, Tensor x, const Weight *w)
{
    device->matmul(y, x, w);
    device->synchronize();
}

static void matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    device->matmul_dgrad(dx, dy, w);
    device->synchronize();
}

static void matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    device->matmul_wgrad_accumulate(dw, dy, x);
    device->synchronize();
}

static void *alloc(size_t bytes)
{
    return pinned_calloc(1, bytes);
}

const KernelTable *pinned_kernels(void)
{
    return &table;
}

static void *run_tests(void *ret)
{
    *(int *)ret = pinned_main();
    return NULL;
}

int main(int argc, char **argv)
{
    char text[512];
    int result = 1;
    device = troupe_cuda_library()->open(0, text, sizeof text);
    if (device == NULL) {
        fprintf(stderr, "the GPU cannot be opened: %s\n", text);
        return 1;
    }
    if (argc > 1 && strcmp(argv[1], "tile") == 0) gemm_choose(GEMM_TILE);
    table = *device;
    table.alloc = alloc;
    table.free = pinned_free;
    table.fill_zero = fill_zero;
    table.scatter_rows = scatter_rows;
    table.matmul = matmul;
    table.matmul_dgrad = matmul_dgrad;
    table.matmul_wgrad_accumulate = matmul_wgrad_accumulate;
    CHECK(cudaHostAlloc((void **)&arena, ARENA_BYTES, cudaHostAllocDefault) == cudaSuccess);
    used = STACK_BYTES;
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, arena, STACK_BYTES) == 0);
    CHECK(pthread_create(&thread, &attributes, run_tests, &result) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return result;
}
