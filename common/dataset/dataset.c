#include "dataset/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/block_cache.h"
#include "dataset/format.h"
#include "dataset/shuffle.h"

typedef struct DatasetFile {
    const DatasetFormat *format;
    void *file;
    char *path;
    uint64_t first; /* index of its first record in the data set */
} DatasetFile;

struct Dataset {
    DatasetFile *file;
    int num_files, capacity;
    DatasetSummary summary;
    BlockCache *cache;
};

/* How a file begins, which must be a regular one. */
static Status read_head(const char *path, uint8_t head[16], size_t *ret_length, Error *err)
{
    /* O_NONBLOCK: a FIFO by mistake is refused instead of being waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    struct stat info;
    Status status = OK;
    if (fstat(fd, &info) != 0)
        status = error_set_errno(err, errno, "could not stat %s", path);
    else if (!S_ISREG(info.st_mode))
        status =
            error_set(err, ERR_INVALID, "%s is not a regular file, which a data set must be", path);
    if (status == OK) {
        *ret_length = info.st_size < 16 ? (size_t)info.st_size : 16;
        status = file_read_at(fd, head, *ret_length, 0, path, err);
    }
    close(fd);
    return status;
}

static Status open_file(const Dataset *dataset, const char *path, const DatasetOptions *options,
                        DatasetFile *ret, Error *err)
{
    static const DatasetFormat *const formats[] = {&dataset_table, &dataset_jsonl};
    FileOpening opening = {.path = path, .options = options, .cache = dataset->cache};
    size_t length = 0, kind = 0;
    TRY(read_head(path, opening.head, &length, err));
    while (!formats[kind]->begins(opening.head, length))
        kind++;
    ret->format = formats[kind];
    return ret->format->open(&opening, &ret->file, err);
}

static Status add_file(Dataset *dataset, const DatasetOptions *options, const char *path,
                       Error *err)
{
    if (dataset->num_files == DATASET_FILES_MAX)
        return error_set(
            err, ERR_RESOURCE,
            "%s names more than %d files (DATASET_FILES_MAX)\n  to do: join small files "
            "with cat",
            options->key, DATASET_FILES_MAX);
    if (path_is_folder(path))
        return error_set(
            err, ERR_INVALID,
            "%s: %s is a folder\n  expected: a JSONL file or a glob\n  to do: name its "
            "files, for example %s/*.jsonl",
            options->key, path, path);
    DatasetFile file = {.first = dataset->summary.records};
    uint64_t records = dataset->summary.records;
    DatasetOptions rest = *options;
    if (rest.records_max > 0) {
        if (records >= rest.records_max) {
            dataset->summary.whole = false;
            return OK;
        }
        rest.records_max -= records;
    }
    if (open_file(dataset, path, &rest, &file, err) != OK)
        return error_prefix(err, "%s", options->key);
    if (dataset->num_files == dataset->capacity) {
        dataset->capacity = 2 * dataset->capacity + 8;
        dataset->file =
            mem_realloc(dataset->file, (size_t)dataset->capacity, sizeof *dataset->file);
    }
    DatasetSummary *total = &dataset->summary;
    FileSummary summary = file.format->summary(file.file);
    file.path = mem_strdup(path);
    dataset->file[dataset->num_files++] = file;
    total->records += summary.records;
    total->bytes += summary.bytes;
    total->files++;
    total->files_indexed += !summary.index_reused;
    total->whole = total->whole && summary.whole;
    if (total->warning == NULL) total->warning = summary.warning;
    return OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static Status add_glob(Dataset *dataset, const DatasetOptions *options, const char *pattern,
                       Error *err)
{
    glob_t found;
    int failed = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, &found);
    if (failed == GLOB_NOMATCH)
        return error_set(err, ERR_NOT_FOUND,
                         "%s: no file matches %s\n  expected: at least one JSONL file\n  to do: "
                         "correct the path; relative ones start at the folder of the job file",
                         options->key, pattern);
    if (failed != 0)
        return error_set(err, ERR_IO, "%s: could not list the files of %s", options->key, pattern);
    /* Sorted here: glob's own order follows the locale, and order is part of the stream. */
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, compare_paths);
    Status status = OK;
    for (size_t i = 0; i < found.gl_pathc && status == OK; i++)
        status = add_file(dataset, options, found.gl_pathv[i], err);
    globfree(&found);
    return status;
}

/* "data.train: no record in a.jsonl, b.jsonl and 3 more files" */
static Status refuse_empty(const Dataset *dataset, const DatasetOptions *options, Error *err)
{
    Str names = {0};
    int shown = dataset->num_files < 4 ? dataset->num_files : 3;
    for (int i = 0; i < shown; i++)
        str_printf(&names, "%s%s", i > 0 ? ", " : "", dataset->file[i].path);
    if (shown < dataset->num_files)
        str_printf(&names, " and %d more files", dataset->num_files - shown);
    error_set(
        err, ERR_DATA,
        "%s: the data set is empty: no record in %s\n  expected: at least one line with a JSON "
        "object\n  to do: check that the file was written completely",
        options->key, dataset->num_files > 0 ? str_text(&names) : "an empty list of files");
    str_free(&names);
    return ERR_DATA;
}

Status dataset_open(const DatasetOptions *options, Dataset **ret, Error *err)
{
    Dataset *dataset = mem_calloc(1, sizeof *dataset);
    dataset->summary.whole = true;
    dataset->cache = block_cache_create(DATASET_CACHE_MAX);
    Status status = OK;
    for (int i = 0; i < options->num_paths && status == OK; i++) {
        const char *path = options->path[i];
        /* A file that is there is meant literally, whatever characters its name has. */
        status = path_exists(path) ? add_file(dataset, options, path, err)
                                   : add_glob(dataset, options, path, err);
    }
    if (status == OK && dataset->summary.records == 0) status = refuse_empty(dataset, options, err);
    if (status == OK) {
        *ret = dataset;
        dataset = NULL;
    }
    dataset_close(dataset);
    return status;
}

void dataset_close(Dataset *dataset)
{
    if (dataset == NULL) return;
    for (int i = 0; i < dataset->num_files; i++) {
        dataset->file[i].format->close(dataset->file[i].file);
        free(dataset->file[i].path);
    }
    block_cache_destroy(dataset->cache);
    free(dataset->file);
    free(dataset);
}

DatasetSummary dataset_summary(const Dataset *dataset)
{
    return dataset->summary;
}

int dataset_num_files(const Dataset *dataset)
{
    return dataset->num_files;
}

DatasetFileInfo dataset_file(const Dataset *dataset, int index)
{
    CHECK(index >= 0 && index < dataset->num_files);
    const DatasetFile *file = &dataset->file[index];
    FileSummary summary = file->format->summary(file->file);
    return (DatasetFileInfo){file->path, summary.records, summary.bytes, summary.content_hash};
}

void dataset_fingerprint(const Dataset *dataset, bool shuffle, uint64_t seed,
                         char ret[DIGEST_HEX_BYTES])
{
    CHECK(dataset->summary.whole);
    Str text = {0};
    str_puts(&text, "troupe stream\n");
    if (shuffle) str_printf(&text, "shuffle %d %llu\n", SHUFFLE_VERSION, (unsigned long long)seed);
    for (int i = 0; i < dataset->num_files; i++) {
        FileSummary file = dataset->file[i].format->summary(dataset->file[i].file);
        str_printf(&text, "%s %llu %llu %016llx\n", file.kind, (unsigned long long)file.bytes,
                   (unsigned long long)file.records, (unsigned long long)file.content_hash);
    }
    digest_bytes(text.data, text.length, ret);
    str_free(&text);
}

Status dataset_read(const Dataset *dataset, uint64_t index, Str *text, RecordSource *ret_source,
                    Error *err)
{
    CHECK(index < dataset->summary.records);
    int low = 0, high = dataset->num_files; /* the last file that begins at or before `index` */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (dataset->file[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    const DatasetFile *file = &dataset->file[low];
    ret_source->path = file->path;
    return file->format->read(file->file, index - file->first, text, &ret_source->line, err);
}
