/* Tests of the order `window` and of data sets by blocks: each record once an epoch and the text
 * that the index finds, whenever and wherever somebody begins to read, whether the blocks were
 * counted before or not; a file that changed where no probe looks is named. */
#include "test.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <zlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/files.h"
#include "dataset/block_text.h"
#include "dataset/stream.h"
#include "dataset/window.h"

#define FOLDER   "window-files"
#define INDEX    FOLDER "/index"
#define LARGE    FOLDER "/a-large.jsonl"
#define FILES    8
#define SLICED   "c-middle.jsonl@[100:700]"
#define EXPECTED 40000 /* no more records are made */

static const char *const paths[FILES] = {
    LARGE,
    FOLDER "/b-empty.jsonl",
    FOLDER "/c-middle.jsonl",
    FOLDER "/d-small.jsonl",
    FOLDER "/e-packed.jsonl.gz",
    FOLDER "/f-blank.jsonl",
    FOLDER "/g-exact.jsonl",
    FOLDER "/" SLICED,
};

/* Lines of 20 bytes to 12 KB, some of them blank, some with a carriage return; `long_at`: one of 5
 * MB, which begins in one block, covers another and ends in a third. */
static Str make_text(uint64_t seed, size_t bytes, uint64_t long_at)
{
    Str text = {0};
    for (uint64_t line = 0; text.length < bytes; line++) {
        str_printf(&text, "{\"seed\": %llu, \"n\": %llu, \"text\": \"", (unsigned long long)seed,
                   (unsigned long long)line);
        size_t length = rng_below(seed, line, line % 30 == 0 ? 12000 : 900);
        if (long_at > 0 && line == long_at) length = 5u << 20;
        str_reserve(&text, text.length + length + 8);
        memset(text.data + text.length, 'a' + (int)(line % 26), length);
        text.length += length;
        str_puts(&text, line % 97 == 0 ? "\"}\r\n\n \t\n" : "\"}\n");
    }
    return text;
}

static void write_str(const char *path, Str text)
{
    write_file(path, text.data, text.length);
    str_free(&text);
}

/* Blank lines over more than a block, and a last line without an end. */
static void write_blanks(const char *path)
{
    Str text = make_text(7, 100 << 10, 0);
    size_t length = TEXT_BLOCK_BYTES + 4097;
    str_reserve(&text, text.length + length);
    memset(text.data + text.length, ' ', length);
    text.length += length;
    str_puts(&text, "\n{\"last\": 1}\n\n\n{\"very last\": 2}");
    write_str(path, text);
}

/* Lines that end exactly where a block does. */
static void write_exact(const char *path)
{
    Str text = {0};
    for (int block = 0; block < 3; block++) {
        for (int i = 0; i < 2; i++) {
            str_printf(&text, "{\"block\": %d, \"line\": %d, \"text\": \"", block, i);
            size_t end =
                (size_t)block * TEXT_BLOCK_BYTES + (size_t)(i + 1) * (TEXT_BLOCK_BYTES / 2);
            str_reserve(&text, end + 1);
            memset(text.data + text.length, 'x', end - text.length - 3);
            text.length = end - 3;
            str_puts(&text, "\"}\n");
        }
    }
    write_str(path, text);
}

static void write_packed(const char *path, size_t bytes)
{
    Str text = make_text(5, bytes, 0);
    gzFile file = gzopen(path, "wb1");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text.data, (unsigned)text.length), text.length);
    assert_int_equal(gzclose(file), Z_OK);
    str_free(&text);
}

static int make_files(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    Str marked = {0}, text = make_text(1, 14 << 20, 777);
    str_puts(&marked, "\xEF\xBB\xBF");
    str_append(&marked, text.data, text.length);
    str_free(&text);
    write_str(LARGE, marked);
    write_text(paths[1], "\n  \n");
    write_str(paths[2], make_text(3, 5 << 20, 0));
    write_text(paths[3], "{\"one\": 1}\n");
    write_packed(paths[4], 3 << 20);
    write_blanks(paths[5]);
    write_exact(paths[6]);
    return 0;
}

static Stream *open_stream(OrderKind kind, const char *folder, const char *const *path,
                           int num_paths)
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = path,
                             .num_paths = num_paths,
                             .index_folder = folder,
                             .order = {.kind = kind, .window_mb = 5},
                             .seed = 11};
    assert_ok(stream_open(&options, &stream, &err), &err);
    return stream;
}

/* The texts of all records, in the order of the files, by the index. */
static char **read_all(uint64_t *ret_count, RecordSource *ret_source)
{
    Error err = {0};
    Stream *stream = open_stream(ORDER_FILES, NULL, paths, FILES);
    StreamReader *reader = stream_reader_open(stream);
    *ret_count = stream_records(stream);
    assert_true(*ret_count <= EXPECTED);
    char **all = mem_calloc(*ret_count, sizeof *all);
    for (uint64_t i = 0; i < *ret_count; i++) {
        Str text = {0};
        StreamRecord record;
        assert_ok(stream_read(reader, i, &text, &record, &err), &err);
        all[i] = str_take(&text);
        ret_source[i] = record.source;
        for (int k = 0; k < FILES; k++) /* in place of what the stream has */
            if (strcmp(paths[k], record.source.path) == 0) ret_source[i].path = paths[k];
    }
    stream_reader_close(reader);
    stream_close(stream);
    return all;
}

static void free_all(char **all, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        free(all[i]);
    free(all);
}

static void test_each_record_comes_once_an_epoch_with_its_text(void **state)
{
    (void)state;
    Error err = {0};
    uint64_t count, counted;
    static RecordSource source[EXPECTED];
    char **all = read_all(&count, source);
    Stream *stream = open_stream(ORDER_WINDOW, NULL, paths, FILES);
    StreamReader *reader = stream_reader_open(stream);
    uint64_t *first = mem_alloc(count * sizeof *first), moved = 0;
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        uint8_t *seen = mem_calloc(count, 1);
        for (uint64_t i = 0; i < count; i++) {
            Str text = {0};
            StreamRecord record;
            StreamPlace place;
            uint64_t index;
            assert_ok(stream_read(reader, epoch * count + i, &text, &record, &err), &err);
            assert_ok(stream_place(reader, epoch * count + i, &place, &err), &err);
            assert_ok(stream_index(reader, &place, &index, &err), &err);
            assert_int_equal(record.place.epoch, epoch);
            assert_true(index < count);
            assert_int_equal(seen[index]++, 0);
            assert_string_equal(str_text(&text), all[index]);
            assert_string_equal(record.source.path, source[index].path);
            if (record.source.line > 0) assert_int_equal(record.source.line, source[index].line);
            if (epoch == 0) first[i] = index;
            if (epoch == 1) { /* all is counted */
                assert_true(record.source.line > 0);
                moved += first[i] != index;
            }
            str_free(&text);
        }
        free(seen);
    }
    assert_true(moved > count / 2);
    assert_ok(stream_count(stream, &counted, &err), &err);
    assert_int_equal(counted, count);
    assert_int_equal(stream_records(stream), count);
    free(first);
    stream_reader_close(reader);
    stream_close(stream);
    free_all(all, count);
}

typedef struct Walk {
    const Stream *stream;
    uint64_t first, count;
    uint64_t *hash; /* [count]: of texts */
} Walk;

static void *walk_main(void *argument)
{
    Walk *walk = argument;
    Error err = {0};
    StreamReader *reader = stream_reader_open(walk->stream);
    Str text = {0};
    for (uint64_t i = 0; i < walk->count; i++) {
        StreamRecord record;
        str_clear(&text);
        if (stream_read(reader, walk->first + i, &text, &record, &err) != OK) break;
        walk->hash[i] = rng_key(text.length, str_text(&text));
    }
    str_free(&text);
    stream_reader_close(reader);
    return NULL;
}

static void walk(const Stream *stream, uint64_t first, uint64_t count, uint64_t *ret_hash)
{
    Walk one = {stream, first, count, ret_hash};
    walk_main(&one);
}

/* Whoever begins anywhere, before anything is counted, with a table that is half full or whole, and
 * with any number of threads, gets the same. */
static void test_order_does_not_depend_on_what_was_counted_when(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    Error err = {0};
    uint64_t count;
    char fingerprint[3][DIGEST_HEX_BYTES];
    Stream *stream = open_stream(ORDER_WINDOW, NULL, paths, FILES);
    assert_ok(stream_count(stream, &count, &err), &err);
    uint64_t total = 2 * count + 100;
    uint64_t *expected = mem_calloc(total, sizeof *expected);
    walk(stream, 0, total, expected);
    stream_fingerprint(stream, fingerprint[0]);
    stream_close(stream);

    static const double begins[] = {0.99, 0, 0.3, 1.5};
    for (size_t i = 0; i < 4; i++) {
        if (i != 2) make_fresh(INDEX);
        uint64_t first = (uint64_t)(begins[i] * (double)count), found[200] = {0};
        for (int again = 0; again < 2; again++) {
            stream = open_stream(ORDER_WINDOW, INDEX, paths, FILES);
            walk(stream, first, 200, found);
            assert_memory_equal(found, expected + first, sizeof found);
            stream_fingerprint(stream, fingerprint[1]);
            assert_string_equal(fingerprint[0], fingerprint[1]);
            stream_close(stream);
        }
    }

    make_fresh(INDEX);
    stream = open_stream(ORDER_WINDOW, INDEX, paths, FILES);
    uint64_t *found = mem_calloc(total, sizeof *found), each = total / THREADS;
    Walk part[THREADS];
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        uint64_t begin = each * (uint64_t)i, length = i == THREADS - 1 ? total - begin : each;
        part[i] = (Walk){stream, begin, length, found + begin};
        assert_int_equal(pthread_create(&thread[i], NULL, walk_main, &part[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    assert_memory_equal(found, expected, total * sizeof *found);
    stream_close(stream);
    free(found);
    free(expected);
}

/* Records of one window have been drawn from a stretch of the files no larger than it. */
static void test_a_window_reads_no_more_than_its_blocks(void **state)
{
    (void)state;
    Error err = {0};
    const char *path = LARGE;
    Stream *stream = open_stream(ORDER_WINDOW, NULL, &path, 1);
    const Dataset *dataset = stream_dataset(stream);
    StreamReader *reader = stream_reader_open(stream);
    uint64_t count, blocks = dataset_num_blocks(dataset), changes = 0;
    assert_int_equal(blocks, (14 << 20) / TEXT_BLOCK_BYTES + 1);
    assert_ok(stream_count(stream, &count, &err), &err);
    uint64_t first_at[64] = {0}, last_at[64] = {0}, seen[64] = {0};
    for (uint64_t i = 0; i < count; i++) {
        StreamPlace place;
        assert_ok(stream_place(reader, i, &place, &err), &err);
        if (seen[place.block]++ == 0) first_at[place.block] = i;
        last_at[place.block] = i;
    }
    for (uint64_t a = 0; a < blocks; a++) {
        uint64_t together = 0;
        for (uint64_t b = 0; b < blocks && seen[a] > 0; b++)
            together += seen[b] > 0 && first_at[b] <= last_at[a] && first_at[a] <= last_at[b];
        assert_true(together <= 3); /* 5 MB of 2 MB each */
        changes += together > 1;
    }
    assert_true(changes > 3);
    stream_reader_close(reader);
    stream_close(stream);
}

static Stream *open_seed(const char *path, int64_t window_mb, uint64_t seed)
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = &path,
                             .num_paths = 1,
                             .index_folder = INDEX,
                             .order = {.kind = ORDER_WINDOW, .window_mb = window_mb},
                             .seed = seed};
    assert_ok(stream_open(&options, &stream, &err), &err);
    return stream;
}

/* The correlation of place in the file and place in the epoch, of seed after seed, has the mean 0,
 * whether the epoch is one window or four; and one window is as good as a permutation of all: each
 * sixteenth of the file has its share of each sixteenth of the epoch. */
static void test_no_part_of_the_file_comes_earlier_than_another(void **state)
{
    (void)state;
    enum { SEEDS = 80, GRID = 16 };
    Error err = {0};
    for (int64_t window_mb = 5; window_mb <= 64; window_mb += 59) {
        double sum = 0, squares = 0, chi = 0, cells = 0;
        uint32_t cell[GRID * GRID] = {0};
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            Stream *stream = open_seed(LARGE, window_mb, seed);
            StreamReader *reader = stream_reader_open(stream);
            uint64_t count, index;
            assert_ok(stream_count(stream, &count, &err), &err);
            double mean = (double)(count - 1) / 2, product = 0;
            for (uint64_t i = 0; i < count; i++) {
                StreamPlace place;
                assert_ok(stream_place(reader, i, &place, &err), &err);
                assert_ok(stream_index(reader, &place, &index, &err), &err);
                product += ((double)i - mean) * ((double)index - mean);
                cell[i * GRID / count * GRID + index * GRID / count]++;
            }
            double rank = 12 * product / ((double)count * (double)count * (double)count);
            sum += rank;
            squares += rank * rank;
            cells = (double)count * SEEDS / (GRID * GRID);
            stream_reader_close(reader);
            stream_close(stream);
        }
        double sigma = sqrt(squares / SEEDS / SEEDS); /* of the mean */
        if (fabs(sum / SEEDS) > 4 * sigma) fail_msg("%g, %g", sum / SEEDS, sigma);
        for (int i = 0; i < GRID * GRID; i++)
            chi += (cell[i] - cells) * (cell[i] - cells) / cells;
        double z = (chi - GRID * GRID) / sqrt(2.0 * GRID * GRID);
        if (window_mb == 64 && fabs(z) > 4) fail_msg("chi-square is off by %g sigma", z);
    }
}

/* In place, of the same size, the time set back, and where the probe of the file does not look. */
static void change_a_byte(const char *path, off_t offset)
{
    struct stat info;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(pwrite(fd, "\n", 1, offset), 1);
    struct timespec times[2] = {info.st_atim, info.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

static void test_a_file_that_changed_in_the_middle_is_named(void **state)
{
    (void)state;
    const char *path = FOLDER "/changing.jsonl";
    char fingerprint[2][DIGEST_HEX_BYTES];
    uint64_t count;
    Error err = {0};
    write_str(path, make_text(9, 9 << 20, 0));
    make_fresh(INDEX);
    Stream *stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    assert_ok(stream_count(stream, &count, &err), &err);
    stream_fingerprint(stream, fingerprint[0]);
    stream_close(stream);
    change_a_byte(path, 3 * TEXT_BLOCK_BYTES + 4711);
    stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    stream_fingerprint(stream, fingerprint[1]);
    assert_string_equal(fingerprint[0], fingerprint[1]); /* nobody has looked there */
    StreamReader *reader = stream_reader_open(stream);
    Status status = OK;
    Str text = {0};
    for (uint64_t i = 0; i < count && status == OK; i++) {
        StreamRecord record;
        status = stream_read(reader, i, &text, &record, &err);
    }
    assert_fails(status, ERR_IO, &err,
                 "changing.jsonl was changed since its records were counted: between its bytes "
                 "6291456 and 8388608");
    str_free(&text);
    stream_reader_close(reader);
    stream_close(stream);
    write_text(path, "{}\n");
    stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    stream_fingerprint(stream, fingerprint[1]);
    assert_string_not_equal(fingerprint[0], fingerprint[1]);
    stream_close(stream);
}

/* It is the data set that fails, not one record of it. */
static void test_a_file_that_shrank_before_it_was_counted_is_named(void **state)
{
    (void)state;
    const char *path = FOLDER "/shrinking.jsonl";
    Error err = {0};
    Dataset *dataset = NULL;
    write_str(path, make_text(9, 5 << 20, 0));
    DatasetOptions options = {
        .key = "data.train", .path = &path, .num_paths = 1, .by_blocks = true};
    assert_ok(dataset_open(&options, &dataset, &err), &err);
    assert_int_equal(truncate(path, TEXT_BLOCK_BYTES + 99), 0);
    assert_ok(dataset_count_block(dataset, 0, &err), &err);
    assert_fails(dataset_count_block(dataset, 1, &err), ERR_IO, &err,
                 "shrinking.jsonl ends at byte 2097251");
    dataset_close(dataset);
}

/* A table that was cut, or whose entries are no entries, is not believed; that of a large file nor
 * that of a small one, which lies with those of others. */
static void assert_counted_again(const char *path, const char *table)
{
    Error err = {0};
    uint64_t count, again;
    make_fresh(INDEX);
    Stream *stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    assert_ok(stream_count(stream, &count, &err), &err);
    stream_close(stream);
    char *command = mem_printf("for f in " INDEX "/%s; do printf '\\377\\377' | dd of=$f bs=1 "
                               "seek=50 conv=notrunc 2>/dev/null; done",
                               table);
    assert_int_equal(system(command), 0);
    free(command);
    stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    assert_ok(stream_count(stream, &again, &err), &err);
    assert_int_equal(again, count);
    stream_close(stream);
    command = mem_printf("for f in " INDEX "/%s; do truncate -s 40 $f; done", table);
    assert_int_equal(system(command), 0);
    free(command);
    stream = open_stream(ORDER_WINDOW, INDEX, &path, 1);
    assert_ok(stream_count(stream, &again, &err), &err);
    assert_int_equal(again, count);
    stream_close(stream);
}

static void test_a_damaged_table_is_counted_again(void **state)
{
    (void)state;
    assert_counted_again(LARGE, "*.blk");
    assert_counted_again(paths[2], "files.bodies");
}

static void test_an_empty_data_set_and_a_line_too_long_are_told(void **state)
{
    (void)state;
    Error err = {0};
    const char *path = paths[1];
    uint64_t count;
    Stream *stream = open_stream(ORDER_WINDOW, NULL, &path, 1);
    assert_fails(stream_count(stream, &count, &err), ERR_DATA, &err,
                 "data.train: the data set is empty: no record in " FOLDER "/b-empty.jsonl");
    StreamReader *reader = stream_reader_open(stream);
    Str text = {0};
    StreamRecord record;
    assert_fails(stream_read(reader, 3, &text, &record, &err), ERR_DATA, &err,
                 "data.train: the data");
    assert_false(record.bad);
    stream_reader_close(reader);
    stream_close(stream);

    path = FOLDER "/long.jsonl";
    Str line = {0};
    str_reserve(&line, JSONL_LINE_BYTES_MAX + 64);
    memset(line.data, 'y', JSONL_LINE_BYTES_MAX + 1);
    line.length = JSONL_LINE_BYTES_MAX + 1;
    str_puts(&line, "\n{}\n");
    write_str(path, line);
    stream = open_stream(ORDER_WINDOW, NULL, &path, 1);
    reader = stream_reader_open(stream);
    int refused = 0, read = 0;
    for (uint64_t i = 0; i < 2; i++) {
        str_clear(&text);
        Status status = stream_read(reader, i, &text, &record, &err);
        if (status == OK) read += strcmp(str_text(&text), "{}") == 0;
        if (status == ERR_DATA) refused += strstr(err.message, "more than 50331648 bytes") != NULL;
    }
    assert_int_equal(read, 1);
    assert_int_equal(refused, 1);
    str_free(&text);
    stream_reader_close(reader);
    stream_close(stream);
    unlink(path);
}

/* Bytes that this process has read from files. */
static uint64_t bytes_read(void)
{
    unsigned long long bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "rchar: %llu", &bytes), 1);
    fclose(file);
    return bytes;
}

/* All of a window of compressed text is held: a piece is not decompressed for each record. */
static void test_a_window_of_compressed_text_is_decompressed_once(void **state)
{
    (void)state;
    Error err = {0};
    Stream *stream = NULL;
    uint64_t count = 0;
    const char *path = FOLDER "/long.jsonl.gz";
    write_packed(path, 44 << 20);
    StreamOptions options = {.key = "data.train",
                             .path = &path,
                             .num_paths = 1,
                             .order = {.kind = ORDER_WINDOW, .window_mb = 48},
                             .seed = 11};
    assert_ok(stream_open(&options, &stream, &err), &err);
    assert_ok(stream_count(stream, &count, &err), &err);
    StreamReader *reader = stream_reader_open(stream);
    uint64_t before = bytes_read();
    for (uint64_t i = 0; i < 2000; i++) {
        Str text = {0};
        StreamRecord record;
        assert_ok(stream_read(reader, i, &text, &record, &err), &err);
        str_free(&text);
    }
    assert_true(bytes_read() - before < 16 << 20);
    stream_reader_close(reader);
    stream_close(stream);
    unlink(path);
}

/* In place of the C library's: after each look at it the wall clock is set back by so much. */
static int wall_back_s;

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, ret);
    if (clock == CLOCK_REALTIME) ret->tv_sec += wall_back_s;
    return failed;
}

/* Who comes to another window of decoded pieces lets those go first who read an earlier one, but
 * does not wait for one that stands still, whatever becomes of the wall clock. */
static void test_a_window_that_is_decoded_waits_for_readers_of_the_one_before(void **state)
{
    (void)state;
    Error err = {0};
    uint64_t count = 0;
    StreamPlace place;
    int64_t waited[2];
    wall_back_s = 5;
    for (int packed = 0; packed < 2; packed++) {
        Stream *stream = open_stream(ORDER_WINDOW, NULL, paths, packed ? FILES : 4);
        assert_ok(stream_count(stream, &count, &err), &err);
        StreamReader *early = stream_reader_open(stream), *late = stream_reader_open(stream);
        assert_ok(stream_place(early, 0, &place, &err), &err);
        int64_t began = clock_ms();
        assert_ok(stream_place(late, count - 1, &place, &err), &err);
        waited[packed] = clock_ms() - began;
        stream_reader_close(early);
        stream_reader_close(late);
        stream_close(stream);
    }
    wall_back_s = 0;
    assert_true(waited[1] >= 150 && waited[1] < 4000);
    assert_true(waited[0] < waited[1]); /* plain text is nobody's memory */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_record_comes_once_an_epoch_with_its_text),
        cmocka_unit_test(test_order_does_not_depend_on_what_was_counted_when),
        cmocka_unit_test(test_a_window_reads_no_more_than_its_blocks),
        cmocka_unit_test(test_a_window_of_compressed_text_is_decompressed_once),
        cmocka_unit_test(test_a_window_that_is_decoded_waits_for_readers_of_the_one_before),
        cmocka_unit_test(test_no_part_of_the_file_comes_earlier_than_another),
        cmocka_unit_test(test_a_file_that_changed_in_the_middle_is_named),
        cmocka_unit_test(test_a_file_that_shrank_before_it_was_counted_is_named),
        cmocka_unit_test(test_a_damaged_table_is_counted_again),
        cmocka_unit_test(test_an_empty_data_set_and_a_line_too_long_are_told),
    };
    return cmocka_run_group_tests(tests, make_files, NULL);
}
