/* IndexFolder: what is known of the data files of a run, in its index folder. A set may have tens
 * of thousands of files, so what is known of a file that is not large has no file of its own:
 *
 *   files.heads   an IndexHead behind another, each with a checksum of its own: all of them are
 *                 read at once when the folder is opened, 176 bytes each
 *   files.bodies  what belongs to them, read where it is used, and checked there
 *   NAME-KEY.SUFFIX  spool and table of a large file (sidecar.h), as its head says
 *
 * Both files are only appended to; the last head of a key counts. Heads are written 64 at a time,
 * with one of a large file, and when the folder is closed or flushed: a kill loses no more.
 * Several processes may append at a time. In the byte order of the machine.
 *
 * Who opens the folder while nobody else has it open, in this process or another, removes what no
 * head names (indexes of other versions, what builders that were killed left), and begins it anew
 * where more has been superseded than counts, or files.bodies is gone. Whoever has it open holds a
 * shared lock of it (flock), so what a set uses is never taken from it by a process of the same
 * machine (NFS keeps locks of a folder to the machine: to another one it may cost an index, which
 * is made again); where there are no locks nothing is removed. Of what heads name a run that is
 * open removes what is of no data file of its sets, once it knows them
 * (index_folder_remove_unused). Heads that cannot be read remove nothing, either: that is a
 * warning.
 *
 * Nothing here can fail a run: what cannot be read is not known, what cannot be written is told in
 * an Error for a warning. Any thread. */
#ifndef TROUPE_DATASET_INDEX_FOLDER_H
#define TROUPE_DATASET_INDEX_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/file_pool.h"

#define INDEX_COUNTS    4
#define INDEX_OWN_BYTES (64u << 10) /* spool and table that are larger have a file of their own */

/* What is known of a data file. */
typedef struct IndexHead {
    uint64_t magic, key;   /* together the name under which it is found */
    FileState state;       /* of the data file */
    int64_t made_ns;       /* when it was looked at, since 1970 */
    uint64_t edge_hash;    /* of how it begins and ends; 0: not wanted */
    uint64_t content_hash; /* the kind's own, as the next three are */
    uint64_t content_bytes;
    uint64_t count[INDEX_COUNTS];
    uint64_t body_bytes, spool_bytes, table_bytes; /* of what belongs to it, in that order */
    uint64_t body_hash;
    uint64_t place; /* of these in files.bodies; with an own file of the body alone */
    uint32_t own;   /* 1: spool and table are in a file of their own */
    uint32_t unused;
    uint64_t head_hash; /* of all fields above */
} IndexHead;

typedef struct IndexFolder IndexFolder;

/* `path` NULL: nothing is known and nothing kept. Read only: nothing is written, or removed. */
IndexFolder *index_folder_open(const char *path, bool read_only, FilePool *pool);
void index_folder_close(IndexFolder *folder); /* accepts NULL */
FilePool *index_folder_pool(const IndexFolder *folder);
bool index_folder_writes(const IndexFolder *folder);
const char *index_folder_path(const IndexFolder *folder); /* borrowed; as of index_folder_open */
/* Why nothing was known when it was opened, or NULL; borrowed. */
const char *index_folder_warning(const IndexFolder *folder);

/* The key of a data file, by its name with the links of its folder resolved. */
uint64_t index_folder_key(IndexFolder *folder, const char *path);
/* False: it is not known. */
bool index_folder_find(IndexFolder *folder, uint64_t magic, uint64_t key, IndexHead *ret);
/* Reads `length` bytes at a place of files.bodies; false when that cannot be. */
bool index_folder_read(IndexFolder *folder, uint64_t place, void *bytes, size_t length);
/* Makes the folder, for files in it. */
Status index_folder_make(IndexFolder *folder, Error *err);
/* Appends to files.bodies, and tells where. */
Status index_folder_append(IndexFolder *folder, const void *bytes, size_t length,
                           uint64_t *ret_place, Error *err);
/* Keeps a head, with its checksum: it is found from now on. */
Status index_folder_keep(IndexFolder *folder, const IndexHead *head, Error *err);
/* Writes the heads that wait for it. */
Status index_folder_flush(IndexFolder *folder, Error *err);
/* That a data file is in a set of the run: the files of their own which belong to it stay. */
void index_folder_use(IndexFolder *folder, uint64_t key);
/* Once, when all data sets of a run are open: the files of their own of data files that are in none
 * of them, as those of a job before it changed, are removed; not while somebody else has the folder
 * open, who may use them. Returns how many. */
int index_folder_remove_unused(IndexFolder *folder);
/* Once all files are open: what is known is no longer kept in memory, and not found; but where
 * heads wait to be written. */
void index_folder_rest(IndexFolder *folder);
/* Of a file of its own: "FOLDER/NAME-KEY.SUFFIX"; owned by the caller. */
char *index_folder_file(const IndexFolder *folder, const char *path, uint64_t key,
                        const char *suffix);

#endif
