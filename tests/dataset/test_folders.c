/* Tests of folders and slices in place of files: the files of each split and configuration are
 * those that the package `datasets` takes (make_folders.py), in its order; slices are Python's. */
#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/data_path.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "dataset/files.h"
#include "dataset/data_folder.h"
#include "dataset/dataset.h"

#define FOLDER "folder-files"
#define SAVED  TEST_SOURCE_DIR "/dataset/tables/saved"

static int fresh_folder(void **state)
{
    (void)state;
    make_fresh(FOLDER);
    return 0;
}

static Status open_status(const char *key, const char *path, Dataset **ret, Error *err)
{
    DatasetOptions options = {.key = key, .path = &path, .num_paths = 1};
    return dataset_open(&options, ret, err);
}

static Dataset *open_path(const char *key, const char *path)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_ok(open_status(key, path, &dataset, &err), &err);
    return dataset;
}

static void assert_refused(const char *key, const char *path, Status status, const char *expected)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_fails(open_status(key, path, &dataset, &err), status, &err, expected);
    assert_non_null(strstr(err.message, key));
    assert_null(dataset);
}

/* ---- as datasets finds them ---- */

static void make_folder(const char *root, const cJSON *folder)
{
    const cJSON *file = NULL;
    cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(folder, "files"))
    {
        char *path = path_join(root, file->valuestring), *line = NULL;
        line = mem_printf("{\"file\": \"%s\"}\n", file->valuestring);
        write_text(path, line);
        free(line);
        free(path);
    }
    const cJSON *readme = cJSON_GetObjectItemCaseSensitive(folder, "readme");
    char *path = path_join(root, "README.md");
    if (readme != NULL) write_text(path, readme->valuestring);
    free(path);
}

/* The files of a data set are those that are listed, in their order. */
static void assert_files(const char *key, const char *path, const char *root, const cJSON *expected)
{
    Dataset *dataset = open_path(key, path);
    int index = 0;
    const cJSON *file = NULL;
    assert_int_equal(dataset_num_files(dataset), cJSON_GetArraySize(expected));
    cJSON_ArrayForEach(file, expected)
    {
        char *wanted = path_join(root, file->valuestring);
        assert_string_equal(dataset_file(dataset, index++).path, wanted);
        free(wanted);
    }
    dataset_close(dataset);
}

static void check_folder(const char *root, const cJSON *folder)
{
    const char *standard = cJSON_GetObjectItemCaseSensitive(folder, "default")->valuestring;
    const cJSON *config = NULL, *split = NULL;
    cJSON_ArrayForEach(config, cJSON_GetObjectItemCaseSensitive(folder, "configs"))
    {
        cJSON_ArrayForEach(split, config)
        {
            char *path = mem_printf("%s@%s/%s", root, config->string, split->string);
            char *brief = mem_printf("%s@%s", root, split->string);
            assert_files("data.train", path, root, split);
            if (strcmp(config->string, standard) == 0) {
                assert_files("data.train", brief, root, split);
                if (strcmp(split->string, "train") == 0)
                    assert_files("data.train", root, root, split);
            }
            free(path);
            free(brief);
        }
    }
}

static void test_folders_hold_the_files_that_datasets_finds(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *folders = NULL;
    assert_ok(json_read(TEST_SOURCE_DIR "/dataset/folders.json", 1 << 20, &folders, &err), &err);
    const cJSON *folder = NULL;
    cJSON_ArrayForEach(folder, folders)
    {
        const char *name = cJSON_GetObjectItemCaseSensitive(folder, "name")->valuestring;
        print_message("%s\n", name);
        char *root = path_join(FOLDER, name);
        make_folder(root, folder);
        check_folder(root, folder);
        free(root);
    }
    cJSON_Delete(folders);
}

static void test_split_is_chosen_by_what_it_is_for(void **state)
{
    (void)state;
    write_text(FOLDER "/set/train.jsonl", "{\"a\": 1}\n");
    write_text(FOLDER "/set/test.jsonl", "{\"a\": 2}\n{\"a\": 3}\n");
    write_text(FOLDER "/tests/test.jsonl", "{\"a\": 2}\n");
    Dataset *dataset = open_path("data.eval", FOLDER "/set");
    assert_int_equal(dataset_summary(dataset).records, 2); /* there is no validation */
    dataset_close(dataset);
    write_text(FOLDER "/set/dev.jsonl", "{\"a\": 4}\n{\"a\": 5}\n{\"a\": 6}\n");
    dataset = open_path("data.eval", FOLDER "/set");
    assert_int_equal(dataset_summary(dataset).records, 3);
    dataset_close(dataset);
    assert_refused("data.train", FOLDER "/tests", ERR_NOT_FOUND, "has no split train");
    assert_refused("data.train", FOLDER "/tests", ERR_NOT_FOUND, FOLDER "/tests@test");
    assert_refused("data.train", FOLDER "/set@dev", ERR_NOT_FOUND, "train validation test");
}

static void test_what_a_folder_lacks_is_said(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_create(FOLDER "/empty", &err), &err);
    write_text(FOLDER "/mixed/train.jsonl", "{}\n");
    write_text(FOLDER "/mixed/train.parquet", "PAR1");
    write_text(FOLDER "/card/a.jsonl", "{}\n");
    write_text(FOLDER "/card/README.md",
               "---\nconfigs:\n- config_name: x\n  data_files: a.jsonl\n- config_name: y\n"
               "  data_files: b.jsonl\n---\n");
    write_text(FOLDER "/bad/README.md",
               "---\nconfigs:\n- config_name: x\n  data_files: [{a: 1}]\n---\n");
    write_text(FOLDER "/worse/README.md", "---\nconfigs: [\n---\n");
    assert_refused("data.train", FOLDER "/empty", ERR_NOT_FOUND, "holds no data files");
    assert_refused("data.train", FOLDER "/mixed", ERR_INVALID, "two kinds");
    assert_refused("data.train", FOLDER "/card", ERR_NOT_FOUND, "several configurations");
    assert_refused("data.train", FOLDER "/card@z/train", ERR_NOT_FOUND, "configurations: x y");
    assert_refused("data.train", FOLDER "/card@y/train", ERR_NOT_FOUND, "names b.jsonl");
    write_text(FOLDER "/plain/train.jsonl", "{}\n");
    assert_refused("data.train", FOLDER "/plain@main/train", ERR_NOT_FOUND,
                   "no configuration main\n  expected: a split alone: there is no README.md that "
                   "names configurations\n  to do: write " FOLDER "/plain@train");
    assert_refused("data.train", FOLDER "/bad", ERR_DATA, "README.md:4");
    assert_refused("data.train", FOLDER "/worse", ERR_DATA, "README.md:");
    dataset_close(open_path("data.train", FOLDER "/card@x/train"));
}

/* What Dataset.save_to_disk and DatasetDict.save_to_disk have written. */
static void test_saved_datasets_are_found(void **state)
{
    (void)state;
    Error err = {0};
    static const struct {
        const char *path, *key;
        int files;
    } cases[] = {{SAVED, "data.train", 2},
                 {SAVED, "data.eval", 1},
                 {SAVED "@test", "data.train", 1},
                 {SAVED "/train", "data.train", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StringList files = {0};
        DataPath path = data_path_parse(cases[i].path);
        char *split = NULL;
        assert_ok(data_folder_files(&path, cases[i].key, &files, &split, &err), &err);
        free(split);
        assert_int_equal(files.count, cases[i].files);
        for (int f = 0; f < files.count; f++)
            assert_true(path_exists(files.item[f]));
        string_list_free(&files);
        data_path_free(&path);
    }
    if (path_exists(PROJECT_BINARY_DIR "/lib/libtroupe_arrow.so")) {
        Dataset *dataset = open_path("data.train", SAVED);
        assert_int_equal(dataset_summary(dataset).records, 4);
        dataset_close(dataset);
    }
}

/* ---- what is said of them ---- */

/* `expected`: NULL for an entry that is plain. */
static void assert_said(const char *key, const char *path, const char *expected)
{
    Dataset *dataset = open_path(key, path);
    const StringList *lines = dataset_entries(dataset);
    assert_int_equal(lines->count, expected != NULL);
    if (expected != NULL) assert_string_equal(lines->item[0], expected);
    dataset_close(dataset);
}

static void test_what_an_entry_became_is_said(void **state)
{
    (void)state;
    write_text(FOLDER "/set/train-1.jsonl", "1\n");
    write_text(FOLDER "/set/train-2.jsonl", "2\n3\n");
    write_text(FOLDER "/set/test.jsonl", "4\n");
    write_text(FOLDER "/card/a.jsonl", "{}\n");
    write_text(FOLDER "/card/README.md",
               "---\nconfigs:\n- config_name: x\n  data_files: a.jsonl\n---\n");
    assert_said("data.train", FOLDER "/set",
                "data.train: " FOLDER
                "/set is split train: 2 files, train-1.jsonl to train-2.jsonl (0.006 kB)");
    assert_said("data.eval", FOLDER "/set",
                "data.eval: " FOLDER "/set is split test: 1 file, test.jsonl (0.002 kB)");
    assert_said("data.train", FOLDER "/card",
                "data.train: " FOLDER "/card is split x/train: 1 file, a.jsonl (0.003 kB)");
    assert_said("data.train", FOLDER "/set/*.jsonl",
                "data.train: " FOLDER
                "/set/*.jsonl is 3 files, test.jsonl to train-2.jsonl (0.008 kB)");
    assert_said("data.train", FOLDER "/set/train-2.jsonl@[-1:]",
                "data.train: " FOLDER "/set/train-2.jsonl@[-1:] is records 1 to 1 of 2 (from 0): "
                "1 file, train-2.jsonl (0.004 kB)");
    assert_said("data.train", FOLDER "/set/train-2.jsonl", NULL);
}

/* The line behind what the entry is. */
static void assert_warned(const char *path, const char *expected)
{
    Dataset *dataset = open_path("data.train", path);
    const StringList *lines = dataset_entries(dataset);
    assert_int_equal(lines->count, 1 + (expected != NULL));
    if (expected != NULL) assert_string_equal(lines->item[1], expected);
    dataset_close(dataset);
}

static void test_files_that_are_hardly_meant_are_warned_of(void **state)
{
    (void)state;
    write_text(FOLDER "/w/a.jsonl", "1\n");
    write_text(FOLDER "/w/b.jsonl", "2\n");
    assert_warned(FOLDER "/w/*", NULL);
    write_text(FOLDER "/w/c.jsonl", "");
    assert_warned(FOLDER "/w/*", "warning: data.train: no record is in " FOLDER
                                 "/w/c.jsonl, as if the writing had been cut off; the other files "
                                 "are read");
    write_text(FOLDER "/w/d.jsonl", "\n \n");
    assert_warned(FOLDER "/w/*", "warning: data.train: no record is in " FOLDER
                                 "/w/c.jsonl and in 1 more file, as if the writing had been cut "
                                 "off; the other files are read");
    write_text(FOLDER "/x/a.jsonl", "1\n");
    write_text(FOLDER "/x/a.jsonl.gz", "2\n");
    assert_warned(FOLDER "/x/*", "warning: data.train: both " FOLDER "/x/a.jsonl and " FOLDER
                                 "/x/a.jsonl.gz are read: each record twice, if they are the same");
    write_text(FOLDER "/x/b.jsonl", "1\n");
    write_text(FOLDER "/x/b.jsonl.zst", "2\n");
    assert_warned(FOLDER "/x/*", "warning: data.train: both " FOLDER "/x/a.jsonl and " FOLDER
                                 "/x/a.jsonl.gz are read, and 1 more with and without "
                                 "compression: each record twice, if they are the same");
}

/* ---- slices ---- */

static void assert_slice(const char *slice, const char *expected)
{
    char *path = mem_printf(FOLDER "/part-*.jsonl@%s", slice);
    Dataset *dataset = open_path("data.train", path);
    Str text = {0};
    RecordSource source;
    Error err = {0};
    for (uint64_t i = 0; i < dataset_summary(dataset).records; i++)
        assert_ok(dataset_read(dataset, i, &text, &source, &err), &err);
    assert_string_equal(str_text(&text), expected);
    str_free(&text);
    dataset_close(dataset);
    free(path);
}

static void write_parts(void)
{
    write_text(FOLDER "/part-1.jsonl", "0\n\n1\n2\n");
    write_text(FOLDER "/part-2.jsonl", "3\n4\n");
    write_text(FOLDER "/part-3.jsonl", "5\n6\n7\n8\n9\n");
}

static void test_slices_are_those_of_python(void **state)
{
    (void)state;
    write_parts();
    assert_slice("[:]", "0123456789");
    assert_slice("[:3]", "012");
    assert_slice("[2:6]", "2345");
    assert_slice("[7:]", "789");
    assert_slice("[-3:]", "789");
    assert_slice("[:-8]", "01");
    assert_slice("[-6:-4]", "45");
    assert_slice("[-99:2]", "01");
    assert_slice("[8:99]", "89");
    assert_refused("data.train", FOLDER "/part-*.jsonl@[5:5]", ERR_DATA, "no record");
    assert_refused("data.train", FOLDER "/part-*.jsonl@[7:2]", ERR_DATA, "no record");
    write_text(FOLDER "/odd@[0:1].jsonl", "odd\n"); /* a name that looks like one */
    Dataset *dataset = open_path("data.train", FOLDER "/odd@[0:1].jsonl");
    assert_int_equal(dataset_summary(dataset).records, 1);
    dataset_close(dataset);
}

static void test_slice_keeps_lines_and_changes_the_fingerprint(void **state)
{
    (void)state;
    Error err = {0};
    write_parts();
    static const char *const paths[] = {FOLDER "/part-1.jsonl", FOLDER "/part-1.jsonl@[1:]",
                                        FOLDER "/part-1.jsonl@[:2]", FOLDER "/part-1.jsonl@[:]"};
    char fingerprint[4][DIGEST_HEX_BYTES];
    for (int i = 0; i < 4; i++) {
        Dataset *dataset = open_path("data.train", paths[i]);
        dataset_fingerprint(dataset, "shuffle\n", fingerprint[i]);
        dataset_close(dataset);
    }
    assert_string_not_equal(fingerprint[0], fingerprint[1]);
    assert_string_not_equal(fingerprint[1], fingerprint[2]);
    assert_string_equal(fingerprint[0], fingerprint[3]);
    Dataset *dataset = open_path("data.train", FOLDER "/part-1.jsonl@[1:]");
    Str text = {0};
    RecordSource source;
    assert_ok(dataset_read(dataset, 0, &text, &source, &err), &err);
    assert_string_equal(str_text(&text), "1");
    assert_int_equal(source.line, 3);
    str_free(&text);
    dataset_close(dataset);
}

/* With a slice, too, only so much is opened as is looked at. */
static void test_beginning_of_a_slice_is_read_alone(void **state)
{
    (void)state;
    Error err = {0};
    write_parts();
    static const char *const paths[] = {FOLDER "/part-*.jsonl@[2:]", FOLDER "/part-*.jsonl@[-8:]"};
    for (int i = 0; i < 2; i++) {
        DatasetOptions options = {
            .key = "data.train", .path = &paths[i], .num_paths = 1, .records_max = 2};
        Dataset *dataset = NULL;
        assert_ok(dataset_open(&options, &dataset, &err), &err);
        assert_int_equal(dataset_summary(dataset).whole, i == 1);
        Str text = {0};
        RecordSource source;
        for (uint64_t r = 0; r < 2; r++)
            assert_ok(dataset_read(dataset, r, &text, &source, &err), &err);
        assert_string_equal(str_text(&text), "23");
        str_free(&text);
        dataset_close(dataset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_folders_hold_the_files_that_datasets_finds, fresh_folder),
        cmocka_unit_test_setup(test_split_is_chosen_by_what_it_is_for, fresh_folder),
        cmocka_unit_test_setup(test_what_a_folder_lacks_is_said, fresh_folder),
        cmocka_unit_test_setup(test_what_an_entry_became_is_said, fresh_folder),
        cmocka_unit_test_setup(test_files_that_are_hardly_meant_are_warned_of, fresh_folder),
        cmocka_unit_test_setup(test_saved_datasets_are_found, fresh_folder),
        cmocka_unit_test_setup(test_slices_are_those_of_python, fresh_folder),
        cmocka_unit_test_setup(test_slice_keeps_lines_and_changes_the_fingerprint, fresh_folder),
        cmocka_unit_test_setup(test_beginning_of_a_slice_is_read_alone, fresh_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
