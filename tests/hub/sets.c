#include "hub/sets.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "hub/support.h"
#include "test.h"

void sets_put_shards(const char *repo, int first)
{
    for (int i = 0; i < SHARDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "data/train-%05d-of-%05d.jsonl", i, SHARDS);
        hub_put_lines(repo, COMMIT_A, name, first + ROWS * i, first + ROWS * (i + 1));
    }
    hub_put_lines(repo, COMMIT_A, "data/test-00000-of-00001.jsonl", 0, 40);
    hub_put(repo, COMMIT_A, "README.md", "# A set\n");
    hub_set_refs(repo, "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
}

int64_t sets_shard_bytes(const char *repo)
{
    struct stat info;
    char *path = mem_printf(SERVER_ROOT "/repos/%s/" COMMIT_A "/data/train-%05d-of-%05d.jsonl",
                            repo, SHARDS - 1, SHARDS);
    assert_int_equal(stat(path, &info), 0);
    free(path);
    return info.st_size;
}

static DIR *open_blobs(const char *repo)
{
    const char *slash = strchr(repo, '/');
    char *folder =
        mem_printf(HUB_CACHE "/datasets--%.*s--%s/blobs", (int)(slash - repo), repo, slash + 1);
    DIR *entries = opendir(folder);
    free(folder);
    return entries;
}

/* Of a file of the folder that is no small one, whole or on its way; else 0. */
static int64_t blob_bytes(DIR *entries, const char *name)
{
    struct stat info;
    bool large = fstatat(dirfd(entries), name, &info, 0) == 0 && S_ISREG(info.st_mode) &&
                 info.st_size >= 1000;
    return large ? info.st_size : 0;
}

int64_t sets_cache_bytes(const char *repo)
{
    DIR *entries = open_blobs(repo);
    int64_t bytes = 0;
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        bytes += blob_bytes(entries, entry->d_name);
    if (entries != NULL) closedir(entries);
    return bytes;
}

void sets_end_before_names(const char *repo)
{
    DIR *entries = open_blobs(repo);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (blob_bytes(entries, entry->d_name) == 0 || strchr(entry->d_name, '.') != NULL) continue;
        char *begun = mem_printf("%s.incomplete", entry->d_name);
        assert_int_equal(renameat(dirfd(entries), entry->d_name, dirfd(entries), begun), 0);
        free(begun);
    }
    closedir(entries);
}

Dataset *sets_open(const DatasetOptions *options)
{
    Error err = {0};
    Dataset *dataset = NULL;
    assert_ok(dataset_open(options, &dataset, &err), &err);
    return dataset;
}

void sets_assert_record(const Dataset *dataset, uint64_t index, int number)
{
    Str text = {0};
    RecordSource source;
    Error err = {0};
    char expected[96];
    snprintf(expected, sizeof expected, "{\"prompt\": \"%d\", \"completion\": \"number %d\"}",
             number, number);
    assert_ok(dataset_read(dataset, index, &text, &source, &err), &err);
    assert_string_equal(str_text(&text), expected);
    str_free(&text);
}
