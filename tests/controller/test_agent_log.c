/* Tests of an actor's log: rotation by size, and the last lines for its death notice. */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/log.h"
#include "base/file.h"

static AgentLog *open_log(int files_max, size_t tail_max)
{
    AgentLog *log = NULL;
    Error err = {0};
    AgentLogOptions options = {
        .path = "log/actor.log", .bytes_max = 100, .files_max = files_max, .tail_max = tail_max};
    assert_ok(agent_log_open(&options, &log, &err), &err);
    return log;
}

static int fresh_folder(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_remove("log", &err), &err);
    assert_ok(folder_create("log", &err), &err);
    return 0;
}

static void assert_file(const char *path, const char *expected)
{
    char *text = NULL;
    Error err = {0};
    assert_ok(file_read(path, 1000, &text, NULL, &err), &err);
    assert_string_equal(text, expected);
    free(text);
}

static void test_log_rotates_and_drops_the_oldest(void **state)
{
    (void)state;
    AgentLog *log = open_log(3, 50);
    char line[61];
    memset(line, '-', sizeof line);
    for (char letter = 'a'; letter <= 'e'; letter++) {
        line[0] = letter;
        line[59] = '\n';
        line[60] = '\0';
        agent_log_write(log, line, 60); /* two do not fit into one file */
    }
    agent_log_close(log);
    assert_file("log/actor.log", line);
    line[0] = 'd';
    assert_file("log/actor.log.1", line);
    line[0] = 'c';
    assert_file("log/actor.log.2", line);
    assert_false(path_exists("log/actor.log.3"));
    log = open_log(3, 50); /* a second life of the actor goes on in the same file */
    agent_log_write(log, "more\n", 5);
    agent_log_close(log);
    char *text = NULL;
    size_t length = 0;
    Error err = {0};
    assert_ok(file_read("log/actor.log", 1000, &text, &length, &err), &err);
    assert_int_equal(length, 65);
    free(text);
}

static void test_tail_has_the_last_whole_lines(void **state)
{
    (void)state;
    AgentLog *log = open_log(2, 20);
    assert_string_equal(agent_log_tail(log), "");
    agent_log_write(log, "first\nsecond\n", 13);
    assert_string_equal(agent_log_tail(log), "first\nsecond");
    agent_log_write(log, "\nthird\nfourth\n\n", 15);
    assert_string_equal(agent_log_tail(log), "third\nfourth");
    agent_log_write(log, "\na line that is longer than the tail\nx\n", 39);
    assert_string_equal(agent_log_tail(log), "x");
    agent_log_write(log, "\nzero\0byte\n", 11);
    assert_string_equal(agent_log_tail(log), "x\nzero byte");
    agent_log_close(log);
}

static void write_text(AgentLog *log, const char *text)
{
    agent_log_write(log, text, strlen(text));
}

/* A worker that is killed has no last words; its plan of memory is none. */
static void test_tail_leaves_out_what_was_said_in_good_times(void **state)
{
    (void)state;
    AgentLog *log = open_log(2, 400);
    write_text(log, "12:00:00 info  memory plan=\n    4 GiB of weights\n"
                    "12:00:01 info  data_set_opened set=train\n");
    assert_string_equal(agent_log_tail(log), "");
    write_text(log, "12:00:02 warn  try_failed\n    why: refused\n12:00:03 info  on\nAborted\n");
    assert_string_equal(agent_log_tail(log),
                        "12:00:02 warn  try_failed\n    why: refused\nAborted");
    agent_log_close(log);
}

static void test_log_without_a_folder_is_an_error(void **state)
{
    (void)state;
    AgentLog *log = NULL;
    Error err = {0};
    AgentLogOptions options = {.path = "log/none/x.log", .bytes_max = 1, .files_max = 1};
    assert_fails(agent_log_open(&options, &log, &err), ERR_NOT_FOUND, &err, "log/none/x.log");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_log_rotates_and_drops_the_oldest, fresh_folder),
        cmocka_unit_test_setup(test_tail_has_the_last_whole_lines, fresh_folder),
        cmocka_unit_test_setup(test_tail_leaves_out_what_was_said_in_good_times, fresh_folder),
        cmocka_unit_test_setup(test_log_without_a_folder_is_an_error, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
