/* Parquet and Arrow: tables, whose rows become JSON texts (table_library.h). Row groups and record
 * batches are what can be reached at once. Large ones are cut into slices; a slice of a Parquet
 * file costs the reading of those before it in its row group, unless they are read in their order.
 * Where records are read here and there, a row group would be decoded for nearly each of them: the
 * pass that hashes the file therefore keeps a copy of the rows beside the index, compressed in
 * small pieces. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/file_probe.h"
#include "dataset/format.h"
#include "dataset/row_copies.h"
#include "dataset/sidecar.h"
#include "dataset/table_library.h"

#define TABLE_MAGIC   UINT64_C(0x316c627470725400) /* on a little-endian machine */
#define COPIES_MAGIC  UINT64_C(0x3263627470725400)
#define READ_BYTES    (256u << 10)
#define SLICE_BYTES   (8u << 20)   /* of a row group, decompressed: decoded and held at once */
#define COPY_BYTES    (4u << 10)   /* of a slice that is copied: decompressed for each record */
#define BATCH_BYTES   (64u << 10)  /* of a record batch, which is at hand without decoding */
#define STEP_BYTES    (256u << 10) /* decoded before they are written as JSON: they stay near */
#define STEP_ROWS_MAX 4096
#define CURSORS_MAX   4           /* readers that stand inside a row group, for who reads on */
#define GROUP_WARNED  (1u << 20)  /* bytes of a row group that is decoded for each record */
#define LARGE_WARNED  (64u << 20) /* and of one that is decoded for each slice */

typedef struct TableType {
    TableKind kind;
    const char *name;
    const char *begin;
    size_t length;
} TableType;

static const TableType table_types[] = {
    {TABLE_PARQUET, "a Parquet file", "PAR1", 4},
    {TABLE_ARROW_FILE, "an Arrow file", "ARROW1\0", 8},
    {TABLE_ARROW_STREAM, "an Arrow stream", "\xFF\xFF\xFF\xFF", 4},
};

/* A reader that stands inside a group, before row `row` of it. */
typedef struct Cursor {
    TableReader *reader;
    uint64_t group, row;
} Cursor;

/* Where a group stands in the file's rows, and its slices among the file's. */
typedef struct GroupPlace {
    uint64_t first_row, first_slice, slice_rows;
    uint64_t first_copy; /* of its slices, when it is copied */
    bool copied;
} GroupPlace;

enum { COUNT_GROUPS, COUNT_COPIES }; /* of the sidecar's header; in its body one after the other */

typedef struct TableFile {
    char *path;
    int fd;
    const TableType *type;
    const DatasetOptions *options; /* during opening */
    const TableLibrary *library;
    TableHandle *handle;
    const TableGroup *group; /* [num_groups] */
    uint64_t num_groups;
    RowCopies copies;  /* of slices */
    GroupPlace *place; /* [num_groups + 1]: the last is the end */
    Sidecar *sidecar;  /* NULL when not all of the file was read */
    bool by_blocks;    /* what is known of the file instead: */
    uint64_t probe;
    FileState state;
    char *warning; /* or NULL */
    BlockCache *cache;
    pthread_mutex_t lock; /* of the cursors */
    Cursor cursor[CURSORS_MAX];
    int num_cursors;
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

static Status refuse_file(const TableFile *file, const char *message, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s cannot be read as %s: %s\n  expected: a whole file\n  to do: fetch or "
                     "write it again",
                     file->path, file->type->name, message);
}

static Status open_handle(TableFile *file, const TableGroup *known, uint64_t num_known, Error *err)
{
    char message[TABLE_MESSAGE_BYTES];
    if (!file->library->open(file->path, file->type->kind, known, num_known, &file->handle,
                             message))
        return refuse_file(file, message, err);
    file->group = file->library->groups(file->handle, &file->num_groups);
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

/* Returns how many slices have copies, if `copies` are made. */
static uint64_t cut_into_slices(TableFile *file, bool copies)
{
    free(file->place);
    file->place = mem_calloc(file->num_groups + 1, sizeof *file->place);
    for (uint64_t i = 0; i < file->num_groups; i++) {
        const TableGroup *group = &file->group[i];
        GroupPlace *place = &file->place[i];
        place->copied = copies && worth_a_copy(file);
        uint64_t slices = group->bytes / slice_bytes(file, place) + 1;
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
        if (file->group[i].bytes > most) most = file->group[i].bytes;
    return most;
}

/* Who reads here and there is told what that costs where it is much. */
static void warn_of_large_groups(TableFile *file)
{
    uint64_t most = largest_group(file);
    unsigned long long megabytes = most >> 20;
    const char *kept = file->sidecar != NULL ? file->sidecar->warning : NULL;
    if (file->type->kind != TABLE_PARQUET || file->options->in_order || file->copies.count > 0)
        return;
    if (file->by_blocks && most >= LARGE_WARNED)
        file->warning = mem_printf("%s has row groups of %llu MB, which the order window reads in "
                                   "pieces of %u MB, each at "
                                   "the price of those before it: each group is decoded about %llu "
                                   "times in an epoch; to do: "
                                   "data.order: full, which keeps a copy of the rows beside the "
                                   "index, or write the file with "
                                   "row groups of about 1000 rows",
                                   file->path, megabytes, SLICE_BYTES >> 20,
                                   (unsigned long long)(most / SLICE_BYTES / 2));
    if (!file->by_blocks && most >= GROUP_WARNED && file->options->records_max == 0)
        file->warning = mem_printf("%s%s%s has row groups of %llu MB, of which shuffled reading "
                                   "decodes %s for each record: no "
                                   "copy of the rows is kept; to do: make room for one beside the "
                                   "index, about as large as "
                                   "the file, or data.order: window, which decodes each group once",
                                   kept != NULL ? kept : "", kept != NULL ? "; " : "", file->path,
                                   megabytes, most > SLICE_BYTES ? "half" : "one");
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
static uint64_t step_of(const TableGroup *group)
{
    uint64_t each = group->bytes / (group->rows > 0 ? group->rows : 1) + 1;
    uint64_t rows = STEP_BYTES / each;
    return rows < 1 ? 1 : rows > STEP_ROWS_MAX ? STEP_ROWS_MAX : rows;
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

static Status hash_file(TableFile *file, SidecarHeader *header, Error *err)
{
    uint64_t file_bytes = header->identity.file_bytes;
    XXH3_state_t *hash = XXH3_createState();
    CHECK(hash != NULL);
    XXH3_64bits_reset(hash);
    char *bytes = mem_alloc(READ_BYTES);
    Status status = OK;
    for (uint64_t at = 0; at < file_bytes && status == OK;) {
        size_t length = file_bytes - at < READ_BYTES ? (size_t)(file_bytes - at) : READ_BYTES;
        status = file_read_at(file->fd, bytes, length, (int64_t)at, file->path, err);
        if (status == OK) XXH3_64bits_update(hash, bytes, length);
        at += length;
        if (file->options->watch != NULL) file->options->watch->bytes_read += length;
        if (status == OK) status = check_watch(file, err);
    }
    header->content_hash = XXH3_64bits_digest(hash);
    header->content_bytes = file_bytes;
    XXH3_freeState(hash);
    free(bytes);
    return status;
}

/* What cannot be read has no copy: the reading of its records will say why. */
static Status copy_group(TableFile *file, uint64_t group, RowCopier *copier, Error *err)
{
    const TableLibrary *library = file->library;
    char message[TABLE_MESSAGE_BYTES];
    const GroupPlace *place = &file->place[group];
    TableReader *reader = NULL;
    Status status = OK;
    if (!library->open_reader(file->handle, group, step_of(&file->group[group]), &reader, message))
        return OK;
    for (uint64_t i = 0; i < place[1].first_slice - place->first_slice && status == OK; i++) {
        uint64_t begin, count = slice_rows(file, group, i, &begin);
        TableRows *rows = NULL;
        size_t bytes = 0;
        if (!library->read(reader, count, &rows, &bytes, message)) break;
        row_copier_put(copier, place->first_copy + i, rows, bytes);
        free(rows);
        status = check_watch(file, err);
    }
    library->close_reader(reader);
    return status;
}

/* The pass: the groups, the hash of all bytes of the file, and copies where they are worth it. */
static Status build(void *context, SidecarWriter *writer, SidecarHeader *header, Error *err)
{
    TableFile *file = context;
    if (file->handle == NULL) TRY(open_handle(file, NULL, 0, err));
    TRY(hash_file(file, header, err));
    uint64_t count = cut_into_slices(file, sidecar_is_kept(writer) && !file->options->in_order);
    sidecar_put(writer, file->group, file->num_groups * sizeof *file->group);
    header->count[COUNT_GROUPS] = file->num_groups;
    header->count[COUNT_COPIES] = count;
    if (count == 0) return OK;
    RowCopier *copier = row_copier_open(file->library, writer, count);
    Status status = OK;
    for (uint64_t i = 0; i < file->num_groups && status == OK; i++)
        if (file->place[i].copied) status = copy_group(file, i, copier, err);
    if (status == OK) row_copier_finish(copier);
    row_copier_close(copier);
    return status;
}

static Status open_sidecar(TableFile *file, Error *err)
{
    static const SidecarKind plain = {".tbl", TABLE_MAGIC, build};
    static const SidecarKind copies = {".rows", COPIES_MAGIC, build};
    SidecarOptions options = {.fd = file->fd,
                              .path = file->path,
                              .folder = file->options->index_folder,
                              .read_only = file->options->index_read_only,
                              .by_checksum = file->options->by_checksum,
                              .context = file};
    TRY(sidecar_open(file->options->in_order ? &plain : &copies, &options, &file->sidecar, err));
    const SidecarHeader *header = &file->sidecar->header;
    const TableGroup *groups = (const TableGroup *)(const void *)file->sidecar->body;
    const uint64_t *offset = (const uint64_t *)(const void *)(groups + header->count[COUNT_GROUPS]);
    file->copies = (RowCopies){file->library, file->sidecar, offset, header->count[COUNT_COPIES]};
    if (file->options->watch != NULL && file->sidecar->reused)
        file->options->watch->bytes_read += header->content_bytes;
    if (file->handle != NULL) return OK; /* the pass has opened it */
    return open_handle(file, groups, header->count[COUNT_GROUPS], err);
}

static void table_close(void *context)
{
    TableFile *file = context;
    if (file == NULL) return;
    block_cache_forget(file->cache, file);
    for (int i = 0; i < file->num_cursors; i++)
        file->library->close_reader(file->cursor[i].reader);
    if (file->handle != NULL) file->library->close(file->handle);
    sidecar_close(file->sidecar);
    if (file->fd >= 0) close(file->fd);
    pthread_mutex_destroy(&file->lock);
    free(file->place);
    free(file->warning);
    free(file->path);
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
    if (file->by_blocks) {
        TRY(file_state(file->fd, file->path, &file->state, err));
        TRY(file_probe(file->fd, file->path, file->state.bytes, &file->probe, err));
    }
    if (file->by_blocks || file->options->records_max > 0) return open_handle(file, NULL, 0, err);
    return open_sidecar(file, err);
}

static Status table_open(const FileOpening *opening, void **ret_file, Error *err)
{
    TableFile *file = mem_calloc(1, sizeof *file);
    file->path = mem_strdup(opening->path);
    file->options = opening->options;
    file->cache = opening->cache;
    file->type = find_type(opening->head);
    pthread_mutex_init(&file->lock, NULL);
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    Status status = OK;
    if (file->fd < 0) status = error_set_errno(err, errno, "could not open %s", file->path);
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

static FileSummary table_summary(const void *context)
{
    const TableFile *file = context;
    const Sidecar *sidecar = file->sidecar;
    FileSummary summary = {.kind = file->type->kind == TABLE_PARQUET ? "parquet" : "arrow",
                           .records = file->place[file->num_groups].first_row,
                           .bytes = (uint64_t)lseek(file->fd, 0, SEEK_END), /* reads name theirs */
                           .whole = true,
                           .counted = true,
                           .warning = file->warning};
    if (file->by_blocks) {
        summary.kind = file->type->kind == TABLE_PARQUET ? "parquet by blocks" : "arrow by blocks";
        summary.content_hash = file->probe;
        summary.hashed = summary.index_reused = true;
    }
    if (sidecar == NULL) return summary;
    summary.bytes = sidecar->header.content_bytes;
    summary.content_hash = sidecar->header.content_hash;
    summary.index_reused = sidecar->reused;
    summary.hashed = true;
    if (summary.warning == NULL) summary.warning = sidecar->warning;
    return summary;
}

/* ---- reading ---- */

/* The cursor of the group that stands nearest before `row`, taken out of the pool; its reader is
 * NULL when there is none. */
static Cursor take_cursor(TableFile *file, uint64_t group, uint64_t row)
{
    Cursor found = {.group = group};
    int best = -1;
    pthread_mutex_lock(&file->lock);
    for (int i = 0; i < file->num_cursors; i++) {
        const Cursor *cursor = &file->cursor[i];
        if (cursor->group != group || cursor->row > row) continue;
        if (best < 0 || cursor->row > file->cursor[best].row) best = i;
    }
    if (best >= 0) {
        found = file->cursor[best];
        file->num_cursors--;
        memmove(&file->cursor[best], &file->cursor[best + 1],
                (size_t)(file->num_cursors - best) * sizeof(Cursor));
    }
    pthread_mutex_unlock(&file->lock);
    return found;
}

/* Keeps a cursor for who reads on, in place of the one that was kept first. */
static void keep_cursor(TableFile *file, Cursor cursor)
{
    Cursor oldest = {0};
    pthread_mutex_lock(&file->lock);
    if (file->num_cursors == CURSORS_MAX) {
        oldest = file->cursor[0];
        file->num_cursors--;
        memmove(&file->cursor[0], &file->cursor[1], (CURSORS_MAX - 1) * sizeof(Cursor));
    }
    file->cursor[file->num_cursors++] = cursor;
    pthread_mutex_unlock(&file->lock);
    if (oldest.reader != NULL) file->library->close_reader(oldest.reader);
}

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

static Status decode_slice(TableFile *file, uint64_t group, uint64_t slice, Block *ret, Error *err)
{
    const TableLibrary *library = file->library;
    uint64_t begin, count = slice_rows(file, group, slice, &begin);
    char message[TABLE_MESSAGE_BYTES];
    size_t bytes = count * (file->group[group].bytes / file->group[group].rows);
    TableRows *table = block_cache_spare(file->cache, bytes, &bytes);
    Cursor cursor = take_cursor(file, group, begin);
    bool fine = cursor.reader != NULL ||
                library->open_reader(file->handle, group, step_of(&file->group[group]),
                                     &cursor.reader, message);
    fine = fine && library->skip(cursor.reader, begin - cursor.row, message) &&
           library->read(cursor.reader, count, &table, &bytes, message);
    cursor.row = begin + count;
    if (fine && cursor.row < file->group[group].rows)
        keep_cursor(file, cursor);
    else if (cursor.reader != NULL)
        library->close_reader(cursor.reader);
    if (!fine) {
        free(table);
        return error_set(err, ERR_DATA, "%s %llu: %s",
                         file->type->kind == TABLE_PARQUET ? "row group" : "record batch",
                         (unsigned long long)group, message);
    }
    *ret = (Block){table, bytes};
    return OK;
}

static Status load_slice(const void *context, uint64_t index, Block *ret, Error *err)
{
    TableFile *file = (TableFile *)(uintptr_t)context; /* its cursors have a lock of their own */
    uint64_t group = find_group(file, index);
    const GroupPlace *place = &file->place[group];
    uint64_t slice = index - place->first_slice;
    return decode_slice(file, group, slice, ret, err);
}

static Status refuse_long_row(const TableFile *file, uint64_t line, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s:%llu: the row has more than %u bytes\n"
                     "  expected: at most that much in one record\n"
                     "  to do: split the conversation, or drop the row",
                     file->path, (unsigned long long)line, JSONL_LINE_BYTES_MAX);
}

/* What is found now is not what the pass has found, though size and time of the file are the same.
 */
static Status read_copy(const TableFile *file, uint64_t piece, uint64_t row, uint64_t line,
                        Str *text, Error *err)
{
    size_t before = text->length;
    if (!row_copies_read(&file->copies, piece, row, text))
        return error_set(
            err, ERR_IO,
            "%s:%llu: the copy of its rows beside the index is damaged\n  expected: what "
            "was written there\n  to do: look after the disk; remove the index folder",
            file->path, (unsigned long long)line);
    if (text->length - before <= JSONL_LINE_BYTES_MAX) return OK;
    text->length = before;
    return refuse_long_row(file, line, err);
}

static Status read_slice(const TableFile *file, uint64_t slice, uint64_t row, uint64_t line,
                         Str *text, Error *err)
{
    const Block *block = NULL;
    Status status = block_cache_take(file->cache, file, slice, load_slice, &block, err);
    if (status != OK) {
        char *reason = mem_strdup(err->message);
        error_set(err, status,
                  "%s:%llu: %s\n  expected: %s that can be read\n  to do: fetch or write the file "
                  "again",
                  file->path, (unsigned long long)line, reason, file->type->name);
        free(reason);
        return status;
    }
    const TableRows *table = block->data;
    uint64_t begin = table->offset[row], end = table->offset[row + 1];
    if (end - begin > JSONL_LINE_BYTES_MAX)
        status = refuse_long_row(file, line, err);
    else
        str_append(text, (const char *)table + begin, (size_t)(end - begin));
    block_cache_give_back(file->cache, block);
    return status;
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

/* Rows are counted from 1, as lines are. */
static Status table_read(const void *context, uint64_t record, Str *text, RecordSource *ret_source,
                         Error *err)
{
    const TableFile *file = context;
    bool parquet = file->type->kind == TABLE_PARQUET;
    ret_source->line = record + 1;
    ret_source->unit = parquet ? RECORD_IN_ROW_GROUP : RECORD_IN_BATCH;
    if (file->sidecar != NULL) TRY(sidecar_check(file->sidecar, file->fd, file->path, err));
    if (file->by_blocks) TRY(file_state_check(&file->state, file->fd, file->path, err));
    uint64_t group = group_of_row(file, record);
    const GroupPlace *place = &file->place[group];
    uint64_t slice = (record - place->first_row) / place->slice_rows;
    uint64_t row = (record - place->first_row) % place->slice_rows;
    ret_source->group = group;
    ret_source->offset = record - place->first_row;
    if (place->copied && row_copies_have(&file->copies, place->first_copy + slice))
        return read_copy(file, place->first_copy + slice, row, ret_source->line, text, err);
    return read_slice(file, place->first_slice + slice, row, ret_source->line, text, err);
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
    return (FileBlock){.bytes = (uint64_t)((double)file->group[group].bytes * (double)count /
                                           (double)(rows > 0 ? rows : 1)),
                       .first = place->first_row + begin,
                       .records = count,
                       .counted = true};
}

const DatasetFormat dataset_table = {
    .begins = table_begins,
    .open = table_open,
    .summary = table_summary,
    .read = table_read,
    .close = table_close,
    .num_blocks = table_num_blocks,
    .block = table_block,
};
