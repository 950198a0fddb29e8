#include "dataset/text_cutter.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "base/memory.h"
#include "dataset/content_hash.h"

#define CUT_BYTES_MIN (1u << 20)
#define PACK_LEVEL    1 /* of zstd: as fast as it gets */

struct TextCutter {
    const TextCodec *codec;
    TextDecoder *decoder;
    uint64_t at;     /* text given so far */
    bool at_point;   /* the next block begins at `start` */
    SeekBlock start; /* whose window is in `window[side]` */
    bool ended;
    char *damage; /* or NULL */
    int side;
    uint8_t window[2][CODEC_WINDOW_BYTES]; /* that of the last cut, and of the next */
    uint8_t *text;                         /* [TEXT_CUT_BYTES_MAX]; NULL while it rests */
    ZSTD_CCtx *compressor;
    uint8_t *packed; /* [ZSTD_compressBound(TEXT_CUT_BYTES_MAX)] */
};

Status text_cutter_open(const TextInput *input, const TextCodec *codec, const SeekBlock *from,
                        const uint8_t *window, TextCutter **ret, Error *err)
{
    ResumePoint begin = {.unit = true};
    TextCutter *cutter = mem_calloc(1, sizeof *cutter);
    cutter->codec = codec;
    cutter->at_point = true;
    cutter->start = (SeekBlock){.kind = BLOCK_POINT, .unit = true};
    if (from != NULL) {
        CHECK(from->kind == BLOCK_POINT && from->window_bytes <= CODEC_WINDOW_BYTES);
        begin = (ResumePoint){from->file_offset, from->window_bytes, from->bits, from->unit != 0};
        cutter->start = *from;
        cutter->at = from->text_offset;
        if (from->window_bytes > 0) memcpy(cutter->window[0], window, from->window_bytes);
    }
    Status status = codec->open(input, &begin, window, &cutter->decoder, err);
    if (status == OK) {
        *ret = cutter;
        cutter = NULL;
    }
    text_cutter_close(cutter);
    return status;
}

void text_cutter_rest(TextCutter *cutter)
{
    ZSTD_freeCCtx(cutter->compressor);
    free(cutter->packed);
    free(cutter->text);
    cutter->compressor = NULL;
    cutter->packed = NULL;
    cutter->text = NULL;
}

void text_cutter_close(TextCutter *cutter)
{
    if (cutter == NULL) return;
    text_cutter_rest(cutter);
    cutter->codec->close(cutter->decoder);
    free(cutter->damage);
    free(cutter);
}

const char *text_cutter_damage(const TextCutter *cutter)
{
    return cutter->damage != NULL ? cutter->damage : "";
}

/* The decoder could begin here: the next block does. */
static void start_at_point(TextCutter *cutter)
{
    ResumePoint point;
    cutter->side = !cutter->side;
    cutter->codec->point(cutter->decoder, &point, cutter->window[cutter->side]);
    cutter->start = (SeekBlock){.kind = BLOCK_POINT,
                                .file_offset = point.file_offset,
                                .window_bytes = point.window_bytes,
                                .bits = point.bits,
                                .unit = point.unit};
    cutter->at_point = true;
}

static void describe(const TextCutter *cutter, size_t length, TextCut *cut)
{
    cut->text = cutter->text;
    cut->length = length;
    if (cutter->at_point) {
        cut->block = cutter->start;
        cut->keep_bytes = cutter->start.window_bytes;
        cut->keep = cutter->window[cutter->side];
    } else {
        cut->block.kind = BLOCK_COPY;
        cut->keep_bytes = length;
        cut->keep = cutter->text;
    }
    cut->block.text_offset = cutter->at;
    cut->block.text_hash = XXH3_64bits(cutter->text, length);
}

Status text_cutter_next(TextCutter *cutter, TextCut *ret, Error *err)
{
    TextCut cut = {.end = true};
    if (cutter->text == NULL) cutter->text = mem_alloc(TEXT_CUT_BYTES_MAX);
    cut.place = cutter->codec->place(cutter->decoder);
    size_t length = 0;
    TextChunk chunk = {.end = cutter->ended};
    while (length < TEXT_CUT_BYTES_MAX && !chunk.end && !(chunk.point && length >= CUT_BYTES_MIN)) {
        Error damage = {0};
        Status status = cutter->codec->step(cutter->decoder, cutter->text + length,
                                            TEXT_CUT_BYTES_MAX - length, &chunk, &damage);
        if (status != OK) {
            *err = damage;
            return status;
        }
        if (chunk.damaged) cutter->damage = mem_strdup(damage.message);
        length += chunk.length;
    }
    if (length > 0) {
        describe(cutter, length, &cut);
        cutter->at_point = false;
    }
    if (chunk.point && !chunk.end) start_at_point(cutter);
    cutter->at += length;
    cutter->ended = cut.end = chunk.end;
    *ret = cut;
    return OK;
}

size_t text_cutter_pack(TextCutter *cutter, const TextCut *cut, const uint8_t **ret)
{
    size_t bound = ZSTD_compressBound(TEXT_CUT_BYTES_MAX);
    if (cutter->compressor == NULL) {
        cutter->compressor = ZSTD_createCCtx();
        cutter->packed = mem_alloc(bound);
        CHECK(cutter->compressor != NULL);
    }
    size_t size = ZSTD_compressCCtx(cutter->compressor, cutter->packed, bound, cut->keep,
                                    cut->keep_bytes, PACK_LEVEL);
    CHECK(!ZSTD_isError(size));
    *ret = cutter->packed;
    return size;
}
