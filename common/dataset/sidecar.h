/* Sidecar: what one pass over a data file found (where its lines are, where its decompression can
 * begin, its content hash), kept in the index folder (index_folder.h), so that the pass is made
 * once. Used again when path, size, modification time and the time of the last change (st_ctime,
 * which nobody can set back) are the same. A file that was changed less than two seconds before the
 * pass, within which such times may stand still, and one of which the last of these times does not
 * count, is compared by the hash of its first and last 64 KiB as well. Anything else makes the pass
 * again. A sidecar that cannot be written costs time at the next start, nothing more: what it would
 * hold then lives in memory.
 *
 * Of three parts: the body, which is small and is read and checked at once; the table, cut into
 * pieces that are checked when they are read (offset_table.h); and the spool, which may be as large
 * as the data file, is written once, and is checked by whoever spools. The body is in files.bodies;
 * spool and table, in this order, behind it, or in a file of their own when they are large. So a
 * start reads nothing that grows with the records of the data. Const once opened; any thread. */
#ifndef TROUPE_DATASET_SIDECAR_H
#define TROUPE_DATASET_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/index_folder.h"
#include "dataset/watch.h"

typedef struct SidecarWriter SidecarWriter;

/* A kind of sidecar. `build` makes the pass: it puts the parts and fills content_hash,
 * content_bytes and count of the head. Only what is wrong with the data file is an error; what is
 * wrong with the sidecar comes out by itself. */
typedef struct SidecarKind {
    const char *suffix; /* of its file's name */
    uint64_t magic;
    Status (*build)(void *context, SidecarWriter *writer, IndexHead *head, Error *err);
} SidecarKind;

typedef struct SidecarOptions {
    DataFile *file;      /* borrowed, as the folder is, which lives as long as the sidecar */
    IndexFolder *folder; /* where sidecars are */
    bool by_checksum;    /* the content is known to be what it was: st_ctime does not count */
    bool anew;           /* the pass is made in any case */
    void *context;       /* for `build` */
} SidecarOptions;

typedef struct Sidecar {
    IndexHead head;
    const uint8_t *body; /* [head.body_bytes] */
    bool reused;         /* taken from an earlier pass */
    char *warning;       /* why it could not be written, or NULL */
    uint64_t salt;       /* of checksums: what was written for another pass does not pass them */
    IndexFolder *folder;
    DataFile *own;   /* spool and table, or ... */
    uint8_t *memory; /* ... these, or neither: they are in files.bodies */
} Sidecar;

/* Whether the file is known as of this kind, and what is known of it. */
bool sidecar_known(const SidecarKind *kind, const SidecarOptions *options, IndexHead *ret);
/* Blocks for as long as the pass takes. */
Status sidecar_open(const SidecarKind *kind, const SidecarOptions *options, Sidecar **ret,
                    Error *err);
void sidecar_close(Sidecar *sidecar); /* accepts NULL */

/* Read at a place of the table, or of the spool as sidecar_spool told it; false when that cannot
 * be. */
bool sidecar_read_table(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length);
bool sidecar_read_spool(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length);
/* The file of its own, or that of all; for messages, owned by the caller. */
char *sidecar_path(const Sidecar *sidecar);
/* After a read that failed: what became of the file of its own, in a line, when it is gone or
 * another, which is no fault of the disk; NULL: what it says is damaged. Owned by the caller. */
char *sidecar_lost(const Sidecar *sidecar);

/* For `build`. */
void sidecar_put_body(SidecarWriter *writer, const void *bytes, size_t length);
void sidecar_put_table(SidecarWriter *writer, const void *bytes, size_t length);
/* Returns where the bytes will be in the spool. */
uint64_t sidecar_spool(SidecarWriter *writer, const void *bytes, size_t length);
/* Whether about `bytes` more of a spool will fit; false, once and for all, where they will not, or
 * where writing has failed: nothing of what comes will be kept. */
bool sidecar_has_room(SidecarWriter *writer, uint64_t bytes);
/* Whether it goes to disk: what is large and could be computed again is then worth its room. */
bool sidecar_is_kept(const SidecarWriter *writer);
uint64_t sidecar_salt(const SidecarWriter *writer);

#endif
