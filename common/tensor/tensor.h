/* Tensor: a view of row-major memory with a type and up to four dimensions. Plain data, passed by
 * value or const pointer; it owns nothing. Who allocated the memory (a Device, an arena, a file
 * mapping) frees it. */
#ifndef TROUPE_TENSOR_TENSOR_H
#define TROUPE_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_COUNT,
} DType;

#define TENSOR_RANK_MAX 4

typedef struct Tensor {
    void *data;
    DType dtype;
    int rank;
    int64_t shape[TENSOR_RANK_MAX]; /* the last dimension is contiguous */
} Tensor;

size_t dtype_size(DType dtype);
const char *dtype_name(DType dtype);             /* "f32", "bf16", ...: as job.yaml spells it */
const char *dtype_safetensors_name(DType dtype); /* "F32", "BF16", ... */
Status dtype_from_safetensors_name(const char *name, DType *ret, Error *err);

int64_t tensor_count(const Tensor *tensor); /* elements; CHECKs against overflow */
size_t tensor_bytes(const Tensor *tensor);
Tensor tensor_1d(void *data, DType dtype, int64_t n0);
Tensor tensor_2d(void *data, DType dtype, int64_t n0, int64_t n1);
bool tensor_same_shape(const Tensor *a, const Tensor *b);
/* "[3, 4]" into `text`; returns it. For messages. */
char *tensor_shape_text(const Tensor *tensor, char text[96]);

/* bfloat16: the upper half of a float32, rounded to nearest even; a NaN stays a quiet NaN. */
static inline float bf16_to_f32(uint16_t value)
{
    union {
        uint32_t bits;
        float real;
    } u = {.bits = (uint32_t)value << 16};
    return u.real;
}

static inline uint16_t bf16_from_f32(float value)
{
    union {
        float real;
        uint32_t bits;
    } u = {.real = value};
    if ((u.bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u.bits >> 16 | 0x40);
    return (uint16_t)((u.bits + 0x7FFF + (u.bits >> 16 & 1)) >> 16);
}

#endif
