#include "dataset/index.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dataset/content_hash.h"

#define INDEX_MAGIC   UINT64_C(0x3278646965707254) /* "Trpeidx2" on a little-endian machine */
#define OFFSET_BUFFER 8192
#define PIECE_BYTES   (16u << 10)

enum { COUNT_RECORDS, COUNT_GAPS, COUNT_BLOCKS }; /* of the sidecar's header */

/* A run of blank lines: it stands before `record`, and `blank_lines` counts all blank lines above
 * that record. */
typedef struct Gap {
    uint64_t record;
    uint64_t blank_lines;
} Gap;

/* Body of the sidecar: offsets[records + 1] (the last is where the text ends), gaps[num_gaps],
 * blocks[num_blocks] of a compressed text. */
struct LineIndex {
    Sidecar *sidecar;
    uint64_t records, num_gaps, num_blocks;
    const uint64_t *offset;
    const Gap *gap;
    const SeekBlock *block;
};

/* ---- building ---- */

/* The file that is to be indexed. */
typedef struct Source {
    TextInput input;
    const LineIndexOptions *options;
} Source;

typedef struct Builder {
    SidecarWriter *writer;
    XXH3_state_t *content_hash;
    uint64_t offset[OFFSET_BUFFER];
    size_t num_offsets; /* waiting in `offset` */
    Gap *gap;
    size_t num_gaps, gap_capacity;
    uint64_t records, blank_lines;
    uint64_t records_max;
    bool full;           /* the line being scanned would be one record too many */
    uint64_t line_begin; /* of the line being scanned */
    bool blank;          /* nothing but white space in it so far */
} Builder;

static void put_offset(Builder *builder, uint64_t offset)
{
    builder->offset[builder->num_offsets++] = offset;
    if (builder->num_offsets < OFFSET_BUFFER) return;
    sidecar_put(builder->writer, builder->offset, sizeof builder->offset);
    builder->num_offsets = 0;
}

static void add_record(Builder *builder)
{
    builder->full = builder->records == builder->records_max;
    if (builder->full) return;
    uint64_t counted = builder->num_gaps > 0 ? builder->gap[builder->num_gaps - 1].blank_lines : 0;
    if (builder->blank_lines > counted) {
        if (builder->num_gaps == builder->gap_capacity) {
            builder->gap_capacity = 2 * builder->gap_capacity + 64;
            builder->gap = mem_realloc(builder->gap, builder->gap_capacity, sizeof *builder->gap);
        }
        builder->gap[builder->num_gaps++] = (Gap){builder->records, builder->blank_lines};
    }
    put_offset(builder, builder->line_begin);
    builder->records++;
}

/* Scans the next `length` bytes of the file, which begin at file offset `base`. */
static void scan(Builder *builder, const char *bytes, size_t length, uint64_t base)
{
    const char *at = bytes, *end = bytes + length;
    if (base == 0 && length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
        at += 3;
        builder->line_begin = 3;
    }
    while (at < end) {
        if (builder->blank) {
            while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
                at++;
            if (at == end) return;
            if (*at != '\n') {
                add_record(builder);
                if (builder->full) return;
                builder->blank = false;
            }
        }
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) return;
        at = newline + 1;
        if (builder->blank) builder->blank_lines++;
        builder->line_begin = base + (uint64_t)(at - bytes);
        builder->blank = true;
    }
}

/* Hashes and scans the next stretch of text, in pieces that stay in the processor's nearest cache
 * from the one to the other. */
static void take_text(Builder *builder, const char *text, size_t length, uint64_t at)
{
    for (size_t done = 0, piece; done < length; done += piece) {
        piece = length - done < PIECE_BYTES ? length - done : PIECE_BYTES;
        XXH3_64bits_update(builder->content_hash, text + done, piece);
        if (!builder->full) scan(builder, text + done, piece, at + done);
    }
}

/* Scans all of the text; *ret_bytes of it were read. */
static Status scan_text(const Source *source, TextPass *pass, Builder *builder, uint64_t *ret_bytes,
                        Error *err)
{
    ReadWatch *watch = source->options->watch;
    for (uint64_t at = 0;;) {
        const char *text;
        size_t length;
        TRY(text_pass_next(pass, &text, &length, err));
        *ret_bytes = at;
        if (length == 0) return OK;
        take_text(builder, text, length, at);
        at += length;
        *ret_bytes = at;
        if (builder->full) return OK;
        if (watch != NULL) watch->progress++;
        if (watch != NULL && watch->cancelled)
            return error_set(err, ERR_CANCELLED, "reading %s was cancelled", source->input.path);
    }
}

/* What cannot be read behind the damage counts as one record, the last: the line that is cut, or
 * one of its own where a line ends just there. */
static void add_damage(Builder *builder, uint64_t text_bytes)
{
    if (!builder->blank) return;
    builder->line_begin = text_bytes;
    add_record(builder);
    builder->full = false;
}

static Status scan_file(const Source *source, Builder *builder, SidecarHeader *header, Error *err)
{
    TextPass *pass = NULL;
    TRY(text_pass_open(&source->input, builder->writer, &pass, err));
    uint64_t bytes = 0;
    posix_fadvise(source->input.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    Status status = scan_text(source, pass, builder, &bytes, err);
    posix_fadvise(source->input.fd, 0, 0,
                  POSIX_FADV_RANDOM); /* what follows is a line here, there */
    if (status != OK) goto done;
    const char *damage = builder->full ? "" : text_pass_damage(pass);
    if (damage[0] != '\0') add_damage(builder, bytes);
    snprintf(header->damage, sizeof header->damage, "%s", damage);
    put_offset(builder, builder->full ? builder->line_begin : bytes);
    sidecar_put(builder->writer, builder->offset, builder->num_offsets * sizeof *builder->offset);
    sidecar_put(builder->writer, builder->gap, builder->num_gaps * sizeof *builder->gap);
    const SeekBlock *blocks = text_pass_blocks(pass, &header->count[COUNT_BLOCKS]);
    sidecar_put(builder->writer, blocks, header->count[COUNT_BLOCKS] * sizeof *blocks);
    header->count[COUNT_RECORDS] = builder->records;
    header->count[COUNT_GAPS] = builder->num_gaps;
    header->content_bytes = bytes;
    header->content_hash = XXH3_64bits_digest(builder->content_hash);
done:
    text_pass_close(pass);
    return status;
}

static Status build(void *context, SidecarWriter *writer, SidecarHeader *header, Error *err)
{
    const Source *source = context;
    Builder *builder = mem_calloc(1, sizeof *builder);
    builder->writer = writer;
    builder->blank = true;
    builder->records_max =
        source->options->records_max > 0 ? source->options->records_max : UINT64_MAX;
    builder->content_hash = XXH3_createState();
    CHECK(builder->content_hash != NULL);
    XXH3_64bits_reset(builder->content_hash);
    Status status = scan_file(source, builder, header, err);
    XXH3_freeState(builder->content_hash);
    free(builder->gap);
    free(builder);
    return status;
}

static const SidecarKind index_kind = {".idx", INDEX_MAGIC, build};

Status line_index_open(const TextInput *input, const LineIndexOptions *options, LineIndex **ret,
                       Error *err)
{
    CHECK(options->records_max == 0 || options->folder == NULL || options->read_only);
    Source source = {.input = *input, .options = options};
    SidecarOptions sidecar_options = {.fd = input->fd,
                                      .path = input->path,
                                      .folder = options->folder,
                                      .read_only = options->read_only,
                                      .by_checksum = options->by_checksum,
                                      .context = &source};
    Sidecar *sidecar = NULL;
    TRY(sidecar_open(&index_kind, &sidecar_options, &sidecar, err));
    const uint64_t *count = sidecar->header.count;
    LineIndex *index = mem_calloc(1, sizeof *index);
    index->sidecar = sidecar;
    index->records = count[COUNT_RECORDS];
    index->num_gaps = count[COUNT_GAPS];
    index->num_blocks = count[COUNT_BLOCKS];
    index->offset = (const uint64_t *)(const void *)sidecar->body;
    index->gap = (const Gap *)(const void *)(index->offset + index->records + 1);
    index->block = (const SeekBlock *)(const void *)(index->gap + index->num_gaps);
    CHECK((const uint8_t *)(index->block + index->num_blocks) ==
          sidecar->body + sidecar->header.body_bytes);
    *ret = index;
    return OK;
}

void line_index_close(LineIndex *index)
{
    if (index == NULL) return;
    sidecar_close(index->sidecar);
    free(index);
}

LineIndexSummary line_index_summary(const LineIndex *index)
{
    const SidecarHeader *header = &index->sidecar->header;
    return (LineIndexSummary){
        .records = index->records,
        .content_hash = header->content_hash,
        .text_bytes = header->content_bytes,
        .reused = index->sidecar->reused,
        .whole = index->offset[index->records] == header->content_bytes,
        .damage = header->damage,
        .warning = index->sidecar->warning,
    };
}

const Sidecar *line_index_sidecar(const LineIndex *index)
{
    return index->sidecar;
}

const SeekBlock *line_index_blocks(const LineIndex *index, uint64_t *ret_count)
{
    *ret_count = index->num_blocks;
    return index->block;
}

uint64_t line_index_record(const LineIndex *index, uint64_t record, uint64_t *ret_begin,
                           uint64_t *ret_end)
{
    CHECK(record < index->records);
    *ret_begin = index->offset[record];
    *ret_end = index->offset[record + 1];
    size_t low = 0, high = (size_t)index->num_gaps; /* the gaps at or before the record */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index->gap[middle].record <= record)
            low = middle + 1;
        else
            high = middle;
    }
    return record + 1 + (low > 0 ? index->gap[low - 1].blank_lines : 0);
}
