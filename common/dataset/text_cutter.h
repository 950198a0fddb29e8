/* TextCutter: goes through the text of a compressed file, from its beginning or from a block that
 * is known, and cuts it into blocks of 1 to 2 MiB. A block begins, best, where the codec can begin:
 * gzip between two deflate blocks, with the 32 KiB of text before them, zstd at a frame. Where no
 * such place comes for 2 MiB (a zstd file of one frame has none), a copy of the block's text has to
 * be kept, or the text is decompressed again from the last such place. Where blocks begin depends
 * on the file alone, wherever a cutter began. Belongs to one thread. */
#ifndef TROUPE_DATASET_TEXT_CUTTER_H
#define TROUPE_DATASET_TEXT_CUTTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/text_codec.h"

#define TEXT_CUT_BYTES_MAX (2u << 20)

typedef enum { BLOCK_POINT, BLOCK_COPY, BLOCK_INSIDE } SeekKind;

/* A block, as it stands in files of the index. */
typedef struct SeekBlock {
    uint64_t text_offset;
    uint64_t text_hash;    /* XXH3 of its text */
    uint64_t file_offset;  /* BLOCK_POINT: of the point */
    uint64_t spool_offset; /* of the point's window or the block's copy, compressed with zstd */
    uint32_t spool_bytes;
    uint32_t window_bytes;
    uint8_t kind, bits, unit, unused[5];
} SeekBlock;

typedef struct TextCut {
    SeekBlock block; /* POINT or COPY; its place in a spool is the caller's to fill in, who makes an
                        INSIDE of a COPY that he does not keep */
    uint64_t place;  /* of the file: the deflate or zstd block that gives the text's beginning */
    const uint8_t *text; /* until the next cut, as `keep` is */
    size_t length;       /* 0: there is no more */
    const uint8_t *keep; /* what the block needs beside the file to be decoded by itself ... */
    size_t keep_bytes;   /* ... or 0: nothing */
    bool end;            /* the file ends behind it */
} TextCut;

typedef struct TextCutter TextCutter;

/* `from`: a BLOCK_POINT and its window (NULL: none), which are only read here; NULL: the beginning.
 * The input's path lives as long as the cutter. */
Status text_cutter_open(const TextInput *input, const TextCodec *codec, const SeekBlock *from,
                        const uint8_t *window, TextCutter **ret, Error *err);
void text_cutter_close(TextCutter *cutter); /* accepts NULL */
Status text_cutter_next(TextCutter *cutter, TextCut *ret, Error *err);
/* Why the text ends before the file does, in a line; "" when it does not. */
const char *text_cutter_damage(const TextCutter *cutter);
/* What is to be kept of a cut, compressed; valid until the next call. */
size_t text_cutter_pack(TextCutter *cutter, const TextCut *cut, const uint8_t **ret);
/* Gives back memory that the next cut takes again; its last one is gone then. */
void text_cutter_rest(TextCutter *cutter);

#endif
