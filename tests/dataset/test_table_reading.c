/* Tests of how Parquet files are read during a run: as they were opened, whatever becomes of their
 * names; what the system refuses is no fault of a record; texts of which the encodings leave little
 * are read in pieces that can be held; large row groups are read in their order, or from any row on
 * without what lies before it. Passed over in a build without Apache Arrow. */
#include "test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/dataset.h"
#include "dataset/files.h"
#include "dataset/format.h"
#include "dataset/stream.h"
#include "dataset/table_library.h"

#define TABLES   TEST_SOURCE_DIR "/dataset/tables"
#define FOLDER   "table-reading"
#define INDEX    FOLDER "/index"
#define LIBRARY  PROJECT_BINARY_DIR "/lib/libtroupe_arrow.so"
#define REPEATED 200000 /* rows of repeated.parquet */

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

static void copy_file(const char *name, const char *path)
{
    Error err = {0};
    size_t length = 0;
    char *from = path_join(TABLES, name), *bytes = NULL;
    assert_ok(file_read(from, 1 << 20, &bytes, &length, &err), &err);
    write_file(path, bytes, length);
    free(bytes);
    free(from);
}

static Dataset *open_set(const char *path, const char *index_folder, bool by_blocks)
{
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = {.key = "data.train",
                              .path = &path,
                              .num_paths = 1,
                              .index_folder = index_folder,
                              .by_blocks = by_blocks};
    assert_ok(dataset_open(&options, &dataset, &err), &err);
    return dataset;
}

/* Record `index` of large.parquet says its number 3000 times. */
static void assert_large_record(const Dataset *table, uint64_t index)
{
    Error err = {0};
    Str expected = {0}, text = {0};
    RecordSource source;
    assert_ok(dataset_read(table, index, &text, &source, &err), &err);
    str_puts(&expected, "{\"text\":\"");
    for (int i = 0; i < 3000; i++)
        str_printf(&expected, "%03d ", (int)index);
    str_puts(&expected, "\"}");
    assert_string_equal(str_text(&text), str_text(&expected));
    str_free(&expected);
    str_free(&text);
}

static void test_a_file_is_read_as_it_was_opened(void **state)
{
    (void)state;
    need_arrow();
    for (int way = 0; way < 4; way++) {
        bool by_blocks = way % 2 == 1, removed = way / 2 == 1;
        copy_file("large.parquet", FOLDER "/a.parquet");
        copy_file("repeated.parquet", FOLDER "/b.parquet");
        Dataset *table = open_set(FOLDER "/a.parquet", NULL, by_blocks);
        assert_large_record(table, 900); /* of the last piece: nobody reads on behind it */
        if (removed)
            assert_int_equal(unlink(FOLDER "/a.parquet"), 0);
        else
            assert_int_equal(rename(FOLDER "/b.parquet", FOLDER "/a.parquet"), 0);
        assert_large_record(table, 5);
        dataset_close(table);
    }
}

static Status open_file(const FileOpening *opening, Error *err)
{
    const DatasetFormat *format = NULL;
    void *file = NULL;
    TRY(dataset_format_open(opening, &format, &file, err));
    format->close(file);
    return OK;
}

static void set_mode(const char *path)
{
    assert_int_equal(chmod(path, 0600), 0);
}

static void write_again(const char *path)
{
    copy_file("repeated.parquet", path);
}

static void write_lines(const char *path)
{
    write_text(path, "{\"a\": 1}\n{\"b\": 2}\n");
}

/* One that is listed twice, is known to the one opening, and changes before the other, which
 * indexes it anew before the first goes on. */
static void test_a_file_that_changes_between_two_openings_is_named(void **state)
{
    (void)state;
    need_arrow();
    static const struct {
        void (*change)(const char *path);
        Status status;
    } changes[] = {{set_mode, OK}, {write_again, ERR_IO}, {write_lines, ERR_IO}};
    const char *path = FOLDER "/a.parquet";
    for (int i = 0; i < 3; i++) {
        make_fresh(FOLDER);
        copy_file("large.parquet", path);
        DatasetOptions options = {.key = "data.train", .index_folder = INDEX};
        FilePool *pool = file_pool_create(0);
        FileOpening opening = {.path = path,
                               .options = &options,
                               .cache = block_cache_create(1 << 20),
                               .readers = table_readers_create(1 << 20),
                               .folder = index_folder_open(INDEX, false, pool),
                               .pool = pool};
        void *file = NULL;
        Error err = {0};
        assert_ok(open_file(&opening, &err), &err);
        assert_ok(data_file_open(pool, path, &opening.file, &err), &err);
        opening.known = dataset_table.known(&opening);
        assert_true(opening.known);
        changes[i].change(path);
        assert_ok(open_file(&opening, &err), &err);
        Status status = dataset_table.open(&opening, &file, &err);
        assert_int_equal(status, changes[i].status);
        if (status != OK) assert_non_null(strstr(err.message, FOLDER "/a.parquet changed while"));
        dataset_table.close(file);
        index_folder_close(opening.folder);
        table_readers_destroy(opening.readers);
        block_cache_destroy(opening.cache);
        file_pool_destroy(pool);
    }
}

/* A file that is written anew in its place is found out. */
static void test_a_file_that_is_cut_ends_the_reading(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Str text = {0};
    RecordSource source;
    copy_file("large.parquet", FOLDER "/a.parquet");
    Dataset *table = open_set(FOLDER "/a.parquet", NULL, true);
    assert_large_record(table, 0);
    assert_int_equal(truncate(FOLDER "/a.parquet", 1000), 0);
    assert_fails(dataset_read(table, 900, &text, &source, &err), ERR_IO, &err,
                 "a.parquet was changed during the run");
    str_free(&text);
    dataset_close(table);
}

/* The descriptor with which this process has opened a file. */
static int descriptor_of(const char *name)
{
    int found = -1;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char target[4096], link[300];
        snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length <= 0) continue;
        target[length] = '\0';
        if (strstr(target, name) != NULL) found = atoi(entry->d_name);
    }
    closedir(folder);
    return found;
}

/* A descriptor that cannot be read stands for a disk that cannot. */
static void test_what_the_system_refuses_is_no_bad_record(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Str text = {0};
    RecordSource source;
    copy_file("large.parquet", FOLDER "/refused.parquet");
    Dataset *table = open_set(FOLDER "/refused.parquet", NULL, true);
    int fd = descriptor_of("refused.parquet"), kept = dup(fd);
    int broken = open(FOLDER "/refused.parquet", O_WRONLY);
    assert_true(fd >= 0 && kept >= 0 && broken >= 0);
    assert_int_equal(dup2(broken, fd), fd);
    for (int i = 0; i < 2; i++)
        assert_fails(dataset_read(table, 900, &text, &source, &err), ERR_IO, &err,
                     "refused.parquet could not be read");
    assert_int_equal(dup2(kept, fd), fd);
    assert_large_record(table, 900);
    close(broken);
    close(kept);
    str_free(&text);
    dataset_close(table);
}

/* ---- rows of which the encodings leave little ---- */

static void assert_repeated_record(const char *text, uint64_t index)
{
    char end[64];
    snprintf(end, sizeof end, "so very helpful.\",\"id\":%llu}", (unsigned long long)index);
    assert_int_equal(strncmp(text, "{\"system\":\"You are so very ", 26), 0);
    assert_true(strlen(text) > 4000);
    assert_string_equal(strstr(text, "so very helpful"), end);
}

static void test_texts_that_are_repeated_are_read_in_pieces(void **state)
{
    (void)state;
    need_arrow();
    static const uint64_t index[] = {0, 1, REPEATED / 2, REPEATED - 1, 70000};
    Dataset *table = open_set(TABLES "/repeated.parquet", NULL, false);
    assert_int_equal(dataset_summary(table).records, REPEATED);
    for (size_t i = 0; i < sizeof index / sizeof *index; i++) {
        Error err = {0};
        Str text = {0};
        RecordSource source;
        assert_ok(dataset_read(table, index[i], &text, &source, &err), &err);
        assert_repeated_record(str_text(&text), index[i]);
        str_free(&text);
    }
    dataset_close(table);
}

static Stream *open_window(const char *const *path, int num_paths)
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = path,
                             .num_paths = num_paths,
                             .order = {.kind = ORDER_WINDOW, .window_mb = 16},
                             .seed = 3};
    assert_ok(stream_open(&options, &stream, &err), &err);
    return stream;
}

/* A row group is as large as its JSON; its blocks come in their order, those of few at once. */
static void test_a_window_goes_through_large_row_groups_in_order(void **state)
{
    (void)state;
    need_arrow();
    char *path[8];
    for (int i = 0; i < 8; i++) {
        path[i] = mem_printf("%s/%d.parquet", FOLDER, i);
        copy_file("repeated.parquet", path[i]);
    }
    Stream *stream = open_window((const char *const *)path, 8);
    const Dataset *dataset = stream_dataset(stream);
    StreamReader *reader = stream_reader_open(stream);
    uint64_t blocks = dataset_num_blocks(dataset), most = 0;
    assert_true(blocks > 8 * 50);
    uint64_t *first = mem_calloc(blocks, sizeof *first), *last = mem_calloc(blocks, sizeof *last);
    for (uint64_t p = 0; p < 8 * REPEATED; p++) {
        Error err = {0};
        StreamPlace place;
        assert_ok(stream_place(reader, p, &place, &err), &err);
        if (first[place.block] == 0) first[place.block] = p + 1;
        last[place.block] = p + 1;
    }
    for (uint64_t b = 0; b < blocks; b++) {
        assert_true(first[b] > 0);
        if (dataset_block_run(dataset, b) == b) continue;
        assert_true(first[b - 1] < last[b]); /* in the same window, or one before */
        uint64_t run = dataset_block_run(dataset, b);
        assert_int_equal(dataset_block_run(dataset, run), run);
    }
    for (int i = 0; i < 8; i++) { /* how many files are being read where one begins */
        uint64_t from, to, begun = 0, f, t;
        dataset_file_blocks(dataset, i, &from, &to);
        for (int k = 0; k < 8; k++) {
            dataset_file_blocks(dataset, k, &f, &t);
            begun += first[f] <= first[from] && last[t - 1] >= first[from];
        }
        if (begun > most) most = begun;
    }
    assert_in_range(most, 2, 5); /* one may end in the window in which the next begins */
    free(first);
    free(last);
    stream_reader_close(reader);
    stream_close(stream);
    for (int i = 0; i < 8; i++)
        free(path[i]);
}

static void test_a_window_has_the_rows_of_large_row_groups(void **state)
{
    (void)state;
    need_arrow();
    const char *path = TABLES "/repeated.parquet";
    Stream *stream = open_window(&path, 1);
    StreamReader *reader = stream_reader_open(stream);
    for (uint64_t p = 0; p < 12000; p++) {
        Error err = {0};
        Str text = {0};
        StreamRecord record;
        uint64_t index = 0;
        assert_ok(stream_read(reader, p, &text, &record, &err), &err);
        assert_ok(stream_index(reader, &record.place, &index, &err), &err);
        if (p % 10 == 0) assert_repeated_record(str_text(&text), index);
        str_free(&text);
    }
    stream_reader_close(reader);
    stream_close(stream);
}

/* ---- from a row on ---- */

#define PAGED_ROWS 69 /* of the files of many pages */

static const TableLibrary *load_library(void)
{
    TableLibraryFunction *function = NULL;
    void *library = dlopen(LIBRARY, RTLD_NOW);
    if (library != NULL) *(void **)&function = dlsym(library, TABLE_LIBRARY_SYMBOL);
    assert_non_null(function);
    return function();
}

static bool read_descriptor(void *file, void *bytes, size_t length, uint64_t offset,
                            char message[TABLE_MESSAGE_BYTES])
{
    snprintf(message, TABLE_MESSAGE_BYTES, "it cannot be read");
    return pread((int)(intptr_t)file, bytes, length, (off_t)offset) == (ssize_t)length;
}

static TableInput input_of(int fd)
{
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    return (TableInput){(void *)(intptr_t)fd, (uint64_t)info.st_size, read_descriptor, NULL};
}

/* The rows [begin, end) of the first group, decoded in steps; NULL: they are damaged. */
static TableRows *read_rows(const TableLibrary *library, const TableHandle *handle, uint64_t step,
                            uint64_t begin, uint64_t end)
{
    TableFault fault;
    TableReader *reader = NULL;
    TableRows *rows = NULL;
    size_t bytes = 0;
    assert_true(library->open_reader(handle, 0, step, &reader, &fault));
    bool fine = (library->skip)(reader, begin, &fault) && /* no macro of cmocka */
                library->read(reader, end - begin, &rows, &bytes, &fault);
    if (!fine) assert_int_equal(fault.kind, TABLE_FAULT_DATA);
    library->close_reader(reader);
    return rows;
}

static void assert_same_row(const TableRows *a, uint64_t a_row, const TableRows *b, uint64_t b_row)
{
    uint64_t length = a->offset[a_row + 1] - a->offset[a_row];
    assert_int_equal(b->offset[b_row + 1] - b->offset[b_row], length);
    assert_memory_equal((const char *)a + a->offset[a_row], (const char *)b + b->offset[b_row],
                        length);
}

/* Columns of every kind, whose pages end in other rows each: they stay side by side. */
static void test_rows_behind_others_are_the_same(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {
        "pages.parquet",      "pages-2.parquet",    "pages-checked.parquet", "pages-none.parquet",
        "pages-gzip.parquet", "pages-zstd.parquet", "pages-brotli.parquet",  "pages-lz4.parquet"};
    static const uint64_t steps[] = {1, 4, 7, 30};
    const uint64_t stride = PAGED_ROWS / TEST_RUNS(PAGED_ROWS);
    const TableLibrary *library = load_library();
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        TableFault fault;
        TableHandle *handle = NULL;
        char *path = path_join(TABLES, names[n]);
        int fd = open(path, O_RDONLY);
        TableInput input = input_of(fd);
        print_message("%s\n", names[n]);
        assert_true(library->open(&input, TABLE_PARQUET, NULL, 0, &handle, &fault));
        TableRows *all = read_rows(library, handle, PAGED_ROWS, 0, PAGED_ROWS);
        assert_non_null(all);
        for (uint64_t row = 1; row < PAGED_ROWS; row += stride) {
            uint64_t step = steps[row / stride % 4];
            TableRows *rest = read_rows(library, handle, step, row, PAGED_ROWS);
            assert_non_null(rest);
            for (uint64_t i = row; i < PAGED_ROWS; i++)
                assert_same_row(all, i, rest, i - row);
            free(rest);
        }
        free(all);
        library->close(handle);
        close(fd);
        free(path);
    }
}

/* What is passed over is not decoded: damage in it, which ends a reading of all rows, costs those
 * that were decoded with it alone. Where lists begin is believed of a page that says what it holds
 * by a checksum only when that is right. */
static void test_damage_is_passed_over_with_its_pages(void **state)
{
    (void)state;
    need_arrow();
    static const struct {
        const char *name, *column; /* a text in it, in the first quarter of the file's rows */
        bool passed;
    } cases[] = {{"pages-none.parquet", "quotes", true},
                 {"pages-checked.parquet", "quotes", false}};
    const TableLibrary *library = load_library();
    for (size_t c = 0; c < 2; c++) {
        Error err = {0};
        TableFault fault;
        TableHandle *handle = NULL;
        size_t length = 0;
        char *from = path_join(TABLES, cases[c].name), *bytes = NULL;
        assert_ok(file_read(from, 1 << 20, &bytes, &length, &err), &err);
        char *text = memmem(bytes, length, cases[c].column, strlen(cases[c].column));
        assert_non_null(text);
        memset(text - 4, 0x7F, 4); /* how long it is */
        write_file(FOLDER "/damaged.parquet", bytes, length);
        int fd = open(FOLDER "/damaged.parquet", O_RDONLY);
        TableInput input = input_of(fd);
        assert_true(library->open(&input, TABLE_PARQUET, NULL, 0, &handle, &fault));
        assert_null(read_rows(library, handle, 4, 0, PAGED_ROWS));
        TableRows *rest = read_rows(library, handle, 4, 40, PAGED_ROWS);
        assert_int_equal(rest != NULL, cases[c].passed);
        free(rest);
        library->close(handle);
        close(fd);
        free(bytes);
        free(from);
    }
}

/* Pages with bytes of chance in them give rows or a fault, wherever one begins to read. */
static void test_pages_of_chance_are_passed_over_or_refused(void **state)
{
    (void)state;
    need_arrow();
    static const char *const names[] = {"pages.parquet", "pages-2.parquet", "pages-lz4.parquet",
                                        "pages-none.parquet"};
    const TableLibrary *library = load_library();
    uint64_t whole = 0;
    for (uint64_t i = 0; i < TEST_RUNS(200); i++) {
        Error err = {0};
        TableFault fault;
        TableHandle *handle = NULL;
        size_t length = 0;
        char *from = path_join(TABLES, names[i % 4]), *bytes = NULL;
        assert_ok(file_read(from, 1 << 20, &bytes, &length, &err), &err);
        for (uint64_t k = 0; k < 1 + i % 3; k++) /* in front of the footer */
            bytes[4 + rng_below(i, k, length / 2)] ^= (char)(1 + rng_below(i, 8 + k, 255));
        write_file(FOLDER "/chance.parquet", bytes, length);
        int fd = open(FOLDER "/chance.parquet", O_RDONLY);
        TableInput input = input_of(fd);
        assert_true(library->open(&input, TABLE_PARQUET, NULL, 0, &handle, &fault));
        TableRows *rows =
            read_rows(library, handle, 4, 1 + rng_below(i, 20, PAGED_ROWS - 1), PAGED_ROWS);
        whole += rows != NULL;
        free(rows);
        library->close(handle);
        close(fd);
        free(bytes);
        free(from);
    }
    assert_in_range(whole, TEST_RUNS(20), TEST_RUNS(200) - 1);
}

/* ---- what a footer says ---- */

static void test_counts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    need_arrow();
    Error err = {0};
    Dataset *dataset = NULL;
    size_t length = 0, at = 0;
    char *bytes = NULL;
    const char *path = FOLDER "/counts.parquet";
    assert_ok(file_read(TABLES "/large.parquet", 1 << 20, &bytes, &length, &err), &err);
    for (size_t i = 0; i + 3 < length; i++)
        if (memcmp(bytes + i, "\x16\xD0\x0F", 3) == 0) at = i; /* 1000, of the row group */
    assert_true(at > 0);
    memcpy(bytes + at, "\x16\xFE\x7F", 3); /* 8191 */
    write_file(path, bytes, length);
    free(bytes);
    DatasetOptions options = {.key = "data.train", .path = &path, .num_paths = 1};
    assert_fails(dataset_open(&options, &dataset, &err), ERR_DATA, &err, "row group 0");
    assert_non_null(strstr(err.message, "8191 rows"));
    assert_non_null(strstr(err.message, path));
}

/* ---- copies of rows ---- */

/* They can be made again from the file, which is there: nobody has to stop for them. */
static void test_a_damaged_copy_is_read_from_the_file(void **state)
{
    (void)state;
    need_arrow();
    glob_t found;
    copy_file("large.parquet", FOLDER "/copied.parquet");
    Dataset *table = open_set(FOLDER "/copied.parquet", INDEX, false);
    assert_large_record(table, 3);
    assert_int_equal(glob(INDEX "/*.rows", 0, NULL, &found), 0);
    off_t bytes = 0;
    int fd = open(found.gl_pathv[0], O_RDWR);
    assert_true(fd >= 0 && (bytes = lseek(fd, 0, SEEK_END)) > 20000);
    char *zeros = mem_calloc(1, (size_t)bytes / 2);
    assert_int_equal(pwrite(fd, zeros, (size_t)bytes / 2, 4096), bytes / 2);
    close(fd);
    free(zeros);
    globfree(&found);
    for (uint64_t i = 0; i < 1000; i += 37)
        assert_large_record(table, i);
    dataset_close(table);
}

static off_t bytes_of_copy(void)
{
    glob_t found;
    struct stat info = {0};
    if (glob(INDEX "/*.rows", 0, NULL, &found) == 0) stat(found.gl_pathv[0], &info);
    globfree(&found);
    return info.st_size;
}

/* Opens the file with the index on a disk of so many bytes; needs the right to mount. */
static void copy_on_small_disk(off_t bytes, const char *told)
{
    bool fits = told == NULL;
    char size[32];
    snprintf(size, sizeof size, "size=%lld", (long long)bytes);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", INDEX, "tmpfs", 0, size) != 0)
        _exit(77);
    Dataset *table = open_set(FOLDER "/copied.parquet", INDEX, false);
    const char *warning = dataset_summary(table).warning;
    if (fits != (warning == NULL) || fits != (bytes_of_copy() > 0)) _exit(1);
    if (!fits && (strstr(warning, told) == NULL || strstr(warning, "make room") == NULL)) _exit(2);
    assert_large_record(table, 999);
    glob_t found;
    int left = glob(INDEX "/*.rows*", 0, NULL, &found);
    if (!fits && left != GLOB_NOMATCH) _exit(3); /* nothing is left behind */
    _exit(0);
}

/* While it is made a copy takes no more of the disk than it will; where that is not there it is
 * said, and the rows are read from the file. */
static void test_a_copy_takes_its_room_once(void **state)
{
    (void)state;
    need_arrow();
    copy_file("large.parquet", FOLDER "/copied.parquet");
    Dataset *table = open_set(FOLDER "/copied.parquet", INDEX, false);
    dataset_close(table);
    off_t bytes = bytes_of_copy();
    assert_true(bytes > 100000);
    const struct {
        off_t bytes;
        const char *told;
    } cases[] = {{bytes * 5 / 4, NULL}, {bytes / 2, "No space left"}, {4096, "0.0 MB free"}};
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) copy_on_small_disk(cases[i].bytes, cases[i].told);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77) skip();
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_file_is_read_as_it_was_opened, fresh_folder),
        cmocka_unit_test_setup(test_a_file_that_changes_between_two_openings_is_named,
                               fresh_folder),
        cmocka_unit_test_setup(test_a_file_that_is_cut_ends_the_reading, fresh_folder),
        cmocka_unit_test_setup(test_what_the_system_refuses_is_no_bad_record, fresh_folder),
        cmocka_unit_test_setup(test_texts_that_are_repeated_are_read_in_pieces, fresh_folder),
        cmocka_unit_test_setup(test_a_window_goes_through_large_row_groups_in_order, fresh_folder),
        cmocka_unit_test_setup(test_a_window_has_the_rows_of_large_row_groups, fresh_folder),
        cmocka_unit_test_setup(test_rows_behind_others_are_the_same, fresh_folder),
        cmocka_unit_test_setup(test_damage_is_passed_over_with_its_pages, fresh_folder),
        cmocka_unit_test_setup(test_pages_of_chance_are_passed_over_or_refused, fresh_folder),
        cmocka_unit_test_setup(test_counts_that_cannot_be_are_refused, fresh_folder),
        cmocka_unit_test_setup(test_a_damaged_copy_is_read_from_the_file, fresh_folder),
        cmocka_unit_test_setup(test_a_copy_takes_its_room_once, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
