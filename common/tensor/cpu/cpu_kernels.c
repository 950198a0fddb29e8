/* Chooses the copy of the loops for this machine (isa.h). */
#include "tensor/cpu/backend.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/parallel.h"
#include "tensor/digest.h"

/* One set's copy of the loops. */
typedef struct CpuLoops {
    const KernelTable *table;
    const MatrixLoops *matrix_loops;
    void (*vector_exp)(float *y, const float *x, int64_t n);
    uint64_t (*digest_copy)(void *to, const void *from, size_t bytes);
    uint64_t (*copy_digest)(void *to, const void *from, size_t bytes);
} CpuLoops;

#define DECLARE_LOOPS(isa)                                                                         \
    extern const KernelTable cpu_table_##isa;                                                      \
    extern const MatrixLoops cpu_matrix_loops_##isa;                                               \
    void cpu_vector_exp_##isa(float *y, const float *x, int64_t n);                                \
    uint64_t cpu_digest_copy_##isa(void *to, const void *from, size_t bytes);                      \
    uint64_t cpu_copy_digest_##isa(void *to, const void *from, size_t bytes)

#define LOOPS(isa)                                                                                 \
    {                                                                                              \
        &cpu_table_##isa, &cpu_matrix_loops_##isa, cpu_vector_exp_##isa, cpu_digest_copy_##isa,    \
            cpu_copy_digest_##isa                                                                  \
    }

DECLARE_LOOPS(base);
uint64_t cpu_digest_join_base(const uint64_t *digest, size_t bytes);
#ifdef CPU_HAS_AVX2
DECLARE_LOOPS(avx2);
#endif
#ifdef CPU_HAS_AVX512
DECLARE_LOOPS(avx512);
DECLARE_LOOPS(avx512_bf16);
#endif

static const CpuLoops COPIES[CPU_ISA_COUNT] = {
    [CPU_ISA_BASE] = LOOPS(base),
#ifdef CPU_HAS_AVX2
    [CPU_ISA_AVX2] = LOOPS(avx2),
#endif
#ifdef CPU_HAS_AVX512
    [CPU_ISA_AVX512] = LOOPS(avx512),
    [CPU_ISA_AVX512_BF16] = LOOPS(avx512_bf16),
#endif
};

CpuIsa cpu_isa_best(void)
{
#ifdef CPU_HAS_AVX512
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return CPU_ISA_AVX512_BF16;
    if (avx512) return CPU_ISA_AVX512;
#endif
#ifdef CPU_HAS_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        return CPU_ISA_AVX2;
#endif
    return CPU_ISA_BASE;
}

const KernelTable *cpu_kernels_of(CpuIsa isa, int num_threads)
{
    CHECK((unsigned)isa < CPU_ISA_COUNT && isa <= cpu_isa_best());
    CHECK(COPIES[isa].table != NULL);
    parallel_set_threads(num_threads);
    onednn_use_loops(COPIES[isa].matrix_loops);
    onednn_limit_isa(isa);
    return COPIES[isa].table;
}

const KernelTable *cpu_kernels(int num_threads)
{
    return cpu_kernels_of(cpu_isa_best(), num_threads);
}

const char *cpu_kernels_note(void)
{
    if (onednn_is_fast(DTYPE_BF16)) return NULL;
    return "this CPU has no products of bf16 (AVX512-BF16 or AMX): bf16 is computed in f32, "
           "correct but "
           "no faster than f32 and with more copying; f32 is the better choice here";
}

void cpu_exp_of(CpuIsa isa, float *y, const float *x, int64_t n)
{
    CHECK((unsigned)isa < CPU_ISA_COUNT && isa <= cpu_isa_best());
    COPIES[isa].vector_exp(y, x, n);
}

uint64_t cpu_digest_copy_of(CpuIsa isa, void *to, const void *from, size_t bytes)
{
    CHECK((unsigned)isa < CPU_ISA_COUNT && isa <= cpu_isa_best());
    return COPIES[isa].digest_copy(to, from, bytes);
}

uint64_t cpu_copy_digest_of(CpuIsa isa, void *to, const void *from, size_t bytes)
{
    CHECK((unsigned)isa < CPU_ISA_COUNT && isa <= cpu_isa_best());
    return COPIES[isa].copy_digest(to, from, bytes);
}

uint64_t digest_memory(const void *from, size_t bytes)
{
    return COPIES[cpu_isa_best()].digest_copy(NULL, from, bytes);
}

uint64_t digest_copy(void *to, const void *from, size_t bytes)
{
    CHECK(to != NULL);
    return COPIES[cpu_isa_best()].digest_copy(to, from, bytes);
}

uint64_t copy_digest(void *to, const void *from, size_t bytes)
{
    return COPIES[cpu_isa_best()].copy_digest(to, from, bytes);
}

uint64_t digest_join(const uint64_t *pieces, size_t bytes)
{
    return cpu_digest_join_base(pieces, bytes);
}
