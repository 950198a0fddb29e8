/* PackedText: the lines of a compressed JSONL file without an index of all of it: what BlockText is
 * for plain text (block_text.h), and used like it. The file is cut into blocks of as many
 * compressed bytes as give about TEXT_BLOCK_BYTES of text, as far as its beginning tells; a record
 * belongs to the block from which its text comes.
 *
 * Compressed text can only be read from the beginning: blocks are counted in their order, whichever
 * is asked for, by one pass, which goes on from call to call. On its way it cuts the text into
 * pieces of 1 to 2 MiB (text_cutter.h) and keeps, in a PackedLog, how each is decoded by itself,
 * with the hash of its text, which is compared whenever it is decoded again. So what was once
 * counted can be read anywhere, by any thread, in this run and later ones. Where nothing can be
 * kept, the text of a zstd frame is decompressed from the frame's beginning for each of its pieces.
 * Const but for what is counted; any thread. */
#ifndef TROUPE_DATASET_PACKED_TEXT_H
#define TROUPE_DATASET_PACKED_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/block_cache.h"
#include "dataset/text_probe.h"

typedef struct PackedText PackedText;

typedef struct PackedTextOptions {
    const char *path;    /* of the folder of the log; NULL: it is kept in memory */
    bool read_only;      /* a log that is there is used, none is written */
    IndexFolder *folder; /* the same, where small ones are; borrowed */
    BlockCache *cache;   /* of decoded pieces; borrowed */
    ReadWatch *watch;    /* ends the counting, and sees that it goes on; borrowed; or NULL */
} PackedTextOptions;

/* `input` is borrowed, its file for the text's life; the probe is that of the file. */
PackedText *packed_text_open(const TextInput *input, const TextProbe *probe,
                             const PackedTextOptions *options);
void packed_text_close(PackedText *text); /* accepts NULL; nobody counts any more */

/* Of the file, and of how it is cut. */
uint64_t packed_text_probe(const PackedText *text);
bool packed_text_reused(const PackedText *text); /* some of it was counted before */
/* Why the log could not be kept, or NULL; borrowed. */
const char *packed_text_warning(const PackedText *text);

uint64_t packed_text_num_blocks(const PackedText *text);
uint64_t packed_text_bytes(const PackedText *text, uint64_t block); /* of text, about */
bool packed_text_counted(PackedText *text, uint64_t block, uint64_t *ret_records);
/* Counts it, and all blocks before it. */
Status packed_text_count(PackedText *text, uint64_t block, Error *err);
/* Ends the counting, for good: with ERR_CANCELLED. */
void packed_text_stop(PackedText *text);
/* Tells the system that it will be read soon. */
void packed_text_prefetch(const PackedText *text, uint64_t block);

/* Where a record stands: [begin, end) of the text, with what belongs to its line; blank lines may
 * follow. */
typedef struct PackedLine {
    uint64_t begin, end;
    uint64_t line;      /* from 1 */
    uint64_t records;   /* of the file before it */
    const char *damage; /* why it, the last one, cannot be read, in a line; else "" */
} PackedLine;

/* Record `record` of a block that is counted. */
Status packed_text_line(PackedText *text, uint64_t block, uint64_t record, PackedLine *ret,
                        Error *err);
/* Text of blocks that are counted, and of lines that begin in them. */
Status packed_text_read(PackedText *text, uint64_t begin, char *bytes, size_t length, Error *err);

#endif
