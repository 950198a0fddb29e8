/* TextSource: the text of a data file, read at any byte whether the file is compressed or not.
 *
 * Of a compressed file one pass (TextPass) goes through all of it and cuts it into blocks
 * (text_cutter.h), whose windows and copies are kept beside the index; where nothing is kept
 * (somebody only looks at the data), there are no copies. Blocks are decoded whole, compared with
 * their hash and kept in the BlockCache. */
#ifndef TROUPE_DATASET_TEXT_SOURCE_H
#define TROUPE_DATASET_TEXT_SOURCE_H

#include <stdint.h>

#include "base/error.h"
#include "dataset/block_cache.h"
#include "dataset/sidecar.h"
#include "dataset/text_cutter.h"
#include "dataset/turns.h"

/* The codec of an open file, told by how it begins; NULL: plain text, or nothing that is known. */
Status text_codec_find(const TextInput *input, const TextCodec **ret, Error *err);

/* Codecs as they stand in an index; 0 is plain text. */
uint64_t text_codec_number(const TextCodec *codec);
const TextCodec *text_codec_of(uint64_t number); /* of such a number; others are plain text */

typedef struct TextPass TextPass;

/* `writer` takes windows and copies; it and the input's path live as long as the pass. */
Status text_pass_open(const TextInput *input, SidecarWriter *writer, TextPass **ret, Error *err);
/* Gives all of the text to `take`, stretch by stretch (turns.h); once. */
Status text_pass_run(TextPass *pass, TakePiece take, void *context, Error *err);
const TextCodec *text_pass_codec(const TextPass *pass); /* NULL: it is plain */
/* Why the text ends before the file does, in a line; "" when it does not. */
const char *text_pass_damage(const TextPass *pass);
/* All blocks, none of plain text; borrowed until the pass is closed. */
const SeekBlock *text_pass_blocks(const TextPass *pass, uint64_t *ret_count);
void text_pass_close(TextPass *pass); /* accepts NULL */

typedef struct TextSource {
    TextInput input;
    const TextCodec *codec; /* NULL: plain text */
    uint64_t text_bytes;
    const SeekBlock *block; /* [num_blocks] */
    uint64_t num_blocks;
    const Sidecar *sidecar; /* of which windows and copies are read */
    BlockCache *cache;
} TextSource;

/* Reads the text [begin, begin + length), which is inside. Any number of threads. The source stays
 * at its address as long as the cache. */
Status text_source_read(const TextSource *source, uint64_t begin, char *text, size_t length,
                        Error *err);

/* A stretch of a compressed text, and where to begin. */
typedef struct TextStretch {
    const TextInput *input;
    const TextCodec *codec;
    const SeekBlock *from; /* a BLOCK_POINT at or before it */
    const uint8_t *window; /* of that; NULL: it needs none */
    uint64_t begin;        /* of the stretch */
    size_t length;
} TextStretch;

/* Decodes it into `text`, which has room for it; less than that where the text ends, or nothing but
 * damage comes behind it. */
Status text_decode(const TextStretch *stretch, uint8_t *text, size_t *ret_length, Error *err);

#endif
