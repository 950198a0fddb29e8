/* zstd (RFC 8878): frames one after another, among them such as are passed over (the seek table of
 * the seekable format is one). Decoding can begin at a frame and nowhere inside it. */
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/text_codec.h"

#define INPUT_BYTES (128u << 10)

struct TextDecoder {
    TextInput input;
    uint64_t file_at; /* of the first byte that is not in `buffer` */
    uint64_t frame;   /* where the frame in work begins */
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
    decoder->file_at = decoder->frame = from->file_offset;
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
    TRY(file_read_at(input->fd, decoder->buffer, length, (int64_t)decoder->file_at, input->path,
                     err));
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
        if (decoder->between) decoder->frame = offset_of(decoder);
        size_t before = out.pos;
        size_t code = ZSTD_decompressStream(decoder->context, &out, &decoder->in);
        decoder->between = code == 0;
        if (ZSTD_isError(code))
            describe(decoder, code, ret, err);
        else if (code == 0)
            ret->point = true;
        else if (last && out.pos == before)
            set_damage(decoder, ret, "the file ends too early,", err);
    }
    ret->length = out.pos;
    return OK;
}

static void zstd_point(TextDecoder *decoder, ResumePoint *ret, uint8_t *window)
{
    (void)window;
    *ret = (ResumePoint){.file_offset = offset_of(decoder), .unit = true};
}

const TextCodec text_codec_zstd = {
    .name = "zstd",
    .begins = zstd_begins,
    .open = zstd_open,
    .step = zstd_step,
    .point = zstd_point,
    .close = zstd_close,
};
