/* What the CPU backend shares with its tests and benchmark: choosing an instruction set by hand. */
#ifndef TROUPE_TENSOR_CPU_BACKEND_H
#define TROUPE_TENSOR_CPU_BACKEND_H

#include "tensor/cpu/isa.h"
#include "tensor/kernels.h"

/* The best set this machine has. */
CpuIsa cpu_isa_best(void);

/* As cpu_kernels, with the loops of a given set (which the machine must have). oneDNN is held to a
 * set of the same strength if it has not run yet, so that a test process can stand for an older
 * machine. */
const KernelTable *cpu_kernels_of(CpuIsa isa, int num_threads);

/* exp with the loops of a given set. */
void cpu_exp_of(CpuIsa isa, float *y, const float *x, int64_t n);

/* tensor/digest.h with the loops of a given set; `to` NULL: no copy. */
uint64_t cpu_digest_copy_of(CpuIsa isa, void *to, const void *from, size_t bytes);
uint64_t cpu_copy_digest_of(CpuIsa isa, void *to, const void *from, size_t bytes);

#endif
