/* The tests of the kernels hand them memory of the host. Included before all else in their sources,
 * this gives them memory that both sides reach at the same address: malloc's is the arena's, and
 * main runs on a stack in it. The device reads and writes it over the bus, in order with the host,
 * since run.sh sets CUDA_LAUNCH_BLOCKING. */
#ifndef TROUPE_TESTS_GPU_PINNED_H
#define TROUPE_TESTS_GPU_PINNED_H

#include <stdlib.h>
#include <string.h>

struct KernelTable;
const struct KernelTable *pinned_kernels(void);
int pinned_main(void);

void *pinned_malloc(size_t bytes);
void *pinned_calloc(size_t count, size_t bytes);
void *pinned_realloc(void *memory, size_t bytes);
void *pinned_aligned_alloc(size_t alignment, size_t bytes);
void pinned_free(void *memory);

#ifndef PINNED_C
#define malloc        pinned_malloc
#define calloc        pinned_calloc
#define realloc       pinned_realloc
#define aligned_alloc pinned_aligned_alloc
#define free          pinned_free
#define main          pinned_main
#endif

#endif
