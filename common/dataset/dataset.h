/* Dataset: the records of a list of files, globs, folders, data sets of the Hugging Face Hub and
 * slices of them (base/data_path.h), addressed by one index from 0: file after file in the order in
 * which they were named, line after line, or row after row, inside. Knows nothing of order, epochs
 * or positions (shuffle.h does), nor of what a record contains: lines are handed out byte for byte
 * as they stand in the file, rows of tables as JSON texts, and the rollout worker judges their
 * content (UTF-8, JSON, keys, roles), so that all of that has one place and runs on many processes.
 *
 * A file's format is told by how it begins (format.h). Const once opened; dataset_read may be
 * called by any number of threads at once. */
#ifndef TROUPE_DATASET_DATASET_H
#define TROUPE_DATASET_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/str.h"
#include "dataset/file_pool.h"
#include "dataset/index_folder.h"
#include "dataset/watch.h"
#include "hub/access.h"
#include "hub/room.h"

#define DATASET_HUB_COMMITS "hub.json" /* `commits`, in the folder of a run */

/* What a run says of the Hugging Face Hub. */
typedef struct DatasetHub {
    const HubAccess *access; /* NULL: what the environment says */
    const char *commits; /* a file that says at which commits the run takes data sets of the Hub;
                          * written as indexes are; NULL: none */
    HubRoom *room;       /* that the data sets of the run share; NULL: each has what the disk has */
} DatasetHub;

typedef struct DatasetOptions {
    const char *key;         /* of job.yaml, for messages: "data.train" */
    const char *const *path; /* [num_paths] entries; files of a glob come in byte order */
    int num_paths;
    const char *index_folder; /* where indexes are kept, created when missing; NULL: nowhere */
    bool index_read_only;     /* indexes that are there are used, none is written */
    bool by_checksum;         /* as of SidecarOptions */
    bool in_order;        /* records will be read one after another: what is only kept to reach them
                           * in another order need not be */
    bool by_blocks;       /* files of text are not read now: see below */
    uint64_t records_max; /* no more is opened and read than so many records take; 0: everything */
    size_t cache_max;     /* bytes of decoded pieces that are kept; 0: DATASET_CACHE_MAX */
    FilePool *pool;       /* of open files, borrowed while the data set is open; NULL: its own */
    IndexFolder *folder;  /* index_folder, opened with the same pool, which several data sets share;
                           * borrowed while the data set is open; NULL: its own */
    size_t readers_max;   /* bytes of readers that stand inside tables; 0: half of cache_max */
    ReadWatch *watch;     /* of the reading of files, also later, by blocks; NULL: nobody watches */
    const DatasetHub *hub; /* its `access` is borrowed while the data set is open, the rest for the
                            * call; NULL: what the environment says, and what fits, and no commit
                            * is kept */
} DatasetOptions;

typedef struct Dataset Dataset;

typedef struct DatasetSummary {
    uint64_t records, files, bytes; /* records by blocks: of those files alone that are counted */
    bool whole;                     /* these are all of them, whatever records_max was */
    uint64_t files_indexed;         /* those whose index could not be taken from an earlier start */
    const char *warning;            /* the first file's, or NULL; borrowed */
} DatasetSummary;

/* Opens and indexes all files; blocks for as long as that takes. Errors name the key and the path:
 * a glob without a match, a folder without data, an unreadable file, no record in any file. */
Status dataset_open(const DatasetOptions *options, Dataset **ret, Error *err);
void dataset_close(Dataset *dataset); /* accepts NULL */
DatasetSummary dataset_summary(const Dataset *dataset);

/* What its entries became, a line for each of which that is not plain: "data.train: chats/ is split
 * train: 3 files, ..."; then what of its files is hardly meant, as "warning: data.train: ...".
 * Borrowed. */
const StringList *dataset_entries(const Dataset *dataset);

/* One of its files, in their order. */
typedef struct DatasetFileInfo {
    const char *path; /* borrowed from the Dataset */
    uint64_t records, bytes, content_hash;
} DatasetFileInfo;
int dataset_num_files(const Dataset *dataset);
DatasetFileInfo dataset_file(const Dataset *dataset, int index);

/* SHA-256, in hex, of what determines the stream: each file's size, record count and content, and
 * the order, as a text that ends a line; "": that of the files. Not of names and times: a data set
 * may be moved or copied between a checkpoint and its resume. The data set has to be opened without
 * records_max. */
void dataset_fingerprint(const Dataset *dataset, const char *order, char ret[DIGEST_HEX_BYTES]);

/* What `offset` of a RecordSource counts. */
typedef enum {
    RECORD_AT_BYTE,      /* bytes of the file */
    RECORD_AT_TEXT_BYTE, /* bytes of the text that a compressed file holds */
    RECORD_IN_ROW_GROUP, /* rows of `group`, of Parquet */
    RECORD_IN_BATCH,     /* rows of `group`, of Arrow */
} RecordUnit;

/* Where a record stands. */
typedef struct RecordSource {
    const char *path; /* borrowed from the Dataset */
    uint64_t line;    /* from 1; of a table, the row; 0: not known */
    uint64_t offset;  /* at which it begins, from 0 */
    RecordUnit unit;
    uint64_t group; /* from 0 */
} RecordSource;

/* "a.jsonl:12", or "a.jsonl at byte 4711"; owned by the caller. */
char *record_source_text(const RecordSource *source);
/* The same more closely, inside of the file: "byte 4711", "row 5 of row group 0". */
#define RECORD_PLACE_BYTES 80
#define RECORD_OF_TEXT     " of its text" /* how it ends where that is compressed */
void record_source_place(const RecordSource *source, char ret[RECORD_PLACE_BYTES]);

/* Appends the text of record `index` to *text; by blocks this is slow. ERR_DATA: this record cannot
 * be read, and *err says why (nothing is appended, *ret_source is set); any other failure: the data
 * set cannot, for one because a file changed. */
Status dataset_read(const Dataset *dataset, uint64_t index, Str *text, RecordSource *ret_source,
                    Error *err);

/* ---- by blocks ----
 *
 * A data set that is opened by blocks is there at once, however large it is: its files are cut into
 * blocks, known from their sizes alone (of tables: from their footers; of compressed text: and how
 * it begins), and how many records a block of a text file has is counted when somebody asks. Files
 * of which the entry takes a slice are indexed first, as ever. The fingerprint then stands for what
 * a probe of each file tells (file_probe.h). */

uint64_t dataset_num_blocks(const Dataset *dataset);
/* Whether pieces of files are decoded, and kept in memory: there is more than plain text. */
bool dataset_decodes_blocks(const Dataset *dataset);
/* Bytes of all blocks together, decoded, about; 0: not known from sizes alone, as an entry is a
 * slice or of the Hub. */
uint64_t dataset_decoded_bytes(const Dataset *dataset);
/* Of file `file`: [*ret_first, *ret_end). */
void dataset_file_blocks(const Dataset *dataset, int file, uint64_t *ret_first, uint64_t *ret_end);
uint64_t dataset_block_bytes(const Dataset *dataset, uint64_t block);
/* Whether a block can only be counted with all blocks before it in its file, *ret_file. */
bool dataset_block_in_sequence(const Dataset *dataset, uint64_t block, int *ret_file);
/* The first block of its run: those of a run lie side by side, each is reached through the one
 * before it, and whoever reads them in their order has each at its own price. */
uint64_t dataset_block_run(const Dataset *dataset, uint64_t block);
/* Whether its records are counted. */
bool dataset_block_counted(const Dataset *dataset, uint64_t block, uint64_t *ret_records);
/* Counts them. */
Status dataset_count_block(const Dataset *dataset, uint64_t block, Error *err);
/* What is being counted, or will be, fails soon with ERR_CANCELLED. */
void dataset_stop_counting(const Dataset *dataset);
void dataset_prefetch_block(const Dataset *dataset, uint64_t block);
/* As dataset_read; `record` of a block that is counted. */
Status dataset_read_block(const Dataset *dataset, uint64_t block, uint64_t record, Str *text,
                          RecordSource *ret_source, Error *err);

#endif
