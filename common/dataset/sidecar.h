/* Sidecar: what one pass over a data file found (where its lines are, where its decompression can
 * begin, its content hash), kept in a file of the run folder, so that the pass is made once. Used
 * again when path, size, modification time, the time of the last change (st_ctime, which nobody can
 * set back) and the hashes of the data file's first and last 64 KiB are the same and its own
 * checksum holds; anything else makes the pass again. A sidecar that
 * cannot be written costs time at the next start, nothing more: what it would hold then lives in
 * memory.
 *
 * In the file: the header, what was spooled, which may be as large as the data file and is written
 * once, and behind both the body, in the byte order of the machine. The body is mapped into memory,
 * and the checksum covers it; whoever spools checks what it reads back. Const once opened; any
 * thread. */
#ifndef TROUPE_DATASET_SIDECAR_H
#define TROUPE_DATASET_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/watch.h"

#define SIDECAR_COUNTS       4
#define SIDECAR_DAMAGE_BYTES 256

/* What tells one data file, and one state of it, from another. */
typedef struct FileIdentity {
    uint64_t path_hash, file_bytes;
    int64_t modified_ns; /* since 1970, as the next */
    int64_t changed_ns;  /* its content or whatever is said of it; 0: it does not count */
    uint64_t edge_hash;
} FileIdentity;

typedef struct SidecarHeader {
    uint64_t magic;
    FileIdentity identity;
    uint64_t content_hash, content_bytes; /* of what the data file says, decompressed */
    uint64_t count[SIDECAR_COUNTS];       /* of things in the body; the kind's own */
    uint64_t body_bytes, spool_bytes;
    char damage[SIDECAR_DAMAGE_BYTES]; /* why the file cannot be read to its end; "" when it can */
    uint64_t body_hash;                /* XXH3 of the body */
    uint64_t header_hash;              /* of all fields above */
} SidecarHeader;

typedef struct SidecarWriter SidecarWriter;

/* A kind of sidecar. `build` makes the pass: it puts the body and fills content_hash,
 * content_bytes, count and damage of the header. Only what is wrong with the data file is an error;
 * what is wrong with the sidecar comes out by itself. */
typedef struct SidecarKind {
    const char *suffix; /* of its file's name */
    uint64_t magic;
    Status (*build)(void *context, SidecarWriter *writer, SidecarHeader *header, Error *err);
} SidecarKind;

typedef struct SidecarOptions {
    int fd;             /* of the data file; borrowed, as the path is */
    const char *path;   /* of the data file */
    const char *folder; /* where sidecars are, created when missing; NULL: nowhere */
    bool read_only;     /* one that is there is used, none is written */
    bool by_checksum;   /* the content is known to be what it was: times of change do not count */
    void *context;      /* for `build` */
} SidecarOptions;

typedef struct Sidecar {
    SidecarHeader header;
    const uint8_t *body; /* [header.body_bytes] */
    int fd;              /* of what was spooled, which may be large and is not mapped; or -1 */
    bool reused;         /* taken from an earlier pass */
    char *warning;       /* why it could not be written, or NULL */
    void *map;
    size_t map_bytes;
} Sidecar;

/* Blocks for as long as the pass takes. */
Status sidecar_open(const SidecarKind *kind, const SidecarOptions *options, Sidecar **ret,
                    Error *err);
void sidecar_close(Sidecar *sidecar); /* accepts NULL */

/* Fails when the data file is no longer the one that the sidecar was made of. */
Status sidecar_check(const Sidecar *sidecar, int fd, const char *path, Error *err);

/* Reads what was spooled, at the place that sidecar_spool told; false when it cannot be read. */
bool sidecar_read(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length);

/* For `build`. */
void sidecar_put(SidecarWriter *writer, const void *bytes, size_t length);
/* Before anything else: something will be spooled. */
void sidecar_begin_spool(SidecarWriter *writer);
/* Returns where the bytes will be in the spool. */
uint64_t sidecar_spool(SidecarWriter *writer, const void *bytes, size_t length);
/* Whether about `bytes` more of a spool will fit; false, once and for all, where they will not, or
 * where writing has failed: nothing of what comes will be kept. */
bool sidecar_has_room(SidecarWriter *writer, uint64_t bytes);
/* Whether it goes to disk: what is large and could be computed again is then worth its room. */
bool sidecar_is_kept(const SidecarWriter *writer);

#endif
