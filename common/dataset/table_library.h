/* TableLibrary: what the data set layer asks of Apache Arrow's C++ libraries, as a table of plain C
 * functions. It is implemented in common/dataset/arrow, which is built into a library of its own,
 * libtroupe_arrow.so, where Arrow is found, and loaded when the first Parquet or Arrow file is
 * opened: no other part of Troupe links Arrow or C++.
 *
 * Rows become JSON texts, one object a row, as Python's json.dumps writes what pyarrow's to_pylist
 * gives, with these differences:
 *   - fields of objects that are null are left out, the row's own included: tables have a place for
 *     every field that any row has, and a null there says that this row has none
 *   - a map whose keys are texts is an object; others are lists of pairs
 *   - dates and times are texts in ISO 8601 (those with a time zone in UTC), decimals are texts,
 *     durations numbers of seconds; infinities and NaN, which JSON does not have, are null
 *   - bytes that are UTF-8 are a text; others {"base64": "..."}
 *   - a value of the type arrow.json (the feature Json of `datasets`) stands as it is
 *
 * A file may be used by several threads at once, a reader by one at a time. Functions that fail
 * return false and say why: what is wrong with the file is told from what the system refused, which
 * is no fault of the rows that were to be read. */
#ifndef TROUPE_DATASET_TABLE_LIBRARY_H
#define TROUPE_DATASET_TABLE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TABLE_LIBRARY_VERSION 4
#define TABLE_MESSAGE_BYTES   512
#define TABLE_READ_BYTES      (64u << 20) /* of JSON that one call gives, but for a single row */
#define TABLE_LIBRARY_FILE    "libtroupe_arrow.so"
#define TABLE_LIBRARY_SYMBOL  "troupe_table_library"

typedef enum { TABLE_PARQUET, TABLE_ARROW_FILE, TABLE_ARROW_STREAM } TableKind;

typedef enum {
    TABLE_FAULT_DATA,      /* the file is damaged, or has what cannot be read */
    TABLE_FAULT_IO,        /* the system could not read it */
    TABLE_FAULT_MEMORY,    /* there was not enough memory for it */
    TABLE_FAULT_TOO_LARGE, /* more than TABLE_READ_BYTES: fewer rows should be asked for */
} TableFaultKind;

typedef struct TableFault {
    TableFaultKind kind;
    char message[TABLE_MESSAGE_BYTES]; /* a line */
} TableFault;

/* Rows that can be reached without reading those of other groups: a row group, a record batch. */
typedef struct TableGroup {
    uint64_t rows;
    uint64_t bytes;    /* about, decompressed */
    uint64_t position; /* in the file, of a stream's batch */
} TableGroup;

/* Rows as JSON; one piece of malloc. */
typedef struct TableRows {
    uint64_t rows;
    uint64_t offset[1]; /* [rows + 1]: where the texts are, from the beginning of this struct */
} TableRows;

/* A data file, as whoever opened it lets it be read: never by its name, so that a file which is
 * replaced or removed during a run is read on as it was opened. What fails says why, in a line. */
typedef struct TableInput {
    void *file; /* for the functions, which any thread may call */
    uint64_t bytes;
    bool (*read)(void *file, void *bytes, size_t length, uint64_t offset,
                 char message[TABLE_MESSAGE_BYTES]);
    /* All of it, for munmap; NULL: it cannot be. */
    void *(*map)(void *file, char message[TABLE_MESSAGE_BYTES]);
} TableInput;

typedef struct TableHandle TableHandle;
typedef struct TableReader TableReader;

typedef struct TableLibrary {
    int version;
    const char *arrow_version;
    /* The input is copied, its file borrowed until the handle is closed. `groups`, when an earlier
     * opening of the same file has told them, spares the look for them; NULL otherwise. */
    bool (*open)(const TableInput *input, TableKind kind, const TableGroup *groups,
                 uint64_t num_groups, TableHandle **ret, TableFault *fault);
    /* Borrowed from the handle. */
    const TableGroup *(*groups)(const TableHandle *handle, uint64_t *ret_count);
    void (*close)(TableHandle *handle); /* accepts NULL; no reader of it is open */
    /* How many bytes of JSON the first `rows` of a group are, reading no more of it than they take.
     */
    bool (*probe)(const TableHandle *handle, uint64_t group, uint64_t rows, uint64_t *ret_bytes,
                  TableFault *fault);
    /* Begins at the first row of a group; reads it in steps of about `step_rows`. */
    bool (*open_reader)(const TableHandle *handle, uint64_t group, uint64_t step_rows,
                        TableReader **ret, TableFault *fault);
    bool (*skip)(TableReader *reader, uint64_t rows, TableFault *fault);
    /* The next `rows`, which there are; *ret is the caller's to free, and *ret_bytes long. *ret
     * comes in as NULL, or as a piece of malloc of *ret_bytes, which is taken: its memory is used
     * for them. A reader that failed can only be closed. */
    bool (*read)(TableReader *reader, uint64_t rows, TableRows **ret, size_t *ret_bytes,
                 TableFault *fault);
    size_t (*reader_bytes)(const TableReader *reader); /* that it holds, about */
    void (*close_reader)(TableReader *reader);         /* accepts NULL */
    /* Quick compression of small pieces, by any thread: room for what becomes of `bytes`, 0: there
     * is none; how many bytes became of them, 0: it failed; whether just `length` came out. */
    size_t (*pack_bound)(size_t bytes);
    size_t (*pack)(const void *bytes, size_t length, void *out, size_t bound);
    bool (*unpack)(const void *packed, size_t packed_length, void *bytes, size_t length);
} TableLibrary;

/* The library's one symbol, and its type. */
const TableLibrary *troupe_table_library(void);
typedef const TableLibrary *TableLibraryFunction(void);

#ifdef __cplusplus
}
#endif

#endif
