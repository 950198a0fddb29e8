/* Tests of dataset/shuffle: each epoch is a permutation, and its order looks like any other. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dataset/shuffle.h"

static void assert_bijection(uint64_t seed, uint64_t epoch, uint64_t size)
{
    Permutation permutation = permutation_of(seed, epoch, size);
    uint8_t *seen = mem_calloc(size, 1);
    for (uint64_t i = 0; i < size; i++) {
        uint64_t value = permutation_at(&permutation, i);
        assert_true(value < size);
        assert_int_equal(seen[value], 0);
        seen[value] = 1;
    }
    free(seen);
}

static void test_permutation_takes_each_record_once(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= 600; size++)
        assert_bijection(size * 77, size % 5, size);
    static const uint64_t sizes[] = {1023, 1024, 1025, 7473, 65536, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_bijection(42, i, sizes[i]);
}

static void test_permutation_of_huge_sets_stays_inside(void **state)
{
    (void)state;
    uint64_t size = UINT64_C(1) << 40 | 12345;
    Permutation permutation = permutation_of(1, 2, size);
    uint64_t equal = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t value = permutation_at(&permutation, size - 1 - i);
        assert_true(value < size);
        equal += value == permutation_at(&permutation, i);
    }
    assert_int_equal(equal, 0);
}

/* A resumed run, another machine and a later version have to see the order of the first run: these
 * values change only together with SHUFFLE_VERSION. */
static void test_permutation_is_pinned(void **state)
{
    (void)state;
    assert_int_equal(SHUFFLE_VERSION, 1);
    static const uint64_t expected_small[] = {6, 1, 5, 4, 0, 3, 8, 9, 7, 2};
    static const uint64_t expected_large[] = {628151, 457917, 926383, 960956, 371269, 493359};
    Permutation small = permutation_of(42, 3, 10), large = permutation_of(42, 3, 1000000);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(permutation_at(&small, i), expected_small[i]);
    for (uint64_t i = 0; i < 6; i++)
        assert_int_equal(permutation_at(&large, i * 1000), expected_large[i]);
}

/* How far the counts are from equal: chi-square minus its mean, in standard deviations. */
static double chi_square_z(const uint32_t *count, size_t cells, double expected)
{
    double chi = 0;
    for (size_t i = 0; i < cells; i++)
        chi += (count[i] - expected) * (count[i] - expected) / expected;
    return (chi - (double)(cells - 1)) / sqrt(2.0 * (double)(cells - 1));
}

/* All 5! orders of five records, over seeds and over epochs. */
static void test_permutation_of_small_sets_gives_all_orders_equally(void **state)
{
    (void)state;
    uint32_t by_seed[120] = {0}, by_epoch[120] = {0};
    for (uint64_t trial = 0; trial < 24000; trial++) {
        for (int kind = 0; kind < 2; kind++) {
            Permutation permutation =
                permutation_of(kind == 0 ? trial : 7, kind == 0 ? 0 : trial, 5);
            int rank = 0;
            for (uint64_t i = 0; i < 5; i++) {
                int smaller = 0;
                for (uint64_t j = i + 1; j < 5; j++)
                    smaller += permutation_at(&permutation, j) < permutation_at(&permutation, i);
                rank = rank * (int)(5 - i) + smaller;
            }
            (kind == 0 ? by_seed : by_epoch)[rank]++;
        }
    }
    assert_true(fabs(chi_square_z(by_seed, 120, 200)) < 4);
    assert_true(fabs(chi_square_z(by_epoch, 120, 200)) < 4);
}

/* Where neighbours of a file land relative to each other, over many seeds, for sizes just below, at
 * and above a power of two, which a Feistel network finds hardest. */
static void test_permutation_keeps_no_trace_of_neighbours(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {257, 511, 512, 513, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t size = sizes[s], trials = 200 * size;
        uint32_t *distance = mem_calloc(size, sizeof *distance);
        for (uint64_t seed = 0; seed < trials; seed++) {
            Permutation permutation = permutation_of(seed, 0, size);
            uint64_t a = permutation_at(&permutation, 0), b = permutation_at(&permutation, 1);
            distance[(b + size - a) % size]++;
        }
        assert_int_equal(distance[0], 0);
        double z = chi_square_z(distance + 1, size - 1, (double)trials / (double)(size - 1));
        if (fabs(z) >= 4) fail_msg("size %d: z = %.2f", (int)size, z);
        free(distance);
    }
}

/* One long epoch: position against record on a 64 x 64 grid, rank correlation, correlation of one
 * record with the next, neighbours of the file that stay neighbours, and one epoch against another.
 */
static void test_epoch_order_is_uniform(void **state)
{
    (void)state;
    enum { SIZE = 1 << 18, GRID = 64 };
    Permutation permutation = permutation_of(2026, 0, SIZE), other = permutation_of(2026, 1, SIZE);
    uint32_t *cell = mem_calloc(GRID * GRID, sizeof *cell);
    double rank = 0, serial = 0, epochs = 0, mean = (SIZE - 1) / 2.0, previous = mean;
    double variance = ((double)SIZE * SIZE - 1) / 12.0;
    uint64_t neighbours = 0;
    for (uint64_t i = 0; i < SIZE; i++) {
        double value = (double)permutation_at(&permutation, i);
        cell[i * GRID / SIZE * GRID + (uint64_t)value * GRID / SIZE]++;
        rank += ((double)i - mean) * (value - mean);
        serial += (previous - mean) * (value - mean);
        epochs += (value - mean) * ((double)permutation_at(&other, i) - mean);
        neighbours += i > 0 && fabs(value - previous) == 1;
        previous = value;
    }
    double sigma =
        sqrt((double)SIZE); /* of a correlation coefficient of that many pairs, inverted */
    assert_true(fabs(chi_square_z(cell, GRID * GRID, (double)SIZE / (GRID * GRID))) < 4);
    assert_true(fabs(rank / variance / SIZE * sigma) < 4);
    assert_true(fabs(serial / variance / SIZE * sigma) < 4);
    assert_true(fabs(epochs / variance / SIZE * sigma) < 4);
    assert_true(neighbours <= 10); /* 2 expected, Poisson */
    free(cell);
}

static void test_stream_crosses_epochs_and_starts_anywhere(void **state)
{
    (void)state;
    enum { RECORDS = 1000, EPOCHS = 3 };
    RecordOrder order = {.records = RECORDS, .seed = 5, .shuffle = true};
    OrderCursor walking = order_cursor(order);
    uint64_t first[RECORDS];
    int moved = 0;
    for (uint64_t position = 0; position < EPOCHS * RECORDS; position++) {
        OrderCursor fresh = order_cursor(order);
        uint64_t epoch, fresh_epoch;
        uint64_t record = order_record(&walking, position, &epoch);
        assert_int_equal(record, order_record(&fresh, position, &fresh_epoch));
        assert_int_equal(epoch, position / RECORDS);
        assert_int_equal(fresh_epoch, epoch);
        if (epoch == 0) first[position] = record;
        if (epoch == 1) moved += first[position - RECORDS] != record;
    }
    assert_true(moved > 900); /* the second epoch has an order of its own */
}

static void test_stream_without_shuffle_is_in_file_order(void **state)
{
    (void)state;
    OrderCursor cursor = order_cursor((RecordOrder){.records = 7, .seed = 5, .shuffle = false});
    for (uint64_t position = 0; position < 21; position++) {
        uint64_t epoch;
        assert_int_equal(order_record(&cursor, position, &epoch), position % 7);
        assert_int_equal(epoch, position / 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation_takes_each_record_once),
        cmocka_unit_test(test_permutation_of_huge_sets_stays_inside),
        cmocka_unit_test(test_permutation_is_pinned),
        cmocka_unit_test(test_permutation_of_small_sets_gives_all_orders_equally),
        cmocka_unit_test(test_permutation_keeps_no_trace_of_neighbours),
        cmocka_unit_test(test_epoch_order_is_uniform),
        cmocka_unit_test(test_stream_crosses_epochs_and_starts_anywhere),
        cmocka_unit_test(test_stream_without_shuffle_is_in_file_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
