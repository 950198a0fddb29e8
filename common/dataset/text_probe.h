/* TextProbe: what has to be known of a text file to read it by blocks, without reading all of it: a
 * hash that stands for its content (file_probe.h), how it is compressed, and of compressed text how
 * it is cut into blocks. Kept as a sidecar, so that a later start opens the file and no
 * more. */
#ifndef TROUPE_DATASET_TEXT_PROBE_H
#define TROUPE_DATASET_TEXT_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "dataset/sidecar.h"
#include "dataset/text_codec.h"

#define TEXT_SHARE_UNIT 16u /* of shares of text to compressed bytes */

typedef struct TextProbe {
    uint64_t hash;          /* of the file */
    const TextCodec *codec; /* NULL: plain text */
    uint64_t
        block_bytes; /* of the file, that are cut off as a block, where it is compressed; ... */
    uint64_t share;  /* ... and text that they give, about */
} TextProbe;

/* Whether it is known of a file. */
bool text_probe_known(const SidecarOptions *options);
/* ERR_UNSUPPORTED: what is compressed there is no JSONL (look_alike.h). */
Status text_probe(const TextInput *input, IndexFolder *folder, TextProbe *ret, Error *err);

#endif
