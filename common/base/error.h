/* Errors are values. A function that can fail returns a Status and takes an Error * last; on
 * failure it fills the Error with one sentence for a person (the values found, what was expected,
 * what to do) and leaves its outputs untouched. Codes of other libraries (errno, uv, zmq, CUDA,
 * NCCL) are turned into a Status where they enter. A broken invariant is not an error but a bug:
 * CHECK stops the process, in release builds too. No thread restrictions; an Error belongs to
 * whoever declared it. */
#ifndef TROUPE_BASE_ERROR_H
#define TROUPE_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

typedef enum {
    OK = 0,
    ERR_INVALID,     /* the caller's or the user's input is wrong: configuration, arguments */
    ERR_DATA,        /* a data set, model file or checkpoint is malformed or corrupt */
    ERR_NOT_FOUND,   /* a file, key, actor or tensor that must exist does not */
    ERR_EXISTS,      /* something in the way: a lock, a name, a port in use */
    ERR_RESOURCE,    /* memory, disk, CPUs, descriptors ran out */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_UNAVAILABLE, /* the peer is gone or not ready: the only status worth a retry */
    ERR_CANCELLED,   /* somebody asked us to stop */
    ERR_UNSUPPORTED, /* well formed, but not something this build or version can do */
    ERR_IO,          /* the operating system refused a read, write, flush or rename */
    ERR_INTERNAL,    /* a bug of ours, seen before it did harm */
    STATUS_COUNT,
} Status;

#define ERROR_MESSAGE_MAX 2048

typedef struct Error {
    Status status;
    char message[ERROR_MESSAGE_MAX]; /* UTF-8, one to six lines, no trailing newline */
} Error;

/* The name of a status as programs read it ("invalid", "timeout"); never NULL. */
const char *status_name(Status status);

/* The exit code of a process that ends with this status: 0 done, 1 internal, 2 usage or
 * configuration, 3 data, 4 resource or environment, 5 stopped as asked. */
int status_exit_code(Status status);

/* Fills *err (which may be NULL: the caller does not care) and returns `status`, so that
 * `return error_set(err, ERR_DATA, ...)` reads as one step. */
Status error_set(Error *err, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
Status error_setv(Error *err, Status status, const char *format, va_list args);

/* As error_set, for a failed system call: appends ": " and the text of `errnum`, and chooses the
 * status from it (ENOENT: not found, ENOSPC and ENOMEM: resource, ...). */
Status error_set_errno(Error *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " before the message, to say what was being done. Returns err->status. */
Status error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a line after the message: what to do about it, from someone who knows more. Returns
 * err->status. */
Status error_append(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Stops the process with file, line and the broken condition. */
_Noreturn void check_failed(const char *file, int line, const char *condition, const char *format,
                            ...) __attribute__((format(printf, 4, 5)));

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition, "%s", "");                  \
    } while (0)
#define CHECKF(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);               \
    } while (0)

/* Passes a failure up: TRY(file_read(path, &bytes, err)); inside a function that returns Status and
 * holds nothing to release. Functions with something to release use `goto done`. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        Status try_status_ = (call);                                                               \
        if (try_status_ != OK) return try_status_;                                                 \
    } while (0)

#endif
