/* LineIndex: where each record of a JSONL file begins, found in one pass over the file and then
 * mapped into memory: 8 bytes per record, and 16 for each run of blank lines. Blank lines (nothing
 * but spaces, tabs and carriage returns) and a byte order mark are no records. The same pass takes
 * a hash of the whole content.
 *
 * The index is kept as a sidecar file in the run folder and used again when path, size,
 * modification time and the hashes of the file's first and last 64 KiB are the same and its own
 * checksum holds; anything else rebuilds it. A sidecar that cannot be written costs time at the
 * next start, nothing more: the index then lives in memory. Const once opened; any thread. */
#ifndef TROUPE_DATASET_INDEX_H
#define TROUPE_DATASET_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/watch.h"

typedef struct LineIndex LineIndex;

typedef struct LineIndexSummary {
    uint64_t records;
    uint64_t content_hash; /* XXH3 of all bytes of the file */
    uint64_t file_bytes;
    int64_t modified_ns; /* modification time, since 1970 */
    bool reused;         /* taken from the sidecar */
    bool whole;          /* all of the file was read; else `content_hash` is of its beginning */
} LineIndexSummary;

typedef struct LineIndexOptions {
    const char *folder;   /* where sidecars are, created when missing; NULL: nowhere */
    bool read_only;       /* a sidecar that is there is used, none is written */
    uint64_t records_max; /* without a sidecar, no more is read than so many take; 0: all. Needs
                           * read_only where there is a folder */
    ReadWatch *watch;     /* NULL: nobody watches */
} LineIndexOptions;

/* Indexes the open file `fd` (borrowed; `path` names it), blocking for as long as reading it takes.
 */
Status line_index_open(int fd, const char *path, const LineIndexOptions *options, LineIndex **ret,
                       Error *err);
void line_index_close(LineIndex *index); /* accepts NULL */

LineIndexSummary line_index_summary(const LineIndex *index);
/* Why the sidecar could not be written, or NULL. Borrowed. */
const char *line_index_warning(const LineIndex *index);

/* The bytes [*ret_begin, *ret_end) of the file hold record `record` with its line end and the blank
 * lines after it. Returns its line number, from 1. */
uint64_t line_index_record(const LineIndex *index, uint64_t record, uint64_t *ret_begin,
                           uint64_t *ret_end);

#endif
