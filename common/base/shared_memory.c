#include "base/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"

static const char magic[8] = "TRPSHM2";

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

static Status map(int fd, size_t bytes, bool writable, SharedMemory **ret, Error *err)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *memory = mmap(NULL, bytes, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED)
        return error_set_errno(err, errno, "could not map shared memory of %zu bytes", bytes);
    *ret = memory;
    return OK;
}

Status shared_memory_create(const char *name, size_t bytes, SharedMemoryId *ret_id,
                            SharedMemory **ret, Error *err)
{
    CHECK(bytes >= sizeof(SharedMemory));
    SharedMemoryId id = {.bytes = bytes, .pid = getpid()};
    if (!process_start_ticks(getpid(), &id.start_ticks))
        return error_set(err, ERR_UNSUPPORTED, "/proc/self/stat cannot be read: is /proc mounted?");
    if (getrandom(id.nonce, sizeof id.nonce, 0) != (ssize_t)sizeof id.nonce)
        return error_set_errno(err, errno, "could not draw a random id");
    id.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (id.fd < 0) return error_set_errno(err, errno, "could not make a memory file");
    SharedMemory *memory = NULL;
    Status status = reserve(id.fd, bytes, err);
    if (status == OK) status = map(id.fd, bytes, true, &memory, err);
    if (status != OK) {
        close(id.fd);
        return status;
    }
    memcpy(memory->magic, magic, sizeof magic);
    memcpy(memory->nonce, id.nonce, sizeof id.nonce);
    memory->bytes = bytes;
    memory->maker_start_ticks = id.start_ticks;
    memory->maker_pid = id.pid;
    *ret_id = id;
    *ret = memory;
    return OK;
}

/* True when the descriptor is a memory file that holds this id's header and cannot shrink. */
static bool is_this_memory(int fd, const SharedMemoryId *id)
{
    struct stat info;
    SharedMemory header;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return false;
    if (fstat(fd, &info) != 0 || (uint64_t)info.st_size != id->bytes) return false;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header) return false;
    return memcmp(header.magic, magic, sizeof magic) == 0 &&
           memcmp(header.nonce, id->nonce, sizeof header.nonce) == 0 && header.bytes == id->bytes;
}

bool shared_memory_is_held_here(const SharedMemoryId *id)
{
    return id->pid == getpid() && is_this_memory(id->fd, id);
}

void shared_memory_discard(const SharedMemoryId *id)
{
    if (shared_memory_is_held_here(id)) close(id->fd);
}

Status shared_memory_open(const SharedMemoryId *id, const char *maker, bool writable,
                          SharedMemory **ret, Error *err)
{
    if (id->pid <= 0) return error_set(err, ERR_INVALID, "this is not the id of a shared memory");
    if (!process_is_alive(id->pid, id->start_ticks))
        return error_set(err, ERR_UNAVAILABLE, "%s (pid %d) that made the shared memory is gone",
                         maker, id->pid);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", id->pid, id->fd);
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return error_set(err, ERR_UNAVAILABLE,
                         "%s (pid %d) no longer holds the shared memory: it gave up, or everybody "
                         "it was for has it",
                         maker, id->pid);
    if (fd < 0)
        return error_set_errno(err, errno, "could not open the shared memory of %s, %s", maker,
                               path);
    Status status = OK;
    if (!is_this_memory(fd, id))
        status = error_set(err, ERR_UNAVAILABLE,
                           "descriptor %d of %s (pid %d) is no longer this shared memory", id->fd,
                           maker, id->pid);
    else
        status = map(fd, id->bytes, writable, ret, err);
    close(fd);
    return status;
}

void shared_memory_unmap(SharedMemory *memory)
{
    if (memory != NULL) munmap(memory, memory->bytes);
}
