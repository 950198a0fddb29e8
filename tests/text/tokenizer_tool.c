/* tokenizer_tool tokenizer.json [--special] [--decode] [--skip-special] [--stream] [--spans]
 * [--no-cache] < texts > ids
 *
 * Standard input: texts, each a little-endian u32 length and that many bytes. Standard output, for
 * each text: u32 count, then per token an i32 id (and with --spans u32 begin and end). With
 * --decode the ids are decoded again and u32 length and the decoded bytes follow; with --stream the
 * program fails where decoding the ids one by one gives another text, or a part of a character. A
 * text that cannot be encoded gives the count 0xFFFFFFFF. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"

typedef struct Options {
    bool special, decode, skip_special, stream, spans, cache;
} Options;

static void write_u32(uint32_t value)
{
    fwrite(&value, sizeof value, 1, stdout);
}

static int fail(const Error *err)
{
    fprintf(stderr, "tokenizer_tool: %s\n", err->message);
    return 1;
}

/* Appends a piece that the stream gave out: whole characters. */
static Status append_piece(Str *joined, char *piece, size_t length, Error *err)
{
    Status status = OK;
    if (utf8_valid_prefix(piece, length) < length)
        status = error_set(err, ERR_DATA, "the stream gave out a part of a character");
    str_append(joined, piece, length);
    free(piece);
    return status;
}

static Status check_stream(const Tokenizer *tokenizer, const Options *options, const int32_t *ids,
                           size_t count, const char *text, size_t length, Error *err)
{
    DecodeStream *stream = decode_stream_create(tokenizer, options->skip_special);
    Str joined = {0};
    Status status = OK;
    for (size_t i = 0; i <= count && status == OK; i++) {
        char *piece = NULL;
        size_t size = 0;
        status = i < count ? decode_stream_step(stream, ids[i], &piece, &size, err)
                           : decode_stream_finish(stream, &piece, &size, err);
        if (status == OK) status = append_piece(&joined, piece, size, err);
    }
    size_t at = 0;
    while (at < length && at < joined.length && joined.data[at] == text[at])
        at++;
    if (status == OK && (at < length || at < joined.length))
        status = error_set(err, ERR_DATA, "the stream gave \"%.60s\" for \"%.60s\" at byte %zu",
                           str_text(&joined) + at, text + at, at);
    str_free(&joined);
    decode_stream_destroy(stream);
    return status;
}

static Status run_text(const Tokenizer *tokenizer, TokenizerCache *cache, const Options *options,
                       const char *text, size_t length, Error *err)
{
    Encoding encoding = {0};
    Status status =
        tokenizer_encode(tokenizer, cache, text, length, NULL, options->special, &encoding, err);
    if (status != OK) {
        fprintf(stderr, "tokenizer_tool: %s\n", err->message);
        write_u32(UINT32_MAX);
        return OK;
    }
    int32_t *ids = mem_calloc(encoding.length + 1, sizeof *ids);
    write_u32((uint32_t)encoding.length);
    for (size_t i = 0; i < encoding.length; i++)
        ids[i] = encoding.span[i].id;
    if (options->spans)
        fwrite(encoding.span, sizeof *encoding.span, encoding.length, stdout);
    else
        fwrite(ids, sizeof *ids, encoding.length, stdout);
    if (options->decode) {
        char *decoded = NULL;
        size_t decoded_length = 0;
        status = tokenizer_decode(tokenizer, ids, encoding.length, options->skip_special, &decoded,
                                  &decoded_length, err);
        if (status == OK) {
            write_u32((uint32_t)decoded_length);
            fwrite(decoded, 1, decoded_length, stdout);
            if (options->stream)
                status = check_stream(tokenizer, options, ids, encoding.length, decoded,
                                      decoded_length, err);
            free(decoded);
        }
    }
    free(ids);
    encoding_free(&encoding);
    return status;
}

int main(int argc, char **argv)
{
    Options options = {.cache = true};
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--special") == 0)
            options.special = true;
        else if (strcmp(argv[i], "--decode") == 0)
            options.decode = true;
        else if (strcmp(argv[i], "--skip-special") == 0)
            options.skip_special = true;
        else if (strcmp(argv[i], "--stream") == 0)
            options.stream = true;
        else if (strcmp(argv[i], "--spans") == 0)
            options.spans = true;
        else if (strcmp(argv[i], "--no-cache") == 0)
            options.cache = false;
        else
            path = argv[i];
    }
    if (path == NULL) {
        fprintf(stderr, "usage: tokenizer_tool tokenizer.json [--special] [--decode] "
                        "[--skip-special] [--stream] [--spans] [--no-cache]\n");
        return 2;
    }
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    if (tokenizer_load(path, &tokenizer, &err) != OK) return fail(&err);
    TokenizerCache *cache = options.cache ? tokenizer_cache_create(tokenizer, 8u << 20) : NULL;
    uint32_t length;
    Status status = OK;
    while (status == OK && fread(&length, sizeof length, 1, stdin) == 1) {
        char *text = mem_alloc((size_t)length + 1);
        if (fread(text, 1, length, stdin) != length) {
            fprintf(stderr, "tokenizer_tool: the input ends inside a text\n");
            free(text);
            break;
        }
        status = run_text(tokenizer, cache, &options, text, length, &err);
        free(text);
    }
    tokenizer_cache_destroy(cache);
    tokenizer_destroy(tokenizer);
    return status == OK ? 0 : fail(&err);
}
