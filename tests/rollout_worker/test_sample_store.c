/* Tests of rollout_worker/store. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/store.h"

static Sample make_sample(int64_t position, int32_t length)
{
    Sample sample = {.position = position, .length = length};
    sample.token = mem_calloc((size_t)length, sizeof *sample.token);
    sample.loss_mask = mem_calloc((size_t)length, 1);
    sample.token[0] = (int32_t)position * 10;
    return sample;
}

static void put_one(SampleStore *store, const char *set, int64_t position, int32_t length)
{
    Error err = {0};
    Sample sample = make_sample(position, length);
    assert_ok(sample_store_put(store, set, &sample, 1, &err), &err);
    assert_null(sample.token); /* taken */
}

static void test_store_keeps_sets_apart_and_releases_below(void **state)
{
    (void)state;
    SampleStore *store = sample_store_create(1 << 20);
    for (int64_t position = 0; position < 10; position++) {
        put_one(store, "train", position, 4);
        put_one(store, "eval", position, 4);
    }
    assert_int_equal(sample_store_get(store, "train", 7, 0)->token[0], 70);
    assert_null(sample_store_get(store, "train", 7, 1));
    assert_null(sample_store_get(store, "other", 7, 0));
    sample_store_release(store, "train", 7);
    assert_null(sample_store_get(store, "train", 6, 0));
    assert_non_null(sample_store_get(store, "train", 7, 0));
    assert_non_null(sample_store_get(store, "eval", 6, 0));
    assert_int_equal(sample_store_count(store), 13);
    put_one(store, "train", 2, 4); /* after a return to an earlier checkpoint */
    assert_non_null(sample_store_get(store, "train", 2, 0));
    sample_store_release(store, "train", 100);
    sample_store_release(store, "eval", 100);
    assert_int_equal(sample_store_count(store), 0);
    assert_int_equal(sample_store_bytes(store), 0);
    sample_store_destroy(store);
}

static void test_store_replaces_without_growing(void **state)
{
    (void)state;
    SampleStore *store = sample_store_create(1 << 20);
    put_one(store, "train", 5, 100);
    size_t bytes = sample_store_bytes(store);
    put_one(store, "train", 5, 100);
    assert_int_equal(sample_store_bytes(store), bytes);
    assert_int_equal(sample_store_count(store), 1);
    sample_store_destroy(store);
}

static void test_full_store_takes_none_and_says_so(void **state)
{
    (void)state;
    SampleStore *store = sample_store_create(10000);
    put_one(store, "train", 0, 1000);
    Sample lease[2] = {make_sample(1, 10), make_sample(2, 1000)};
    Error err = {0};
    assert_fails(sample_store_put(store, "train", lease, 2, &err), ERR_RESOURCE, &err,
                 "SAMPLE_STORE_BYTES_MAX");
    assert_null(sample_store_get(store, "train", 1, 0));
    assert_non_null(lease[0].token); /* still the caller's */
    sample_store_release(store, "train", 1);
    assert_ok(sample_store_put(store, "train", lease, 2, &err), &err);
    put_one(store, "train", 2, 1000); /* a lease run again fits where its first run did */
    sample_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_keeps_sets_apart_and_releases_below),
        cmocka_unit_test(test_store_replaces_without_growing),
        cmocka_unit_test(test_full_store_takes_none_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
