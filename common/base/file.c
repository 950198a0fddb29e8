#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

Status file_read_at(int fd, void *bytes, size_t length, int64_t offset, const char *path,
                    Error *err)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, (char *)bytes + done, length - done, (off_t)offset + (off_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set_errno(err, errno, "could not read %s", path);
        if (got == 0)
            return error_set(err, ERR_DATA,
                             "%s ends at byte %lld, %zu bytes before the expected end", path,
                             (long long)offset + (long long)done, length - done);
        done += (size_t)got;
    }
    return OK;
}

Status file_read(const char *path, size_t bytes_max, char **ret_bytes, size_t *ret_length,
                 Error *err)
{
    Status status = OK;
    char *bytes = NULL;
    struct stat info;
    /* O_NONBLOCK: a named pipe must not make us wait before it is refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    if (fstat(fd, &info) != 0) {
        status = error_set_errno(err, errno, "could not stat %s", path);
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        status = error_set(err, ERR_INVALID, "%s is not a regular file", path);
        goto done;
    }
    if ((uint64_t)info.st_size > bytes_max) {
        status = error_set(err, ERR_INVALID, "%s has %lld bytes, at most %zu are read", path,
                           (long long)info.st_size, bytes_max);
        goto done;
    }
    size_t length = (size_t)info.st_size;
    bytes = mem_alloc(length + 1);
    status = file_read_at(fd, bytes, length, 0, path, err);
    if (status != OK) goto done;
    bytes[length] = '\0';
    *ret_bytes = bytes;
    if (ret_length != NULL) *ret_length = length;
    bytes = NULL;
done:
    free(bytes);
    close(fd);
    return status;
}

Status file_write_all(int fd, const void *bytes, size_t length, const char *path, Error *err)
{
    size_t done = 0;
    while (done < length) {
        ssize_t put = write(fd, (const char *)bytes + done, length - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return error_set_errno(err, errno, "could not write %s", path);
        done += (size_t)put;
    }
    return OK;
}

static Status sync_path(const char *path, int flags, const char *what, Error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s%s", what, path);
    Status status = OK;
    /* EINVAL: a file system whose folders have nothing to flush. */
    if (fsync(fd) != 0 && errno != EINVAL)
        status = error_set_errno(err, errno, "could not flush %s%s", what, path);
    close(fd);
    return status;
}

Status file_sync(const char *path, Error *err)
{
    return sync_path(path, 0, "", err);
}

Status file_sync_folder(const char *path, Error *err)
{
    return sync_path(path, O_DIRECTORY, "folder ", err);
}

Status file_write_atomic(const char *path, const void *bytes, size_t length, Error *err)
{
    char *temporary = mem_printf("%s.tmp-%d", path, (int)getpid());
    char *folder = path_folder(path);
    Status status = OK;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        status = error_set_errno(err, errno, "could not create %s", temporary);
        goto done;
    }
    status = file_write_all(fd, bytes, length, temporary, err);
    if (status == OK && fsync(fd) != 0)
        status = error_set_errno(err, errno, "could not flush %s", temporary);
    if (close(fd) != 0 && status == OK)
        status = error_set_errno(err, errno, "could not close %s", temporary);
    if (status == OK && rename(temporary, path) != 0)
        status = error_set_errno(err, errno, "could not rename %s to %s", temporary, path);
    if (status == OK)
        status = file_sync_folder(folder, err);
    else
        unlink(temporary);
done:
    free(folder);
    free(temporary);
    return status;
}

/* Makes one folder whose parent exists, and its name durable. */
static Status make_folder(const char *path, const char *parent, Error *err)
{
    if (mkdir(path, 0755) == 0) return file_sync_folder(parent, err);
    if (errno == EEXIST && path_is_folder(path)) return OK;
    return error_set_errno(err, errno, "could not create folder %s", path);
}

Status folder_create(const char *path, Error *err)
{
    if (path_is_folder(path)) return OK;
    char *parent = path_folder(path);
    Status status = OK;
    if (!path_exists(parent) && strcmp(parent, path) != 0) status = folder_create(parent, err);
    if (status == OK) status = make_folder(path, parent, err);
    free(parent);
    return status;
}

static Status folder_empty(const char *path, Error *err)
{
    DIR *folder = opendir(path);
    if (folder == NULL) return error_set_errno(err, errno, "could not open folder %s", path);
    Status status = OK;
    for (struct dirent *entry; status == OK && (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *child = path_join(path, entry->d_name);
        status = folder_remove(child, err);
        free(child);
    }
    closedir(folder);
    return status;
}

Status folder_remove(const char *path, Error *err)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        if (errno == ENOENT) return OK;
        return error_set_errno(err, errno, "could not stat %s", path);
    }
    if (S_ISDIR(info.st_mode)) {
        TRY(folder_empty(path, err));
        if (rmdir(path) != 0 && errno != ENOENT)
            return error_set_errno(err, errno, "could not remove folder %s", path);
    } else if (unlink(path) != 0 && errno != ENOENT) {
        return error_set_errno(err, errno, "could not remove %s", path);
    }
    return OK;
}

bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *path_join(const char *folder, const char *name)
{
    if (name[0] == '/' || folder == NULL || folder[0] == '\0') return mem_strdup(name);
    size_t length = strlen(folder);
    return mem_printf("%s%s%s", folder, folder[length - 1] == '/' ? "" : "/", name);
}

char *path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return mem_strdup(".");
    if (slash == path) return mem_strdup("/");
    return mem_strndup(path, (size_t)(slash - path));
}

char *path_existing_folder(const char *path)
{
    char *folder = mem_strdup(path);
    while (!path_is_folder(folder) && strcmp(folder, "/") != 0 && strcmp(folder, ".") != 0) {
        char *parent = path_folder(folder);
        free(folder);
        folder = parent;
    }
    return folder;
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}
