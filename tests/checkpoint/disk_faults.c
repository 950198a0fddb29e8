#include "disk_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define ENTRIES_MAX 512

typedef enum { NAME_CREATED, NAME_FOLDER, NAME_RENAMED, NAME_EXCHANGED } NameKind;

typedef struct NameChange {
    NameKind kind;
    bool durable;
    char parent[PATH_MAX]; /* whose flush makes it durable */
    char path[PATH_MAX], to[PATH_MAX];
} NameChange;

/* A file that was written to: known by its inode, for names change. */
typedef struct FileState {
    ino_t inode;
    off_t flushed; /* bytes that the last flush saw */
    bool dirty;
} FileState;

typedef struct State {
    bool armed;
    FaultKind kind;
    int at, errnum, count;
    char hit[32];
    NameChange name[ENTRIES_MAX];
    int num_names;
    FileState file[ENTRIES_MAX];
    int num_files;
} State;

static State *state;

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __real_read(int fd, void *bytes, size_t length);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags);
int __real_mkdir(const char *path, mode_t mode);
int __real_posix_fallocate(int fd, off_t offset, off_t length);
int __real_ftruncate(int fd, off_t length);
int __real_unlink(const char *path);
int __real_rmdir(const char *path);
int __real_close(int fd);

void faults_init(void)
{
    if (state != NULL) return;
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(state != MAP_FAILED);
}

void faults_arm(FaultKind kind, int at, int errnum)
{
    memset(state, 0, sizeof *state);
    state->kind = kind;
    state->at = at;
    state->errnum = errnum;
    state->armed = true;
}

void faults_disarm(void)
{
    state->armed = false;
}

int faults_count(void)
{
    return state->count;
}

const char *faults_hit(void)
{
    return state->hit;
}

/* True when this call must not do its work. */
static bool strikes(const char *call)
{
    if (state == NULL || !state->armed || ++state->count != state->at) return false;
    if (state->kind == FAULT_NONE) return false;
    snprintf(state->hit, sizeof state->hit, "%s", call);
    if (state->kind == FAULT_KILL && strcmp(call, "write") != 0) kill(getpid(), SIGKILL);
    errno = state->errnum;
    return true;
}

static bool watching(void)
{
    return state != NULL && state->armed;
}

/* An absolute path whose last part may not exist. */
static void absolute(const char *path, char out[PATH_MAX])
{
    char copy[PATH_MAX], folder[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    char *slash = strrchr(copy, '/');
    const char *name = slash != NULL ? slash + 1 : copy;
    if (slash != NULL) *slash = '\0';
    CHECK(realpath(slash == NULL ? "." : copy[0] == '\0' ? "/" : copy, folder) != NULL);
    CHECK(snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX);
}

static void note_name(NameKind kind, const char *path, const char *to)
{
    CHECK(state->num_names < ENTRIES_MAX);
    NameChange *change = &state->name[state->num_names++];
    change->kind = kind;
    absolute(path, change->path);
    if (to != NULL) absolute(to, change->to);
    memcpy(change->parent, change->path, sizeof change->parent);
    *strrchr(change->parent, '/') = '\0';
}

static void note_data(int fd, bool dirty)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return;
    int at = 0;
    while (at < state->num_files && state->file[at].inode != info.st_ino)
        at++;
    if (at == state->num_files) {
        CHECK(at < ENTRIES_MAX);
        state->file[state->num_files++] = (FileState){.inode = info.st_ino};
    }
    state->file[at].dirty = dirty;
    if (!dirty) state->file[at].flushed = info.st_size;
}

static void note_flush(int fd)
{
    char link[64], path[PATH_MAX];
    note_data(fd, false);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    CHECK(length > 0);
    path[length] = '\0';
    for (int i = 0; i < state->num_names; i++)
        if (strcmp(state->name[i].parent, path) == 0) state->name[i].durable = true;
}

/* ---- the wrapped calls ---- */

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    bool creates = (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
    if ((flags & O_CREAT) != 0 && strikes("open")) return -1;
    int fd = __real_open(path, flags, mode);
    if (fd >= 0 && creates && watching()) note_name(NAME_CREATED, path, NULL);
    return fd;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return __real_write(fd, bytes, length);
    if (strikes("write")) {
        /* A torn write: half of it is there. */
        (void)!__real_write(fd, bytes, length / 2);
        note_data(fd, true);
        if (state->kind == FAULT_KILL) kill(getpid(), SIGKILL);
        errno = state->errnum;
        return -1;
    }
    if (watching()) note_data(fd, true);
    return __real_write(fd, bytes, length);
}

static int read_errnum;

void faults_fail_reads(int errnum)
{
    read_errnum = errnum;
}

ssize_t __wrap_read(int fd, void *bytes, size_t length);
ssize_t __wrap_read(int fd, void *bytes, size_t length)
{
    if (read_errnum == 0) return __real_read(fd, bytes, length);
    errno = read_errnum;
    return -1;
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    if (strikes("fsync")) return -1;
    if (watching()) note_flush(fd);
    return 0; /* the machine does not really lose power, and the real one takes milliseconds */
}

int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    if (strikes("rename")) return -1;
    int result = __real_rename(from, to);
    if (result == 0 && watching()) note_name(NAME_RENAMED, from, to);
    return result;
}

int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags);
int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags)
{
    if (strikes("renameat2")) return -1;
    int result = __real_renameat2(from_folder, from, to_folder, to, flags);
    if (result == 0 && watching())
        note_name(flags & RENAME_EXCHANGE ? NAME_EXCHANGED : NAME_RENAMED, from, to);
    return result;
}

int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    if (strikes("mkdir")) return -1;
    int result = __real_mkdir(path, mode);
    if (result == 0 && watching()) note_name(NAME_FOLDER, path, NULL);
    return result;
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t length);
int __wrap_posix_fallocate(int fd, off_t offset, off_t length)
{
    if (strikes("posix_fallocate")) return state->errnum;
    if (watching()) note_data(fd, true);
    return __real_posix_fallocate(fd, offset, length);
}

int __wrap_ftruncate(int fd, off_t length);
int __wrap_ftruncate(int fd, off_t length)
{
    if (strikes("ftruncate")) return -1;
    if (watching()) note_data(fd, true);
    return __real_ftruncate(fd, length);
}

int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    if (strikes("unlink")) return -1;
    return __real_unlink(path);
}

int __wrap_rmdir(const char *path);
int __wrap_rmdir(const char *path)
{
    if (strikes("rmdir")) return -1;
    return __real_rmdir(path);
}

int __wrap_close(int fd);
int __wrap_close(int fd)
{
    struct stat info;
    bool writes = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                  (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int result = __real_close(fd);
    if (writes && strikes("close")) return -1;
    return result;
}

/* ---- the power cut ---- */

static int lose_data(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)place;
    if (type != FTW_F || info->st_size == 0) return 0;
    for (int i = 0; i < state->num_files; i++) {
        const FileState *file = &state->file[i];
        if (file->inode != info->st_ino || !file->dirty) continue;
        off_t kept = info->st_size / 2 > file->flushed ? info->st_size / 2 : file->flushed;
        if (kept >= info->st_size) continue;
        CHECK(truncate(path, kept) == 0);
        CHECK(truncate(path, info->st_size) == 0);
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

/* Replaces the folder `from`, if `path` lies below it, by `to`. */
static bool move_path(char path[PATH_MAX], const char *from, const char *to)
{
    char moved[PATH_MAX];
    size_t length = strlen(from);
    if (strncmp(path, from, length) != 0 || path[length] != '/') return false;
    CHECK(snprintf(moved, sizeof moved, "%s%s", to, path + length) < PATH_MAX);
    memcpy(path, moved, sizeof moved);
    return true;
}

/* Where that name lies now: folders above it may have been renamed for good since. */
static void follow_renames(int index, char path[PATH_MAX])
{
    for (int i = index + 1; i < state->num_names; i++) {
        const NameChange *later = &state->name[i];
        if (!later->durable || (later->kind != NAME_RENAMED && later->kind != NAME_EXCHANGED))
            continue;
        if (!move_path(path, later->path, later->to) && later->kind == NAME_EXCHANGED)
            move_path(path, later->to, later->path);
    }
}

void faults_power_cut(const char *root, Loss loss)
{
    faults_disarm();
    if (loss == LOSE_NOTHING) return;
    CHECK(nftw(root, lose_data, 16, FTW_PHYS) == 0);
    if (loss == LOSE_DATA) return;
    for (int i = state->num_names - 1; i >= 0; i--) {
        const NameChange *change = &state->name[i];
        char path[PATH_MAX], to[PATH_MAX];
        if (change->durable) continue;
        memcpy(path, change->path, sizeof path);
        memcpy(to, change->to, sizeof to);
        follow_renames(i, path);
        follow_renames(i, to);
        /* Whatever is named may be gone since. */
        if (change->kind == NAME_RENAMED)
            (void)!rename(to, path);
        else if (change->kind == NAME_EXCHANGED)
            (void)!renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_EXCHANGE);
        else
            nftw(path, remove_one, 16, FTW_PHYS | FTW_DEPTH);
    }
}
