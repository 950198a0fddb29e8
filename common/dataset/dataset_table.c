/* Parquet and Arrow: tables, whose rows become JSON texts (table_library.h), read one by one. What
 * a file consists of is told by table_file.h. A slice is decoded at once; before a slice of a
 * Parquet file the pages of its row group are passed over, unless slices are read in their order.
 * Rows that have a copy are read from that. */
#include <stdlib.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "dataset/format.h"
#include "dataset/table_file.h"

#define AHEAD_PIECES  16 /* that are read before the one that is wanted, rather than skipped */
#define HALVING_SHIFT 56 /* in a block's index of the cache, over the row where it begins */

/* ---- a format's ways ---- */

static bool table_begins(const uint8_t *head, size_t length)
{
    return table_type_of(head, length) != NULL;
}

static bool table_known(const FileOpening *opening)
{
    const TableType *type;
    bool wanted = opening->options->by_blocks || opening->options->records_max == 0;
    return wanted && table_file_known(opening, &type);
}

static Status table_open(const FileOpening *opening, void **ret_file, Error *err)
{
    TableFile *file = NULL;
    TRY(table_file_open(opening, &file, err));
    *ret_file = file;
    return OK;
}

static void table_close(void *context)
{
    table_file_close(context);
}

/* Whether a group is a run of several blocks. */
static bool has_runs(const TableFile *file)
{
    return file->type->kind == TABLE_PARQUET &&
           file->place[file->num_groups].first_slice > file->num_groups;
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
    bool fine = decoding->reader != NULL ||
                library->open_reader(file->handle, group, table_step_rows(file, group),
                                     &decoding->reader, fault);
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
    size_t bytes = (size_t)(rows * (table_group_bytes(file, group) / file->group[group].rows));
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
    if (table_fault_status(&fault) != ERR_DATA) return table_refuse_read(file, &fault, err);
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
    TRY(table_file_need_handle(file, err));
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
    char *path = sidecar_path(file->sidecar), *lost = sidecar_lost(file->sidecar), *reason = NULL;
    if (lost != NULL)
        reason = mem_printf("the rows are read from the file: %s; to do: leave the index folder as "
                            "it is while the run goes on",
                            lost);
    else
        reason = mem_strdup("the copy of the file's rows is damaged; to do: look after the disk, "
                            "and remove the copy before the next start");
    log_event(LOG_WARN, "copy_damaged", F_STR("file", file->path), F_STR("copy", path),
              F_STR("reason", reason));
    free(reason);
    free(lost);
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
    uint64_t count = table_slice_rows(file, group, index - place->first_slice, &begin);
    uint64_t rows = file->group[group].rows;
    bool run = file->type->kind == TABLE_PARQUET;
    return (FileBlock){.bytes = (uint64_t)((double)table_group_bytes(file, group) * (double)count /
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
