/* RowCopies: the rows of a table as JSON, in pieces of a few rows, each compressed by itself (LZ4,
 * which the library of tables brings with it: a piece is decompressed for each record that is read,
 * at 2 to 3 GB/s). Kept in the spool of the table's sidecar, with 8.4 bytes a piece in its table
 * (offset_table.h). For tables of which a record costs the decoding of a whole row group.
 *
 * A RowCopier is used by one thread; RowCopies are const, for any thread. */
#ifndef TROUPE_DATASET_ROW_COPIES_H
#define TROUPE_DATASET_ROW_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "dataset/offset_table.h"
#include "dataset/table_library.h"

/* Whether this build of the library can make any. */
bool row_copies_possible(const TableLibrary *library);

typedef struct RowCopier RowCopier;

/* For pieces [0, count); borrows both. The writer expects a spool. */
RowCopier *row_copier_open(const TableLibrary *library, SidecarWriter *writer, uint64_t count);
/* Pieces come in ascending order; those that are left out are not there. False: there is no room
 * for what is to come, as large as what came is, and nothing will be kept. */
bool row_copier_put(RowCopier *copier, uint64_t piece, const TableRows *rows, size_t bytes);
/* Puts the rest of what finds them again into the table of the sidecar. */
void row_copier_finish(RowCopier *copier);
void row_copier_close(RowCopier *copier); /* accepts NULL */

typedef struct RowCopies {
    const TableLibrary *library;
    const Sidecar *sidecar;
    uint64_t count; /* 0: there are none */
} RowCopies;

typedef enum { ROW_COPY_READ, ROW_COPY_NONE, ROW_COPY_DAMAGED } RowCopyResult;

/* Appends row `row` of the piece to *text, or finds that no copy of it was put, or one that is not
 * what was put. */
RowCopyResult row_copies_read(const RowCopies *copies, uint64_t piece, uint64_t row, Str *text);

#endif
