#include "dataset/packed_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/content_hash.h"

#define LOG_MAGIC    UINT64_C(0x316b637065707254) /* "Trpepck1" on a little-endian machine */
#define SMALL_PIECES 4 /* of a file whose log has no files of its own, with the last one */

typedef struct LogHeader {
    uint64_t magic, probe, file_bytes, block_bytes, piece_bytes;
    char damage[PACKED_DAMAGE_BYTES];
} LogHeader;

struct PackedLog {
    LogHeader header;
    char *pieces_path, *kept_path; /* NULL: nothing is kept */
    bool writing;                  /* `shared` is the number of all pieces */
    uint64_t count;                /* of pieces */
    _Atomic uint64_t shared;       /* what those below this need is in the file, ... */
    uint64_t kept_bytes;
    IndexFolder *folder;
    PackedPiece held[SMALL_PIECES]; /* [num_held]: all pieces of a file that may be small, ... */
    uint64_t num_held;              /* ... or none */
    void **own; /* [num_own]: ... that of others in memory, where their spool_offset points */
    size_t num_own, own_capacity;
    _Atomic(char *) warning; /* or NULL */
};

static uint64_t piece_check(const PackedPiece *piece, uint64_t probe, uint64_t index)
{
    return XXH3_64bits_withSeed(piece, offsetof(PackedPiece, check), probe + index) | 1;
}

static off_t piece_place(uint64_t index)
{
    return (off_t)(sizeof(LogHeader) + index * sizeof(PackedPiece));
}

/* ---- opening ---- */

static bool same_header(const LogHeader *a, const LogHeader *b)
{
    return memcmp(a, b, offsetof(LogHeader, damage)) == 0;
}

static bool load_header(PackedLog *log, int fd)
{
    LogHeader header;
    if (file_read_at(fd, &header, sizeof header, 0, "", NULL) != OK ||
        !same_header(&header, &log->header))
        return false;
    header.damage[sizeof header.damage - 1] = '\0';
    log->header = header;
    return true;
}

/* The pieces that are whole, one after another from the first. */
static void load(PackedLog *log, PackedPiece **ret, uint64_t *ret_count)
{
    struct stat pieces, kept;
    int fd = open(log->pieces_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &pieces) != 0 || pieces.st_size < (off_t)sizeof(LogHeader) ||
        stat(log->kept_path, &kept) != 0 || !load_header(log, fd)) {
        close(fd);
        return;
    }
    uint64_t count = ((uint64_t)pieces.st_size - sizeof(LogHeader)) / sizeof **ret, whole = 0;
    PackedPiece *piece = mem_alloc((count + 1) * sizeof *piece);
    if (file_read_at(fd, piece, count * sizeof *piece, sizeof(LogHeader), "", NULL) != OK)
        count = 0;
    close(fd);
    while (whole < count) {
        const SeekBlock *seek = &piece[whole].seek;
        uint64_t end = seek->spool_bytes > 0 ? seek->spool_offset + seek->spool_bytes : 0;
        if (piece[whole].check != piece_check(&piece[whole], log->header.probe, whole) ||
            end > (uint64_t)kept.st_size)
            break;
        if (end > log->kept_bytes) log->kept_bytes = end;
        whole++;
    }
    log->count = whole;
    log->shared = whole;
    *ret_count = whole;
    *ret = piece;
}

/* All pieces of a small file. */
static bool load_small(PackedLog *log, PackedPiece **ret, uint64_t *ret_count)
{
    IndexHead head;
    if (!index_folder_find(log->folder, LOG_MAGIC, log->header.probe, &head)) return false;
    uint64_t count = head.count[0], bytes = count * sizeof **ret, damage = head.count[1];
    bool fits = count <= SMALL_PIECES && damage < sizeof log->header.damage &&
                head.body_bytes == bytes + damage;
    if (!fits) return false;
    uint8_t *body = mem_alloc(head.body_bytes + 1);
    if (!index_folder_read(log->folder, head.place, body, head.body_bytes) ||
        XXH3_64bits_withSeed(body, head.body_bytes, log->header.probe) != head.body_hash) {
        free(body);
        return false;
    }
    memcpy(log->header.damage, body + bytes, damage);
    log->header.damage[damage] = '\0';
    log->count = count;
    log->shared = count;
    *ret_count = count;
    *ret = (PackedPiece *)(void *)body;
    return true;
}

PackedLog *packed_log_open(const PackedLogOptions *options, PackedPiece **ret_pieces,
                           uint64_t *ret_count)
{
    PackedLog *log = mem_calloc(1, sizeof *log);
    log->header = (LogHeader){.magic = LOG_MAGIC,
                              .probe = options->probe,
                              .file_bytes = options->file_bytes,
                              .block_bytes = options->block_bytes,
                              .piece_bytes = sizeof(PackedPiece)};
    *ret_pieces = NULL;
    *ret_count = 0;
    if (options->path == NULL) return log;
    log->folder = options->folder;
    unsigned long long probe = options->probe;
    log->pieces_path = mem_printf("%s/text-%016llx.pieces", options->path, probe);
    log->kept_path = mem_printf("%s/text-%016llx.kept", options->path, probe);
    log->writing = !options->read_only;
    if (!load_small(log, ret_pieces, ret_count)) load(log, ret_pieces, ret_count);
    return log;
}

void packed_log_close(PackedLog *log)
{
    if (log == NULL) return;
    for (size_t i = 0; i < log->num_own; i++)
        free(log->own[i]);
    free(log->own);
    free(log->pieces_path);
    free(log->kept_path);
    free(log->warning);
    free(log);
}

const char *packed_log_warning(const PackedLog *log)
{
    return log->warning;
}

bool packed_log_keeps(const PackedLog *log)
{
    return log->writing;
}

/* ---- adding ---- */

static bool write_all(int fd, const void *bytes, size_t length, off_t at)
{
    const char *from = bytes;
    while (length > 0) {
        ssize_t done = pwrite(fd, from, length, at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        from += done;
        at += done;
        length -= (size_t)done;
    }
    return true;
}

static void stop_writing(PackedLog *log)
{
    log->writing = false;
    if (log->warning == NULL)
        log->warning = mem_printf("could not write the index: %s; what it would need to read "
                                  "compressed text in any order is computed again",
                                  strerror(errno));
}

static void keep_own(PackedLog *log, SeekBlock *seek, const void *kept, size_t kept_bytes)
{
    if (log->num_own == log->own_capacity) {
        log->own_capacity = 2 * log->own_capacity + 16;
        log->own = mem_realloc(log->own, log->own_capacity, sizeof *log->own);
    }
    void *copy = memcpy(mem_alloc(kept_bytes), kept, kept_bytes);
    log->own[log->num_own++] = copy;
    seek->spool_offset = (uint64_t)(uintptr_t)copy;
    seek->spool_bytes = (uint32_t)kept_bytes;
}

static void make_folder(const PackedLog *log)
{
    char *folder = path_folder(log->pieces_path);
    (void)folder_create(folder, NULL); /* who opens the file is told */
    free(folder);
}

/* The pieces, for the next one, and locked while they are open. What is longer than what is known
 * is what a kill has left half written, or another opening's, who goes on. False: it cannot be
 * written. */
static bool open_pieces(PackedLog *log, int *ret_fd, bool *ret_others)
{
    struct stat info;
    PackedPiece next;
    if (log->count == 0) make_folder(log);
    int fd = open(log->pieces_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    *ret_fd = fd;
    *ret_others = false;
    if (fd < 0 || flock(fd, LOCK_EX) != 0 || fstat(fd, &info) != 0) return false;
    off_t end = piece_place(log->count);
    LogHeader header;
    bool same = info.st_size >= (off_t)sizeof header &&
                file_read_at(fd, &header, sizeof header, 0, "", NULL) == OK &&
                same_header(&header, &log->header);
    *ret_others = !same && log->count > 0; /* somebody has begun anew */
    if (*ret_others) return true;
    if (!same) return ftruncate(fd, 0) == 0 && write_all(fd, &log->header, sizeof log->header, 0);
    if (info.st_size >= end + (off_t)sizeof next &&
        file_read_at(fd, &next, sizeof next, end, "", NULL) == OK)
        *ret_others = next.check == piece_check(&next, log->header.probe, log->count);
    if (info.st_size < end) *ret_others = true;
    return *ret_others || ftruncate(fd, end) == 0;
}

static bool write_kept(PackedLog *log, SeekBlock *seek, const void *kept, size_t kept_bytes)
{
    int fd = open(log->kept_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return false;
    bool written = write_all(fd, kept, kept_bytes, (off_t)log->kept_bytes);
    int code = errno;
    close(fd);
    errno = code;
    if (!written || kept_bytes == 0) return written;
    seek->spool_offset = log->kept_bytes;
    seek->spool_bytes = (uint32_t)kept_bytes;
    return true;
}

static void warn(PackedLog *log, const Error *err)
{
    log->writing = false;
    if (log->warning == NULL) log->warning = mem_strdup(err->message);
}

static void keep_small(PackedLog *log)
{
    Error err = {0};
    Str body = {0};
    size_t damage = strlen(log->header.damage);
    IndexHead head = {.magic = LOG_MAGIC,
                      .key = log->header.probe,
                      .count = {log->num_held, damage},
                      .body_bytes = log->num_held * sizeof *log->held + damage};
    str_append(&body, log->held, log->num_held * sizeof *log->held);
    str_puts(&body, log->header.damage);
    head.body_hash = XXH3_64bits_withSeed(body.data, body.length, log->header.probe);
    Status status = index_folder_append(log->folder, body.data, body.length, &head.place, &err);
    if (status == OK) status = index_folder_keep(log->folder, &head, &err);
    if (status != OK) warn(log, &err);
    str_free(&body);
}

/* Holds the next piece back while the file may be small. */
static bool hold(PackedLog *log, const PackedPiece *piece, size_t kept_bytes)
{
    bool small = log->num_held == log->count && kept_bytes == 0 && log->num_held < SMALL_PIECES;
    if (!small) return false;
    log->held[log->num_held] = *piece;
    log->held[log->num_held].check = piece_check(piece, log->header.probe, log->count);
    log->num_held++;
    if (piece->length == 0) keep_small(log);
    return true;
}

static void keep_shared(PackedLog *log, PackedPiece *piece, const void *kept, size_t kept_bytes)
{
    int fd = -1;
    bool others = false, written = open_pieces(log, &fd, &others);
    if (others) log->writing = false;
    if (written && !others) written = write_kept(log, &piece->seek, kept, kept_bytes);
    if (written && !others) {
        piece->check = piece_check(piece, log->header.probe, log->count);
        written = write_all(fd, piece, sizeof *piece, piece_place(log->count));
    }
    if (!written) stop_writing(log);
    if (fd >= 0) close(fd);
    if (log->writing) log->kept_bytes += kept_bytes;
}

/* The file is not small: what was held back goes into its own files. */
static void release_held(PackedLog *log)
{
    uint64_t count = log->count, num_held = log->num_held;
    log->num_held = 0;
    for (log->count = 0; log->count < num_held && log->writing; log->count++)
        keep_shared(log, &log->held[log->count], NULL, 0);
    log->count = count;
}

void packed_log_add(PackedLog *log, PackedPiece *piece, const void *kept, size_t kept_bytes)
{
    SeekBlock *seek = &piece->seek;
    seek->spool_offset = seek->spool_bytes = 0;
    if (log->writing && !hold(log, piece, kept_bytes)) {
        release_held(log);
        if (log->writing) keep_shared(log, piece, kept, kept_bytes);
    }
    if (log->writing) {
        log->shared = log->count + 1;
    } else {
        seek->spool_offset = seek->spool_bytes = 0;
        if (kept_bytes > 0 && seek->kind == BLOCK_POINT)
            keep_own(log, seek, kept, kept_bytes);
        else if (kept_bytes > 0)
            seek->kind = BLOCK_INSIDE;
    }
    log->count++;
}

void packed_log_set_damage(PackedLog *log, const char *damage)
{
    snprintf(log->header.damage, sizeof log->header.damage, "%s", damage);
    if (!log->writing || damage[0] == '\0') return;
    int fd = open(log->pieces_path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return; /* the first piece brings it */
    if (fd < 0 || !write_all(fd, &log->header, sizeof log->header, 0)) stop_writing(log);
    if (fd >= 0) close(fd);
}

const char *packed_log_damage(const PackedLog *log)
{
    return log->header.damage;
}

static bool read_kept(const PackedLog *log, const SeekBlock *block, void *packed)
{
    int fd = open(log->kept_path, O_RDONLY | O_CLOEXEC);
    bool whole = fd >= 0 && file_read_at(fd, packed, block->spool_bytes,
                                         (int64_t)block->spool_offset, "", NULL) == OK;
    if (fd >= 0) close(fd);
    return whole;
}

bool packed_log_read(const PackedLog *log, uint64_t index, const SeekBlock *block, void *bytes,
                     size_t length)
{
    if (block->spool_bytes == 0) return false;
    bool shared = index < log->shared;
    void *packed = shared ? mem_alloc(block->spool_bytes) : (void *)(uintptr_t)block->spool_offset;
    bool whole = (!shared || read_kept(log, block, packed)) &&
                 ZSTD_decompress(bytes, length, packed, block->spool_bytes) == length;
    if (shared) free(packed);
    return whole;
}
