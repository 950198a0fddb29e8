/* Tests of data sets on the Hub: their files and records are those of the same folder on this
 * machine, only what is needed is fetched, a run stays at its commit, and a cache that is smaller
 * than the set costs time, never a record. */
#include "test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hub_name.h"
#include "base/json.h"
#include "base/memory.h"
#include "dataset/files.h"
#include "hub/sets.h"
#include "hub/support.h"

#define SNAPSHOT HUB_CACHE "/datasets--a--set/snapshots/" COMMIT_A "/"

static HubServer server;
static HubAccess hub;
static DatasetHub whole = {&hub, "run/hub.json", NULL}, small = {&hub, "run/hub.json", NULL};
static int64_t small_bytes; /* of its room */

static int start_server(void **state)
{
    (void)state;
    make_fresh(SERVER_ROOT);
    hub_server_start("http", &server);
    hub = hub_server_access("http", &server);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    hub_server_stop(&server);
    hub_room_release(small.room);
    hub_access_free(&hub);
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    hub_make_fresh();
    make_fresh("run");
    return 0;
}

static DatasetOptions options_of(const char *const *path)
{
    return (DatasetOptions){.key = "data.train",
                            .path = path,
                            .num_paths = 1,
                            .index_folder = "run/index",
                            .hub = &whole};
}

static Dataset *open_path(const char *path)
{
    DatasetOptions options = options_of(&path);
    return sets_open(&options);
}

static void assert_refused(const char *path, Status status, const char *expected)
{
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = options_of(&path);
    assert_fails(dataset_open(&options, &dataset, &err), status, &err, expected);
    assert_non_null(strstr(err.message, "data.train"));
}

/* ---- which files ---- */

static void put_folder(const cJSON *folder)
{
    const cJSON *file = NULL, *readme = cJSON_GetObjectItemCaseSensitive(folder, "readme");
    make_fresh(SERVER_ROOT "/repos/a/set/" COMMIT_A);
    make_fresh("cache");
    cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(folder, "files"))
    {
        hub_put("a/set", COMMIT_A, file->valuestring, "{\"a\": 1}\n");
    }
    if (readme != NULL) hub_put("a/set", COMMIT_A, "README.md", readme->valuestring);
}

static void assert_files(const char *path, const cJSON *expected)
{
    Dataset *dataset = open_path(path);
    const cJSON *file = NULL;
    int index = 0;
    assert_int_equal(dataset_num_files(dataset), cJSON_GetArraySize(expected));
    cJSON_ArrayForEach(file, expected)
    {
        char *wanted = mem_printf(SNAPSHOT "%s", file->valuestring);
        assert_string_equal(dataset_file(dataset, index++).path, wanted);
        free(wanted);
    }
    dataset_close(dataset);
}

/* The same list as that of folders, which the package `datasets` has made. */
static void test_splits_are_those_of_folders(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *folders = NULL;
    assert_ok(json_read(TEST_SOURCE_DIR "/dataset/folders.json", 1 << 20, &folders, &err), &err);
    const cJSON *folder = NULL, *config = NULL, *split = NULL;
    cJSON_ArrayForEach(folder, folders)
    {
        put_folder(folder);
        cJSON_ArrayForEach(config, cJSON_GetObjectItemCaseSensitive(folder, "configs"))
        {
            cJSON_ArrayForEach(split, config)
            {
                char *path =
                    mem_printf("hf://datasets/a/set@main@%s/%s", config->string, split->string);
                print_message("%s %s\n", folder->child->valuestring, path);
                assert_files(path, split);
                free(path);
            }
        }
    }
    cJSON_Delete(folders);
}

static void test_paths_in_a_repository_are_files_globs_and_folders(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        uint64_t files;
    } cases[] = {{"hf://datasets/a/set/data/test-00000-of-00001.jsonl", 1},
                 {"hf://datasets/a/set@main/data/train-*.jsonl", 6},
                 {"hf://datasets/a/set@main/**/*-0000[01]-of-*.jsonl", 3},
                 {"hf://datasets/a/set@main/data", 6},
                 {"hf://datasets/a/set@main/data@test", 1}};
    sets_put_shards("a/set", 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dataset *dataset = open_path(cases[i].path);
        assert_int_equal(dataset_summary(dataset).files, cases[i].files);
        dataset_close(dataset);
    }
    assert_refused("hf://datasets/a/set/data/test-00000-of-00002.jsonl", ERR_NOT_FOUND,
                   "did you mean \"data/test-00000-of-00001.jsonl\"");
    assert_refused("hf://datasets/a/set@main@valid", ERR_NOT_FOUND, "has no split valid");
    assert_refused("hf://datasets/a/set@main@valid", ERR_NOT_FOUND,
                   "write hf://datasets/a/set@main@t");
}

/* ---- revisions with slashes ---- */

static void assert_opens(const char *path, uint64_t files, int number)
{
    print_message("%s\n", path);
    Dataset *dataset = open_path(path);
    assert_int_equal(dataset_summary(dataset).files, files);
    sets_assert_record(dataset, 0, number);
    dataset_close(dataset);
}

/* As OWNER/NAME#REVISION, which a job file may have. */
static void assert_short_opens(const char *text, uint64_t files, int number)
{
    char *path = hub_name_expand(text, ".");
    assert_non_null(path);
    assert_opens(path, files, number);
    free(path);
}

static void test_revisions_with_slashes_are_found(void **state)
{
    (void)state;
    sets_put_shards("a/set", 0);
    hub_put_lines("a/set", COMMIT_B, "train.jsonl", 700, 710);
    hub_set_refs("a/set", "{\"branches\": {\"main\": \"" COMMIT_A "\", \"feature/new\": "
                          "\"" COMMIT_B "\", \"refs/pr/3\": \"" COMMIT_B "\"}}");
    assert_opens("hf://datasets/a/set@feature%2Fnew", 1, 700);
    assert_opens("hf://datasets/a/set@feature%2Fnew@train", 1, 700);
    assert_opens("hf://datasets/a/set@feature%2Fnew/train.jsonl@[5:]", 1, 705);
    assert_opens("hf://datasets/a/set@refs/pr/3/train.jsonl", 1, 700);
    assert_opens("hf://datasets/a/set@refs%2Fpr%2F3@train@[1:]", 1, 701);
    assert_short_opens("a/set#feature/new@train", 1, 700);
    assert_short_opens("a/set#refs/pr/3", 1, 700);
    assert_refused("hf://datasets/a/set@feature/new", ERR_NOT_FOUND,
                   "did you mean \"feature/new\"? Behind hf:// its slashes are written %2F");
    assert_refused("hf://datasets/a/set@feature%2Fnew@test", ERR_NOT_FOUND,
                   "write hf://datasets/a/set@feature%2Fnew@train");
}

/* What the Hub converts has a folder for each configuration, and no card. */
static void test_conversions_of_the_hub_are_read(void **state)
{
    (void)state;
    hub_put_lines("a/set", COMMIT_A, "x.csv", 0, 10);
    hub_put_lines("a/set", COMMIT_B, "en/train/0000.jsonl", 100, 150);
    hub_put_lines("a/set", COMMIT_B, "en/train/0001.jsonl", 150, 200);
    hub_put_lines("a/set", COMMIT_B, "en/test/0000.jsonl", 200, 250);
    hub_put_lines("a/set", COMMIT_B, "fr/partial-train/0000.jsonl", 300, 350);
    hub_put("a/set", COMMIT_B, ".gitattributes", "x");
    hub_set_refs("a/set", "{\"branches\": {\"main\": \"" COMMIT_A "\"}, \"converts\": "
                          "{\"parquet\": \"" COMMIT_B "\"}}");
    assert_opens("hf://datasets/a/set@refs/convert/parquet@en/train", 2, 100);
    assert_opens("hf://datasets/a/set@refs%2Fconvert%2Fparquet@en/test", 1, 200);
    assert_opens("hf://datasets/a/set@refs/convert/parquet@fr/train", 1, 300);
    assert_opens("hf://datasets/a/set@refs/convert/parquet/en@train", 2, 100);
    assert_opens("hf://datasets/a/set@refs%2Fconvert%2Fparquet/en/train/0001.jsonl", 1, 150);
    assert_opens("hf://datasets/a/set@refs/convert/parquet/en/train/*.jsonl@[60:]", 1, 160);
    assert_short_opens("a/set#refs/convert/parquet@en/train", 2, 100);
    assert_refused("hf://datasets/a/set@refs/convert/parquet", ERR_NOT_FOUND,
                   "several configurations\n  expected: one of its configurations: en fr\n  to do: "
                   "write hf://datasets/a/set@refs/convert/parquet@en/train");
    assert_refused("hf://datasets/a/set@refs/convert/parquet@de/train", ERR_NOT_FOUND,
                   "no configuration de");
    assert_refused("hf://datasets/a/set@refs/convert/parket", ERR_NOT_FOUND,
                   "did you mean \"refs/convert/parquet\"");
    fresh(NULL);
    hub_put_lines("a/set", COMMIT_B, "default/train/0000.jsonl", 100, 150);
    hub_set_refs("a/set", "{\"branches\": {}, \"converts\": {\"parquet\": \"" COMMIT_B "\"}}");
    assert_opens("hf://datasets/a/set@refs/convert/parquet", 1, 100);
    assert_opens("hf://datasets/a/set@refs/convert/parquet@train", 1, 100);
}

/* ---- only what is needed ---- */

static void test_only_the_split_is_fetched(void **state)
{
    (void)state;
    sets_put_shards("a/set", 0);
    Dataset *dataset = open_path("hf://datasets/a/set@main@test");
    assert_int_equal(dataset_summary(dataset).records, 40);
    sets_assert_record(dataset, 39, 39);
    dataset_close(dataset);
    assert_int_equal(hub_requests_with("resolve"), 2); /* and README.md */
    assert_int_equal(hub_requests_with("train-"), 0);
}

static void test_a_look_fetches_the_first_files_alone(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    DatasetOptions options = options_of(&path);
    options.index_read_only = true;
    options.records_max = ROWS + 1;
    Dataset *dataset = sets_open(&options);
    assert_false(dataset_summary(dataset).whole);
    sets_assert_record(dataset, ROWS, ROWS);
    dataset_close(dataset);
    assert_int_equal(hub_requests_with("\"cdn\""), 2);
    assert_false(path_exists("run/hub.json")); /* it decides nothing */
}

static void test_a_slice_fetches_what_it_takes(void **state)
{
    (void)state;
    sets_put_shards("a/set", 0);
    Dataset *dataset = open_path("hf://datasets/a/set@[10:410]");
    assert_int_equal(dataset_summary(dataset).records, 400);
    sets_assert_record(dataset, 399, 409);
    dataset_close(dataset);
    assert_int_equal(hub_requests_with("\"cdn\""), 2);
}

static void test_data_is_the_same_as_that_of_a_folder(void **state)
{
    (void)state;
    char fingerprint[2][DIGEST_HEX_BYTES];
    sets_put_shards("a/set", 0);
    static const char *const paths[] = {"hf://datasets/a/set",
                                        SERVER_ROOT "/repos/a/set/" COMMIT_A};
    for (int i = 0; i < 2; i++) {
        Dataset *dataset = open_path(paths[i]);
        dataset_fingerprint(dataset, "", fingerprint[i]);
        for (int r = 0; r < SHARDS * ROWS; r += 37)
            sets_assert_record(dataset, (uint64_t)r, r);
        dataset_close(dataset);
    }
    assert_string_equal(fingerprint[0], fingerprint[1]);
}

/* ---- which commit ---- */

static void test_a_run_stays_at_its_commit(void **state)
{
    (void)state;
    hub_put_lines("a/set", COMMIT_A, "train.jsonl", 0, 50);
    hub_put_lines("a/set", COMMIT_B, "train.jsonl", 100, 150);
    Dataset *dataset = open_path("hf://datasets/a/set");
    sets_assert_record(dataset, 0, 0);
    dataset_close(dataset);
    hub_set_refs("a/set", "{\"branches\": {\"main\": \"" COMMIT_B "\"}}");
    hub_forget_requests();
    dataset = open_path("hf://datasets/a/set");
    sets_assert_record(dataset, 0, 0);
    dataset_close(dataset);
    assert_int_equal(hub_requests_with(""), 0); /* all of it is known and there */
    hub.offline = true;
    dataset = open_path("hf://datasets/a/set");
    hub.offline = false;
    sets_assert_record(dataset, 0, 0);
    dataset_close(dataset);
    make_fresh("run"); /* another run */
    dataset = open_path("hf://datasets/a/set");
    sets_assert_record(dataset, 0, 100);
    dataset_close(dataset);
    make_fresh("run");
    dataset = open_path("hf://datasets/a/set@" COMMIT_A);
    sets_assert_record(dataset, 0, 0);
    dataset_close(dataset);
}

/* ---- a cache that is smaller than the data ---- */

static void bound_room(int64_t bytes)
{
    hub_room_release(small.room);
    small.room = hub_room_create(small_bytes = bytes);
}

static DatasetOptions small_options(const char *const *path)
{
    DatasetOptions options = options_of(path);
    options.in_order = true;
    bound_room(5 * sets_shard_bytes("a/set") / 2);
    options.hub = &small;
    return options;
}

static void test_a_small_cache_reads_every_record_in_order(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    DatasetOptions options = small_options(&path);
    Dataset *dataset = sets_open(&options);
    for (int epoch = 0; epoch < 2; epoch++) {
        for (int r = 0; r < SHARDS * ROWS; r++) {
            sets_assert_record(dataset, (uint64_t)r, r);
            if (r % 100 == 0) assert_true(sets_cache_bytes("a/set") <= small_bytes);
        }
    }
    char fingerprint[2][DIGEST_HEX_BYTES];
    dataset_fingerprint(dataset, "", fingerprint[0]);
    dataset_close(dataset);
    assert_true(hub_requests_with("\"cdn\"") >= 2 * SHARDS);

    /* What it has found is known to the next start, which fetches what it reads. */
    hub_forget_requests();
    dataset = sets_open(&options);
    dataset_fingerprint(dataset, "", fingerprint[1]);
    assert_string_equal(fingerprint[0], fingerprint[1]);
    assert_int_equal(dataset_summary(dataset).files_indexed, 0);
    sets_assert_record(dataset, 7, 7);
    dataset_close(dataset);
    assert_true(hub_requests_with("\"cdn\"") <= 3); /* for more ahead there is no room */
    assert_true(sets_cache_bytes("a/set") <= small_bytes);
}

/* That a file which was dropped does not come back is no fault of its records. */
static void test_a_file_that_cannot_be_fetched_again_fails_the_set(void **state)
{
    (void)state;
    static const char *const faults[] = {"\"do\": \"status\", \"code\": 410",
                                         "\"do\": \"corrupt\""};
    const char *path = "hf://datasets/a/set";
    for (int i = 0; i < 2; i++) {
        Error err = {0};
        Str text = {0};
        RecordSource source;
        fresh(NULL);
        sets_put_shards("a/set", 0);
        DatasetOptions options = small_options(&path);
        Dataset *dataset = sets_open(&options);
        char *rule = mem_printf("[{\"match\": \"^/a/|resolve\", %s, \"times\": 1000}]", faults[i]);
        hub_set_faults(rule);
        free(rule);
        Status status = OK;
        for (uint64_t r = 0; r < SHARDS * ROWS && status == OK; r += 50)
            status = dataset_read(dataset, r, &text, &source, &err);
        assert_fails(status, ERR_IO, &err, "data.train: ");
        str_free(&text);
        dataset_close(dataset);
    }
    fresh(NULL);
}

/* What may be dropped and fetched again is known by its records, which are counted first. */
static void test_a_small_cache_is_read_by_blocks(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    DatasetOptions options = small_options(&path);
    options.by_blocks = true;
    Dataset *dataset = sets_open(&options);
    int number = 0;
    for (uint64_t block = 0; block < dataset_num_blocks(dataset); block++) {
        uint64_t records;
        assert_true(dataset_block_counted(dataset, block, &records));
        for (uint64_t r = 0; r < records; r++) {
            Str text = {0};
            RecordSource source;
            Error err = {0};
            char expected[32];
            snprintf(expected, sizeof expected, "{\"prompt\": \"%d\",", number++);
            assert_ok(dataset_read_block(dataset, block, r, &text, &source, &err), &err);
            assert_memory_equal(str_text(&text), expected, strlen(expected));
            str_free(&text);
        }
    }
    assert_int_equal(number, SHARDS * ROWS);
    assert_true(sets_cache_bytes("a/set") <= small_bytes);
    dataset_close(dataset);
}

typedef struct Reader {
    const Dataset *dataset;
    int begin;
} Reader;

static void *read_main(void *argument)
{
    const Reader *reader = argument;
    for (int i = 0; i < SHARDS * ROWS; i += 7) {
        int r = (reader->begin + i) % (SHARDS * ROWS);
        sets_assert_record(reader->dataset, (uint64_t)r, r);
    }
    return NULL;
}

/* Threads that are in different files want more than there is room for: each has its turn. */
static void test_a_small_cache_serves_several_threads(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    DatasetOptions options = small_options(&path);
    Dataset *dataset = sets_open(&options);
    Reader reader[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        reader[i] = (Reader){dataset, i * ROWS * 3 / 2};
        assert_int_equal(pthread_create(&thread[i], NULL, read_main, &reader[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_true(sets_cache_bytes("a/set") <= small_bytes);
    dataset_close(dataset);
}

static void test_what_was_there_before_is_not_dropped(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set/data/train-00000-of-00006.jsonl";
    sets_put_shards("a/set", 0);
    dataset_close(open_path(path)); /* by another run */
    make_fresh("run");
    path = "hf://datasets/a/set";
    DatasetOptions options = small_options(&path);
    Dataset *dataset = sets_open(&options);
    for (int r = 0; r < SHARDS * ROWS; r += 50)
        sets_assert_record(dataset, (uint64_t)r, r);
    dataset_close(dataset);
    assert_true(path_exists(SNAPSHOT "data/train-00000-of-00006.jsonl"));
}

static void test_a_small_cache_is_refused_where_it_cannot_do(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = small_options(&path);
    options.in_order = false;
    assert_fails(dataset_open(&options, &dataset, &err), ERR_RESOURCE, &err, "data.shuffle: false");
    assert_non_null(strstr(err.message, "raise data.cache_gb"));
    options.in_order = true;
    bound_room(2 * sets_shard_bytes("a/set") - 1);
    assert_fails(dataset_open(&options, &dataset, &err), ERR_RESOURCE, &err,
                 "room for two of its files");
    assert_int_equal(hub_requests_with("\"cdn\""), 0); /* before anything was fetched */
}

/* ---- a network that ends ---- */

static void test_a_hub_that_goes_away_ends_the_reading_with_its_name(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    DatasetOptions options = small_options(&path);
    Dataset *dataset = sets_open(&options);
    hub_set_faults("[{\"match\": \"resolve\", \"do\": \"status\", \"code\": 503, \"times\": 999}]");
    Str text = {0};
    RecordSource source;
    Error err = {0};
    Status status = OK;
    for (uint64_t r = 0; r < SHARDS * ROWS && status == OK; r += ROWS)
        status = dataset_read(dataset, r, &text, &source, &err);
    assert_int_equal(status, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "train-0000"));
    hub_set_faults("[]");
    for (uint64_t r = 0; r < SHARDS * ROWS; r += ROWS)
        sets_assert_record(dataset, r, (int)r);
    str_free(&text);
    dataset_close(dataset);
}

static void test_cancelled_opening_ends(void **state)
{
    (void)state;
    const char *path = "hf://datasets/a/set";
    sets_put_shards("a/set", 0);
    ReadWatch watch = {0};
    DatasetOptions options = options_of(&path);
    options.watch = &watch;
    watch.cancelled = true;
    Error err = {0};
    Dataset *dataset = NULL;
    assert_fails(dataset_open(&options, &dataset, &err), ERR_CANCELLED, &err, "not wanted");
    watch.cancelled = false;
    dataset = sets_open(&options);
    assert_true(watch.fetched >= SHARDS * (sets_shard_bytes("a/set") - 1000));
    assert_true(watch.to_fetch >= SHARDS * (sets_shard_bytes("a/set") - 1000));
    dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_splits_are_those_of_folders, fresh),
        cmocka_unit_test_setup(test_paths_in_a_repository_are_files_globs_and_folders, fresh),
        cmocka_unit_test_setup(test_revisions_with_slashes_are_found, fresh),
        cmocka_unit_test_setup(test_conversions_of_the_hub_are_read, fresh),
        cmocka_unit_test_setup(test_only_the_split_is_fetched, fresh),
        cmocka_unit_test_setup(test_a_look_fetches_the_first_files_alone, fresh),
        cmocka_unit_test_setup(test_a_slice_fetches_what_it_takes, fresh),
        cmocka_unit_test_setup(test_data_is_the_same_as_that_of_a_folder, fresh),
        cmocka_unit_test_setup(test_a_run_stays_at_its_commit, fresh),
        cmocka_unit_test_setup(test_a_small_cache_reads_every_record_in_order, fresh),
        cmocka_unit_test_setup(test_a_file_that_cannot_be_fetched_again_fails_the_set, fresh),
        cmocka_unit_test_setup(test_a_small_cache_is_read_by_blocks, fresh),
        cmocka_unit_test_setup(test_a_small_cache_serves_several_threads, fresh),
        cmocka_unit_test_setup(test_what_was_there_before_is_not_dropped, fresh),
        cmocka_unit_test_setup(test_a_small_cache_is_refused_where_it_cannot_do, fresh),
        cmocka_unit_test_setup(test_a_hub_that_goes_away_ends_the_reading_with_its_name, fresh),
        cmocka_unit_test_setup(test_cancelled_opening_ends, fresh),
    };
    if (!hub_server_is_possible()) {
        print_message("          SKIP: there is no python3 to serve\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
