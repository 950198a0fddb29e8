#include "dataset/file_probe.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"
#include "dataset/content_hash.h"

#define EDGE_BYTES  (64u << 10)
#define PLACES      8
#define PLACE_BYTES (4u << 10)

static Status add(XXH3_state_t *hash, DataFile *file, uint64_t offset, size_t length, Error *err)
{
    char *bytes = mem_alloc(length);
    Status status = data_file_read(file, bytes, length, offset, err);
    if (status == OK) XXH3_64bits_update(hash, bytes, length);
    free(bytes);
    return status;
}

Status file_probe(DataFile *file, uint64_t *ret_hash, Error *err)
{
    uint64_t file_bytes = data_file_state(file)->bytes;
    XXH3_state_t *hash = XXH3_createState();
    CHECK(hash != NULL);
    XXH3_64bits_reset(hash);
    XXH3_64bits_update(hash, &file_bytes, sizeof file_bytes);
    size_t edge = file_bytes < EDGE_BYTES ? (size_t)file_bytes : EDGE_BYTES;
    Status status = add(hash, file, 0, edge, err);
    if (status == OK) status = add(hash, file, file_bytes - edge, edge, err);
    bool between = file_bytes > 2 * EDGE_BYTES + PLACES * PLACE_BYTES;
    for (uint64_t i = 1; between && i <= PLACES && status == OK; i++)
        status = add(hash, file, file_bytes / (PLACES + 1) * i, PLACE_BYTES, err);
    if (status == OK) *ret_hash = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return status;
}
