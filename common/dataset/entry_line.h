/* EntryLine: what an entry of a list of data became, in a line for people, where that is not plain:
 * which split of a folder, how many files of a glob, which records of a slice. One thread. */
#ifndef TROUPE_DATASET_ENTRY_LINE_H
#define TROUPE_DATASET_ENTRY_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/data_path.h"

typedef struct EntryLine {
    size_t files;
    char *first, *last; /* names of these */
    uint64_t bytes;     /* together; 0: not known */
    char *split;        /* as data_folder_find says it, or NULL */
} EntryLine;

/* `sized`: they are on this machine, and not to be fetched yet. */
void entry_line_add(EntryLine *line, char *const *path, size_t count, bool sized);
/* "data.train: /d/chats is split train: 3 files, a.parquet to c.parquet (1.2 GB)"; owned. NULL: it
 * names one file, and all of that. `records` of its files; 0: not all were counted. */
char *entry_line_text(const EntryLine *line, const char *key, const char *entry,
                      const DataPath *path, uint64_t records);
void entry_line_free(EntryLine *line);

#endif
