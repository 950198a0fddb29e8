/* SHA-256, of bytes as they come by or of a whole file: what a checkpoint's manifest and ledger
 * are checked with. By OpenSSL (2 GB/s on one core with SHA instructions). A Digest is used by
 * one thread at a time. */
#ifndef TROUPE_BASE_DIGEST_H
#define TROUPE_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DIGEST_BYTES     32
#define DIGEST_HEX_BYTES 65 /* 64 lower-case hex digits and a NUL */

typedef struct Digest Digest;

Digest *digest_create(void);
void digest_destroy(Digest *digest); /* accepts NULL */
void digest_update(Digest *digest, const void *bytes, size_t length);
/* Of everything since create; the Digest can only be destroyed afterwards. */
void digest_finish(Digest *digest, char ret_hex[DIGEST_HEX_BYTES]);

void digest_bytes(const void *bytes, size_t length, char ret_hex[DIGEST_HEX_BYTES]);

/* Reads a regular file from start to end in pieces. `ret_length` (may be NULL) receives its
 * size. */
Status digest_file(const char *path, char ret_hex[DIGEST_HEX_BYTES], int64_t *ret_length,
                   Error *err);

/* One of several files; `path` is borrowed, the rest is filled in. */
typedef struct DigestJob {
    const char *path;
    char hex[DIGEST_HEX_BYTES];
    Error error; /* its status is OK when `hex` is there */
} DigestJob;

/* For whoever waits: called from the waiting thread every interval_ms, after that time first. */
typedef struct DigestWatch {
    int64_t interval_ms;
    void (*progress)(void *context, int64_t bytes_done);
    void *context;
} DigestWatch;

#define DIGEST_THREADS_MAX 16

/* Digests all of them, as many at a time as there are CPUs, and waits. `watch` may be NULL. */
void digest_files(DigestJob *job, int count, const DigestWatch *watch);

#endif
