/* Sums and maxima over ranks. Blocks pass through a small accumulator, so that memory is read once
 * per source and written once, whatever the number of ranks; loops are plain for the compiler to
 * vectorise. The order over ranks is fixed and elements do not mix, so neither blocks nor vectors
 * can change a bit. */
#include <string.h>

#include "comm/comm_kind.h"

#define BLOCK 1024

/* The same source compiled for wider vectors, chosen when the program starts. Sanitizers run before
 * such a choice can be made. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(TROUPE_SANITIZED)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

size_t comm_element_size(CommElement element)
{
    static const size_t sizes[ELEMENT_COUNT] = {
        [ELEMENT_BYTE] = 1, [ELEMENT_F32] = 4, [ELEMENT_BF16] = 2, [ELEMENT_F64] = 8};
    return sizes[element];
}

/* A NaN on either side wins. */
#define LARGER(a, b) ((b) > (a) || (b) != (b) ? (b) : (a))

WIDE static void sum_f32(float *acc, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] += x[i];
}

WIDE static void max_f32(float *acc, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] = LARGER(acc[i], x[i]);
}

WIDE static void sum_f64(double *acc, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] += x[i];
}

WIDE static void max_f64(double *acc, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] = LARGER(acc[i], x[i]);
}

WIDE static void load_bf16(float *acc, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] = bf16_to_f32(x[i]);
}

WIDE static void sum_bf16(float *acc, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] += bf16_to_f32(x[i]);
}

WIDE static void max_bf16(float *acc, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] = LARGER(acc[i], bf16_to_f32(x[i]));
}

WIDE static void store_bf16(uint16_t *y, const float *acc, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_from_f32(acc[i]);
}

/* Each of these reduces n <= BLOCK elements from element `first` on, and leaves them in `block`. */

static void reduce_f32(float *block, const void *const *source, int size, int64_t first, int64_t n,
                       CommOp op)
{
    memcpy(block, (const float *)source[0] + first, (size_t)n * sizeof *block);
    for (int r = 1; r < size; r++)
        (op == COMM_SUM ? sum_f32 : max_f32)(block, (const float *)source[r] + first, n);
}

static void reduce_f64(double *block, const void *const *source, int size, int64_t first, int64_t n,
                       CommOp op)
{
    memcpy(block, (const double *)source[0] + first, (size_t)n * sizeof *block);
    for (int r = 1; r < size; r++)
        (op == COMM_SUM ? sum_f64 : max_f64)(block, (const double *)source[r] + first, n);
}

static void reduce_bf16(uint16_t *block, const void *const *source, int size, int64_t first,
                        int64_t n, CommOp op)
{
    float acc[BLOCK];
    load_bf16(acc, (const uint16_t *)source[0] + first, n);
    for (int r = 1; r < size; r++)
        (op == COMM_SUM ? sum_bf16 : max_bf16)(acc, (const uint16_t *)source[r] + first, n);
    store_bf16(block, acc, n);
}

void comm_reduce_sources(void *destination, void *copy, const void *const *source, int size,
                         int64_t count, CommReduction how)
{
    double block[BLOCK];
    size_t element_size = comm_element_size(how.element);
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t n = count - first < BLOCK ? count - first : BLOCK;
        if (how.element == ELEMENT_F32)
            reduce_f32((float *)block, source, size, first, n, how.op);
        else if (how.element == ELEMENT_BF16)
            reduce_bf16((uint16_t *)block, source, size, first, n, how.op);
        else
            reduce_f64(block, source, size, first, n, how.op);
        size_t offset = (size_t)first * element_size, bytes = (size_t)n * element_size;
        memcpy((char *)destination + offset, block, bytes);
        if (copy != NULL) memcpy((char *)copy + offset, block, bytes);
    }
}
