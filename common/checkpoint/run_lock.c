#include "checkpoint/run_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"

struct RunLock {
    int fd;
};

#define HOLDER_MAX 512

/* What the file says of its holder: "pid 17 on host a since 2026-01-31T23:59:59.123Z", or "" when
 * it says nothing. */
static void read_holder(int fd, char holder[HOLDER_MAX])
{
    ssize_t length = pread(fd, holder, HOLDER_MAX - 1, 0);
    holder[length > 0 ? length : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    for (char *c = holder; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7E) *c = '?';
}

static Status write_holder(int fd, const char *path, Error *err)
{
    char host[256] = "unknown", stamp[CLOCK_STAMP_BYTES];
    gethostname(host, sizeof host - 1);
    char *line =
        mem_printf("pid %d on host %s since %s\n", (int)getpid(), host, clock_stamp(stamp));
    Status status = OK;
    if (ftruncate(fd, 0) != 0 || pwrite(fd, line, strlen(line), 0) != (ssize_t)strlen(line))
        status = error_set_errno(err, errno, "could not write the lock file %s", path);
    free(line);
    return status;
}

Status run_lock_acquire(const char *run_folder, RunLock **ret, char **ret_note, Error *err)
{
    char holder[HOLDER_MAX];
    char *path = path_join(run_folder, "lock");
    Status status = OK;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        status = error_set_errno(err, errno, "could not open the lock file %s", path);
        goto done;
    }
    int failed;
    while ((failed = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR)
        ;
    int errnum = errno;
    read_holder(fd, holder);
    if (failed && errnum == EWOULDBLOCK) {
        status = error_set(err, ERR_EXISTS,
                           "the run folder %s is in use by %s. Stop that run, or choose another "
                           "folder",
                           run_folder, holder[0] != '\0' ? holder : "another process");
        goto done;
    }
    if (failed) {
        status = error_set_errno(err, errnum, "could not lock %s", path);
        goto done;
    }
    status = write_holder(fd, path, err);
    if (status != OK) goto done;
    if (ret_note != NULL)
        *ret_note = holder[0] == '\0'
                        ? NULL
                        : mem_printf("took over the lock of a run that ended without giving it "
                                     "back: %s",
                                     holder);
    *ret = mem_calloc(1, sizeof **ret);
    (*ret)->fd = fd;
    fd = -1;
done:
    if (fd >= 0) close(fd);
    free(path);
    return status;
}

/* The file stays: removing it would let two processes lock two files of the same name. */
void run_lock_release(RunLock *lock)
{
    if (lock == NULL) return;
    if (ftruncate(lock->fd, 0) != 0) {
        /* The next run only says once too often that it took over. */
    }
    close(lock->fd);
    free(lock);
}
