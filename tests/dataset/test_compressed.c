/* Tests of compressed JSONL: every record of gzip and zstd files of every make equals that of the
 * plain file, in any order and from any thread; what is damaged is one record with a name; the
 * index serves again and is refused where it does not fit. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/files.h"
#include "dataset/makes.h"
#include "dataset/dataset.h"
#include "dataset/shuffle.h"

#define FOLDER "compressed-files"
#define INDEX  FOLDER "/index"

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

/* ---- comparing ---- */

static Status open_status(const char *path, const char *index_folder, Dataset **ret, Error *err)
{
    DatasetOptions options = {
        .key = "data.train", .path = &path, .num_paths = 1, .index_folder = index_folder};
    return dataset_open(&options, ret, err);
}

static Dataset *open_file(const char *path, const char *index_folder)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_ok(open_status(path, index_folder, &dataset, &err), &err);
    return dataset;
}

/* Whether record `index` is the same in both, line number included. */
static bool same_record(const Dataset *a, const Dataset *b, uint64_t index)
{
    Error err = {0};
    Str texts[2] = {{0}};
    RecordSource source[2];
    bool same = dataset_read(a, index, &texts[0], &source[0], &err) == OK &&
                dataset_read(b, index, &texts[1], &source[1], &err) == OK &&
                texts[0].length == texts[1].length &&
                memcmp(texts[0].data, texts[1].data, texts[0].length) == 0 &&
                source[0].line == source[1].line;
    str_free(&texts[0]);
    str_free(&texts[1]);
    return same;
}

static void assert_same(const Dataset *plain, const Dataset *compressed, uint64_t reads)
{
    DatasetSummary summary = dataset_summary(plain), other = dataset_summary(compressed);
    assert_int_equal(summary.records, other.records);
    assert_int_equal(summary.bytes, other.bytes);
    char fingerprint[2][DIGEST_HEX_BYTES];
    dataset_fingerprint(plain, "shuffle\n", fingerprint[0]);
    dataset_fingerprint(compressed, "shuffle\n", fingerprint[1]);
    assert_string_equal(fingerprint[0], fingerprint[1]);
    Permutation order = permutation_of(3, 0, summary.records);
    for (uint64_t i = 0; i < summary.records && i < reads; i++)
        assert_true(same_record(plain, compressed, permutation_at(&order, i)));
    for (uint64_t i = 0; i < 300 && i < summary.records; i++)
        assert_true(same_record(plain, compressed, i));
    assert_true(same_record(plain, compressed, summary.records - 1));
}

static void compare_makes(Member *member, const Make *makes, size_t count, const char *path)
{
    Str text = make_text(5 << 20);
    write_file(FOLDER "/plain.jsonl", text.data, text.length);
    Dataset *plain = open_file(FOLDER "/plain.jsonl", INDEX);
    for (size_t i = 0; i < count; i++) {
        print_message("%s\n", makes[i].name);
        Str bytes = compress_text(&text, member, &makes[i]);
        write_file(path, bytes.data, bytes.length);
        str_free(&bytes);
        Dataset *kept = open_file(path, INDEX);
        assert_int_equal(dataset_summary(kept).files_indexed, 1);
        assert_same(plain, kept, 400);
        dataset_close(kept);
        kept = open_file(path, INDEX);
        assert_int_equal(dataset_summary(kept).files_indexed, 0);
        assert_same(plain, kept, 60);
        dataset_close(kept);
        Dataset *unkept = open_file(path, NULL);
        assert_same(plain, unkept, 60);
        dataset_close(unkept);
    }
    dataset_close(plain);
    str_free(&text);
}

static void test_gzip_of_every_make_equals_the_plain_file(void **state)
{
    (void)state;
    static const Make makes[] = {
        {.name = "one member", .level = 6},
        {.name = "stored", .level = 0},
        {.name = "synchronised", .level = 1, .flush = Z_SYNC_FLUSH},
        {.name = "independent stretches", .level = 6, .flush = Z_FULL_FLUSH},
        {.name = "blocks of 64 KB (bgzip)", .level = 6, .unit = 65280},
        {.name = "members of 3 MB, padded", .level = 6, .unit = 3 << 20, .padded = true},
    };
    compare_makes(gzip_member, makes, sizeof makes / sizeof *makes, FOLDER "/a.jsonl.gz");
}

static void test_zstd_of_every_make_equals_the_plain_file(void **state)
{
    (void)state;
    static const Make makes[] = {
        {.name = "one frame", .level = 3},
        {.name = "fast", .level = -5},
        {.name = "frames of 100 KB among others", .level = 3, .unit = 100000, .padded = true},
        {.name = "frames of 3 MB", .level = 1, .unit = 3 << 20},
    };
    compare_makes(zstd_frame, makes, sizeof makes / sizeof *makes, FOLDER "/a.jsonl.zst");
}

typedef struct Reading {
    const Dataset *plain, *compressed;
    uint64_t seed, wrong;
} Reading;

static void *read_main(void *argument)
{
    Reading *reading = argument;
    uint64_t records = dataset_summary(reading->plain).records;
    for (uint64_t i = 0; i < 150; i++)
        reading->wrong +=
            !same_record(reading->plain, reading->compressed, rng_below(reading->seed, i, records));
    return NULL;
}

static void test_threads_read_the_same(void **state)
{
    (void)state;
    Str text = make_text(6 << 20);
    Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
    write_file(FOLDER "/plain.jsonl", text.data, text.length);
    write_file(FOLDER "/a.jsonl.gz", bytes.data, bytes.length);
    Reading reading[8];
    pthread_t thread[8];
    Dataset *plain = open_file(FOLDER "/plain.jsonl", NULL);
    Dataset *compressed = open_file(FOLDER "/a.jsonl.gz", INDEX);
    for (uint64_t i = 0; i < 8; i++) {
        reading[i] = (Reading){plain, compressed, i / 2, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, read_main, &reading[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(reading[i].wrong, 0);
    }
    dataset_close(plain);
    dataset_close(compressed);
    str_free(&text);
    str_free(&bytes);
}

/* What is left out by a slice is closed, and what was decoded of it is not taken for the text of a
 * file that is opened in its place. */
static void test_files_beside_a_slice_are_read_right(void **state)
{
    (void)state;
    Error err = {0};
    for (int i = 0; i < 8; i++) {
        Str text = {0};
        str_printf(&text, "{\"file\": %d}\n", i);
        Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
        char *path = mem_printf(FOLDER "/part-%d.jsonl.gz", i);
        write_file(path, bytes.data, bytes.length);
        free(path);
        str_free(&text);
        str_free(&bytes);
    }
    const char *paths[] = {FOLDER "/part-*.gz@[3:4]", FOLDER "/part-0.jsonl.gz",
                           FOLDER "/part-[56].jsonl.gz@[1:]", FOLDER "/part-7.jsonl.gz"};
    static const char expected[] = "3067";
    DatasetOptions options = {.key = "data.train", .path = paths, .num_paths = 4};
    Dataset *dataset = NULL;
    assert_ok(dataset_open(&options, &dataset, &err), &err);
    assert_int_equal(dataset_summary(dataset).records, 4);
    for (uint64_t i = 0; i < 4; i++) {
        Str text = {0};
        RecordSource source;
        assert_ok(dataset_read(dataset, i, &text, &source, &err), &err);
        assert_int_equal(text.data[text.length - 2], expected[i]);
        str_free(&text);
    }
    dataset_close(dataset);
}

/* All that one gzip block can blow up to: text is held in blocks of 2 MiB nevertheless. */
static void test_text_that_compresses_a_thousandfold_is_read(void **state)
{
    (void)state;
    Str text = {0};
    for (int i = 0; i < 3; i++) {
        str_reserve(&text, text.length + (20u << 20) + 16);
        memset(text.data + text.length, 'x', 20u << 20);
        text.length += 20u << 20;
        str_puts(&text, "\n{}\n");
    }
    write_file(FOLDER "/plain.jsonl", text.data, text.length);
    Dataset *plain = open_file(FOLDER "/plain.jsonl", NULL);
    for (int i = 0; i < 2; i++) {
        Str bytes = compress_text(&text, i == 0 ? gzip_member : zstd_frame, &(Make){.level = 6});
        assert_true(bytes.length < text.length / 500);
        write_file(FOLDER "/bomb.jsonl", bytes.data, bytes.length);
        Dataset *compressed = open_file(FOLDER "/bomb.jsonl", i == 0 ? INDEX : NULL);
        assert_same(plain, compressed, 6);
        dataset_close(compressed);
        str_free(&bytes);
    }
    dataset_close(plain);
    str_free(&text);
}

/* ---- damage ---- */

/* Opens `bytes` as a file: the records before the damage are those of `plain` (of those behind
 * `sure` nobody can know), and then one is refused with a message that contains `expected`. */
static void assert_damaged(const Dataset *plain, const char *path, const Str *bytes, uint64_t sure,
                           const char *expected)
{
    Error err = {0};
    write_file(path, bytes->data, bytes->length);
    for (int round = 0; round < 2; round++) { /* the damage is kept with the index */
        Dataset *damaged = open_file(path, INDEX);
        assert_int_equal(dataset_summary(damaged).files_indexed, round == 0);
        uint64_t last = dataset_summary(damaged).records - 1;
        assert_true(last <= dataset_summary(plain).records);
        for (uint64_t i = 0; i < 20; i++)
            assert_true(same_record(plain, damaged, rng_below(5, i, last < sure ? last : sure)));
        if (last < sure) assert_true(same_record(plain, damaged, last - 1));
        Str text = {0};
        RecordSource source;
        assert_fails(dataset_read(damaged, last, &text, &source, &err), ERR_DATA, &err, expected);
        assert_int_equal(text.length, 0);
        char *place = mem_printf("%s:%llu: ", path, (unsigned long long)source.line);
        assert_memory_equal(err.message, place, strlen(place));
        free(place);
        dataset_close(damaged);
    }
}

static void assert_is_bad_record(const char *message)
{
    Error err = {0};
    Str record = {0};
    RecordSource source;
    Dataset *torn = open_file(FOLDER "/torn", INDEX);
    assert_int_equal(dataset_summary(torn).records, 1);
    assert_fails(dataset_read(torn, 0, &record, &source, &err), ERR_DATA, &err, message);
    str_free(&record);
    dataset_close(torn);
}

/* The policy for bad records decides about it as about any other. */
static void test_file_torn_before_its_first_record_is_one_bad_record(void **state)
{
    (void)state;
    Str text = make_text(100000), bytes[2];
    bytes[0] = compress_text(&text, gzip_member, &(Make){.level = 6});
    bytes[1] = compress_text(&text, zstd_frame, &(Make){.level = 6});
    for (int i = 0; i < 2; i++) {
        static const size_t left[] = {6, 11, 50, 200};
        for (size_t k = 0; k < 4; k++) {
            write_file(FOLDER "/torn", bytes[i].data, left[k]);
            assert_is_bad_record(FOLDER "/torn:1: the file ends too early");
        }
        str_free(&bytes[i]);
    }
    write_file(FOLDER "/torn", "\x1F\x8B\x08\0\0\0\0\0\0\3garbage", 17);
    assert_is_bad_record("fetch or write the file again");
    str_free(&text);
}

static void test_damaged_gzip_is_one_record_with_a_name(void **state)
{
    (void)state;
    Str text = make_text(5 << 20);
    write_file(FOLDER "/plain.jsonl", text.data, text.length);
    Dataset *plain = open_file(FOLDER "/plain.jsonl", NULL);
    Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
    const char *path = FOLDER "/a.jsonl.gz";

    Str cut = bytes;
    static const size_t lost[] = {1, 8, 9, 1000, 1000000};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        cut.length = bytes.length - lost[i];
        assert_damaged(plain, path, &cut, UINT64_MAX, "the file ends too early");
    }
    bytes.data[bytes.length - 6] ^= 1;
    assert_damaged(plain, path, &bytes, UINT64_MAX, "the checksum differs");
    bytes.data[bytes.length - 6] ^= 1;
    memset(bytes.data + bytes.length / 2, 0xFF, 64);
    assert_damaged(plain, path, &bytes, 1000, "in the gzip member that begins at 0;");
    str_free(&bytes);
    bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
    str_puts(&bytes, "{\"a\": 1}\n");
    assert_damaged(plain, path, &bytes, UINT64_MAX, "not gzip");
    str_free(&bytes);
    dataset_close(plain);
    str_free(&text);
}

static void test_damaged_zstd_is_one_record_with_a_name(void **state)
{
    (void)state;
    Str text = make_text(5 << 20);
    write_file(FOLDER "/plain.jsonl", text.data, text.length);
    Dataset *plain = open_file(FOLDER "/plain.jsonl", NULL);
    Str bytes = compress_text(&text, zstd_frame, &(Make){.level = 3, .unit = 500000});
    const char *path = FOLDER "/a.jsonl.zst";

    Str cut = bytes;
    static const size_t lost[] = {1, 4, 1000, 1000000};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        cut.length = bytes.length - lost[i];
        assert_damaged(plain, path, &cut, UINT64_MAX, "the file ends too early");
    }
    bytes.data[bytes.length - 2] ^= 1;
    assert_damaged(plain, path, &bytes, UINT64_MAX, "checksum");
    bytes.data[bytes.length - 2] ^= 1;
    str_puts(&bytes, "{\"a\": 1}\n");
    assert_damaged(plain, path, &bytes, UINT64_MAX, "Unknown frame descriptor");
    str_free(&bytes);
    dataset_close(plain);
    str_free(&text);
}

static void test_compressed_list_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    Dataset *dataset = NULL;
    Str text = {0};
    str_puts(&text, "[{\"messages\": []}]");
    Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
    write_file(FOLDER "/list.json.gz", bytes.data, bytes.length);
    assert_fails(open_status(FOLDER "/list.json.gz", INDEX, &dataset, &err), ERR_UNSUPPORTED, &err,
                 "one JSON list");
    str_free(&text);
    str_free(&bytes);
}

/* A byte of the file is another although its time and size are the same: said, never trained. */
static void test_file_that_changed_unseen_is_noticed(void **state)
{
    (void)state;
    Error err = {0};
    const char *path = FOLDER "/a.jsonl.gz";
    Str text = make_text(3 << 20), record = {0};
    Str bytes = compress_text(&text, gzip_member, &(Make){.level = 0});
    write_file(path, bytes.data, bytes.length);
    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    Dataset *dataset = open_file(path, INDEX);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "@", 1, (off_t)bytes.length / 2), 1);
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    RecordSource source;
    uint64_t records = dataset_summary(dataset).records, refused = 0;
    for (uint64_t i = 0; i < records; i += 10) {
        str_clear(&record);
        Status status = dataset_read(dataset, i, &record, &source, &err);
        assert_true(status == OK || status == ERR_IO);
        refused += status != OK;
    }
    assert_true(refused > 0 && refused < records / 10);
    assert_non_null(strstr(err.message, "does not give the text with which it was indexed"));
    dataset_close(dataset);
    str_free(&text);
    str_free(&bytes);
    str_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_gzip_of_every_make_equals_the_plain_file, fresh_folder),
        cmocka_unit_test_setup(test_zstd_of_every_make_equals_the_plain_file, fresh_folder),
        cmocka_unit_test_setup(test_threads_read_the_same, fresh_folder),
        cmocka_unit_test_setup(test_files_beside_a_slice_are_read_right, fresh_folder),
        cmocka_unit_test_setup(test_text_that_compresses_a_thousandfold_is_read, fresh_folder),
        cmocka_unit_test_setup(test_file_torn_before_its_first_record_is_one_bad_record,
                               fresh_folder),
        cmocka_unit_test_setup(test_damaged_gzip_is_one_record_with_a_name, fresh_folder),
        cmocka_unit_test_setup(test_damaged_zstd_is_one_record_with_a_name, fresh_folder),
        cmocka_unit_test_setup(test_compressed_list_is_refused, fresh_folder),
        cmocka_unit_test_setup(test_file_that_changed_unseen_is_noticed, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
