/* JSONL: one JSON value per line, plain or compressed. Lines end with a line feed, with or without
 * a carriage return before it; the last one needs no end. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "dataset/block_text.h"
#include "dataset/format.h"
#include "dataset/index.h"
#include "dataset/look_alike.h"
#include "dataset/packed_text.h"
#include "dataset/text_source.h"

typedef struct JsonlFile {
    DataFile *file;
    const char *path;   /* of it */
    LineIndex *index;   /* NULL: opened by blocks, which it then has: ... */
    BlockText *blocks;  /* ... of plain text, ... */
    PackedText *packed; /* ... or of compressed text */
    LineIndexSummary summary;
    TextSource source;
} JsonlFile;

static void jsonl_close(void *context)
{
    JsonlFile *file = context;
    if (file == NULL) return;
    block_cache_forget(file->source.cache, &file->source);
    line_index_close(file->index);
    block_text_close(file->blocks);
    packed_text_close(file->packed);
    data_file_close(file->file);
    free(file);
}

/* The last record of a damaged file stands for all that is lost. */
static Status refuse_damage(const JsonlFile *file, const char *damage, uint64_t line,
                            uint64_t record, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s:%llu: %s; nothing behind it can be read, and %llu records before\n"
                     "  expected: a whole %s file\n"
                     "  to do: fetch or write the file again",
                     file->path, (unsigned long long)line, damage, (unsigned long long)record,
                     file->source.codec->name);
}

/* What is wrong with the text was said when the index was made: of one that is known nothing is
 * read now. */
static Status open_index(JsonlFile *file, const FileOpening *opening, Error *err)
{
    const DatasetOptions *options = opening->options;
    TextSource *source = &file->source;
    LineIndexOptions index_options = {.folder = opening->folder,
                                      .by_checksum = options->by_checksum,
                                      .records_max = options->records_max,
                                      .watch = options->watch};
    TRY(line_index_open(&source->input, &index_options, &file->index, err));
    file->summary = line_index_summary(file->index);
    source->codec = file->summary.codec;
    if (options->watch != NULL && (file->summary.reused || source->codec != NULL))
        options->watch->bytes_read += source->input.file_bytes;
    source->text_bytes = file->summary.text_bytes;
    source->block = line_index_blocks(file->index, &source->num_blocks);
    source->sidecar = line_index_sidecar(file->index);
    return OK;
}

static Status open_blocks(JsonlFile *file, const FileOpening *opening, Error *err)
{
    const DatasetOptions *options = opening->options;
    const TextInput *input = &file->source.input;
    BlockTextOptions plain = {.path = options->index_folder,
                              .read_only = options->index_read_only,
                              .folder = opening->folder,
                              .cache = file->source.cache};
    PackedTextOptions packed = {.path = options->index_folder,
                                .read_only = options->index_read_only,
                                .folder = opening->folder,
                                .cache = file->source.cache,
                                .watch = options->watch};
    TextProbe probe;
    TRY(text_probe(input, opening->folder, &probe, err));
    file->source.codec = probe.codec;
    if (probe.codec == NULL)
        file->blocks = block_text_open(input, &probe, &plain);
    else
        file->packed = packed_text_open(input, &probe, &packed);
    return OK;
}

/* Of nearly all files the first 16 bytes, which are read already, are enough. What a compressed
 * one holds is looked at where it is decompressed. */
static Status check_plain(const JsonlFile *file, const uint8_t head[16], Error *err)
{
    const TextInput *input = &file->source.input;
    size_t length = input->file_bytes < 16 ? (size_t)input->file_bytes : 16;
    const TextCodec *codec = NULL;
    if (!look_alike_is_odd((const char *)head, length)) return OK;
    TRY(text_codec_find(input, &codec, err));
    if (codec != NULL) return OK;
    char tail[LOOK_ALIKE_TAIL];
    bool whole = input->file_bytes <= LOOK_ALIKE_BYTES, ends = input->file_bytes > sizeof tail;
    LookAlike look = {.path = file->path,
                      .length = whole ? (size_t)input->file_bytes : LOOK_ALIKE_BYTES,
                      .whole = whole,
                      .tail = ends ? tail : NULL};
    char *text = mem_alloc(look.length);
    look.text = text;
    Status status = data_file_read(input->file, text, look.length, 0, err);
    if (status == OK && ends)
        status =
            data_file_read(input->file, tail, sizeof tail, input->file_bytes - sizeof tail, err);
    if (status == OK) status = look_alike_check(&look, err);
    free(text);
    return status;
}

static Status open_content(JsonlFile *file, const FileOpening *opening, Error *err)
{
    if (!opening->known) TRY(check_plain(file, opening->head, err));
    return opening->options->by_blocks ? open_blocks(file, opening, err)
                                       : open_index(file, opening, err);
}

static Status jsonl_open(const FileOpening *opening, void **ret_file, Error *err)
{
    JsonlFile *file = mem_calloc(1, sizeof *file);
    file->file = opening->file;
    file->path = data_file_path(opening->file);
    file->source.input = (TextInput){.file = opening->file,
                                     .path = file->path,
                                     .file_bytes = data_file_state(opening->file)->bytes};
    file->source.cache = opening->cache;
    Status status = open_content(file, opening, err);
    if (status == OK) {
        *ret_file = file;
        file = NULL;
    }
    jsonl_close(file);
    return status;
}

static bool jsonl_known(const FileOpening *opening)
{
    SidecarOptions options = {.file = opening->file,
                              .folder = opening->folder,
                              .by_checksum = opening->options->by_checksum};
    return opening->options->by_blocks ? text_probe_known(&options) : line_index_known(&options);
}

static FileSummary summary_by_blocks(const JsonlFile *file)
{
    FileSummary summary = {.bytes = file->source.input.file_bytes, .whole = true, .hashed = true};
    if (file->blocks != NULL) {
        summary.kind = "jsonl by blocks";
        summary.content_hash = block_text_probe(file->blocks);
        summary.index_reused = block_text_reused(file->blocks);
        summary.warning = block_text_warning(file->blocks);
    } else {
        summary.kind = "compressed jsonl by blocks";
        summary.content_hash = packed_text_probe(file->packed);
        summary.index_reused = packed_text_reused(file->packed);
        summary.warning = packed_text_warning(file->packed);
    }
    return summary;
}

/* Compressed or not, the same text is the same data, but by blocks. */
static FileSummary jsonl_summary(const void *context)
{
    const JsonlFile *file = context;
    const LineIndexSummary *index = &file->summary;
    if (file->index == NULL) return summary_by_blocks(file);
    return (FileSummary){
        .kind = "jsonl",
        .records = index->records,
        .bytes = index->text_bytes,
        .content_hash = index->content_hash,
        .index_reused = index->reused,
        .whole = index->whole,
        .hashed = index->whole,
        .counted = true,
        .compressed = file->source.codec != NULL,
        .warning = index->warning,
    };
}

static Status refuse_long_line(const RecordSource *source, Error *err)
{
    char *place = record_source_text(source);
    error_set(err, ERR_DATA,
              "%s: the line has more than %u bytes\n"
              "  expected: at most that much in one record\n"
              "  to do: split the conversation, or drop the line",
              place, JSONL_LINE_BYTES_MAX);
    free(place);
    return ERR_DATA;
}

/* Reads the line that begins at `begin` behind *text, without its end. */
static Status read_line(const JsonlFile *file, uint64_t begin, uint64_t end,
                        const RecordSource *source, Str *text, Error *err)
{
    /* Blank lines may follow the record, so a large extent alone does not make it too long. */
    size_t limit = JSONL_LINE_BYTES_MAX + 2;
    bool cut = end - begin > limit;
    size_t length = cut ? limit : (size_t)(end - begin);
    str_reserve(text, text->length + length);
    char *bytes = text->data + text->length;
    Status status = file->packed != NULL
                        ? packed_text_read(file->packed, begin, bytes, length, err)
                        : text_source_read(&file->source, begin, bytes, length, err);
    if (status == ERR_DATA) return err->status = ERR_IO; /* the file ends before its index does */
    if (status != OK) return status;
    const char *newline = memchr(bytes, '\n', length);
    if (newline == NULL && cut) return refuse_long_line(source, err);
    if (newline != NULL) length = (size_t)(newline - bytes);
    while (length > 0 &&
           (bytes[length - 1] == ' ' || bytes[length - 1] == '\t' || bytes[length - 1] == '\r'))
        length--;
    if (length > JSONL_LINE_BYTES_MAX) return refuse_long_line(source, err);
    text->length += length;
    return OK;
}

/* What the offsets of a file's records count. */
static RecordUnit unit_of(const JsonlFile *file)
{
    return file->source.codec != NULL ? RECORD_AT_TEXT_BYTE : RECORD_AT_BYTE;
}

static Status jsonl_read(const void *context, uint64_t record, Str *text, RecordSource *ret_source,
                         Error *err)
{
    const JsonlFile *file = context;
    OffsetPlace place;
    TRY(data_file_check(file->file, err));
    TRY(line_index_record(file->index, record, &place, err));
    ret_source->line = place.number;
    ret_source->offset = place.begin;
    ret_source->unit = unit_of(file);
    if (file->summary.damage[0] != '\0' && record == file->summary.records - 1)
        return refuse_damage(file, file->summary.damage, ret_source->line, record, err);
    RecordSource source = {.path = file->path, .line = ret_source->line};
    Status status = read_line(file, place.begin, place.end, &source, text, err);
    if (text->data != NULL) text->data[text->length] = '\0';
    return status;
}

/* ---- by blocks ---- */

static uint64_t jsonl_num_blocks(const void *context)
{
    const JsonlFile *file = context;
    if (file->packed != NULL) return packed_text_num_blocks(file->packed);
    return file->blocks != NULL ? block_text_num_blocks(file->blocks) : 0;
}

static FileBlock jsonl_block(const void *context, uint64_t index)
{
    const JsonlFile *file = context;
    FileBlock block = {.run = index};
    if (file->packed != NULL) {
        block.bytes = packed_text_bytes(file->packed, index);
        block.counted = packed_text_counted(file->packed, index, &block.records);
    } else {
        block.bytes = block_text_bytes(file->blocks, index);
        block.counted = block_text_counted(file->blocks, index, &block.records);
    }
    return block;
}

static bool jsonl_in_sequence(const void *context)
{
    const JsonlFile *file = context;
    return file->packed != NULL;
}

static Status jsonl_count_block(void *context, uint64_t index, Error *err)
{
    JsonlFile *file = context;
    return file->packed != NULL ? packed_text_count(file->packed, index, err)
                                : block_text_count(file->blocks, index, err);
}

static void jsonl_stop_counting(void *context)
{
    JsonlFile *file = context;
    if (file->packed != NULL) packed_text_stop(file->packed);
}

static void jsonl_prefetch_block(const void *context, uint64_t index)
{
    const JsonlFile *file = context;
    if (file->packed != NULL)
        packed_text_prefetch(file->packed, index);
    else
        block_text_prefetch(file->blocks, index);
}

/* Where a record stands, and where its bytes are. */
static Status find_line(const JsonlFile *file, uint64_t block, uint64_t record, BlockLine *ret,
                        Error *err)
{
    if (file->packed == NULL) return block_text_line(file->blocks, block, record, ret, err);
    PackedLine line;
    TRY(packed_text_line(file->packed, block, record, &line, err));
    *ret = (BlockLine){line.begin, line.end, line.line};
    if (line.damage[0] == '\0') return OK;
    return refuse_damage(file, line.damage, line.line, line.records, err);
}

static Status jsonl_read_block(const void *context, uint64_t block, uint64_t record, Str *text,
                               RecordSource *ret_source, Error *err)
{
    const JsonlFile *file = context;
    BlockLine line = {0};
    Status status = find_line(file, block, record, &line, err);
    ret_source->line = line.line;
    ret_source->offset = line.begin;
    ret_source->unit = unit_of(file);
    if (status == OK) status = read_line(file, line.begin, line.end, ret_source, text, err);
    if (text->data != NULL) text->data[text->length] = '\0';
    return status;
}

static bool jsonl_begins(const uint8_t *head, size_t length)
{
    (void)head, (void)length;
    return true;
}

const DatasetFormat dataset_jsonl = {
    .begins = jsonl_begins,
    .known = jsonl_known,
    .open = jsonl_open,
    .summary = jsonl_summary,
    .read = jsonl_read,
    .close = jsonl_close,
    .num_blocks = jsonl_num_blocks,
    .block = jsonl_block,
    .in_sequence = jsonl_in_sequence,
    .count_block = jsonl_count_block,
    .stop_counting = jsonl_stop_counting,
    .prefetch_block = jsonl_prefetch_block,
    .read_block = jsonl_read_block,
};
