/* Where things lie in the memory of a group. */
#include <string.h>

#include "base/limits.h"
#include "comm/comm_shm.h"

#define PAGE SHARED_MEMORY_PAGE

/* A piece must still be in a core's own cache when its slices are reduced and fetched: beyond this,
 * larger pieces were measured to be slower (16 MB among 4 ranks: 4 MB pieces at half the rate). */
#define STAGING_BYTES_MAX ((size_t)512 * 1024)

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Of a rank's outbox half: a receiver copies one while the sender fills the other. */
#define OUTBOX_BYTES_MAX ((size_t)64 * 1024)

static size_t header_bytes(uint32_t size)
{
    return round_up(
        sizeof(ShmHeader) + size * sizeof(ShmRank) + (size_t)size * size * sizeof(ShmPair), PAGE);
}

ShmPair *shm_pair(ShmHeader *header, int from, int to)
{
    ShmPair *pairs = (ShmPair *)(void *)&header->rank[header->size];
    return &pairs[(size_t)from * header->size + (size_t)to];
}

size_t shm_outbox_bytes(const ShmHeader *header)
{
    size_t half = header->staging_bytes / 2;
    return half < OUTBOX_BYTES_MAX ? half : OUTBOX_BYTES_MAX;
}

/* A piece's slice per rank is rounded up to a cache line, hence the line to spare. */
size_t shm_result_bytes(const ShmHeader *header)
{
    return round_up(header->staging_bytes / header->size + 64, 64);
}

static size_t rank_bytes(const ShmHeader *header)
{
    return 2 * header->staging_bytes + round_up(2 * shm_result_bytes(header), PAGE) +
           2 * shm_outbox_bytes(header);
}

static unsigned char *rank_buffers(const ShmHeader *header, int rank)
{
    return (unsigned char *)header + header_bytes(header->size) + (size_t)rank * rank_bytes(header);
}

unsigned char *shm_input(const ShmHeader *header, int rank, int which)
{
    return rank_buffers(header, rank) + (size_t)which * header->staging_bytes;
}

unsigned char *shm_result(const ShmHeader *header, int rank, int which)
{
    return rank_buffers(header, rank) + 2 * header->staging_bytes +
           (size_t)which * shm_result_bytes(header);
}

unsigned char *shm_outbox(const ShmHeader *header, int rank, uint32_t number)
{
    size_t half = shm_outbox_bytes(header);
    return rank_buffers(header, rank) + rank_bytes(header) - (1 + (number & 1)) * half;
}

Status shm_memory_create(int size, size_t staging_bytes, ShmId *ret, Error *err)
{
    if (size > SHM_RANKS_MAX)
        return error_set(err, ERR_INVALID,
                         "a shared-memory group of %d ranks; at most %d share one host", size,
                         SHM_RANKS_MAX);
    if (staging_bytes > STAGING_BYTES_MAX) staging_bytes = STAGING_BYTES_MAX;
    ShmHeader plan = {.size = (uint32_t)size, .staging_bytes = round_up(staging_bytes, PAGE)};
    if (plan.staging_bytes == 0) plan.staging_bytes = PAGE;
    SharedMemory *memory = NULL;
    TRY(shared_memory_create("troupe-comm", header_bytes(plan.size) + plan.size * rank_bytes(&plan),
                             &ret->memory, &memory, err));
    ShmHeader *header = (ShmHeader *)memory;
    header->size = ret->size = plan.size;
    header->staging_bytes = ret->staging_bytes = plan.staging_bytes;
    shared_memory_unmap(memory);
    return OK;
}

Status shm_memory_open(const ShmId *id, ShmHeader **ret, Error *err)
{
    SharedMemory *memory = NULL;
    TRY(shared_memory_open(&id->memory, "rank 0", true, &memory, err));
    ShmHeader *header = (ShmHeader *)memory;
    if (header->size != id->size || header->staging_bytes != id->staging_bytes) {
        shared_memory_unmap(memory);
        return error_set(err, ERR_INVALID, "this is not the id of a shared-memory group");
    }
    *ret = header;
    return OK;
}

void shm_memory_close(ShmHeader *header)
{
    if (header != NULL) shared_memory_unmap(&header->memory);
}
