/* FilePool: the data files of a process, and those of its indexes that are large, of which as many
 * are open at a time as the system allows it. A data set may have more files than a process may
 * have descriptors; so a DataFile is a path and the state in which its file was found, and its
 * descriptor comes and goes: beyond the pool's bound those that were not used for longest are
 * closed, and opened again when they are read. One that is opened again must be the file that it
 * was (device, inode, size, modification time): whatever else lies under its name ends the run with
 * that name. One that stayed open is read on as it was opened, also when it was replaced or removed
 * since; size and modification time are asked of both. The time of the last change (st_ctime) is
 * not: chmod, chown and one more link move it, too. So who writes into a file and puts its
 * modification time back is not found out here, but at the next start (sidecar.h).
 *
 * Any thread; who uses a descriptor keeps it open, past the bound if need be. Taking one that is
 * open costs no lock. */
#ifndef TROUPE_DATASET_FILE_POOL_H
#define TROUPE_DATASET_FILE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct FilePool FilePool;
typedef struct DataFile DataFile;

/* What tells one file, and one state of it, from another. */
typedef struct FileState {
    uint64_t device, inode, bytes;
    int64_t modified_ns, changed_ns; /* since 1970: its content; this or what is said of it */
} FileState;

/* `open_max`: 0: a quarter of what the process may open, at most DATA_FILES_OPEN_MAX. */
FilePool *file_pool_create(int open_max);
void file_pool_destroy(FilePool *pool); /* accepts NULL; its files are closed */
/* For a main: the process may open as many files as the system grants it. */
void file_pool_raise_limit(void);

/* Opens a regular file; anything else is ERR_INVALID. */
Status data_file_open(FilePool *pool, const char *path, DataFile **ret, Error *err);
void data_file_close(DataFile *file); /* accepts NULL; nobody uses it */
const char *data_file_path(const DataFile *file);
const FileState *data_file_state(const DataFile *file); /* when it was opened first */

/* Reads exactly `length` bytes at `offset`; a shorter file is ERR_DATA, as of file_read_at. */
Status data_file_read(DataFile *file, void *bytes, size_t length, uint64_t offset, Error *err);
/* ERR_IO when it was written since it was opened first, as its size and modification time say. */
Status data_file_check(DataFile *file, Error *err);
/* Its descriptor, which stays open until it is given back. */
Status data_file_take(DataFile *file, int *ret_fd, Error *err);
void data_file_give(DataFile *file);
/* Tells the system how it will be read (POSIX_FADV_...); `length` 0: to its end. A file that was
 * closed for others is not opened for that. */
void data_file_advise(DataFile *file, uint64_t offset, uint64_t length, int advice);

#endif
