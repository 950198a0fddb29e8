#include "dataset/file_probe.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/content_hash.h"

#define EDGE_BYTES  (64u << 10)
#define PLACES      8
#define PLACE_BYTES (4u << 10)

Status file_state(int fd, const char *path, FileState *ret, Error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return error_set_errno(err, errno, "could not stat %s", path);
    ret->bytes = (uint64_t)info.st_size;
    ret->modified_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    return OK;
}

Status file_state_check(const FileState *state, int fd, const char *path, Error *err)
{
    FileState now;
    TRY(file_state(fd, path, &now, err));
    if (now.bytes == state->bytes && now.modified_ns == state->modified_ns) return OK;
    return error_set(err, ERR_IO,
                     "%s was changed during the run (%llu bytes, opened with %llu)\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     path, (unsigned long long)now.bytes, (unsigned long long)state->bytes);
}

static Status add(XXH3_state_t *hash, int fd, const char *path, uint64_t offset, size_t length,
                  Error *err)
{
    char *bytes = mem_alloc(length);
    Status status = file_read_at(fd, bytes, length, (int64_t)offset, path, err);
    if (status == OK) XXH3_64bits_update(hash, bytes, length);
    free(bytes);
    return status;
}

Status file_probe(int fd, const char *path, uint64_t file_bytes, uint64_t *ret_hash, Error *err)
{
    XXH3_state_t *hash = XXH3_createState();
    CHECK(hash != NULL);
    XXH3_64bits_reset(hash);
    XXH3_64bits_update(hash, &file_bytes, sizeof file_bytes);
    size_t edge = file_bytes < EDGE_BYTES ? (size_t)file_bytes : EDGE_BYTES;
    Status status = add(hash, fd, path, 0, edge, err);
    if (status == OK) status = add(hash, fd, path, file_bytes - edge, edge, err);
    bool between = file_bytes > 2 * EDGE_BYTES + PLACES * PLACE_BYTES;
    for (uint64_t i = 1; between && i <= PLACES && status == OK; i++)
        status = add(hash, fd, path, file_bytes / (PLACES + 1) * i, PLACE_BYTES, err);
    if (status == OK) *ret_hash = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return status;
}
