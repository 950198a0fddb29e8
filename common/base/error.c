#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static const char *const status_names[STATUS_COUNT] = {
    [OK] = "ok",
    [ERR_INVALID] = "invalid",
    [ERR_DATA] = "data",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_EXISTS] = "exists",
    [ERR_RESOURCE] = "resource",
    [ERR_TIMEOUT] = "timeout",
    [ERR_UNAVAILABLE] = "unavailable",
    [ERR_CANCELLED] = "cancelled",
    [ERR_UNSUPPORTED] = "unsupported",
    [ERR_IO] = "io",
    [ERR_INTERNAL] = "internal",
};

const char *status_name(Status status)
{
    if ((unsigned)status >= STATUS_COUNT) return "unknown";
    return status_names[status];
}

int status_exit_code(Status status)
{
    switch (status) {
    case OK:
        return 0;
    case ERR_INVALID:
    case ERR_UNSUPPORTED:
    case ERR_NOT_FOUND:
        return 2;
    case ERR_DATA:
        return 3;
    case ERR_RESOURCE:
    case ERR_EXISTS:
    case ERR_TIMEOUT:
    case ERR_UNAVAILABLE:
    case ERR_IO:
        return 4;
    case ERR_CANCELLED:
        return 5;
    default:
        return 1;
    }
}

/* Drops what is not UTF-8: a name shown in part ("%.40s") or a message cut at its end may stop in
 * the middle of a character. */
static void keep_whole_characters(char *text)
{
    size_t length = strlen(text), kept = 0, at = 0;
    for (;;) {
        size_t valid = utf8_valid_prefix(text + at, length - at);
        memmove(text + kept, text + at, valid);
        kept += valid;
        at += valid;
        if (at == length) break;
        at++;
    }
    text[kept] = '\0';
}

Status error_setv(Error *err, Status status, const char *format, va_list args)
{
    CHECK(status != OK);
    if (err == NULL) return status;
    err->status = status;
    vsnprintf(err->message, sizeof err->message, format, args);
    keep_whole_characters(err->message);
    return status;
}

Status error_set(Error *err, Status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_setv(err, status, format, args);
    va_end(args);
    return status;
}

static Status status_from_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EEXIST:
    case EADDRINUSE:
        return ERR_EXISTS;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* past the limit of ulimit -f */
    case EMFILE:
    case ENFILE:
        return ERR_RESOURCE;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

Status error_set_errno(Error *err, int errnum, const char *format, ...)
{
    Status status = status_from_errno(errnum);
    if (err == NULL) return status;
    va_list args;
    va_start(args, format);
    error_setv(err, status, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    char text[128];
    snprintf(err->message + used, sizeof err->message - used, ": %s",
             strerror_r(errnum, text, sizeof text));
    keep_whole_characters(err->message);
    return status;
}

Status error_prefix(Error *err, const char *format, ...)
{
    CHECK(err != NULL && err->status != OK);
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used < 0 || (size_t)used >= sizeof text) used = (int)sizeof text - 1;
    snprintf(text + used, sizeof text - (size_t)used, ": %s", err->message);
    memcpy(err->message, text, sizeof text);
    keep_whole_characters(err->message);
    return err->status;
}

Status error_append(Error *err, const char *format, ...)
{
    CHECK(err != NULL && err->status != OK);
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char message[ERROR_MESSAGE_MAX];
    memcpy(message, err->message, sizeof message);
    return error_set(err, err->status, "%s\n%s", message, text);
}

_Noreturn void check_failed(const char *file, int line, const char *condition, const char *format,
                            ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s:%d: broken invariant: %s%s%s\n", file, line, condition,
            text[0] != '\0' ? ": " : "", text);
    fflush(stderr);
    abort();
}
