/* Tests of compressed JSONL by blocks: it is read without being read whole first, gives the records
 * and lines of the plain file whatever the make, and the same order wherever somebody begins,
 * however far an earlier start came and whatever a kill has left of what it kept. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/files.h"
#include "dataset/makes.h"
#include "dataset/stream.h"

#define FOLDER "packed-files"
#define INDEX  FOLDER "/index"
#define PLAIN  FOLDER "/plain.jsonl"

typedef struct Kind {
    Member *member;
    Make make;
    const char *path;
} Kind;

static const Kind kinds[] = {
    {gzip_member, {.name = "one gzip member", .level = 2}, FOLDER "/a.jsonl.gz"},
    {gzip_member, {.name = "stored", .level = 0}, FOLDER "/b.jsonl.gz"},
    {gzip_member, {.name = "bgzip", .level = 2, .unit = 65280}, FOLDER "/c.jsonl.gz"},
    {gzip_member,
     {.name = "members of 3 MB, padded", .level = 1, .unit = 3 << 20, .padded = true},
     FOLDER "/d.jsonl.gz"},
    {zstd_frame, {.name = "one zstd frame", .level = 3}, FOLDER "/e.jsonl.zst"},
    {zstd_frame, {.name = "fast", .level = -5}, FOLDER "/f.jsonl.zst"},
    {zstd_frame,
     {.name = "frames of 100 KB among others", .level = 3, .unit = 100000, .padded = true},
     FOLDER "/g.jsonl.zst"},
    {zstd_frame, {.name = "frames of 3 MB", .level = 1, .unit = 3 << 20}, FOLDER "/h.jsonl.zst"},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

static void write_packed(const Kind *kind, const Str *text)
{
    Str bytes = compress_text(text, kind->member, &kind->make);
    write_file(kind->path, bytes.data, bytes.length);
    str_free(&bytes);
}

static Dataset *open_file(const char *path, const char *index_folder, bool by_blocks)
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

/* Block after block the records of the plain file, or of a part of it, in its order. */
static void assert_same(const Dataset *plain, const Dataset *packed, uint64_t expected)
{
    Error err = {0};
    uint64_t index = 0, records;
    for (uint64_t block = 0; block < dataset_num_blocks(packed); block++) {
        assert_ok(dataset_count_block(packed, block, &err), &err);
        assert_true(dataset_block_counted(packed, block, &records));
        for (uint64_t i = 0; i < records && index < expected; i++, index++) {
            Str texts[2] = {{0}};
            RecordSource source[2];
            assert_ok(dataset_read(plain, index, &texts[0], &source[0], &err), &err);
            assert_ok(dataset_read_block(packed, block, i, &texts[1], &source[1], &err), &err);
            assert_int_equal(texts[0].length, texts[1].length);
            assert_memory_equal(texts[0].data, texts[1].data, texts[0].length);
            assert_int_equal(source[0].line, source[1].line);
            str_free(&texts[0]);
            str_free(&texts[1]);
        }
    }
    assert_int_equal(index, expected);
}

static uint64_t count_records(const Dataset *packed)
{
    Error err = {0};
    uint64_t sum = 0, records;
    for (uint64_t block = 0; block < dataset_num_blocks(packed); block++) {
        assert_ok(dataset_count_block(packed, block, &err), &err);
        assert_true(dataset_block_counted(packed, block, &records));
        sum += records;
    }
    return sum;
}

static void compare_file(const char *path, const Dataset *plain)
{
    uint64_t records = dataset_summary(plain).records;
    for (int round = 0; round < 3; round++) { /* made, found again, and kept nowhere */
        Dataset *packed = open_file(path, round < 2 ? INDEX : NULL, true);
        assert_int_equal(dataset_summary(packed).files_indexed, round != 1);
        assert_int_equal(count_records(packed), records);
        assert_same(plain, packed, records);
        dataset_close(packed);
    }
}

static void test_every_make_has_the_records_of_the_plain_file(void **state)
{
    (void)state;
    Str text = make_text(5 << 20);
    write_file(PLAIN, text.data, text.length);
    Dataset *plain = open_file(PLAIN, NULL, false);
    for (size_t i = 0; i < KINDS; i++) {
        print_message("%s\n", kinds[i].make.name);
        write_packed(&kinds[i], &text);
        compare_file(kinds[i].path, plain);
    }
    dataset_close(plain);
    str_free(&text);
}

static void put_many(Str *text, char c, size_t count)
{
    str_reserve(text, text->length + count + 1);
    memset(text->data + text->length, c, count);
    text->length += count;
}

/* Lines, and stretches of nothing, over several pieces; a mark at the beginning, no end at the end.
 */
static void test_lines_over_several_pieces_are_found(void **state)
{
    (void)state;
    Str text = {0}, noise = make_text(1 << 20);
    str_puts(&text, "\xEF\xBB\xBF{\"first\": 1}\r\n");
    str_puts(&text, "{\"long\": \"");
    put_many(&text, 'y', 4 << 20);
    str_puts(&text, "\"}\n");
    str_append(&text, noise.data, noise.length);
    put_many(&text, ' ', 5 << 20);
    str_puts(&text, "{\"behind spaces\": 1}\n");
    put_many(&text, '\n', 3 << 20);
    put_many(&text, '\t', 3 << 20);
    str_puts(&text, "\n{\"last\": 1}   ");
    write_file(PLAIN, text.data, text.length);
    Dataset *plain = open_file(PLAIN, NULL, false);
    for (size_t i = 0; i < KINDS; i++) {
        if (i % 2 == 1) continue;
        write_packed(&kinds[i], &text);
        compare_file(kinds[i].path, plain);
    }
    dataset_close(plain);
    str_free(&noise);
    str_free(&text);
}

/* Of a large file only what is asked for is decompressed, and what comes before it. */
static void test_a_file_is_not_read_whole_for_its_first_records(void **state)
{
    (void)state;
    Error err = {0};
    uint64_t records;
    Str text = make_text(9 << 20);
    for (size_t i = 0; i < KINDS; i++) {
        make_fresh(INDEX);
        write_packed(&kinds[i], &text);
        for (int round = 0; round < 2; round++) {
            Dataset *packed = open_file(kinds[i].path, INDEX, true);
            uint64_t blocks = dataset_num_blocks(packed);
            assert_true(blocks >= 3);
            assert_int_equal(dataset_block_counted(packed, 0, &records), round == 1);
            assert_ok(dataset_count_block(packed, 0, &err), &err);
            assert_true(dataset_block_counted(packed, 0, &records) && records > 0);
            assert_false(dataset_block_counted(packed, blocks - 1, &records));
            dataset_stop_counting(packed);
            assert_fails(dataset_count_block(packed, blocks - 1, &err), ERR_CANCELLED, &err,
                         "cancelled");
            dataset_close(packed);
        }
    }
    str_free(&text);
}

/* ---- the order ---- */

static const char *const mixed[] = {PLAIN, FOLDER "/a.jsonl.gz", FOLDER "/c.jsonl.gz",
                                    FOLDER "/e.jsonl.zst", FOLDER "/h.jsonl.zst"};
enum { MIXED = sizeof mixed / sizeof *mixed };

static Stream *open_stream(const char *const *paths, int num_paths, const char *folder)
{
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = paths,
                             .num_paths = num_paths,
                             .index_folder = folder,
                             .order = {.kind = ORDER_WINDOW, .window_mb = 3},
                             .seed = 5};
    assert_ok(stream_open(&options, &stream, &err), &err);
    return stream;
}

/* Of the texts from position `first` on. */
static void read_hashes(const Stream *stream, uint64_t first, uint64_t count, uint64_t *ret)
{
    Error err = {0};
    StreamReader *reader = stream_reader_open(stream);
    for (uint64_t i = 0; i < count; i++) {
        Str text = {0};
        StreamRecord record;
        assert_ok(stream_read(reader, first + i, &text, &record, &err), &err);
        ret[i] = rng_key(text.length, str_text(&text));
        str_free(&text);
    }
    stream_reader_close(reader);
}

static void make_mixed(void)
{
    Str text = make_text(6 << 20);
    make_fresh(FOLDER);
    write_file(PLAIN, text.data, text.length);
    for (size_t i = 0; i < KINDS; i++)
        write_packed(&kinds[i], &text);
    str_free(&text);
}

/* Each record once in each epoch; in the first one each compressed file from its beginning to its
 * end, as far as blocks go, in turns with the others. */
static void test_first_epoch_takes_blocks_as_they_are_met(void **state)
{
    (void)state;
    Error err = {0};
    uint64_t count, index, last[2] = {0}, turns = 0, back[2] = {0};
    const char *paths[] = {kinds[0].path, kinds[5].path};
    Str text = make_text(16 << 20);
    write_packed(&kinds[0], &text);
    write_packed(&kinds[5], &text);
    str_free(&text);
    Stream *stream = open_stream(paths, 2, NULL);
    StreamReader *reader = stream_reader_open(stream);
    assert_ok(stream_count(stream, &count, &err), &err);
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        uint8_t *seen = mem_calloc(count, 1);
        uint64_t before = UINT64_MAX;
        for (uint64_t i = 0; i < count; i++) {
            StreamPlace place;
            int file = 0;
            assert_ok(stream_place(reader, epoch * count + i, &place, &err), &err);
            assert_ok(stream_index(reader, &place, &index, &err), &err);
            assert_true(index < count);
            assert_int_equal(seen[index]++, 0);
            if (!dataset_block_in_sequence(stream_dataset(stream), place.block, &file)) continue;
            /* Blocks of one window are mixed: a window has two or three of them. */
            back[epoch] += place.block + 3 < last[file];
            if (place.block > last[file] || epoch > 0) last[file] = place.block;
            turns += epoch == 0 && before != (uint64_t)file;
            before = (uint64_t)file;
        }
        free(seen);
    }
    assert_int_equal(back[0], 0);
    assert_true(back[1] > 0);
    assert_true(turns > 4);
    stream_reader_close(reader);
    stream_close(stream);
}

/* Cuts the kept files of the index, as a kill would: in the middle of what is written last. */
static void cut_index(uint64_t seed)
{
    char *name =
        mem_printf("cd " INDEX " && for f in *.pieces; do truncate -s $(($(stat -c %%s $f) "
                   "* %d / 10)) $f; done; for f in *.kept; do truncate -s $(($(stat -c "
                   "%%s $f) * %d / 10)) $f; done",
                   (int)(1 + rng_below(seed, 0, 10)), (int)(1 + rng_below(seed, 1, 10)));
    assert_int_equal(system(name), 0);
    free(name);
}

static void test_order_is_the_same_wherever_one_begins(void **state)
{
    (void)state;
    Error err = {0};
    uint64_t count;
    char fingerprint[2][DIGEST_HEX_BYTES];
    make_mixed();
    Stream *stream = open_stream(mixed, MIXED, NULL);
    assert_ok(stream_count(stream, &count, &err), &err);
    stream_fingerprint(stream, fingerprint[0]);
    uint64_t total = count + 300, *expected = mem_calloc(total, sizeof *expected), found[60];
    read_hashes(stream, 0, total, expected);
    stream_close(stream);
    for (uint64_t round = 0; round < 6; round++) {
        /* Anew; behind a start that was ended somewhere; behind one that came to the end. */
        if (round % 6 == 0) make_fresh(INDEX);
        if (round % 6 > 2) cut_index(round);
        uint64_t first = rng_below(9, round, round % 3 == 0 ? 200 : total - 60);
        stream = open_stream(mixed, MIXED, INDEX);
        read_hashes(stream, first, 60, found);
        assert_memory_equal(found, expected + first, sizeof found);
        if (round % 6 == 5) assert_ok(stream_count(stream, &count, &err), &err);
        stream_fingerprint(stream, fingerprint[1]);
        assert_string_equal(fingerprint[0], fingerprint[1]);
        stream_close(stream);
    }
    free(expected);
}

/* Two at once with one index folder: the second keeps what it finds to itself. */
static void test_a_second_reader_disturbs_nobody(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    uint64_t found[3][COUNT];
    make_mixed();
    Stream *one = open_stream(mixed, MIXED, INDEX), *two = open_stream(mixed, MIXED, INDEX);
    read_hashes(two, 1000, COUNT, found[0]);
    read_hashes(one, 1000, COUNT, found[1]);
    stream_close(one);
    stream_close(two);
    one = open_stream(mixed, MIXED, INDEX);
    read_hashes(one, 1000, COUNT, found[2]);
    stream_close(one);
    assert_memory_equal(found[0], found[1], sizeof found[0]);
    assert_memory_equal(found[0], found[2], sizeof found[0]);
}

typedef struct Walk {
    const Stream *stream;
    uint64_t first, count, *hash;
} Walk;

static void *walk_main(void *argument)
{
    const Walk *walk = argument;
    read_hashes(walk->stream, walk->first, walk->count, walk->hash);
    return NULL;
}

static void test_threads_read_the_same(void **state)
{
    (void)state;
    enum { THREADS = 4, EACH = 500 };
    uint64_t found[2][THREADS * EACH];
    make_mixed();
    for (int threads = 0; threads < 2; threads++) {
        make_fresh(INDEX);
        Stream *stream = open_stream(mixed, MIXED, INDEX);
        pthread_t thread[THREADS];
        Walk part[THREADS];
        for (int i = 0; i < THREADS; i++) {
            part[i] = (Walk){stream, (uint64_t)(i * EACH), EACH, found[threads] + i * EACH};
            if (threads == 0) walk_main(&part[i]);
            if (threads == 1) pthread_create(&thread[i], NULL, walk_main, &part[i]);
        }
        for (int i = 0; i < THREADS && threads == 1; i++)
            pthread_join(thread[i], NULL);
        stream_close(stream);
    }
    assert_memory_equal(found[0], found[1], sizeof found[0]);
}

/* ---- what is wrong with a file ---- */

/* Record `index` of all, counted over the blocks. */
static Status read_record(const Dataset *packed, uint64_t index, Str *text, RecordSource *source,
                          Error *err)
{
    uint64_t records;
    for (uint64_t block = 0;; block++) {
        TRY(dataset_count_block(packed, block, err));
        assert_true(dataset_block_counted(packed, block, &records));
        if (index < records) return dataset_read_block(packed, block, index, text, source, err);
        index -= records;
    }
}

static void assert_damaged(const Dataset *plain, const Kind *kind, const Str *bytes,
                           const char *expected)
{
    Error err = {0};
    make_fresh(INDEX);
    write_file(kind->path, bytes->data, bytes->length);
    for (int round = 0; round < 2; round++) {
        Str text = {0};
        RecordSource source;
        Dataset *packed = open_file(kind->path, INDEX, true);
        uint64_t last = count_records(packed) - 1;
        assert_true(last > 0 && last <= dataset_summary(plain).records);
        assert_same(plain, packed, last);
        assert_fails(read_record(packed, last, &text, &source, &err), ERR_DATA, &err, expected);
        assert_int_equal(text.length, 0);
        char *place = mem_printf("%s:%llu: ", kind->path, (unsigned long long)source.line);
        char *before = mem_printf("and %llu records before", (unsigned long long)last);
        assert_memory_equal(err.message, place, strlen(place));
        assert_non_null(strstr(err.message, before));
        free(before);
        free(place);
        dataset_close(packed);
    }
}

static void test_damage_is_one_record_with_a_name(void **state)
{
    (void)state;
    Str text = make_text(2 << 20);
    write_file(PLAIN, text.data, text.length);
    Dataset *plain = open_file(PLAIN, NULL, false);
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].make.padded) continue; /* what is cut off there is no text */
        static const size_t lost[] = {1, 1000, 200000};
        Str bytes = compress_text(&text, kinds[i].member, &kinds[i].make), cut = bytes;
        for (size_t k = 0; k < 3; k++) {
            cut.length = bytes.length - lost[k];
            assert_damaged(plain, &kinds[i], &cut, "the file ends too early");
        }
        str_puts(&bytes, "{\"a\": 1}\n");
        assert_damaged(plain, &kinds[i], &bytes, "nothing behind it can be read");
        str_free(&bytes);
    }
    dataset_close(plain);
    str_free(&text);
}

static void test_a_line_that_is_too_long_is_one_bad_record(void **state)
{
    (void)state;
    Error err = {0};
    Str text = {0};
    str_puts(&text, "{\"a\": 1}\n\n");
    put_many(&text, 'x', JSONL_LINE_BYTES_MAX + (7 << 20));
    str_puts(&text, "\n{\"b\": 1}\n");
    for (size_t i = 0; i < KINDS; i += 4) {
        RecordSource source;
        Str found = {0};
        write_packed(&kinds[i], &text);
        Dataset *packed = open_file(kinds[i].path, NULL, true);
        assert_int_equal(count_records(packed), 3);
        assert_fails(read_record(packed, 1, &found, &source, &err), ERR_DATA, &err,
                     "the line has more than");
        assert_int_equal(source.line, 3);
        assert_int_equal(source.offset, 10);
        assert_ok(read_record(packed, 2, &found, &source, &err), &err);
        assert_string_equal(str_text(&found), "{\"b\": 1}");
        assert_int_equal(source.line, 4);
        dataset_close(packed);
        str_free(&found);
    }
    str_free(&text);
}

/* In place, of the same size, the time set back, and where the probe of the file does not look. */
static void test_a_file_that_changed_in_the_middle_is_named(void **state)
{
    (void)state;
    Error err = {0};
    Str text = make_text(9 << 20);
    for (size_t i = 0; i < KINDS; i += 2) {
        struct stat info;
        make_fresh(INDEX);
        write_packed(&kinds[i], &text);
        Dataset *packed = open_file(kinds[i].path, INDEX, true);
        uint64_t records = count_records(packed);
        dataset_close(packed);
        int fd = open(kinds[i].path, O_RDWR);
        assert_int_equal(fstat(fd, &info), 0);
        assert_int_equal(pwrite(fd, "\x5A\xA5\x5A\xA5", 4, info.st_size / 2 + 70000), 4);
        struct timespec times[2] = {info.st_atim, info.st_mtim};
        assert_int_equal(futimens(fd, times), 0);
        close(fd);
        packed = open_file(kinds[i].path, INDEX, true);
        assert_int_equal(count_records(packed), records);
        Status status = OK;
        for (uint64_t k = 0; k < records && status == OK; k++) {
            Str found = {0};
            RecordSource source;
            status = read_record(packed, k, &found, &source, &err);
            str_free(&found);
        }
        if (kinds[i].member == gzip_member || kinds[i].make.unit > 0) /* else there is a copy */
            assert_fails(status, ERR_IO, &err, "was changed since its records were counted");
        dataset_close(packed);
    }
    str_free(&text);
}

static void test_other_kinds_of_text_are_refused(void **state)
{
    (void)state;
    Error err = {0};
    Dataset *dataset = NULL;
    Str text = {0};
    str_puts(&text, "\n [{\"messages\": []}]");
    write_packed(&kinds[0], &text);
    DatasetOptions options = {
        .key = "data.train", .path = &kinds[0].path, .num_paths = 1, .by_blocks = true};
    assert_fails(dataset_open(&options, &dataset, &err), ERR_UNSUPPORTED, &err, "one JSON list");
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_make_has_the_records_of_the_plain_file, fresh_folder),
        cmocka_unit_test_setup(test_lines_over_several_pieces_are_found, fresh_folder),
        cmocka_unit_test_setup(test_a_file_is_not_read_whole_for_its_first_records, fresh_folder),
        cmocka_unit_test_setup(test_first_epoch_takes_blocks_as_they_are_met, fresh_folder),
        cmocka_unit_test_setup(test_order_is_the_same_wherever_one_begins, fresh_folder),
        cmocka_unit_test_setup(test_a_second_reader_disturbs_nobody, fresh_folder),
        cmocka_unit_test_setup(test_threads_read_the_same, fresh_folder),
        cmocka_unit_test_setup(test_damage_is_one_record_with_a_name, fresh_folder),
        cmocka_unit_test_setup(test_a_line_that_is_too_long_is_one_bad_record, fresh_folder),
        cmocka_unit_test_setup(test_a_file_that_changed_in_the_middle_is_named, fresh_folder),
        cmocka_unit_test_setup(test_other_kinds_of_text_are_refused, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
