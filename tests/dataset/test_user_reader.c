/* Tests of dataset/user_reader and reader_states: any position of what a shared object reads in
 * order, from states that it said; and what becomes of one that does not keep its word. */
#include "test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/reader_states.h"
#include "dataset/user_reader.h"
#include "tests/dataset/files.h"

#define FOLDER "user-reader"
#define CSV    PROJECT_BINARY_DIR "/bin/reader_csv.so"
#define FAULTY PROJECT_BINARY_DIR "/bin/reader_faulty.so"

static ReadWatch watch;

static UserReaderOptions faulty(const char *options)
{
    return (UserReaderOptions){.key = "data.train",
                               .reader_key = "data.reader",
                               .name = "train",
                               .library = FAULTY,
                               .options = options,
                               .index_folder = FOLDER "/index",
                               .watch = &watch};
}

static UserReader *open_reader(const UserReaderOptions *options)
{
    Error err = {0};
    UserReader *reader = NULL;
    assert_ok(user_reader_open(options, &reader, &err), &err);
    return reader;
}

static int fresh(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

/* "epoch: text at place" */
static char *read_at(UserReader *reader, uint64_t position)
{
    Error err = {0};
    Str text = {0}, place = {0};
    UserRecord record;
    assert_ok(user_reader_read(reader, position, &text, &place, &record, &err), &err);
    char *line = mem_printf("%llu%s: %s at %s", (unsigned long long)record.epoch,
                            record.bad ? " bad" : "", str_text(&text), str_text(&place));
    str_free(&text);
    str_free(&place);
    return line;
}

static void assert_line(UserReader *reader, uint64_t position, const char *expected)
{
    char *line = read_at(reader, position);
    assert_string_equal(line, expected);
    free(line);
}

static void assert_counted(UserReader *reader, uint64_t position, uint64_t length)
{
    unsigned long long epoch = position / length, next = position % length;
    char *expected = mem_printf("%llu: {\"messages\": [{\"role\": \"user\", \"content\": \"epoch "
                                "%llu of 0\"}, {\"role\": \"assistant\", \"content\": \"record "
                                "%llu\"}]} at counter:%llu",
                                epoch, epoch, next, next);
    assert_line(reader, position, expected);
    free(expected);
}

/* ---- the example ---- */

static UserReaderOptions csv(const char *const *path, int num_paths, bool shuffle)
{
    return (UserReaderOptions){.key = "data.train",
                               .reader_key = "data.reader",
                               .name = "train",
                               .library = CSV,
                               .path = path,
                               .num_paths = num_paths,
                               .shuffle = shuffle,
                               .seed = 5};
}

static void test_csv_rows_become_objects(void **state)
{
    (void)state;
    const char *path[] = {FOLDER "/a.csv", FOLDER "/b.csv"};
    write_text(path[0],
               "prompt,completion\r\n2 + 2?,4\r\n\"say \"\"hi\"\", twice\",\"hi\nhi\"\r\n");
    write_text(path[1], "prompt,completion\nshort\n\303\251\\,\001\n");
    UserReaderOptions options = csv(path, 2, false);
    UserReader *reader = open_reader(&options);
    assert_int_equal(user_reader_records(reader), 4);
    assert_line(reader, 0, "0: {\"prompt\":\"2 + 2?\",\"completion\":\"4\"} at a.csv:2");
    assert_line(reader, 1,
                "0: {\"prompt\":\"say \\\"hi\\\", twice\",\"completion\":\"hi\\u000ahi\"} "
                "at a.csv:3");
    assert_line(reader, 2,
                "0 bad: b.csv:2: the row has not as many fields as the first row has names\n"
                "  said by: the reader \"csv\" of data.train at b.csv:2");
    assert_line(reader, 7,
                "1: {\"prompt\":\"\303\251\\\\\",\"completion\":\"\\u0001\"} at b.csv:3");
    user_reader_close(reader);
    write_text(path[0], "n\tm\n1\t2\n");
    options.num_paths = 1;
    options.options = "{\"delimiter\":\"\\t\"}";
    reader = open_reader(&options);
    assert_line(reader, 0, "0: {\"n\":\"1\",\"m\":\"2\"} at a.csv:2");
    user_reader_close(reader);
    Error err = {0};
    static const char *const wrong[] = {"{\"delimiter\":\"tab\"}", "{\"delimter\":\";\"}",
                                        "{\"delimiter\": \";\", \"quote\": \"'\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.options = wrong[i];
        assert_fails(user_reader_open(&options, &reader, &err), ERR_DATA, &err,
                     "data.reader_options: the reader \"csv\": open: reader_options is {\"del");
        assert_non_null(strstr(err.message, "expected nothing but delimiter"));
    }
}

static void test_csv_visits_each_row_once_in_each_epoch(void **state)
{
    (void)state;
    enum { ROWS = 700 };
    const char *path[] = {FOLDER "/rows.csv"};
    Str text = {0};
    str_puts(&text, "n\n");
    for (int i = 0; i < ROWS; i++)
        str_printf(&text, "%d\n", i);
    write_text(path[0], str_text(&text));
    str_free(&text);
    UserReaderOptions options = csv(path, 1, true);
    UserReader *reader = open_reader(&options);
    int seen[ROWS] = {0}, first[ROWS];
    bool other = false;
    for (uint64_t p = 0; p < 3 * ROWS; p++) {
        char *line = read_at(reader, p);
        unsigned long long epoch;
        int n = -1;
        assert_int_equal(sscanf(line, "%llu: {\"n\":\"%d\"}", &epoch, &n), 2);
        assert_int_equal(epoch, p / ROWS);
        assert_int_equal(seen[n]++, p / ROWS);
        if (p < ROWS) first[p] = n;
        if (p >= ROWS && first[p % ROWS] != n) other = true;
        free(line);
    }
    assert_true(other);
    user_reader_close(reader);
}

/* ---- any position ---- */

static void assert_begins(UserReader *reader, uint64_t position)
{
    char *line = read_at(reader, position);
    char *expected = mem_printf("\"record %llu\"}]}", (unsigned long long)position);
    assert_non_null(strstr(line, expected));
    free(expected);
    free(line);
}

/* What is asked for is there, however many bytes come with it. */
static void test_reader_gives_large_records(void **state)
{
    (void)state;
    UserReaderOptions options = faulty("{\"mode\": \"count\", \"size\": 5000000}");
    UserReader *reader = open_reader(&options);
    for (uint64_t p = 0; p < 70; p += 3)
        assert_begins(reader, p);
    assert_begins(reader, 4);
    user_reader_close(reader);
    reader = open_reader(&options); /* from a state */
    assert_begins(reader, 63);
    user_reader_close(reader);
}

/* Those that several threads want at the time are kept, also where they are many bytes. */
static void test_reader_reads_large_records_once(void **state)
{
    (void)state;
    UserReaderOptions options = faulty("{\"mode\": \"count\", \"size\": 300000}");
    UserReader *reader = open_reader(&options);
    uint64_t before = watch.progress;
    for (uint64_t p = 240; p < 340; p += 10) {
        assert_begins(reader, p);
        assert_begins(reader, p - 240);
    }
    assert_true(watch.progress - before <= 16); /* batches */
    user_reader_close(reader);
}

static void test_reader_gives_any_position_in_any_order(void **state)
{
    (void)state;
    static const char *const options[] = {"{\"mode\": \"count\", \"length\": 333}",
                                          "{\"mode\": \"known\", \"length\": 333}"};
    for (int i = 0; i < 2; i++) {
        UserReaderOptions open = faulty(options[i]);
        UserReader *reader = open_reader(&open);
        assert_int_equal(user_reader_records(reader), i == 0 ? 0 : 333);
        static const uint64_t positions[] = {0,  5,     4,   332, 333,  334,   40000, 39999, 0,
                                             17, 12345, 700, 699, 5000, 40001, 1,     20000};
        for (size_t p = 0; p < sizeof positions / sizeof *positions; p++)
            assert_counted(reader, positions[p], 333);
        user_reader_close(reader);
    }
}

/* After a kill it reads but what lies between the nearest state and the position. */
static void test_reader_goes_on_from_the_nearest_state(void **state)
{
    (void)state;
    UserReaderOptions open = faulty("{\"mode\": \"count\", \"length\": 100000}");
    UserReader *reader = open_reader(&open);
    for (uint64_t p = 0; p < 30000; p += 50)
        assert_counted(reader, p, 100000);
    user_reader_close(reader);
    for (uint64_t p = 29999; p > 0; p /= 3) {
        reader = open_reader(&open);
        uint64_t before = watch.progress;
        assert_counted(reader, p, 100000);
        assert_true(watch.progress - before <= (READER_STATES_INTERVAL + 256) / 64 + 3);
        user_reader_close(reader);
    }
}

/* One that says how long an epoch is need not read those before. */
static void test_reader_of_known_length_passes_over_epochs(void **state)
{
    (void)state;
    UserReaderOptions open = faulty("{\"mode\": \"known\", \"length\": 500}");
    UserReader *reader = open_reader(&open);
    uint64_t before = watch.progress;
    assert_counted(reader, UINT64_C(123456789012), 500);
    assert_true(watch.progress - before <= 500 / 64 + 8);
    user_reader_close(reader);
}

typedef struct Asker {
    UserReader *reader;
    uint64_t first;
} Asker;

static void *ask(void *argument)
{
    Asker *asker = argument;
    for (uint64_t p = asker->first; p < 6000; p += 4 * 32)
        for (uint64_t i = 0; i < 32; i++)
            assert_counted(asker->reader, p + i, 333);
    return NULL;
}

/* As leases of several rollout workers come. */
static void test_reader_serves_several_threads(void **state)
{
    (void)state;
    UserReaderOptions open = faulty("{\"mode\": \"count\", \"length\": 333}");
    UserReader *reader = open_reader(&open);
    pthread_t thread[4];
    Asker asker[4];
    for (uint64_t i = 0; i < 4; i++) {
        asker[i] = (Asker){reader, 32 * i};
        assert_int_equal(pthread_create(&thread[i], NULL, ask, &asker[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    user_reader_close(reader);
}

static void test_reader_hands_on_records_that_it_cannot_read(void **state)
{
    (void)state;
    UserReaderOptions open = faulty("{\"mode\": \"bad\"}");
    UserReader *reader = open_reader(&open);
    assert_line(reader, 15,
                "0 bad: counter:15: it is the fifth\n"
                "  said by: the reader \"faulty\" of data.train at counter:15");
    assert_counted(reader, 16, 1000);
    user_reader_close(reader);
}

static void test_reader_fingerprint_tells_of_options_seed_and_files(void **state)
{
    (void)state;
    const char *path[] = {FOLDER "/rows.csv"};
    char was[DIGEST_HEX_BYTES], is[DIGEST_HEX_BYTES];
    write_text(path[0], "n\n1\n");
    for (int change = 0; change < 4; change++) {
        UserReaderOptions options = csv(path, 1, true);
        if (change == 1) options.seed++;
        if (change == 2) options.options = "{\"delimiter\": \";\"}";
        if (change == 3) write_text(path[0], "n\n2\n");
        UserReader *reader = open_reader(&options);
        user_reader_fingerprint(reader, change == 0 ? was : is);
        if (change > 0) assert_string_not_equal(is, was);
        user_reader_close(reader);
    }
}

/* ---- one that does not keep its word ---- */

static void assert_read_fails(const char *options, uint64_t position, const char *message)
{
    UserReaderOptions open = faulty(options);
    UserReader *reader = open_reader(&open);
    Error err = {0};
    Str text = {0}, place = {0};
    UserRecord record;
    for (int again = 0; again < 2; again++) { /* not by chance */
        assert_fails(user_reader_read(reader, position, &text, &place, &record, &err), ERR_DATA,
                     &err, message);
        assert_non_null(strstr(err.message, "data.train: the reader \"faulty\""));
    }
    str_free(&text);
    str_free(&place);
    user_reader_close(reader);
}

static void test_reader_faults_are_named(void **state)
{
    (void)state;
    assert_read_fails("{\"mode\": \"wrong\", \"length\": 50}", 55,
                      "said that an epoch has 53 records, but gave 50 of epoch 0");
    static const char low[] = "{\"mode\": \"count\", \"length\": 2100, \"says\": 2000}";
    assert_read_fails(low, 1999, "said that an epoch has 2000 records, but gave more of epoch 0");
    assert_read_fails(low, 4000, "said that an epoch has 2000 records, but gave more of epoch ");
    assert_read_fails("{\"mode\": \"too_many\"}", 3, "more records than it was asked for");
    assert_read_fails("{\"mode\": \"empty\"}", 3, "an epoch without a record");
    assert_read_fails("{\"mode\": \"long\"}", 3, "its state has more than 1 MiB");
    assert_read_fails("{\"mode\": \"no_state\"}", 3, "it set no state");
    assert_read_fails("{\"mode\": \"fails\"}", 150, "next_batch: the well is dry");
}

static void test_reader_with_more_records_than_can_be_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    UserReader *reader = NULL;
    UserReaderOptions options = faulty("{\"mode\": \"count\", \"says\": 9223372036854775807}");
    assert_fails(user_reader_open(&options, &reader, &err), ERR_DATA, &err,
                 "num_records: an epoch of 9223372036854775807 records, expected at most "
                 "281474976710656");
    options = faulty("{\"mode\": \"count\", \"says\": 281474976710656}");
    reader = open_reader(&options);
    assert_int_equal(user_reader_records(reader), NUM_SAMPLES_MAX);
    user_reader_close(reader);
}

/* What is read again is compared with what it was. */
static void test_reader_that_gives_other_records_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        uint64_t position;
    } cases[] = {{"{\"mode\": \"drift\", \"length\": 100000}", 5000},
                 {"{\"mode\": \"forgetful\", \"length\": 100000}", 5000},
                 /* No state is near. */
                 {"{\"mode\": \"drift\", \"length\": 3000, \"says\": 3000}", 30010},
                 {"{\"mode\": \"drift\", \"length\": 100000}", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fresh(NULL);
        UserReaderOptions open = faulty(cases[i].options);
        UserReader *reader = open_reader(&open);
        free(read_at(reader, 9000));
        user_reader_close(reader);
        reader = open_reader(&open);
        Error err = {0};
        Str text = {0}, place = {0};
        UserRecord record;
        assert_fails(user_reader_read(reader, cases[i].position, &text, &place, &record, &err),
                     ERR_DATA, &err, "gave other records than the first time");
        str_free(&text);
        str_free(&place);
        user_reader_close(reader);
    }
}

static void assert_not_opened(const char *library, const char *options, Status status,
                              const char *message)
{
    Error err = {0};
    UserReader *reader = NULL;
    UserReaderOptions open = faulty(options);
    open.library = library;
    assert_fails(user_reader_open(&open, &reader, &err), status, &err, message);
    assert_true(str_starts_with(err.message, "data.reader: "));
}

static void test_reader_that_cannot_be_opened_is_named(void **state)
{
    (void)state;
    assert_not_opened(FOLDER "/none.so", NULL, ERR_NOT_FOUND, "cannot load the reader");
    assert_not_opened(PROJECT_BINARY_DIR "/bin/reward_brevity.so", NULL, ERR_INVALID,
                      "exports no reader_plugin");
    assert_not_opened(FAULTY, "{\"mode\": \"neither\"}", ERR_DATA, "open: there is no such mode");
}

static void test_csv_file_that_cannot_be_read_is_told_why(void **state)
{
    (void)state;
    const char *path[] = {FOLDER "/none.csv"};
    UserReaderOptions open = csv(path, 1, false);
    UserReader *reader = NULL;
    Error err = {0};
    assert_fails(user_reader_open(&open, &reader, &err), ERR_DATA, &err,
                 "/none.csv: No such file or directory");
    assert_true(str_starts_with(err.message, "data.train: the reader \"csv\": open: "));
    write_file(path[0], "prompt\0,completion\n", 19);
    assert_fails(user_reader_open(&open, &reader, &err), ERR_DATA, &err, "a NUL is in it");
}

/* ---- states ---- */

static void add_point(ReaderStates *states, uint64_t position)
{
    ReaderPoint point = {.position = position, .epoch = 1, .index = position, .hash = ~position};
    char text[32];
    int length = snprintf(text, sizeof text, "state %llu", (unsigned long long)position);
    reader_states_add(states, &point, text, (size_t)length);
}

static void test_states_stay_bounded_and_near(void **state)
{
    (void)state;
    char fingerprint[DIGEST_HEX_BYTES];
    digest_bytes("a", 1, fingerprint);
    ReaderStates *states = reader_states_open(FOLDER "/index", false, fingerprint);
    uint64_t end = 0;
    int added = 0;
    for (; end < 20000000; end += 1000) {
        if (!reader_states_want(states, end)) continue;
        add_point(states, end);
        added++;
    }
    assert_true(added < 3 * READER_STATES_MAX);
    for (int again = 0; again < 2; again++) {
        for (uint64_t p = 1; p < end; p += 99991) {
            const Str *text = NULL;
            const ReaderPoint *point = reader_states_find(states, p, &text);
            assert_non_null(point);
            assert_true(point->position <= p && p - point->position <= 32000);
            assert_int_equal(point->hash, ~point->position);
            char expected[32];
            snprintf(expected, sizeof expected, "state %llu", (unsigned long long)point->position);
            assert_string_equal(str_text(text), expected);
        }
        reader_states_close(states);
        states = reader_states_open(FOLDER "/index", false, fingerprint);
    }
    reader_states_close(states);
}

/* A kill may cut the file off anywhere, and a disk may lie. */
static void test_states_that_are_damaged_are_left_out(void **state)
{
    (void)state;
    char fingerprint[DIGEST_HEX_BYTES], *path, *bytes = NULL;
    size_t length = 0;
    Error err = {0};
    digest_bytes("b", 1, fingerprint);
    ReaderStates *states = reader_states_open(FOLDER "/index", false, fingerprint);
    for (uint64_t i = 0; i < 10; i++)
        add_point(states, 1000 * i);
    reader_states_close(states);
    path = mem_printf(FOLDER "/index/reader_%.16s.states", fingerprint);
    assert_ok(file_read(path, 1 << 20, &bytes, &length, &err), &err);
    uint64_t before = 0;
    for (size_t cut = 0; cut <= length; cut++) {
        write_file(path, bytes, cut);
        states = reader_states_open(FOLDER "/index", cut % 2 == 0, fingerprint);
        const ReaderPoint *last = reader_states_find(states, 100000, NULL);
        assert_true(cut > 200 || last == NULL || last->position == 0);
        if (last != NULL) assert_int_equal(last->hash, ~last->position);
        if (last != NULL) assert_true(last->position >= before);
        if (last != NULL) before = last->position;
        reader_states_close(states);
    }
    assert_int_equal(before, 9000);
    bytes[length / 2] ^= 1;
    write_file(path, bytes, length);
    states = reader_states_open(FOLDER "/index", false, fingerprint);
    const ReaderPoint *last = reader_states_find(states, 100000, NULL);
    assert_true(last->position >= 3000 && last->position <= 5000);
    add_point(states, 50000); /* and it goes on behind what is whole */
    reader_states_close(states);
    states = reader_states_open(FOLDER "/index", true, fingerprint);
    assert_int_equal(reader_states_find(states, 100000, NULL)->position, 50000);
    reader_states_close(states);
    free(bytes);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_csv_rows_become_objects, fresh),
        cmocka_unit_test_setup(test_csv_visits_each_row_once_in_each_epoch, fresh),
        cmocka_unit_test_setup(test_reader_gives_any_position_in_any_order, fresh),
        cmocka_unit_test_setup(test_reader_gives_large_records, fresh),
        cmocka_unit_test_setup(test_reader_reads_large_records_once, fresh),
        cmocka_unit_test_setup(test_reader_goes_on_from_the_nearest_state, fresh),
        cmocka_unit_test_setup(test_reader_of_known_length_passes_over_epochs, fresh),
        cmocka_unit_test_setup(test_reader_serves_several_threads, fresh),
        cmocka_unit_test_setup(test_reader_hands_on_records_that_it_cannot_read, fresh),
        cmocka_unit_test_setup(test_reader_fingerprint_tells_of_options_seed_and_files, fresh),
        cmocka_unit_test_setup(test_reader_faults_are_named, fresh),
        cmocka_unit_test_setup(test_reader_with_more_records_than_can_be_is_refused, fresh),
        cmocka_unit_test_setup(test_reader_that_gives_other_records_is_refused, fresh),
        cmocka_unit_test_setup(test_reader_that_cannot_be_opened_is_named, fresh),
        cmocka_unit_test_setup(test_csv_file_that_cannot_be_read_is_told_why, fresh),
        cmocka_unit_test_setup(test_states_stay_bounded_and_near, fresh),
        cmocka_unit_test_setup(test_states_that_are_damaged_are_left_out, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
