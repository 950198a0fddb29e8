/* zstd (RFC 8878): frames one after another, among them such as are passed over (the seek table of
 * the seekable format is one). Decoding can begin at a frame and nowhere inside it. */
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/memory.h"
#include "dataset/text_codec.h"

#define INPUT_BYTES (128u << 10)

struct TextDecoder {
    TextInput input;
    uint64_t file_at; /* of the first byte that is not in `buffer` */
    uint64_t frame;   /* where the frame in work begins */
    uint64_t place;   /* the same of the block in work, or of the frame before its first one */
    uint64_t stop; /* where it ends: the decoder is not shown more before it has given its text */
    bool last;     /* no block comes behind it in the frame */
    ZSTD_DCtx *context;
    ZSTD_inBuffer in;
    bool between; /* before a frame: at its header, or at the end of the file */
    uint8_t buffer[INPUT_BYTES];
};

/* A frame, or one of those that are passed over. */
static bool zstd_begins(const uint8_t head[16])
{
    bool skipped = (head[0] & 0xF0) == 0x50 && memcmp(head + 1, "\x2A\x4D\x18", 3) == 0;
    return skipped || memcmp(head, "\x28\xB5\x2F\xFD", 4) == 0;
}

static void zstd_close(TextDecoder *decoder)
{
    if (decoder == NULL) return;
    ZSTD_freeDCtx(decoder->context);
    free(decoder);
}

static Status zstd_open(const TextInput *input, const ResumePoint *from, const uint8_t *window,
                        TextDecoder **ret, Error *err)
{
    (void)window;
    CHECK(from->unit);
    TextDecoder *decoder = mem_alloc(sizeof *decoder);
    memset(decoder, 0, offsetof(TextDecoder, buffer));
    decoder->input = *input;
    decoder->file_at = decoder->frame = decoder->place = from->file_offset;
    decoder->between = true;
    decoder->context = ZSTD_createDCtx();
    decoder->in.src = decoder->buffer;
    if (decoder->context == NULL) {
        zstd_close(decoder);
        return error_set(err, ERR_RESOURCE, "no memory to decompress %s", input->path);
    }
    *ret = decoder;
    return OK;
}

static uint64_t offset_of(const TextDecoder *decoder)
{
    return decoder->file_at - (decoder->in.size - decoder->in.pos);
}

/* Reads on when nothing is left in the buffer; nothing then: the end of the file. */
static Status refill(TextDecoder *decoder, Error *err)
{
    const TextInput *input = &decoder->input;
    if (decoder->in.pos < decoder->in.size) return OK;
    uint64_t left = input->file_bytes - decoder->file_at;
    size_t length = left < INPUT_BYTES ? (size_t)left : INPUT_BYTES;
    TRY(data_file_read(input->file, decoder->buffer, length, decoder->file_at, err));
    decoder->file_at += length;
    decoder->in.size = length;
    decoder->in.pos = 0;
    return OK;
}

static void set_damage(TextDecoder *decoder, TextChunk *ret, const char *what, Error *err)
{
    ret->damaged = ret->end = true;
    error_set(err, ERR_DATA, "%s at byte %llu of the file, in the zstd frame that begins at %llu",
              what, (unsigned long long)offset_of(decoder), (unsigned long long)decoder->frame);
}

static void describe(TextDecoder *decoder, size_t code, TextChunk *ret, Error *err)
{
    char *what = mem_printf("the compressed data are damaged (%s)", ZSTD_getErrorName(code));
    set_damage(decoder, ret, what, err);
    free(what);
}

/* A few bytes of the file, wherever they are; *ret_whole: they are all there. */
static Status peek(const TextDecoder *decoder, uint64_t offset, uint8_t *bytes, size_t length,
                   bool *ret_whole, Error *err)
{
    const TextInput *input = &decoder->input;
    *ret_whole = offset < input->file_bytes && length <= input->file_bytes - offset;
    if (!*ret_whole) return OK;
    return data_file_read(input->file, bytes, length, offset, err);
}

/* Where the header of the frame ends (section 3.1.1.1), or all of one that is passed over. What is
 * no header is left to the decoder. */
static Status begin_frame(TextDecoder *decoder, Error *err)
{
    static const uint8_t id_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
    uint8_t head[8] = {0};
    bool whole;
    decoder->frame = decoder->place = offset_of(decoder);
    decoder->stop = UINT64_MAX;
    decoder->last = false;
    TRY(peek(decoder, decoder->frame, head, 5, &whole, err));
    if (!whole || memcmp(head, "\x28\xB5\x2F\xFD", 4) != 0) return OK;
    bool single = (head[4] & 0x20) != 0;
    size_t size = size_bytes[head[4] >> 6];
    if (single && size == 0) size = 1;
    decoder->stop = decoder->frame + 5 + !single + id_bytes[head[4] & 3] + size;
    return OK;
}

/* All text up to `stop` is given: the next block, by its header (section 3.1.1.2). */
static Status begin_block(TextDecoder *decoder, Error *err)
{
    uint8_t head[3] = {0};
    bool whole;
    uint64_t at = decoder->stop;
    decoder->stop = UINT64_MAX;
    if (decoder->last) return OK; /* a checksum may follow */
    TRY(peek(decoder, at, head, sizeof head, &whole, err));
    if (!whole) return OK;
    uint32_t value = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16;
    bool repeated = (value >> 1 & 3) == 1; /* one byte stands for all of the text */
    decoder->place = at;
    decoder->last = (value & 1) != 0;
    decoder->stop = at + sizeof head + (repeated ? 1 : value >> 3);
    return OK;
}

/* Shows the decoder what is there up to the block's end. */
static size_t decompress(TextDecoder *decoder, ZSTD_outBuffer *out)
{
    uint64_t begin = decoder->file_at - decoder->in.size;
    ZSTD_inBuffer in = decoder->in;
    if (decoder->stop - begin < in.size) in.size = (size_t)(decoder->stop - begin);
    size_t code = ZSTD_decompressStream(decoder->context, out, &in);
    decoder->in.pos = in.pos;
    return code;
}

static Status zstd_step(TextDecoder *decoder, uint8_t *text, size_t size, TextChunk *ret,
                        Error *err)
{
    *ret = (TextChunk){0};
    ZSTD_outBuffer out = {text, size, 0};
    while (out.pos < size && !ret->end && !ret->point) {
        TRY(refill(decoder, err));
        bool last = decoder->in.size == 0;
        if (last && decoder->between) {
            ret->end = true;
            break;
        }
        if (decoder->between) TRY(begin_frame(decoder, err));
        size_t before = out.pos;
        size_t code = decompress(decoder, &out);
        decoder->between = code == 0;
        if (ZSTD_isError(code))
            describe(decoder, code, ret, err);
        else if (code == 0)
            ret->point = true;
        else if (offset_of(decoder) == decoder->stop && out.pos < size)
            TRY(begin_block(decoder, err));
        else if (last && out.pos == before)
            set_damage(decoder, ret, "the file ends too early,", err);
        if (ret->point) decoder->place = offset_of(decoder);
    }
    ret->length = out.pos;
    return OK;
}

static void zstd_point(TextDecoder *decoder, ResumePoint *ret, uint8_t *window)
{
    (void)window;
    *ret = (ResumePoint){.file_offset = offset_of(decoder), .unit = true};
}

static uint64_t zstd_place(const TextDecoder *decoder)
{
    return decoder->place;
}

const TextCodec text_codec_zstd = {
    .name = "zstd",
    .begins = zstd_begins,
    .open = zstd_open,
    .step = zstd_step,
    .point = zstd_point,
    .place = zstd_place,
    .close = zstd_close,
};
