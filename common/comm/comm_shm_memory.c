/* The memory file of a group: anonymous (memfd), reached by the others through /proc/<pid>/fd/<fd>
 * of the process that made it, so that no name exists which somebody would have to remove. All of
 * it is allocated before use and sealed against shrinking: a full machine is an error here, never a
 * SIGBUS later. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/process.h"
#include "comm/comm_shm.h"

static const char magic[8] = "TRPSHM1";

#define PAGE ((size_t)4096)

/* A piece must still be in a core's own cache when its slices are reduced and fetched: beyond this,
 * larger pieces were measured to be slower (16 MB among 4 ranks: 4 MB pieces at half the rate). */
#define STAGING_BYTES_MAX ((size_t)512 * 1024)

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static size_t header_bytes(uint32_t size)
{
    return round_up(sizeof(ShmHeader) + size * sizeof(ShmRank), PAGE);
}

/* A piece's slice per rank is rounded up to a cache line, hence the line to spare. */
size_t shm_result_bytes(const ShmHeader *header)
{
    return round_up(header->staging_bytes / header->size + 64, 64);
}

static size_t rank_bytes(const ShmHeader *header)
{
    return 2 * header->staging_bytes + round_up(2 * shm_result_bytes(header), PAGE);
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

static Status reserve(int fd, size_t bytes, Error *err)
{
    if (ftruncate(fd, (off_t)bytes) != 0)
        return error_set_errno(err, errno, "could not size shared memory of %zu bytes", bytes);
    int errnum = posix_fallocate(fd, 0, (off_t)bytes);
    if (errnum != 0)
        return error_set_errno(err, errnum, "could not reserve shared memory of %zu bytes", bytes);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return error_set_errno(err, errno, "could not seal shared memory");
    return OK;
}

static Status map(int fd, size_t bytes, ShmHeader **ret, Error *err)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED)
        return error_set_errno(err, errno, "could not map shared memory of %zu bytes", bytes);
    *ret = memory;
    return OK;
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
    plan.total_bytes = header_bytes(plan.size) + plan.size * rank_bytes(&plan);
    plan.maker_pid = getpid();
    memcpy(plan.magic, magic, sizeof magic);
    if (!process_start_ticks(getpid(), &plan.maker_start_ticks))
        return error_set(err, ERR_UNSUPPORTED, "/proc/self/stat cannot be read: is /proc mounted?");
    if (getrandom(plan.nonce, sizeof plan.nonce, 0) != (ssize_t)sizeof plan.nonce)
        return error_set_errno(err, errno, "could not draw a random id");

    int fd = memfd_create("troupe-comm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return error_set_errno(err, errno, "could not make a memory file");
    ShmHeader *header = NULL;
    Status status = reserve(fd, plan.total_bytes, err);
    if (status == OK) status = map(fd, plan.total_bytes, &header, err);
    if (status != OK) {
        close(fd);
        return status;
    }
    memcpy(header, &plan, sizeof plan);
    munmap(header, plan.total_bytes);
    memcpy(ret->magic, magic, sizeof magic);
    memcpy(ret->nonce, plan.nonce, sizeof plan.nonce);
    ret->pid = plan.maker_pid;
    ret->start_ticks = plan.maker_start_ticks;
    ret->fd = fd;
    ret->size = plan.size;
    ret->staging_bytes = plan.staging_bytes;
    ret->total_bytes = plan.total_bytes;
    return OK;
}

/* True when the descriptor is a memory file that holds this id's header and cannot shrink. */
static bool is_this_memory(int fd, const ShmId *id)
{
    struct stat info;
    ShmHeader header;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return false;
    if (fstat(fd, &info) != 0 || (uint64_t)info.st_size != id->total_bytes) return false;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header) return false;
    return memcmp(header.magic, magic, sizeof magic) == 0 &&
           memcmp(header.nonce, id->nonce, sizeof header.nonce) == 0 && header.size == id->size &&
           header.staging_bytes == id->staging_bytes && header.total_bytes == id->total_bytes;
}

bool shm_memory_is_held_here(const ShmId *id)
{
    return id->pid == getpid() && is_this_memory(id->fd, id);
}

Status shm_memory_open(const ShmId *id, ShmHeader **ret, Error *err)
{
    if (memcmp(id->magic, magic, sizeof magic) != 0)
        return error_set(err, ERR_INVALID, "this is not the id of a shared-memory group");
    if (!process_is_alive(id->pid, id->start_ticks))
        return error_set(err, ERR_UNAVAILABLE,
                         "rank 0 (pid %d) that made the shared memory is gone", id->pid);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", id->pid, id->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return error_set(
            err, ERR_UNAVAILABLE,
            "rank 0 (pid %d) no longer holds the group's shared memory: it gave up, or "
            "the group is already complete",
            id->pid);
    if (fd < 0)
        return error_set_errno(err, errno, "could not open rank 0's shared memory %s", path);
    Status status = OK;
    if (!is_this_memory(fd, id))
        status =
            error_set(err, ERR_UNAVAILABLE,
                      "descriptor %d of rank 0 (pid %d) is no longer this group's shared memory",
                      id->fd, id->pid);
    else
        status = map(fd, id->total_bytes, ret, err);
    close(fd);
    return status;
}

void shm_memory_close(ShmHeader *header)
{
    if (header != NULL) munmap(header, header->total_bytes);
}
