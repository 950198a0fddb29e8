/* Who multiplies matrices: for tests and measurements, which compare; everybody else takes the
 * default. */
#ifndef TROUPE_TENSOR_CUDA_GEMM_CHOICE_H
#define TROUPE_TENSOR_CUDA_GEMM_CHOICE_H

typedef enum {
    GEMM_LIBRARY, /* cuBLASLt by verified algorithms, gemm_tile where it has none: the default */
    GEMM_LIBRARY_FIXED, /* the same with one algorithm for every number of rows */
    GEMM_TILE,          /* gemm_tile alone */
    /* The library's best for each number of rows, with sums split as it likes: what a row becomes
     * depends on the others. To measure what it costs to do without. */
    GEMM_LIBRARY_FREE,
} GemmChoice;

#ifdef __cplusplus
extern "C" {
#endif
/* Between whole runs alone: the choices' bits differ. */
void gemm_choose(GemmChoice choice);
#ifdef __cplusplus
}
#endif

#endif
