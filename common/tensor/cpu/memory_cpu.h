/* Memory of the CPU backend: the KernelTable's alloc and free, and scratch buffers that grow to the
 * largest size asked for and are then kept, so that a steady state allocates nothing. Called by
 * compute threads, outside parallel sections; each has scratch buffers of its own. */
#ifndef TROUPE_TENSOR_CPU_MEMORY_CPU_H
#define TROUPE_TENSOR_CPU_MEMORY_CPU_H

#include <stddef.h>

#include "base/error.h"

void *memory_cpu_alloc(size_t bytes); /* zeroed, 64-byte aligned; large blocks on huge pages */
void memory_cpu_free(void *memory);   /* accepts NULL */
void memory_cpu_copy(void *to, const void *from, size_t bytes);
void memory_cpu_synchronize(void); /* a kernel is over when its call returns: nothing to wait for */

/* One buffer per use: a kernel never holds two of one use. */
typedef enum ScratchUse {
    SCRATCH_ONEDNN,    /* what oneDNN's primitives ask for */
    SCRATCH_OPERAND,   /* an operand packed for one product */
    SCRATCH_TURNED,    /* another one, transposed */
    SCRATCH_RESULT,    /* per-thread tiles of gemm.c */
    SCRATCH_REDUCE,    /* partial sums over rows */
    SCRATCH_ATTENTION, /* per-thread tiles */
    SCRATCH_COUNT,
} ScratchUse;

/* At least `bytes`, 64-byte aligned, contents undefined; valid until the next call for this use. */
void *scratch_take(ScratchUse use, size_t bytes);

/* `bytes` rounded up to whole cache lines, plus one, so that neighbours do not share a line. */
static inline size_t scratch_round(size_t bytes)
{
    return (bytes + 127) & ~(size_t)63;
}

#endif
