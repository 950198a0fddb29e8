/* Tests of reading in turns: every byte once and in order whatever the threads, and what ends it.
 */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/turns.h"

#define PATH       "turns.bin"
#define WORDS      (1 << 20)
#define FILE_BYTES (WORDS * sizeof(uint64_t) + 5) /* eight pieces, and a last of a few bytes */

/* What a TakePiece is told to do, and what it has seen. */
typedef struct Taken {
    uint64_t bytes;     /* taken so far */
    uint64_t enough_at; /* or more: it ends there */
    uint64_t fail_at;
    int inside, calls; /* without a lock: the sanitizer for threads looks at them */
    bool wrong;        /* another piece than the next, or two at a time */
} Taken;

static uint8_t *text;

static int write_file(void **state)
{
    (void)state;
    text = mem_alloc(FILE_BYTES);
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t word = rng_mix(i);
        memcpy(text + i * sizeof word, &word, sizeof word);
    }
    memcpy(text + WORDS * sizeof(uint64_t), "12345", 5);
    Error err;
    assert_ok(file_write_atomic(PATH, text, FILE_BYTES, &err), &err);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    free(text);
    return unlink(PATH);
}

static Status take(void *context, const char *bytes, size_t length, bool *ret_enough, Error *err)
{
    Taken *taken = context;
    taken->wrong |= taken->inside++ != 0;
    taken->calls++;
    taken->wrong |= length == 0 || taken->bytes + length > FILE_BYTES ||
                    memcmp(bytes, text + taken->bytes, length) != 0;
    taken->bytes += length;
    taken->inside--;
    if (taken->fail_at > 0 && taken->bytes >= taken->fail_at)
        return error_set(err, ERR_UNSUPPORTED, "no more than %llu",
                         (unsigned long long)taken->bytes);
    *ret_enough = taken->enough_at > 0 && taken->bytes >= taken->enough_at;
    return OK;
}

static Status read_all(uint64_t file_bytes, int threads, Taken *taken, Error *err)
{
    FilePool *pool = file_pool_create(0);
    DataFile *file;
    assert_int_equal(data_file_open(pool, PATH, &file, err), OK);
    Status status = turns_read(file, file_bytes, threads, take, taken, err);
    assert_false(taken->wrong);
    data_file_close(file);
    file_pool_destroy(pool);
    return status;
}

static void test_every_byte_in_order(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 6; threads++) {
        Error err;
        Taken taken = {0};
        assert_ok(read_all(FILE_BYTES, threads, &taken, &err), &err);
        assert_int_equal(taken.bytes, FILE_BYTES);
        assert_int_equal(taken.calls, 9);
    }
    Error err;
    Taken taken = {0};
    assert_ok(read_all(0, 4, &taken, &err), &err);
    assert_int_equal(taken.calls, 0);
}

static void test_enough_ends_it(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        Error err;
        Taken taken = {.enough_at = 2 << 20};
        assert_ok(read_all(FILE_BYTES, threads, &taken, &err), &err);
        assert_int_equal(taken.calls, 2);
    }
}

static void test_the_first_error_counts(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        Error err;
        Taken taken = {.fail_at = 3 << 20};
        assert_int_equal(read_all(FILE_BYTES, threads, &taken, &err), ERR_UNSUPPORTED);
        assert_string_equal(err.message, "no more than 3145728");
        assert_int_equal(taken.calls, 3);
        /* A file that has become shorter than it was: what is there is taken. */
        taken = (Taken){0};
        assert_int_equal(read_all(FILE_BYTES + (3 << 20), threads, &taken, &err), ERR_DATA);
        assert_non_null(strstr(err.message, PATH));
        assert_int_equal(taken.calls, 8);
    }
}

static void test_threads_of_a_file(void **state)
{
    (void)state;
    assert_int_equal(turns_threads(0), 1);
    assert_int_equal(turns_threads(1 << 20), 1);
    int large = turns_threads(UINT64_C(1) << 40);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    assert_true(large >= 1 && large <= cores);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_in_order),
        cmocka_unit_test(test_enough_ends_it),
        cmocka_unit_test(test_the_first_error_counts),
        cmocka_unit_test(test_threads_of_a_file),
    };
    return cmocka_run_group_tests(tests, write_file, remove_file);
}
