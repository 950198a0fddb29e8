/* Tests of many data files: how many of them are open at a time, what becomes of one that was
 * closed for others, and that a data set of any order is read with few descriptors. */
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/file_pool.h"
#include "dataset/files.h"
#include "dataset/makes.h"
#include "dataset/stream.h"

#define FOLDER      "many-files"
#define INDEX       FOLDER "/index"
#define FILES       300
#define RECORDS     3 /* of a file */
#define DESCRIPTORS 64

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

static char *name_of(int file, const char *ending)
{
    return mem_printf(FOLDER "/part-%03d.%s", file, ending);
}

/* Files 0, 1, ... hold the bytes of their number. */
static void write_numbers(int count)
{
    for (int i = 0; i < count; i++) {
        char *path = name_of(i, "txt"), text[8];
        snprintf(text, sizeof text, "%06d\n", i);
        write_text(path, text);
        free(path);
    }
}

/* But for "." and "..". */
static int count_entries(const char *path)
{
    int count = -2;
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static int count_descriptors(void)
{
    return count_entries("/proc/self/fd") - 1; /* that of the listing */
}

static void open_numbers(FilePool *pool, DataFile **file, int count)
{
    Error err = {0};
    for (int i = 0; i < count; i++) {
        char *path = name_of(i, "txt");
        assert_ok(data_file_open(pool, path, &file[i], &err), &err);
        free(path);
    }
}

static void assert_number(DataFile *file, int number)
{
    Error err = {0};
    char text[8], expected[8];
    snprintf(expected, sizeof expected, "%06d\n", number);
    assert_ok(data_file_read(file, text, 7, 0, &err), &err);
    assert_memory_equal(text, expected, 7);
}

static void test_no_more_are_open_than_the_bound(void **state)
{
    (void)state;
    enum { COUNT = 40, BOUND = 10 };
    DataFile *file[COUNT];
    int before = count_descriptors(), held, fd;
    Error err = {0};
    write_numbers(COUNT);
    FilePool *pool = file_pool_create(BOUND);
    open_numbers(pool, file, COUNT);
    assert_int_equal(count_descriptors(), before + BOUND);
    assert_ok(data_file_take(file[7], &held, &err), &err);
    for (int i = 0; i < 1000; i++) {
        int number = (int)rng_below(1, (uint64_t)i, COUNT);
        assert_number(file[number], number);
        assert_true(count_descriptors() <= before + BOUND);
    }
    assert_ok(data_file_take(file[7], &fd, &err), &err);
    assert_int_equal(fd, held); /* who uses it keeps it */
    data_file_give(file[7]);
    data_file_give(file[7]);
    for (int i = 0; i < COUNT; i++)
        data_file_close(file[i]);
    file_pool_destroy(pool);
    assert_int_equal(count_descriptors(), before);
}

typedef struct Crowd {
    DataFile **file;
    int count;
    uint64_t seed;
    bool wrong;
} Crowd;

static void *crowd_main(void *argument)
{
    Crowd *crowd = argument;
    for (uint64_t i = 0; i < 5000; i++) {
        char text[8], expected[8];
        int number = (int)rng_below(crowd->seed, i, (uint64_t)crowd->count);
        snprintf(expected, sizeof expected, "%06d\n", number);
        if (data_file_read(crowd->file[number], text, 7, 0, NULL) != OK ||
            memcmp(text, expected, 7) != 0 || data_file_check(crowd->file[number], NULL) != OK)
            crowd->wrong = true;
    }
    return NULL;
}

static void test_threads_read_the_right_files(void **state)
{
    (void)state;
    enum { COUNT = 30, THREADS = 4 };
    DataFile *file[COUNT];
    pthread_t thread[THREADS];
    Crowd crowd[THREADS];
    write_numbers(COUNT);
    FilePool *pool = file_pool_create(8);
    open_numbers(pool, file, COUNT);
    for (int i = 0; i < THREADS; i++) {
        crowd[i] = (Crowd){file, COUNT, (uint64_t)i, false};
        assert_int_equal(pthread_create(&thread[i], NULL, crowd_main, &crowd[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_false(crowd[i].wrong);
    }
    for (int i = 0; i < COUNT; i++)
        data_file_close(file[i]);
    file_pool_destroy(pool);
}

static void touch(const char *path)
{
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
}

static void replace(const char *path)
{
    write_text(FOLDER "/other", "000000\n");
    assert_int_equal(rename(FOLDER "/other", path), 0);
}

static void take_away(const char *path)
{
    assert_int_equal(unlink(path), 0);
}

/* Until the time of its last change has moved, however coarse that is. */
static void set_mode(const char *path)
{
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    do {
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(stat(path, &after), 0);
    } while (after.st_ctim.tv_sec == before.st_ctim.tv_sec &&
             after.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
}

static void link_again(const char *path)
{
    set_mode(path);
    assert_int_equal(link(path, FOLDER "/linked"), 0);
}

/* What is said of a file is not its content. */
static void test_a_file_of_which_only_mode_or_links_change_is_read_on(void **state)
{
    (void)state;
    static void (*const changes[])(const char *path) = {set_mode, link_again};
    for (int i = 0; i < 2; i++) {
        enum { COUNT = 20 };
        DataFile *file[COUNT];
        Error err = {0};
        char *path = name_of(0, "txt");
        write_numbers(COUNT);
        FilePool *pool = file_pool_create(8);
        open_numbers(pool, file, COUNT);
        changes[i](path);
        assert_number(file[0], 0); /* it was closed for others to be open */
        assert_ok(data_file_check(file[0], &err), &err);
        for (int k = 0; k < COUNT; k++)
            data_file_close(file[k]);
        file_pool_destroy(pool);
        free(path);
    }
}

/* The first file, closed for others to be open, and one that stays open. */
static void test_a_file_that_is_opened_again_is_the_same(void **state)
{
    (void)state;
    static const struct {
        void (*change)(const char *path);
        const char *said;
    } changes[] = {{touch, "was changed during the run"},
                   {replace, "was replaced during the run"},
                   {take_away, "was removed during the run"}};
    for (int i = 0; i < 3; i++) {
        enum { COUNT = 20 };
        DataFile *file[COUNT];
        Error err = {0};
        char text[7], *path = name_of(0, "txt");
        int fd;
        write_numbers(COUNT);
        FilePool *pool = file_pool_create(8);
        open_numbers(pool, file, COUNT);
        assert_ok(data_file_take(file[19], &fd, &err), &err);
        changes[i].change(path);
        free(path);
        assert_fails(data_file_read(file[0], text, 7, 0, &err), ERR_IO, &err, changes[i].said);
        assert_non_null(strstr(err.message, "part-000.txt"));
        path = name_of(19, "txt");
        if (changes[i].change != touch) changes[i].change(path);
        free(path);
        assert_number(file[19], 19); /* as it was opened */
        data_file_give(file[19]);
        for (int k = 0; k < COUNT; k++)
            data_file_close(file[k]);
        file_pool_destroy(pool);
    }
}

static rlim_t limit_descriptors(rlim_t most)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = most;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

/* Where others hold what the pool counts on, it makes do with less; with none at all it says so. */
static void test_a_full_process_is_told(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    DataFile *file[COUNT], *more = NULL;
    Error err = {0};
    int taken[DESCRIPTORS], num_taken = 0, fd;
    write_numbers(COUNT);
    rlim_t before = limit_descriptors(DESCRIPTORS);
    FilePool *pool = file_pool_create(COUNT), *other = file_pool_create(COUNT);
    open_numbers(pool, file, COUNT);
    while (num_taken < DESCRIPTORS && (fd = open("/dev/null", O_RDONLY)) >= 0)
        taken[num_taken++] = fd;
    assert_fails(data_file_open(other, FOLDER "/part-003.txt", &more, &err), ERR_RESOURCE, &err,
                 "this process has the 64 files open that it may");
    assert_non_null(strstr(err.message, "ulimit -n 256"));
    assert_ok(data_file_open(pool, FOLDER "/part-003.txt", &more, &err), &err);
    assert_number(more, 3);
    for (int i = 0; i < COUNT; i++)
        assert_number(file[i], i);
    data_file_close(more);
    for (int i = 0; i < COUNT; i++)
        data_file_close(file[i]);
    while (num_taken > 0)
        close(taken[--num_taken]);
    limit_descriptors(before);
    file_pool_destroy(pool);
    file_pool_destroy(other);
}

/* ---- data sets ---- */

static void write_set(const char *ending, bool packed)
{
    for (int i = 0; i < FILES; i++) {
        Str text = {0};
        char *path = name_of(i, ending);
        for (int k = 0; k < RECORDS; k++)
            str_printf(&text, "{\"n\": %d}\n", i * RECORDS + k);
        if (packed) {
            Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
            write_file(path, bytes.data, bytes.length);
            str_free(&bytes);
        } else {
            write_file(path, text.data, text.length);
        }
        str_free(&text);
        free(path);
    }
}

static Stream *open_set(const char *pattern, DataOrder order, const char *index_folder)
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = &pattern,
                             .num_paths = 1,
                             .index_folder = index_folder,
                             .order = order,
                             .seed = 7};
    assert_ok(stream_open(&options, &stream, &err), &err);
    return stream;
}

/* An epoch has each record once. */
static void assert_epoch(const Stream *stream)
{
    bool seen[FILES * RECORDS] = {false};
    Error err = {0};
    StreamReader *reader = stream_reader_open(stream);
    for (uint64_t i = 0; i < FILES * RECORDS; i++) {
        Str text = {0};
        StreamRecord record;
        assert_ok(stream_read(reader, i, &text, &record, &err), &err);
        int number = atoi(str_text(&text) + strlen("{\"n\": "));
        assert_true(number >= 0 && number < FILES * RECORDS && !seen[number]);
        seen[number] = true;
        str_free(&text);
    }
    stream_reader_close(reader);
}

static void assert_known(const Stream *stream)
{
    DatasetSummary summary = dataset_summary(stream_dataset(stream));
    assert_int_equal(summary.files, FILES);
    assert_int_equal(summary.files_indexed, 0);
    assert_null(summary.warning);
}

static void test_every_order_makes_do_with_few_descriptors(void **state)
{
    (void)state;
    static const DataOrder orders[] = {
        {.kind = ORDER_FILES},
        {.kind = ORDER_FULL},
        {.kind = ORDER_WINDOW, .window_mb = 16},
        {.kind = ORDER_HF, .hf_release = HF_5_2, .hf_buffer_size = 100},
    };
    rlim_t before = limit_descriptors(DESCRIPTORS);
    for (int packed = 0; packed < 2; packed++) {
        const char *pattern = packed ? FOLDER "/*.jsonl.gz" : FOLDER "/*.jsonl";
        write_set(packed ? "jsonl.gz" : "jsonl", packed);
        for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
            for (int again = 0; again < 2; again++) {
                Stream *stream = open_set(pattern, orders[i], INDEX);
                assert_epoch(stream);
                if (again) assert_known(stream);
                stream_close(stream);
                assert_int_equal(count_entries(INDEX), 2); /* however many files the set has */
            }
            Stream *stream = open_set(pattern, orders[i], NULL);
            assert_epoch(stream);
            stream_close(stream);
        }
    }
    limit_descriptors(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_no_more_are_open_than_the_bound, fresh_folder),
        cmocka_unit_test_setup(test_threads_read_the_right_files, fresh_folder),
        cmocka_unit_test_setup(test_a_file_that_is_opened_again_is_the_same, fresh_folder),
        cmocka_unit_test_setup(test_a_file_of_which_only_mode_or_links_change_is_read_on,
                               fresh_folder),
        cmocka_unit_test_setup(test_a_full_process_is_told, fresh_folder),
        cmocka_unit_test_setup(test_every_order_makes_do_with_few_descriptors, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
