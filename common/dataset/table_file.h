/* TableFile: what is known of a Parquet or Arrow file before rows of it are read: its groups (row
 * groups, record batches), which are what can be reached at once, how much JSON they give, and the
 * slices that they are cut into, large ones into several.
 *
 * Where records are read here and there, a row group would be decoded for nearly each of them: the
 * pass that hashes the file therefore keeps a copy of the rows beside the index, compressed in
 * small pieces (row_copies.h). What the pass finds is a sidecar, one kind for each of the ways of
 * reading: with copies, in the order of the file, and by blocks, where the groups and a probe of
 * the file are all that is looked at. For dataset_table.c, which reads the rows.
 *
 * Const once opened but for what is atomic, and the handle, which has a lock; any thread. */
#ifndef TROUPE_DATASET_TABLE_FILE_H
#define TROUPE_DATASET_TABLE_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/format.h"
#include "dataset/row_copies.h"
#include "dataset/sidecar.h"
#include "dataset/table_library.h"

typedef struct TableType {
    TableKind kind;
    const char *name;
    const char *begin;
    size_t length;
    const char *end; /* NULL: a stream has none that can be told */
} TableType;

/* Of a file that begins so; NULL: it is no table. */
const TableType *table_type_of(const uint8_t *head, size_t length);

/* Where a group stands in the file's rows, and its slices among the file's. */
typedef struct GroupPlace {
    uint64_t first_row, first_slice, slice_rows;
    uint64_t first_copy; /* of its slices, when it is copied */
    bool copied;
    _Atomic bool damaged;     /* a piece of it could not be decoded */
    _Atomic uint8_t halvings; /* of its slices, into the pieces that are decoded at once */
} GroupPlace;

typedef struct TableFile {
    DataFile *file;
    const char *path; /* of it */
    const TableType *type;
    const DatasetOptions *options; /* during opening, as the folder */
    IndexFolder *folder;
    const TableLibrary *library;
    pthread_mutex_t lock;    /* of ... */
    TableHandle *handle;     /* ... which is NULL until it is needed */
    const TableGroup *group; /* [num_groups] */
    uint64_t num_groups;
    uint64_t growth;   /* JSON of its rows, in percent of the bytes of its groups; at least 100 */
    RowCopies copies;  /* of slices */
    GroupPlace *place; /* [num_groups + 1]: the last is the end */
    Sidecar *sidecar;  /* NULL when the beginning alone is wanted */
    bool by_blocks;
    char *warning;            /* or NULL */
    atomic_bool copy_damaged; /* somebody was told */
    BlockCache *cache;
    TableReaders *readers;
} TableFile;

/* Whether the index folder knows the file, as of which type. */
bool table_file_known(const FileOpening *opening, const TableType **ret);
/* Its file is taken, also when it fails. */
Status table_file_open(const FileOpening *opening, TableFile **ret, Error *err);
void table_file_close(TableFile *file); /* accepts NULL */

/* A file whose rows are known is opened by the library when the first of them is decoded. */
Status table_file_need_handle(TableFile *file, Error *err);

/* ERR_DATA: it is the file's, or a row's, and may be told of these alone. */
Status table_fault_status(const TableFault *fault);
/* What the system could not do is nothing that a row could be blamed for: the run ends with it. */
Status table_refuse_read(const TableFile *file, const TableFault *fault, Error *err);

/* Of a group's rows as JSON, about. */
uint64_t table_group_bytes(const TableFile *file, uint64_t group);
/* How many rows of a group a slice has, and which is its first. */
uint64_t table_slice_rows(const TableFile *file, uint64_t group, uint64_t slice,
                          uint64_t *ret_begin);
/* Rows of a group that a reader decodes in a step. */
uint64_t table_step_rows(const TableFile *file, uint64_t group);

#endif
