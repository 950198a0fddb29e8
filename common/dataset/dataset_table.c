/* Parquet and Arrow: tables, whose rows become JSON texts (table_library.h). Row groups and record
 * batches are what can be reached at once. Large ones are cut into slices; before a slice of a
 * Parquet file the pages of its row group are passed over, unless slices are read in their order.
 * Where records are read here and there, a row group would be decoded for nearly each of them: the
 * pass that hashes the file therefore keeps a copy of the rows beside the index, compressed in
 * small pieces. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/file_probe.h"
#include "dataset/format.h"
#include "dataset/row_copies.h"
#include "dataset/sidecar.h"
#include "dataset/table_library.h"

#define TABLE_MAGIC   UINT64_C(0x336c627470725400) /* on a little-endian machine */
#define COPIES_MAGIC  UINT64_C(0x3363627470725400)
#define BLOCKS_MAGIC  UINT64_C(0x3162627470725400)
#define READ_BYTES    (256u << 10)
#define SLICE_BYTES   (8u << 20)   /* of a row group, decompressed: decoded and held at once */
#define COPY_BYTES    (4u << 10)   /* of a slice that is copied: decompressed for each record */
#define COPY_SHARE    2            /* a copy takes at least so small a part of the file's bytes */
#define BATCH_BYTES   (64u << 10)  /* of a record batch, which is at hand without decoding */
#define STEP_BYTES    (256u << 10) /* decoded before they are written as JSON: they stay near */
#define STEP_ROWS_MAX 4096
#define PROBE_ROWS    64  /* of a file, whose JSON tells how its bytes grow */
#define PROBE_GROWTH  200 /* percent: what grows less is as large as the file says */
#define ROW_BYTES_MIN 8   /* that a row counts for, however little it takes */
#define AHEAD_PIECES  16  /* that are read before the one that is wanted, rather than skipped */
#define HALVING_SHIFT 56  /* in a block's index of the cache, over the row where it begins */
#define GROUP_WARNED  (1u << 20) /* bytes of a row group that is decoded for each record */

typedef struct TableType {
    TableKind kind;
    const char *name;
    const char *begin;
    size_t length;
    const char *end; /* NULL: a stream has none that can be told */
} TableType;

static const TableType table_types[] = {
    {TABLE_PARQUET, "a Parquet file", "PAR1", 4, "PAR1"},
    {TABLE_ARROW_FILE, "an Arrow file", "ARROW1\0", 8, "ARROW1"},
    {TABLE_ARROW_STREAM, "an Arrow stream", "\xFF\xFF\xFF\xFF", 4, NULL},
};

/* Where a group stands in the file's rows, and its slices among the file's. */
typedef struct GroupPlace {
    uint64_t first_row, first_slice, slice_rows;
    uint64_t first_copy; /* of its slices, when it is copied */
    bool copied;
    _Atomic bool damaged;     /* a piece of it could not be decoded */
    _Atomic uint8_t halvings; /* of its slices, into the pieces that are decoded at once */
} GroupPlace;

enum {
    COUNT_GROUPS,
    COUNT_COPIES,
    COUNT_GROWTH,
    COUNT_TYPE,
}; /* of the sidecar's head; the groups are its body, where the copies are its table */

typedef struct TableFile {
    DataFile *file;
    const char *path; /* of it */
    const TableType *type;
    const DatasetOptions *options; /* during opening, as the folder */
    IndexFolder *folder;
    const TableLibrary *library;
    pthread_mutex_t lock;    /* of ... */
    TableHandle *handle;     /* ... which is NULL until it is needed */
    const TableGroup *group; /* [num_groups] */
    uint64_t num_groups;
    uint64_t growth;   /* JSON of its rows, in percent of the bytes of its groups; at least 100 */
    RowCopies copies;  /* of slices */
    GroupPlace *place; /* [num_groups + 1]: the last is the end */
    Sidecar *sidecar;  /* NULL when the beginning alone is wanted */
    bool by_blocks;
    char *warning;            /* or NULL */
    atomic_bool copy_damaged; /* somebody was told */
    BlockCache *cache;
    TableReaders *readers;
} TableFile;

/* ---- the library ---- */

/* Beside the programs: in the folder lib next to that of this one. */
static void *load_beside_program(void)
{
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return NULL;
    program[length] = '\0';
    char *folder = path_folder(program),
         *path = mem_printf("%s/../lib/%s", folder, TABLE_LIBRARY_FILE);
    void *library = path_exists(path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
    free(path);
    free(folder);
    return library;
}

static Status load_library(TableFile *file, Error *err)
{
    dlerror();
    void *library = load_beside_program();
    const char *why = library == NULL ? dlerror() : NULL;
    if (library == NULL && why == NULL)
        library = dlopen(TABLE_LIBRARY_FILE, RTLD_NOW | RTLD_NODELETE);
    TableLibraryFunction *function = NULL;
    if (library != NULL) *(void **)&function = dlsym(library, TABLE_LIBRARY_SYMBOL);
    if (function != NULL) file->library = function();
    if (file->library != NULL && file->library->version == TABLE_LIBRARY_VERSION) return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "%s is %s, and %s\n  expected: JSONL, or a build with Apache Arrow\n  to do: "
                     "run deploy/setup.sh --arrow and build again",
                     file->path, file->type->name,
                     why != NULL ? why : "this build has no Arrow library");
}

static Status fault_status(const TableFault *fault)
{
    switch (fault->kind) {
    case TABLE_FAULT_IO:
        return ERR_IO;
    case TABLE_FAULT_MEMORY:
        return ERR_RESOURCE;
    case TABLE_FAULT_DATA:
    case TABLE_FAULT_TOO_LARGE:
        break;
    }
    return ERR_DATA;
}

/* What the system could not do is nothing that a row could be blamed for: the run ends with it. */
static Status refuse_read(const TableFile *file, const TableFault *fault, Error *err)
{
    const char *to_do = fault->kind == TABLE_FAULT_MEMORY
                            ? "give the data source more memory, or lower data.window_mb"
                            : "look after the disk or the network that it is on, and resume";
    return error_set(err, fault_status(fault),
                     "%s could not be read: %s\n  expected: that the system can read it until the "
                     "run ends\n  to do: %s",
                     file->path, fault->message, to_do);
}

static Status refuse_file(const TableFile *file, const TableFault *fault, Error *err)
{
    if (fault_status(fault) != ERR_DATA) return refuse_read(file, fault, err);
    return error_set(err, ERR_DATA,
                     "%s cannot be read as %s: %s\n  expected: a whole file\n  to do: fetch or "
                     "write it again",
                     file->path, file->type->name, fault->message);
}

/* The first line of what the pool says. */
static void tell_fault(const Error *err, char message[TABLE_MESSAGE_BYTES])
{
    int length = (int)strcspn(err->message, "\n");
    snprintf(message, TABLE_MESSAGE_BYTES, "%.*s", length, err->message);
}

static bool read_for_library(void *file, void *bytes, size_t length, uint64_t offset,
                             char message[TABLE_MESSAGE_BYTES])
{
    Error err = {0};
    if (data_file_read(file, bytes, length, offset, &err) == OK) return true;
    tell_fault(&err, message);
    return false;
}

static void *map_for_library(void *file, char message[TABLE_MESSAGE_BYTES])
{
    Error err = {0};
    int fd;
    void *map = MAP_FAILED;
    if (data_file_take(file, &fd, &err) != OK) {
        tell_fault(&err, message);
        return NULL;
    }
    map = mmap(NULL, (size_t)data_file_state(file)->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        snprintf(message, TABLE_MESSAGE_BYTES, "it cannot be mapped into memory: %s",
                 strerror(errno));
    data_file_give(file);
    return map != MAP_FAILED ? map : NULL;
}

/* With the groups that are known, if they are. */
static Status open_handle(TableFile *file, Error *err)
{
    TableFault fault;
    const TableLibrary *library = file->library;
    TableInput input = {file->file, data_file_state(file->file)->bytes, read_for_library,
                        map_for_library};
    if (!library->open(&input, file->type->kind, file->group, file->num_groups, &file->handle,
                       &fault))
        return refuse_file(file, &fault, err);
    if (file->group == NULL) file->group = library->groups(file->handle, &file->num_groups);
    return OK;
}

/* A file whose rows are known is opened by the library when the first of them is decoded. */
static Status need_handle(TableFile *file, Error *err)
{
    pthread_mutex_lock(&file->lock);
    Status status = file->handle == NULL ? open_handle(file, err) : OK;
    pthread_mutex_unlock(&file->lock);
    return status == ERR_DATA ? err->status = ERR_IO : status; /* it could be opened before */
}

/* The bytes that a file tells of its groups are those of its encodings: of a text that stands in
 * every row, a few of them a row. What becomes of them as JSON is tried on the first rows; where
 * these are damaged, the reading of records will say so. */
static Status find_growth(TableFile *file, Error *err)
{
    TableFault fault;
    uint64_t first = 0, bytes = 0;
    file->growth = 100;
    while (first < file->num_groups && file->group[first].rows == 0)
        first++;
    if (first == file->num_groups) return OK;
    const TableGroup *group = &file->group[first];
    uint64_t rows = group->rows < PROBE_ROWS ? group->rows : PROBE_ROWS;
    if (!file->library->probe(file->handle, first, rows, &bytes, &fault))
        return fault_status(&fault) == ERR_DATA ? OK : refuse_read(file, &fault, err);
    double encoded = (double)(group->bytes + 1) / (double)group->rows;
    double growth = 100 * ((double)bytes / (double)rows) / encoded;
    if (growth > PROBE_GROWTH) file->growth = (uint64_t)growth;
    return OK;
}

/* ---- slices ---- */

static uint64_t divide_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

/* The batches of a mapped file need no copies. */
static bool worth_a_copy(const TableFile *file)
{
    return file->type->kind == TABLE_PARQUET && row_copies_possible(file->library);
}

static uint64_t slice_bytes(const TableFile *file, const GroupPlace *place)
{
    if (place->copied) return COPY_BYTES;
    return file->type->kind == TABLE_PARQUET ? SLICE_BYTES : BATCH_BYTES;
}

/* Of a group's rows as JSON, about. */
static uint64_t group_bytes(const TableFile *file, uint64_t index)
{
    const TableGroup *group = &file->group[index];
    uint64_t least = group->rows * ROW_BYTES_MIN, bytes = group->bytes;
    if (file->growth > 100) bytes = (uint64_t)((double)bytes / 100 * (double)file->growth);
    return bytes > least ? bytes : least;
}

/* Returns how many slices have copies, if `copies` are made. What the cuts depend on is in the file
 * alone: positions in the order `window` do, too. */
static uint64_t cut_into_slices(TableFile *file, bool copies)
{
    free(file->place);
    file->place = mem_calloc(file->num_groups + 1, sizeof *file->place);
    for (uint64_t i = 0; i < file->num_groups; i++) {
        const TableGroup *group = &file->group[i];
        GroupPlace *place = &file->place[i];
        place->copied = copies && worth_a_copy(file);
        uint64_t slices = group_bytes(file, i) / slice_bytes(file, place) + 1;
        place->slice_rows = group->rows > 0 ? divide_up(group->rows, slices) : 1;
        slices = divide_up(group->rows, place->slice_rows);
        place[1].first_row = place->first_row + group->rows;
        place[1].first_slice = place->first_slice + slices;
        place[1].first_copy = place->first_copy + (place->copied ? slices : 0);
    }
    return file->place[file->num_groups].first_copy;
}

static uint64_t largest_group(const TableFile *file)
{
    uint64_t most = 0;
    for (uint64_t i = 0; i < file->num_groups; i++)
        if (group_bytes(file, i) > most) most = group_bytes(file, i);
    return most;
}

/* Whether a group is a run of several blocks. */
static bool has_runs(const TableFile *file)
{
    return file->type->kind == TABLE_PARQUET &&
           file->place[file->num_groups].first_slice > file->num_groups;
}

/* Who reads here and there is told what that costs where it is much. */
static void warn_of_large_groups(TableFile *file)
{
    uint64_t most = largest_group(file);
    const char *kept = file->sidecar != NULL ? file->sidecar->warning : NULL;
    if (file->type->kind != TABLE_PARQUET || file->options->in_order || file->by_blocks ||
        file->options->records_max > 0 || file->copies.count > 0 || most < GROUP_WARNED)
        return;
    uint64_t decoded = most < SLICE_BYTES ? most : SLICE_BYTES;
    file->warning = mem_printf("%s%s%s has row groups of %llu MB, of which shuffled reading "
                               "decodes %llu MB for each record: no copy of the rows is kept; to "
                               "do: make room for one beside the index, about as large as the "
                               "file, or data.order: window, which decodes each group once",
                               kept != NULL ? kept : "", kept != NULL ? "; " : "", file->path,
                               (unsigned long long)most >> 20, (unsigned long long)decoded >> 20);
}

/* The rows [begin, begin + count) of a group. */
static uint64_t slice_rows(const TableFile *file, uint64_t group, uint64_t slice,
                           uint64_t *ret_begin)
{
    const GroupPlace *place = &file->place[group];
    uint64_t rows = file->group[group].rows;
    *ret_begin = slice * place->slice_rows;
    uint64_t left = rows - *ret_begin;
    return left < place->slice_rows ? left : place->slice_rows;
}

/* Rows that are decoded at once. */
static uint64_t step_of(const TableFile *file, uint64_t group)
{
    uint64_t rows = file->group[group].rows;
    uint64_t step = STEP_BYTES / (group_bytes(file, group) / (rows > 0 ? rows : 1) + 1);
    return step < 1 ? 1 : step > STEP_ROWS_MAX ? STEP_ROWS_MAX : step;
}

/* ---- opening ---- */

static Status check_watch(const TableFile *file, Error *err)
{
    ReadWatch *watch = file->options->watch;
    if (watch == NULL) return OK;
    watch->progress++;
    if (!watch->cancelled) return OK;
    return error_set(err, ERR_CANCELLED, "reading %s was cancelled", file->path);
}

static Status hash_file(TableFile *file, IndexHead *head, Error *err)
{
    uint64_t file_bytes = head->state.bytes;
    XXH3_state_t *hash = XXH3_createState();
    CHECK(hash != NULL);
    XXH3_64bits_reset(hash);
    char *bytes = mem_alloc(READ_BYTES);
    Status status = OK;
    for (uint64_t at = 0; at < file_bytes && status == OK;) {
        size_t length = file_bytes - at < READ_BYTES ? (size_t)(file_bytes - at) : READ_BYTES;
        status = data_file_read(file->file, bytes, length, at, err);
        if (status == OK) XXH3_64bits_update(hash, bytes, length);
        at += length;
        if (file->options->watch != NULL) file->options->watch->bytes_read += length;
        if (status == OK) status = check_watch(file, err);
    }
    head->content_hash = XXH3_64bits_digest(hash);
    head->content_bytes = file_bytes;
    XXH3_freeState(hash);
    free(bytes);
    return status;
}

/* What is damaged has no copy: the reading of its records will say why. */
static Status copy_group(TableFile *file, uint64_t group, RowCopier *copier, Error *err)
{
    const TableLibrary *library = file->library;
    TableFault fault;
    const GroupPlace *place = &file->place[group];
    TableReader *reader = NULL;
    Status status = OK;
    bool fine = library->open_reader(file->handle, group, step_of(file, group), &reader, &fault);
    for (uint64_t i = 0; fine && i < place[1].first_slice - place->first_slice; i++) {
        uint64_t begin, count = slice_rows(file, group, i, &begin);
        TableRows *rows = NULL;
        size_t bytes = 0;
        fine = library->read(reader, count, &rows, &bytes, &fault);
        if (!fine) break;
        bool room = row_copier_put(copier, place->first_copy + i, rows, bytes);
        free(rows);
        status = check_watch(file, err);
        if (status != OK || !room) break;
    }
    if (!fine && fault_status(&fault) != ERR_DATA) status = refuse_read(file, &fault, err);
    library->close_reader(reader);
    return status;
}

static void put_groups(const TableFile *file, SidecarWriter *writer, IndexHead *head)
{
    sidecar_put_body(writer, file->group, file->num_groups * sizeof *file->group);
    head->count[COUNT_GROUPS] = file->num_groups;
    head->count[COUNT_GROWTH] = file->growth;
    head->count[COUNT_TYPE] = (uint64_t)(file->type - table_types);
}

/* The pass: the groups, the hash of all bytes of the file, and copies where they are worth it.
 * Where there is no room for these it ends at once: it is made again in memory, without them. */
static Status build(void *context, SidecarWriter *writer, IndexHead *head, Error *err)
{
    TableFile *file = context;
    bool copies = sidecar_is_kept(writer) && !file->options->in_order && worth_a_copy(file);
    if (copies && !sidecar_has_room(writer, head->state.bytes / COPY_SHARE)) return OK;
    if (file->handle == NULL) TRY(open_handle(file, err));
    TRY(hash_file(file, head, err));
    TRY(find_growth(file, err));
    uint64_t count = cut_into_slices(file, copies);
    put_groups(file, writer, head);
    head->count[COUNT_COPIES] = count;
    if (count == 0) return OK;
    RowCopier *copier = row_copier_open(file->library, writer, count);
    Status status = OK;
    for (uint64_t i = 0; i < file->num_groups && status == OK && sidecar_has_room(writer, 0); i++)
        if (file->place[i].copied) status = copy_group(file, i, copier, err);
    if (status == OK) row_copier_finish(copier);
    row_copier_close(copier);
    return status;
}

/* Of who reads by blocks: the groups alone, and the probe in place of the hash. */
static Status build_by_blocks(void *context, SidecarWriter *writer, IndexHead *head, Error *err)
{
    TableFile *file = context;
    if (file->handle == NULL) TRY(open_handle(file, err));
    TRY(find_growth(file, err));
    put_groups(file, writer, head);
    head->content_bytes = head->state.bytes;
    return file_probe(file->file, &head->content_hash, err);
}

static const SidecarKind kind_plain = {".tbl", TABLE_MAGIC, build};
static const SidecarKind kind_copies = {".rows", COPIES_MAGIC, build};
static const SidecarKind kind_blocks = {".groups", BLOCKS_MAGIC, build_by_blocks};

static const SidecarKind *kind_of(const DatasetOptions *options)
{
    if (options->by_blocks) return &kind_blocks;
    return options->in_order ? &kind_plain : &kind_copies;
}

static Status open_sidecar(TableFile *file, Error *err)
{
    SidecarOptions options = {.file = file->file,
                              .folder = file->folder,
                              .by_checksum = file->options->by_checksum,
                              .context = file};
    TRY(sidecar_open(kind_of(file->options), &options, &file->sidecar, err));
    const IndexHead *head = &file->sidecar->head;
    file->copies = (RowCopies){file->library, file->sidecar, head->count[COUNT_COPIES]};
    uint64_t growth = head->count[COUNT_GROWTH];
    file->growth = growth > 100 ? growth : 100;
    file->group = (const TableGroup *)(const void *)file->sidecar->body;
    file->num_groups = head->count[COUNT_GROUPS];
    if (file->options->watch != NULL && file->sidecar->reused)
        file->options->watch->bytes_read += head->content_bytes;
    return OK;
}

static void table_close(void *context)
{
    TableFile *file = context;
    if (file == NULL) return;
    block_cache_forget(file->cache, file);
    table_readers_forget(file->readers, file);
    if (file->handle != NULL) file->library->close(file->handle);
    sidecar_close(file->sidecar);
    data_file_close(file->file);
    pthread_mutex_destroy(&file->lock);
    free(file->place);
    free(file->warning);
    free(file);
}

static bool table_begins(const uint8_t *head, size_t length)
{
    for (size_t i = 0; i < sizeof table_types / sizeof *table_types; i++)
        if (length >= table_types[i].length &&
            memcmp(head, table_types[i].begin, table_types[i].length) == 0)
            return true;
    return false;
}

/* Whether its rows are known, and of which type it is. */
static bool find_known(const FileOpening *opening, uint64_t *ret_type)
{
    IndexHead head;
    SidecarOptions options = {.file = opening->file,
                              .folder = opening->folder,
                              .by_checksum = opening->options->by_checksum};
    if (!sidecar_known(kind_of(opening->options), &options, &head)) return false;
    *ret_type = head.count[COUNT_TYPE];
    return *ret_type < sizeof table_types / sizeof *table_types;
}

static bool table_known(const FileOpening *opening)
{
    uint64_t type;
    bool wanted = opening->options->by_blocks || opening->options->records_max == 0;
    return wanted && find_known(opening, &type);
}

static const TableType *known_type(const FileOpening *opening)
{
    uint64_t type = 0;
    CHECK(find_known(opening, &type));
    return &table_types[type];
}

static const TableType *find_type(const uint8_t *head)
{
    const TableType *type = table_types;
    while (memcmp(head, type->begin, type->length) != 0)
        type++;
    return type;
}

/* Who wants the beginning alone is spared the pass over the whole file; so is who reads by blocks,
 * since the footer, or the heads of the batches, tells how many rows each has. */
static Status open_content(TableFile *file, Error *err)
{
    file->by_blocks = file->options->by_blocks;
    if (file->by_blocks || file->options->records_max == 0) return open_sidecar(file, err);
    TRY(open_handle(file, err));
    return find_growth(file, err);
}

/* What was not fetched or written to its end is the most frequent damage; Arrow would say that
 * there are no magic bytes in a footer. */
static Status check_end(const TableFile *file, Error *err)
{
    const char *end = file->type->end;
    char bytes[8];
    uint64_t size = data_file_state(file->file)->bytes;
    if (end == NULL || size < sizeof bytes) return OK;
    size_t length = strlen(end);
    TRY(data_file_read(file->file, bytes, length, size - length, err));
    if (memcmp(bytes, end, length) == 0 || memcmp(bytes, "PARE", 4) == 0) return OK;
    return error_set(err, ERR_DATA,
                     "%s is torn: it begins as %s, but its end is missing (%llu bytes are there)\n"
                     "  expected: a whole file\n  to do: fetch or write it again",
                     file->path, file->type->name, (unsigned long long)size);
}

static Status table_open(const FileOpening *opening, void **ret_file, Error *err)
{
    TableFile *file = mem_calloc(1, sizeof *file);
    file->file = opening->file;
    file->path = data_file_path(opening->file);
    file->options = opening->options;
    file->folder = opening->folder;
    file->cache = opening->cache;
    file->type = opening->known ? known_type(opening) : find_type(opening->head);
    file->readers = opening->readers;
    pthread_mutex_init(&file->lock, NULL);
    Status status = opening->known ? OK : check_end(file, err);
    if (status == OK) status = load_library(file, err);
    if (status == OK) status = open_content(file, err);
    if (status == OK) {
        uint64_t count = cut_into_slices(file, file->copies.count > 0);
        CHECK(count == file->copies.count);
        warn_of_large_groups(file);
        file->options = NULL;
        *ret_file = file;
        file = NULL;
    }
    table_close(file);
    return status;
}

/* Part of the fingerprint: other cuts give other positions. */
static const char *kind_by_blocks(const TableFile *file)
{
    bool parquet = file->type->kind == TABLE_PARQUET;
    if (has_runs(file) || file->growth > 100)
        return parquet ? "parquet by runs of blocks" : "arrow by rows of blocks";
    return parquet ? "parquet by blocks" : "arrow by blocks";
}

static FileSummary table_summary(const void *context)
{
    const TableFile *file = context;
    const Sidecar *sidecar = file->sidecar;
    FileSummary summary = {.kind = file->type->kind == TABLE_PARQUET ? "parquet" : "arrow",
                           .records = file->place[file->num_groups].first_row,
                           .bytes = data_file_state(file->file)->bytes,
                           .whole = true,
                           .counted = true,
                           .warning = file->warning};
    if (file->by_blocks) summary.kind = kind_by_blocks(file);
    if (sidecar == NULL) return summary;
    summary.bytes = sidecar->head.content_bytes;
    summary.content_hash = sidecar->head.content_hash;
    summary.index_reused = sidecar->reused;
    summary.hashed = true;
    if (summary.warning == NULL) summary.warning = sidecar->warning;
    return summary;
}

/* ---- reading ---- */

static uint64_t find_group(const TableFile *file, uint64_t slice)
{
    uint64_t low = 0, high = file->num_groups; /* the last that begins at or before the slice */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (file->place[middle].first_slice <= slice)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static uint64_t group_of_row(const TableFile *file, uint64_t row)
{
    uint64_t low = 0, high = file->num_groups; /* the last that begins at or before it */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (file->place[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* A piece: the rows of a group that are decoded at once. Most often they are a slice; where their
 * JSON is too large to be held, halves of it, and halves of these. */
typedef struct Piece {
    uint64_t group, begin, count; /* rows of the group */
    uint8_t halvings;
} Piece;

static uint64_t piece_rows(const GroupPlace *place, uint8_t halvings)
{
    uint64_t rows = place->slice_rows >> halvings;
    return rows > 0 ? rows : 1;
}

static Piece piece_at(const TableFile *file, uint64_t row, uint8_t halvings)
{
    Piece piece = {.group = group_of_row(file, row), .halvings = halvings};
    const GroupPlace *place = &file->place[piece.group];
    uint64_t each = piece_rows(place, halvings), rows = file->group[piece.group].rows;
    piece.begin = (row - place->first_row) / each * each;
    piece.count = rows - piece.begin < each ? rows - piece.begin : each;
    return piece;
}

/* Its index in the cache. */
static uint64_t piece_index(const TableFile *file, const Piece *piece)
{
    return (uint64_t)piece->halvings << HALVING_SHIFT |
           (file->place[piece->group].first_row + piece->begin);
}

/* An errand, and the reader for it, which stands before row `stands`, or is yet to be opened. */
typedef struct Decoding {
    ReaderErrand errand;
    TableReader *reader;
    uint64_t stands;
} Decoding;

/* Into `ret`, whose memory is used, if there is some. */
static bool decode(TableFile *file, Decoding *decoding, Block *ret, TableFault *fault)
{
    const TableLibrary *library = file->library;
    const ReaderErrand *errand = &decoding->errand;
    uint64_t group = errand->group;
    TableRows *table = ret->data;
    ret->data = NULL;
    bool fine =
        decoding->reader != NULL ||
        library->open_reader(file->handle, group, step_of(file, group), &decoding->reader, fault);
    fine = fine && library->skip(decoding->reader, errand->begin - decoding->stands, fault);
    if (!fine) {
        free(table);
        return false;
    }
    if (!library->read(decoding->reader, errand->end - errand->begin, &table, &ret->bytes, fault))
        return false;
    ret->data = table;
    return true;
}

/* No more is decoded at once than there is room for. */
static bool decode_in_room(TableFile *file, Decoding *decoding, Block *ret, TableFault *fault)
{
    uint64_t group = decoding->errand.group, rows = decoding->errand.end - decoding->errand.begin;
    size_t bytes = (size_t)(rows * (group_bytes(file, group) / file->group[group].rows));
    ret->bytes = 0;
    ret->data = block_cache_claim(file->cache, bytes, &ret->bytes);
    bool fine = decode(file, decoding, ret, fault);
    block_cache_settle(file->cache, bytes);
    return fine;
}

/* A reader that failed is closed, and so is one that has come to the end of its group. */
static Status decode_piece(TableFile *file, const Piece *piece, Decoding *decoding, Block *ret,
                           Error *err)
{
    TableFault fault = {.kind = TABLE_FAULT_DATA};
    GroupPlace *place = &file->place[piece->group];
    bool fine = decode_in_room(file, decoding, ret, &fault);
    bool over = !fine || decoding->errand.end == file->group[piece->group].rows;
    if (over) file->library->close_reader(decoding->reader);
    table_readers_give_back(file->readers, &decoding->errand, over ? NULL : decoding->reader);
    if (fine) return OK;
    if (fault_status(&fault) != ERR_DATA) return refuse_read(file, &fault, err);
    if (fault.kind == TABLE_FAULT_DATA)
        place->damaged = true;
    else if (place->halvings == piece->halvings)
        place->halvings++;
    return error_set(err, ERR_DATA, "%s %llu: %s",
                     file->type->kind == TABLE_PARQUET ? "row group" : "record batch",
                     (unsigned long long)piece->group, fault.message);
}

static Status load_piece(const void *context, uint64_t index, Block *ret, Error *err);

/* The rows just before a piece, into the cache: of a window they are all wanted, and the reader
 * then stands where the piece begins. What is wrong with them is said to those who ask for them. */
static Status load_before(TableFile *file, const Piece *piece, Error *err)
{
    const Block *block = NULL;
    uint64_t row = file->place[piece->group].first_row + piece->begin - 1;
    Piece before = piece_at(file, row, piece->halvings);
    Error why = {0};
    Status status =
        block_cache_take(file->cache, file, piece_index(file, &before), load_piece, &block, &why);
    if (status == OK) block_cache_give_back(file->cache, block);
    if (status == OK || status == ERR_DATA) return OK;
    *err = why;
    return status;
}

static Status load_piece(const void *context, uint64_t index, Block *ret, Error *err)
{
    TableFile *file = (TableFile *)(uintptr_t)context; /* its readers have a lock of their own */
    uint64_t row = index & ((UINT64_C(1) << HALVING_SHIFT) - 1);
    TRY(need_handle(file, err));
    Piece piece = piece_at(file, row, (uint8_t)(index >> HALVING_SHIFT));
    const GroupPlace *place = &file->place[piece.group];
    bool in_order = file->by_blocks && file->type->kind == TABLE_PARQUET && !place->damaged;
    uint64_t near = in_order ? AHEAD_PIECES * piece_rows(place, piece.halvings) : 0;
    Decoding decoding = {.errand = {.library = file->library,
                                    .file = file,
                                    .group = piece.group,
                                    .begin = piece.begin,
                                    .end = piece.begin + piece.count,
                                    .near = near}};
    ReaderErrand *errand = &decoding.errand;
    if (!table_readers_take(file->readers, errand, &decoding.reader, &decoding.stands)) {
        TRY(load_before(file, &piece, err));
        errand->near = 0;
        table_readers_take(file->readers, errand, &decoding.reader, &decoding.stands);
    }
    return decode_piece(file, &piece, &decoding, ret, err);
}

static Status refuse_long_row(const TableFile *file, uint64_t line, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s:%llu: the row has more than %u bytes\n"
                     "  expected: at most that much in one record\n"
                     "  to do: split the conversation, or drop the row",
                     file->path, (unsigned long long)line, JSONL_LINE_BYTES_MAX);
}

/* Once for a file: the rows are read from it instead, at a higher price. */
static void warn_of_copy(TableFile *file)
{
    if (atomic_exchange(&file->copy_damaged, true)) return;
    char *path = sidecar_path(file->sidecar);
    log_event(LOG_WARN, "copy_damaged", F_STR("file", file->path), F_STR("copy", path),
              F_STR("reason", "the copy of the file's rows is damaged; to do: look after the disk, "
                              "and remove the copy before the next start"));
    free(path);
}

/* False when there is no copy, or it is not what was put there. */
static bool read_copy(const TableFile *file, uint64_t piece, uint64_t row, Str *text)
{
    size_t before = text->length;
    RowCopyResult result = row_copies_read(&file->copies, piece, row, text);
    if (result == ROW_COPY_READ) return true;
    text->length = before;
    if (result == ROW_COPY_DAMAGED) warn_of_copy((TableFile *)(uintptr_t)file);
    return false;
}

/* Rows that turn out too large to be held together are read in smaller pieces. */
static Status take_piece(const TableFile *file, uint64_t record, uint64_t *ret_row,
                         const Block **ret, Error *err)
{
    const GroupPlace *place = &file->place[group_of_row(file, record)];
    for (;;) {
        uint8_t halvings = place->halvings;
        Piece piece = piece_at(file, record, halvings);
        uint64_t index = piece_index(file, &piece);
        Status status = block_cache_take(file->cache, file, index, load_piece, ret, err);
        *ret_row = record - place->first_row - piece.begin;
        if (status != ERR_DATA || place->halvings == halvings) return status;
    }
}

static Status read_piece(const TableFile *file, uint64_t record, Str *text, Error *err)
{
    const Block *block = NULL;
    uint64_t row = 0, line = record + 1;
    Status status = take_piece(file, record, &row, &block, err);
    if (status == ERR_DATA) {
        char *reason = mem_strdup(err->message);
        error_set(err, status,
                  "%s:%llu: %s\n  expected: %s that can be read\n  to do: fetch or write the file "
                  "again",
                  file->path, (unsigned long long)line, reason, file->type->name);
        free(reason);
    }
    if (status != OK) return status;
    const TableRows *table = block->data;
    uint64_t begin = table->offset[row], end = table->offset[row + 1];
    if (end - begin > JSONL_LINE_BYTES_MAX)
        status = refuse_long_row(file, line, err);
    else
        str_append(text, (const char *)table + begin, (size_t)(end - begin));
    block_cache_give_back(file->cache, block);
    return status;
}

/* Rows are counted from 1, as lines are. */
static Status table_read(const void *context, uint64_t record, Str *text, RecordSource *ret_source,
                         Error *err)
{
    const TableFile *file = context;
    bool parquet = file->type->kind == TABLE_PARQUET;
    ret_source->line = record + 1;
    ret_source->unit = parquet ? RECORD_IN_ROW_GROUP : RECORD_IN_BATCH;
    if (file->sidecar != NULL) TRY(data_file_check(file->file, err));
    uint64_t group = group_of_row(file, record);
    const GroupPlace *place = &file->place[group];
    uint64_t slice = (record - place->first_row) / place->slice_rows;
    uint64_t row = (record - place->first_row) % place->slice_rows;
    ret_source->group = group;
    ret_source->offset = record - place->first_row;
    size_t before = text->length;
    if (place->copied && read_copy(file, place->first_copy + slice, row, text)) {
        if (text->length - before <= JSONL_LINE_BYTES_MAX) return OK;
        text->length = before;
        return refuse_long_row(file, ret_source->line, err);
    }
    return read_piece(file, record, text, err);
}

/* ---- by blocks: what is decoded at once is a block ---- */

static uint64_t table_num_blocks(const void *context)
{
    const TableFile *file = context;
    return file->place[file->num_groups].first_slice;
}

static FileBlock table_block(const void *context, uint64_t index)
{
    const TableFile *file = context;
    uint64_t group = find_group(file, index), begin;
    const GroupPlace *place = &file->place[group];
    uint64_t count = slice_rows(file, group, index - place->first_slice, &begin);
    uint64_t rows = file->group[group].rows;
    bool run = file->type->kind == TABLE_PARQUET;
    return (FileBlock){.bytes = (uint64_t)((double)group_bytes(file, group) * (double)count /
                                           (double)(rows > 0 ? rows : 1)),
                       .first = place->first_row + begin,
                       .records = count,
                       .run = run ? place->first_slice : index,
                       .counted = true};
}

const DatasetFormat dataset_table = {
    .begins = table_begins,
    .known = table_known,
    .open = table_open,
    .summary = table_summary,
    .read = table_read,
    .close = table_close,
    .num_blocks = table_num_blocks,
    .block = table_block,
};
