/* metrics.jsonl over sessions, rollbacks and kills. */
#include "test.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"
#include "view/metrics.h"

#define PATH "metrics.jsonl"

static Metrics *open_metrics(void)
{
    Metrics *metrics = NULL;
    Error err = {0};
    assert_ok(metrics_open(PATH, &metrics, &err), &err);
    return metrics;
}

static void say_in(Metrics *metrics, int stage, MetricsKind kind, int64_t step, double value)
{
    metrics_begin(metrics, kind, step, stage);
    metrics_put(metrics, kind == METRICS_EVAL ? "eval/loss" : "train/loss", value);
    metrics_put(metrics, "perf/mfu", (double)NAN);
    metrics_end(metrics);
}

static void say(Metrics *metrics, MetricsKind kind, int64_t step, double value)
{
    say_in(metrics, 0, kind, step, value);
}

/* What stands in the file, a line as "s3=0.5" or "e3=0.5" and a space. */
static void expect(const char *expected)
{
    char *text = NULL;
    size_t length = 0;
    Error err = {0};
    Str seen = {0};
    assert_ok(file_read(PATH, 1 << 16, &text, &length, &err), &err);
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end == NULL) fail_msg("a torn line: %s", line);
        *end = '\0';
        const char *step = strstr(line, "\"step\":"), *loss = strstr(line, "/loss\":");
        if (step == NULL || loss == NULL || strstr(line, "\"perf/mfu\":null}") == NULL)
            fail_msg("not a line of metrics: %s", line);
        bool is_eval = strstr(line, "eval/") != NULL;
        str_printf(&seen, "%c%ld=%g ", is_eval ? 'e' : 's', atol(step + 7), atof(loss + 7));
        line = end + 1;
    }
    assert_string_equal(str_text(&seen), expected);
    str_free(&seen);
    free(text);
}

/* The last evaluation of a stage and the first of the next are of one step. */
static void test_metrics_stages_keep_their_evaluations(void **state)
{
    (void)state;
    unlink(PATH);
    Metrics *metrics = open_metrics();
    say_in(metrics, 1, METRICS_STEP, 5, 1);
    say_in(metrics, 1, METRICS_EVAL, 5, 2);
    say_in(metrics, 2, METRICS_EVAL, 5, 3);
    expect("s5=1 e5=2 e5=3 ");
    say_in(metrics, 2, METRICS_EVAL, 5, 4); /* made again */
    expect("s5=1 e5=2 e5=4 ");
    metrics_close(metrics);
    metrics = open_metrics(); /* another session begins at the end of the first stage */
    metrics_rewind(metrics, 5);
    say_in(metrics, 1, METRICS_EVAL, 5, 6);
    expect("s5=1 e5=6 ");
    say_in(metrics, 2, METRICS_EVAL, 5, 7);
    say_in(metrics, 2, METRICS_STEP, 6, 8);
    expect("s5=1 e5=6 e5=7 s6=8 ");
    metrics_close(metrics);

    unlink(PATH);
    metrics = open_metrics(); /* a job of one stage that another one is swapped into */
    say(metrics, METRICS_EVAL, 5, 1);
    say_in(metrics, 2, METRICS_EVAL, 5, 2);
    say_in(metrics, 1, METRICS_EVAL, 5, 3);
    expect("e5=3 ");
    metrics_close(metrics);
}

static void test_metrics_of_a_resumed_run_ascend(void **state)
{
    (void)state;
    unlink(PATH);
    Metrics *metrics = open_metrics();
    say(metrics, METRICS_EVAL, 0, 9);
    say(metrics, METRICS_STEP, 1, 1);
    say(metrics, METRICS_STEP, 2, 2);
    say(metrics, METRICS_EVAL, 2, 8);
    say(metrics, METRICS_STEP, 3, 3);
    metrics_rewind(metrics, 2); /* a gang restart */
    expect("e0=9 s1=1 s2=2 e2=8 ");
    say(metrics, METRICS_EVAL, 2, 7); /* made again: in place of the one before */
    say(metrics, METRICS_STEP, 3, 5);
    metrics_rewind(metrics, 3); /* nothing to cut */
    metrics_close(metrics);
    expect("e0=9 s1=1 s2=2 e2=7 s3=5 ");

    metrics = open_metrics(); /* another session, from the beginning */
    metrics_rewind(metrics, 0);
    say(metrics, METRICS_EVAL, 0, 6);
    say(metrics, METRICS_STEP, 1, 4);
    metrics_close(metrics);
    expect("e0=6 s1=4 ");
}

static void test_metrics_drop_a_torn_line(void **state)
{
    (void)state;
    unlink(PATH);
    Metrics *metrics = open_metrics();
    say(metrics, METRICS_STEP, 1, 1);
    say(metrics, METRICS_STEP, 2, 2);
    metrics_close(metrics);
    assert_int_equal(truncate(PATH, 130), 0); /* in the second line */
    metrics = open_metrics();
    say(metrics, METRICS_STEP, 2, 3);
    metrics_close(metrics);
    expect("s1=1 s2=3 ");
}

/* As a crash of the machine leaves it: the file is as long as it was, and its end was not written.
 */
static void test_metrics_drop_a_line_of_zeros(void **state)
{
    (void)state;
    struct stat info;
    unlink(PATH);
    Metrics *metrics = open_metrics();
    say(metrics, METRICS_STEP, 1, 1);
    metrics_close(metrics);
    assert_int_equal(stat(PATH, &info), 0);
    metrics = open_metrics();
    for (int step = 2; step < 100; step++)
        say(metrics, METRICS_STEP, step, 2);
    metrics_close(metrics);
    off_t whole = info.st_size;
    assert_int_equal(stat(PATH, &info), 0);
    assert_int_equal(truncate(PATH, whole + 20), 0);
    assert_int_equal(truncate(PATH, info.st_size), 0);
    metrics = open_metrics();
    metrics_rewind(metrics, 1);
    say(metrics, METRICS_STEP, 2, 3);
    metrics_close(metrics);
    expect("s1=1 s2=3 ");
}

/* So much room is left behind the file: as on a full disk a write ends in the midst of a line. */
static void leave_room(int64_t bytes)
{
    struct stat info;
    struct rlimit limit;
    assert_int_equal(stat(PATH, &info), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < 0 ? limit.rlim_max : (rlim_t)(info.st_size + bytes);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_metrics_without_room_wait_whole(void **state)
{
    (void)state;
    unlink(PATH);
    signal(SIGXFSZ, SIG_IGN);
    Metrics *metrics = open_metrics();
    say(metrics, METRICS_STEP, 1, 1);
    leave_room(50);
    say(metrics, METRICS_STEP, 2, 2);
    expect("s1=1 ");
    say(metrics, METRICS_STEP, 3, 3);
    say(metrics, METRICS_EVAL, 3, 4);
    say(metrics, METRICS_EVAL, 3, 5); /* made again */
    leave_room(-1);
    say(metrics, METRICS_STEP, 4, 6);
    expect("s1=1 s2=2 s3=3 e3=5 s4=6 ");
    leave_room(0);
    say(metrics, METRICS_STEP, 5, 7);
    say(metrics, METRICS_STEP, 6, 8);
    metrics_rewind(metrics, 5); /* one of those that wait */
    say(metrics, METRICS_STEP, 6, 9);
    metrics_rewind(metrics, 3); /* all of them, and one in the file */
    leave_room(-1);
    say(metrics, METRICS_STEP, 4, 10);
    expect("s1=1 s2=2 s3=3 e3=5 s4=10 ");
    leave_room(10);
    say(metrics, METRICS_STEP, 5, 11);
    leave_room(-1);
    metrics_close(metrics); /* has room again */
    expect("s1=1 s2=2 s3=3 e3=5 s4=10 s5=11 ");
}

/* Whatever stands at the beginning of a long file is not looked at. */
static void test_metrics_of_a_long_run_are_read_from_their_end(void **state)
{
    (void)state;
    struct stat before;
    unlink(PATH);
    Metrics *metrics = open_metrics();
    say(metrics, METRICS_STEP, 900, 1); /* which a reader of the whole would cut off */
    for (int step = 1; step <= 200; step++)
        say(metrics, METRICS_STEP, step, 0.5);
    metrics_close(metrics);
    assert_int_equal(stat(PATH, &before), 0);
    metrics = open_metrics();
    metrics_rewind(metrics, 150);
    struct stat after;
    assert_int_equal(stat(PATH, &after), 0);
    assert_true(after.st_size > before.st_size * 7 / 10 && after.st_size < before.st_size * 8 / 10);
    say(metrics, METRICS_STEP, 151, 0.5);
    metrics_close(metrics);
    metrics = open_metrics();
    metrics_rewind(metrics, 0); /* but when the run begins anew */
    metrics_close(metrics);
    expect("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_without_room_wait_whole),
        cmocka_unit_test(test_metrics_of_a_long_run_are_read_from_their_end),
        cmocka_unit_test(test_metrics_of_a_resumed_run_ascend),
        cmocka_unit_test(test_metrics_stages_keep_their_evaluations),
        cmocka_unit_test(test_metrics_drop_a_torn_line),
        cmocka_unit_test(test_metrics_drop_a_line_of_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
