/* What patterns and folders stand for, also where links lead back and folders cannot be listed. */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/path_search.h"

static void touch(const char *path)
{
    Error err = {0};
    assert_ok(file_write_atomic(path, "x", 1, &err), &err);
}

/* tree/top.jsonl, tree/a/one.jsonl, tree/a/b/two.jsonl, tree/a/b/notes.txt, tree/.git/no.jsonl */
static int make_tree(void **state)
{
    (void)state;
    static const char *const folders[] = {"tree", "tree/a", "tree/a/b", "tree/.git"};
    if (system("rm -rf tree") != 0) return -1;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(folders[i], 0777), 0);
    touch("tree/top.jsonl");
    touch("tree/a/one.jsonl");
    touch("tree/a/b/two.jsonl");
    touch("tree/a/b/notes.txt");
    touch("tree/.git/no.jsonl");
    return 0;
}

/* "a.jsonl b.jsonl", or "nothing". */
static void assert_glob(const char *pattern, const char *expected)
{
    StringList found = {0};
    Str text = {0};
    Error err = {0};
    Status status = path_glob(pattern, &found, &err);
    for (int i = 0; i < found.count; i++)
        str_printf(&text, "%s%s", i > 0 ? " " : "", found.item[i]);
    if (status == ERR_NOT_FOUND)
        str_puts(&text, "nothing");
    else
        assert_ok(status, &err);
    assert_string_equal(str_text(&text), expected);
    str_free(&text);
    string_list_free(&found);
}

static void test_patterns_match_what_they_say(void **state)
{
    (void)state;
    assert_glob("tree/*.jsonl", "tree/top.jsonl");
    assert_glob("tree/**/*.jsonl", "tree/a/b/two.jsonl tree/a/one.jsonl tree/top.jsonl");
    assert_glob("tree/*/**/*.jsonl", "tree/a/b/two.jsonl tree/a/one.jsonl");
    assert_glob("tree/**/b/*", "tree/a/b/notes.txt tree/a/b/two.jsonl");
    assert_glob("tree/a/**", "tree/a/b/notes.txt tree/a/b/two.jsonl tree/a/one.jsonl");
    assert_glob("tree/**/*.parquet", "nothing");
    assert_glob("nowhere/**/*.jsonl", "nothing");
    assert_glob("tree/?op.jsonl", "tree/top.jsonl");
}

static void test_a_folder_counts_once_whatever_leads_to_it(void **state)
{
    (void)state;
    assert_int_equal(symlink(".", "tree/latest"), 0);
    assert_int_equal(symlink("..", "tree/a/up"), 0);
    StringList files = {0};
    Error err = {0};
    assert_ok(path_list_files("tree", 100, &files, &err), &err);
    assert_int_equal(files.count, 4);
    string_list_free(&files);
}

static void test_a_link_to_nothing_is_not_passed_over(void **state)
{
    (void)state;
    assert_int_equal(symlink("gone.jsonl", "tree/more.jsonl"), 0);
    assert_glob("tree/**/m*.jsonl", "tree/more.jsonl");
}

static void test_a_folder_that_cannot_be_listed_is_named(void **state)
{
    (void)state;
    StringList files = {0};
    Error err = {0};
    if (geteuid() == 0) skip(); /* may list anything */
    assert_int_equal(chmod("tree/a/b", 0), 0);
    Status status = path_list_files("tree", 100, &files, &err);
    Status glob = path_glob("tree/a/b/*", &files, &err);
    assert_int_equal(chmod("tree/a/b", 0777), 0);
    string_list_free(&files);
    assert_int_equal(status, glob);
    assert_true(status != OK && status != ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "tree/a/b cannot be listed"));
}

static void test_no_more_are_listed_than_are_wanted(void **state)
{
    (void)state;
    StringList files = {0};
    Error err = {0};
    assert_ok(path_list_files("tree", 1, &files, &err), &err);
    assert_int_equal(files.count, 2);
    string_list_free(&files);
    assert_fails(path_list_files("nowhere", 1, &files, &err), ERR_NOT_FOUND, &err, "nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_patterns_match_what_they_say, make_tree),
        cmocka_unit_test_setup(test_a_folder_counts_once_whatever_leads_to_it, make_tree),
        cmocka_unit_test_setup(test_a_link_to_nothing_is_not_passed_over, make_tree),
        cmocka_unit_test_setup(test_a_folder_that_cannot_be_listed_is_named, make_tree),
        cmocka_unit_test_setup(test_no_more_are_listed_than_are_wanted, make_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
