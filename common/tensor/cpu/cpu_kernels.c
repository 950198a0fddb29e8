/* Chooses the copy of the loops for this machine (isa.h). */
#include "tensor/cpu/backend.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/parallel.h"
#include "tensor/digest.h"

extern const KernelTable cpu_table_base;
extern const MatrixLoops cpu_matrix_loops_base;
void cpu_vector_exp_base(float *y, const float *x, int64_t n);
uint64_t cpu_digest_copy_base(void *to, const void *from, size_t bytes);
uint64_t cpu_copy_digest_base(void *to, const void *from, size_t bytes);
uint64_t cpu_digest_join_base(const uint64_t *digest, size_t bytes);
#ifdef CPU_ISA_X86
extern const KernelTable cpu_table_avx2, cpu_table_avx512, cpu_table_avx512_bf16;
extern const MatrixLoops cpu_matrix_loops_avx2, cpu_matrix_loops_avx512,
    cpu_matrix_loops_avx512_bf16;
void cpu_vector_exp_avx2(float *y, const float *x, int64_t n);
void cpu_vector_exp_avx512(float *y, const float *x, int64_t n);
void cpu_vector_exp_avx512_bf16(float *y, const float *x, int64_t n);
uint64_t cpu_digest_copy_avx2(void *to, const void *from, size_t bytes);
uint64_t cpu_copy_digest_avx2(void *to, const void *from, size_t bytes);
uint64_t cpu_digest_copy_avx512(void *to, const void *from, size_t bytes);
uint64_t cpu_copy_digest_avx512(void *to, const void *from, size_t bytes);
uint64_t cpu_digest_copy_avx512_bf16(void *to, const void *from, size_t bytes);
uint64_t cpu_copy_digest_avx512_bf16(void *to, const void *from, size_t bytes);
#endif

static const struct {
    const KernelTable *table;
    const MatrixLoops *matrix_loops;
    void (*vector_exp)(float *y, const float *x, int64_t n);
    uint64_t (*digest_copy)(void *to, const void *from, size_t bytes);
    uint64_t (*copy_digest)(void *to, const void *from, size_t bytes);
} COPIES[CPU_ISA_COUNT] = {
    [CPU_ISA_BASE] = {&cpu_table_base, &cpu_matrix_loops_base, cpu_vector_exp_base,
                      cpu_digest_copy_base, cpu_copy_digest_base},
#ifdef CPU_ISA_X86
    [CPU_ISA_AVX2] = {&cpu_table_avx2, &cpu_matrix_loops_avx2, cpu_vector_exp_avx2,
                      cpu_digest_copy_avx2, cpu_copy_digest_avx2},
    [CPU_ISA_AVX512] = {&cpu_table_avx512, &cpu_matrix_loops_avx512, cpu_vector_exp_avx512,
                        cpu_digest_copy_avx512, cpu_copy_digest_avx512},
    [CPU_ISA_AVX512_BF16] = {&cpu_table_avx512_bf16, &cpu_matrix_loops_avx512_bf16,
                             cpu_vector_exp_avx512_bf16, cpu_digest_copy_avx512_bf16,
                             cpu_copy_digest_avx512_bf16},
#endif
};

CpuIsa cpu_isa_best(void)
{
#ifdef CPU_ISA_X86
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return CPU_ISA_AVX512_BF16;
    if (avx512) return CPU_ISA_AVX512;
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
