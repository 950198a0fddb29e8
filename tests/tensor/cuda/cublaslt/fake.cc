/* Matrices by columns, D = alpha op(A) op(B) + beta C, as cuBLASLt's documentation has it. Its
 * heuristics like best what gemm_lt.cu must refuse. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

#include "cublasLt.h"
#include "tensor/cuda/device.cuh"

#define WORKSPACE ((size_t)1 << 20)

struct FakeLayout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t ld;
};

struct FakeMatmul {
    cublasOperation_t turn_a, turn_b;
};

struct FakePreference {
    uint64_t workspace;
    uint32_t reductions, alignment[4];
};

extern "C" {
__attribute__((visibility("default"))) int fake_lt_calls[FAKE_COUNT];
}

#pragma GCC visibility push(default)

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t)
{
    return "CUBLAS_STATUS";
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    *layout = new FakeLayout{type, rows, columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t which,
                                                const void *value, size_t size)
{
    void *member = which == CUBLASLT_MATRIX_LAYOUT_ROWS   ? (void *)&layout->rows
                   : which == CUBLASLT_MATRIX_LAYOUT_COLS ? (void *)&layout->columns
                                                          : (void *)&layout->ld;
    if (size != 8) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(member, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmul, cublasComputeType_t,
                                        cudaDataType_t)
{
    *matmul = new FakeMatmul{CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmul,
                                              cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t size)
{
    if (size != 4) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(which == CUBLASLT_MATMUL_DESC_TRANSA ? &matmul->turn_a : &matmul->turn_b, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new FakePreference{0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void *value, size_t size)
{
    bool is_space = which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    void *member =
        is_space ? (void *)&preference->workspace
        : which == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
            ? (void *)&preference->reductions
            : (void *)&preference->alignment[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
    if (size != (is_space ? 8u : 4u)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(member, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t which,
                                                    void *value, size_t, size_t *written)
{
    bool split = algo->data[0] == FAKE_SPLIT;
    int32_t found = which == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? (split ? 2 : 1)
                    : split ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                            : CUBLASLT_REDUCTION_SCHEME_NONE;
    memcpy(value, &found, *written = sizeof found);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- shapes ---- */

static uint64_t height(const FakeLayout *layout, cublasOperation_t turn)
{
    return turn == CUBLAS_OP_N ? layout->rows : layout->columns;
}

static uint64_t width(const FakeLayout *layout, cublasOperation_t turn)
{
    return turn == CUBLAS_OP_N ? layout->columns : layout->rows;
}

static bool fits(const FakeMatmul *matmul, const FakeLayout *a, const FakeLayout *b,
                 const FakeLayout *d)
{
    const FakeLayout *all[] = {a, b, d};
    for (const FakeLayout *layout : all)
        if ((uint64_t)layout->ld < layout->rows) return false;
    return height(a, matmul->turn_a) == d->rows &&
           width(a, matmul->turn_a) == height(b, matmul->turn_b) &&
           width(b, matmul->turn_b) == d->columns;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t matmul,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (!fits(matmul, a, b, d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (algo->data[0] == FAKE_FEW && d->columns > 256) return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = algo->data[0] == FAKE_SPLIT ? WORKSPACE : 0;
    result->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *count)
{
    /* With a workspace the split one first; it is offered without permission too. */
    const FakeAlgo liked[] = {FAKE_SPLIT, FAKE_BACKWARD, FAKE_FEW, FAKE_FORWARD};
    *count = 0;
    if (!fits(matmul, a, b, d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (width(a, matmul->turn_a) < 4) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (FakeAlgo algo : liked) {
        if (algo == FAKE_BACKWARD && (d->columns > 256 || preference->workspace > 0)) continue;
        cublasLtMatmulHeuristicResult_t result = {};
        result.algo.data[0] = algo;
        if (cublasLtMatmulAlgoCheck(handle, matmul, a, b, c, d, &result.algo, &result) ==
                CUBLAS_STATUS_SUCCESS &&
            *count < wanted)
            results[(*count)++] = result;
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- products ---- */

static float element(const void *data, const FakeLayout *layout, uint64_t row, uint64_t column)
{
    uint64_t at = row + column * (uint64_t)layout->ld;
    return layout->type == CUDA_R_32F ? ((const float *)data)[at]
                                      : to_float(((const Bf16 *)data)[at]);
}

static float product(const FakeMatmul *matmul, const void *a, const FakeLayout *a_layout,
                     const void *b, const FakeLayout *b_layout, uint64_t row, uint64_t column,
                     uint64_t r)
{
    bool turn_a = matmul->turn_a == CUBLAS_OP_T, turn_b = matmul->turn_b == CUBLAS_OP_T;
    return element(a, a_layout, turn_a ? r : row, turn_a ? row : r) *
           element(b, b_layout, turn_b ? column : r, turn_b ? r : column);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t matmul, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t)
{
    uint64_t depth = width(a_layout, matmul->turn_a), half = depth / 2;
    cublasLtMatmulHeuristicResult_t unused;
    if (cublasLtMatmulAlgoCheck(NULL, matmul, a_layout, b_layout, c_layout, d_layout, algo,
                                &unused) != CUBLAS_STATUS_SUCCESS)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (depth == FAKE_REFUSED) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (algo->data[0] == FAKE_SPLIT && (workspace == NULL || workspace_bytes < WORKSPACE))
        return CUBLAS_STATUS_INVALID_VALUE;
    fake_lt_calls[algo->data[0]]++;
    for (uint64_t column = 0; column < d_layout->columns; column++)
        for (uint64_t row = 0; row < d_layout->rows; row++) {
            float sum = 0.0f, first = 0.0f;
            for (uint64_t i = 0; i < depth; i++) {
                uint64_t r = algo->data[0] == FAKE_BACKWARD ? depth - 1 - i : i;
                if (algo->data[0] == FAKE_SPLIT && i == half) {
                    first = sum;
                    sum = 0.0f;
                }
                sum += product(matmul, a, a_layout, b, b_layout, row, column, r);
            }
            sum = *(const float *)alpha * (first + sum);
            if (*(const float *)beta != 0.0f)
                sum += *(const float *)beta * element(c, c_layout, row, column);
            uint64_t at = row + column * (uint64_t)d_layout->ld;
            if (d_layout->type == CUDA_R_32F)
                ((float *)d)[at] = sum;
            else
                ((Bf16 *)d)[at] = from_float<Bf16>(sum);
        }
    return CUBLAS_STATUS_SUCCESS;
}
#pragma GCC visibility pop
