/* The worker threads of the CPU backend: OpenMP's, which oneDNN uses too, so that there is one
 * pool. Only parallel.c knows OpenMP. With one thread, and for small work, the body is called
 * directly. What a body computes may depend on neither the split nor the thread: the pieces only
 * say who does what. */
#ifndef TROUPE_TENSOR_CPU_PARALLEL_H
#define TROUPE_TENSOR_CPU_PARALLEL_H

#include <stdint.h>

/* Does [first, last). `thread` < parallel_threads() is the caller's own index, for its scratch
 * memory. */
typedef void (*ParallelBody)(const void *context, int64_t first, int64_t last, int thread);

void parallel_set_threads(int num_threads); /* >= 1 */
int parallel_threads(void);

/* OpenMP keeps the number of threads per calling thread: to be called before oneDNN is. Cheap. */
void parallel_bind_caller(void);

/* [0, count) in at most one contiguous piece per thread, none shorter than `grain`. */
void parallel_range(int64_t count, int64_t grain, ParallelBody body, const void *context);

/* One call per unit, handed out in order to whichever thread is free: for units of unequal size. */
void parallel_units(int64_t count, ParallelBody body, const void *context);

#endif
