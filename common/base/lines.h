/* Files of lines that are only appended to, seen from their ends: what a start needs of one does
 * not take longer because the file is long, and no line is ever there in part. Blocking; the
 * descriptor's owner is the only one who writes. */
#ifndef TROUPE_BASE_LINES_H
#define TROUPE_BASE_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/* The line that ends at byte `end` of the file, at least 1: *ret_line (its memory is used again)
 * gets it with its newline, which a torn last line has not, *ret_begin where it begins. ERR_DATA:
 * the file is shorter, or the line has more than bytes_max bytes. `path` is for messages. */
Status lines_before(int fd, int64_t end, size_t bytes_max, const char *path, Str *ret_line,
                    int64_t *ret_begin, Error *err);

/* Cuts off what stands behind the last newline: what a kill or a full disk left of a line. *ret_end
 * is where the file ends then. */
Status lines_cut_torn(int fd, const char *path, int64_t *ret_end, Error *err);

/* Writes whole lines behind byte *end, where the file ends, and moves it on. When that fails the
 * file is as it was; *ret_broken (may be NULL) tells when not even that could be had. */
Status lines_append(int fd, const void *bytes, size_t length, const char *path, int64_t *end,
                    bool *ret_broken, Error *err);

#endif
