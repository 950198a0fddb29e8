#include "dataset/packed_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/content_hash.h"

#define LOG_MAGIC UINT64_C(0x316b637065707254) /* "Trpepck1" on a little-endian machine */

typedef struct LogHeader {
    uint64_t magic, probe, file_bytes, block_bytes, piece_bytes;
    char damage[PACKED_DAMAGE_BYTES];
} LogHeader;

struct PackedLog {
    LogHeader header;
    int pieces;      /* the files, or -1 */
    int kept;        /* of pieces below `shared`, ... */
    _Atomic int own; /* ... and in memory of those from there on */
    bool writing;    /* `shared` is the number of all pieces */
    uint64_t count;  /* of pieces */
    _Atomic uint64_t shared;
    uint64_t kept_bytes, own_bytes;
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

/* The pieces that are whole, one after another from the first. */
static void load(PackedLog *log, PackedPiece **ret, uint64_t *ret_count)
{
    LogHeader header;
    struct stat pieces, kept;
    if (fstat(log->pieces, &pieces) != 0 || pieces.st_size < (off_t)sizeof header ||
        fstat(log->kept, &kept) != 0 ||
        file_read_at(log->pieces, &header, sizeof header, 0, "", NULL) != OK ||
        !same_header(&header, &log->header))
        return;
    uint64_t count = ((uint64_t)pieces.st_size - sizeof header) / sizeof **ret, whole = 0;
    PackedPiece *piece = mem_alloc((count + 1) * sizeof *piece);
    if (file_read_at(log->pieces, piece, count * sizeof *piece, sizeof header, "", NULL) != OK)
        count = 0;
    while (whole < count) {
        const SeekBlock *seek = &piece[whole].seek;
        uint64_t end = seek->spool_bytes > 0 ? seek->spool_offset + seek->spool_bytes : 0;
        if (piece[whole].check != piece_check(&piece[whole], log->header.probe, whole) ||
            end > (uint64_t)kept.st_size)
            break;
        if (end > log->kept_bytes) log->kept_bytes = end;
        whole++;
    }
    header.damage[sizeof header.damage - 1] = '\0';
    log->header = header;
    log->count = whole;
    log->shared = whole;
    *ret_count = whole;
    *ret = piece;
}

static void close_files(PackedLog *log)
{
    if (log->pieces >= 0) close(log->pieces);
    if (log->kept >= 0) close(log->kept);
    log->pieces = log->kept = -1;
}

static Status begin_file(PackedLog *log, const char *path, Error *err)
{
    if (ftruncate(log->pieces, piece_place(log->count)) != 0 ||
        ftruncate(log->kept, (off_t)log->kept_bytes) != 0 ||
        pwrite(log->pieces, &log->header, sizeof log->header, 0) != (ssize_t)sizeof log->header)
        return error_set_errno(err, errno, "could not write %s", path);
    return OK;
}

static Status open_files(PackedLog *log, const char *path, const char *kept_path, bool create,
                         Error *err)
{
    int flags = (create ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC;
    log->pieces = open(path, flags, 0644);
    if (log->pieces >= 0) log->kept = open(kept_path, flags, 0644);
    if (log->kept >= 0) return OK;
    error_set_errno(err, errno, "could not open %s", log->pieces < 0 ? path : kept_path);
    close_files(log);
    return err->status;
}

static void open_folder(PackedLog *log, const PackedLogOptions *options, PackedPiece **ret,
                        uint64_t *ret_count)
{
    Error err = {0};
    char *path =
        mem_printf("%s/text-%016llx.pieces", options->folder, (unsigned long long)options->probe);
    char *kept =
        mem_printf("%s/text-%016llx.kept", options->folder, (unsigned long long)options->probe);
    Status status = options->read_only ? OK : folder_create(options->folder, &err);
    if (status == OK) status = open_files(log, path, kept, !options->read_only, &err);
    /* Who holds the lock writes. */
    log->writing =
        status == OK && !options->read_only && flock(log->pieces, LOCK_EX | LOCK_NB) == 0;
    if (status == OK) load(log, ret, ret_count);
    if (log->writing) status = begin_file(log, path, &err);
    if (status != OK) log->writing = false;
    if (status != OK && !options->read_only) log->warning = mem_strdup(err.message);
    free(kept);
    free(path);
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
    log->pieces = -1;
    log->kept = -1;
    log->own = -1;
    *ret_pieces = NULL;
    *ret_count = 0;
    if (options->folder != NULL) open_folder(log, options, ret_pieces, ret_count);
    return log;
}

void packed_log_close(PackedLog *log)
{
    if (log == NULL) return;
    close_files(log);
    if (log->own >= 0) close(log->own);
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

/* In memory, where that is to be had. */
static bool keep_own(PackedLog *log, SeekBlock *seek, const void *kept, size_t kept_bytes)
{
    if (log->own < 0) log->own = memfd_create("troupe-pieces", MFD_CLOEXEC);
    if (log->own < 0 || !write_all(log->own, kept, kept_bytes, (off_t)log->own_bytes)) return false;
    seek->spool_offset = log->own_bytes;
    seek->spool_bytes = (uint32_t)kept_bytes;
    log->own_bytes += kept_bytes;
    return true;
}

static bool keep_shared(PackedLog *log, PackedPiece *piece, const void *kept, size_t kept_bytes)
{
    if (!write_all(log->kept, kept, kept_bytes, (off_t)log->kept_bytes)) return false;
    if (kept_bytes > 0) {
        piece->seek.spool_offset = log->kept_bytes;
        piece->seek.spool_bytes = (uint32_t)kept_bytes;
    }
    piece->check = piece_check(piece, log->header.probe, log->count);
    if (!write_all(log->pieces, piece, sizeof *piece, piece_place(log->count))) return false;
    log->kept_bytes += kept_bytes;
    return true;
}

void packed_log_add(PackedLog *log, PackedPiece *piece, const void *kept, size_t kept_bytes)
{
    SeekBlock *seek = &piece->seek;
    seek->spool_offset = seek->spool_bytes = 0;
    if (log->writing && !keep_shared(log, piece, kept, kept_bytes)) stop_writing(log);
    if (log->writing) {
        log->shared = log->count + 1;
    } else {
        bool point = seek->kind == BLOCK_POINT;
        seek->spool_offset = seek->spool_bytes = 0;
        if (kept_bytes > 0 && !(point && keep_own(log, seek, kept, kept_bytes)))
            seek->kind = BLOCK_INSIDE;
    }
    log->count++;
}

void packed_log_set_damage(PackedLog *log, const char *damage)
{
    snprintf(log->header.damage, sizeof log->header.damage, "%s", damage);
    if (log->writing && !write_all(log->pieces, &log->header, sizeof log->header, 0))
        stop_writing(log);
}

const char *packed_log_damage(const PackedLog *log)
{
    return log->header.damage;
}

bool packed_log_read(const PackedLog *log, uint64_t index, const SeekBlock *block, void *bytes,
                     size_t length)
{
    int fd = index < log->shared ? log->kept : log->own;
    if (block->spool_bytes == 0 || fd < 0) return false;
    void *packed = mem_alloc(block->spool_bytes);
    bool whole = file_read_at(fd, packed, block->spool_bytes, (int64_t)block->spool_offset, "",
                              NULL) == OK &&
                 ZSTD_decompress(bytes, length, packed, block->spool_bytes) == length;
    free(packed);
    return whole;
}
