/* Files as a system that must survive a kill needs them: whole reads with a cap, writes that are
 * either complete and on disk or absent, and folders. Paths are NUL-terminated UTF-8, relative ones
 * to the working directory. Blocking; call off the event loop for anything large. */
#ifndef TROUPE_BASE_FILE_H
#define TROUPE_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Reads a whole regular file of at most `bytes_max` bytes. *ret_bytes is owned by the caller (free)
 * and has one NUL byte after its *ret_length bytes. */
Status file_read(const char *path, size_t bytes_max, char **ret_bytes, size_t *ret_length,
                 Error *err);

/* Writes to a temporary name beside `path`, flushes it to disk, renames it over `path` and flushes
 * the folder: after OK the file is there for good; after a failure (or a kill) the old one is
 * untouched. */
Status file_write_atomic(const char *path, const void *bytes, size_t length, Error *err);

/* Writes all of `bytes` to a descriptor, past interruptions and short writes. */
Status file_write_all(int fd, const void *bytes, size_t length, const char *path, Error *err);

/* Reads exactly `length` bytes at `offset`; a shorter file is ERR_DATA. */
Status file_read_at(int fd, void *bytes, size_t length, int64_t offset, const char *path,
                    Error *err);

Status file_sync(const char *path, Error *err);        /* makes what was written to it durable */
Status file_sync_folder(const char *path, Error *err); /* makes renames inside it durable */
Status folder_create(const char *path, Error *err);    /* with parents, durable; existing: fine */
Status folder_remove(const char *path, Error *err);    /* with everything below; absent is fine */
bool path_exists(const char *path);
bool path_is_folder(const char *path);

/* "folder/name", or "name" when it is absolute or the folder is empty. Owned by the caller. */
char *path_join(const char *folder, const char *name);
char *path_folder(const char *path); /* the part before the last '/', or "."; owned */
char *
path_existing_folder(const char *path);  /* it, or the nearest one above that is there; owned */
const char *path_name(const char *path); /* the part after the last '/'; borrowed */

#endif
