/* Tests of the ledger: its lines are what its header says (hashes made by another program), it is
 * cut back to a checkpoint's head, and whatever is torn or damaged is found. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "checkpoint/ledger.h"
#include "disk_faults.h"

#define PATH "ledger.jsonl"

/* Made with Python's hashlib by the rule of ledger.h; of format 1, as ledgers began once. */
static const char empty_head[] = "8f4e636600268929d66e110858b94dd68366b6808da6555638b1e85435933f44";
static const char two_lines[] =
    "{\"step\":1,\"first\":0,\"end\":8,\"accepted\":\"0-2,4,6-7\",\"rejected\":\"3,5\",\"chain\":"
    "\"fbe16c650db7e78bba8f142baa0a6ca588d341662a1cd0c1cdf2a26192341faf\"}\n"
    "{\"step\":2,\"first\":8,\"end\":10,\"accepted\":\"8-9\",\"rejected\":\"\",\"chain\":"
    "\"7ce44088e1b4d7b57b17aa7e52bf4526fa811cbe759d9228e78c064f664ccbcc\"}\n";

/* The same by the rule of format 2. */
static const char three_lines[] =
    "{\"ledger\":2,\"step\":1,\"first\":0,\"end\":8,\"accepted\":\"0-2,4,6-7\",\"rejected\":\"3,"
    "5\",\"why\":{\"bad_record\":\"3\",\"too_long\":\"5\"},\"data\":\"d1\",\"records\":100,"
    "\"group\":4,\"partial\":{\"2\":\"0,2-3\",\"6\":\"1\"},\"chain\":"
    "\"48def77e5d354850ff30970a95506a7b28d21adf5298fc119cf7257e34b6b0ef\"}\n"
    "{\"step\":2,\"first\":8,\"end\":10,\"accepted\":\"8-9\",\"rejected\":\"\",\"chain\":"
    "\"91f9a0ddf9b39223328d716ceaab2ba961bec8e1ccdd77d7f2068ee86e396273\"}\n"
    "{\"step\":3,\"first\":0,\"end\":2,\"accepted\":\"0-1\",\"rejected\":\"\",\"stage\":1,\"data\":"
    "\"d2\",\"records\":50,\"group\":1,\"chain\":"
    "\"8f9bd7396ad0fe84e7ddc25072a6478d6ed69acc902ccfb251e66abd019ef1af\"}\n";

static int start(void **state)
{
    (void)state;
    faults_init();
    faults_disarm();
    unlink(PATH);
    return 0;
}

static Ledger *open_ok(const char *head, int64_t expected_cut)
{
    Error err = {0};
    Ledger *ledger = NULL;
    int64_t cut = -1;
    assert_ok(ledger_open(PATH, head, NULL, &ledger, &cut, &err), &err);
    assert_int_equal(cut, expected_cut);
    return ledger;
}

/* Step s looks at positions 10 s to 10 s + 9 and rejects those of the form 3 n. */
static Status append_step(Ledger *ledger, int64_t step, Error *err)
{
    int64_t accepted[10], rejected[10];
    LedgerRecord record = {.step = step, .first = 10 * step, .end = 10 * step + 10};
    record.accepted = accepted;
    record.rejected = rejected;
    for (int64_t p = record.first; p < record.end; p++) {
        if (p % 3 == 0)
            rejected[record.num_rejected++] = p;
        else
            accepted[record.num_accepted++] = p;
    }
    return ledger_append(ledger, &record, err);
}

static void append_ok(Ledger *ledger, int64_t step)
{
    Error err = {0};
    assert_ok(append_step(ledger, step, &err), &err);
}

static void read_whole(char **ret_bytes, size_t *ret_length)
{
    Error err = {0};
    assert_ok(file_read(PATH, 1 << 20, ret_bytes, ret_length, &err), &err);
}

static void write_whole(const char *bytes, size_t length)
{
    unlink(PATH); /* ext4 would flush a file that is cut to nothing and written again */
    int fd = open(PATH, O_WRONLY | O_CREAT, 0644);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

static void test_ledger_lines_are_what_the_header_says(void **state)
{
    (void)state;
    Error err = {0};
    const int64_t accepted[] = {0, 1, 2, 4, 6, 7}, rejected[] = {3, 5}, second[] = {8, 9};
    const int64_t third[] = {0, 1};
    static const char *const why[] = {"bad_record", "too_long"};
    const int32_t three[] = {0, 2, 3}, one[] = {1};
    const LedgerPart part[] = {{2, three, 3}, {6, one, 1}};
    const LedgerRecord record[] = {{.step = 1,
                                    .end = 8,
                                    .accepted = accepted,
                                    .num_accepted = 6,
                                    .rejected = rejected,
                                    .num_rejected = 2,
                                    .why = why,
                                    .data = "d1",
                                    .records = 100,
                                    .group_size = 4,
                                    .part = part,
                                    .num_parts = 2},
                                   {.step = 2,
                                    .first = 8,
                                    .end = 10,
                                    .accepted = second,
                                    .num_accepted = 2,
                                    .data = "d1",
                                    .records = 100,
                                    .group_size = 4},
                                   {.step = 3,
                                    .end = 2,
                                    .accepted = third,
                                    .num_accepted = 2,
                                    .data = "d2",
                                    .stage = 1,
                                    .records = 50}};
    Ledger *ledger = open_ok(NULL, 0);
    assert_string_equal(ledger_head(ledger), empty_head);
    assert_int_equal(ledger_last_step(ledger), -1);
    assert_ok(ledger_append(ledger, &record[0], &err), &err);
    char head[DIGEST_HEX_BYTES];
    strcpy(head, ledger_head(ledger));
    ledger_close(ledger);
    ledger = open_ok(head, 0); /* what holds is known again */
    assert_ok(ledger_append(ledger, &record[1], &err), &err);
    assert_ok(ledger_append(ledger, &record[2], &err), &err);
    assert_ok(ledger_sync(ledger, &err), &err);
    assert_string_equal(ledger_head(ledger),
                        "8f9bd7396ad0fe84e7ddc25072a6478d6ed69acc902ccfb251e66abd019ef1af");
    assert_int_equal(ledger_last_step(ledger), 3);
    ledger_close(ledger);
    char *bytes = NULL;
    read_whole(&bytes, NULL);
    assert_string_equal(bytes, three_lines);
    free(bytes);
}

/* What ledger_read gives of three_lines, a line of text each. */
static void note_record(void *context, const LedgerRecord *record)
{
    Str *text = context;
    str_printf(text, "%lld of %d: %lld-%lld of %lld, %d and %d", (long long)record->step,
               record->stage, (long long)record->first, (long long)record->end,
               (long long)record->records, record->num_accepted, record->num_rejected);
    for (int i = 0; i < record->num_rejected && record->why != NULL; i++)
        str_printf(text, " %lld %s", (long long)record->rejected[i], record->why[i]);
    str_printf(text, ", %d each", record->group_size);
    for (int i = 0; i < record->num_parts; i++)
        str_printf(text, " but %lld %d", (long long)record->part[i].position,
                   record->part[i].count);
    str_printf(text, ", %s %.8s\n", record->data, record->chain);
}

static void test_ledger_read_gives_back_reasons_groups_and_stages(void **state)
{
    (void)state;
    Error err = {0};
    LedgerSummary summary;
    Str text = {0};
    write_whole(three_lines, strlen(three_lines));
    assert_ok(ledger_read(PATH, note_record, &text, &summary, &err), &err);
    assert_int_equal(summary.format, 2);
    assert_string_equal(
        str_text(&text),
        "1 of 0: 0-8 of 100, 6 and 2 3 bad_record 5 too_long, 4 each but 2 3 but 6 1, d1 48def77e\n"
        "2 of 0: 8-10 of 100, 2 and 0, 4 each, d1 91f9a0dd\n"
        "3 of 1: 0-2 of 50, 2 and 0, 1 each, d2 8f9bd739\n");
    str_free(&text);
}

/* A ledger that an earlier version began goes on, and its lines stay as they are. */
static void test_ledger_of_format_1_is_read_and_goes_on(void **state)
{
    (void)state;
    Error err = {0};
    LedgerSummary summary;
    const int64_t rejected[] = {10};
    static const char *const why[] = {"too_long"};
    write_whole(two_lines, strlen(two_lines));
    assert_ok(ledger_read(PATH, NULL, NULL, &summary, &err), &err);
    assert_int_equal(summary.format, 1);
    Ledger *ledger = open_ok(summary.head, 0);
    LedgerRecord record = {
        .step = 3, .first = 10, .end = 11, .rejected = rejected, .num_rejected = 1, .why = why};
    assert_ok(ledger_append(ledger, &record, &err), &err);
    ledger_close(ledger);
    assert_ok(ledger_read(PATH, NULL, NULL, &summary, &err), &err);
    assert_int_equal(summary.format, 1);
    assert_int_equal(summary.records, 3);
    char *bytes = NULL;
    read_whole(&bytes, NULL);
    assert_memory_equal(bytes, two_lines, strlen(two_lines));
    assert_non_null(strstr(bytes, "\"rejected\":\"10\",\"why\":{\"too_long\":\"10\"},\"chain\""));
    free(bytes);
}

/* A line with a right chain can say what cannot be, too: whoever wrote it. */
static void write_chained(const char *payload)
{
    char chain[DIGEST_HEX_BYTES];
    char *hashed = mem_printf("%s%s", empty_head, payload);
    digest_bytes(hashed, strlen(hashed), chain);
    char *line = mem_printf("%s,\"chain\":\"%s\"}\n", payload, chain);
    write_whole(line, strlen(line));
    free(line);
    free(hashed);
}

static void test_ledger_what_cannot_be_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *rest, *message;
        Status status;
    } line[] = {
        {"", NULL, OK},
        {",\"why\":{\"too_long\":\"3\"}", NULL, OK},
        {",\"why\":{\"too_long\":\"2\"}", "reasons that do not fit", ERR_DATA},
        {",\"why\":{}", "reasons that do not fit", ERR_DATA},
        {",\"why\":{\"a\":\"3\",\"b\":\"3\"}", "reasons that do not fit", ERR_DATA},
        {",\"why\":7", "reasons that do not fit", ERR_DATA},
        {",\"group\":4,\"partial\":{\"2\":\"0-2\"}", NULL, OK},
        {",\"group\":4,\"partial\":{\"3\":\"0-2\"}", "malformed parts", ERR_DATA},
        {",\"group\":4,\"partial\":{\"2\":\"4\"}", "malformed parts", ERR_DATA},
        {",\"group\":4,\"partial\":{\"2\":\"0\",\"1\":\"0\"}", "malformed parts", ERR_DATA},
        {",\"group\":0", "of the wrong type", ERR_DATA},
        {",\"records\":\"many\"", "of the wrong type", ERR_DATA},
        {",\"ledger\":3", "a ledger of format 3", ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        Error err = {0};
        LedgerSummary summary;
        char *payload = mem_printf("{\"step\":1,\"first\":0,\"end\":4,\"accepted\":\"0-2\","
                                   "\"rejected\":\"3\"%s",
                                   line[i].rest);
        write_chained(payload);
        Status status = ledger_read(PATH, NULL, NULL, &summary, &err);
        if (status != line[i].status) fail_msg("%s: %s", payload, err.message);
        if (line[i].message != NULL) assert_non_null(strstr(err.message, line[i].message));
        free(payload);
    }
}

/* What ledger_read visits, checked against append_step's rule. */
static void check_visit(void *context, const LedgerRecord *record)
{
    int64_t *next = context;
    int accepted = 0, rejected = 0;
    assert_int_equal(record->step, *next);
    assert_int_equal(record->first, 10 * record->step);
    for (int64_t p = record->first; p < record->end; p++) {
        if (p % 3 == 0)
            assert_int_equal(record->rejected[rejected++], p);
        else
            assert_int_equal(record->accepted[accepted++], p);
    }
    assert_int_equal(record->num_accepted, accepted);
    assert_int_equal(record->num_rejected, rejected);
    (*next)++;
}

static void test_ledger_read_gives_back_every_position(void **state)
{
    (void)state;
    Error err = {0};
    LedgerSummary summary;
    Ledger *ledger = open_ok("", 0);
    for (int64_t step = 1; step <= 2000; step++)
        append_ok(ledger, step);
    int64_t next = 1;
    assert_ok(ledger_read(PATH, check_visit, &next, &summary, &err), &err);
    assert_int_equal(next, 2001);
    assert_int_equal(summary.records, 2000);
    assert_int_equal(summary.last_step, 2000);
    assert_int_equal(summary.torn_bytes, 0);
    assert_string_equal(summary.head, ledger_head(ledger));
    ledger_close(ledger);
    assert_fails(ledger_read("none", NULL, NULL, &summary, &err), ERR_NOT_FOUND, &err, "none");
}

/* What ledger_read visits: the data in force, a letter a step. */
static void note_data(void *context, const LedgerRecord *record)
{
    strcat(context, record->data != NULL ? record->data : "-");
}

/* A line names the data when it is other data than on the line before: also after a cut. */
static void test_ledger_names_the_data_where_it_changes(void **state)
{
    (void)state;
    static const char *const data[] = {NULL, "a", "a", "b", "b"};
    Error err = {0};
    char seen[16] = "", at_three[DIGEST_HEX_BYTES], *bytes = NULL;
    LedgerSummary summary;
    Ledger *ledger = open_ok(NULL, 0);
    for (int64_t step = 1; step <= 5; step++) {
        LedgerRecord record = {.step = step, .data = data[step - 1]};
        assert_ok(ledger_append(ledger, &record, &err), &err);
        if (step == 3) strcpy(at_three, ledger_head(ledger));
    }
    ledger_close(ledger);
    assert_ok(ledger_read(PATH, note_data, seen, &summary, &err), &err);
    assert_string_equal(seen, "-aabb");
    read_whole(&bytes, NULL);
    int named = 0;
    for (const char *at = bytes; (at = strstr(at, "\"data\":")) != NULL; at++)
        named++;
    assert_int_equal(named, 2);
    free(bytes);

    ledger = open_ok(at_three, 2);
    LedgerRecord again = {.step = 4, .data = "b"};
    assert_ok(ledger_append(ledger, &again, &err), &err);
    ledger_close(ledger);
    seen[0] = '\0';
    assert_ok(ledger_read(PATH, note_data, seen, &summary, &err), &err);
    assert_string_equal(seen, "-aab");
}

static void test_ledger_is_cut_back_to_the_head_of_the_checkpoint(void **state)
{
    (void)state;
    Error err = {0};
    char at_three[DIGEST_HEX_BYTES], at_five[DIGEST_HEX_BYTES];
    char *before = NULL, *after = NULL;
    size_t length_before = 0, length_after = 0;
    Ledger *ledger = open_ok(NULL, 0);
    for (int64_t step = 1; step <= 5; step++) {
        append_ok(ledger, step);
        if (step == 3) strcpy(at_three, ledger_head(ledger));
    }
    strcpy(at_five, ledger_head(ledger));
    ledger_close(ledger);
    read_whole(&before, &length_before);

    ledger = open_ok(at_five, 0);
    ledger_close(ledger);
    ledger = open_ok(at_three, 2);
    assert_string_equal(ledger_head(ledger), at_three);
    assert_int_equal(ledger_last_step(ledger), 3);
    append_ok(ledger, 4);
    append_ok(ledger, 5);
    assert_string_equal(ledger_head(ledger), at_five);
    ledger_close(ledger);
    read_whole(&after, &length_after);
    assert_int_equal(length_before, length_after);
    assert_memory_equal(before, after, length_before);
    free(before);
    free(after);

    Ledger *none = NULL;
    at_three[0] ^= 1;
    assert_fails(ledger_open(PATH, at_three, NULL, &none, NULL, &err), ERR_DATA, &err,
                 "has 5 whole lines, and none with the chain");
    assert_null(none);
    ledger = open_ok(NULL, 5); /* from the start */
    assert_string_equal(ledger_head(ledger), empty_head);
    ledger_close(ledger);
}

/* ---- the mark of a checkpoint ---- */

#define MARKED 5

typedef struct Marked {
    int64_t step;
    char head[DIGEST_HEX_BYTES];
    LedgerMark mark;
} Marked;

/* A run of 1,200 steps over two stages and three sorts of data, and checkpoints of some; its bytes
 * are owned by the caller. */
static char *write_marked(Marked marked[MARKED], size_t *ret_length)
{
    static const int64_t steps[MARKED] = {1, 2, 600, 601, 1100};
    Error err = {0};
    Ledger *ledger = open_ok(NULL, 0);
    for (int64_t step = 1, m = 0; step <= 1200; step++) {
        int64_t accepted[40];
        LedgerRecord record = {.step = step, .first = 80 * step, .end = 80 * step + 80};
        for (int i = 0; i < 40; i++)
            accepted[i] = record.first + 2 * i; /* a line of 300 bytes */
        record.accepted = accepted;
        record.num_accepted = 40;
        record.data = step < 300 ? "a" : step < 601 ? "b" : "c";
        record.records = step < 300 ? 1000 : 2000;
        record.stage = step > 600;
        record.group_size = step > 600 ? 8 : 1;
        assert_ok(ledger_append(ledger, &record, &err), &err);
        if (m < MARKED && step == steps[m]) {
            marked[m] = (Marked){.step = step, .mark = *ledger_mark(ledger)};
            strcpy(marked[m++].head, ledger_head(ledger));
        }
    }
    ledger_close(ledger);
    char *bytes = NULL;
    read_whole(&bytes, ret_length);
    return bytes;
}

static Status open_marked(const Marked *at, Ledger **ret, int64_t *ret_cut, Error *err)
{
    return ledger_open(PATH, at->head, &at->mark, ret, ret_cut, err);
}

/* What follows says the same as after a ledger that was read as a whole. */
static void test_ledger_opens_at_a_mark_as_if_it_were_read(void **state)
{
    (void)state;
    Error err = {0};
    Marked marked[MARKED];
    size_t length = 0;
    char *bytes = write_marked(marked, &length);
    for (int m = 0; m < MARKED; m++) {
        char *after[2] = {NULL, NULL};
        for (int i = 0; i < 2; i++) {
            Ledger *ledger = NULL;
            int64_t cut = 0, position = 7, step = marked[m].step;
            write_whole(bytes, length - (size_t)m); /* the last line torn, but once */
            assert_ok(ledger_open(PATH, marked[m].head, i == 0 ? NULL : &marked[m].mark, &ledger,
                                  &cut, &err),
                      &err);
            assert_int_equal(cut, 1200 - step);
            assert_int_equal(ledger_last_step(ledger), step);
            assert_string_equal(ledger_head(ledger), marked[m].head);
            LedgerRecord next = {.step = step + 1,
                                 .first = 7,
                                 .end = 8,
                                 .accepted = &position,
                                 .num_accepted = 1,
                                 .data = "c",
                                 .records = 2000,
                                 .stage = 1,
                                 .group_size = 8};
            assert_ok(ledger_append(ledger, &next, &err), &err);
            ledger_close(ledger);
            read_whole(&after[i], NULL);
        }
        assert_string_equal(after[0], after[1]);
        free(after[0]);
        free(after[1]);
    }
    free(bytes);
}

/* Only who reads all of it sees what happened long before. */
static void test_ledger_at_a_mark_is_not_read_from_its_start(void **state)
{
    (void)state;
    Error err = {0};
    LedgerSummary summary;
    Marked marked[MARKED];
    size_t length = 0;
    char *bytes = write_marked(marked, &length);
    bytes[20000] ^= 1;
    write_whole(bytes, length);
    Ledger *ledger = NULL;
    assert_ok(open_marked(&marked[3], &ledger, NULL, &err), &err);
    ledger_close(ledger);
    assert_fails(ledger_open(PATH, marked[3].head, NULL, &ledger, NULL, &err), ERR_DATA, &err,
                 "damaged here");
    assert_fails(ledger_read(PATH, NULL, NULL, &summary, &err), ERR_DATA, &err, "damaged here");
    free(bytes);
}

typedef struct Visited {
    int64_t first, last, count;
} Visited;

static void visit_step(void *context, const LedgerRecord *record)
{
    Visited *visited = context;
    if (visited->count++ == 0) visited->first = record->step;
    assert_int_equal(record->step, visited->first + visited->count - 1);
    visited->last = record->step;
}

static void expect_behind(const Marked *at, const LedgerMark *mark, int64_t first)
{
    Error err = {0};
    Visited visited = {0};
    assert_ok(ledger_read_behind(PATH, at->head, mark, visit_step, &visited, &err), &err);
    assert_int_equal(visited.count, 1200 - first + 1);
    if (visited.count > 0) assert_int_equal(visited.first, first);
    if (visited.count > 0) assert_int_equal(visited.last, 1200);
}

static void test_ledger_is_read_from_a_mark_on(void **state)
{
    (void)state;
    Error err = {0};
    Visited visited = {0};
    Marked marked[MARKED];
    LedgerMark wrong, unknown = {0};
    size_t length = 0;
    char *bytes = write_marked(marked, &length);
    write_whole(bytes, length);
    for (int m = 0; m < MARKED; m++)
        expect_behind(&marked[m], &marked[m].mark, marked[m].step + 1);
    wrong = marked[3].mark;
    wrong.bytes++; /* no line ends there */
    expect_behind(&marked[3], &wrong, 1);
    expect_behind(&marked[3], &marked[2].mark, 1); /* that line has another head */
    expect_behind(&marked[3], &unknown, 1);
    expect_behind(&marked[3], NULL, 1);
    /* What is damaged before it nobody sees; behind it, the line is named by its number. */
    int64_t at = marked[3].mark.bytes + 40, line = marked[3].step + 1;
    bytes[20000] ^= 1;
    write_whole(bytes, length);
    expect_behind(&marked[3], &marked[3].mark, marked[3].step + 1);
    bytes[20000] ^= 1;
    bytes[at] ^= 1;
    write_whole(bytes, length);
    char *named = mem_printf(PATH ":%lld: the ledger is damaged here", (long long)line);
    assert_fails(
        ledger_read_behind(PATH, marked[3].head, &marked[3].mark, visit_step, &visited, &err),
        ERR_DATA, &err, named);
    free(named);
    free(bytes);
}

/* Where the file does not fit it all is read: found there, or refused as without a mark. */
static void test_ledger_that_does_not_fit_its_mark_is_read(void **state)
{
    (void)state;
    Error err = {0};
    Marked marked[MARKED];
    size_t length = 0;
    char *bytes = write_marked(marked, &length);
    const Marked *at = &marked[2];
    size_t end = (size_t)at->mark.bytes;
    Ledger *ledger = NULL;

    Marked wrong = *at;
    for (int64_t off = -400; off <= 400; off += 40) {
        wrong.mark.bytes = at->mark.bytes + off;
        int64_t cut = 0;
        write_whole(bytes, length);
        assert_ok(open_marked(&wrong, &ledger, &cut, &err), &err);
        assert_int_equal(cut, 600);
        ledger_close(ledger);
    }
    write_whole(bytes, end - 1); /* its end was lost */
    assert_fails(open_marked(at, &ledger, NULL, &err), ERR_DATA, &err,
                 "has 599 whole lines, and none with the chain");
    write_whole(bytes, 0);
    assert_fails(open_marked(at, &ledger, NULL, &err), ERR_DATA, &err, "has 0 whole lines");
    for (size_t from = 1; from < 340; from += 30) { /* in its line, or in the chain before it */
        bytes[end - from] ^= 1;
        write_whole(bytes, length);
        assert_fails(open_marked(at, &ledger, NULL, &err), ERR_DATA, &err, PATH);
        bytes[end - from] ^= 1;
    }
    char *shorter = mem_alloc(length); /* something was taken out before it */
    memcpy(shorter, bytes, 5000);
    memcpy(shorter + 5000, bytes + 5010, length - 5010);
    write_whole(shorter, length - 10);
    assert_fails(open_marked(at, &ledger, NULL, &err), ERR_DATA, &err, "damaged here");
    free(shorter);
    free(bytes);
}

/* The end of the file cut at every byte: the whole lines are there, the torn one is seen and cut
 * off at resume. */
static void test_ledger_torn_last_line_is_seen_and_cut_off(void **state)
{
    (void)state;
    Error err = {0};
    size_t length = strlen(two_lines), first = (size_t)(strchr(two_lines, '\n') + 1 - two_lines);
    for (size_t cut = 0; cut <= length; cut++) {
        LedgerSummary summary;
        int64_t whole = cut == length ? 2 : cut >= first ? 1 : 0;
        size_t torn = whole == 2 ? 0 : whole == 1 ? cut - first : cut;
        write_whole(two_lines, cut);
        assert_ok(ledger_read(PATH, NULL, NULL, &summary, &err), &err);
        assert_int_equal(summary.records, whole);
        assert_int_equal(summary.torn_bytes, torn);
        Ledger *ledger = open_ok(summary.head, torn > 0 ? 1 : 0);
        ledger_close(ledger);
        struct stat info;
        assert_int_equal(stat(PATH, &info), 0);
        assert_int_equal(info.st_size, cut - torn);
    }
}

static void test_ledger_every_flipped_bit_is_found(void **state)
{
    (void)state;
    size_t length = strlen(two_lines), first = (size_t)(strchr(two_lines, '\n') + 1 - two_lines);
    for (size_t bit = 0; bit < length * 8; bit++) {
        Error err = {0};
        LedgerSummary summary = {.records = -1};
        char copy[sizeof two_lines];
        memcpy(copy, two_lines, length);
        copy[bit / 8] ^= (char)(1 << bit % 8);
        write_whole(copy, length);
        Status status = ledger_read(PATH, NULL, NULL, &summary, &err);
        /* A last line without its newline looks torn: it is not counted as a record. */
        if (status == OK) {
            assert_true(bit / 8 == length - 1);
            assert_int_equal(summary.records, 1);
            assert_int_equal(summary.torn_bytes, length - first);
            continue;
        }
        const char *where = bit / 8 < first ? "ledger.jsonl:1:" : "ledger.jsonl:2:";
        assert_int_equal(status, ERR_DATA);
        if (strstr(err.message, where) == NULL) fail_msg("bit %zu: %s", bit, err.message);
        assert_int_equal(summary.records, -1);
    }
    /* Damage after the checkpoint's head does not keep a run from resuming there. */
    char copy[sizeof two_lines];
    memcpy(copy, two_lines, length);
    copy[first + 20] ^= 1;
    write_whole(copy, length);
    Ledger *ledger = open_ok("fbe16c650db7e78bba8f142baa0a6ca588d341662a1cd0c1cdf2a26192341faf", 1);
    assert_int_equal(ledger_last_step(ledger), 1);
    ledger_close(ledger);
}

static void test_ledger_full_disk_leaves_the_file_as_it_was(void **state)
{
    (void)state;
    Error err = {0};
    char *before = NULL, *after = NULL;
    size_t length_before = 0, length_after = 0;
    char head[DIGEST_HEX_BYTES];
    Ledger *ledger = open_ok(NULL, 0);
    append_ok(ledger, 1);
    strcpy(head, ledger_head(ledger));
    read_whole(&before, &length_before);
    faults_arm(FAULT_ERRNO, 1, ENOSPC); /* in the middle of the write */
    assert_fails(append_step(ledger, 2, &err), ERR_RESOURCE, &err, PATH);
    faults_disarm();
    assert_string_equal(faults_hit(), "write");
    read_whole(&after, &length_after);
    assert_int_equal(length_before, length_after);
    assert_string_equal(ledger_head(ledger), head);
    append_ok(ledger, 2);
    assert_int_equal(ledger_last_step(ledger), 2);
    ledger_close(ledger);
    free(before);
    free(after);
}

static void test_ledger_that_could_not_be_flushed_is_not_trusted_again(void **state)
{
    (void)state;
    Error err = {0};
    Ledger *ledger = open_ok(NULL, 0);
    append_ok(ledger, 1);
    faults_arm(FAULT_ERRNO, 1, EIO);
    assert_fails(ledger_sync(ledger, &err), ERR_IO, &err, "could not flush " PATH);
    faults_disarm();
    assert_fails(ledger_sync(ledger, &err), ERR_IO, &err, "restart the run");
    assert_fails(append_step(ledger, 2, &err), ERR_IO, &err, "restart the run");
    ledger_close(ledger);
}

/* A run that syncs at step 2 and is killed at any later call, with and without the loss of what was
 * not flushed: the ledger always reaches the head that was synced. */
static void test_ledger_synced_head_survives_kill_and_power_cut(void **state)
{
    (void)state;
    for (int loss = LOSE_NOTHING; loss <= LOSE_DATA_AND_NAMES; loss++) {
        for (int k = 1;; k++) {
            int ends[2];
            char head[DIGEST_HEX_BYTES] = "";
            assert_int_equal(pipe(ends), 0);
            unlink(PATH);
            faults_arm(FAULT_KILL, k, 0);
            pid_t pid = fork();
            if (pid == 0) {
                Ledger *ledger = NULL;
                if (ledger_open(PATH, NULL, NULL, &ledger, NULL, NULL) != OK) _exit(1);
                for (int64_t step = 1; step <= 4; step++) {
                    if (append_step(ledger, step, NULL) != OK) _exit(1);
                    if (step == 2 && ledger_sync(ledger, NULL) != OK) _exit(1);
                    if (step == 2 && write(ends[1], ledger_head(ledger), 65) != 65) _exit(1);
                }
                _exit(0);
            }
            int status = 0;
            assert_int_equal(waitpid(pid, &status, 0), pid);
            close(ends[1]);
            bool synced = read(ends[0], head, 65) == 65;
            close(ends[0]);
            faults_power_cut(".", (Loss)loss);
            Error err = {0};
            Ledger *ledger = NULL;
            assert_ok(ledger_open(PATH, synced ? head : NULL, NULL, &ledger, NULL, &err), &err);
            assert_int_equal(ledger_last_step(ledger), synced ? 2 : -1);
            ledger_close(ledger);
            if (WIFEXITED(status)) {
                assert_int_equal(WEXITSTATUS(status), 0);
                assert_true(synced && k > 5);
                break;
            }
        }
    }
}

int main(void)
{
#define FRESH(test) cmocka_unit_test_setup(test, start)
    const struct CMUnitTest tests[] = {
        FRESH(test_ledger_lines_are_what_the_header_says),
        FRESH(test_ledger_read_gives_back_reasons_groups_and_stages),
        FRESH(test_ledger_of_format_1_is_read_and_goes_on),
        FRESH(test_ledger_what_cannot_be_is_named),
        FRESH(test_ledger_read_gives_back_every_position),
        FRESH(test_ledger_names_the_data_where_it_changes),
        FRESH(test_ledger_is_cut_back_to_the_head_of_the_checkpoint),
        FRESH(test_ledger_opens_at_a_mark_as_if_it_were_read),
        FRESH(test_ledger_at_a_mark_is_not_read_from_its_start),
        FRESH(test_ledger_is_read_from_a_mark_on),
        FRESH(test_ledger_that_does_not_fit_its_mark_is_read),
        FRESH(test_ledger_torn_last_line_is_seen_and_cut_off),
        FRESH(test_ledger_every_flipped_bit_is_found),
        FRESH(test_ledger_full_disk_leaves_the_file_as_it_was),
        FRESH(test_ledger_that_could_not_be_flushed_is_not_trusted_again),
        FRESH(test_ledger_synced_head_survives_kill_and_power_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
