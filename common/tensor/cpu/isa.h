/* The sources of the CPU backend's loops are compiled once per instruction set, with
 * -DCPU_ISA=<name> and the matching -m flags; ISA_NAME gives each copy of a function its own name.
 * cpu_kernels.c picks the table of the best set the machine has. One machine therefore always runs
 * one copy: results are deterministic there, while copies may differ from each other in the last
 * bit (fused or unfused multiply-add). */
#ifndef TROUPE_TENSOR_CPU_ISA_H
#define TROUPE_TENSOR_CPU_ISA_H

typedef enum CpuIsa {
    CPU_ISA_BASE,        /* whatever the compiler's default target has: any architecture */
    CPU_ISA_AVX2,        /* x86-64-v3: AVX2, FMA */
    CPU_ISA_AVX512,      /* x86-64-v4: AVX-512 F, BW, CD, DQ, VL */
    CPU_ISA_AVX512_BF16, /* the same with dot products of bf16 pairs */
    CPU_ISA_COUNT,
} CpuIsa;

#define ISA_JOIN_(name, isa) name##_##isa
#define ISA_JOIN(name, isa)  ISA_JOIN_(name, isa)
#define ISA_NAME(name)       ISA_JOIN(name, CPU_ISA)

#endif
