/* LineIndex: where each record of a JSONL text begins, found in one pass over the file and kept in
 * a table of offsets (offset_table.h), 8.4 bytes a record. Blank lines (nothing but spaces, tabs
 * and carriage returns) and a byte order mark are no records. The same pass takes a hash of the
 * whole text, and of a compressed file the table of its blocks (text_source.h). What cannot be read
 * behind a damage of a compressed file is one record more, the last.
 *
 * The index is kept as a Sidecar. Where its table turns out to be damaged, the pass is made again
 * there and then, and must find the same text. Any thread. */
#ifndef TROUPE_DATASET_INDEX_H
#define TROUPE_DATASET_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/offset_table.h"
#include "dataset/text_source.h"
#include "dataset/watch.h"

typedef struct LineIndex LineIndex;

typedef struct LineIndexSummary {
    uint64_t records;
    uint64_t content_hash;  /* XXH3 of all of the text */
    uint64_t text_bytes;    /* decompressed */
    const TextCodec *codec; /* NULL: it is plain */
    bool reused;            /* taken from the sidecar */
    bool whole; /* all of the text was read; else `content_hash` and `text_bytes` are of its
                   beginning */
    const char
        *damage; /* why the last record cannot be read, in a line; "" when it can; borrowed */
    const char *warning; /* why the sidecar could not be written, or NULL; borrowed */
} LineIndexSummary;

typedef struct LineIndexOptions {
    IndexFolder *folder;  /* as of SidecarOptions */
    bool by_checksum;     /* as of SidecarOptions */
    uint64_t records_max; /* where nothing is known, no more is read than so many take; 0: all.
                           * Needs a folder that is not written */
    ReadWatch *watch;     /* of the first pass; NULL: nobody watches */
} LineIndexOptions;

/* Whether a file is known to be JSONL, without looking into it. */
bool line_index_known(const SidecarOptions *options);
/* Indexes a file (borrowed), blocking for as long as reading it takes. ERR_UNSUPPORTED: what is
 * compressed there is no JSONL (look_alike.h). */
Status line_index_open(const TextInput *input, const LineIndexOptions *options, LineIndex **ret,
                       Error *err);
void line_index_close(LineIndex *index); /* accepts NULL */

LineIndexSummary line_index_summary(const LineIndex *index);
const Sidecar *line_index_sidecar(const LineIndex *index);
/* The blocks of a compressed text, for a TextSource. */
const SeekBlock *line_index_blocks(const LineIndex *index, uint64_t *ret_count);

/* The bytes [begin, end) of the text hold record `record` with its line end and the blank lines
 * after it; its number is that of its line, from 1. Not ERR_DATA. */
Status line_index_record(LineIndex *index, uint64_t record, OffsetPlace *ret, Error *err);

#endif
