#include "dataset/text_source.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/read_ahead.h"

#define PLAIN_BYTES     (1u << 20) /* of a read; smaller ones cost the kernel more */
#define BLOCK_BYTES_MIN (1u << 20)
#define BLOCK_BYTES_MAX (2u << 20)
#define SPOOL_LEVEL     1 /* of zstd: as fast as it gets */

struct TextPass {
    TextInput input;
    const TextCodec *codec;
    TextDecoder *decoder;
    SidecarWriter *writer;
    ReadAhead *ahead; /* of plain text, where that pays */
    uint64_t at;      /* text given so far */
    uint8_t *text;    /* NULL where there is the former */
    SeekBlock *block;
    size_t num_blocks, capacity;
    bool at_point; /* the next block begins at `start` */
    SeekBlock start;
    bool ended;
    char *damage; /* or NULL */
    uint8_t window[CODEC_WINDOW_BYTES];
    ZSTD_CCtx *compressor;
    uint8_t *compressed; /* [ZSTD_compressBound(BLOCK_BYTES_MAX)] */
};

Status text_codec_find(const TextInput *input, const TextCodec **ret, Error *err)
{
    static const TextCodec *const codecs[] = {&text_codec_gzip, &text_codec_zstd};
    uint8_t head[16] = {0};
    size_t length = input->file_bytes < sizeof head ? (size_t)input->file_bytes : sizeof head;
    TRY(file_read_at(input->fd, head, length, 0, input->path, err));
    *ret = NULL;
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (codecs[i]->begins(head)) *ret = codecs[i];
    return OK;
}

/* ---- the pass ---- */

Status text_pass_open(const TextInput *input, SidecarWriter *writer, TextPass **ret, Error *err)
{
    TextPass *pass = mem_calloc(1, sizeof *pass);
    pass->input = *input;
    pass->writer = writer;
    ResumePoint begin = {.unit = true};
    Status status = text_codec_find(input, &pass->codec, err);
    if (status == OK && pass->codec != NULL) {
        pass->text = mem_alloc(BLOCK_BYTES_MAX);
        pass->at_point = true;
        pass->start = (SeekBlock){.kind = BLOCK_POINT, .unit = true};
        pass->compressor = ZSTD_createCCtx();
        CHECK(pass->compressor != NULL);
        pass->compressed = mem_alloc(ZSTD_compressBound(BLOCK_BYTES_MAX));
        status = pass->codec->open(input, &begin, NULL, &pass->decoder, err);
    } else if (status == OK && read_ahead_pays(input->file_bytes)) {
        pass->ahead = read_ahead_open(input->fd, input->path, input->file_bytes, PLAIN_BYTES);
    } else {
        pass->text = mem_alloc(PLAIN_BYTES);
    }
    if (status == OK) {
        *ret = pass;
        pass = NULL;
    }
    text_pass_close(pass);
    return status;
}

void text_pass_close(TextPass *pass)
{
    if (pass == NULL) return;
    if (pass->codec != NULL) pass->codec->close(pass->decoder);
    read_ahead_close(pass->ahead);
    ZSTD_freeCCtx(pass->compressor);
    free(pass->compressed);
    free(pass->text);
    free(pass->block);
    free(pass->damage);
    free(pass);
}

const char *text_pass_damage(const TextPass *pass)
{
    return pass->damage != NULL ? pass->damage : "";
}

const SeekBlock *text_pass_blocks(const TextPass *pass, uint64_t *ret_count)
{
    *ret_count = pass->num_blocks;
    return pass->block;
}

static void spool(TextPass *pass, const void *bytes, size_t length, SeekBlock *block)
{
    size_t size =
        ZSTD_compressCCtx(pass->compressor, pass->compressed, ZSTD_compressBound(BLOCK_BYTES_MAX),
                          bytes, length, SPOOL_LEVEL);
    CHECK(!ZSTD_isError(size));
    block->spool_offset = sidecar_spool(pass->writer, pass->compressed, size);
    block->spool_bytes = (uint32_t)size;
}

/* The decoder could begin here: the next block does. */
static void start_at_point(TextPass *pass)
{
    ResumePoint point;
    pass->codec->point(pass->decoder, &point, pass->window);
    pass->start = (SeekBlock){.kind = BLOCK_POINT,
                              .file_offset = point.file_offset,
                              .window_bytes = point.window_bytes,
                              .bits = point.bits,
                              .unit = point.unit};
    if (point.window_bytes > 0) spool(pass, pass->window, point.window_bytes, &pass->start);
    pass->at_point = true;
}

static void add_block(TextPass *pass, size_t length)
{
    SeekBlock block = {.kind = BLOCK_INSIDE};
    if (pass->at_point) {
        block = pass->start;
    } else if (sidecar_is_kept(pass->writer)) {
        block.kind = BLOCK_COPY;
        spool(pass, pass->text, length, &block);
    }
    block.text_offset = pass->at;
    block.text_hash = XXH3_64bits(pass->text, length);
    if (pass->num_blocks == pass->capacity) {
        pass->capacity = 2 * pass->capacity + 64;
        pass->block = mem_realloc(pass->block, pass->capacity, sizeof *pass->block);
    }
    pass->block[pass->num_blocks++] = block;
    pass->at_point = false;
}

static Status next_block(TextPass *pass, size_t *ret_length, Error *err)
{
    size_t length = 0;
    TextChunk chunk = {0};
    while (length < BLOCK_BYTES_MAX && !chunk.end && !(chunk.point && length >= BLOCK_BYTES_MIN)) {
        Error damage = {0};
        Status status = pass->codec->step(pass->decoder, pass->text + length,
                                          BLOCK_BYTES_MAX - length, &chunk, &damage);
        if (status != OK) {
            *err = damage;
            return status;
        }
        if (chunk.damaged) pass->damage = mem_strdup(damage.message);
        length += chunk.length;
    }
    if (length > 0) add_block(pass, length);
    if (chunk.point && !chunk.end) start_at_point(pass);
    pass->ended = chunk.end;
    *ret_length = length;
    return OK;
}

static Status next_plain(TextPass *pass, const char **ret_text, size_t *ret_length, Error *err)
{
    ReadWatch *watch = pass->input.watch;
    if (pass->ahead != NULL) {
        TRY(read_ahead_next(pass->ahead, ret_text, ret_length, err));
    } else {
        uint64_t left = pass->input.file_bytes - pass->at;
        *ret_length = left < PLAIN_BYTES ? (size_t)left : PLAIN_BYTES;
        *ret_text = (const char *)pass->text;
        TRY(file_read_at(pass->input.fd, pass->text, *ret_length, (int64_t)pass->at,
                         pass->input.path, err));
    }
    if (watch != NULL) watch->bytes_read += *ret_length;
    return OK;
}

Status text_pass_next(TextPass *pass, const char **ret_text, size_t *ret_length, Error *err)
{
    size_t length = 0;
    *ret_text = (const char *)pass->text;
    if (pass->codec == NULL)
        TRY(next_plain(pass, ret_text, &length, err));
    else if (!pass->ended)
        TRY(next_block(pass, &length, err));
    pass->at += length;
    *ret_length = length;
    return OK;
}

/* ---- reading ---- */

static uint64_t block_end(const TextSource *source, uint64_t index)
{
    return index + 1 < source->num_blocks ? source->block[index + 1].text_offset
                                          : source->text_bytes;
}

/* What is found now is not what the pass has found, though size and time of the file are the same.
 */
static Status refuse_other_bytes(const TextSource *source, Error *err)
{
    return error_set(
        err, ERR_IO,
        "%s does not give the text with which it was indexed, though its size and time "
        "are the same\n  expected: data files that stay as they are until the run "
        "ends\n  to do: look after the disk; fetch the file again",
        source->input.path);
}

/* Reads what was spooled for a block into `bytes`, which has room for `length`; false when that is
 * not what is there. */
static bool read_spooled(const TextSource *source, const SeekBlock *block, void *bytes,
                         size_t length)
{
    void *compressed = mem_alloc(block->spool_bytes);
    bool whole =
        sidecar_read(source->sidecar, block->spool_offset, compressed, block->spool_bytes) &&
        ZSTD_decompress(bytes, length, compressed, block->spool_bytes) == length;
    free(compressed);
    return whole;
}

static Status open_at(const TextSource *source, const SeekBlock *block, TextDecoder **ret,
                      Error *err)
{
    uint8_t window[CODEC_WINDOW_BYTES];
    ResumePoint point = {.file_offset = block->file_offset,
                         .window_bytes = block->window_bytes,
                         .bits = block->bits,
                         .unit = block->unit != 0};
    bool primed = block->window_bytes > 0;
    if (primed && (block->window_bytes > sizeof window ||
                   !read_spooled(source, block, window, block->window_bytes)))
        return refuse_other_bytes(source, err);
    return source->codec->open(&source->input, &point, primed ? window : NULL, ret, err);
}

/* Decodes from the point at or before block `index` up to its end; `text` has room for the block.
 */
static Status decode(const TextSource *source, uint64_t index, uint8_t *text, Error *err)
{
    uint64_t first = index;
    while (source->block[first].kind != BLOCK_POINT)
        first--;
    uint64_t at = source->block[first].text_offset, begin = source->block[index].text_offset;
    uint64_t end = block_end(source, index);
    TextDecoder *decoder = NULL;
    TRY(open_at(source, &source->block[first], &decoder, err));
    Status status = OK;
    while (at < end && status == OK) {
        uint64_t from = at < begin ? 0 : at - begin;
        uint64_t room = at < begin ? begin - at : end - at;
        if (room > end - begin) room = end - begin;
        TextChunk chunk;
        status = source->codec->step(decoder, text + from, (size_t)room, &chunk, err);
        at += chunk.length;
        if (status == OK && chunk.end && at < end) status = refuse_other_bytes(source, err);
    }
    source->codec->close(decoder);
    return status;
}

static Status load_block(const void *file, uint64_t index, Block *ret, Error *err)
{
    const TextSource *source = file;
    const SeekBlock *block = &source->block[index];
    size_t length = (size_t)(block_end(source, index) - block->text_offset);
    uint8_t *text = mem_alloc(length);
    Status status = OK;
    if (block->kind == BLOCK_COPY) {
        if (!read_spooled(source, block, text, length)) status = refuse_other_bytes(source, err);
    } else {
        status = decode(source, index, text, err);
    }
    if (status == OK && XXH3_64bits(text, length) != block->text_hash)
        status = refuse_other_bytes(source, err);
    if (status == OK) {
        *ret = (Block){text, length};
        text = NULL;
    }
    free(text);
    return status;
}

/* The last block that begins at or before `offset`. */
static uint64_t find_block(const TextSource *source, uint64_t offset)
{
    uint64_t low = 0, high = source->num_blocks;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (source->block[middle].text_offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

Status text_source_read(const TextSource *source, uint64_t begin, char *text, size_t length,
                        Error *err)
{
    if (source->codec == NULL)
        return file_read_at(source->input.fd, text, length, (int64_t)begin, source->input.path,
                            err);
    CHECK(begin + length <= source->text_bytes);
    for (uint64_t index = find_block(source, begin); length > 0; index++) {
        uint64_t offset = begin - source->block[index].text_offset;
        uint64_t there = block_end(source, index) - begin;
        size_t part = there < length ? (size_t)there : length;
        const Block *block = NULL;
        TRY(block_cache_take(source->cache, source, index, load_block, &block, err));
        memcpy(text, (const char *)block->data + offset, part);
        block_cache_give_back(source->cache, block);
        text += part;
        begin += part;
        length -= part;
    }
    return OK;
}
