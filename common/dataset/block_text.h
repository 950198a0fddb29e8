/* BlockText: the lines of a plain JSONL file without an index of all of it. The file is cut into
 * blocks of TEXT_BLOCK_BYTES; a line belongs to the block in which it begins. How many records a
 * block has is known once somebody has counted them, each block by itself and in any order, and
 * where its lines begin is found when one of them is read. Blank lines and a byte order mark are no
 * records, as in index.h.
 *
 * What was counted is kept in a table in the index folder, 24 bytes a block, which is found again
 * by the probe of the file (file_probe.h), so it serves a copy of the file, too. Of a file of a few
 * blocks it is written once all of them are counted, together with those of other files
 * (index_folder.h); larger ones have a table of their own, written block by block. With each count
 * goes the hash of the block's bytes, which is compared whenever the block is read again: a file
 * that was changed where the probe does not look is noticed there, and named. Const but for what is
 * counted; any thread. */
#ifndef TROUPE_DATASET_BLOCK_TEXT_H
#define TROUPE_DATASET_BLOCK_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/block_cache.h"
#include "dataset/text_probe.h"

#define TEXT_BLOCK_BYTES (2u << 20)

typedef struct BlockText BlockText;

typedef struct BlockTextOptions {
    const char *path;    /* of the folder of the table; NULL: it is kept in memory */
    bool read_only;      /* a table that is there is used, none is written */
    IndexFolder *folder; /* the same, where small ones are; borrowed, as the cache is */
    BlockCache *cache;   /* of where lines begin */
} BlockTextOptions;

/* `input` is borrowed, its file for the text's life; the probe is that of the file. */
BlockText *block_text_open(const TextInput *input, const TextProbe *probe,
                           const BlockTextOptions *options);
void block_text_close(BlockText *text); /* accepts NULL */

uint64_t block_text_probe(const BlockText *text);
bool block_text_reused(const BlockText *text); /* some of it was counted before */
/* Why the table could not be kept, or NULL; borrowed. */
const char *block_text_warning(const BlockText *text);

uint64_t block_text_num_blocks(const BlockText *text);
uint64_t block_text_bytes(const BlockText *text, uint64_t block);
/* Whether the records of a block are counted. */
bool block_text_counted(const BlockText *text, uint64_t block, uint64_t *ret_records);
/* Counts them, reading the block. */
Status block_text_count(BlockText *text, uint64_t block, Error *err);
/* Tells the system that it will be read soon. */
void block_text_prefetch(const BlockText *text, uint64_t block);

/* Where a line stands. */
typedef struct BlockLine {
    uint64_t begin, end; /* bytes of the file; blank lines may follow in it, and the line end */
    uint64_t line;       /* from 1; 0: not known while blocks before it are not counted */
} BlockLine;

/* Record `record` of a block that is counted. */
Status block_text_line(BlockText *text, uint64_t block, uint64_t record, BlockLine *ret,
                       Error *err);

#endif
