/* A device whose memory the host cannot touch, on any machine: the CPU's kernels over memory that
 * may be read and written inside of a kernel call alone, and that refuses pointers to anything
 * else. Host code that reads a gradient where it lies, or hands a kernel its own array, dies in a
 * test here instead of on a GPU. Any thread; their kernels run one after the other, and what one
 * has uploaded is not there for the others before it has waited for it, as kernels.h warns. */
#ifndef TROUPE_TESTS_FENCED_KERNELS_H
#define TROUPE_TESTS_FENCED_KERNELS_H

#include "tensor/kernels.h"

/* Blocks of at most `bytes` in all, which are not used again when freed. */
const KernelTable *fenced_kernels(const KernelTable *cpu, size_t bytes);

/* For what stands in the place of other parts of such a device, as those that move its memory
 * between devices: between the two its memory can be touched, by one thread at a time, and what the
 * calling thread has uploaded is there. */
void fenced_kernels_enter(void);
void fenced_kernels_leave(void);
/* Goes in and out, where that thread has uploaded something. */
void fenced_kernels_arrive(void);

#endif
