/* Making a checkpoint. Durability is layered: data of a file (fsync of the file), its name (fsync
 * of its folder), the folder's own name (fsync of the parent); each step starts when the one before
 * is on disk. A failed fsync is never tried again: the kernel may have dropped the pages and call
 * them clean, so the whole attempt goes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/manifest_file.h"

#define PIECE_BYTES ((size_t)1 << 20)

Status checkpoint_begin(const char *root, int64_t step, char **ret_folder, Error *err)
{
    CHECK(step >= 0);
    uint32_t attempt = 0;
    TRY(folder_create(root, err));
    if (getrandom(&attempt, sizeof attempt, 0) != (ssize_t)sizeof attempt)
        return error_set_errno(err, errno, "could not draw a random number");
    char *folder = mem_printf("%s/step_%08" PRId64 ".%08x" PARTIAL_SUFFIX, root, step, attempt);
    if (mkdir(folder, 0755) != 0) {
        Status status = error_set_errno(err, errno, "could not create folder %s", folder);
        free(folder);
        return status;
    }
    *ret_folder = folder;
    return OK;
}

void checkpoint_abandon(const char *folder)
{
    Error ignored; /* the next prune sweeps what stays */
    folder_remove(folder, &ignored);
}

/* ---- adding files ---- */

/* Where the bytes of a new file come from: memory, or a descriptor when `bytes` is NULL. */
typedef struct Content {
    const char *bytes;
    int fd;
    int64_t length;
    const char *path; /* of the descriptor, for messages */
} Content;

static Status reserve(int fd, int64_t length, const char *path, Error *err)
{
    int errnum = length > 0 ? posix_fallocate(fd, 0, (off_t)length) : 0;
    if (errnum == 0) return OK;
    struct statvfs disk;
    int64_t available = -1;
    if (fstatvfs(fd, &disk) == 0) available = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    return error_set_errno(err, errnum,
                           "could not reserve %" PRId64
                           " bytes for %s (the file system has %" PRId64 " left)",
                           length, path, available);
}

static Status put_content(int fd, const Content *content, const char *path, char ret_sha256[65],
                          Error *err)
{
    char *buffer = content->bytes == NULL ? mem_alloc(PIECE_BYTES) : NULL;
    Digest *digest = digest_create();
    Status status = reserve(fd, content->length, path, err);
    for (int64_t done = 0; status == OK && done < content->length;) {
        int64_t left = content->length - done;
        size_t piece = left < (int64_t)PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        const char *from = content->bytes != NULL ? content->bytes + done : buffer;
        if (content->bytes == NULL)
            status = file_read_at(content->fd, buffer, piece, done, content->path, err);
        if (status != OK) break;
        digest_update(digest, from, piece);
        status = file_write_all(fd, from, piece, path, err);
        done += (int64_t)piece;
    }
    if (status == OK && fsync(fd) != 0)
        status = error_set_errno(err, errno, "could not flush %s", path);
    digest_finish(digest, ret_sha256);
    digest_destroy(digest);
    free(buffer);
    return status;
}

static Status add_content(const char *folder, const char *name, const Content *content,
                          Manifest *manifest, Error *err)
{
    TRY(manifest_check_name(name, err));
    char sha256[DIGEST_HEX_BYTES];
    char *path = path_join(folder, name);
    Status status = OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        status = error_set_errno(err, errno, "could not create %s", path);
        goto done;
    }
    status = put_content(fd, content, path, sha256, err);
    if (close(fd) != 0 && status == OK)
        status = error_set_errno(err, errno, "could not close %s", path);
    if (status == OK)
        manifest_add_file(manifest, name, content->length, sha256);
    else
        unlink(path);
done:
    free(path);
    return status;
}

Status checkpoint_add_bytes(const char *folder, const char *name, const void *bytes, size_t length,
                            Manifest *manifest, Error *err)
{
    Content content = {.bytes = length > 0 ? bytes : "", .length = (int64_t)length};
    return add_content(folder, name, &content, manifest, err);
}

Status checkpoint_add_copy(const char *folder, const char *name, const char *source_path,
                           Manifest *manifest, Error *err)
{
    struct stat info;
    Status status = OK;
    int fd = open(source_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", source_path);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = error_set(err, ERR_INVALID, "%s is not a regular file", source_path);
    } else {
        Content content = {.fd = fd, .length = (int64_t)info.st_size, .path = source_path};
        status = add_content(folder, name, &content, manifest, err);
    }
    close(fd);
    return status;
}

/* ---- commit ---- */

static bool is_listed(const Manifest *manifest, const char *name)
{
    for (int i = 0; i < manifest->num_files; i++)
        if (strcmp(manifest->file[i].name, name) == 0) return true;
    return false;
}

/* The folder holds the manifest's files in their sizes, and nothing else. Digests are the writers'
 * own. */
static Status check_folder(const char *folder, const Manifest *manifest, Error *err)
{
    Status status = OK;
    for (int i = 0; i < manifest->num_files && status == OK; i++) {
        const ManifestFile *file = &manifest->file[i];
        struct stat info;
        char *path = path_join(folder, file->name);
        if (lstat(path, &info) != 0)
            status = error_set_errno(err, errno, "%s is in the manifest but cannot be found", path);
        else if (!S_ISREG(info.st_mode) || (int64_t)info.st_size != file->bytes)
            status = error_set(err, ERR_DATA, "%s has %lld bytes, its writer reported %" PRId64,
                               path, (long long)info.st_size, file->bytes);
        free(path);
    }
    if (status != OK) return status;
    DIR *entries = opendir(folder);
    if (entries == NULL) return error_set_errno(err, errno, "could not open folder %s", folder);
    for (struct dirent *entry; status == OK && (entry = readdir(entries)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!is_listed(manifest, entry->d_name))
            status =
                error_set(err, ERR_INVALID, "%s/%s is not in the manifest", folder, entry->d_name);
    }
    closedir(entries);
    return status;
}

static Status write_manifest(const char *folder, const Manifest *manifest, Error *err)
{
    char *text = NULL;
    size_t length = 0;
    TRY(manifest_text(manifest, &text, &length, err));
    char *path = path_join(folder, MANIFEST_NAME);
    Status status = file_write_atomic(path, text, length, err);
    free(path);
    free(text);
    return status;
}

/* Gives the folder its final name. If that is taken, the two change names in one step; `folder` is
 * then the old one. */
static Status put_in_place(const char *folder, const char *final, bool *ret_exchanged, Error *err)
{
    bool taken = path_exists(final);
    unsigned flags = taken ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    int failed = renameat2(AT_FDCWD, folder, AT_FDCWD, final, flags);
    if (failed && (errno == EINVAL || errno == ENOSYS)) {
        /* A file system without these flags: with two steps, a kill in between leaves the older
         * checkpoints and none of this step. */
        Error ignored;
        if (taken) checkpoint_remove(final, &ignored);
        taken = false;
        failed = rename(folder, final);
    }
    if (failed) return error_set_errno(err, errno, "could not rename %s to %s", folder, final);
    *ret_exchanged = taken;
    return OK;
}

/* Undoes put_in_place as far as it goes; the attempt is under its first name again. */
static void take_back(const char *folder, const char *final, bool exchanged)
{
    if (exchanged)
        (void)!renameat2(AT_FDCWD, folder, AT_FDCWD, final, RENAME_EXCHANGE);
    else
        (void)!rename(final, folder);
}

void checkpoint_write_hint(const char *root, const char *hint, const char *name)
{
    Error ignored;
    char *path = path_join(root, hint);
    char *line = mem_printf("%s\n", name != NULL ? name : "");
    /* A wrong hint is worse than none. */
    if (name == NULL || file_write_atomic(path, line, strlen(line), &ignored) != OK) unlink(path);
    free(line);
    free(path);
}

Status checkpoint_commit(const char *root, const char *folder, const Manifest *manifest,
                         char **ret_path, Error *err)
{
    char *name = mem_printf("step_%08" PRId64, manifest->step);
    char *final = path_join(root, name);
    bool exchanged = false;
    Status status = check_folder(folder, manifest, err);
    /* This also flushes the folder, and with it the names of all files in it. */
    if (status == OK) status = write_manifest(folder, manifest, err);
    if (status == OK) status = put_in_place(folder, final, &exchanged, err);
    if (status == OK) {
        status = file_sync_folder(root, err);
        if (status != OK) take_back(folder, final, exchanged);
    }
    if (status == OK) {
        checkpoint_write_hint(root, LATEST_NAME, name);
        *ret_path = final;
        final = NULL;
    }
    if (status != OK || exchanged) checkpoint_abandon(folder);
    free(final);
    free(name);
    return status;
}
