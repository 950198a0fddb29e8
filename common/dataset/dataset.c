#include "dataset/dataset.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/data_path.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/path_search.h"
#include "base/plural.h"
#include "dataset/data_folder.h"
#include "dataset/dataset_internal.h"
#include "dataset/entry_line.h"
#include "dataset/file_warnings.h"

#define OPEN_THREADS_MAX 8 /* that make indexes */

/* One of the list of files, globs and folders, on its way into the data set. */
typedef struct Entry {
    Dataset *dataset;
    const DatasetOptions *options;
    HubSet *hub; /* whose files these are; NULL: they are on this machine */
    uint64_t
        records_end; /* of the data set, with which nothing more has to be opened; 0: all of it */
    uint64_t files_end; /* the same, but that what is opened is opened whole */
    EntryLine *line;
} Entry;

/* One file; what it is asked for of an entry that wants its beginning alone is `records_max`. */
static Status open_checked(const Entry *entry, char *const *paths, size_t index,
                           uint64_t records_max, DatasetFile *ret, Error *err)
{
    DatasetOptions options = *entry->options;
    const char *path = paths[index];
    FileOpening opening = {.path = path,
                           .options = &options,
                           .cache = entry->dataset->cache,
                           .readers = entry->dataset->readers,
                           .folder = entry->dataset->folder,
                           .pool = entry->dataset->pool};
    options.records_max = records_max;
    Status status;
    if (path_is_folder(path))
        return error_set(err, ERR_INVALID,
                         "%s: %s is a folder, among files that a glob matches\n  expected: files\n"
                         "  to do: name the folder itself",
                         options.key, path);
    ret->format = &hub_file_format;
    if (entry->hub != NULL)
        status = hub_set_open_file(entry->hub, (int)index, &opening, &ret->file, err);
    else
        status = dataset_format_open(&opening, &ret->format, &ret->file, err);
    if (status != OK) {
        *ret = (DatasetFile){0};
        return error_prefix(err, "%s", options.key);
    }
    ret->path = mem_strdup(path);
    ret->count = ret->format->summary(ret->file).records;
    return OK;
}

static void append_file(Dataset *dataset, DatasetFile file)
{
    if (dataset->num_files == dataset->capacity) {
        dataset->capacity = 2 * dataset->capacity + 8;
        dataset->file =
            mem_realloc(dataset->file, (size_t)dataset->capacity, sizeof *dataset->file);
    }
    DatasetSummary *total = &dataset->summary;
    FileSummary summary = file.format->summary(file.file);
    file.first = total->records;
    dataset->file[dataset->num_files++] = file;
    total->records += summary.records;
    total->bytes += summary.bytes;
    total->files++;
    total->files_indexed += !summary.index_reused;
    total->whole = total->whole && summary.whole;
    if (!summary.hashed) dataset->unhashed = true;
    if (!summary.counted) dataset->uncounted = true;
    if (total->warning == NULL && summary.warning != NULL)
        total->warning = dataset->warning = mem_strdup(summary.warning);
}

static void close_file(DatasetFile *file)
{
    if (file->format != NULL) file->format->close(file->file);
    free(file->path);
}

/* ---- several files at once: each is read once from end to end, some are decompressed ---- */

typedef struct OpenPool {
    const Entry *entry;
    char *const *path; /* [count] */
    DatasetFile *file; /* [count]; those that were not opened stay empty */
    size_t count;
    _Atomic size_t next;
    pthread_mutex_t lock;
    _Atomic size_t failed; /* the first that could not be opened; `count`: none */
    Error err;             /* of that one */
} OpenPool;

static void *open_main(void *argument)
{
    OpenPool *pool = argument;
    for (size_t i; (i = pool->next++) < pool->failed;) {
        Error err = {0};
        if (open_checked(pool->entry, pool->path, i, 0, &pool->file[i], &err) == OK) continue;
        pool->file[i] = (DatasetFile){0};
        pthread_mutex_lock(&pool->lock);
        if (i < pool->failed) {
            pool->failed = i;
            pool->err = err;
        }
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

static int open_threads(size_t count)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t threads = cores < 1 ? 1 : cores > OPEN_THREADS_MAX ? OPEN_THREADS_MAX : (size_t)cores;
    return (int)(threads < count ? threads : count);
}

/* Which of several errors is told does not depend on the threads: it is that of the first file. */
static Status add_files_at_once(const Entry *entry, char *const *path, size_t count, Error *err)
{
    pthread_t thread[OPEN_THREADS_MAX];
    OpenPool pool = {.entry = entry, .path = path, .count = count, .failed = count};
    pool.file = mem_calloc(count, sizeof *pool.file);
    pthread_mutex_init(&pool.lock, NULL);
    int threads = open_threads(count);
    for (int i = 0; i < threads; i++)
        CHECK(pthread_create(&thread[i], NULL, open_main, &pool) == 0);
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    pthread_mutex_destroy(&pool.lock);
    bool failed = pool.failed < count;
    for (size_t i = 0; i < count; i++) {
        if (failed)
            close_file(&pool.file[i]);
        else
            append_file(entry->dataset, pool.file[i]);
    }
    if (failed) *err = pool.err;
    free(pool.file);
    return failed ? err->status : OK;
}

/* How much there is to read, as far as somebody watches; of the Hub's files each one tells its own
 * when it is there. What cannot be found is told when it is opened. */
static void tell_bytes(const Entry *entry, char *const *path, size_t count)
{
    struct stat info;
    if (entry->options->watch == NULL || entry->options->by_blocks || entry->hub != NULL) return;
    for (size_t i = 0; i < count; i++)
        if (stat(path[i], &info) == 0 && info.st_size > 0)
            entry->options->watch->bytes_total += (uint64_t)info.st_size;
}

static Status add_files(const Entry *entry, char *const *path, size_t count, Error *err)
{
    Dataset *dataset = entry->dataset;
    DatasetSummary *total = &dataset->summary;
    if (count > DATASET_FILES_MAX - (size_t)dataset->num_files)
        return error_set(
            err, ERR_RESOURCE,
            "%s names more than %d files (DATASET_FILES_MAX)\n  to do: join small files "
            "with cat",
            entry->options->key, DATASET_FILES_MAX);
    tell_bytes(entry, path, count);
    entry_line_add(entry->line, path, count, entry->hub == NULL);
    if (entry->records_end == 0 && entry->files_end == 0 && count > 1)
        return add_files_at_once(entry, path, count, err);
    for (size_t i = 0; i < count; i++) {
        DatasetFile file = {0};
        if (entry->files_end > 0 && total->records >= entry->files_end) return OK;
        if (entry->records_end > 0 && total->records >= entry->records_end) {
            total->whole = false;
            return OK;
        }
        uint64_t most = entry->records_end > 0 ? entry->records_end - total->records : 0;
        TRY(open_checked(entry, path, i, most, &file, err));
        append_file(dataset, file);
    }
    return OK;
}

/* ---- entries ---- */

static Status add_glob(const Entry *entry, const char *pattern, Error *err)
{
    StringList found = {0};
    const char *key = entry->options->key;
    Status status = path_glob(pattern, &found, err);
    if (status == ERR_NOT_FOUND)
        error_set(err, ERR_NOT_FOUND,
                  "%s: no file matches %s\n  expected: at least one data file\n  to do: "
                  "correct the path; relative ones start at the folder of the job file",
                  key, pattern);
    else if (status != OK)
        error_prefix(err, "%s", key);
    if (status == OK) status = add_files(entry, found.item, (size_t)found.count, err);
    string_list_free(&found);
    return status;
}

static Status add_folder(const Entry *entry, const DataPath *path, Error *err)
{
    StringList files = {0};
    Status status = data_folder_files(path, entry->options->key, &files, &entry->line->split, err);
    if (status == OK) status = add_files(entry, files.item, (size_t)files.count, err);
    string_list_free(&files);
    return status;
}

/* Of a slice that begins and ends at records counted from the first, no more files are opened than
 * it takes: others would have to be fetched. */
static Status add_hub(const Entry *entry, const DataPath *path, Error *err)
{
    Dataset *dataset = entry->dataset;
    Entry inner = *entry;
    bool front = path->sliced && path->begin >= 0 && path->end >= 0 && path->end < INT64_MAX;
    uint64_t end = dataset->summary.records + (uint64_t)path->end;
    bool few = front || entry->options->records_max > 0;
    TRY(hub_set_open(path, entry->options, few, &inner.hub, err));
    dataset->hub = mem_realloc(dataset->hub, (size_t)dataset->num_hubs + 1, sizeof *dataset->hub);
    dataset->hub[dataset->num_hubs++] = inner.hub;
    size_t count = (size_t)hub_set_count(inner.hub);
    const char *split = hub_set_split(inner.hub);
    if (split != NULL) inner.line->split = mem_strdup(split);
    if (front && entry->records_end == 0) inner.files_end = end;
    return add_files(&inner, hub_set_paths(inner.hub), count, err);
}

/* Keeps of the files from `first_file` on what the slice leaves. */
static void apply_slice(Dataset *dataset, const DataPath *path, int first_file)
{
    DatasetSummary *total = &dataset->summary;
    uint64_t base = total->records;
    if (first_file < dataset->num_files) base = dataset->file[first_file].first;
    uint64_t begin, end, at = 0;
    data_path_slice(path, total->records - base, &begin, &end);
    int kept = first_file;
    total->records = base;
    for (int i = first_file; i < dataset->num_files; i++) {
        DatasetFile file = dataset->file[i];
        uint64_t from = begin > at ? begin : at, to = end < at + file.count ? end : at + file.count;
        uint64_t start = at;
        at += file.count;
        if (from >= to) {
            total->bytes -= file.format->summary(file.file).bytes;
            total->files--;
            close_file(&file);
            continue;
        }
        file.first = total->records;
        file.begin = from - start;
        file.count = to - from;
        total->records += file.count;
        dataset->file[kept++] = file;
    }
    dataset->num_files = kept;
}

/* The bounds may be right for other files: nothing is said of what is in them. */
static Status refuse_empty_slice(const DatasetOptions *options, const char *text,
                                 const DataPath *path, uint64_t records, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s: no record of %s is left by its slice: it has %llu record%s\n"
                     "  expected: a slice [a:b] with a below b and below that number\n"
                     "  to do: correct it, as in %s@[:%llu]",
                     options->key, text, (unsigned long long)records, plural(records), path->path,
                     (unsigned long long)(records > 1 ? records / 2 : 1));
}

static void note_entry(Dataset *dataset, const EntryLine *line, const char *key, const char *text,
                       const DataPath *path, uint64_t records)
{
    bool few = path->sliced && path->hub.repo != NULL; /* may be opened as far as it takes */
    char *said =
        entry_line_text(line, key, text, path, dataset->summary.whole && !few ? records : 0);
    if (said != NULL) string_list_append(&dataset->entries, said);
    free(said);
}

static Status add_entry(Dataset *dataset, const DatasetOptions *options, const char *text,
                        Error *err)
{
    DataPath path = data_path_parse(text);
    /* Of a slice it takes the number of records to know where it begins; a file of the Hub may be
     * dropped and come back, and is known by its records then. */
    DatasetOptions own = *options;
    own.by_blocks = options->by_blocks && !path.sliced && path.hub.repo == NULL;
    if (own.by_blocks != options->by_blocks) dataset->indexed_first = true;
    EntryLine line = {0};
    Entry entry = {dataset, &own, .records_end = options->records_max, .line = &line};
    int first_file = dataset->num_files;
    uint64_t before = dataset->summary.records;
    if (path.sliced && entry.records_end > 0) {
        bool back =
            path.begin < 0 || path.end < 0; /* counted from the end: it takes all to know it */
        entry.records_end = back ? 0 : entry.records_end + (uint64_t)path.begin;
    }
    Status status = OK;
    if (path.hub.repo != NULL)
        status = add_hub(&entry, &path, err);
    else if (path_is_folder(path.path))
        status = add_folder(&entry, &path, err);
    else if (path_exists(path.path)) /* meant literally, whatever characters its name has */
        status = add_files(&entry, &path.path, 1, err);
    else
        status = add_glob(&entry, path.path, err);
    uint64_t there = dataset->summary.records - before;
    if (status == OK) note_entry(dataset, &line, options->key, text, &path, there);
    if (status == OK && path.sliced) {
        apply_slice(dataset, &path, first_file);
        if (there > 0 && dataset->summary.records == before)
            status = refuse_empty_slice(options, text, &path, there, err);
    }
    entry_line_free(&line);
    data_path_free(&path);
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
        str_printf(&names, " and %d more file%s", dataset->num_files - shown,
                   plural(dataset->num_files - shown));
    error_set(
        err, ERR_DATA,
        "%s: the data set is empty: no record in %s\n  expected: at least one: a line with a JSON "
        "object, or a row of a table\n  to do: check that the file was written completely",
        options->key, dataset->num_files > 0 ? str_text(&names) : "an empty list of files");
    str_free(&names);
    return ERR_DATA;
}

Status dataset_open(const DatasetOptions *options, Dataset **ret, Error *err)
{
    Dataset *dataset = mem_calloc(1, sizeof *dataset);
    dataset->summary.whole = true;
    size_t most = options->cache_max > 0 ? options->cache_max : DATASET_CACHE_MAX;
    dataset->cache = block_cache_create(most);
    dataset->readers =
        table_readers_create(options->readers_max > 0 ? options->readers_max : most / 2);
    dataset->pool = options->pool != NULL ? options->pool : file_pool_create(0);
    dataset->own_pool = options->pool == NULL;
    dataset->own_folder = options->folder == NULL;
    dataset->folder = options->folder;
    if (dataset->own_folder)
        dataset->folder =
            index_folder_open(options->index_folder, options->index_read_only, dataset->pool);
    Status status = OK;
    for (int i = 0; i < options->num_paths && status == OK; i++)
        status = add_entry(dataset, options, options->path[i], err);
    dataset->by_blocks = options->by_blocks;
    Error kept = {0};
    const char *warning = index_folder_warning(dataset->folder);
    if (index_folder_flush(dataset->folder, &kept) != OK && warning == NULL) warning = kept.message;
    if (warning != NULL && dataset->warning == NULL)
        dataset->summary.warning = dataset->warning = mem_strdup(warning);
    if (dataset->own_folder && dataset->num_hubs == 0)
        index_folder_rest(dataset->folder); /* those of the Hub open files again */
    if (status == OK && dataset->summary.records == 0 && !dataset->uncounted)
        status = refuse_empty(dataset, options, err);
    if (status == OK) {
        file_warnings_add(dataset, options->key);
        if (options->by_blocks) dataset_cut_blocks(dataset);
        *ret = dataset;
        dataset = NULL;
    }
    dataset_close(dataset);
    return status;
}

void dataset_close(Dataset *dataset)
{
    if (dataset == NULL) return;
    block_cache_clear(dataset->cache); /* before each of many files looks for its own in it */
    for (int i = 0; i < dataset->num_files; i++)
        close_file(&dataset->file[i]);
    for (int i = 0; i < dataset->num_hubs; i++)
        hub_set_close(dataset->hub[i]);
    free(dataset->hub);
    string_list_free(&dataset->entries);
    free(dataset->warning);
    block_cache_destroy(dataset->cache);
    table_readers_destroy(dataset->readers);
    if (dataset->own_folder) index_folder_close(dataset->folder);
    if (dataset->own_pool) file_pool_destroy(dataset->pool);
    free(dataset->file);
    free(dataset);
}

DatasetSummary dataset_summary(const Dataset *dataset)
{
    return dataset->summary;
}

const StringList *dataset_entries(const Dataset *dataset)
{
    return &dataset->entries;
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
    return (DatasetFileInfo){file->path, file->count, summary.bytes, summary.content_hash};
}

void dataset_fingerprint(const Dataset *dataset, const char *order, char ret[DIGEST_HEX_BYTES])
{
    CHECK(dataset->summary.whole && !dataset->unhashed);
    Str text = {0};
    str_puts(&text, "troupe stream\n");
    str_puts(&text, order);
    for (int i = 0; i < dataset->num_files; i++) {
        const DatasetFile *part = &dataset->file[i];
        FileSummary file = part->format->summary(part->file);
        str_printf(&text, "%s %llu %llu %016llx", file.kind, (unsigned long long)file.bytes,
                   (unsigned long long)file.records, (unsigned long long)file.content_hash);
        if (part->count != file.records)
            str_printf(&text, " of which %llu from %llu", (unsigned long long)part->count,
                       (unsigned long long)part->begin);
        str_putc(&text, '\n');
    }
    digest_bytes(text.data, text.length, ret);
    str_free(&text);
}

Status dataset_read(const Dataset *dataset, uint64_t index, Str *text, RecordSource *ret_source,
                    Error *err)
{
    if (dataset->uncounted) return dataset_walk_blocks(dataset, index, text, ret_source, err);
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
    *ret_source = (RecordSource){.path = file->path};
    return file->format->read(file->file, index - file->first + file->begin, text, ret_source, err);
}
