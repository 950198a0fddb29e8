#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "tensor/safetensors.h"

/* Digested and handed to the kernel in pieces that stay in the cache between the two. */
#define PIECE_BYTES ((size_t)256 * 1024)
/* Handed on to the disk while the next is written, and waited for when all is. */
#define FLUSH_BYTES ((int64_t)16 << 20)

struct SafetensorsWriter {
    char *path;
    int fd;
    int64_t bytes_total; /* of the whole file */
    int64_t bytes_written;
    int64_t bytes_started; /* of them on their way to the disk */
    Digest *digest;
};

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The first name that occurs twice, or NULL. Sorts `names`. */
static const char *find_duplicate(const char **names, int count)
{
    qsort(names, (size_t)count, sizeof *names, compare_text);
    for (int i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0) return names[i];
    return NULL;
}

static Status check_entries(const char *path, const SafetensorsEntry *entries, int count,
                            Error *err)
{
    const char **names = mem_calloc((size_t)count, sizeof *names);
    Status status = OK;
    for (int i = 0; i < count && status == OK; i++) {
        names[i] = entries[i].name;
        if (strcmp(entries[i].name, "__metadata__") == 0)
            status =
                error_set(err, ERR_INVALID, "%s: a tensor cannot be called __metadata__", path);
    }
    const char *twice = status == OK ? find_duplicate(names, count) : NULL;
    if (twice != NULL)
        status = error_set(err, ERR_INVALID, "%s: two tensors are called %s", path, QUOTED(twice));
    free(names);
    return status;
}

static void put_entry(Str *text, const SafetensorsEntry *entry, int64_t begin, int64_t end)
{
    json_append_string(text, entry->name);
    str_printf(text, ":{\"dtype\":\"%s\",\"shape\":[", dtype_safetensors_name(entry->dtype));
    for (int d = 0; d < entry->rank; d++)
        str_printf(text, "%s%" PRId64, d > 0 ? "," : "", entry->shape[d]);
    str_printf(text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", begin, end);
}

static void put_metadata(Str *text, const char *const *pairs, int count)
{
    if (count == 0) return;
    str_puts(text, "\"__metadata__\":{");
    for (int i = 0; i < count; i++) {
        if (i > 0) str_putc(text, ',');
        json_append_string(text, pairs[2 * i]);
        str_putc(text, ':');
        json_append_string(text, pairs[2 * i + 1]);
    }
    str_putc(text, '}');
}

/* Appends the entries to a header that already has its first members. Gives the size of the data
 * part. */
static Status put_entries(const char *path, const SafetensorsEntry *entries, int count, Str *text,
                          int64_t *ret_data_bytes, Error *err)
{
    int64_t at = 0;
    for (int i = 0; i < count; i++) {
        Tensor tensor = {.dtype = entries[i].dtype, .rank = entries[i].rank};
        memcpy(tensor.shape, entries[i].shape, sizeof tensor.shape);
        int64_t bytes = (int64_t)tensor_bytes(&tensor);
        if (bytes > 0 && at % (int64_t)dtype_size(tensor.dtype) != 0)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s (%s) would start at byte %" PRId64
                             ", off its alignment: put larger element types first",
                             path, QUOTED(entries[i].name), dtype_name(tensor.dtype), at);
        if (text->data[text->length - 1] != '{') str_putc(text, ',');
        put_entry(text, &entries[i], at, at + bytes);
        CHECK(!__builtin_add_overflow(at, bytes, &at));
    }
    *ret_data_bytes = at;
    return OK;
}

/* Closes a header that began with 8 bytes for its length, and pads it with spaces so that the data
 * starts at a multiple of 8. */
static Status end_header(const char *path, Str *text, Error *err)
{
    str_putc(text, '}');
    while (text->length % 8 != 0)
        str_putc(text, ' ');
    uint64_t length = text->length - 8;
    if (length > SAFETENSORS_HEADER_MAX)
        return error_set(err, ERR_INVALID,
                         "%s: a header of %" PRIu64 " bytes; the format allows %u", path, length,
                         SAFETENSORS_HEADER_MAX);
    for (int i = 0; i < 8; i++)
        text->data[i] = (char)(length >> 8 * i);
    return OK;
}

static Status no_room(const SafetensorsWriter *writer, int errnum, Error *err)
{
    struct statvfs disk;
    int64_t available = -1;
    if (fstatvfs(writer->fd, &disk) == 0)
        available = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    return error_set_errno(err, errnum,
                           "could not reserve %" PRId64
                           " bytes for %s (the file system has %" PRId64 " left)",
                           writer->bytes_total, writer->path, available);
}

/* File systems that cannot do this by ranges flush it all at the end. */
static Status flush_range(const SafetensorsWriter *writer, int64_t begin, int64_t end,
                          unsigned flags, Error *err)
{
    if (sync_file_range(writer->fd, begin, end - begin, flags) == 0 || errno == EINVAL ||
        errno == ENOSYS || errno == ESPIPE)
        return OK;
    return error_set_errno(err, errno, "could not flush %s", writer->path);
}

static Status start_flush(SafetensorsWriter *writer, Error *err)
{
    if (writer->bytes_written - writer->bytes_started < FLUSH_BYTES) return OK;
    TRY(flush_range(writer, writer->bytes_started, writer->bytes_written, SYNC_FILE_RANGE_WRITE,
                    err));
    writer->bytes_started = writer->bytes_written;
    return OK;
}

static Status put_bytes(SafetensorsWriter *writer, const void *data, size_t bytes, Error *err)
{
    for (size_t done = 0; done < bytes;) {
        size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        const char *from = (const char *)data + done;
        digest_update(writer->digest, from, piece);
        TRY(file_write_all(writer->fd, from, piece, writer->path, err));
        writer->bytes_written += (int64_t)piece;
        done += piece;
        TRY(start_flush(writer, err));
    }
    return OK;
}

static void writer_free(SafetensorsWriter *writer)
{
    if (writer->fd >= 0) close(writer->fd);
    digest_destroy(writer->digest);
    free(writer->path);
    free(writer);
}

void safetensors_abandon(SafetensorsWriter *writer)
{
    if (writer == NULL) return;
    if (writer->fd >= 0) unlink(writer->path);
    writer_free(writer);
}

Status safetensors_create(const char *path, const SafetensorsEntry *entries, int count,
                          const char *const *metadata_pairs, int metadata_count,
                          SafetensorsWriter **ret, Error *err)
{
    Str header = {0};
    int64_t data_bytes = 0;
    SafetensorsWriter *writer = mem_calloc(1, sizeof *writer);
    writer->path = mem_strdup(path);
    writer->digest = digest_create();
    writer->fd = -1;
    Status status = check_entries(path, entries, count, err);
    if (status != OK) goto done;
    str_append(&header, "\0\0\0\0\0\0\0\0{", 9);
    put_metadata(&header, metadata_pairs, metadata_count);
    status = put_entries(path, entries, count, &header, &data_bytes, err);
    if (status == OK) status = end_header(path, &header, err);
    if (status != OK) goto done;
    writer->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (writer->fd < 0) {
        status = error_set_errno(err, errno, "could not create %s", path);
        goto done;
    }
    writer->bytes_total = (int64_t)header.length + data_bytes;
    int errnum = posix_fallocate(writer->fd, 0, (off_t)writer->bytes_total);
    status = errnum != 0 ? no_room(writer, errnum, err)
                         : put_bytes(writer, header.data, header.length, err);
    if (status != OK) goto done;
    *ret = writer;
    writer = NULL;
done:
    str_free(&header);
    safetensors_abandon(writer);
    return status;
}

Status safetensors_write(SafetensorsWriter *writer, const void *data, size_t bytes, Error *err)
{
    int64_t room = writer->bytes_total - writer->bytes_written;
    if (bytes > (uint64_t)room)
        return error_set(err, ERR_INVALID,
                         "%s: %zu bytes to write, the header leaves room for %" PRId64,
                         writer->path, bytes, room);
    return put_bytes(writer, data, bytes, err);
}

Status safetensors_flush(SafetensorsWriter *writer, void (*progress)(void *context), void *context,
                         Error *err)
{
    const unsigned wait =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    for (int64_t at = 0; at < writer->bytes_written; at += FLUSH_BYTES) {
        int64_t end = at + FLUSH_BYTES;
        if (end > writer->bytes_written) end = writer->bytes_written;
        TRY(flush_range(writer, at, end, wait, err));
        progress(context);
    }
    return OK;
}

Status safetensors_finish(SafetensorsWriter *writer, int64_t *ret_bytes, char ret_sha256[65],
                          Error *err)
{
    Status status = OK;
    if (writer->bytes_written != writer->bytes_total) {
        status = error_set(err, ERR_INVALID,
                           "%s: %" PRId64 " of %" PRId64 " bytes were written before the file was "
                           "finished",
                           writer->path, writer->bytes_written, writer->bytes_total);
        goto done;
    }
    /* Never tried again on failure: the kernel may have dropped the pages and marked them clean. */
    if (fsync(writer->fd) != 0) {
        status = error_set_errno(err, errno, "could not flush %s", writer->path);
        goto done;
    }
    int closed = close(writer->fd);
    writer->fd = -1;
    if (closed != 0) {
        status = error_set_errno(err, errno, "could not close %s", writer->path);
        unlink(writer->path);
        goto done;
    }
    digest_finish(writer->digest, ret_sha256);
    *ret_bytes = writer->bytes_total;
done:
    if (status != OK)
        safetensors_abandon(writer);
    else
        writer_free(writer);
    return status;
}

static int compare_place(const void *a, const void *b)
{
    return strcmp(((const SafetensorsPlace *)a)->tensor, ((const SafetensorsPlace *)b)->tensor);
}

Status safetensors_index_text(const SafetensorsPlace *places, int count, char **ret_text,
                              size_t *ret_length, Error *err)
{
    Str text = {0};
    int64_t total = 0;
    SafetensorsPlace *sorted = mem_calloc((size_t)count, sizeof *sorted);
    if (count > 0) memcpy(sorted, places, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_place);
    Status status = OK;
    for (int i = 0; i < count && status == OK; i++) {
        total += sorted[i].bytes;
        if (i > 0 && compare_place(&sorted[i - 1], &sorted[i]) == 0)
            status = error_set(err, ERR_INVALID, "tensor %s is in both %s and %s",
                               QUOTED(sorted[i].tensor), QUOTED(sorted[i - 1].file),
                               QUOTED(sorted[i].file));
    }
    if (status != OK) goto done;
    str_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %" PRId64 "\n  },\n", total);
    str_puts(&text, "  \"weight_map\": {");
    for (int i = 0; i < count; i++) {
        str_puts(&text, i > 0 ? ",\n    " : "\n    ");
        json_append_string(&text, sorted[i].tensor);
        str_puts(&text, ": ");
        json_append_string(&text, sorted[i].file);
    }
    str_puts(&text, count > 0 ? "\n  }\n}\n" : "}\n}\n");
    *ret_length = text.length;
    *ret_text = str_take(&text);
done:
    free(sorted);
    str_free(&text);
    return status;
}
