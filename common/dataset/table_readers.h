/* TableReaders: readers that stand inside the row groups of tables, kept for who reads on behind
 * them. One pool for all files of a data set: a reader holds what it has decoded and not handed out
 * yet, so what is kept stays within `bytes_max`, and those that were used longest ago are closed
 * first. One is always kept: without it each piece of a row group would cost the way to it from
 * the group's beginning, which is decoded where it has no pages to pass over. Any thread. */
#ifndef TROUPE_DATASET_TABLE_READERS_H
#define TROUPE_DATASET_TABLE_READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/table_library.h"

typedef struct TableReaders TableReaders;

TableReaders *table_readers_create(size_t bytes_max);
void table_readers_destroy(TableReaders *readers); /* accepts NULL; none is in use */

/* Rows [begin, end) of a row group, that somebody is about to read. */
typedef struct ReaderErrand {
    const TableLibrary *library;
    const void *file;
    uint64_t group, begin, end;
    uint64_t near; /* rows: where a reader stands at most so far before them, those between are to
                    * be read first, not skipped; 0: nothing is */
} ReaderErrand;

/* Gives the reader that stands nearest before the rows, or at them, and where that is; NULL, and 0,
 * when there is none and the caller has one to open. It is in use until it is given back. False:
 * the rows just before are to be read first; a reader, this caller's or another's, will stand at
 * them, and the caller asks again with `near` at 0. */
bool table_readers_take(TableReaders *readers, const ReaderErrand *errand, TableReader **ret,
                        uint64_t *ret_row);
/* After the errand: the reader stands at its end; NULL: none is left. */
void table_readers_give_back(TableReaders *readers, const ReaderErrand *errand,
                             TableReader *reader);
/* Closes those of a file, none of which is in use: before it is closed. */
void table_readers_forget(TableReaders *readers, const void *file);

#endif
