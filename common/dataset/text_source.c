#include "dataset/text_source.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/read_ahead.h"

#define PLAIN_BYTES (1u << 20) /* of a read; smaller ones cost the kernel more */

struct TextPass {
    TextInput input;
    SidecarWriter *writer;
    /* One of three: */
    TextCutter *cutter; /* of a compressed text */
    ReadAhead *ahead;   /* of a plain one, where that pays */
    uint8_t *text;      /* [PLAIN_BYTES] of one where it does not */
    uint64_t at;        /* text given so far */
    SeekBlock *block;
    size_t num_blocks, capacity;
    bool ended;
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
    const TextCodec *codec = NULL;
    pass->input = *input;
    pass->writer = writer;
    Status status = text_codec_find(input, &codec, err);
    if (status == OK && codec != NULL) {
        sidecar_begin_spool(writer);
        status = text_cutter_open(input, codec, NULL, NULL, &pass->cutter, err);
    } else if (status == OK && read_ahead_pays(input->file_bytes))
        pass->ahead = read_ahead_open(input->fd, input->path, input->file_bytes, PLAIN_BYTES);
    else
        pass->text = mem_alloc(PLAIN_BYTES);
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
    text_cutter_close(pass->cutter);
    read_ahead_close(pass->ahead);
    free(pass->text);
    free(pass->block);
    free(pass);
}

const char *text_pass_damage(const TextPass *pass)
{
    return pass->cutter != NULL ? text_cutter_damage(pass->cutter) : "";
}

const SeekBlock *text_pass_blocks(const TextPass *pass, uint64_t *ret_count)
{
    *ret_count = pass->num_blocks;
    return pass->block;
}

static void add_block(TextPass *pass, const TextCut *cut)
{
    SeekBlock block = cut->block;
    const uint8_t *packed;
    if (block.kind == BLOCK_COPY && !sidecar_is_kept(pass->writer)) {
        block.kind = BLOCK_INSIDE;
    } else if (cut->keep_bytes > 0) {
        block.spool_bytes = (uint32_t)text_cutter_pack(pass->cutter, cut, &packed);
        block.spool_offset = sidecar_spool(pass->writer, packed, block.spool_bytes);
    }
    if (pass->num_blocks == pass->capacity) {
        pass->capacity = 2 * pass->capacity + 64;
        pass->block = mem_realloc(pass->block, pass->capacity, sizeof *pass->block);
    }
    pass->block[pass->num_blocks++] = block;
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
    if (pass->cutter != NULL) {
        TextCut cut = {0};
        if (!pass->ended) TRY(text_cutter_next(pass->cutter, &cut, err));
        if (cut.length > 0) add_block(pass, &cut);
        if (!pass->ended) pass->ended = cut.end;
        *ret_text = (const char *)cut.text;
        length = cut.length;
    } else {
        TRY(next_plain(pass, ret_text, &length, err));
    }
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

Status text_decode(const TextStretch *stretch, uint8_t *text, size_t *ret_length, Error *err)
{
    const SeekBlock *from = stretch->from;
    ResumePoint point = {from->file_offset, from->window_bytes, from->bits, from->unit != 0};
    uint64_t at = from->text_offset, begin = stretch->begin, end = begin + stretch->length;
    TextDecoder *decoder = NULL;
    TRY(stretch->codec->open(stretch->input, &point, stretch->window, &decoder, err));
    Status status = OK;
    TextChunk chunk = {0};
    while (at < end && status == OK && !chunk.end) {
        uint64_t done = at < begin ? 0 : at - begin;
        uint64_t room = at < begin ? begin - at : end - at;
        if (room > stretch->length) room = stretch->length;
        status = stretch->codec->step(decoder, text + done, (size_t)room, &chunk, err);
        at += chunk.length;
    }
    stretch->codec->close(decoder);
    *ret_length = at < begin ? 0 : (size_t)(at - begin);
    return status;
}

/* Decodes from the point at or before block `index` up to its end; `text` has room for the block.
 */
static Status decode(const TextSource *source, uint64_t index, uint8_t *text, Error *err)
{
    uint64_t first = index;
    while (source->block[first].kind != BLOCK_POINT)
        first--;
    const SeekBlock *from = &source->block[first];
    uint8_t window[CODEC_WINDOW_BYTES];
    TextStretch stretch = {
        .input = &source->input,
        .codec = source->codec,
        .from = from,
        .begin = source->block[index].text_offset,
        .length = (size_t)(block_end(source, index) - source->block[index].text_offset)};
    if (from->window_bytes > 0) {
        if (from->window_bytes > sizeof window ||
            !read_spooled(source, from, window, from->window_bytes))
            return refuse_other_bytes(source, err);
        stretch.window = window;
    }
    size_t length = 0;
    TRY(text_decode(&stretch, text, &length, err));
    return length == stretch.length ? OK : refuse_other_bytes(source, err);
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
