#include "dataset/index.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/content_hash.h"
#include "dataset/look_alike.h"

#define INDEX_MAGIC  UINT64_C(0x3378646965707254) /* "Trpeidx3" on a little-endian machine */
#define PIECE_BYTES  (16u << 10)
#define DAMAGE_BYTES 256

/* A record before which there are so many blank lines that the table of offsets does not hold them.
 */
typedef struct Jump {
    uint64_t record, line;
} Jump;

/* Of the sidecar's head; the body is blocks[] of a compressed text, jumps[], as many as are left of
 * it, and why the text is damaged. */
enum { COUNT_RECORDS, COUNT_BLOCKS, COUNT_DAMAGE, COUNT_CODEC };

/* The file that is to be indexed. */
typedef struct Source {
    TextInput input;
    LineIndexOptions options;
    bool cut; /* the pass has ended before the text */
} Source;

struct LineIndex {
    Source source;              /* for a pass that is made again */
    _Atomic(Sidecar *) sidecar; /* the last one */
    Sidecar *first;             /* of which blocks, jumps and damage are borrowed */
    const Jump *jump;           /* [num_jumps] */
    size_t num_jumps;
    char damage[DAMAGE_BYTES];
    pthread_mutex_t lock; /* of a pass that is made again */
    Sidecar **damaged;    /* [num_damaged], that may be in use */
    int num_damaged;
};

/* ---- building ---- */

typedef struct Builder {
    SidecarWriter *writer;
    XXH3_state_t *content_hash;
    OffsetWriter offsets;
    Jump *jump;
    size_t num_jumps, jump_capacity;
    uint64_t records, blank_lines;
    uint64_t records_max;
    bool full;           /* the line being scanned would be one record too many */
    uint64_t line_begin; /* of the line being scanned */
    bool blank;          /* nothing but white space in it so far */
    Str beginning;       /* of a compressed text, that tells what it is; ... */
    bool looked;         /* ... which was found out */
} Builder;

static void add_record(Builder *builder)
{
    builder->full = builder->records == builder->records_max;
    if (builder->full) return;
    uint64_t record = builder->records++, line = builder->records + builder->blank_lines;
    if (offset_writer_put(&builder->offsets, builder->line_begin, line)) return;
    if (builder->num_jumps == builder->jump_capacity) {
        builder->jump_capacity = 2 * builder->jump_capacity + 8;
        builder->jump = mem_realloc(builder->jump, builder->jump_capacity, sizeof *builder->jump);
    }
    builder->jump[builder->num_jumps++] = (Jump){record, line};
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

/* What a compressed file holds, as soon as there is enough of it; NULL: there will be no more. A
 * plain file was looked at when it was opened. */
static Status look_at(const Source *source, const TextPass *pass, Builder *builder,
                      const char *text, size_t length, Error *err)
{
    if (builder->looked || text_pass_codec(pass) == NULL) return OK;
    Str *beginning = &builder->beginning;
    size_t wanted = LOOK_ALIKE_BYTES - beginning->length;
    if (text != NULL) str_append(beginning, text, length < wanted ? length : wanted);
    if (text != NULL && beginning->length < LOOK_ALIKE_BYTES) return OK;
    builder->looked = true;
    LookAlike look = {.path = source->input.path,
                      .text = str_text(beginning),
                      .length = beginning->length,
                      .whole = text == NULL && !builder->full && text_pass_damage(pass)[0] == '\0'};
    return look_alike_check(&look, err);
}

/* A pass on its way. */
typedef struct Pass {
    const Source *source;
    TextPass *text;
    Builder *builder;
    uint64_t bytes; /* that were read */
} Pass;

/* A TakePiece. */
static Status take_stretch(void *context, const char *text, size_t length, bool *ret_enough,
                           Error *err)
{
    Pass *pass = context;
    const Source *source = pass->source;
    ReadWatch *watch = source->input.watch;
    TRY(look_at(source, pass->text, pass->builder, text, length, err));
    take_text(pass->builder, text, length, pass->bytes);
    pass->bytes += length;
    *ret_enough = pass->builder->full;
    if (watch == NULL) return OK;
    watch->progress++;
    if (text_pass_codec(pass->text) == NULL) watch->bytes_read += length;
    if (watch->cancelled && !*ret_enough)
        return error_set(err, ERR_CANCELLED, "reading %s was cancelled", source->input.path);
    return OK;
}

/* Scans all of the text. */
static Status scan_text(Pass *pass, Error *err)
{
    TRY(text_pass_run(pass->text, take_stretch, pass, err));
    return look_at(pass->source, pass->text, pass->builder, NULL, 0, err);
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

static Status scan_file(Source *source, Builder *builder, IndexHead *head, Error *err)
{
    Pass pass = {.source = source, .builder = builder};
    TRY(text_pass_open(&source->input, builder->writer, &pass.text, err));
    data_file_advise(source->input.file, 0, 0, POSIX_FADV_SEQUENTIAL);
    Status status = scan_text(&pass, err);
    /* What follows is a line here, there. */
    data_file_advise(source->input.file, 0, 0, POSIX_FADV_RANDOM);
    if (status != OK) goto done;
    source->cut = builder->full && builder->line_begin < pass.bytes;
    const char *damage = builder->full ? "" : text_pass_damage(pass.text);
    if (damage[0] != '\0') add_damage(builder, pass.bytes);
    offset_writer_end(&builder->offsets, builder->full ? builder->line_begin : pass.bytes);
    const SeekBlock *blocks = text_pass_blocks(pass.text, &head->count[COUNT_BLOCKS]);
    size_t damage_bytes = strnlen(damage, DAMAGE_BYTES - 1);
    sidecar_put_body(builder->writer, blocks, head->count[COUNT_BLOCKS] * sizeof *blocks);
    sidecar_put_body(builder->writer, builder->jump, builder->num_jumps * sizeof *builder->jump);
    sidecar_put_body(builder->writer, damage, damage_bytes);
    head->count[COUNT_RECORDS] = builder->records;
    head->count[COUNT_DAMAGE] = damage_bytes;
    head->count[COUNT_CODEC] = text_codec_number(text_pass_codec(pass.text));
    head->content_bytes = pass.bytes;
    head->content_hash = XXH3_64bits_digest(builder->content_hash);
done:
    text_pass_close(pass.text);
    return status;
}

static Status build(void *context, SidecarWriter *writer, IndexHead *head, Error *err)
{
    Source *source = context;
    uint64_t most = source->options.records_max;
    Builder builder = {.writer = writer,
                       .offsets.sidecar = writer,
                       .blank = true,
                       .records_max = most > 0 ? most : UINT64_MAX};
    builder.content_hash = XXH3_createState();
    CHECK(builder.content_hash != NULL);
    XXH3_64bits_reset(builder.content_hash);
    Status status = scan_file(source, &builder, head, err);
    XXH3_freeState(builder.content_hash);
    free(builder.jump);
    str_free(&builder.beginning);
    return status;
}

static const SidecarKind index_kind = {".idx", INDEX_MAGIC, build};

static SidecarOptions sidecar_options(LineIndex *index)
{
    return (SidecarOptions){.file = index->source.input.file,
                            .folder = index->source.options.folder,
                            .by_checksum = index->source.options.by_checksum,
                            .context = &index->source};
}

bool line_index_known(const SidecarOptions *options)
{
    IndexHead head;
    return sidecar_known(&index_kind, options, &head);
}

Status line_index_open(const TextInput *input, const LineIndexOptions *options, LineIndex **ret,
                       Error *err)
{
    CHECK(options->records_max == 0 || !index_folder_writes(options->folder));
    LineIndex *index = mem_calloc(1, sizeof *index);
    index->source = (Source){.input = *input, .options = *options};
    index->source.input.watch = options->watch;
    pthread_mutex_init(&index->lock, NULL);
    SidecarOptions wanted = sidecar_options(index);
    Status status = sidecar_open(&index_kind, &wanted, &index->first, err);
    index->sidecar = index->first;
    index->source.input.watch = NULL; /* for the first pass alone */
    if (status != OK) {
        line_index_close(index);
        return status;
    }
    const IndexHead *head = &index->first->head;
    size_t blocks = (size_t)head->count[COUNT_BLOCKS] * sizeof(SeekBlock);
    size_t damage = (size_t)head->count[COUNT_DAMAGE];
    CHECK(damage < DAMAGE_BYTES && blocks + damage <= head->body_bytes);
    index->num_jumps = (head->body_bytes - blocks - damage) / sizeof *index->jump;
    index->jump = (const Jump *)(const void *)(index->first->body + blocks);
    memcpy(index->damage, index->first->body + head->body_bytes - damage, damage);
    *ret = index;
    return OK;
}

void line_index_close(LineIndex *index)
{
    if (index == NULL) return;
    for (int i = 0; i < index->num_damaged; i++)
        sidecar_close(index->damaged[i]);
    sidecar_close(index->sidecar);
    pthread_mutex_destroy(&index->lock);
    free(index->damaged);
    free(index);
}

LineIndexSummary line_index_summary(const LineIndex *index)
{
    const Sidecar *sidecar = index->first;
    const IndexHead *head = &sidecar->head;
    return (LineIndexSummary){
        .records = head->count[COUNT_RECORDS],
        .content_hash = head->content_hash,
        .text_bytes = head->content_bytes,
        .codec = text_codec_of(head->count[COUNT_CODEC]),
        .reused = sidecar->reused,
        .whole = !index->source.cut,
        .damage = index->damage,
        .warning = sidecar->warning,
    };
}

const Sidecar *line_index_sidecar(const LineIndex *index)
{
    return index->first;
}

const SeekBlock *line_index_blocks(const LineIndex *index, uint64_t *ret_count)
{
    *ret_count = index->first->head.count[COUNT_BLOCKS];
    return (const SeekBlock *)(const void *)index->first->body;
}

/* ---- reading ---- */

static Status refuse_other_text(const LineIndex *index, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s was changed during the run: its index was damaged, and made again it is "
                     "of another text\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     index->source.input.path);
}

static void warn_of_damage(const LineIndex *index, const Sidecar *damaged)
{
    char *lost = sidecar_lost(damaged), *reason = NULL;
    if (lost != NULL)
        reason = mem_printf("the index of the file is made again: %s; to do: leave the index "
                            "folder as it is while the run goes on",
                            lost);
    else
        reason = mem_strdup("the index of the file is damaged and is made again; to do: look after "
                            "the disk that the run folder is on");
    log_event(LOG_WARN, "index_damaged", F_STR("file", index->source.input.path),
              F_STR("reason", reason));
    free(reason);
    free(lost);
}

/* Makes the pass again, unless another thread has: `damaged` is no longer the last one then. */
static Status make_again(LineIndex *index, Sidecar *damaged, Error *err)
{
    if (index->sidecar != damaged) return OK;
    SidecarOptions wanted = sidecar_options(index);
    Sidecar *made = NULL;
    wanted.anew = true;
    warn_of_damage(index, damaged);
    TRY(sidecar_open(&index_kind, &wanted, &made, err));
    if (made->head.content_hash != damaged->head.content_hash ||
        made->head.count[COUNT_RECORDS] != damaged->head.count[COUNT_RECORDS]) {
        sidecar_close(made);
        return refuse_other_text(index, err);
    }
    index->damaged =
        mem_realloc(index->damaged, (size_t)index->num_damaged + 1, sizeof *index->damaged);
    index->damaged[index->num_damaged++] = damaged;
    index->sidecar = made;
    return OK;
}

/* The line of a record that has jumped. */
static uint64_t find_jump(const LineIndex *index, uint64_t record)
{
    size_t low = 0, high = index->num_jumps;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (index->jump[middle].record <= record)
            low = middle;
        else
            high = middle;
    }
    return low < high ? index->jump[low].line : 0;
}

Status line_index_record(LineIndex *index, uint64_t record, OffsetPlace *ret, Error *err)
{
    CHECK(record < index->first->head.count[COUNT_RECORDS]);
    Sidecar *sidecar = index->sidecar;
    while (!offset_table_find(sidecar, record, ret)) {
        pthread_mutex_lock(&index->lock);
        Status status = make_again(index, sidecar, err);
        pthread_mutex_unlock(&index->lock);
        if (status != OK) return status == ERR_DATA ? err->status = ERR_IO : status;
        sidecar = index->sidecar;
    }
    if (ret->jumped != NO_JUMP) ret->number += find_jump(index, ret->jumped);
    return OK;
}
