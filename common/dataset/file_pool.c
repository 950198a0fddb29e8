#include "dataset/file_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"

#define OPEN_MIN 8 /* however little the process may open */
#define OPEN_SHARE                                                                                 \
    4 /* of its descriptors one in so many: sockets, logs and libraries have theirs */
#define CLOSED      (-1)
#define CLOSED_SLOT (-1)

struct DataFile {
    FilePool *pool;
    FileState state;
    _Atomic int users; /* of the descriptor; CLOSED: there is none */
    atomic_bool used;  /* since the hand went by */
    int fd;            /* written with the lock held while it is CLOSED */
    int slot;          /* in the pool's list; with the lock held */
    char path[];
};

/* Which file is closed is found as a clock finds a page (Corbato 1968): the hand goes round, and
 * takes the first that was not used since it went by last. */
struct FilePool {
    pthread_mutex_t lock; /* of what follows */
    DataFile **open;      /* [num_open] */
    int num_open, capacity, open_max, hand;
};

static int usual_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return OPEN_MIN;
    rlim_t share = limit.rlim_cur / OPEN_SHARE;
    if (share > DATA_FILES_OPEN_MAX) return DATA_FILES_OPEN_MAX;
    return share > OPEN_MIN ? (int)share : OPEN_MIN;
}

FilePool *file_pool_create(int open_max)
{
    FilePool *pool = mem_calloc(1, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pool->open_max = open_max > 0 ? open_max : usual_max();
    return pool;
}

void file_pool_destroy(FilePool *pool)
{
    if (pool == NULL) return;
    CHECK(pool->num_open == 0);
    pthread_mutex_destroy(&pool->lock);
    free(pool->open);
    free(pool);
}

void file_pool_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* refused: it stays as it is */
}

/* ---- with the lock held ---- */

static void leave(FilePool *pool, DataFile *file)
{
    DataFile *last = pool->open[--pool->num_open];
    pool->open[file->slot] = last;
    last->slot = file->slot;
    file->slot = CLOSED_SLOT;
    close(file->fd);
}

/* Closes one that nobody uses; false: there is none. */
static bool close_one(FilePool *pool)
{
    for (int looks = 2 * pool->num_open; looks > 0; looks--) {
        if (pool->hand >= pool->num_open) pool->hand = 0;
        DataFile *file = pool->open[pool->hand];
        int nobody = 0;
        bool kept = atomic_exchange(&file->used, false) ||
                    !atomic_compare_exchange_strong(&file->users, &nobody, CLOSED);
        if (kept) {
            pool->hand++;
            continue;
        }
        leave(pool, file);
        return true;
    }
    return false;
}

/* With its first user. */
static void join(FilePool *pool, DataFile *file, int fd)
{
    if (pool->num_open == pool->capacity) {
        pool->capacity = 2 * pool->capacity + 16;
        pool->open = mem_realloc(pool->open, (size_t)pool->capacity, sizeof *pool->open);
    }
    file->slot = pool->num_open;
    pool->open[pool->num_open++] = file;
    file->fd = fd;
    file->used = true;
    file->users = 1;
}

/* ---- opening ---- */

static FileState state_of(const struct stat *info)
{
    return (FileState){
        .device = (uint64_t)info->st_dev,
        .inode = (uint64_t)info->st_ino,
        .bytes = (uint64_t)info->st_size,
        .modified_ns = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec,
        .changed_ns = (int64_t)info->st_ctim.tv_sec * 1000000000 + info->st_ctim.tv_nsec};
}

static Status refuse_many(const char *path, int code, Error *err)
{
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    if (code == ENFILE)
        return error_set(err, ERR_RESOURCE,
                         "could not open %s: all files that this machine opens at a time are open\n"
                         "  expected: some that are left for this run\n"
                         "  to do: end what holds them, or raise the limit with sysctl fs.file-max",
                         path);
    return error_set(err, ERR_RESOURCE,
                     "could not open %s: this process has the %llu files open that it may\n"
                     "  expected: some that are left for data files\n"
                     "  to do: raise the limit where the run is started, with ulimit -n %llu",
                     path, (unsigned long long)limit.rlim_cur,
                     4 * (unsigned long long)limit.rlim_cur);
}

/* Where the process can open no more, others of the pool are closed. */
static Status open_descriptor(FilePool *pool, const char *path, int *ret_fd, struct stat *ret,
                              Error *err)
{
    for (;;) {
        /* O_NONBLOCK: a FIFO by mistake is refused instead of being waited for. */
        *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (*ret_fd >= 0) break;
        int code = errno;
        if (code != EMFILE && code != ENFILE)
            return error_set_errno(err, code, "could not open %s", path);
        pthread_mutex_lock(&pool->lock);
        bool closed = close_one(pool);
        pthread_mutex_unlock(&pool->lock);
        if (!closed) return refuse_many(path, code, err);
    }
    if (fstat(*ret_fd, ret) == 0) return OK;
    Status status = error_set_errno(err, errno, "could not stat %s", path);
    close(*ret_fd);
    return status;
}

/* The descriptor becomes the file's, which has a user then, unless another thread was quicker. */
static void adopt(DataFile *file, int fd)
{
    FilePool *pool = file->pool;
    pthread_mutex_lock(&pool->lock);
    if (file->slot == CLOSED_SLOT) {
        while (pool->num_open >= pool->open_max && close_one(pool))
            ;
        join(pool, file, fd);
    } else {
        file->users++; /* it is closed with the lock held alone */
        close(fd);
    }
    pthread_mutex_unlock(&pool->lock);
}

Status data_file_open(FilePool *pool, const char *path, DataFile **ret, Error *err)
{
    struct stat info;
    int fd = -1;
    TRY(open_descriptor(pool, path, &fd, &info, err));
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return error_set(err, ERR_INVALID,
                         "%s is not a regular file\n  expected: a file, which can be read at any "
                         "place and again\n  to do: write to a file what comes out of it, and name "
                         "that",
                         path);
    }
    size_t length = strlen(path) + 1;
    DataFile *file = mem_calloc(1, sizeof *file + length);
    memcpy(file->path, path, length);
    file->pool = pool;
    file->state = state_of(&info);
    file->slot = CLOSED_SLOT;
    file->users = CLOSED;
    adopt(file, fd);
    data_file_give(file);
    *ret = file;
    return OK;
}

void data_file_close(DataFile *file)
{
    if (file == NULL) return;
    pthread_mutex_lock(&file->pool->lock);
    CHECK(file->users <= 0);
    if (file->slot != CLOSED_SLOT) leave(file->pool, file);
    pthread_mutex_unlock(&file->pool->lock);
    free(file);
}

const char *data_file_path(const DataFile *file)
{
    return file->path;
}

const FileState *data_file_state(const DataFile *file)
{
    return &file->state;
}

/* ---- using ---- */

static Status refuse_other_file(const DataFile *file, const char *what, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s was %s during the run, which had closed it for others to be open\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     file->path, what);
}

static bool same_file(const FileState *a, const FileState *b)
{
    return a->device == b->device && a->inode == b->inode;
}

static bool same_content(const FileState *a, const FileState *b)
{
    return a->bytes == b->bytes && a->modified_ns == b->modified_ns;
}

static Status open_again(DataFile *file, Error *err)
{
    struct stat info;
    int fd = -1;
    Status status = open_descriptor(file->pool, file->path, &fd, &info, err);
    if (status == ERR_NOT_FOUND) return refuse_other_file(file, "removed", err);
    if (status != OK) return status;
    FileState now = state_of(&info);
    bool same = same_file(&now, &file->state);
    if (!same || !same_content(&now, &file->state)) {
        close(fd);
        return refuse_other_file(file, same ? "changed" : "replaced", err);
    }
    adopt(file, fd);
    return OK;
}

Status data_file_take(DataFile *file, int *ret_fd, Error *err)
{
    int users = file->users;
    while (users >= 0 && !atomic_compare_exchange_weak(&file->users, &users, users + 1))
        ;
    if (users < 0)
        TRY(open_again(file, err));
    else if (!file->used)
        file->used = true;
    *ret_fd = file->fd;
    return OK;
}

void data_file_give(DataFile *file)
{
    file->users--;
}

Status data_file_read(DataFile *file, void *bytes, size_t length, uint64_t offset, Error *err)
{
    int fd;
    TRY(data_file_take(file, &fd, err));
    Status status = file_read_at(fd, bytes, length, (int64_t)offset, file->path, err);
    data_file_give(file);
    return status;
}

Status data_file_check(DataFile *file, Error *err)
{
    struct stat info;
    int fd;
    TRY(data_file_take(file, &fd, err));
    int code = fstat(fd, &info) != 0 ? errno : 0;
    data_file_give(file);
    if (code != 0) return error_set_errno(err, code, "could not stat %s", file->path);
    FileState now = state_of(&info);
    if (same_content(&now, &file->state)) return OK;
    char what[80] = "as many bytes, with another modification time";
    if (now.bytes != file->state.bytes)
        snprintf(what, sizeof what, "%llu bytes, opened with %llu", (unsigned long long)now.bytes,
                 (unsigned long long)file->state.bytes);
    return error_set(err, ERR_IO,
                     "%s was changed during the run (%s)\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     file->path, what);
}

void data_file_advise(DataFile *file, uint64_t offset, uint64_t length, int advice)
{
    int fd;
    if (file->users == CLOSED || data_file_take(file, &fd, NULL) != OK) return;
    posix_fadvise(fd, (off_t)offset, (off_t)length, advice);
    data_file_give(file);
}
