/* Tests of dataset/dataset and its line index: every record of every kind of file, against a
 * naive split; the sidecar; what is refused and how it is said. */
#include "test.h"

#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/files.h"
#include "dataset/dataset.h"
#include "dataset/stream.h"
#include "dataset/index.h"

#define FOLDER "dataset-files"
#define INDEX  FOLDER "/index"
#define HEADS  INDEX "/files.heads"
#define BODIES INDEX "/files.bodies"

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

static Status open_paths(const char *const *path, int num_paths, const char *index_folder,
                         Dataset **ret, Error *err)
{
    DatasetOptions options = {
        .key = "data.train", .path = path, .num_paths = num_paths, .index_folder = index_folder};
    return dataset_open(&options, ret, err);
}

static Dataset *open_one(const char *path, const char *index_folder)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_ok(open_paths(&path, 1, index_folder, &dataset, &err), &err);
    return dataset;
}

static void assert_record(const Dataset *dataset, uint64_t index, const char *expected,
                          size_t length, uint64_t line)
{
    Error err = {0};
    Str text = {0};
    RecordSource source;
    str_puts(&text, "kept");
    assert_ok(dataset_read(dataset, index, &text, &source, &err), &err);
    assert_int_equal(text.length, length + 4);
    assert_memory_equal(text.data, "kept", 4);
    assert_memory_equal(text.data + 4, expected, length);
    assert_int_equal(text.data[text.length], '\0');
    assert_int_equal(source.line, line);
    str_free(&text);
}

static void assert_text_record(const Dataset *dataset, uint64_t index, const char *expected,
                               uint64_t line)
{
    assert_record(dataset, index, expected, strlen(expected), line);
}

/* Splits the plain way, line by line with a look at each byte, and compares every record. */
static void assert_equals_naive_split(const Dataset *dataset, const char *text, size_t length)
{
    uint64_t records = 0, line = 0;
    for (size_t begin = 0; begin < length;) {
        size_t end = begin;
        while (end < length && text[end] != '\n')
            end++;
        line++;
        size_t last = end;
        while (last > begin && strchr(" \t\r", text[last - 1]) != NULL)
            last--;
        if (last > begin) assert_record(dataset, records++, text + begin, last - begin, line);
        begin = end + 1;
    }
    assert_int_equal(dataset_summary(dataset).records, records);
}

static void test_index_equals_naive_split_of_random_files(void **state)
{
    (void)state;
    static const char *const endings[] = {"\n", "\r\n", "\n\n", "\n \t\r\n", "\n\n\n"};
    for (uint64_t trial = 0; trial < 6; trial++) {
        Str text = {0};
        uint64_t counter = 0,
                 bytes = trial < 4 ? 5000 : 3 << 20; /* the long ones cross read blocks */
        str_puts(&text, "{}\n");                     /* or it might be plain text */
        while (text.length < bytes) {
            uint64_t length = rng_below(trial, counter++, trial < 4 ? 12 : 9000);
            for (uint64_t i = 0; i < length; i++)
                str_putc(&text, "{}[] \t\"x:,\xC3\xA9"[(counter * 7 + i * i) % 12]);
            uint64_t ending = trial % 2 == 0 ? 0 : rng_below(trial, counter++, 5);
            str_puts(&text, endings[ending]);
        }
        if (trial == 1) text.length--; /* no end of the last line */
        write_file(FOLDER "/random.jsonl", text.data, text.length);
        Dataset *dataset = open_one(FOLDER "/random.jsonl", trial % 2 == 0 ? INDEX : NULL);
        assert_equals_naive_split(dataset, text.data, text.length);
        dataset_close(dataset);
        str_free(&text);
    }
}

/* A line end, a blank run and a carriage return exactly at the border of two read blocks. */
static void test_index_is_right_at_block_borders(void **state)
{
    (void)state;
    static const char *const borders[] = {"\n{\"b\":1}\n", "}\r\n\n{}", " \n \n{}", "\n",
                                          "\r\n\r\n"};
    for (size_t i = 0; i < sizeof borders / sizeof *borders; i++) {
        size_t length = strlen(borders[i]);
        for (size_t shift = 0; shift <= length; shift++) {
            size_t block = 1 << 20;
            char *text = mem_alloc(block + length);
            memset(text, 'x', block + length);
            memcpy(text + block - shift, borders[i], length);
            write_file(FOLDER "/border.jsonl", text, block + length);
            Dataset *dataset = open_one(FOLDER "/border.jsonl", NULL);
            assert_equals_naive_split(dataset, text, block + length);
            dataset_close(dataset);
            free(text);
        }
    }
}

static void test_line_kinds_are_read_as_meant(void **state)
{
    (void)state;
    write_text(FOLDER "/kinds.jsonl",
               "\xEF\xBB\xBF{\"a\":1}\r\n\n  \r\n{\"b\":2}  \n\t\n {\"c\":3}");
    Dataset *dataset = open_one(FOLDER "/kinds.jsonl", INDEX);
    assert_int_equal(dataset_summary(dataset).records, 3);
    assert_text_record(dataset, 0, "{\"a\":1}", 1);  /* byte order mark and CRLF */
    assert_text_record(dataset, 1, "{\"b\":2}", 4);  /* after blank lines */
    assert_text_record(dataset, 2, " {\"c\":3}", 6); /* last line without an end */
    dataset_close(dataset);
}

static void test_files_and_globs_keep_their_order(void **state)
{
    (void)state;
    Error err = {0};
    write_text(FOLDER "/z.jsonl", "{\"z\":1}\n{\"z\":2}\n");
    write_text(FOLDER "/part-2.jsonl", "{\"p\":2}\n");
    write_text(FOLDER "/part-10.jsonl", "{\"p\":10}\n");
    write_text(FOLDER "/part-1.jsonl", "");
    write_text(FOLDER "/part-B.jsonl", "{\"p\":\"B\"}\n");
    write_text(FOLDER "/part-a.jsonl", "{\"p\":\"a\"}\n");
    write_text(FOLDER "/odd[1]*.jsonl", "{\"odd\":1}\n");
    const char *paths[] = {FOLDER "/z.jsonl", FOLDER "/part-*.jsonl", FOLDER "/odd[1]*.jsonl"};
    Dataset *dataset = NULL;
    assert_ok(open_paths(paths, 3, INDEX, &dataset, &err), &err);
    DatasetSummary summary = dataset_summary(dataset);
    assert_int_equal(summary.records, 7);
    assert_int_equal(summary.files, 7);
    static const char *const expected[] = {"{\"z\":1}",  "{\"z\":2}",     "{\"p\":10}",
                                           "{\"p\":2}",  "{\"p\":\"B\"}", "{\"p\":\"a\"}",
                                           "{\"odd\":1}"};
    for (uint64_t i = 0; i < 7; i++)
        assert_text_record(dataset, i, expected[i], i == 1 ? 2 : 1);
    RecordSource source;
    Str text = {0};
    assert_ok(dataset_read(dataset, 2, &text, &source, &err), &err);
    assert_string_equal(source.path, FOLDER "/part-10.jsonl");
    str_free(&text);
    dataset_close(dataset);
}

static uint64_t files_indexed(const char *path)
{
    Dataset *dataset = open_one(path, INDEX);
    DatasetSummary summary = dataset_summary(dataset);
    assert_null(summary.warning);
    assert_text_record(dataset, 1, "{\"b\":2}", 2);
    dataset_close(dataset);
    return summary.files_indexed;
}

static void flip_byte(const char *path, long offset)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    fclose(file);
}

static char *file_of(int records)
{
    Str text = {0};
    for (int i = 0; i < records; i++)
        str_printf(&text, i == 1 ? "{\"b\":2}\n" : "{\"n\": %d}\n", i);
    return str_take(&text);
}

static void test_sidecar_is_used_again_until_anything_differs(void **state)
{
    (void)state;
    const char *path = FOLDER "/side.jsonl", *text = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
    write_text(path, text);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);

    flip_byte(HEADS, 0);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    flip_byte(HEADS, -9);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    assert_int_equal(truncate(HEADS, 100), 0); /* inside of a head */
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    assert_int_equal(truncate(HEADS, 0), 0);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    assert_int_equal(unlink(BODIES), 0);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);

    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    write_text(
        path,
        "{\"a\":1}\n{\"b\":2}\n{\"c\":4}\n"); /* same size, and its old time: the tail tells */
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(files_indexed(path), 1);
    times[1].tv_nsec ^= 1024; /* the time alone */
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(files_indexed(path), 1);
    write_text(path, "{\"a\":1}\n{\"b\":2}\n{\"c\":4}\n{}\n");
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);

    char *whole = file_of(40000), *other = mem_strdup(whole); /* in the middle, where no hash is */
    write_text(path, whole);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    assert_int_equal(stat(path, &before), 0);
    memset(strchr(other + strlen(other) / 2, '1'), '2', 1);
    write_text(path, other);
    times[1] = before.st_mtim;
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(files_indexed(path), 1);
    assert_int_equal(files_indexed(path), 0);
    free(whole);
    free(other);
}

/* Other files of the folder are not the index's. */
static void test_what_no_start_will_use_is_removed(void **state)
{
    (void)state;
    const char *path = FOLDER "/side.jsonl";
    static const char *const left[] = {INDEX "/side.jsonl-0123456789abcdef.idx",
                                       INDEX "/side.jsonl-0123456789abcdef.idx.tmp-1",
                                       INDEX "/table.parquet-0123456789abcdef.rows"};
    char *text = file_of(40000);
    write_text(path, text); /* large enough for a file of its own, which stays */
    for (int i = 0; i < 3; i++)
        write_text(left[i], "half");
    write_text(INDEX "/stream_0123456789abcdef.json", "{}");
    assert_int_equal(files_indexed(path), 1);
    for (int i = 0; i < 3; i++)
        assert_false(path_exists(left[i]));
    assert_int_equal(files_indexed(path), 0);
    assert_true(path_exists(INDEX "/stream_0123456789abcdef.json"));
    free(text);
}

/* The only file of an index that is that of a data file alone. */
static char *own_file(void)
{
    glob_t found;
    assert_int_equal(glob(INDEX "/*.idx", 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    char *path = mem_strdup(found.gl_pathv[0]);
    globfree(&found);
    return path;
}

/* What is known of the data files cannot be read: that is told, and nothing is concluded from it.
 */
static void test_heads_that_cannot_be_read_remove_nothing(void **state)
{
    (void)state;
    const char *path = FOLDER "/side.jsonl";
    char *text = file_of(40000);
    for (int way = 0; way < 2; way++) {
        make_fresh(FOLDER);
        write_text(path, text);
        assert_int_equal(files_indexed(path), 1);
        char *own = own_file();
        assert_int_equal(rename(HEADS, FOLDER "/aside"), 0);
        if (way == 0) assert_int_equal(mkdir(HEADS, 0755), 0);
        if (way == 1) assert_int_equal(symlink("files.heads", HEADS), 0);
        write_text(FOLDER "/other.jsonl", "{}\n{\"b\":2}\n");
        Dataset *dataset = open_one(FOLDER "/other.jsonl", INDEX);
        const char *warning = dataset_summary(dataset).warning;
        assert_non_null(warning);
        assert_non_null(strstr(warning, "could not read " HEADS));
        assert_text_record(dataset, 1, "{\"b\":2}", 2);
        dataset_close(dataset);
        assert_true(path_exists(own));
        assert_int_equal(remove(HEADS), 0);
        assert_int_equal(rename(FOLDER "/aside", HEADS), 0);
        assert_int_equal(files_indexed(path), 0);
        free(own);
    }
    free(text);
}

/* As many heads more of a name as an index bears that is not begun anew. */
static void supersede(void)
{
    char *bytes = NULL;
    size_t length = 0;
    Error err = {0};
    assert_ok(file_read(HEADS, 1 << 20, &bytes, &length, &err), &err);
    Str heads = {0};
    for (int i = 0; i < 1100; i++)
        str_append(&heads, bytes, length);
    write_file(HEADS, heads.data, heads.length);
    str_free(&heads);
    free(bytes);
}

static void lose_bodies(void)
{
    assert_int_equal(unlink(BODIES), 0);
}

/* The folder is begun anew by a start to which it belongs alone: what an open set uses stays, and
 * is read on when its file was closed for others. */
static void test_what_an_open_set_uses_stays(void **state)
{
    (void)state;
    static void (*const reasons[])(void) = {supersede, lose_bodies};
    char *text = file_of(40000);
    for (int i = 0; i < 2; i++) {
        make_fresh(FOLDER);
        write_text(FOLDER "/side.jsonl", text);
        write_text(FOLDER "/other.jsonl", "{}\n{\"b\":2}\n");
        Dataset *dataset = open_one(FOLDER "/side.jsonl", INDEX);
        char *own = own_file();
        reasons[i]();
        files_indexed(FOLDER "/other.jsonl");
        assert_true(path_exists(own));
        assert_text_record(dataset, 39999, "{\"n\": 39999}", 40000);
        dataset_close(dataset);
        files_indexed(FOLDER "/other.jsonl");
        assert_int_equal(path_exists(own),
                         reasons[i] == lose_bodies); /* its head was lost, or not */
        free(own);
    }
    free(text);
}

static void keep_log(void *context, const char *line)
{
    str_puts(context, line);
}

/* Where somebody has taken the file of an index away, that is what is said, not that the disk is to
 * blame: one that was closed for others is missed then. */
static void test_an_index_that_is_taken_away_is_made_again(void **state)
{
    (void)state;
    Error err = {0};
    Dataset *dataset = NULL;
    Str log = {0};
    const char *path = FOLDER "/side.jsonl";
    char *text = file_of(40000);
    write_text(path, text);
    FilePool *pool = file_pool_create(1);
    DatasetOptions options = {
        .key = "data.train", .path = &path, .num_paths = 1, .index_folder = INDEX, .pool = pool};
    assert_ok(dataset_open(&options, &dataset, &err), &err);
    assert_text_record(dataset, 7, "{\"n\": 7}", 8);
    char *own = own_file();
    assert_int_equal(unlink(own), 0);
    log_set_writer(keep_log, &log);
    assert_text_record(dataset, 39999, "{\"n\": 39999}", 40000);
    log_set_writer(NULL, NULL);
    assert_true(path_exists(own));
    assert_non_null(strstr(str_text(&log), "index_damaged"));
    assert_non_null(strstr(str_text(&log), "idx was removed during the run"));
    assert_null(strstr(str_text(&log), "look after"));
    dataset_close(dataset);
    file_pool_destroy(pool);
    str_free(&log);
    free(own);
    free(text);
}

/* `damage` is done to the file at `path` of an index with the records of file_of(records), before
 * it is opened and while it is open; each record is right nevertheless, and so it is at the next
 * start, which need not make anything again. */
static void assert_survives(const char *path, int records, void (*damage)(const char *path))
{
    for (int open_first = 0; open_first < 2; open_first++) {
        Dataset *dataset = NULL;
        if (open_first) dataset = open_one(FOLDER "/side.jsonl", INDEX);
        damage(path);
        if (!open_first) dataset = open_one(FOLDER "/side.jsonl", INDEX);
        for (int again = 0; again < 2; again++) {
            for (int i = records - 1; i >= 0; i -= 7) {
                char expected[40];
                snprintf(expected, sizeof expected, i == 1 ? "{\"b\":2}" : "{\"n\": %d}", i);
                assert_text_record(dataset, (uint64_t)i, expected, (uint64_t)i + 1);
            }
            dataset_close(dataset);
            dataset = open_one(FOLDER "/side.jsonl", INDEX);
            assert_int_equal(dataset_summary(dataset).files_indexed, 0);
        }
        dataset_close(dataset);
    }
}

static void flip_some(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    for (long at = 100; at < info.st_size; at += 3000)
        flip_byte(path, at);
}

static void cut_half(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size / 2), 0);
}

/* As another file's, or an older one's, that was put in its place. */
static void move_chunk(const char *path)
{
    char chunk[512];
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, chunk, sizeof chunk, 512), sizeof chunk);
    assert_int_equal(pwrite(fd, chunk, sizeof chunk, 0), sizeof chunk);
    close(fd);
}

static void test_a_damaged_index_gives_no_wrong_record(void **state)
{
    (void)state;
    static void (*const damages[])(const char *) = {flip_some, cut_half, move_chunk};
    for (int i = 0; i < 3; i++) {
        for (int large = 0; large < 2; large++) {
            int records = large ? 40000 : 300;
            char *text = file_of(records), *path = mem_strdup(BODIES);
            make_fresh(FOLDER);
            write_text(FOLDER "/side.jsonl", text);
            assert_int_equal(files_indexed(FOLDER "/side.jsonl"), 1);
            if (large) {
                free(path);
                path = own_file();
            }
            /* A table that has become shorter, or is gone, is found at the start. */
            if (!(large && damages[i] == cut_half)) assert_survives(path, records, damages[i]);
            free(path);
            free(text);
        }
    }
}

static void test_sidecar_that_cannot_be_written_is_only_a_warning(void **state)
{
    (void)state;
    write_text(FOLDER "/a.jsonl", "{\"a\":1}\n{\"b\":2}\n");
    write_text(FOLDER "/in-the-way", "");
    Dataset *dataset = open_one(FOLDER "/a.jsonl", FOLDER "/in-the-way/index");
    assert_non_null(strstr(dataset_summary(dataset).warning, "in-the-way"));
    assert_text_record(dataset, 1, "{\"b\":2}", 2);
    dataset_close(dataset);
}

static void assert_refused(const char *path, Status status, const char *expected)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_fails(open_paths(&path, 1, INDEX, &dataset, &err), status, &err, expected);
    assert_non_null(strstr(err.message, "data.train"));
    int lines = 1;
    for (const char *c = err.message; *c != '\0'; c++)
        lines += *c == '\n';
    assert_true(lines <= 6);
    assert_null(dataset);
}

static void test_what_is_no_data_set_is_refused_by_name(void **state)
{
    (void)state;
    Error err = {0};
    write_text(FOLDER "/empty.jsonl", "");
    write_text(FOLDER "/blank.jsonl", "\n \n\r\n");
    write_file(FOLDER "/a.jsonl.gz", "\x1F\x8B\x08\x00", 4);
    write_file(FOLDER "/a.parquet", "PAR1....PAR1", 12);
    write_text(FOLDER "/list.json", "\n[ {\"messages\": []} ]");
    write_file(FOLDER "/wide.jsonl", "\xFF\xFE{\0}\0", 6);
    assert_int_equal(mkfifo(FOLDER "/pipe", 0600), 0);
    assert_refused(FOLDER "/none.jsonl", ERR_NOT_FOUND, "no file matches " FOLDER "/none.jsonl");
    assert_refused(FOLDER "/no-*.jsonl", ERR_NOT_FOUND, "no file matches " FOLDER "/no-*.jsonl");
    assert_refused(FOLDER, ERR_INVALID, FOLDER " holds files of two kinds");
    assert_refused(FOLDER "/empty.jsonl", ERR_DATA, "no record in " FOLDER "/empty.jsonl");
    if (!path_exists(PROJECT_BINARY_DIR "/lib/libtroupe_arrow.so"))
        assert_refused(FOLDER "/a.parquet", ERR_UNSUPPORTED, "deploy/setup.sh --arrow");
    assert_refused(FOLDER "/list.json", ERR_UNSUPPORTED, "jq -c '.[]'");
    assert_refused(FOLDER "/wide.jsonl", ERR_UNSUPPORTED, "iconv");
    assert_refused(FOLDER "/pipe", ERR_INVALID, "not a regular file\n  expected: a file");
    assert_refused(FOLDER "/*.jsonl", ERR_UNSUPPORTED, "wide.jsonl");

    const char *paths[] = {FOLDER "/empty.jsonl", FOLDER "/blank.jsonl"};
    Dataset *dataset = NULL;
    assert_fails(open_paths(paths, 2, INDEX, &dataset, &err), ERR_DATA, &err,
                 FOLDER "/empty.jsonl, " FOLDER "/blank.jsonl");
    assert_fails(open_paths(NULL, 0, INDEX, &dataset, &err), ERR_DATA, &err, "data.train");
}

/* Files are opened by several threads; which one is blamed does not depend on them. */
static void test_first_of_many_bad_files_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        char *path = mem_printf(FOLDER "/part-%02d.jsonl", i);
        write_text(path, i >= 17 && i % 2 == 1 ? "[{}]" : "{\"a\":1}\n");
        free(path);
    }
    for (int i = 0; i < 20; i++)
        assert_refused(FOLDER "/part-*.jsonl", ERR_UNSUPPORTED, "part-17.jsonl is one JSON list");
    Dataset *dataset = open_one(FOLDER "/part-[0-5][02468].jsonl", INDEX);
    assert_int_equal(dataset_summary(dataset).records, 30);
    for (uint64_t i = 0; i < 30; i++)
        assert_int_equal(dataset_file(dataset, (int)i).path[strlen(FOLDER "/part-1")],
                         "02468"[i % 5]);
    dataset_close(dataset);
}

/* A line of 100 MB is refused alone, by name; its neighbours are read. */
static void test_overlong_line_is_refused_alone(void **state)
{
    (void)state;
    const char *path = FOLDER "/long.jsonl";
    write_text(path, "{\"a\":1}\n");
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\n{\"b\":2}\n", 9, 100000000), 9); /* a hole in between */
    close(fd);
    Dataset *dataset = open_one(path, NULL);
    assert_int_equal(dataset_summary(dataset).records, 3);
    Error err = {0};
    Str text = {0};
    RecordSource source;
    assert_fails(dataset_read(dataset, 1, &text, &source, &err), ERR_DATA, &err, "long.jsonl:2");
    assert_int_equal(text.length, 0);
    assert_int_equal(source.line, 2);
    assert_text_record(dataset, 0, "{\"a\":1}", 1);
    assert_text_record(dataset, 2, "{\"b\":2}", 3);
    str_free(&text);
    dataset_close(dataset);
}

/* The longest line that is taken, with more blank lines behind it than a line may have bytes. */
static void test_longest_line_is_read_whole(void **state)
{
    (void)state;
    const char *path = FOLDER "/longest.jsonl";
    size_t length = JSONL_LINE_BYTES_MAX, blank = 3 << 20;
    char *text = mem_alloc(length + blank);
    memset(text, 'y', length);
    memset(text + length, '\n', blank);
    write_file(path, text, length + blank);
    Dataset *dataset = open_one(path, NULL);
    assert_int_equal(dataset_summary(dataset).records, 1);
    assert_record(dataset, 0, text, length, 1);
    dataset_close(dataset);
    free(text);
}

static void test_file_changed_under_the_run_is_noticed(void **state)
{
    (void)state;
    const char *path = FOLDER "/moving.jsonl";
    write_text(path, "{\"a\":1}\n{\"b\":2}\n");
    Dataset *dataset = open_one(path, INDEX);
    Error err = {0};
    Str text = {0};
    RecordSource source;
    assert_int_equal(truncate(path, 10), 0);
    assert_fails(dataset_read(dataset, 1, &text, &source, &err), ERR_IO, &err,
                 "moving.jsonl was changed");
    write_text(path, "{\"a\":1}\n{\"x\":2}\n");
    assert_fails(dataset_read(dataset, 0, &text, &source, &err), ERR_IO, &err,
                 "moving.jsonl was changed");
    assert_int_equal(text.length, 0);
    str_free(&text);
    dataset_close(dataset);
}

static void fingerprint_of(const char *path, OrderKind kind, uint64_t seed,
                           char ret[DIGEST_HEX_BYTES])
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {
        .key = "data.train",
        .path = &path,
        .num_paths = 1,
        .index_folder = INDEX,
        .order = {.kind = kind, .hf_release = HF_5_2, .hf_buffer_size = 100},
        .seed = seed,
    };
    assert_ok(stream_open(&options, &stream, &err), &err);
    stream_fingerprint(stream, ret);
    assert_int_equal(strlen(ret), DIGEST_HEX_BYTES - 1);
    stream_close(stream);
}

static void test_fingerprint_follows_content_and_order_not_names(void **state)
{
    (void)state;
    char first[DIGEST_HEX_BYTES], other[DIGEST_HEX_BYTES];
    write_text(FOLDER "/one.jsonl", "{\"a\":1}\n{\"b\":2}\n");
    write_text(FOLDER "/copy.jsonl", "{\"a\":1}\n{\"b\":2}\n");
    write_text(FOLDER "/edit.jsonl", "{\"a\":1}\n{\"b\":3}\n");
    fingerprint_of(FOLDER "/one.jsonl", ORDER_FULL, 1, first);
    fingerprint_of(FOLDER "/one.jsonl", ORDER_FULL, 1, other);
    assert_string_equal(first, other);
    fingerprint_of(FOLDER "/copy.jsonl", ORDER_FULL, 1, other);
    assert_string_equal(first, other);
    fingerprint_of(FOLDER "/edit.jsonl", ORDER_FULL, 1, other);
    assert_string_not_equal(first, other);
    fingerprint_of(FOLDER "/one.jsonl", ORDER_FULL, 2, other);
    assert_string_not_equal(first, other);
    fingerprint_of(FOLDER "/one.jsonl", ORDER_HF, 1, other);
    assert_string_not_equal(first, other);
    fingerprint_of(FOLDER "/one.jsonl", ORDER_FILES, 1, other);
    assert_string_not_equal(first, other);
    fingerprint_of(FOLDER "/one.jsonl", ORDER_FILES, 2, first); /* a seed that is not used */
    assert_string_equal(first, other);
}

/* ---- the beginning alone ---- */

static Dataset *open_beginning(const char *const *path, int num_paths, uint64_t records_max,
                               ReadWatch *watch)
{
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = {.key = "data.train",
                              .path = path,
                              .num_paths = num_paths,
                              .index_folder = INDEX,
                              .index_read_only = true,
                              .records_max = records_max,
                              .watch = watch};
    assert_ok(dataset_open(&options, &dataset, &err), &err);
    return dataset;
}

static void test_the_first_records_are_those_of_the_whole(void **state)
{
    (void)state;
    write_text(FOLDER "/a.jsonl", "\n{\"a\":1}\n\n \n{\"b\":2}\r\n{\"c\":3}\n\n");
    write_text(FOLDER "/b.jsonl", "{\"d\":4}\n{\"e\":5}");
    static const char *const paths[] = {FOLDER "/a.jsonl", FOLDER "/b.jsonl"};
    static const char *const expected[] = {"{\"a\":1}", "{\"b\":2}", "{\"c\":3}", "{\"d\":4}",
                                           "{\"e\":5}"};
    static const uint64_t lines[] = {2, 5, 6, 1, 2};
    for (uint64_t max = 1; max <= 6; max++) {
        Dataset *dataset = open_beginning(paths, 2, max, NULL);
        uint64_t records = dataset_summary(dataset).records;
        assert_int_equal(records, max < 5 ? max : 5);
        assert_int_equal(dataset_summary(dataset).whole, max >= 5);
        for (uint64_t i = 0; i < records; i++)
            assert_text_record(dataset, i, expected[i], lines[i]);
        dataset_close(dataset);
    }
    assert_false(path_exists(INDEX)); /* nothing was kept of it */
    dataset_close(open_one(paths[0], INDEX));
    Dataset *dataset = open_beginning(paths, 1, 1, NULL); /* the index that is there tells all */
    assert_true(dataset_summary(dataset).whole);
    assert_int_equal(dataset_summary(dataset).records, 3);
    dataset_close(dataset);
}

static void test_the_first_records_cost_no_more_than_they_are_long(void **state)
{
    (void)state;
    const char *path = FOLDER "/large.jsonl";
    write_text(path, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
    assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* a terabyte, most of it a hole */
    ReadWatch watch = {0};
    Dataset *dataset = open_beginning(&path, 1, 2, &watch);
    assert_int_equal(dataset_summary(dataset).records, 2);
    assert_text_record(dataset, 1, "{\"b\":2}", 2);
    assert_true(watch.progress <= 1);
    dataset_close(dataset);
}

/* The hash is XXH3 whichever vectors made it, or an index of another machine would be a lie: as
 * Python's xxhash has it. */
static void test_content_hash_is_xxh3(void **state)
{
    (void)state;
    static const char line[] = "{\"a\":1}\n";
    const size_t length = sizeof line - 1, lines = 100001;
    char *text = mem_alloc(lines * length);
    for (size_t i = 0; i < lines; i++)
        memcpy(text + i * length, line, length);
    write_file(FOLDER "/many.jsonl", text, lines * length);
    Dataset *dataset = open_one(FOLDER "/many.jsonl", NULL);
    assert_int_equal(dataset_summary(dataset).records, lines);
    assert_true(dataset_file(dataset, 0).content_hash == UINT64_C(0xbcfd7689a32b0f21));
    dataset_close(dataset);
    free(text);
}

/* A large file is read by a thread of its own where there is a second core: the index is the same,
 * and whoever wants but the beginning leaves it in the middle. */
static void test_large_file_is_indexed_alike_on_one_core_and_on_more(void **state)
{
    (void)state;
    enum { LINE = 1000, LINES = 40000 };
    const char *path = FOLDER "/large.jsonl";
    char *text = mem_alloc((size_t)LINE * LINES);
    memset(text, 'x', (size_t)LINE * LINES);
    for (size_t i = 0; i < LINES; i++) {
        char *line = text + i * LINE;
        line[sprintf(line, "{\"number\":%zu}", i)] = ' ';
        line[LINE - 1 - rng_below(1, i, LINE / 2)] = '\n'; /* what follows is a line, too */
        line[LINE - 1] = '\n';
    }
    write_file(path, text, (size_t)LINE * LINES);
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    Dataset *many = open_one(path, NULL);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    Dataset *alone = open_one(path, NULL);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_true(dataset_file(many, 0).content_hash == dataset_file(alone, 0).content_hash);
    uint64_t records = dataset_summary(alone).records;
    assert_true(records > LINES);
    assert_int_equal(dataset_summary(many).records, records);
    for (uint64_t i = 0; i < records; i += 997) {
        Error err = {0};
        Str a = {0}, b = {0};
        RecordSource from[2];
        assert_ok(dataset_read(many, i, &a, &from[0], &err), &err);
        assert_ok(dataset_read(alone, i, &b, &from[1], &err), &err);
        assert_string_equal(str_text(&a), str_text(&b));
        assert_int_equal(from[0].line, from[1].line);
        str_free(&a);
        str_free(&b);
    }
    dataset_close(many);
    dataset_close(alone);
    Error err = {0};
    DatasetOptions options = {.key = "data.train", .path = &path, .num_paths = 1, .records_max = 3};
    assert_ok(dataset_open(&options, &many, &err), &err);
    assert_int_equal(dataset_summary(many).records, 3);
    dataset_close(many);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_index_equals_naive_split_of_random_files, fresh_folder),
        cmocka_unit_test_setup(test_index_is_right_at_block_borders, fresh_folder),
        cmocka_unit_test_setup(test_content_hash_is_xxh3, fresh_folder),
        cmocka_unit_test_setup(test_large_file_is_indexed_alike_on_one_core_and_on_more,
                               fresh_folder),
        cmocka_unit_test_setup(test_line_kinds_are_read_as_meant, fresh_folder),
        cmocka_unit_test_setup(test_files_and_globs_keep_their_order, fresh_folder),
        cmocka_unit_test_setup(test_sidecar_is_used_again_until_anything_differs, fresh_folder),
        cmocka_unit_test_setup(test_what_no_start_will_use_is_removed, fresh_folder),
        cmocka_unit_test_setup(test_heads_that_cannot_be_read_remove_nothing, fresh_folder),
        cmocka_unit_test_setup(test_what_an_open_set_uses_stays, fresh_folder),
        cmocka_unit_test_setup(test_an_index_that_is_taken_away_is_made_again, fresh_folder),
        cmocka_unit_test_setup(test_a_damaged_index_gives_no_wrong_record, fresh_folder),
        cmocka_unit_test_setup(test_sidecar_that_cannot_be_written_is_only_a_warning, fresh_folder),
        cmocka_unit_test_setup(test_what_is_no_data_set_is_refused_by_name, fresh_folder),
        cmocka_unit_test_setup(test_first_of_many_bad_files_is_named, fresh_folder),
        cmocka_unit_test_setup(test_overlong_line_is_refused_alone, fresh_folder),
        cmocka_unit_test_setup(test_longest_line_is_read_whole, fresh_folder),
        cmocka_unit_test_setup(test_file_changed_under_the_run_is_noticed, fresh_folder),
        cmocka_unit_test_setup(test_fingerprint_follows_content_and_order_not_names, fresh_folder),
        cmocka_unit_test_setup(test_the_first_records_are_those_of_the_whole, fresh_folder),
        cmocka_unit_test_setup(test_the_first_records_cost_no_more_than_they_are_long,
                               fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
