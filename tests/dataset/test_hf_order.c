/* Tests of dataset/hf_order against orders that the package `datasets` itself has given, at four
 * releases (hf_orders.json, made by hf_orders.py). */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/digest.h"
#include "base/json.h"
#include "base/memory.h"
#include "dataset/hf_order.h"
#include "dataset/numpy_rng.h"

#define ORDERS PROJECT_SOURCE_DIR "/tests/dataset/hf_orders.json"

static cJSON *read_cases(void)
{
    Error err = {0};
    cJSON *cases = NULL;
    assert_ok(json_read(ORDERS, 4u << 20, &cases, &err), &err);
    assert_true(cJSON_IsArray(cases));
    return cases;
}

static const cJSON *item(const cJSON *entry, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(entry, key);
}

static uint64_t number(const cJSON *entry, const char *key)
{
    assert_true(cJSON_IsNumber(item(entry, key)));
    return (uint64_t)item(entry, key)->valuedouble;
}

static HfRelease release_of(const cJSON *entry)
{
    const char *name = item(entry, "release")->valuestring;
    for (int i = 0; i < HF_RELEASES; i++)
        if (strcmp(hf_release_name((HfRelease)i), name) == 0) return (HfRelease)i;
    fail_msg("no release %s", name);
    return HF_RELEASES;
}

static HfOrder *open_order(const cJSON *entry, uint64_t *ret_total)
{
    uint64_t records[64], total = 0;
    size_t num_files = 0;
    const cJSON *files = item(entry, "files"), *file;
    cJSON_ArrayForEach(file, files)
    {
        assert_true(num_files < 64);
        records[num_files] = (uint64_t)file->valuedouble;
        total += records[num_files++];
    }
    HfOptions options = {.release = release_of(entry), .buffer_size = number(entry, "buffer")};
    *ret_total = total;
    return hf_order_create(&options, number(entry, "seed"), records, num_files);
}

static uint64_t record_at(HfOrder *order, uint64_t epoch, uint64_t place)
{
    Error err = {0};
    uint64_t record = 0;
    assert_ok(hf_order_record(order, epoch, place, &record, &err), &err);
    return record;
}

static void assert_order(const cJSON *entry)
{
    uint64_t total, epoch = number(entry, "epoch");
    HfOrder *order = open_order(entry, &total);
    uint64_t *record = mem_alloc(total * sizeof *record);
    for (uint64_t i = 0; i < total; i++)
        record[i] = record_at(order, epoch, i);
    const cJSON *listed = item(entry, "order");
    for (int i = 0; listed != NULL && i < (int)total; i++) {
        uint64_t expected = (uint64_t)cJSON_GetArrayItem(listed, i)->valuedouble;
        if (record[i] != expected)
            fail_msg("%s, buffer %d, epoch %d, place %d: %d instead of %d",
                     item(entry, "release")->valuestring, (int)number(entry, "buffer"), (int)epoch,
                     i, (int)record[i], (int)expected);
    }
    char digest[DIGEST_HEX_BYTES];
    digest_bytes(record, total * sizeof *record, digest); /* this machine is little-endian, too */
    assert_string_equal(digest, item(entry, "sha256")->valuestring);
    free(record);
    hf_order_destroy(order);
}

static void test_order_is_that_of_the_package(void **state)
{
    (void)state;
    cJSON *cases = read_cases();
    bool seen[HF_RELEASES] = {0};
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cases)
    {
        seen[release_of(entry)] = true;
        assert_order(entry);
    }
    for (int i = 0; i < HF_RELEASES; i++)
        assert_true(seen[i]);
    cJSON_Delete(cases);
}

/* The package loses what its buffer holds when its state is loaded; here a place is a place,
 * whoever begins there. */
static void test_order_is_the_same_where_the_package_loses_its_buffer(void **state)
{
    (void)state;
    cJSON *cases = read_cases();
    int compared = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cases)
    {
        const cJSON *resume = item(entry, "resume");
        if (resume == NULL) continue;
        assert_true(number(resume, "lost") > 0);
        uint64_t total, after = number(resume, "after"), epoch = number(entry, "epoch");
        HfOrder *whole = open_order(entry, &total), *resumed = open_order(entry, &total);
        uint8_t *seen = mem_calloc(total, 1);
        for (uint64_t i = 0; i < after; i++)
            seen[record_at(whole, epoch, i)]++;
        for (uint64_t i = after; i < total; i++) {
            uint64_t record = record_at(resumed, epoch, i);
            assert_int_equal(record, record_at(whole, epoch, i));
            seen[record]++;
        }
        for (uint64_t i = 0; i < total; i++)
            assert_int_equal(seen[i], 1);
        free(seen);
        hf_order_destroy(whole);
        hf_order_destroy(resumed);
        compared++;
    }
    assert_true(compared >= HF_RELEASES);
    cJSON_Delete(cases);
}

/* A million records, more than are kept as they were emitted: any place, in any order of asking and
 * with the points on the way dropped again, is what a walk from the beginning finds there. */
static void test_any_place_can_be_asked_for(void **state)
{
    (void)state;
    enum { FILES = 30, PROBES = 400 };
    uint64_t records[FILES], total = 0;
    for (int i = 0; i < FILES; i++)
        total += records[i] = 20000 + (uint64_t)i * 1000;
    for (int release = 0; release < HF_RELEASES; release++) {
        HfOptions options = {.release = (HfRelease)release,
                             .buffer_size = 100000}; /* points of it: ten */
        HfOrder *walking = hf_order_create(&options, 3, records, FILES);
        HfOrder *jumping = hf_order_create(&options, 3, records, FILES);
        uint64_t *expected = mem_alloc(total * sizeof *expected);
        uint8_t *seen = mem_calloc(total, 1);
        for (uint64_t i = 0; i < total; i++) {
            expected[i] = record_at(walking, 1, i);
            assert_int_equal(seen[expected[i]]++, 0);
        }
        uint64_t place = 1;
        for (int i = 0; i < PROBES; i++) {
            place = i % 4 == 0 ? (place * 6364136223846793005u + 1442695040888963407u) % total
                               : (place + 1) % total;
            assert_int_equal(record_at(jumping, 1, place), expected[place]);
        }
        assert_true(record_at(jumping, 2, 0) != expected[0] ||
                    record_at(jumping, 2, 1) != expected[1]); /* an order of its own */
        assert_int_equal(record_at(jumping, 1, total - 1), expected[total - 1]);
        free(seen);
        free(expected);
        hf_order_destroy(walking);
        hf_order_destroy(jumping);
    }
}

/* Who waits for a place far into an epoch sees that something is done, and can end it. */
static void test_a_long_replay_is_watched_and_ended(void **state)
{
    (void)state;
    const uint64_t records = 3000000;
    ReadWatch watch = {0};
    HfOptions options = {.release = HF_5_2, .buffer_size = 1000, .watch = &watch};
    HfOrder *order = hf_order_create(&options, 3, &records, 1);
    HfOrder *other = hf_order_create(&options, 3, &records, 1);
    Error err = {0};
    uint64_t record = 7;
    record_at(order, 0, 1000000);
    uint64_t progress = watch.progress;
    assert_true(progress >= 50);
    watch.cancelled = true;
    assert_fails(hf_order_record(order, 0, 2900000, &record, &err), ERR_CANCELLED, &err,
                 "cancelled");
    assert_int_equal(record, 7);
    watch.cancelled = false;
    assert_int_equal(record_at(order, 0, 2900000), record_at(other, 0, 2900000));
    hf_order_destroy(order);
    hf_order_destroy(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_is_that_of_the_package),
        cmocka_unit_test(test_order_is_the_same_where_the_package_loses_its_buffer),
        cmocka_unit_test(test_any_place_can_be_asked_for),
        cmocka_unit_test(test_a_long_replay_is_watched_and_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
