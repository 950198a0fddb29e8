#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    size_t size;
    const char *name;
    const char *safetensors_name;
} DTYPES[DTYPE_COUNT] = {
    [DTYPE_F32] = {4, "f32", "F32"}, [DTYPE_BF16] = {2, "bf16", "BF16"},
    [DTYPE_F16] = {2, "f16", "F16"}, [DTYPE_I32] = {4, "i32", "I32"},
    [DTYPE_I64] = {8, "i64", "I64"}, [DTYPE_U8] = {1, "u8", "U8"},
};

size_t dtype_size(DType dtype)
{
    CHECK((unsigned)dtype < DTYPE_COUNT);
    return DTYPES[dtype].size;
}

const char *dtype_name(DType dtype)
{
    CHECK((unsigned)dtype < DTYPE_COUNT);
    return DTYPES[dtype].name;
}

const char *dtype_safetensors_name(DType dtype)
{
    CHECK((unsigned)dtype < DTYPE_COUNT);
    return DTYPES[dtype].safetensors_name;
}

Status dtype_from_safetensors_name(const char *name, DType *ret, Error *err)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(name, DTYPES[i].safetensors_name) == 0) {
            *ret = (DType)i;
            return OK;
        }
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "tensor type \"%.32s\" is not one that is read here "
                     "(F32, BF16, F16, I32, I64, U8)",
                     name);
}

int64_t tensor_count(const Tensor *tensor)
{
    CHECK(tensor->rank >= 0 && tensor->rank <= TENSOR_RANK_MAX);
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) {
        CHECK(tensor->shape[i] >= 0);
        CHECK(!__builtin_mul_overflow(count, tensor->shape[i], &count));
    }
    return count;
}

size_t tensor_bytes(const Tensor *tensor)
{
    size_t bytes = 0;
    CHECK(!__builtin_mul_overflow((size_t)tensor_count(tensor), dtype_size(tensor->dtype), &bytes));
    return bytes;
}

Tensor tensor_1d(void *data, DType dtype, int64_t n0)
{
    return (Tensor){.data = data, .dtype = dtype, .rank = 1, .shape = {n0}};
}

Tensor tensor_2d(void *data, DType dtype, int64_t n0, int64_t n1)
{
    return (Tensor){.data = data, .dtype = dtype, .rank = 2, .shape = {n0, n1}};
}

bool tensor_same_shape(const Tensor *a, const Tensor *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

char *tensor_shape_text(const Tensor *tensor, char text[96])
{
    int used = snprintf(text, 96, "[");
    for (int i = 0; i < tensor->rank && i < TENSOR_RANK_MAX; i++)
        used += snprintf(text + used, 96 - (size_t)used, "%s%" PRId64, i > 0 ? ", " : "",
                         tensor->shape[i]);
    snprintf(text + used, 96 - (size_t)used, "]");
    return text;
}
