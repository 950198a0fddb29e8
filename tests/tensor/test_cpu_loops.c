/* What the CPU's loops are made of beside the kernels: exp and digests. Built once per instruction
 * set (TEST_ISA). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/rng.h"
#include "tensor/buffer.h"
#include "tensor/digest.h"
#include "test.h"

/* ---- exp ---- */

/* The distance of a float from an exact value, in units in the last place. */
static double ulps(float value, double exact)
{
    const float nearest = (float)exact;
    const double unit = (double)(nextafterf(fabsf(nearest), INFINITY) - fabsf(nearest));
    return fabs((double)value - exact) / unit;
}

static void test_exp_is_within_two_ulp_of_libm(void **state)
{
    (void)state;
    float x[4099], y[4099];
    double worst = 0;
    for (int round = 0; round < 40; round++) {
        const int n = (int)(sizeof x / sizeof x[0]);
        for (int i = 0; i < n; i++)
            x[i] =
                -87.33f + 176.04f * rng_uniform(rng_block(7, (uint64_t)round, (uint64_t)i).word[0]);
        cpu_exp_of(TEST_ISA, y, x, n);
        for (int i = 0; i < n; i++)
            worst = fmax(worst, ulps(y[i], exp((double)x[i])));
    }
    if (!(worst < 2)) fail_msg("exp is off by %.3f ulp", worst);
}

static void test_exp_of_special_values(void **state)
{
    (void)state;
    const float x[] = {0.0f, -INFINITY, INFINITY, NAN, 89.0f, -88.0f, -1e30f, 1e30f, -0.0f};
    float y[9];
    cpu_exp_of(TEST_ISA, y, x, 9);
    assert_true(y[0] == 1.0f && y[8] == 1.0f);
    assert_true(y[1] == 0.0f && y[5] == 0.0f && y[6] == 0.0f);
    assert_true(isinf(y[2]) && isinf(y[4]) && isinf(y[7]));
    assert_true(isnan(y[3]));
}

/* ---- digests ---- */

enum { ROOM = 20000 };

/* As tensor/digest.h describes it, in the library's own words. */
static uint64_t digest_of(const unsigned char *from, size_t bytes)
{
    uint64_t words[ROOM / DIGEST_PIECE + 2];
    const size_t pieces = digest_num_pieces(bytes);
    for (size_t i = 0; i < pieces; i++) {
        unsigned char piece[DIGEST_PIECE] = {0};
        const size_t left = bytes - i * DIGEST_PIECE;
        memcpy(piece, from + i * DIGEST_PIECE, left < DIGEST_PIECE ? left : DIGEST_PIECE);
        words[i] = XXH3_64bits(piece, DIGEST_PIECE);
    }
    words[pieces] = bytes;
    return XXH3_64bits(words, (pieces + 1) * sizeof *words);
}

/* Every beginning and end within a line, whole pieces and parts of them; nothing beside the copy is
 * touched. */
static void test_digest_is_the_librarys_and_copies_what_is_asked(void **state)
{
    (void)state;
    static unsigned char from[ROOM];
    unsigned char *to = aligned_alloc(64, (ROOM + 63) / 64 * 64);
    const size_t lengths[] = {0, 1, 63, 64, 65, 200, 240, 241, 1024, 4095, 4096, 4097, 8192, 19000};
    for (int i = 0; i < ROOM; i++)
        from[i] = (unsigned char)(i * 7 + i / 251);
    for (size_t begin = 0; begin <= 128; begin += begin % 64 == 0 ? 1 : 63)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            const size_t bytes = lengths[l];
            memset(to, 0, ROOM);
            const uint64_t digest =
                cpu_digest_copy_of(TEST_ISA, to + begin, from + begin / 2, bytes);
            assert_true(digest == digest_of(from + begin / 2, bytes));
            assert_true(digest == cpu_digest_copy_of(TEST_ISA, NULL, from + begin / 2, bytes));
            assert_memory_equal(to + begin, from + begin / 2, bytes);
            memset(to, 0, ROOM);
            assert_true(digest ==
                        cpu_copy_digest_of(TEST_ISA, to + begin, from + begin / 2, bytes));
            assert_memory_equal(to + begin, from + begin / 2, bytes);
            for (size_t i = 0; i < ROOM; i++)
                if (i < begin || i >= begin + bytes) assert_int_equal(to[i], 0);
        }
    free(to);
}

static int setup(void **state)
{
    (void)state;
    if (!TEST_CAN_RUN) {
        print_message("this machine lacks what it takes: skipped\n");
        exit(0);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_is_within_two_ulp_of_libm),
        cmocka_unit_test(test_exp_of_special_values),
        cmocka_unit_test(test_digest_is_the_librarys_and_copies_what_is_asked),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
