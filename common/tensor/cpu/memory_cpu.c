#include "tensor/cpu/memory_cpu.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/memory.h"

#define HUGE_PAGE ((size_t)2 << 20)
/* Blocks from here on are of huge pages. A smaller one is often used in part (buffers have room for
 * the longest batch), and a huge page is cleared whole: in short runs of small models that was a
 * quarter of a train worker's time. */
#define HUGE_FROM (16 * HUGE_PAGE)
#ifdef TROUPE_SANITIZED
#define MAP_FROM SIZE_MAX /* the heap, whose ends the sanitizer watches */
#else
#define MAP_FROM HUGE_PAGE
#endif

/* Stands in the 64 bytes before every block. */
typedef struct BlockHeader {
    void *base;
    size_t mapped; /* 0: from the heap */
} BlockHeader;

_Static_assert(sizeof(BlockHeader) <= 64, "the header fits before an aligned block");

/* A mapping is zero already and costs nothing until it is touched. */
static char *map_block(size_t bytes, BlockHeader *header)
{
    header->mapped = bytes + 2 * HUGE_PAGE;
    header->base =
        mmap(NULL, header->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (header->base == MAP_FAILED) memory_refused(bytes);
    const uintptr_t start = (uintptr_t)header->base + 64;
    char *block = (char *)((start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    if (bytes >= HUGE_FROM) (void)madvise(block, bytes, MADV_HUGEPAGE); /* only for speed */
    return block;
}

void *memory_cpu_alloc(size_t bytes)
{
    BlockHeader header = {0};
    char *block = NULL;
    if (bytes >= SIZE_MAX / 2) memory_refused(bytes);
    if (bytes == 0) bytes = 1; /* a pointer past the end of its block looks like a leak */
    if (bytes >= MAP_FROM) {
        block = map_block(bytes, &header);
    } else {
        header.base = calloc(1, bytes + 64 + 63); /* zeros that need not be written, where large */
        if (header.base == NULL) memory_refused(bytes);
        block = (char *)(((uintptr_t)header.base + 64 + 63) & ~(uintptr_t)63);
    }
    memcpy(block - 64, &header, sizeof header);
    return block;
}

void memory_cpu_free(void *memory)
{
    if (memory == NULL) return;
    BlockHeader header;
    memcpy(&header, (char *)memory - 64, sizeof header);
    if (header.mapped != 0)
        CHECK(munmap(header.base, header.mapped) == 0);
    else
        free(header.base);
}

void memory_cpu_copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0) memcpy(to, from, bytes);
}

void memory_cpu_synchronize(void)
{
}

typedef struct Scratch {
    void *memory;
    size_t bytes;
} Scratch;

/* Of the calling thread; freed when it ends. */
static _Thread_local Scratch *scratch;
static pthread_key_t end_of_thread;

static void scratch_free(void *argument)
{
    Scratch *mine = argument;
    for (int i = 0; i < SCRATCH_COUNT; i++)
        memory_cpu_free(mine[i].memory);
    free(mine);
}

static void make_key(void)
{
    CHECK(pthread_key_create(&end_of_thread, scratch_free) == 0);
}

static void scratch_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, make_key) == 0);
    scratch = mem_calloc(SCRATCH_COUNT, sizeof *scratch);
    CHECK(pthread_setspecific(end_of_thread, scratch) == 0);
}

void *scratch_take(ScratchUse use, size_t bytes)
{
    CHECK((unsigned)use < SCRATCH_COUNT);
    if (scratch == NULL) scratch_begin();
    if (bytes > scratch[use].bytes || scratch[use].memory == NULL) {
        memory_cpu_free(scratch[use].memory);
        scratch[use].bytes = bytes + bytes / 4; /* batches grow a little from step to step */
        scratch[use].memory = memory_cpu_alloc(scratch[use].bytes);
    }
    return scratch[use].memory;
}
