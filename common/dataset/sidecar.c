#include "dataset/sidecar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/content_hash.h"

#define EDGE_BYTES (64u << 10)
#define COPY_BYTES (256u << 10)
#define ALIGNMENT  8                  /* of the body in the file */
#define FREE_BYTES (INT64_C(1) << 30) /* that a copy leaves of a disk, or a twentieth of it */

struct SidecarWriter {
    int out;
    int body; /* where the body is put: `out`, or beside it while that takes the spool */
    uint64_t spool_bytes;
    bool kept;
    const char *path; /* of `out`; NULL: it is in memory */
    XXH3_state_t *body_hash;
    uint64_t body_bytes;
    Error
        *out_err; /* what went wrong with `out`, as opposed to the data file; status OK: nothing */
};

static uint64_t header_hash(const SidecarHeader *header)
{
    return XXH3_64bits(header, offsetof(SidecarHeader, header_hash));
}

static Status read_state(int fd, const char *path, FileIdentity *ret, Error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return error_set_errno(err, errno, "could not stat %s", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERR_INVALID, "%s is not a regular file, which a data set must be",
                         path);
    ret->file_bytes = (uint64_t)info.st_size;
    ret->modified_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    ret->changed_ns = (int64_t)info.st_ctim.tv_sec * 1000000000 + info.st_ctim.tv_nsec;
    return OK;
}

static Status read_identity(int fd, const char *path, FileIdentity *ret, Error *err)
{
    FileIdentity identity = {0};
    TRY(read_state(fd, path, &identity, err));
    char *real = realpath(path, NULL);
    const char *name = real != NULL ? real : path;
    identity.path_hash = XXH3_64bits(name, strlen(name));
    free(real);
    size_t edge = identity.file_bytes < EDGE_BYTES ? (size_t)identity.file_bytes : EDGE_BYTES;
    char *bytes = mem_alloc(2 * edge);
    Status status = file_read_at(fd, bytes, edge, 0, path, err);
    if (status == OK)
        status =
            file_read_at(fd, bytes + edge, edge, (int64_t)(identity.file_bytes - edge), path, err);
    if (status == OK) {
        identity.edge_hash = XXH3_64bits(bytes, 2 * edge);
        *ret = identity;
    }
    free(bytes);
    return status;
}

/* ---- reading ---- */

/* Where the body begins in a file. */
static uint64_t body_place(uint64_t spool_bytes)
{
    return sizeof(SidecarHeader) + (spool_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Maps a body; NULL: it is not what the header says. */
static void *map_body(int fd, const SidecarHeader *header, Sidecar *sidecar)
{
    uint64_t place = body_place(header->spool_bytes), page = (uint64_t)sysconf(_SC_PAGESIZE);
    size_t before = (size_t)(place % page), bytes = before + (size_t)header->body_bytes;
    if (bytes == 0) bytes = 1;
    uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)(place - before));
    if (map == MAP_FAILED) return NULL;
    if (header->body_hash != XXH3_64bits(map + before, header->body_bytes)) {
        munmap(map, bytes);
        return NULL;
    }
    sidecar->map_bytes = bytes;
    sidecar->body = map + before;
    return map;
}

/* Maps a sidecar file; false when it is not a whole one of this kind. */
static bool map_sidecar(int fd, uint64_t magic, Sidecar *sidecar)
{
    SidecarHeader header;
    struct stat info;
    if (fstat(fd, &info) != 0 || info.st_size < (off_t)sizeof header) return false;
    if (file_read_at(fd, &header, sizeof header, 0, "", NULL) != OK) return false;
    uint64_t bytes = (uint64_t)info.st_size;
    if (header.magic != magic || header.header_hash != header_hash(&header) ||
        header.spool_bytes > bytes || body_place(header.spool_bytes) > bytes ||
        header.body_bytes != bytes - body_place(header.spool_bytes))
        return false;
    int spool = header.spool_bytes > 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (spool < 0 && header.spool_bytes > 0) return false;
    void *map = map_body(fd, &header, sidecar);
    if (map == NULL) {
        if (spool >= 0) close(spool);
        return false;
    }
    sidecar->fd = spool;
    sidecar->header = header;
    sidecar->map = map;
    return true;
}

static void unmap_sidecar(Sidecar *sidecar)
{
    if (sidecar->map != NULL) munmap(sidecar->map, sidecar->map_bytes);
    if (sidecar->fd >= 0) close(sidecar->fd);
    sidecar->map = NULL;
    sidecar->fd = -1;
}

bool sidecar_read(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length)
{
    const SidecarHeader *header = &sidecar->header;
    if (offset > header->spool_bytes || length > header->spool_bytes - offset) return false;
    int64_t at = (int64_t)(sizeof *header + offset);
    return file_read_at(sidecar->fd, bytes, length, at, "", NULL) == OK;
}

static bool load(const char *file, uint64_t magic, const FileIdentity *identity, Sidecar *sidecar)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool same = false;
    if (map_sidecar(fd, magic, sidecar)) {
        const FileIdentity *found = &sidecar->header.identity;
        same = found->path_hash == identity->path_hash &&
               found->file_bytes == identity->file_bytes &&
               found->modified_ns == identity->modified_ns &&
               found->edge_hash == identity->edge_hash && found->changed_ns == identity->changed_ns;
        if (!same) unmap_sidecar(sidecar);
    }
    close(fd);
    sidecar->reused = same;
    return same;
}

Status sidecar_check(const Sidecar *sidecar, int fd, const char *path, Error *err)
{
    const FileIdentity *known = &sidecar->header.identity;
    FileIdentity now = {0};
    TRY(read_state(fd, path, &now, err));
    if (now.file_bytes == known->file_bytes && now.modified_ns == known->modified_ns) return OK;
    return error_set(err, ERR_IO,
                     "%s was changed during the run (%llu bytes, indexed with %llu)\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     path, (unsigned long long)now.file_bytes,
                     (unsigned long long)known->file_bytes);
}

/* ---- building ---- */

void sidecar_put(SidecarWriter *writer, const void *bytes, size_t length)
{
    if (writer->out_err->status != OK) return;
    XXH3_64bits_update(writer->body_hash, bytes, length);
    writer->body_bytes += length;
    file_write_all(writer->body, bytes, length, "the index", writer->out_err);
}

void sidecar_begin_spool(SidecarWriter *writer)
{
    CHECK(writer->body == writer->out && writer->body_bytes == 0);
    if (writer->path == NULL) {
        writer->body = memfd_create("troupe-body", MFD_CLOEXEC);
    } else {
        char *beside = mem_printf("%s-body", writer->path);
        writer->body = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (writer->body >= 0) unlink(beside); /* gone with this process */
        free(beside);
    }
    if (writer->body < 0)
        error_set_errno(writer->out_err, errno, "could not make room for the index");
}

uint64_t sidecar_spool(SidecarWriter *writer, const void *bytes, size_t length)
{
    uint64_t at = writer->spool_bytes;
    CHECK(writer->body != writer->out);
    if (writer->out_err->status != OK) return at;
    file_write_all(writer->out, bytes, length, "the index", writer->out_err);
    writer->spool_bytes += length;
    return at;
}

bool sidecar_has_room(SidecarWriter *writer, uint64_t bytes)
{
    struct statvfs disk;
    if (writer->out_err->status != OK) return false;
    if (writer->path == NULL || fstatvfs(writer->out, &disk) != 0) return true;
    int64_t unit = (int64_t)disk.f_frsize, left = (int64_t)disk.f_bavail * unit;
    int64_t stays = (int64_t)disk.f_blocks * unit / 20;
    if (stays > FREE_BYTES) stays = FREE_BYTES;
    if (left - stays >= (int64_t)bytes) return true;
    error_set(
        writer->out_err, ERR_RESOURCE,
        "%s would become %.1f MB larger, and its disk has %.1f MB free, of which %.1f MB stay "
        "free",
        writer->path, (double)bytes * 1e-6, (double)left * 1e-6, (double)stays * 1e-6);
    return false;
}

bool sidecar_is_kept(const SidecarWriter *writer)
{
    return writer->kept;
}

/* Puts the body, which waits beside it, behind the spool. */
static void append_body(SidecarWriter *writer)
{
    static const char zeros[ALIGNMENT];
    if (writer->body == writer->out || writer->out_err->status != OK) return;
    size_t gap =
        (size_t)(body_place(writer->spool_bytes) - sizeof(SidecarHeader) - writer->spool_bytes);
    file_write_all(writer->out, zeros, gap, "the index", writer->out_err);
    char *bytes = mem_alloc(COPY_BYTES);
    for (uint64_t at = 0; at < writer->body_bytes && writer->out_err->status == OK;) {
        uint64_t left = writer->body_bytes - at;
        size_t length = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        if (file_read_at(writer->body, bytes, length, (int64_t)at, "the index", writer->out_err) ==
            OK)
            file_write_all(writer->out, bytes, length, "the index", writer->out_err);
        at += length;
    }
    free(bytes);
}

/* Puts the header in front, now that all of it is known. */
static void put_header(SidecarWriter *writer, SidecarHeader *header)
{
    header->body_bytes = writer->body_bytes;
    header->spool_bytes = writer->spool_bytes;
    header->body_hash = XXH3_64bits_digest(writer->body_hash);
    header->header_hash = header_hash(header);
    if (writer->out_err->status == OK && lseek(writer->out, 0, SEEK_SET) == 0)
        file_write_all(writer->out, header, sizeof *header, "the index", writer->out_err);
}

/* One opening of a sidecar: what is wanted, and of which state of the file. */
typedef struct Opening {
    const SidecarKind *kind;
    const SidecarOptions *options;
    FileIdentity identity;
    char *file; /* the sidecar's path */
} Opening;

/* Writes the whole sidecar to the open, empty file `out`. A failure of `out` alone is told in
 * *out_err, whose status is OK before. */
static Status build(const Opening *opening, SidecarWriter *writer, Error *err)
{
    const SidecarOptions *options = opening->options;
    SidecarHeader header = {.magic = opening->kind->magic, .identity = opening->identity};
    writer->body = writer->out;
    writer->body_hash = XXH3_createState();
    CHECK(writer->body_hash != NULL);
    XXH3_64bits_reset(writer->body_hash);
    if (lseek(writer->out, sizeof header, SEEK_SET) < 0)
        error_set_errno(writer->out_err, errno, "could not write the index");
    Status status = opening->kind->build(options->context, writer, &header, err);
    if (status != OK) goto done;
    append_body(writer);
    FileIdentity now = {0};
    status = read_state(options->fd, options->path, &now, err);
    if (status == OK && (now.file_bytes != header.identity.file_bytes ||
                         now.modified_ns != header.identity.modified_ns))
        status = error_set(err, ERR_IO,
                           "%s changed while it was being read; start again when it is complete",
                           options->path);
    if (status == OK) put_header(writer, &header);
done:
    if (writer->body >= 0 && writer->body != writer->out) close(writer->body);
    XXH3_freeState(writer->body_hash);
    return status;
}

/* Removes what builders that were killed left beside this sidecar. One that still lives keeps its
 * open file. */
static void remove_leftovers(const char *folder, const char *file)
{
    char *prefix = mem_printf("%s.tmp-", path_name(file));
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        if (str_starts_with(entry->d_name, prefix)) unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries != NULL) closedir(entries);
    free(prefix);
}

/* Builds into a file. When only that failed, the status is OK, the map absent and the reason in the
 * warning. */
static Status build_file(const Opening *opening, Sidecar *sidecar, Error *err)
{
    char *temporary = mem_printf("%s.tmp-%d", opening->file, (int)gettid());
    Error out_err = {0};
    SidecarWriter writer = {.kept = true, .path = temporary, .out_err = &out_err};
    Status status = OK;
    bool renamed = false;
    writer.out = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer.out < 0) {
        error_set_errno(&out_err, errno, "could not create %s", temporary);
        goto done;
    }
    status = build(opening, &writer, err);
    if (status != OK || out_err.status != OK) goto done;
    if (!map_sidecar(writer.out, opening->kind->magic, sidecar)) {
        error_set(&out_err, ERR_IO, "could not map %s", temporary);
    } else if (rename(temporary, opening->file) != 0) {
        error_set_errno(&out_err, errno, "could not rename %s to %s", temporary, opening->file);
    } else {
        renamed = true;
    }
done:
    if (out_err.status != OK) sidecar->warning = mem_strdup(out_err.message);
    if (writer.out >= 0 && !renamed) unlink(temporary);
    if (writer.out >= 0) close(writer.out);
    free(temporary);
    return status;
}

static Status build_in_memory(const Opening *opening, Sidecar *sidecar, Error *err)
{
    Error out_err = {0};
    SidecarWriter writer = {.out_err = &out_err};
    writer.out = memfd_create("troupe-index", MFD_CLOEXEC);
    if (writer.out < 0)
        return error_set_errno(err, errno, "could not make room for the index of %s",
                               opening->options->path);
    Status status = build(opening, &writer, err);
    if (status == OK &&
        (out_err.status != OK || !map_sidecar(writer.out, opening->kind->magic, sidecar)))
        status = error_set(err, ERR_RESOURCE, "not enough memory for the index of %s",
                           opening->options->path);
    close(writer.out);
    return status;
}

static Status open_with_folder(Opening *opening, Sidecar *sidecar, Error *err)
{
    const SidecarOptions *options = opening->options;
    Error folder_err = {0};
    char *name = mem_printf("%.100s-%016llx%s", path_name(options->path),
                            (unsigned long long)opening->identity.path_hash, opening->kind->suffix);
    opening->file = path_join(options->folder, name);
    free(name);
    if (load(opening->file, opening->kind->magic, &opening->identity, sidecar)) return OK;
    if (options->read_only) return OK;
    if (folder_create(options->folder, &folder_err) != OK) {
        sidecar->warning = mem_strdup(folder_err.message);
        return OK;
    }
    remove_leftovers(options->folder, opening->file);
    return build_file(opening, sidecar, err);
}

Status sidecar_open(const SidecarKind *kind, const SidecarOptions *options, Sidecar **ret,
                    Error *err)
{
    Opening opening = {.kind = kind, .options = options};
    TRY(read_identity(options->fd, options->path, &opening.identity, err));
    if (options->by_checksum) opening.identity.changed_ns = 0;
    Sidecar *sidecar = mem_calloc(1, sizeof *sidecar);
    sidecar->fd = -1;
    Status status = OK;
    if (options->folder != NULL) status = open_with_folder(&opening, sidecar, err);
    if (status == OK && sidecar->map == NULL) status = build_in_memory(&opening, sidecar, err);
    if (status == OK) {
        *ret = sidecar;
        sidecar = NULL;
    }
    sidecar_close(sidecar);
    free(opening.file);
    return status;
}

void sidecar_close(Sidecar *sidecar)
{
    if (sidecar == NULL) return;
    unmap_sidecar(sidecar);
    free(sidecar->warning);
    free(sidecar);
}
