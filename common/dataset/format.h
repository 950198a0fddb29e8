/* DatasetFormat: a kind of data file, as a table of functions for one file. A format is told by how
 * a file begins. A file is const once opened; `read` may be called by any number of threads. */
#ifndef TROUPE_DATASET_FORMAT_H
#define TROUPE_DATASET_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "dataset/block_cache.h"
#include "dataset/dataset.h"
#include "dataset/file_pool.h"
#include "dataset/index_folder.h"
#include "dataset/table_readers.h"

/* What a reader tells of an opened file. */
typedef struct FileSummary {
    const char *kind; /* part of the fingerprint: what `bytes` and `content_hash` are of */
    uint64_t records;
    uint64_t bytes; /* of the text, decompressed */
    uint64_t content_hash;
    bool index_reused;
    bool whole;          /* `records` are all that the file has */
    bool hashed;         /* `content_hash` is of all of it, or by blocks the probe of it */
    bool counted;        /* `records` is known */
    bool compressed;     /* a text that is decompressed to be read */
    const char *warning; /* why the next start will have to index again, or NULL; borrowed */
} FileSummary;

typedef struct FileOpening {
    const char *path;
    DataFile *file;   /* taken by the format, also when it fails */
    bool known;       /* the index folder knows the file, and its head was not read: */
    uint8_t head[16]; /* how the file begins, zeros behind a shorter one */
    const DatasetOptions *options;
    BlockCache *cache; /* borrowed for the file's life, as the next three are */
    TableReaders *readers;
    IndexFolder *folder;
    FilePool *pool;
} FileOpening;

/* A piece of a file whose records lie side by side: what DATASET_BY_BLOCKS addresses. */
typedef struct FileBlock {
    uint64_t bytes;   /* of the file, about */
    uint64_t records; /* once counted */
    uint64_t first;   /* record of the file, of formats that count when they open it */
    uint64_t run;     /* the first block of those that are best read one after the other, because
                       * each is reached through the one before; itself, when there are none */
    bool counted;
} FileBlock;

/* `read` appends record `index` to *text, without its line end, and says where it stands, but for
 * the path; it returns ERR_DATA when the fault is this record's alone, anything else when the file
 * cannot be read. */
typedef struct DatasetFormat {
    /* Whether the index folder knows it as a file of this format; else: whether one that begins so
     * is. */
    bool (*known)(const FileOpening *opening);
    bool (*begins)(const uint8_t *head, size_t length);
    Status (*open)(const FileOpening *opening, void **ret_file, Error *err);
    FileSummary (*summary)(const void *file);
    Status (*read)(const void *file, uint64_t index, Str *text, RecordSource *ret_source,
                   Error *err);
    void (*close)(void *file); /* accepts NULL */
    /* Of a file that was opened by blocks. 0: as one piece, that can be cut anywhere. */
    uint64_t (*num_blocks)(const void *file);
    FileBlock (*block)(const void *file, uint64_t index);
    /* These only of a format that does not count when it opens a file. */
    bool (*in_sequence)(const void *file); /* a block is counted with all blocks before it */
    Status (*count_block)(void *file, uint64_t index, Error *err);
    void (*stop_counting)(void *file); /* what is being counted fails soon, with ERR_CANCELLED */
    void (*prefetch_block)(const void *file, uint64_t index);
    Status (*read_block)(const void *file, uint64_t block, uint64_t record, Str *text,
                         RecordSource *ret_source, Error *err);
} DatasetFormat;

/* Opens a file of whatever format; file and head of `opening` need not be there. */
Status dataset_format_open(const FileOpening *opening, const DatasetFormat **ret_format,
                           void **ret_file, Error *err);

extern const DatasetFormat dataset_table; /* Parquet, Arrow */
extern const DatasetFormat dataset_jsonl; /* all other files: it says what they are instead */

#endif
