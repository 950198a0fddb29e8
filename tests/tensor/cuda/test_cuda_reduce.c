/* The kernel that sums over ranks (cuda/reduce_parts.cu, on the host) gives the bits of the sum
 * that shared memory takes (comm_reduce_sources), for every number of ranks, type, size and place.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "comm/comm_kind.h"
#include "tensor/cuda/table.h"
#include "test.h"

#define PARTS_MAX 8
#define ROOM      5000 /* elements of a part */

/* Any pattern of bits for `wild`: subnormals, infinities, NaN; or numbers of sizes that lose bits
 * when they are summed in another order. */
static void fill(void *data, DType dtype, int64_t count, bool wild, uint64_t key)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = rng_block(key, 0, (uint64_t)i).word[0];
        float x = ldexpf((float)(int32_t)bits, (int)(bits % 24) - 40);
        if (wild) memcpy(&x, &bits, sizeof x);
        if (dtype == DTYPE_F32)
            ((float *)data)[i] = x;
        else
            ((uint16_t *)data)[i] = wild ? (uint16_t)bits : bf16_from_f32(x);
    }
}

static float value_at(const void *data, DType dtype, int64_t i)
{
    return dtype == DTYPE_F32 ? ((const float *)data)[i] : bf16_to_f32(((const uint16_t *)data)[i]);
}

typedef struct Case {
    DType dtype;
    int num_parts;
    int64_t count, stride;
    int64_t shift; /* of the parts and of the result, in elements */
    bool maximum, wild;
} Case;

static void check(Case c)
{
    static _Alignas(64) char parts[PARTS_MAX * ROOM * 4 + 64], out[ROOM * 4 + 64],
        expected[ROOM * 4];
    const size_t size = dtype_size(c.dtype), bytes = (size_t)c.count * size;
    const void *source[PARTS_MAX];
    char *first = parts + c.shift * (int64_t)size, *result = out + c.shift * (int64_t)size;
    memset(out, 0x5A, sizeof out);
    fill(first, c.dtype, c.num_parts * c.stride, c.wild, (uint64_t)(c.num_parts + c.count));
    for (int p = 0; p < c.num_parts; p++)
        source[p] = first + p * c.stride * (int64_t)size;
    CommReduction how = {c.dtype == DTYPE_F32 ? ELEMENT_F32 : ELEMENT_BF16,
                         c.maximum ? COMM_MAX : COMM_SUM};
    comm_reduce_sources(expected, NULL, source, c.num_parts, c.count, how);
    PartReduction reduction = {result, first, c.num_parts, c.count, c.stride, c.dtype, c.maximum};
    cuda_reduce_parts(NULL, &reduction);
    for (int64_t i = 0; i < c.count; i++) {
        bool is_nan = isnan(value_at(expected, c.dtype, i));
        if (is_nan ? isnan(value_at(result, c.dtype, i))
                   : memcmp(result + i * (int64_t)size, expected + i * (int64_t)size, size) == 0)
            continue;
        fail_msg("%s, %d parts of %lld, stride %lld, shift %lld, %s: element %lld is %g, not %g",
                 dtype_name(c.dtype), c.num_parts, (long long)c.count, (long long)c.stride,
                 (long long)c.shift, c.maximum ? "maximum" : "sum", (long long)i,
                 (double)value_at(result, c.dtype, i), (double)value_at(expected, c.dtype, i));
    }
    for (const char *at = out; at < out + sizeof out; at++)
        if (at < result || at >= result + bytes) assert_int_equal(*at, 0x5A);
}

static void test_sums_over_ranks_have_the_bits_of_shared_memory(void **state)
{
    (void)state;
    const int64_t counts[] = {0, 1, 3, 4, 8, 9, 64, 1023, 4096, 4099};
    for (int parts = 1; parts <= PARTS_MAX; parts++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
                int64_t n = counts[i], whole = (n + 7) / 8 * 8;
                check((Case){dtype, parts, n, n, 0, false, false});
                check((Case){dtype, parts, n, whole, 0, true, false});
                check((Case){dtype, parts, n, whole, 0, false, true});
                check((Case){dtype, parts, n, whole, 1, true, true});
                check((Case){dtype, parts, n, whole + 5, 3, false, false});
            }
}

/* Or the test above would pass with parts in any order. */
static void test_the_order_of_parts_shows(void **state)
{
    (void)state;
    const float parts[2][3] = {{1e8f, 1.0f, -1e8f}, {1e8f, -1e8f, 1.0f}};
    float found[2];
    for (int i = 0; i < 2; i++) {
        PartReduction reduction = {&found[i], parts[i], 3, 1, 1, DTYPE_F32, false};
        cuda_reduce_parts(NULL, &reduction);
    }
    assert_true(found[0] == 0.0f);
    assert_true(found[1] == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_over_ranks_have_the_bits_of_shared_memory),
        cmocka_unit_test(test_the_order_of_parts_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
