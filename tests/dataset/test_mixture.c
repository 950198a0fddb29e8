/* Tests of dataset/mixture: which record stands where, whoever asks, and what makes it another
 * stream. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/memory.h"
#include "dataset/mixture.h"
#include "tests/dataset/files.h"

#define FOLDER "mixture"

enum { SOURCES = 3 };
static const int sizes[SOURCES] = {400, 90, 7};
static const char *const paths[SOURCES] = {FOLDER "/chat.jsonl", FOLDER "/math.jsonl",
                                           FOLDER "/code.jsonl"};

static MixtureSource sources[SOURCES] = {
    {.name = "chat",
     .key = "data.sources.chat",
     .weight = 0.6,
     .path = &paths[0],
     .order = {.kind = ORDER_FULL}},
    {.name = "math",
     .key = "data.sources.math",
     .weight = 0.3,
     .path = &paths[1],
     .order = {.kind = ORDER_FULL}},
    {.name = "code", .key = "data.sources.code", .weight = 0.1, .path = &paths[2]},
};

static int make_files(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    for (int i = 0; i < SOURCES; i++) {
        Str text = {0};
        for (int r = 0; r < sizes[i]; r++)
            str_printf(&text, "{\"%s\": %d}\n", sources[i].name, r);
        write_text(paths[i], str_text(&text));
        str_free(&text);
        sources[i].num_paths = 1;
    }
    return 0;
}

static Mixture *open_some(const MixtureSource *source, int count, uint64_t seed, EpochEnd end)
{
    Error err = {0};
    Mixture *mixture = NULL;
    MixtureOptions options = {
        .source = source, .num_sources = count, .epoch_end = end, .seed = seed};
    assert_ok(mixture_open(&options, &mixture, &err), &err);
    return mixture;
}

/* "chat 0: {...} at a.jsonl:3": source, pass, text and place. */
static char *read_at(MixtureReader *reader, uint64_t position)
{
    Error err = {0};
    Str text = {0}, place = {0};
    MixtureRecord record;
    assert_ok(mixture_read(reader, position, &text, &place, &record, &err), &err);
    assert_false(record.bad);
    char *line = mem_printf("%d %llu: %s at %s", record.source, (unsigned long long)record.pass,
                            str_text(&text), str_text(&place));
    str_free(&text);
    str_free(&place);
    return line;
}

/* Every pass over a source has each of its records once, whatever the others do, and a shuffled
 * one in another order. */
static void test_mixture_goes_through_each_source_pass_by_pass(void **state)
{
    (void)state;
    Mixture *mixture = open_some(sources, SOURCES, 5, EPOCH_FIRST_EXHAUSTED);
    MixtureReader *reader = mixture_reader_open(mixture);
    int seen[SOURCES][400] = {0}, first[SOURCES][400];
    uint64_t taken[SOURCES] = {0};
    bool other = false;
    for (uint64_t p = 0; p < 3000; p++) {
        Str text = {0}, place = {0};
        MixtureRecord record;
        Error err = {0};
        char name[16];
        int number = -1;
        assert_ok(mixture_read(reader, p, &text, &place, &record, &err), &err);
        int s = record.source;
        assert_int_equal(sscanf(str_text(&text), "{\"%4[a-z]\": %d}", name, &number), 2);
        assert_string_equal(name, sources[s].name);
        assert_int_equal(record.position, taken[s]);
        assert_int_equal(record.pass, taken[s] / (uint64_t)sizes[s]);
        assert_int_equal(record.index, number);
        assert_int_equal(seen[s][number]++, record.pass);
        uint64_t at = taken[s]++ % (uint64_t)sizes[s];
        if (sources[s].order.kind == ORDER_FILES) assert_int_equal(number, at);
        if (record.pass == 0) first[s][at] = number;
        if (s == 1 && record.pass == 1 && first[s][at] != number) other = true;
        str_free(&text);
        str_free(&place);
    }
    assert_true(other);
    assert_true(taken[0] >= 1798 && taken[0] <= 1802);
    assert_true(taken[1] >= 898 && taken[1] <= 902);
    mixture_reader_close(reader);
    mixture_close(mixture);
}

/* Nothing is counted when the first records are read, and afterwards all of it. */
static void test_mixture_of_windows_goes_through_each_source_pass_by_pass(void **state)
{
    (void)state;
    MixtureSource windows[SOURCES];
    for (int i = 0; i < SOURCES; i++) {
        windows[i] = sources[i];
        if (sources[i].order.kind == ORDER_FULL)
            windows[i].order = (DataOrder){.kind = ORDER_WINDOW, .window_mb = 1};
    }
    Mixture *mixture = open_some(windows, SOURCES, 5, EPOCH_FIRST_EXHAUSTED);
    Mixture *full = open_some(sources, SOURCES, 5, EPOCH_FIRST_EXHAUSTED);
    MixtureReader *reader = mixture_reader_open(mixture);
    int seen[SOURCES][400] = {0}, moved = 0;
    Error err = {0};
    for (uint64_t p = 0; p < 1500; p++) {
        Str text = {0}, place = {0};
        MixtureRecord record;
        char name[16];
        int number = -1;
        uint64_t index;
        assert_ok(mixture_read(reader, p, &text, &place, &record, &err), &err);
        int s = record.source;
        assert_int_equal(sscanf(str_text(&text), "{\"%4[a-z]\": %d}", name, &number), 2);
        assert_string_equal(name, sources[s].name);
        assert_int_equal(record.pass, record.position / (uint64_t)sizes[s]);
        assert_int_equal(seen[s][number]++, record.pass);
        assert_ok(mixture_index(reader, &record, &index, &err), &err);
        assert_int_equal(index, number);
        moved += number != (int)(record.position % (uint64_t)sizes[s]);
        str_free(&text);
        str_free(&place);
    }
    assert_true(moved > 1000);
    assert_ok(mixture_count(mixture, &err), &err);
    assert_int_equal(mixture_records(mixture), mixture_records(full));
    for (int i = 0; i < SOURCES; i++)
        assert_int_equal(mixture_source_records(mixture, i), sizes[i]);
    mixture_reader_close(reader);
    mixture_close(mixture);
    mixture_close(full);
}

static void test_mixture_is_the_same_for_whoever_asks(void **state)
{
    (void)state;
    Mixture *mixture = open_some(sources, SOURCES, 9, EPOCH_ALL_EXHAUSTED);
    Mixture *again = open_some(sources, SOURCES, 9, EPOCH_ALL_EXHAUSTED);
    MixtureReader *forward = mixture_reader_open(mixture), *back = mixture_reader_open(again);
    char *line[500];
    for (uint64_t p = 0; p < 500; p++)
        line[p] = read_at(forward, p);
    for (uint64_t p = 500; p-- > 0;) {
        char *there = read_at(back, p);
        assert_string_equal(there, line[p]);
        free(there);
        free(line[p]);
    }
    char *far = read_at(forward, UINT64_C(1) << 45), *same = read_at(back, UINT64_C(1) << 45);
    assert_string_equal(far, same);
    free(far);
    free(same);
    mixture_reader_close(forward);
    mixture_reader_close(back);
    mixture_close(mixture);
    mixture_close(again);
}

static void test_mixture_epoch_ends_with_the_first_or_the_last_source(void **state)
{
    (void)state;
    Mixture *mixture = open_some(sources, SOURCES, 21, EPOCH_FIRST_EXHAUSTED);
    InterleaveCursor cursor = interleave_cursor(mixture_turns(mixture), 0);
    uint64_t first = 0, last = 0;
    while (last == 0) {
        interleave_next(&cursor);
        int over = 0;
        for (int i = 0; i < SOURCES; i++)
            over += cursor.taken[i] >= (uint64_t)sizes[i];
        if (over > 0 && first == 0) first = cursor.position;
        if (over == SOURCES) last = cursor.position;
    }
    assert_int_equal(mixture_records(mixture), first);
    mixture_close(mixture);
    mixture = open_some(sources, SOURCES, 21, EPOCH_ALL_EXHAUSTED);
    assert_int_equal(mixture_records(mixture), last);
    mixture_close(mixture);
}

/* So a job need not know whether it is one. */
static void test_mixture_of_one_is_the_stream_itself(void **state)
{
    (void)state;
    Error err = {0};
    Stream *stream = NULL;
    StreamOptions options = {.key = "data.train",
                             .path = &paths[1],
                             .num_paths = 1,
                             .order = {.kind = ORDER_FULL},
                             .seed = 3};
    assert_ok(stream_open(&options, &stream, &err), &err);
    Mixture *mixture = open_some(&sources[1], 1, 3, EPOCH_FIRST_EXHAUSTED);
    MixtureReader *reader = mixture_reader_open(mixture);
    StreamReader *alone = stream_reader_open(stream);
    char a[DIGEST_HEX_BYTES], b[DIGEST_HEX_BYTES];
    stream_fingerprint(stream, a);
    mixture_fingerprint(mixture, b);
    assert_string_equal(a, b);
    assert_int_equal(mixture_records(mixture), stream_records(stream));
    for (uint64_t p = 0; p < 300; p++) {
        StreamPlace place;
        assert_ok(stream_place(alone, p, &place, &err), &err);
        char *there = read_at(reader, p), *expected = NULL;
        expected = mem_printf("0 %llu: {\"math\": %llu} at %s:%llu",
                              (unsigned long long)place.epoch, (unsigned long long)place.index,
                              paths[1], (unsigned long long)place.index + 1);
        assert_string_equal(there, expected);
        free(there);
        free(expected);
    }
    stream_reader_close(alone);
    stream_close(stream);
    mixture_reader_close(reader);
    mixture_close(mixture);
}

static void fingerprint_of(const MixtureSource *source, int count, uint64_t seed, EpochEnd end,
                           char ret[DIGEST_HEX_BYTES])
{
    Mixture *mixture = open_some(source, count, seed, end);
    mixture_fingerprint(mixture, ret);
    mixture_close(mixture);
}

static void test_mixture_fingerprint_tells_of_all_that_makes_the_stream(void **state)
{
    (void)state;
    char was[DIGEST_HEX_BYTES], is[DIGEST_HEX_BYTES];
    MixtureSource other[SOURCES];
    fingerprint_of(sources, SOURCES, 1, EPOCH_FIRST_EXHAUSTED, was);
    fingerprint_of(sources, SOURCES, 1, EPOCH_ALL_EXHAUSTED, is);
    assert_string_equal(is, was); /* the same records stand at the same positions */
    memcpy(other, sources, sizeof other);
    for (int i = 0; i < SOURCES; i++)
        other[i].weight *= 10; /* in any unit */
    fingerprint_of(other, SOURCES, 1, EPOCH_FIRST_EXHAUSTED, is);
    assert_string_equal(is, was);
    fingerprint_of(sources, SOURCES, 2, EPOCH_FIRST_EXHAUSTED, is);
    assert_string_not_equal(is, was);
    fingerprint_of(sources, SOURCES - 1, 1, EPOCH_FIRST_EXHAUSTED, is);
    assert_string_not_equal(is, was);
    for (int change = 0; change < 4; change++) {
        memcpy(other, sources, sizeof other);
        if (change == 0) other[1].weight = 0.31;
        if (change == 1) other[1].name = "maths";
        if (change == 2) other[1].path = &paths[2];
        if (change == 3) other[1].order.kind = ORDER_FILES;
        fingerprint_of(other, SOURCES, 1, EPOCH_FIRST_EXHAUSTED, is);
        assert_string_not_equal(is, was);
    }
}

static void test_mixture_names_the_source_that_is_wrong(void **state)
{
    (void)state;
    Error err = {0};
    Mixture *mixture = NULL;
    MixtureSource other[SOURCES];
    const char *absent = FOLDER "/absent.jsonl";
    memcpy(other, sources, sizeof other);
    other[2].path = &absent;
    MixtureOptions options = {.source = other, .num_sources = SOURCES};
    assert_fails(mixture_open(&options, &mixture, &err), ERR_NOT_FOUND, &err, "data.sources.code");
    other[2] = sources[2];
    other[2].weight = 1e-12;
    assert_fails(mixture_open(&options, &mixture, &err), ERR_INVALID, &err,
                 "data.sources.code.weight is 1e-12");
}

/* That a source has nothing is known when it has its turn: no record of the others is bad for it.
 */
static void test_mixture_fails_with_a_source_that_turns_out_empty(void **state)
{
    (void)state;
    Error err = {0};
    MixtureSource other[SOURCES];
    const char *blank = FOLDER "/blank.jsonl";
    write_text(blank, "\n  \n\n");
    memcpy(other, sources, sizeof other);
    other[1].path = &blank;
    other[1].order = (DataOrder){.kind = ORDER_WINDOW, .window_mb = 1};
    Mixture *mixture = open_some(other, SOURCES, 5, EPOCH_FIRST_EXHAUSTED);
    MixtureReader *reader = mixture_reader_open(mixture);
    Str text = {0}, place = {0};
    Status status = OK;
    for (uint64_t p = 0; p < 20 && status == OK; p++) {
        MixtureRecord record;
        status = mixture_read(reader, p, &text, &place, &record, &err);
        if (status == OK) assert_false(record.bad);
        if (status == OK) assert_int_not_equal(record.source, 1);
    }
    assert_fails(status, ERR_DATA, &err,
                 "data.sources.math: the data set is empty: no record in " FOLDER "/blank.jsonl");
    str_free(&text);
    str_free(&place);
    mixture_reader_close(reader);
    mixture_close(mixture);
}

static void pack(const char *path, int lines)
{
    gzFile file = gzopen(path, "wb1");
    assert_non_null(file);
    for (int i = 0; i < lines; i++)
        assert_true(gzprintf(file, "{\"of twenty bytes\": %d}\n", i) > 20);
    assert_int_equal(gzclose(file), Z_OK);
}

/* What is decoded of each window is held at the same time, which is not more than there is; of
 * plain text nothing is. Who only looks at some records is told the same. */
static void test_mixture_refuses_windows_that_do_not_fit_together(void **state)
{
    (void)state;
    static const char too_much[] =
        "the windows of 3 sources whose files have to be decoded take 144 MB";
    const char *packed = FOLDER "/packed.jsonl.gz", *few = FOLDER "/few.jsonl.gz";
    const char *sliced = FOLDER "/few.jsonl.gz@[:2]";
    const struct {
        const char *path;
        int num_sources, window_mb;
        bool fits;
    } cases[] = {{paths[0], 3, 65536, true}, {packed, 3, 16, false}, {packed, 2, 16, true},
                 {few, 3, 65536, true},      {sliced, 3, 16, false}, {sliced, 3, 1, true}};
    pack(packed, 1 << 20);
    pack(few, 4);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        Error err = {0};
        Mixture *mixture = NULL;
        MixtureSource other[SOURCES];
        MixtureOptions options = {
            .source = other, .num_sources = cases[c].num_sources, .memory_max = 130 << 20};
        for (int i = 0; i < SOURCES; i++) {
            other[i] = sources[i];
            other[i].order = (DataOrder){.kind = ORDER_WINDOW, .window_mb = cases[c].window_mb};
            other[i].path = &cases[c].path;
        }
        if (cases[c].fits)
            assert_ok(mixture_open(&options, &mixture, &err), &err);
        else
            assert_fails(mixture_open(&options, &mixture, &err), ERR_RESOURCE, &err, too_much);
        mixture_close(mixture);
        options.records_max = 2;
        assert_ok(mixture_open(&options, &mixture, &err), &err);
        if (cases[c].fits)
            assert_ok(mixture_check_windows(mixture, &options, &err), &err);
        else
            assert_fails(mixture_check_windows(mixture, &options, &err), ERR_RESOURCE, &err,
                         too_much);
        mixture_close(mixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixture_of_windows_goes_through_each_source_pass_by_pass),
        cmocka_unit_test(test_mixture_goes_through_each_source_pass_by_pass),
        cmocka_unit_test(test_mixture_is_the_same_for_whoever_asks),
        cmocka_unit_test(test_mixture_epoch_ends_with_the_first_or_the_last_source),
        cmocka_unit_test(test_mixture_of_one_is_the_stream_itself),
        cmocka_unit_test(test_mixture_fingerprint_tells_of_all_that_makes_the_stream),
        cmocka_unit_test(test_mixture_names_the_source_that_is_wrong),
        cmocka_unit_test(test_mixture_fails_with_a_source_that_turns_out_empty),
        cmocka_unit_test(test_mixture_refuses_windows_that_do_not_fit_together),
    };
    return cmocka_run_group_tests(tests, make_files, NULL);
}
