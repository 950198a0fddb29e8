#include "dataset/table_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/file_probe.h"
#include "dataset/table_input.h"

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
#define PROBE_ROWS    64         /* of a file, whose JSON tells how its bytes grow */
#define PROBE_GROWTH  200        /* percent: what grows less is as large as the file says */
#define ROW_BYTES_MIN 8          /* that a row counts for, however little it takes */
#define GROUP_WARNED  (1u << 20) /* bytes of a row group that is decoded for each record */

static const TableType table_types[] = {
    {TABLE_PARQUET, "a Parquet file", "PAR1", 4, "PAR1"},
    {TABLE_ARROW_FILE, "an Arrow file", "ARROW1\0", 8, "ARROW1"},
    {TABLE_ARROW_STREAM, "an Arrow stream", "\xFF\xFF\xFF\xFF", 4, NULL},
};

enum {
    COUNT_GROUPS,
    COUNT_COPIES,
    COUNT_GROWTH,
    COUNT_TYPE,
}; /* of the sidecar's head; the groups are its body, where the copies are its table */

const TableType *table_type_of(const uint8_t *head, size_t length)
{
    for (size_t i = 0; i < sizeof table_types / sizeof *table_types; i++)
        if (length >= table_types[i].length &&
            memcmp(head, table_types[i].begin, table_types[i].length) == 0)
            return &table_types[i];
    return NULL;
}

/* ---- the library's handle ---- */

Status table_fault_status(const TableFault *fault)
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

Status table_refuse_read(const TableFile *file, const TableFault *fault, Error *err)
{
    const char *to_do = fault->kind == TABLE_FAULT_MEMORY
                            ? "give the data source more memory, or lower data.window_mb"
                            : "look after the disk or the network that it is on, and resume";
    return error_set(err, table_fault_status(fault),
                     "%s could not be read: %s\n  expected: that the system can read it until the "
                     "run ends\n  to do: %s",
                     file->path, fault->message, to_do);
}

static Status refuse_file(const TableFile *file, const TableFault *fault, Error *err)
{
    if (table_fault_status(fault) != ERR_DATA) return table_refuse_read(file, fault, err);
    return error_set(err, ERR_DATA,
                     "%s cannot be read as %s: %s\n  expected: a whole file\n  to do: fetch or "
                     "write it again",
                     file->path, file->type->name, fault->message);
}

/* With the groups that are known, if they are. */
static Status open_handle(TableFile *file, Error *err)
{
    TableFault fault;
    const TableLibrary *library = file->library;
    TableInput input = table_input(file->file);
    if (!library->open(&input, file->type->kind, file->group, file->num_groups, &file->handle,
                       &fault))
        return refuse_file(file, &fault, err);
    if (file->group == NULL) file->group = library->groups(file->handle, &file->num_groups);
    return OK;
}

Status table_file_need_handle(TableFile *file, Error *err)
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
        return table_fault_status(&fault) == ERR_DATA ? OK : table_refuse_read(file, &fault, err);
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
uint64_t table_group_bytes(const TableFile *file, uint64_t index)
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
        uint64_t slices = table_group_bytes(file, i) / slice_bytes(file, place) + 1;
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
        if (table_group_bytes(file, i) > most) most = table_group_bytes(file, i);
    return most;
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
uint64_t table_slice_rows(const TableFile *file, uint64_t group, uint64_t slice,
                          uint64_t *ret_begin)
{
    const GroupPlace *place = &file->place[group];
    uint64_t rows = file->group[group].rows;
    *ret_begin = slice * place->slice_rows;
    uint64_t left = rows - *ret_begin;
    return left < place->slice_rows ? left : place->slice_rows;
}

/* Rows that are decoded at once. */
uint64_t table_step_rows(const TableFile *file, uint64_t group)
{
    uint64_t rows = file->group[group].rows;
    uint64_t step = STEP_BYTES / (table_group_bytes(file, group) / (rows > 0 ? rows : 1) + 1);
    return step < 1 ? 1 : step > STEP_ROWS_MAX ? STEP_ROWS_MAX : step;
}

/* ---- the pass ---- */

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
    bool fine =
        library->open_reader(file->handle, group, table_step_rows(file, group), &reader, &fault);
    for (uint64_t i = 0; fine && i < place[1].first_slice - place->first_slice; i++) {
        uint64_t begin, count = table_slice_rows(file, group, i, &begin);
        TableRows *rows = NULL;
        size_t bytes = 0;
        fine = library->read(reader, count, &rows, &bytes, &fault);
        if (!fine) break;
        bool room = row_copier_put(copier, place->first_copy + i, rows, bytes);
        free(rows);
        status = check_watch(file, err);
        if (status != OK || !room) break;
    }
    if (!fine && table_fault_status(&fault) != ERR_DATA)
        status = table_refuse_read(file, &fault, err);
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

/* ---- opening ---- */

void table_file_close(TableFile *file)
{
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

bool table_file_known(const FileOpening *opening, const TableType **ret)
{
    IndexHead head;
    SidecarOptions options = {.file = opening->file,
                              .folder = opening->folder,
                              .by_checksum = opening->options->by_checksum};
    if (!sidecar_known(kind_of(opening->options), &options, &head)) return false;
    uint64_t type = head.count[COUNT_TYPE];
    if (type >= sizeof table_types / sizeof *table_types) return false;
    *ret = &table_types[type];
    return true;
}

/* What was known of the file may be known no longer: it is listed twice, has changed, and somebody
 * else has just indexed it anew. Its head was not read then. */
static Status find_type(const FileOpening *opening, const TableType **ret, Error *err)
{
    uint8_t head[sizeof opening->head] = {0};
    if (opening->known && table_file_known(opening, ret)) return OK;
    memcpy(head, opening->head, sizeof head);
    Status status = opening->known ? data_file_read(opening->file, head, sizeof head, 0, err) : OK;
    if (status != OK && status != ERR_DATA) return status; /* that: it has become shorter */
    *ret = status == OK ? table_type_of(head, sizeof head) : NULL;
    if (*ret != NULL) return OK;
    return error_set(err, ERR_IO,
                     "%s changed while it was being opened: it was a table, and begins as none\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: start again when it is complete",
                     opening->path);
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

Status table_file_open(const FileOpening *opening, TableFile **ret, Error *err)
{
    TableFile *file = mem_calloc(1, sizeof *file);
    file->file = opening->file;
    file->path = data_file_path(opening->file);
    file->options = opening->options;
    file->folder = opening->folder;
    file->cache = opening->cache;
    file->readers = opening->readers;
    pthread_mutex_init(&file->lock, NULL);
    Status status = find_type(opening, &file->type, err);
    if (status == OK && !opening->known) status = check_end(file, err);
    if (status == OK)
        status = table_library_load(file->path, file->type->name, &file->library, err);
    if (status == OK) status = open_content(file, err);
    if (status == OK) {
        uint64_t count = cut_into_slices(file, file->copies.count > 0);
        CHECK(count == file->copies.count);
        warn_of_large_groups(file);
        file->options = NULL;
        *ret = file;
        file = NULL;
    }
    table_file_close(file);
    return status;
}
