#include "dataset/makes.h"

#include "test.h"

#include <zlib.h>
#include <zstd.h>

#include "base/rng.h"

Str make_text(size_t bytes)
{
    static const char *const words[] = {"apples ", "twelve ", "and ", "\xC3\xA9t\xC3\xA9 ", "42 "};
    Str text = {0};
    for (uint64_t line = 0; text.length < bytes; line++) {
        str_printf(&text, "{\"n\": %llu, \"text\": \"", (unsigned long long)line);
        uint64_t count = rng_below(1, line, line % 50 == 0 ? 1500 : 80);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t noise = rng_mix(line * 4096 + i);
            if (noise % 3 == 0)
                str_printf(&text, "%llx ", (unsigned long long)noise);
            else
                str_puts(&text, words[noise % 5]);
        }
        str_puts(&text, line % 97 == 0 ? "\"}\r\n\n \n" : "\"}\n");
    }
    return text;
}

void gzip_member(Str *out, const char *text, size_t length, const Make *make)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, make->level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    size_t bound = deflateBound(&stream, (uLong)length) + length / 1000 + 4096;
    str_reserve(out, out->length + bound);
    stream.next_out = (Bytef *)out->data + out->length;
    stream.avail_out = (uInt)bound;
    for (size_t at = 0; make->flush != 0 && at + 100000 < length; at += 100000) {
        stream.next_in = (Bytef *)(uintptr_t)text;
        stream.avail_in = 100000;
        assert_int_equal(deflate(&stream, make->flush), Z_OK);
        text += 100000;
    }
    size_t rest = length - stream.total_in;
    stream.next_in = (Bytef *)(uintptr_t)text;
    stream.avail_in = (uInt)rest;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out->length += stream.total_out;
    deflateEnd(&stream);
}

void zstd_frame(Str *out, const char *text, size_t length, const Make *make)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, make->level);
    if (make->padded) str_append(out, "\x51\x2A\x4D\x18\x03\0\0\0abc", 11);
    size_t bound = ZSTD_compressBound(length);
    str_reserve(out, out->length + bound);
    size_t size = ZSTD_compress2(context, out->data + out->length, bound, text, length);
    assert_false(ZSTD_isError(size));
    out->length += size;
    ZSTD_freeCCtx(context);
}

Str compress_text(const Str *text, Member *member, const Make *make)
{
    Str out = {0};
    size_t unit = make->unit > 0 ? make->unit : text->length;
    for (size_t at = 0; at < text->length; at += unit)
        member(&out, text->data + at, text->length - at < unit ? text->length - at : unit, make);
    if (make->padded && member == gzip_member)
        for (int i = 0; i < 100000; i++)
            str_putc(&out, '\0');
    return out;
}
