/* Tests of Parquet and Arrow files: every row of files of every codec, encoding and kind of column
 * equals what pyarrow and Python's json module make of it (make_tables.py); damage is said of the
 * rows that it hits. Passed over in a build without Apache Arrow. */
#include "test.h"

#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/files.h"
#include "dataset/dataset.h"
#include "dataset/stream.h"

#define TABLES  TEST_SOURCE_DIR "/dataset/tables"
#define FOLDER  "table-files"
#define INDEX   FOLDER "/index"
#define LIBRARY PROJECT_BINARY_DIR "/lib/libtroupe_arrow.so"

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

static void need_arrow(void)
{
    if (!path_exists(LIBRARY)) skip();
}

static Status open_status(const char *path, const char *index_folder, uint64_t records_max,
                          Dataset **ret, Error *err)
{
    DatasetOptions options = {.key = "data.train",
                              .path = &path,
                              .num_paths = 1,
                              .index_folder = index_folder,
                              .index_read_only = records_max > 0,
                              .records_max = records_max};
    return dataset_open(&options, ret, err);
}

static Dataset *open_table(const char *path, const char *index_folder)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_ok(open_status(path, index_folder, 0, &dataset, &err), &err);
    return dataset;
}

static Str read_record(const Dataset *dataset, uint64_t index)
{
    Error err = {0};
    Str text = {0};
    RecordSource source;
    assert_ok(dataset_read(dataset, index, &text, &source, &err), &err);
    assert_int_equal(source.line, index + 1);
    return text;
}

static void assert_same_rows(const Dataset *expected, const Dataset *table)
{
    uint64_t records = dataset_summary(expected).records;
    assert_int_equal(dataset_summary(table).records, records);
    for (uint64_t i = 0; i < 2 * records; i++) { /* in their order, then here and there */
        uint64_t index = i < records ? i : rng_below(1, i, records);
        Str a = read_record(expected, index), b = read_record(table, index);
        assert_string_equal(str_text(&a), str_text(&b));
        assert_int_equal(a.length, b.length);
        str_free(&a);
        str_free(&b);
    }
}

/* With a copy of the rows beside the index, of this start and of an earlier one, and without. */
static void compare_files(const char *expected_path, const char *const *names, size_t count)
{
    Dataset *expected = open_table(expected_path, NULL);
    for (size_t i = 0; i < count; i++) {
        print_message("%s\n", names[i]);
        char *path = path_join(TABLES, names[i]);
        for (int round = 0; round < 3; round++) {
            Dataset *table = open_table(path, round < 2 ? INDEX : NULL);
            assert_int_equal(dataset_summary(table).files_indexed, round != 1);
            assert_true(dataset_summary(table).whole);
            assert_same_rows(expected, table);
            dataset_close(table);
        }
        free(path);
    }
    dataset_close(expected);
}

static void test_every_kind_of_column_is_written_as_python_does(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"all.parquet", "file.arrow", "dictionary.arrows"};
    compare_files(TABLES "/all.jsonl", names, 3);
}

static void test_every_codec_and_encoding_gives_the_same_rows(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"none.parquet",  "snappy.parquet",    "gzip.parquet",
                                        "zstd.parquet",  "brotli.parquet",    "lz4.parquet",
                                        "plain.parquet", "encodings.parquet", "zstd.arrows"};
    compare_files(TABLES "/simple.jsonl", names, sizeof names / sizeof *names);
}

static void test_views_are_read(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"views.arrows"};
    compare_files(TABLES "/views.jsonl", names, 1);
}

/* The feature Json of `datasets`: values of any shape in one column. */
static void test_json_columns_stand_as_they_are(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Dataset *expected = open_table(TABLES "/json.jsonl", NULL);
    Dataset *table = open_table(TABLES "/json.parquet", NULL);
    for (uint64_t i = 0; i < 6; i++) {
        Str a = read_record(expected, i), b = read_record(table, i);
        cJSON *values[2] = {NULL};
        assert_ok(json_parse(a.data, a.length, "a", &values[0], &err), &err);
        assert_ok(json_parse(b.data, b.length, "b", &values[1], &err), &err);
        assert_true(cJSON_Compare(values[0], values[1], true));
        cJSON_Delete(values[0]);
        cJSON_Delete(values[1]);
        str_free(&a);
        str_free(&b);
    }
    dataset_close(expected);
    dataset_close(table);
}

/* Who looks at the beginning reads no more of a file than that. */
static void test_beginning_is_read_without_an_index(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Dataset *table = NULL;
    assert_ok(open_status(TABLES "/all.parquet", INDEX, 2, &table, &err), &err);
    assert_true(dataset_summary(table).whole); /* the file says how many rows it has */
    assert_int_equal(dataset_summary(table).records, 23);
    assert_false(path_exists(INDEX));
    Dataset *expected = open_table(TABLES "/all.jsonl", NULL);
    Str a = read_record(expected, 1), b = read_record(table, 1);
    assert_string_equal(str_text(&a), str_text(&b));
    str_free(&a);
    str_free(&b);
    dataset_close(table);
    dataset_close(expected);
}

typedef struct Reading {
    const Dataset *expected, *table;
    uint64_t seed, wrong;
} Reading;

static void *read_main(void *argument)
{
    Reading *reading = argument;
    for (uint64_t i = 0; i < 400; i++) {
        Error err = {0};
        Str texts[2] = {{0}};
        RecordSource source;
        uint64_t index = rng_below(reading->seed, i, dataset_summary(reading->table).records);
        bool same = dataset_read(reading->expected, index, &texts[0], &source, &err) == OK &&
                    dataset_read(reading->table, index, &texts[1], &source, &err) == OK &&
                    strcmp(str_text(&texts[0]), str_text(&texts[1])) == 0;
        reading->wrong += !same;
        str_free(&texts[0]);
        str_free(&texts[1]);
    }
    return NULL;
}

static void test_threads_read_the_same_rows(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"all.parquet", "file.arrow", "dictionary.arrows"};
    Dataset *expected = open_table(TABLES "/all.jsonl", NULL);
    for (int file = 0; file < 3; file++) {
        char *path = path_join(TABLES, names[file]);
        Dataset *table = open_table(path, NULL);
        Reading reading[4];
        pthread_t thread[4];
        for (uint64_t i = 0; i < 4; i++) {
            reading[i] = (Reading){expected, table, i, 0};
            assert_int_equal(pthread_create(&thread[i], NULL, read_main, &reading[i]), 0);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(thread[i], NULL);
            assert_int_equal(reading[i].wrong, 0);
        }
        dataset_close(table);
        free(path);
    }
    dataset_close(expected);
}

static char *copy_table(const char *name, size_t *ret_length)
{
    Error err = {0};
    char *path = path_join(TABLES, name), *bytes = NULL;
    assert_ok(file_read(path, 1 << 20, &bytes, ret_length, &err), &err);
    free(path);
    return bytes;
}

/* ---- large row groups ---- */

/* Record `index` of large.parquet says its number 3000 times. */
static void assert_large_record(const Dataset *table, uint64_t index)
{
    Str expected = {0}, text = read_record(table, index);
    str_puts(&expected, "{\"text\":\"");
    for (int i = 0; i < 3000; i++)
        str_printf(&expected, "%03d ", (int)index);
    str_puts(&expected, "\"}");
    assert_string_equal(str_text(&text), str_text(&expected));
    str_free(&expected);
    str_free(&text);
}

static Dataset *open_large(const char *index_folder, bool in_order)
{
    Error err = {0};
    Dataset *table = NULL;
    const char *path = FOLDER "/large.parquet";
    DatasetOptions options = {.key = "data.train",
                              .path = &path,
                              .num_paths = 1,
                              .index_folder = index_folder,
                              .in_order = in_order};
    assert_ok(dataset_open(&options, &table, &err), &err);
    return table;
}

static off_t bytes_of(const char *pattern)
{
    glob_t found;
    struct stat info = {0};
    if (glob(pattern, 0, NULL, &found) == 0) {
        assert_int_equal(found.gl_pathc, 1);
        assert_int_equal(stat(found.gl_pathv[0], &info), 0);
    }
    globfree(&found);
    return info.st_size;
}

/* A row group that is too large to be decoded for one record: with a copy beside the index, in
 * order without one, and, where nothing can be kept, nevertheless. */
static void test_large_row_groups_are_read_anywhere(void **state)
{
    (void)state;
    need_arrow();
    size_t length = 0;
    char *bytes = copy_table("large.parquet", &length);
    write_file(FOLDER "/large.parquet", bytes, length);
    free(bytes);
    static const struct {
        const char *index_folder;
        bool in_order;
    } cases[] = {{INDEX, false}, {INDEX, false}, {INDEX, true}, {NULL, false}};
    for (size_t c = 0; c < 4; c++) {
        Dataset *table = open_large(cases[c].index_folder, cases[c].in_order);
        assert_int_equal(dataset_summary(table).records, 1000);
        assert_int_equal(dataset_summary(table).files_indexed, c != 1);
        for (uint64_t i = 0; i < (c < 2 ? 300 : 20); i++)
            assert_large_record(table, rng_below(c, i, 1000));
        for (uint64_t i = 0; i < 1000; i += c == 2 ? 1 : 250)
            assert_large_record(table, i);
        dataset_close(table);
    }
    assert_true(bytes_of(INDEX "/*.rows") > 10000);
    assert_true(bytes_of(INDEX "/*.tbl") < 1000);
}

/* A damaged page of it has no copy: the rows that are decoded with it are bad records, those before
 * and behind it are read. */
static void test_damage_in_a_large_row_group_is_told_at_its_rows(void **state)
{
    (void)state;
    need_arrow();
    size_t length = 0;
    char *bytes = copy_table("large.parquet", &length);
    memset(bytes + length / 2, 0x55, 16);
    write_file(FOLDER "/large.parquet", bytes, length);
    free(bytes);
    Dataset *table = open_large(INDEX, false);
    int changes = 0;
    bool bad = false;
    for (uint64_t i = 0; i < 1000; i += 3) {
        Error err = {0};
        Str text = {0};
        RecordSource source;
        Status status = dataset_read(table, i, &text, &source, &err);
        changes += bad != (status != OK);
        bad = status != OK;
        if (bad) assert_fails(status, ERR_DATA, &err, "row group 0");
        if (!bad) assert_large_record(table, i);
        str_free(&text);
    }
    assert_int_equal(changes, 2); /* one stretch of bad ones */
    assert_false(bad);
    dataset_close(table);
}

/* Where none can be kept, somebody is told what that costs and what to do. */
static void test_missing_copy_is_told(void **state)
{
    (void)state;
    need_arrow();
    write_file(FOLDER "/file", "", 0);
    Dataset *table = open_table(TABLES "/large.parquet", FOLDER "/file");
    const char *warning = dataset_summary(table).warning;
    assert_non_null(warning);
    assert_non_null(strstr(warning, FOLDER "/file"));
    assert_non_null(strstr(warning, "row groups of 11 MB"));
    assert_non_null(strstr(warning, "data.order: window"));
    assert_large_record(table, 999);
    dataset_close(table);
    table = open_table(TABLES "/large.parquet", INDEX);
    assert_null(dataset_summary(table).warning);
    dataset_close(table);
}

/* ---- damage ---- */

/* One page of one row group: its rows are bad records with a name, the others are read. */
static void test_damaged_page_costs_its_row_group(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    size_t length = 0;
    char *bytes = copy_table("snappy.parquet", &length);
    bytes[100] ^= 0x55; /* in the first group, of 5 rows */
    write_file(FOLDER "/damaged.parquet", bytes, length);
    free(bytes);
    Dataset *table = open_table(FOLDER "/damaged.parquet", INDEX);
    Dataset *expected = open_table(TABLES "/simple.jsonl", NULL);
    for (uint64_t i = 0; i < 23; i++) {
        Str text = {0};
        RecordSource source;
        if (i < 5) {
            assert_fails(dataset_read(table, i, &text, &source, &err), ERR_DATA, &err,
                         "row group 0");
            assert_non_null(strstr(err.message, "damaged.parquet:"));
            assert_int_equal(source.line, i + 1);
            assert_int_equal(text.length, 0);
        } else {
            Str a = read_record(expected, i), b = read_record(table, i);
            assert_string_equal(str_text(&a), str_text(&b));
            str_free(&a);
            str_free(&b);
        }
        str_free(&text);
    }
    dataset_close(expected);
    dataset_close(table);
}

/* One letter of a text, in a file that is not compressed: nothing but the checksum of its page
 * tells of it. */
static void test_changed_letter_is_told_by_the_checksum(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    size_t length = 0;
    char *bytes = copy_table("none.parquet", &length);
    char *letter = memmem(bytes, length, "plain words", 11);
    assert_non_null(letter);
    *letter = 'P';
    write_file(FOLDER "/letter.parquet", bytes, length);
    free(bytes);
    Dataset *table = open_table(FOLDER "/letter.parquet", INDEX);
    Str text = {0};
    RecordSource source;
    assert_fails(dataset_read(table, 1, &text, &source, &err), ERR_DATA, &err,
                 "letter.parquet:2: row group 0");
    assert_int_equal(source.line, 2);
    str_free(&text);
    text = read_record(table, 22); /* of another row group */
    str_free(&text);
    dataset_close(table);
}

static void test_broken_files_are_refused_by_name(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Dataset *dataset = NULL;
    static const char *const names[] = {"snappy.parquet", "file.arrow", "dictionary.arrows"};
    for (int i = 0; i < 3; i++) {
        size_t length = 0;
        char *bytes = copy_table(names[i], &length);
        char *path = path_join(FOLDER, names[i]);
        write_file(path, bytes, length / 2);
        assert_fails(open_status(path, INDEX, 0, &dataset, &err), ERR_DATA, &err, path);
        assert_non_null(strstr(err.message, i < 2 ? "its end is missing" : "cannot be read as"));
        free(path);
        free(bytes);
    }
    write_file(FOLDER "/a.parquet", "PAR1....PAR1", 12);
    assert_fails(open_status(FOLDER "/a.parquet", INDEX, 0, &dataset, &err), ERR_DATA, &err,
                 "a Parquet file");
}

/* By blocks a table is not read when it is opened; each row comes once an epoch, with its text. */
static void test_a_window_has_each_row_once(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"large.parquet", "snappy.parquet", "file.arrow",
                                        "zstd.arrows"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        Error err = {0};
        char *path = mem_printf("%s/%s", TABLES, names[n]);
        Dataset *table = open_table(path, NULL);
        uint64_t count, index, records = dataset_summary(table).records;
        Stream *stream = NULL;
        StreamOptions options = {.key = "data.train",
                                 .path = (const char *const *)&path,
                                 .num_paths = 1,
                                 .order = {.kind = ORDER_WINDOW, .window_mb = 1},
                                 .seed = 3};
        assert_ok(stream_open(&options, &stream, &err), &err);
        assert_ok(stream_count(stream, &count, &err), &err);
        assert_int_equal(count, records);
        StreamReader *reader = stream_reader_open(stream);
        uint8_t *seen = mem_calloc(count, 1);
        for (uint64_t i = 0; i < count; i++) {
            StreamPlace place;
            StreamRecord record;
            Str text = {0};
            assert_ok(stream_place(reader, i, &place, &err), &err);
            assert_ok(stream_index(reader, &place, &index, &err), &err);
            assert_ok(stream_read(reader, i, &text, &record, &err), &err);
            Str expected = read_record(table, index);
            assert_string_equal(str_text(&text), str_text(&expected));
            assert_int_equal(record.source.line, index + 1);
            assert_int_equal(seen[index]++, 0);
            str_free(&expected);
            str_free(&text);
        }
        free(seen);
        stream_reader_close(reader);
        stream_close(stream);
        dataset_close(table);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_window_has_each_row_once, fresh_folder),
        cmocka_unit_test_setup(test_every_kind_of_column_is_written_as_python_does, fresh_folder),
        cmocka_unit_test_setup(test_every_codec_and_encoding_gives_the_same_rows, fresh_folder),
        cmocka_unit_test_setup(test_views_are_read, fresh_folder),
        cmocka_unit_test_setup(test_json_columns_stand_as_they_are, fresh_folder),
        cmocka_unit_test_setup(test_beginning_is_read_without_an_index, fresh_folder),
        cmocka_unit_test_setup(test_threads_read_the_same_rows, fresh_folder),
        cmocka_unit_test_setup(test_large_row_groups_are_read_anywhere, fresh_folder),
        cmocka_unit_test_setup(test_damage_in_a_large_row_group_is_told_at_its_rows, fresh_folder),
        cmocka_unit_test_setup(test_missing_copy_is_told, fresh_folder),
        cmocka_unit_test_setup(test_damaged_page_costs_its_row_group, fresh_folder),
        cmocka_unit_test_setup(test_changed_letter_is_told_by_the_checksum, fresh_folder),
        cmocka_unit_test_setup(test_broken_files_are_refused_by_name, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
