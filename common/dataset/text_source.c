#include "dataset/text_source.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/memory.h"
#include "dataset/content_hash.h"

struct TextPass {
    TextInput input;
    const TextCodec *codec;
    SidecarWriter *writer;
    TextCutter *cutter; /* of a compressed text, or NULL */
    SeekBlock *block;
    size_t num_blocks, capacity;
};

static const TextCodec *const codecs[] = {NULL, &text_codec_gzip, &text_codec_zstd};
#define NUM_CODECS (sizeof codecs / sizeof *codecs)

uint64_t text_codec_number(const TextCodec *codec)
{
    uint64_t number = 0;
    while (codecs[number] != codec)
        number++;
    return number;
}

const TextCodec *text_codec_of(uint64_t number)
{
    return number < NUM_CODECS ? codecs[number] : NULL;
}

Status text_codec_find(const TextInput *input, const TextCodec **ret, Error *err)
{
    uint8_t head[16] = {0};
    size_t length = input->file_bytes < sizeof head ? (size_t)input->file_bytes : sizeof head;
    TRY(data_file_read(input->file, head, length, 0, err));
    *ret = NULL;
    for (size_t i = 1; i < NUM_CODECS; i++)
        if (codecs[i]->begins(head)) *ret = codecs[i];
    return OK;
}

/* ---- the pass ---- */

Status text_pass_open(const TextInput *input, SidecarWriter *writer, TextPass **ret, Error *err)
{
    TextPass *pass = mem_calloc(1, sizeof *pass);
    pass->input = *input;
    pass->writer = writer;
    Status status = text_codec_find(input, &pass->codec, err);
    if (status == OK && pass->codec != NULL)
        status = text_cutter_open(input, pass->codec, NULL, NULL, &pass->cutter, err);
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
    free(pass->block);
    free(pass);
}

const TextCodec *text_pass_codec(const TextPass *pass)
{
    return pass->codec;
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

Status text_pass_run(TextPass *pass, TakePiece take, void *context, Error *err)
{
    const TextInput *input = &pass->input;
    if (pass->cutter == NULL)
        return turns_read(input->file, input->file_bytes, turns_threads(input->file_bytes), take,
                          context, err);
    TextCut cut = {0};
    for (bool enough = false; !cut.end && !enough;) {
        TRY(text_cutter_next(pass->cutter, &cut, err));
        if (cut.length == 0) continue;
        add_block(pass, &cut);
        TRY(take(context, (const char *)cut.text, cut.length, &enough, err));
    }
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
        sidecar_read_spool(source->sidecar, block->spool_offset, compressed, block->spool_bytes) &&
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
    if (source->codec == NULL) return data_file_read(source->input.file, text, length, begin, err);
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
