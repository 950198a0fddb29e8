/* FileProbe: a data file known without reading all of it: a hash of its size, its beginning, its
 * end and places in between. Tells files apart that were exchanged, cut, grown or written anew;
 * of a change of a few bytes in the middle it sees nothing: who relies on a probe checks the rest
 * where it is read (block_text.h). */
#ifndef TROUPE_DATASET_FILE_PROBE_H
#define TROUPE_DATASET_FILE_PROBE_H

#include <stdint.h>

#include "base/error.h"

/* What tells a file that was written since from one that was not. */
typedef struct FileState {
    uint64_t bytes;
    int64_t modified_ns; /* since 1970 */
} FileState;

Status file_state(int fd, const char *path, FileState *ret, Error *err);
/* ERR_IO when the file is no longer in this state, in which the run has found it. */
Status file_state_check(const FileState *state, int fd, const char *path, Error *err);

/* `path` names the open file in messages. */
Status file_probe(int fd, const char *path, uint64_t file_bytes, uint64_t *ret_hash, Error *err);

#endif
