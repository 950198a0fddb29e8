/* JSONL: one JSON value per line, plain or compressed. Lines end with a line feed, with or without
 * a carriage return before it; the last one needs no end. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/block_text.h"
#include "dataset/format.h"
#include "dataset/index.h"
#include "dataset/look_alike.h"
#include "dataset/packed_text.h"
#include "dataset/text_source.h"

typedef struct JsonlFile {
    char *path;
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
    if (file->source.input.fd >= 0) close(file->source.input.fd);
    free(file->path);
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

/* What a compressed file holds. */
static Status check_text(const JsonlFile *file, Error *err)
{
    const TextSource *source = &file->source;
    bool whole = source->text_bytes <= LOOK_ALIKE_BYTES;
    LookAlike look = {.path = file->path,
                      .length = whole ? (size_t)source->text_bytes : LOOK_ALIKE_BYTES,
                      .whole = whole && file->summary.whole};
    char *text = mem_alloc(look.length + 1);
    look.text = text;
    Status status = text_source_read(source, 0, text, look.length, err);
    if (status == OK) status = look_alike_check(&look, err);
    free(text);
    return status;
}

static Status open_index(JsonlFile *file, const DatasetOptions *options, Error *err)
{
    TextSource *source = &file->source;
    LineIndexOptions index_options = {.folder = options->index_folder,
                                      .read_only = options->index_read_only,
                                      .by_checksum = options->by_checksum,
                                      .records_max = options->records_max,
                                      .watch = options->watch};
    TextInput input = source->input;
    input.watch = options->watch; /* for the pass alone */
    TRY(line_index_open(&input, &index_options, &file->index, err));
    TRY(text_codec_find(&source->input, &source->codec, err));
    file->summary = line_index_summary(file->index);
    if (options->watch != NULL && (file->summary.reused || source->codec != NULL))
        options->watch->bytes_read += source->input.file_bytes;
    if (file->summary.damage[0] != '\0' && file->summary.records == 1)
        return refuse_damage(file, file->summary.damage, 1, 0, err);
    source->text_bytes = file->summary.text_bytes;
    source->block = line_index_blocks(file->index, &source->num_blocks);
    source->sidecar = line_index_sidecar(file->index);
    return source->codec != NULL ? check_text(file, err) : OK;
}

static Status open_blocks(JsonlFile *file, const DatasetOptions *options, Error *err)
{
    BlockTextOptions block_options = {.folder = options->index_folder,
                                      .read_only = options->index_read_only,
                                      .cache = file->source.cache};
    return block_text_open(&file->source.input, &block_options, &file->blocks, err);
}

static Status open_packed(JsonlFile *file, const DatasetOptions *options, Error *err)
{
    PackedTextOptions packed_options = {.folder = options->index_folder,
                                        .read_only = options->index_read_only,
                                        .cache = file->source.cache,
                                        .watch = options->watch};
    const TextSource *source = &file->source;
    return packed_text_open(&source->input, source->codec, &packed_options, &file->packed, err);
}

/* Of nearly all files the first 16 bytes, which are read already, are enough. */
static Status check_plain(const JsonlFile *file, const uint8_t head[16], Error *err)
{
    const TextInput *input = &file->source.input;
    size_t length = input->file_bytes < 16 ? (size_t)input->file_bytes : 16;
    if (!look_alike_is_odd((const char *)head, length)) return OK;
    char tail[LOOK_ALIKE_TAIL];
    bool whole = input->file_bytes <= LOOK_ALIKE_BYTES, ends = input->file_bytes > sizeof tail;
    LookAlike look = {.path = file->path,
                      .length = whole ? (size_t)input->file_bytes : LOOK_ALIKE_BYTES,
                      .whole = whole,
                      .tail = ends ? tail : NULL};
    char *text = mem_alloc(look.length);
    look.text = text;
    Status status = file_read_at(input->fd, text, look.length, 0, file->path, err);
    if (status == OK && ends)
        status = file_read_at(input->fd, tail, sizeof tail,
                              (int64_t)(input->file_bytes - sizeof tail), file->path, err);
    if (status == OK) status = look_alike_check(&look, err);
    free(text);
    return status;
}

static Status open_content(JsonlFile *file, const FileOpening *opening, Error *err)
{
    const DatasetOptions *options = opening->options;
    TextInput *input = &file->source.input;
    struct stat info;
    if (fstat(input->fd, &info) != 0)
        return error_set_errno(err, errno, "could not stat %s", file->path);
    input->file_bytes = (uint64_t)info.st_size;
    TRY(text_codec_find(input, &file->source.codec, err));
    if (file->source.codec == NULL) TRY(check_plain(file, opening->head, err));
    if (!options->by_blocks) return open_index(file, options, err);
    return file->source.codec == NULL ? open_blocks(file, options, err)
                                      : open_packed(file, options, err);
}

static Status jsonl_open(const FileOpening *opening, void **ret_file, Error *err)
{
    const char *path = opening->path;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    JsonlFile *file = mem_calloc(1, sizeof *file);
    file->path = mem_strdup(path);
    file->source.input = (TextInput){.fd = fd, .path = file->path};
    file->source.cache = opening->cache;
    Status status = open_content(file, opening, err);
    if (status == OK) {
        *ret_file = file;
        file = NULL;
    }
    jsonl_close(file);
    return status;
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
    uint64_t begin, end;
    ret_source->line = line_index_record(file->index, record, &begin, &end);
    ret_source->offset = begin;
    ret_source->unit = unit_of(file);
    TRY(sidecar_check(line_index_sidecar(file->index), file->source.input.fd, file->path, err));
    if (file->summary.damage[0] != '\0' && record == file->summary.records - 1)
        return refuse_damage(file, file->summary.damage, ret_source->line, record, err);
    RecordSource source = {.path = file->path, .line = ret_source->line};
    Status status = read_line(file, begin, end, &source, text, err);
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
