/* LineIndex: where each record of a JSONL text begins, found in one pass over the file and then
 * mapped into memory: 8 bytes per record, and 16 for each run of blank lines. Blank lines (nothing
 * but spaces, tabs and carriage returns) and a byte order mark are no records. The same pass takes
 * a hash of the whole text, and of a compressed file the table of its blocks (text_source.h). What
 * cannot be read behind a damage of a compressed file is one record more, the last.
 *
 * The index is kept as a Sidecar. Const once opened; any thread. */
#ifndef TROUPE_DATASET_INDEX_H
#define TROUPE_DATASET_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/sidecar.h"
#include "dataset/text_source.h"
#include "dataset/watch.h"

typedef struct LineIndex LineIndex;

typedef struct LineIndexSummary {
    uint64_t records;
    uint64_t content_hash; /* XXH3 of all of the text */
    uint64_t text_bytes;   /* decompressed */
    bool reused;           /* taken from the sidecar */
    bool whole; /* all of the text was read; else `content_hash` and `text_bytes` are of its
                   beginning */
    const char
        *damage; /* why the last record cannot be read, in a line; "" when it can; borrowed */
    const char *warning; /* why the sidecar could not be written, or NULL; borrowed */
} LineIndexSummary;

typedef struct LineIndexOptions {
    const char *folder;   /* where sidecars are, created when missing; NULL: nowhere */
    bool read_only;       /* a sidecar that is there is used, none is written */
    bool by_checksum;     /* as of SidecarOptions */
    uint64_t records_max; /* without a sidecar, no more is read than so many take; 0: all. Needs
                           * read_only where there is a folder */
    ReadWatch *watch;     /* NULL: nobody watches */
} LineIndexOptions;

/* Indexes an open file (borrowed), blocking for as long as reading it takes. */
Status line_index_open(const TextInput *input, const LineIndexOptions *options, LineIndex **ret,
                       Error *err);
void line_index_close(LineIndex *index); /* accepts NULL */

LineIndexSummary line_index_summary(const LineIndex *index);
const Sidecar *line_index_sidecar(const LineIndex *index);
/* The blocks of a compressed text, for a TextSource. */
const SeekBlock *line_index_blocks(const LineIndex *index, uint64_t *ret_count);

/* The bytes [*ret_begin, *ret_end) of the text hold record `record` with its line end and the blank
 * lines after it. Returns its line number, from 1. */
uint64_t line_index_record(const LineIndex *index, uint64_t record, uint64_t *ret_begin,
                           uint64_t *ret_end);

#endif
