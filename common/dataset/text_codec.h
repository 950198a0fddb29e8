/* TextCodec: a way in which the text of a data file is compressed, and decoders that go through it
 * from its beginning or from a place that an earlier pass has found. Zlib and libzstd do the work.
 * A decoder belongs to one thread. */
#ifndef TROUPE_DATASET_TEXT_CODEC_H
#define TROUPE_DATASET_TEXT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/file_pool.h"
#include "dataset/watch.h"

#define CODEC_WINDOW_BYTES (32u << 10) /* the longest that a codec asks for */

/* A place in a compressed file at which decoding can begin. */
typedef struct ResumePoint {
    uint64_t file_offset;  /* of the first byte that is needed; of a bit inside: of the next byte */
    uint32_t window_bytes; /* text before the point that a decoder must know; 0: none */
    uint8_t bits;          /* of the byte before file_offset that belong to what follows */
    bool unit; /* a compressed unit (gzip member, zstd frame) begins here, header and all */
} ResumePoint;

typedef struct TextInput {
    DataFile *file;   /* borrowed, and so is ... */
    const char *path; /* ... its path */
    uint64_t file_bytes;
    ReadWatch *watch; /* of a pass over plain text: how far it is; or NULL */
} TextInput;

/* What a step of a decoder gave. */
typedef struct TextChunk {
    size_t length; /* of text; 0 at the end */
    bool point;    /* a decoder could begin behind this text: ask `point` for it */
    bool end;      /* the file ends here */
    bool damaged;  /* it cannot be read any further, and the Error says why in one line */
} TextChunk;

typedef struct TextDecoder TextDecoder;

typedef struct TextCodec {
    const char *name;                       /* "gzip" */
    bool (*begins)(const uint8_t head[16]); /* whether a file begins like this */
    /* Begins at `from`, whose window (NULL: none) is only read here. */
    Status (*open)(const TextInput *input, const ResumePoint *from, const uint8_t *window,
                   TextDecoder **ret, Error *err);
    /* Appends up to `size` bytes of text. It fails only where the file cannot be read at all: what
     * is wrong with its content is told in *ret, and *err has the reason. */
    Status (*step)(TextDecoder *decoder, uint8_t *text, size_t size, TextChunk *ret, Error *err);
    /* The point behind the last step; `window` has room for CODEC_WINDOW_BYTES. */
    void (*point)(TextDecoder *decoder, ResumePoint *ret, uint8_t *window);
    /* The byte of the file at which the compressed block begins that gives what comes behind the
     * last step, or the one before it where that one ends just there. */
    uint64_t (*place)(const TextDecoder *decoder);
    void (*close)(TextDecoder *decoder); /* accepts NULL */
} TextCodec;

extern const TextCodec text_codec_gzip, text_codec_zstd;

#endif
