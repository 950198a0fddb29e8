/* JSONL: one JSON value per line. Lines end with a line feed, with or without a carriage return
 * before it; the last one needs no end. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/dataset.h"
#include "dataset/index.h"

typedef struct JsonlFile {
    int fd;
    char *path;
    LineIndex *index;
} JsonlFile;

/* Files that are surely something else, told by how they begin. */
static Status refuse_other_formats(int fd, const char *path, Error *err)
{
    unsigned char head[16] = {0};
    ssize_t length = pread(fd, head, sizeof head, 0);
    if (length < 0) return error_set_errno(err, errno, "could not read %s", path);
    const char *found = NULL, *remedy = NULL;
    if (memcmp(head, "\x1F\x8B", 2) == 0) {
        found = "gzip-compressed", remedy = "decompress it with gunzip";
    } else if (memcmp(head, "\x28\xB5\x2F\xFD", 4) == 0) {
        found = "zstd-compressed", remedy = "decompress it with unzstd";
    } else if (memcmp(head, "PAR1", 4) == 0) {
        found = "a Parquet file", remedy = "convert it to JSONL";
    } else if (memcmp(head, "\xFF\xFE", 2) == 0 || memcmp(head, "\xFE\xFF", 2) == 0) {
        found = "UTF-16 text", remedy = "convert it to UTF-8 with iconv -f UTF-16 -t UTF-8";
    } else {
        size_t at = memcmp(head, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        while (at < sizeof head && head[at] != '\0' && strchr(" \t\r\n", head[at]) != NULL)
            at++;
        if (at < sizeof head && head[at] == '[') {
            found = "one JSON list", remedy = "make a line of each element: jq -c '.[]' FILE";
        }
    }
    if (found == NULL) return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "%s is %s\n  expected: JSONL, one JSON object per line\n  to do: %s", path,
                     found, remedy);
}

static void jsonl_close(void *context)
{
    JsonlFile *file = context;
    if (file == NULL) return;
    line_index_close(file->index);
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    free(file);
}

static Status jsonl_open(const char *path, const DatasetOptions *options, void **ret_file,
                         Error *err)
{
    /* O_NONBLOCK: a FIFO by mistake is refused below instead of being waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    JsonlFile *file = mem_calloc(1, sizeof *file);
    file->fd = fd;
    file->path = mem_strdup(path);
    Status status = OK;
    struct stat info;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        status = refuse_other_formats(fd, path, err);
    LineIndexOptions index_options = {.folder = options->index_folder,
                                      .read_only = options->index_read_only,
                                      .records_max = options->records_max,
                                      .watch = options->watch};
    if (status == OK) status = line_index_open(fd, path, &index_options, &file->index, err);
    if (status == OK) {
        *ret_file = file;
        file = NULL;
    }
    jsonl_close(file);
    return status;
}

static FileSummary jsonl_summary(const void *context)
{
    const JsonlFile *file = context;
    LineIndexSummary index = line_index_summary(file->index);
    return (FileSummary){
        .records = index.records,
        .bytes = index.file_bytes,
        .content_hash = index.content_hash,
        .index_reused = index.reused,
        .whole = index.whole,
        .warning = line_index_warning(file->index),
    };
}

/* The index tells where lines are only as long as the file is the one that was indexed. */
static Status check_unchanged(const JsonlFile *file, Error *err)
{
    LineIndexSummary index = line_index_summary(file->index);
    struct stat now;
    if (fstat(file->fd, &now) != 0)
        return error_set_errno(err, errno, "could not stat %s", file->path);
    int64_t modified_ns = (int64_t)now.st_mtim.tv_sec * 1000000000 + now.st_mtim.tv_nsec;
    if ((uint64_t)now.st_size == index.file_bytes && modified_ns == index.modified_ns) return OK;
    return error_set(err, ERR_IO,
                     "%s was changed during the run (%lld bytes, indexed with %llu)\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     file->path, (long long)now.st_size, (unsigned long long)index.file_bytes);
}

static Status refuse_long_line(const JsonlFile *file, uint64_t line, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s:%llu: the line has more than %u bytes\n"
                     "  expected: at most that much in one record\n"
                     "  to do: split the conversation, or drop the line",
                     file->path, (unsigned long long)line, JSONL_LINE_BYTES_MAX);
}

/* Reads the line that begins at `begin` behind *text, without its end. */
static Status read_line(const JsonlFile *file, uint64_t begin, uint64_t end, uint64_t line,
                        Str *text, Error *err)
{
    /* Blank lines may follow the record, so a large extent alone does not make it too long. */
    size_t limit = JSONL_LINE_BYTES_MAX + 2;
    bool cut = end - begin > limit;
    size_t length = cut ? limit : (size_t)(end - begin);
    str_reserve(text, text->length + length);
    char *bytes = text->data + text->length;
    Status status = file_read_at(file->fd, bytes, length, (int64_t)begin, file->path, err);
    if (status == ERR_DATA) return err->status = ERR_IO; /* the file ends before its index does */
    if (status != OK) return status;
    const char *newline = memchr(bytes, '\n', length);
    if (newline == NULL && cut) return refuse_long_line(file, line, err);
    if (newline != NULL) length = (size_t)(newline - bytes);
    while (length > 0 &&
           (bytes[length - 1] == ' ' || bytes[length - 1] == '\t' || bytes[length - 1] == '\r'))
        length--;
    if (length > JSONL_LINE_BYTES_MAX) return refuse_long_line(file, line, err);
    text->length += length;
    return OK;
}

static Status jsonl_read(const void *context, uint64_t record, Str *text, uint64_t *ret_line,
                         Error *err)
{
    const JsonlFile *file = context;
    uint64_t begin, end;
    *ret_line = line_index_record(file->index, record, &begin, &end);
    TRY(check_unchanged(file, err));
    Status status = read_line(file, begin, end, *ret_line, text, err);
    if (text->data != NULL) text->data[text->length] = '\0';
    return status;
}

const DatasetFormat dataset_jsonl = {
    .name = "jsonl",
    .open = jsonl_open,
    .summary = jsonl_summary,
    .read = jsonl_read,
    .close = jsonl_close,
};
