/* Files that are named for JSONL and are something else: each is refused by what it is, compressed
 * or not, in every order; and what is JSONL with odd lines is none of them. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/dataset.h"
#include "dataset/files.h"
#include "dataset/look_alike.h"
#include "dataset/makes.h"

#define FOLDER "look-alikes"

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

#define WITH_ZEROS(text) text, sizeof text - 1

typedef struct Case {
    const char *name, *text;
    size_t length;
    const char *found; /* NULL: it is JSONL */
} Case;

static const Case cases[] = {
    {"a.csv", WITH_ZEROS("prompt,completion\n2 + 2?,4\n\"3, 3?\",6\n"), "a.csv is CSV"},
    {"quoted.csv", WITH_ZEROS("prompt,completion\n\"over\ntwo lines\",4\n"), "quoted.csv is CSV"},
    {"marked.jsonl", WITH_ZEROS("\xEF\xBB\xBFprompt;completion\r\n2;2\r\n"), "marked.jsonl is CSV"},
    {"one.csv", WITH_ZEROS("prompt,completion"), "one.csv is CSV"},
    {"a.tsv", WITH_ZEROS("prompt\tcompletion\n2 + 2?\t4\n"), "a.tsv is TSV"},
    {"a.xml", WITH_ZEROS("\n<?xml version=\"1.0\"?>\n<rows/>\n"), "a.xml is XML or HTML"},
    {"page.jsonl", WITH_ZEROS("<!DOCTYPE html>"), "page.jsonl is XML or HTML"},
    {"a.txt", WITH_ZEROS("Once upon a time\nthere was a line.\n"), "a.txt is plain text"},
    {"record.json", WITH_ZEROS("{\n  \"prompt\": \"2 + 2?\",\n  \"completion\": \"4\"\n}\n"),
     "a JSON document over several lines"},
    {"crlf.json", WITH_ZEROS(" { \r\n\"rows\": [\r\n{\"a\": 1},\r\n  {\"a\": 2}\r\n]}"),
     "a JSON document over several lines"},
    {"list.json", WITH_ZEROS("[\n  {\"a\": 1}\n]\n"), "list.json is one JSON list"},
    {"a.zip", WITH_ZEROS("PK\x03\x04\x14\0\0\0\0\0 train.jsonl"), "a.zip is a zip archive"},
    {"a.xlsx", WITH_ZEROS("PK\x03\x04\x14\0\0\0"), "a.xlsx is an Excel workbook"},
    {"book.zip", WITH_ZEROS("PK\x03\x04\x14\0\0\0\0\0 xl/workbook.xml"), "an Excel workbook"},
    {"end.parquet", WITH_ZEROS("\x15\x04\x2C snappy\n\0\0\0\0\x12\0\0\0PAR1"),
     "the end of a Parquet file"},
    {"end.arrow", WITH_ZEROS("\x10\0\0\0 batch \x12\0\0\0\0\0ARROW1"), "the end of an Arrow file"},
    {"end.gz", WITH_ZEROS("\x03\x9C\0\xF5\n\x80\x01"), "end.gz is binary data"},
    {"wide.jsonl", WITH_ZEROS("\xFF\xFE{\0}\0"), "iconv"},
    /* JSONL, whatever the policy for bad records makes of it */
    {"head.jsonl", WITH_ZEROS("# a remark\n{\"a\": 1}\n{\"a\": 2}\n"), NULL},
    {"cut.jsonl", WITH_ZEROS("{\n{\"a\": 2}\n"), NULL},
    {"zeros.jsonl", WITH_ZEROS("\0\0\0\0\n{\"a\": 2}\n"), NULL},
    {"scalars.jsonl", WITH_ZEROS("1\n-2.5e3\n\"text\"\n"), NULL},
    {"numbers.jsonl", WITH_ZEROS("1\n2"), NULL},
    {"single.jsonl", WITH_ZEROS("{\"a\": [\"no end"), NULL},
    {"indented.jsonl", WITH_ZEROS("  {\"a\": 1}\n  {\"a\": 2}\n"), NULL},
    {"word.jsonl", WITH_ZEROS("hello\n"), NULL},
};
#define NUM_CASES (sizeof cases / sizeof *cases)

static Status open_file(const char *path, bool by_blocks, Error *err)
{
    Dataset *dataset = NULL;
    DatasetOptions options = {
        .key = "data.train", .path = &path, .num_paths = 1, .by_blocks = by_blocks};
    Status status = dataset_open(&options, &dataset, err);
    dataset_close(dataset);
    return status;
}

static void assert_as_expected(const Case *expected, const char *path)
{
    for (int by_blocks = 0; by_blocks < 2; by_blocks++) {
        Error err = {0};
        Status status = open_file(path, by_blocks, &err);
        if (expected->found == NULL) {
            assert_ok(status, &err);
            continue;
        }
        assert_fails(status, ERR_UNSUPPORTED, &err, path);
        if (strstr(err.message, expected->found) == NULL)
            fail_msg("%s is not in: %s", expected->found, err.message);
        assert_non_null(strstr(err.message, "\n  to do: "));
    }
}

static void test_a_file_is_refused_by_what_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < NUM_CASES; i++) {
        char *path = path_join(FOLDER, cases[i].name);
        write_file(path, cases[i].text, cases[i].length);
        assert_as_expected(&cases[i], path);
        free(path);
    }
}

/* What the file ends with is compressed, too, and some are told by nothing else. */
static void test_so_is_a_compressed_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < NUM_CASES; i++) {
        Case expected = cases[i];
        if (expected.found != NULL && strstr(expected.found, "the end of") != NULL)
            expected.found = "binary data";
        if (expected.found != NULL && str_starts_with(expected.found, expected.name))
            expected.found += strlen(expected.name); /* .gz stands between */
        Str text = {0};
        str_append(&text, expected.text, expected.length);
        Str bytes = compress_text(&text, gzip_member, &(Make){.level = 6});
        char *path = mem_printf(FOLDER "/%s.gz", expected.name);
        write_file(path, bytes.data, bytes.length);
        assert_as_expected(&expected, path);
        free(path);
        str_free(&bytes);
        str_free(&text);
    }
}

/* A first line that goes on behind what is looked at says nothing. */
static void test_a_long_line_is_not_judged(void **state)
{
    (void)state;
    Str text = {0};
    str_puts(&text, "{\n");
    while (text.length < 3 * LOOK_ALIKE_BYTES)
        str_puts(&text, "words without an end ");
    LookAlike look = {
        .path = "a.jsonl", .text = text.data + 2, .length = LOOK_ALIKE_BYTES, .whole = false};
    Error err = {0};
    assert_ok(look_alike_check(&look, &err), &err);
    look.text = text.data; /* the same behind a line that is there */
    assert_ok(look_alike_check(&look, &err), &err);
    str_free(&text);
}

static void test_what_has_to_be_looked_at(void **state)
{
    (void)state;
    assert_false(look_alike_is_odd("{\"messages\": [{\"", 16));
    assert_false(look_alike_is_odd("\xEF\xBB\xBF\n {  \"a\": 1", 13));
    assert_false(look_alike_is_odd("", 0));
    assert_true(look_alike_is_odd("{ \r\n  \"messages\"", 16));
    assert_true(look_alike_is_odd("                ", 16));
    assert_true(look_alike_is_odd("prompt,completio", 16));
    assert_true(look_alike_is_odd("[{", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_file_is_refused_by_what_it_is, fresh_folder),
        cmocka_unit_test_setup(test_so_is_a_compressed_text, fresh_folder),
        cmocka_unit_test(test_a_long_line_is_not_judged),
        cmocka_unit_test(test_what_has_to_be_looked_at),
    };
    return cmocka_run_group_tests_name("look_alike", tests, NULL, NULL);
}
