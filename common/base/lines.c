#include "base/lines.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define FIRST_WINDOW 4096

Status lines_before(int fd, int64_t end, size_t bytes_max, const char *path, Str *ret_line,
                    int64_t *ret_begin, Error *err)
{
    CHECK(end > 0);
    for (size_t window = FIRST_WINDOW;; window *= 8) {
        if (window > bytes_max) window = bytes_max + 1; /* with the newline of the line before */
        if ((int64_t)window > end) window = (size_t)end;
        str_clear(ret_line);
        str_reserve(ret_line, window);
        TRY(file_read_at(fd, ret_line->data, window, end - (int64_t)window, path, err));
        const char *newline = memrchr(ret_line->data, '\n', window - 1);
        if (newline == NULL && (int64_t)window < end && window <= bytes_max) continue;
        size_t skip = newline != NULL ? (size_t)(newline + 1 - ret_line->data) : 0;
        if (window - skip > bytes_max)
            return error_set(err, ERR_DATA,
                             "%s: the line that ends at byte %lld has no beginning "
                             "within %zu bytes",
                             path, (long long)end, bytes_max);
        memmove(ret_line->data, ret_line->data + skip, window - skip);
        ret_line->length = window - skip;
        ret_line->data[ret_line->length] = '\0';
        *ret_begin = end - (int64_t)ret_line->length;
        return OK;
    }
}

Status lines_cut_torn(int fd, const char *path, int64_t *ret_end, Error *err)
{
    struct stat info;
    char piece[FIRST_WINDOW];
    if (fstat(fd, &info) != 0) return error_set_errno(err, errno, "could not look at %s", path);
    int64_t end = info.st_size;
    while (end > 0) {
        size_t size = end < (int64_t)sizeof piece ? (size_t)end : sizeof piece;
        TRY(file_read_at(fd, piece, size, end - (int64_t)size, path, err));
        const char *newline = memrchr(piece, '\n', size);
        end -= (int64_t)size;
        if (newline == NULL) continue;
        end += newline + 1 - piece;
        break;
    }
    if (end < info.st_size && ftruncate(fd, (off_t)end) != 0)
        return error_set_errno(err, errno, "could not cut %s back to %lld bytes", path,
                               (long long)end);
    *ret_end = end;
    return OK;
}

Status lines_append(int fd, const void *bytes, size_t length, const char *path, int64_t *end,
                    bool *ret_broken, Error *err)
{
    Status status = OK;
    if (lseek(fd, (off_t)*end, SEEK_SET) < 0)
        status = error_set_errno(err, errno, "could not position in %s", path);
    else
        status = file_write_all(fd, bytes, length, path, err);
    if (status == OK)
        *end += (int64_t)length;
    else if (ftruncate(fd, (off_t)*end) != 0 && ret_broken != NULL)
        *ret_broken = true;
    return status;
}
