/* gzip (RFC 1952): members of deflate (RFC 1951) one after another. Decoding can begin between any
 * two deflate blocks when the 32 KiB of text before are known; the idea is that of zlib's example
 * zran.c. */
#include <stdlib.h>
#include <string.h>

#define ZLIB_CONST
#include <zlib.h>

#include "base/memory.h"
#include "dataset/text_codec.h"

#define INPUT_BYTES   (64u << 10)
#define GZIP_BITS     (15 + 16) /* for zlib: with a gzip header */
#define RAW_BITS      (-15)
#define TRAILER_BYTES 8 /* of a member: checksum and length */

struct TextDecoder {
    TextInput input;
    uint64_t file_at; /* of the first byte that is not in `buffer` */
    uint64_t member;  /* where the member in work begins, or the point that was begun at */
    uint64_t place;   /* the same of the deflate block */
    z_stream stream;
    bool raw;     /* begun inside a member: zlib sees no header and checks no sum */
    bool between; /* before a member: at its header, or at the end of the file */
    uint8_t buffer[INPUT_BYTES];
};

static bool gzip_begins(const uint8_t head[16])
{
    return head[0] == 0x1F && head[1] == 0x8B && head[2] == 8;
}

static void gzip_close(TextDecoder *decoder)
{
    if (decoder == NULL) return;
    inflateEnd(&decoder->stream);
    free(decoder);
}

static uint64_t offset_of(const TextDecoder *decoder)
{
    return decoder->file_at - decoder->stream.avail_in;
}

static Status gzip_open(const TextInput *input, const ResumePoint *from, const uint8_t *window,
                        TextDecoder **ret, Error *err)
{
    TextDecoder *decoder = mem_alloc(sizeof *decoder);
    memset(decoder, 0, offsetof(TextDecoder, buffer));
    decoder->input = *input;
    decoder->file_at = decoder->member = decoder->place = from->file_offset;
    decoder->raw = !from->unit;
    decoder->between = from->unit;
    Status status = OK;
    if (inflateInit2(&decoder->stream, decoder->raw ? RAW_BITS : GZIP_BITS) != Z_OK)
        status = error_set(err, ERR_RESOURCE, "no memory to decompress %s", input->path);
    if (status == OK && decoder->raw && from->bits > 0) {
        uint8_t byte = 0;
        status = data_file_read(input->file, &byte, 1, from->file_offset - 1, err);
        if (status == OK) inflatePrime(&decoder->stream, from->bits, byte >> (8 - from->bits));
    }
    if (status == OK && window != NULL)
        inflateSetDictionary(&decoder->stream, window, from->window_bytes);
    if (status == OK) {
        *ret = decoder;
        decoder = NULL;
    }
    gzip_close(decoder);
    return status;
}

/* Reads on when nothing is left in the buffer; nothing then: the end of the file. */
static Status refill(TextDecoder *decoder, Error *err)
{
    const TextInput *input = &decoder->input;
    if (decoder->stream.avail_in > 0) return OK;
    uint64_t left = input->file_bytes - decoder->file_at;
    size_t length = left < INPUT_BYTES ? (size_t)left : INPUT_BYTES;
    TRY(data_file_read(input->file, decoder->buffer, length, decoder->file_at, err));
    decoder->file_at += length;
    decoder->stream.next_in = decoder->buffer;
    decoder->stream.avail_in = (uInt)length;
    return OK;
}

static void set_damage(TextDecoder *decoder, TextChunk *ret, const char *what, uint64_t offset,
                       Error *err)
{
    ret->damaged = ret->end = true;
    error_set(err, ERR_DATA, "%s at byte %llu of the file, in the gzip member that begins at %llu",
              what, (unsigned long long)offset, (unsigned long long)decoder->member);
}

/* Passes over `length` bytes of the file; false at its end. */
static Status skip(TextDecoder *decoder, size_t length, bool *ret_whole, Error *err)
{
    z_stream *stream = &decoder->stream;
    while (length > 0) {
        TRY(refill(decoder, err));
        if (stream->avail_in == 0) break;
        size_t step = length < stream->avail_in ? length : stream->avail_in;
        stream->next_in += step;
        stream->avail_in -= (uInt)step;
        length -= step;
    }
    *ret_whole = length == 0;
    return OK;
}

/* Between members: is there another one? Zeros may pad the file (tapes, block devices), as gzip
 * itself has it. */
static Status begin_member(TextDecoder *decoder, TextChunk *ret, Error *err)
{
    z_stream *stream = &decoder->stream;
    TRY(refill(decoder, err));
    uint64_t begin = offset_of(decoder);
    while (stream->avail_in > 0 && *stream->next_in == 0) {
        bool whole;
        TRY(skip(decoder, 1, &whole, err));
        TRY(refill(decoder, err));
    }
    if (stream->avail_in == 0) {
        ret->end = true;
    } else if (offset_of(decoder) != begin || *stream->next_in != 0x1F) {
        set_damage(decoder, ret, "something that is not gzip begins", offset_of(decoder), err);
    } else {
        decoder->member = begin;
        decoder->between = false;
        decoder->raw = false;
        inflateReset2(stream, GZIP_BITS);
    }
    return OK;
}

static Status end_member(TextDecoder *decoder, TextChunk *ret, Error *err)
{
    bool whole = true;
    if (decoder->raw) TRY(skip(decoder, TRAILER_BYTES, &whole, err));
    decoder->between = true;
    ret->point = true;
    if (!whole) set_damage(decoder, ret, "the file ends too early,", offset_of(decoder), err);
    return OK;
}

/* "incorrect data check" is zlib's word for a wrong checksum. */
static const char *describe(const z_stream *stream)
{
    const char *text = stream->msg;
    if (text == NULL) return "the compressed data are damaged";
    if (strcmp(text, "incorrect data check") == 0 || strcmp(text, "incorrect length check") == 0)
        return "the text before is not what was compressed: the checksum differs";
    return "the compressed data are damaged";
}

static Status gzip_step(TextDecoder *decoder, uint8_t *text, size_t size, TextChunk *ret,
                        Error *err)
{
    z_stream *stream = &decoder->stream;
    *ret = (TextChunk){0};
    stream->next_out = text;
    stream->avail_out = (uInt)size;
    while (stream->avail_out > 0 && !ret->end && !ret->point) {
        if (decoder->between) {
            TRY(begin_member(decoder, ret, err));
            continue;
        }
        TRY(refill(decoder, err));
        bool last = stream->avail_in == 0;
        int code = inflate(stream, Z_BLOCK);
        if (code == Z_STREAM_END)
            TRY(end_member(decoder, ret, err));
        else if (code == Z_BUF_ERROR && last)
            set_damage(decoder, ret, "the file ends too early,", offset_of(decoder), err);
        else if (code != Z_OK && code != Z_BUF_ERROR)
            set_damage(decoder, ret, describe(stream), offset_of(decoder), err);
        else if ((stream->data_type & 128) != 0 && (stream->data_type & 64) == 0)
            ret->point = true;
    }
    if (ret->point) decoder->place = offset_of(decoder);
    ret->length = size - stream->avail_out;
    return OK;
}

static void gzip_point(TextDecoder *decoder, ResumePoint *ret, uint8_t *window)
{
    *ret = (ResumePoint){.file_offset = offset_of(decoder), .unit = decoder->between};
    if (decoder->between) return;
    uInt length = 0;
    inflateGetDictionary(&decoder->stream, window, &length);
    ret->window_bytes = length;
    ret->bits = (uint8_t)(decoder->stream.data_type & 7);
}

static uint64_t gzip_place(const TextDecoder *decoder)
{
    return decoder->place;
}

const TextCodec text_codec_gzip = {
    .name = "gzip",
    .begins = gzip_begins,
    .open = gzip_open,
    .step = gzip_step,
    .point = gzip_point,
    .place = gzip_place,
    .close = gzip_close,
};
