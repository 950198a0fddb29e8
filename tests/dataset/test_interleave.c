/* Tests of dataset/interleave: shares that hold at every place, the same turn however a position is
 * reached, and an order that is decided by the seed alone. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dataset/interleave.h"

static const char *const names[] = {"chat", "math", "code", "tools", "e", "f", "g", "h"};

static Interleave make(uint64_t seed, const double *weight, int count)
{
    Interleave mix;
    assert_int_equal(interleave_make(seed, names, weight, count, &mix), -1);
    return mix;
}

typedef struct Case {
    int count;
    double weight[8];
} Case;

static const Case cases[] = {
    {2, {1, 1}},
    {2, {0.7, 0.3}},
    {2, {999, 1}},
    {3, {5, 3, 2}},
    {4, {0.97, 0.01, 0.01, 0.01}},
    {8, {1, 2, 3, 4, 5, 6, 7, 8}},
    {8, {1, 1, 1, 1, 1, 1, 1, 1}},
    {8, {1e-6, 1, 1e3, 0.1, 17, 3.14159, 2.71828, 1}},
};
enum { CASES = sizeof cases / sizeof *cases };

/* The deviation that the header promises for a source of share p. */
static double bound_of(double share, int count)
{
    return 1 + share * (count - 2) + 1e-6;
}

static void assert_shares_hold(const Interleave *mix, const Case *of, uint64_t first)
{
    double sum = 0, worst = 0;
    InterleaveCursor cursor = interleave_cursor(mix, first);
    assert_int_equal(cursor.position, first);
    for (int i = 0; i < of->count; i++)
        sum += of->weight[i];
    for (uint64_t q = first; q < first + 20000; q++) {
        for (int i = 0; i < of->count; i++) {
            double share = (double)mix->share[i] / (double)INTERLEAVE_UNIT;
            assert_true(fabs(share - of->weight[i] / sum) < 1.0 / (double)INTERLEAVE_UNIT);
            /* q * share in two parts, so that a double tells small differences at huge places. */
            unsigned __int128 exact = (unsigned __int128)q * mix->share[i];
            double off = (double)(int64_t)(cursor.taken[i] - (uint64_t)(exact >> 32)) -
                         (double)(uint32_t)exact / (double)INTERLEAVE_UNIT;
            if (fabs(off) / bound_of(share, of->count) > worst)
                worst = fabs(off) / bound_of(share, of->count);
        }
        interleave_next(&cursor);
    }
    assert_true(worst < 1);
    assert_true(worst > 0);
}

static void test_interleave_keeps_the_shares_at_every_place(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        Interleave mix = make(42 + (uint64_t)c, cases[c].weight, cases[c].count);
        assert_shares_hold(&mix, &cases[c], 0);
        assert_shares_hold(&mix, &cases[c], 123456789);
        assert_shares_hold(&mix, &cases[c], (UINT64_C(1) << 60) + 7);
    }
}

/* However a position is reached: in order, by a jump, from the source's own count. */
static void test_interleave_gives_the_same_turn_however_it_is_reached(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {0, 1, 1000000, UINT64_C(1) << 40};
    for (int c = 0; c < CASES; c++) {
        Interleave mix = make(7, cases[c].weight, cases[c].count);
        for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++) {
            InterleaveCursor cursor = interleave_cursor(&mix, firsts[f]);
            for (uint64_t q = firsts[f]; q < firsts[f] + 500; q++) {
                InterleavePlace next = interleave_next(&cursor);
                InterleavePlace at = interleave_at(&mix, q);
                assert_int_equal(at.source, next.source);
                assert_int_equal(at.position, next.position);
                assert_int_equal(interleave_position(&mix, at.source, at.position), q);
            }
        }
    }
}

static void test_interleave_takes_each_source_from_its_beginning(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        uint64_t seen[8] = {0};
        Interleave mix = make(3, cases[c].weight, cases[c].count);
        for (uint64_t q = 0; q < 5000; q++) {
            InterleavePlace place = interleave_at(&mix, q);
            assert_int_equal(place.position, seen[place.source]++);
        }
    }
}

/* A mixture of one is that one, and a name decides nothing but its own source's turns. */
static void test_interleave_of_one_is_that_one(void **state)
{
    (void)state;
    const double weight[] = {3};
    Interleave mix = make(1, weight, 1);
    for (uint64_t q = 0; q < 1000; q++) {
        InterleavePlace place = interleave_at(&mix, q * 977);
        assert_int_equal(place.source, 0);
        assert_int_equal(place.position, q * 977);
        assert_int_equal(interleave_position(&mix, 0, q * 977), q * 977);
    }
}

/* A resumed run, another machine and a later version have to see the turns of the first run: these
 * change only together with INTERLEAVE_VERSION. They are those of a sort of all that is due, in
 * fractions, written down in another language. */
static void test_interleave_is_pinned(void **state)
{
    (void)state;
    assert_int_equal(INTERLEAVE_VERSION, 1);
    const double weight[] = {5, 3, 2};
    Interleave mix = make(42, weight, 3);
    char turns[41] = "", far[41] = "";
    for (uint64_t q = 0; q < 40; q++) {
        turns[q] = (char)('a' + interleave_at(&mix, q).source);
        far[q] = (char)('a' + interleave_at(&mix, (UINT64_C(1) << 50) + q).source);
    }
    assert_string_equal(turns, "bacabaacababacabcaabacbaabacbaabaacbcaab");
    assert_string_equal(far, "acabcabababaabcacabaabcababacaaabacbcaab");
}

/* In each stretch a source is due once, anywhere in it alike, whatever the stretch before; other
 * seeds give other places. Chi-square with 9 degrees of freedom: 33.7 is exceeded once in 10,000.
 */
static void test_interleave_spreads_a_source_evenly_over_its_stretches(void **state)
{
    (void)state;
    enum { DRAWS = 20000, BINS = 10 };
    const double weight[] = {99, 1}; /* a stretch of 100: a place is known to a hundredth of it */
    Interleave mix = make(11, weight, 2), other = make(12, weight, 2);
    double square = 0, product = 0, across = 0, last = 0;
    int bin[BINS] = {0};
    for (uint64_t j = 0; j < DRAWS; j++) {
        double place = (double)(interleave_position(&mix, 1, j) - 100 * j) / 100;
        double there = (double)(interleave_position(&other, 1, j) - 100 * j) / 100;
        assert_true(place >= 0 && place < 1);
        bin[(int)(place * BINS)]++;
        product += (place - 0.5) * last;
        across += (place - 0.5) * (there - 0.5);
        last = place - 0.5;
    }
    for (int i = 0; i < BINS; i++) {
        double off = bin[i] - DRAWS / BINS;
        square += off * off / (DRAWS / BINS);
    }
    assert_true(square < 33.7);
    /* A product of two uniform places has deviation 1/12; four of them are exceeded in 1 of 16,000.
     */
    double limit = 4 * sqrt(DRAWS) / 12;
    assert_true(fabs(product) < limit);
    assert_true(fabs(across) < limit);
}

static void test_interleave_refuses_a_share_too_small_to_count(void **state)
{
    (void)state;
    Interleave mix;
    const double weight[] = {1, 1e-10, 1};
    assert_int_equal(interleave_make(1, names, weight, 3, &mix), 1);
}

/* What is more than any run comes to is no small number. */
static void test_interleave_epoch_of_very_many_records_stays_large(void **state)
{
    (void)state;
    Interleave mix;
    const double weight[] = {1, 1e-9};
    const uint64_t records[] = {UINT64_C(1) << 48, UINT64_C(1) << 48};
    assert_int_equal(interleave_make(1, names, weight, 2, &mix), -1);
    assert_true(interleave_epoch(&mix, records, EPOCH_ALL_EXHAUSTED) == UINT64_C(1) << 62);
    uint64_t first = interleave_epoch(&mix, records, EPOCH_FIRST_EXHAUSTED);
    assert_true(first >= records[0] && first < records[0] + (records[0] >> 28));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interleave_keeps_the_shares_at_every_place),
        cmocka_unit_test(test_interleave_gives_the_same_turn_however_it_is_reached),
        cmocka_unit_test(test_interleave_takes_each_source_from_its_beginning),
        cmocka_unit_test(test_interleave_of_one_is_that_one),
        cmocka_unit_test(test_interleave_is_pinned),
        cmocka_unit_test(test_interleave_spreads_a_source_evenly_over_its_stretches),
        cmocka_unit_test(test_interleave_refuses_a_share_too_small_to_count),
        cmocka_unit_test(test_interleave_epoch_of_very_many_records_stays_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
