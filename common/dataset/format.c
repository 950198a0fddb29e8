#include "dataset/format.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* How a file begins, which must be a regular one. */
static Status read_head(const char *path, uint8_t head[16], size_t *ret_length, Error *err)
{
    /* O_NONBLOCK: a FIFO by mistake is refused instead of being waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    struct stat info;
    Status status = OK;
    if (fstat(fd, &info) != 0)
        status = error_set_errno(err, errno, "could not stat %s", path);
    else if (!S_ISREG(info.st_mode))
        status =
            error_set(err, ERR_INVALID, "%s is not a regular file, which a data set must be", path);
    if (status == OK) {
        *ret_length = info.st_size < 16 ? (size_t)info.st_size : 16;
        status = file_read_at(fd, head, *ret_length, 0, path, err);
    }
    close(fd);
    return status;
}

Status dataset_format_open(const FileOpening *opening, const DatasetFormat **ret_format,
                           void **ret_file, Error *err)
{
    static const DatasetFormat *const formats[] = {&dataset_table, &dataset_jsonl};
    FileOpening whole = *opening;
    size_t length = 0, kind = 0;
    TRY(read_head(opening->path, whole.head, &length, err));
    while (!formats[kind]->begins(whole.head, length))
        kind++;
    TRY(formats[kind]->open(&whole, ret_file, err));
    *ret_format = formats[kind];
    return OK;
}
