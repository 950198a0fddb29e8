#include "dataset/hub_set.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path_search.h"
#include "dataset/data_folder.h"
#include "hub/shelf.h"

#define NOTE_BYTES_MAX 8192
#define NOTE_PREFIX    "hub-"

/* What is kept of a file that may be dropped. */
typedef struct Note {
    bool ours, opened; /* fetched by this run; the rest is known */
    int64_t modified_ns;
    FileSummary summary;
    char kind[16]; /* of the summary */
} Note;

typedef struct HubFileReader HubFileReader;

struct HubSet {
    char *key, *notes, *label; /* notes: their folder, or NULL; the others are for messages */
    char *split;               /* or NULL */
    bool read_only;
    HubAccess access; /* ours where the caller has none */
    ReadWatch *watch;
    HubRepo *repo;
    HubShelf *shelf;
    StringList names, paths; /* in the repository, on this machine */
    Note *note;              /* [count] */
    HubFileReader **reader;  /* [count]; NULL: not opened. Under the lock */
    pthread_mutex_t lock;
};

/* One file as the data set sees it, there or not. */
struct HubFileReader {
    HubSet *set;
    int index;
    DatasetOptions options;
    BlockCache *cache;
    TableReaders *readers;
    IndexFolder *folder;
    FilePool *pool;
    bool held;            /* taken from the shelf for good */
    pthread_mutex_t lock; /* opening and closing */
    const DatasetFormat *format;
    _Atomic(void *) file; /* NULL while it is dropped */
    FileSummary summary;
    char kind[16];
};

/* ---- notes ---- */

static char *note_path(const HubSet *set, int index)
{
    const HubFiles *files = hub_repo_files(set->repo);
    const HubFile *file = hub_files_find(files, set->names.item[index]);
    if (set->notes == NULL || file == NULL || file->etag[0] == '\0') return NULL;
    return mem_printf("%s/" NOTE_PREFIX "%s.json", set->notes, file->etag);
}

static Status parse_note(const cJSON *json, Note *ret, Error *err)
{
    const char *kind = "", *hash = "0", *modified = "0"; /* too long for numbers of JSON */
    int64_t records = 0, bytes = 0;
    TRY(json_bool(json, "ours", "", &ret->ours, err));
    TRY(json_string_or(json, "modified_ns", "", &modified, err));
    TRY(json_string_or(json, "kind", "", &kind, err));
    TRY(json_string_or(json, "content_hash", "", &hash, err));
    TRY(json_int_or(json, "records", "", 0, (int64_t)1 << 50, &records, err));
    TRY(json_int_or(json, "bytes", "", 0, (int64_t)1 << 50, &bytes, err));
    snprintf(ret->kind, sizeof ret->kind, "%s", kind);
    ret->modified_ns = strtoll(modified, NULL, 10);
    ret->opened = kind[0] != '\0' && ret->modified_ns > 0;
    ret->summary = (FileSummary){.records = (uint64_t)records,
                                 .bytes = (uint64_t)bytes,
                                 .content_hash = strtoull(hash, NULL, 16),
                                 .index_reused = true,
                                 .whole = true,
                                 .hashed = true,
                                 .counted = true};
    return OK;
}

/* One that cannot be read costs that the file is fetched to look at it. */
static void read_note(HubSet *set, int index)
{
    char *path = note_path(set, index);
    cJSON *json = NULL;
    Note note = {0};
    if (path != NULL && json_read(path, NOTE_BYTES_MAX, &json, NULL) == OK &&
        parse_note(json, &note, NULL) == OK)
        set->note[index] = note;
    cJSON_Delete(json);
    free(path);
}

/* Where its content is, for who does not know the set. */
static void put_blob(const HubSet *set, int index, Str *text)
{
    const HubFile *file = hub_files_find(hub_repo_files(set->repo), set->names.item[index]);
    char *blob = hub_cache_blob(hub_repo_place(set->repo).cache, file->etag);
    json_append_string(text, blob);
    free(blob);
}

/* What is dropped has to be one of a cache, whoever has written the note: of its checksum, in the
 * folder of blobs. */
static bool is_blob_of(const char *blob, const char *note)
{
    size_t length = strspn(note + strlen(NOTE_PREFIX), "0123456789abcdef");
    const char *name = path_name(blob);
    size_t before = (size_t)(name - blob), folder = strlen("/blobs/");
    return (length == 40 || length == 64) && strlen(name) == length && before > folder &&
           strncmp(name, note + strlen(NOTE_PREFIX), length) == 0 &&
           strncmp(name - folder, "/blobs/", folder) == 0;
}

void hub_set_add_leftovers(HubRoom *room, const char *index_folder)
{
    DIR *entries = opendir(index_folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (!str_starts_with(entry->d_name, NOTE_PREFIX)) continue;
        char *path = path_join(index_folder, entry->d_name);
        const char *blob = "";
        bool ours = false;
        cJSON *json = NULL;
        if (json_read(path, NOTE_BYTES_MAX, &json, NULL) == OK &&
            json_bool(json, "ours", "", &ours, NULL) == OK && ours &&
            json_string_or(json, "blob", "", &blob, NULL) == OK && is_blob_of(blob, entry->d_name))
            hub_room_add_leftover(room, blob);
        cJSON_Delete(json);
        free(path);
    }
    if (entries != NULL) closedir(entries);
}

static void write_note(const HubSet *set, int index, const Note *note)
{
    char *path = note_path(set, index);
    if (path == NULL || set->read_only || folder_create(set->notes, NULL) != OK) {
        free(path);
        return;
    }
    Str text = {0};
    str_printf(&text, "{\"ours\": %s, \"blob\": ", note->ours ? "true" : "false");
    put_blob(set, index, &text);
    if (note->modified_ns > 0)
        str_printf(&text, ", \"modified_ns\": \"%lld\"", (long long)note->modified_ns);
    if (note->opened)
        str_printf(&text,
                   ", \"kind\": \"%s\", \"records\": %llu, \"bytes\": %llu, "
                   "\"content_hash\": \"%016llx\"",
                   note->kind, (unsigned long long)note->summary.records,
                   (unsigned long long)note->summary.bytes,
                   (unsigned long long)note->summary.content_hash);
    str_puts(&text, "}\n");
    (void)file_write_atomic(path, text.data, text.length, NULL);
    str_free(&text);
    free(path);
}

/* ---- which files ---- */

typedef struct Inside {
    HubSet *set;
    const char *folder; /* "" or with a slash at its end */
} Inside;

static Status list_names(void *context, StringList *ret, Error *err)
{
    const Inside *inside = context;
    const HubFiles *files = hub_repo_files(inside->set->repo);
    (void)err;
    for (size_t i = 0; i < files->count; i++)
        if (str_starts_with(files->item[i].path, inside->folder))
            string_list_append(ret, files->item[i].path + strlen(inside->folder));
    return OK;
}

static Status get_file(void *context, const char *name, char **ret_path, Error *err)
{
    const Inside *inside = context;
    char *path = mem_printf("%s%s", inside->folder, name);
    Status status = hub_repo_fetch(inside->set->repo, path, ret_path, err);
    if (status != OK && status != ERR_NOT_FOUND) error_prefix(err, "%s", inside->set->key);
    free(path);
    return status;
}

static Status find_by_split(HubSet *set, const DataPath *path, Error *err)
{
    bool whole = path->path[0] == '\0', closed = str_ends_with(path->path, "/");
    char *folder = whole ? mem_strdup("") : mem_printf("%s%s", path->path, closed ? "" : "/");
    Inside inside = {set, folder};
    FolderSource source = {set->label, list_names, get_file, &inside};
    StringList found = {0};
    Status status = data_folder_find(&source, path, set->key, &found, &set->split, err);
    for (int i = 0; i < found.count && status == OK; i++) {
        char *name = mem_printf("%s%s", folder, found.item[i]);
        string_list_append(&set->names, name);
        free(name);
    }
    string_list_free(&found);
    free(folder);
    return status;
}

/* A file or a glob of the repository. */
static void find_by_path(HubSet *set, const char *pattern)
{
    const HubFiles *files = hub_repo_files(set->repo);
    for (size_t i = 0; i < files->count; i++)
        if (strcmp(files->item[i].path, pattern) == 0 || path_matches(pattern, files->item[i].path))
            string_list_append(&set->names, files->item[i].path);
}

static Status refuse_path(const HubSet *set, const DataPath *path, Error *err)
{
    const HubFiles *files = hub_repo_files(set->repo);
    const char **names = mem_calloc(files->count + 1, sizeof *names);
    for (size_t i = 0; i < files->count; i++)
        names[i] = files->item[i].path;
    const char *nearest = str_nearest(path->path, names, files->count);
    error_set(
        err, ERR_NOT_FOUND,
        "%s: %s has no file and no folder %s\n  expected: one of its %zu files\n  to do: %s%s",
        set->key, hub_repo_label(set->repo), QUOTED(path->path), files->count,
        nearest != NULL ? "did you mean " : "look at its files on the Hub",
        nearest != NULL ? QUOTED(nearest) : "");
    free(names);
    return ERR_NOT_FOUND;
}

static bool has_folder(const HubSet *set, const char *path)
{
    const HubFiles *files = hub_repo_files(set->repo);
    size_t length = strlen(path);
    for (size_t i = 0; i < files->count; i++)
        if (str_starts_with(files->item[i].path, path) && files->item[i].path[length] == '/')
            return true;
    return false;
}

/* The folders that lie in the repository itself. */
static void list_top(const HubSet *set, StringList *ret)
{
    const HubFiles *files = hub_repo_files(set->repo);
    for (size_t i = 0; i < files->count; i++) {
        const char *path = files->item[i].path, *slash = strchr(path, '/');
        if (slash == NULL || path[0] == '.') continue;
        char *name = mem_strndup(path, (size_t)(slash - path));
        if (ret->count == 0 || strcmp(ret->item[ret->count - 1], name) != 0)
            string_list_append(ret, name);
        free(name);
    }
}

static Status refuse_converted(const HubSet *set, const DataPath *path, const StringList *there,
                               Error *err)
{
    Str names = {0};
    for (int i = 0; i < there->count; i++)
        str_printf(&names, " %s", there->item[i]);
    error_set(err, ERR_NOT_FOUND,
              "%s: %s has %s%s\n  expected: one of its configurations:%s\n  to do: write %s@%s/%s",
              set->key, set->label,
              path->config != NULL ? "no configuration " : "several configurations",
              path->config != NULL ? path->config : "", str_text(&names), set->label,
              there->item[0], path->split != NULL ? path->split : "train");
    str_free(&names);
    return ERR_NOT_FOUND;
}

/* The Hub's own conversions (refs/convert/parquet) have no README.md: each configuration is a
 * folder. */
static Status find_converted(HubSet *set, const DataPath *path, Error *err)
{
    StringList there = {0};
    DataPath inner = *path;
    list_top(set, &there);
    inner.config = NULL;
    if (there.count == 0) return find_by_split(set, path, err);
    inner.path = there.count == 1 && path->config == NULL ? there.item[0] : NULL;
    for (int i = 0; i < there.count; i++)
        if (strcmp(there.item[i], path->config != NULL ? path->config : "default") == 0)
            inner.path = there.item[i];
    Status status = inner.path != NULL ? find_by_split(set, &inner, err)
                                       : refuse_converted(set, path, &there, err);
    string_list_free(&there);
    return status;
}

static Status find_names(HubSet *set, const DataPath *path, Error *err)
{
    bool converted = str_starts_with(path->hub.revision, "refs/convert/");
    if (path->path[0] == '\0' && converted) return find_converted(set, path, err);
    if (path->path[0] == '\0' || has_folder(set, path->path)) return find_by_split(set, path, err);
    if (path->split != NULL)
        return error_set(err, ERR_INVALID,
                         "%s: %s of %s is no folder, and has no split %s\n  to do: write it "
                         "without @%s",
                         set->key, path->path, hub_repo_label(set->repo), path->split, path->split);
    find_by_path(set, path->path);
    return set->names.count > 0 ? OK : refuse_path(set, path, err);
}

/* ---- opening ---- */

static bool goes_on(void *context, int64_t new_bytes)
{
    ReadWatch *watch = context;
    watch->progress++;
    watch->fetched += new_bytes;
    return !watch->cancelled;
}

static void waits(void *context, const char *waits_for)
{
    read_watch_say(context, waits_for);
}

/* By a thread of the shelf. */
static void note_fetching(void *context, int index)
{
    HubSet *set = context;
    pthread_mutex_lock(&set->lock);
    set->note[index].ours = true; /* a kill leaves what may be dropped */
    Note note = set->note[index];
    pthread_mutex_unlock(&set->lock);
    if (hub_shelf_is_bounded(set->shelf)) write_note(set, index, &note);
}

static void close_reader(void *context, int index)
{
    HubSet *set = context;
    pthread_mutex_lock(&set->lock);
    HubFileReader *reader = set->reader[index];
    if (reader != NULL) pthread_mutex_lock(&reader->lock); /* hub_file_close waits for it */
    pthread_mutex_unlock(&set->lock);
    if (reader == NULL) return;
    void *file = reader->file;
    reader->file = NULL;
    if (file != NULL) reader->format->close(file);
    pthread_mutex_unlock(&reader->lock);
}

static Status open_shelf(HubSet *set, const DatasetOptions *options, bool few, Error *err)
{
    int count = set->names.count;
    ShelfFile *files = mem_calloc((size_t)count + 1, sizeof *files);
    set->note = mem_calloc((size_t)count + 1, sizeof *set->note);
    set->reader = mem_calloc((size_t)count + 1, sizeof *set->reader);
    for (int i = 0; i < count; i++) {
        read_note(set, i);
        files[i] = (ShelfFile){set->names.item[i], set->note[i].modified_ns, set->note[i].ours};
    }
    HubShelfOptions shelf = {
        .repo = set->repo,
        .file = files,
        .count = count,
        .room = options->hub != NULL ? options->hub->room : NULL,
        .reading = few                 ? SHELF_FEW
                   : options->in_order ? SHELF_IN_ORDER
                                       : SHELF_ANY_ORDER,
        .fetching = note_fetching,
        .dropping = close_reader,
        .context = set,
    };
    Status status = hub_shelf_open(&shelf, &set->shelf, err);
    for (int i = 0; i < count && status == OK; i++) {
        char *path = hub_shelf_path(set->shelf, i);
        string_list_append(&set->paths, path);
        free(path);
    }
    if (status == OK && set->watch != NULL && !few)
        set->watch->to_fetch += hub_shelf_bytes_left(set->shelf);
    free(files);
    if (status == OK) hub_shelf_start(set->shelf);
    return status != OK ? error_prefix(err, "%s", set->key) : OK;
}

static Status open_repo(HubSet *set, const DataPath *path, const DatasetOptions *options,
                        Error *err)
{
    bool told = options->hub != NULL && options->hub->access != NULL;
    if (!told) TRY(hub_access_read(getenv, &set->access, err));
    HubRepoOptions repo = {
        .access = told ? options->hub->access : &set->access,
        .commits = options->hub != NULL ? options->hub->commits : NULL,
        .read_only = options->index_read_only,
    };
    if (set->watch != NULL) repo.watch = (HubWatch){goes_on, set->watch, waits};
    return hub_repo_open(&path->hub, &repo, &set->repo, err);
}

Status hub_set_open(const DataPath *path, const DatasetOptions *options, bool few, HubSet **ret,
                    Error *err)
{
    HubSet *set = mem_calloc(1, sizeof *set);
    set->key = mem_strdup(options->key);
    set->notes = mem_strdup(options->index_folder);
    set->read_only = options->index_read_only;
    set->watch = options->watch;
    set->label = hub_name_write(&path->hub);
    pthread_mutex_init(&set->lock, NULL);
    Status status = open_repo(set, path, options, err);
    if (status != OK) error_prefix(err, "%s", set->key);
    if (status == OK) status = find_names(set, path, err);
    if (status == OK) status = open_shelf(set, options, few, err);
    if (status == OK)
        *ret = set;
    else
        hub_set_close(set);
    return status;
}

void hub_set_close(HubSet *set)
{
    if (set == NULL) return;
    hub_shelf_close(set->shelf);
    hub_repo_close(set->repo);
    hub_access_free(&set->access);
    string_list_free(&set->names);
    string_list_free(&set->paths);
    pthread_mutex_destroy(&set->lock);
    free(set->reader);
    free(set->note);
    free(set->label);
    free(set->split);
    free(set->notes);
    free(set->key);
    free(set);
}

const char *hub_set_split(const HubSet *set)
{
    return set->split;
}

int hub_set_count(const HubSet *set)
{
    return set->names.count;
}

char *const *hub_set_paths(const HubSet *set)
{
    return set->paths.item;
}

/* ---- a file ---- */

/* How much there is to read now; what cannot be found is told when it is opened. */
static void tell_bytes(const HubFileReader *reader)
{
    struct stat info;
    ReadWatch *watch = reader->options.watch;
    if (watch != NULL && stat(reader->set->paths.item[reader->index], &info) == 0)
        watch->bytes_total += (uint64_t)info.st_size;
}

/* The file is taken. */
static Status open_now(HubFileReader *reader, Error *err)
{
    FileOpening opening = {.path = reader->set->paths.item[reader->index],
                           .options = &reader->options,
                           .cache = reader->cache,
                           .readers = reader->readers,
                           .folder = reader->folder,
                           .pool = reader->pool};
    Status status = OK;
    pthread_mutex_lock(&reader->lock);
    if (reader->file == NULL) {
        void *file = NULL;
        tell_bytes(reader);
        status = dataset_format_open(&opening, &reader->format, &file, err);
        if (status == OK) reader->file = file;
    }
    pthread_mutex_unlock(&reader->lock);
    return status;
}

static Status refuse_change(const HubFileReader *reader, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s is not what it was before it was dropped and fetched again\n  expected: "
                     "the same %llu records\n  to do: remove %s and start again",
                     reader->set->paths.item[reader->index],
                     (unsigned long long)reader->summary.records,
                     reader->set->paths.item[reader->index]);
}

/* That it cannot be fetched or opened again is no fault of one of its records. */
static Status fail_file(const HubFileReader *reader, Error *err)
{
    if (err->status == ERR_DATA) err->status = ERR_IO;
    return error_prefix(err, "%s", reader->set->key);
}

/* Taken and open; fetched again where it was dropped. Not ERR_DATA. */
static Status need_file(HubFileReader *reader, Error *err)
{
    Status status = hub_shelf_take(reader->set->shelf, reader->index, err);
    if (status != OK) return fail_file(reader, err);
    status = open_now(reader, err);
    if (status == OK) {
        FileSummary now = reader->format->summary(reader->file);
        bool same = now.records == reader->summary.records &&
                    now.content_hash == reader->summary.content_hash;
        if (!same && reader->summary.whole) status = refuse_change(reader, err);
    }
    if (status == OK) return OK;
    hub_shelf_give(reader->set->shelf, reader->index);
    return fail_file(reader, err);
}

/* What the run has to know of the file while it is not there. */
static void keep_note(HubFileReader *reader)
{
    HubSet *set = reader->set;
    struct stat info;
    if (stat(set->paths.item[reader->index], &info) != 0 || !reader->summary.hashed) return;
    Note note = {.ours = hub_shelf_is_ours(set->shelf, reader->index),
                 .opened = true,
                 .modified_ns = info.st_mtim.tv_sec * 1000000000LL + info.st_mtim.tv_nsec,
                 .summary = reader->summary};
    snprintf(note.kind, sizeof note.kind, "%s", reader->summary.kind);
    pthread_mutex_lock(&set->lock);
    set->note[reader->index] = note;
    pthread_mutex_unlock(&set->lock);
    write_note(set, reader->index, &note);
    hub_shelf_keep_time(set->shelf, reader->index, note.modified_ns);
}

static Status open_first(HubFileReader *reader, Error *err)
{
    HubSet *set = reader->set;
    bool small = hub_shelf_is_small(set->shelf);
    pthread_mutex_lock(&set->lock);
    const Note note = set->note[reader->index];
    pthread_mutex_unlock(&set->lock);
    if (small && note.opened) { /* opened when it is read: it may be dropped until then */
        const char *path = set->paths.item[reader->index];
        index_folder_use(reader->folder, index_folder_key(reader->folder, path));
        reader->summary = note.summary;
        snprintf(reader->kind, sizeof reader->kind, "%s", note.kind);
        reader->summary.kind = reader->kind;
        return OK;
    }
    TRY(hub_shelf_take(set->shelf, reader->index, err));
    Status status = open_now(reader, err);
    reader->held = status == OK && !small;
    if (status == OK) {
        reader->summary = reader->format->summary(reader->file);
        if (small) keep_note(reader);
        if (small) reader->summary.warning = NULL; /* it goes with the file */
    }
    if (!reader->held) hub_shelf_give(set->shelf, reader->index);
    return status;
}

static void hub_file_close(void *context)
{
    HubFileReader *reader = context;
    if (reader == NULL) return;
    pthread_mutex_lock(&reader->set->lock);
    if (reader->set->reader[reader->index] == reader) reader->set->reader[reader->index] = NULL;
    pthread_mutex_unlock(&reader->set->lock);
    pthread_mutex_lock(&reader->lock);
    if (reader->file != NULL) reader->format->close(reader->file);
    reader->file = NULL;
    pthread_mutex_unlock(&reader->lock);
    if (reader->held) hub_shelf_give(reader->set->shelf, reader->index);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}

Status hub_set_open_file(HubSet *set, int index, const FileOpening *opening, void **ret_file,
                         Error *err)
{
    HubFileReader *reader = mem_calloc(1, sizeof *reader);
    reader->set = set;
    reader->index = index;
    reader->options = *opening->options;
    reader->options.index_folder = set->notes; /* which lives as long as the reader */
    reader->options.by_checksum = true;        /* a blob comes back with other times */
    reader->cache = opening->cache;
    reader->readers = opening->readers;
    reader->folder = opening->folder;
    reader->pool = opening->pool;
    pthread_mutex_init(&reader->lock, NULL);
    pthread_mutex_lock(&set->lock);
    set->reader[index] = reader;
    pthread_mutex_unlock(&set->lock);
    Status status = open_first(reader, err);
    if (status == OK)
        *ret_file = reader;
    else
        hub_file_close(reader);
    return status;
}

static FileSummary hub_file_summary(const void *context)
{
    return ((const HubFileReader *)context)->summary;
}

static Status hub_file_read(const void *context, uint64_t index, Str *text,
                            RecordSource *ret_source, Error *err)
{
    HubFileReader *reader = (HubFileReader *)context; /* whose file may come and go */
    if (!reader->held) TRY(need_file(reader, err));
    Status status = reader->format->read(reader->file, index, text, ret_source, err);
    if (!reader->held) hub_shelf_give(reader->set->shelf, reader->index);
    return status;
}

const DatasetFormat hub_file_format = {
    .summary = hub_file_summary,
    .read = hub_file_read,
    .close = hub_file_close,
};
