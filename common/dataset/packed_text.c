#include "dataset/packed_text.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/packed_log.h"
#include "dataset/text_source.h"

#define LINE_EXTENT_MAX (JSONL_LINE_BYTES_MAX + 3u)

struct PackedText {
    TextInput input;
    const TextCodec *codec;
    BlockCache *cache;
    ReadWatch *watch;
    uint64_t probe, share, block_bytes, num_blocks;
    bool reused;
    PackedLog *log;

    pthread_mutex_t lock; /* of what follows, which is only added to */
    PackedPiece *piece;   /* [num_pieces] */
    uint64_t num_pieces, capacity;
    uint64_t *first_piece;      /* [num_blocks + 1]: of each block, as far as ... */
    uint64_t begun;             /* ... this */
    uint64_t settled;           /* pieces below this have all of their last record */
    uint64_t last_record_piece; /* the last piece with a record */

    pthread_mutex_t pass_lock; /* of the pass */
    TextCutter *cutter;        /* or NULL */
    uint64_t at;               /* the piece that it gives next */
    PackedPiece next;          /* how that begins, once all known ones are passed */
    _Atomic bool stopped;
};

/* ---- the records of a piece ---- */

typedef struct RecordPlace {
    uint64_t begin; /* of the text */
    uint64_t lines; /* line ends in the piece before it */
} RecordPlace;

/* A decoded piece, as a Block of the cache. */
typedef struct PieceText {
    uint64_t records;
    const char *text;
    RecordPlace place[]; /* [records] */
} PieceText;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static size_t skip_space(const char *text, size_t at, size_t length)
{
    while (at < length && is_space(text[at]))
        at++;
    return at;
}

/* Goes through a piece, of which it is known how it begins; fills in what it has, and in *next, if
 * that is not NULL, how the one behind it begins. `place`: where its records are, or NULL. */
static void scan_piece(PackedPiece *piece, const char *text, RecordPlace *place, PackedPiece *next)
{
    size_t length = piece->length, at = 0;
    uint64_t offset = piece->seek.text_offset, begin = offset - piece->blank_before;
    uint32_t lines = 0, records = 0, first_end = 0;
    bool inside = piece->inside != 0;
    if (offset == 0 && length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) at = begin = 3;
    while (at < length) {
        if (!inside) at = skip_space(text, at, length);
        if (at == length) break;
        if (!inside && text[at] != '\n') {
            if (place != NULL) place[records] = (RecordPlace){begin, lines};
            records++;
            inside = true;
        }
        const char *newline = memchr(text + at, '\n', length - at);
        if (newline == NULL) break;
        at = (size_t)(newline - text) + 1;
        begin = offset + at;
        inside = false;
        lines++;
        if (first_end == 0) first_end = (uint32_t)at;
    }
    piece->own_lines = lines;
    piece->own_records = records;
    piece->first_end = first_end;
    if (next == NULL) return;
    uint64_t blank = inside ? 0 : offset + length - begin;
    *next =
        (PackedPiece){.seek = {.text_offset = offset + length},
                      .lines = piece->lines + lines,
                      .records = piece->records + records,
                      /* longer ones make a line that is too long anyway */
                      .blank_before = (uint32_t)(blank < LINE_EXTENT_MAX ? blank : LINE_EXTENT_MAX),
                      .inside = inside};
}

/* ---- what is known, with the lock held ---- */

static uint64_t block_of(const PackedText *text, const PackedPiece *piece)
{
    uint64_t block = piece->place / text->block_bytes;
    return block < text->num_blocks ? block : text->num_blocks - 1;
}

static bool has_ended(const PackedText *text)
{
    return text->num_pieces > 0 && text->piece[text->num_pieces - 1].length == 0;
}

/* Of which pieces before `index`, the newest, the last records are whole. */
static void settle(PackedText *text, uint64_t index)
{
    const PackedPiece *piece = &text->piece[index];
    if (piece->length == 0) {
        text->settled = index + 1;
    } else if (piece->inside == 0 || piece->first_end > 0) {
        text->settled = index;
    } else {
        while (text->settled < index &&
               text->piece[text->settled + 1].seek.text_offset + LINE_EXTENT_MAX <
                   piece->seek.text_offset)
            text->settled++;
    }
}

/* Takes note of the newest piece. */
static void note_piece(PackedText *text)
{
    uint64_t index = text->num_pieces - 1;
    const PackedPiece *piece = &text->piece[index];
    for (uint64_t block = block_of(text, piece); text->begun <= block;)
        text->first_piece[text->begun++] = index;
    if (piece->length == 0)
        while (text->begun <= text->num_blocks)
            text->first_piece[text->begun++] = text->num_pieces;
    if (piece->own_records > 0) text->last_record_piece = index;
    settle(text, index);
}

static void push_piece(PackedText *text, const PackedPiece *piece)
{
    if (text->num_pieces == text->capacity) {
        text->capacity = 2 * text->capacity + 64;
        text->piece = mem_realloc(text->piece, text->capacity, sizeof *text->piece);
    }
    text->piece[text->num_pieces++] = *piece;
    note_piece(text);
}

static PackedPiece get_piece(PackedText *text, uint64_t index)
{
    pthread_mutex_lock(&text->lock);
    CHECK(index < text->num_pieces);
    PackedPiece piece = text->piece[index];
    pthread_mutex_unlock(&text->lock);
    return piece;
}

/* ---- the pass ---- */

static Status refuse_other_text(const PackedText *text, uint64_t place, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s was changed since its records were counted: it gives another text from "
                     "its byte %llu on\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     text->input.path, (unsigned long long)place);
}

/* The window of a point; false when it is lost. */
static bool read_window(const PackedText *text, uint64_t index, const SeekBlock *seek,
                        uint8_t window[CODEC_WINDOW_BYTES])
{
    return seek->window_bytes == 0 ||
           (seek->window_bytes <= CODEC_WINDOW_BYTES &&
            packed_log_read(text->log, index, seek, window, seek->window_bytes));
}

/* The last place at or before piece `index` at which decoding can begin. The first piece is one. */
static uint64_t find_point(PackedText *text, uint64_t index, SeekBlock *ret,
                           uint8_t window[CODEC_WINDOW_BYTES])
{
    for (;; index--) {
        *ret = get_piece(text, index).seek;
        if (ret->kind == BLOCK_POINT && read_window(text, index, ret, window)) return index;
        CHECK(index > 0);
    }
}

static Status open_cutter(PackedText *text, Error *err)
{
    uint8_t window[CODEC_WINDOW_BYTES];
    SeekBlock from;
    text->at = 0;
    if (text->num_pieces == 0)
        return text_cutter_open(&text->input, text->codec, NULL, NULL, &text->cutter, err);
    text->at = find_point(text, text->num_pieces - 1, &from, window);
    return text_cutter_open(&text->input, text->codec, &from, from.window_bytes > 0 ? window : NULL,
                            &text->cutter, err);
}

/* What an earlier start has found must be found again. */
static Status pass_known(PackedText *text, const TextCut *cut, Error *err)
{
    PackedPiece known = get_piece(text, text->at);
    if (cut->length != known.length || cut->block.text_hash != known.seek.text_hash)
        return refuse_other_text(text, known.place, err);
    if (++text->at == text->num_pieces)
        scan_piece(&known, (const char *)cut->text, NULL, &text->next);
    return OK;
}

static void add_piece(PackedText *text, const TextCut *cut)
{
    PackedPiece piece = text->next;
    const uint8_t *packed = NULL;
    size_t packed_bytes = 0;
    piece.seek = cut->block;
    piece.place = cut->place;
    piece.length = (uint32_t)cut->length;
    bool wanted =
        cut->keep_bytes > 0 && (cut->block.kind == BLOCK_POINT || packed_log_keeps(text->log));
    if (wanted) packed_bytes = text_cutter_pack(text->cutter, cut, &packed);
    if (cut->block.kind == BLOCK_COPY && !wanted) piece.seek.kind = BLOCK_INSIDE;
    scan_piece(&piece, (const char *)cut->text, NULL, &text->next);
    packed_log_add(text->log, &piece, packed, packed_bytes);
    pthread_mutex_lock(&text->lock);
    push_piece(text, &piece);
    pthread_mutex_unlock(&text->lock);
    text->at++;
}

/* What cannot be read behind the damage counts as one record, the last: the line that is cut, or
 * one of its own where a line ends just there. */
static void add_end(PackedText *text)
{
    PackedPiece piece = text->next;
    const char *damage = text_cutter_damage(text->cutter);
    piece.seek.kind = BLOCK_INSIDE;
    piece.own_records = damage[0] != '\0' && piece.inside == 0;
    if (text->num_pieces > 0) piece.place = text->piece[text->num_pieces - 1].place;
    packed_log_set_damage(text->log, damage);
    packed_log_add(text->log, &piece, NULL, 0);
    pthread_mutex_lock(&text->lock);
    push_piece(text, &piece);
    pthread_mutex_unlock(&text->lock);
}

/* Another piece, or one that is known. */
static Status step(PackedText *text, Error *err)
{
    TextCut cut;
    ReadWatch *watch = text->watch;
    if (text->stopped || (watch != NULL && watch->cancelled))
        return error_set(err, ERR_CANCELLED, "reading %s was cancelled", text->input.path);
    if (text->cutter == NULL) TRY(open_cutter(text, err));
    TRY(text_cutter_next(text->cutter, &cut, err));
    if (watch != NULL) watch->progress++;
    if (text->at < text->num_pieces) {
        TRY(pass_known(text, &cut, err));
    } else if (cut.length > 0) {
        add_piece(text, &cut);
    }
    if (cut.end && text->at < text->num_pieces)
        return refuse_other_text(text, get_piece(text, text->at).place, err);
    if (cut.end) add_end(text);
    return OK;
}

Status packed_text_count(PackedText *text, uint64_t block, Error *err)
{
    uint64_t records;
    Status status = OK;
    pthread_mutex_lock(&text->pass_lock);
    while (!packed_text_counted(text, block, &records) && status == OK)
        status = step(text, err);
    if (text->cutter != NULL) text_cutter_rest(text->cutter);
    if (status != OK || has_ended(text)) { /* a failure may pass */
        text_cutter_close(text->cutter);
        text->cutter = NULL;
    }
    pthread_mutex_unlock(&text->pass_lock);
    return status;
}

void packed_text_stop(PackedText *text)
{
    text->stopped = true;
}

/* ---- opening ---- */

PackedText *packed_text_open(const TextInput *input, const TextProbe *probe,
                             const PackedTextOptions *options)
{
    PackedText *text = mem_calloc(1, sizeof *text);
    uint64_t count = 0;
    PackedPiece *known = NULL;
    text->input = *input;
    text->codec = probe->codec;
    text->cache = options->cache;
    text->watch = options->watch;
    text->share = probe->share;
    text->block_bytes = probe->block_bytes;
    text->num_blocks = (input->file_bytes + text->block_bytes - 1) / text->block_bytes;
    text->probe = XXH3_64bits_withSeed(&text->block_bytes, sizeof text->block_bytes, probe->hash);
    pthread_mutex_init(&text->lock, NULL);
    pthread_mutex_init(&text->pass_lock, NULL);
    PackedLogOptions log = {options->path, options->read_only, options->folder,
                            text->probe,   input->file_bytes,  text->block_bytes};
    text->log = packed_log_open(&log, &known, &count);
    text->first_piece = mem_calloc((size_t)text->num_blocks + 1, sizeof *text->first_piece);
    for (uint64_t i = 0; i < count; i++)
        push_piece(text, &known[i]);
    text->reused = count > 0;
    free(known);
    return text;
}

void packed_text_close(PackedText *text)
{
    if (text == NULL) return;
    block_cache_forget(text->cache, text);
    text_cutter_close(text->cutter);
    packed_log_close(text->log);
    pthread_mutex_destroy(&text->pass_lock);
    pthread_mutex_destroy(&text->lock);
    free(text->first_piece);
    free(text->piece);
    free(text);
}

uint64_t packed_text_probe(const PackedText *text)
{
    return text->probe;
}

bool packed_text_reused(const PackedText *text)
{
    return text->reused;
}

const char *packed_text_warning(const PackedText *text)
{
    return packed_log_warning(text->log);
}

/* ---- blocks ---- */

uint64_t packed_text_num_blocks(const PackedText *text)
{
    return text->num_blocks;
}

static uint64_t packed_bytes(const PackedText *text, uint64_t block)
{
    uint64_t left = text->input.file_bytes - block * text->block_bytes;
    return left < text->block_bytes ? left : text->block_bytes;
}

uint64_t packed_text_bytes(const PackedText *text, uint64_t block)
{
    return packed_bytes(text, block) * text->share / TEXT_SHARE_UNIT;
}

bool packed_text_counted(PackedText *text, uint64_t block, uint64_t *ret_records)
{
    uint64_t records = 0;
    pthread_mutex_lock(&text->lock);
    bool counted = block + 1 < text->begun && text->first_piece[block + 1] <= text->settled;
    if (counted)
        for (uint64_t i = text->first_piece[block]; i < text->first_piece[block + 1]; i++)
            records += text->piece[i].own_records;
    pthread_mutex_unlock(&text->lock);
    *ret_records = records;
    return counted;
}

void packed_text_prefetch(const PackedText *text, uint64_t block)
{
    data_file_advise(text->input.file, block * text->block_bytes, packed_bytes(text, block),
                     POSIX_FADV_WILLNEED);
}

/* ---- reading ---- */

static Status decode_piece(PackedText *text, uint64_t index, const PackedPiece *piece,
                           uint8_t *bytes, Error *err)
{
    uint8_t window[CODEC_WINDOW_BYTES];
    SeekBlock from;
    size_t length = 0;
    if (piece->seek.kind == BLOCK_COPY &&
        packed_log_read(text->log, index, &piece->seek, bytes, piece->length) &&
        XXH3_64bits(bytes, piece->length) == piece->seek.text_hash)
        return OK;
    find_point(text, index, &from, window);
    TextStretch stretch = {.input = &text->input,
                           .codec = text->codec,
                           .from = &from,
                           .window = from.window_bytes > 0 ? window : NULL,
                           .begin = piece->seek.text_offset,
                           .length = piece->length};
    TRY(text_decode(&stretch, bytes, &length, err));
    if (length != piece->length || XXH3_64bits(bytes, length) != piece->seek.text_hash)
        return refuse_other_text(text, piece->place, err);
    return OK;
}

static Status load_piece(const void *file, uint64_t index, Block *ret, Error *err)
{
    PackedText *text = (PackedText *)(uintptr_t)file; /* whose lock is taken */
    PackedPiece piece = get_piece(text, index);
    size_t places = piece.own_records * sizeof(RecordPlace), bytes = sizeof(PieceText) + places;
    PieceText *loaded = mem_alloc(bytes + piece.length);
    char *room = (char *)loaded + bytes;
    Status status = decode_piece(text, index, &piece, (uint8_t *)room, err);
    if (status == OK) {
        loaded->records = piece.own_records;
        loaded->text = room;
        scan_piece(&piece, room, loaded->place, NULL);
        *ret = (Block){loaded, bytes + piece.length};
        loaded = NULL;
    }
    free(loaded);
    return status;
}

/* The piece of a block in which one of its records is; *record is its place there then. */
static uint64_t find_record(PackedText *text, uint64_t block, uint64_t *record)
{
    pthread_mutex_lock(&text->lock);
    CHECK(block + 1 < text->begun && text->first_piece[block + 1] <= text->settled);
    uint64_t index = text->first_piece[block];
    while (index < text->first_piece[block + 1] && *record >= text->piece[index].own_records)
        *record -= text->piece[index++].own_records;
    CHECK(index < text->first_piece[block + 1]);
    pthread_mutex_unlock(&text->lock);
    return index;
}

/* Where the last record of a piece ends, as far as a record may be long. */
static uint64_t find_end(PackedText *text, uint64_t index, uint64_t begin)
{
    pthread_mutex_lock(&text->lock);
    const PackedPiece *piece = &text->piece[index + 1];
    while (piece->inside != 0 && piece->first_end == 0 && piece->length > 0 &&
           piece->seek.text_offset - begin <= LINE_EXTENT_MAX)
        piece++;
    uint64_t end = piece->seek.text_offset + (piece->inside != 0 ? piece->first_end : 0);
    pthread_mutex_unlock(&text->lock);
    return end;
}

/* Whether the damage of the file, if it has one, is in this record. */
static bool is_damaged(PackedText *text, uint64_t index, uint64_t record)
{
    pthread_mutex_lock(&text->lock);
    bool last = has_ended(text) && index == text->last_record_piece &&
                record + 1 == text->piece[index].own_records;
    pthread_mutex_unlock(&text->lock);
    return last && packed_log_damage(text->log)[0] != '\0';
}

Status packed_text_line(PackedText *text, uint64_t block, uint64_t record, PackedLine *ret,
                        Error *err)
{
    TRY(data_file_check(text->input.file, err));
    uint64_t index = find_record(text, block, &record);
    PackedPiece piece = get_piece(text, index);
    *ret = (PackedLine){.begin = piece.seek.text_offset,
                        .end = piece.seek.text_offset,
                        .line = piece.lines + 1,
                        .records = piece.records + record,
                        .damage = ""};
    if (is_damaged(text, index, record)) ret->damage = packed_log_damage(text->log);
    if (piece.length == 0) return OK;
    const Block *block_text = NULL;
    TRY(block_cache_take(text->cache, text, index, load_piece, &block_text, err));
    const PieceText *loaded = block_text->data;
    CHECK(record < loaded->records);
    ret->begin = loaded->place[record].begin;
    ret->line = piece.lines + loaded->place[record].lines + 1;
    ret->end = record + 1 < loaded->records ? loaded->place[record + 1].begin
                                            : find_end(text, index, ret->begin);
    block_cache_give_back(text->cache, block_text);
    return OK;
}

/* The piece that the text at `offset` is in. */
static uint64_t find_piece(PackedText *text, uint64_t offset)
{
    pthread_mutex_lock(&text->lock);
    uint64_t low = 0, high = text->num_pieces;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (text->piece[middle].seek.text_offset <= offset)
            low = middle;
        else
            high = middle;
    }
    pthread_mutex_unlock(&text->lock);
    return low;
}

Status packed_text_read(PackedText *text, uint64_t begin, char *bytes, size_t length, Error *err)
{
    for (uint64_t index = find_piece(text, begin); length > 0; index++) {
        PackedPiece piece = get_piece(text, index);
        CHECK(piece.length > 0);
        uint64_t offset = begin - piece.seek.text_offset, there = piece.length - offset;
        size_t part = there < length ? (size_t)there : length;
        const Block *block = NULL;
        TRY(block_cache_take(text->cache, text, index, load_piece, &block, err));
        memcpy(bytes, ((const PieceText *)block->data)->text + offset, part);
        block_cache_give_back(text->cache, block);
        bytes += part;
        begin += part;
        length -= part;
    }
    return OK;
}
