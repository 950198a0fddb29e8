/* PackedLog: what a pass over a compressed text has found so far, kept in the index folder as it is
 * found, so that a later start goes on where an earlier one was ended, and reads what that one came
 * to. Two files, named by the probe of the data file, so that they serve a copy of it, too:
 *
 *   text-PROBE.pieces  a header, then a PackedPiece behind another, each with a checksum of its own
 *   text-PROBE.kept    what these need to be decoded: windows and copies, compressed with zstd
 *
 * Of a file that comes to its end within a few pieces, which need nothing to be decoded, they are
 * kept together with those of other files instead (index_folder.h), once its end is found.
 *
 * What a kill has left half written is written again. Neither is held open, and none is there
 * before something was found: a data set may have tens of thousands of files. Of several openings
 * the one that adds first goes on writing; others take what they found when they were opened and
 * keep what they add to themselves, as does who cannot write, or may not; copies of text are not
 * kept then. In the byte order of the machine. Not for several threads at once, but for
 * packed_log_read. */
#ifndef TROUPE_DATASET_PACKED_LOG_H
#define TROUPE_DATASET_PACKED_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "dataset/index_folder.h"
#include "dataset/text_cutter.h"

#define PACKED_DAMAGE_BYTES 256

/* A stretch of the text, of 1 to 2 MiB, and the records in it: those whose first character that is
 * not white space is in it. The last one, behind the text's end, has no text. */
typedef struct PackedPiece {
    SeekBlock seek;
    uint64_t place;   /* of the file, from which its text comes: TextCut */
    uint64_t lines;   /* line ends in the text before it, ... */
    uint64_t records; /* ... and records */
    uint32_t length;  /* of its text; 0: the last one */
    uint32_t own_lines, own_records;
    uint32_t first_end;    /* behind the first line end in it; 0: there is none */
    uint32_t blank_before; /* it begins in a line of which there was nothing but so much space */
    uint32_t inside;       /* 1: it begins in a record */
    uint64_t check;        /* of all of this, and of which piece it is */
} PackedPiece;

typedef struct PackedLogOptions {
    const char *path; /* of the folder, created when missing; NULL: nothing is kept */
    bool read_only;
    IndexFolder *folder;                     /* the same; borrowed */
    uint64_t probe, file_bytes, block_bytes; /* what is found depends on these alone */
} PackedLogOptions;

typedef struct PackedLog PackedLog;

/* What is there is appended to *ret_pieces, of malloc, which is NULL where there is none. */
PackedLog *packed_log_open(const PackedLogOptions *options, PackedPiece **ret_pieces,
                           uint64_t *ret_count);
void packed_log_close(PackedLog *log); /* accepts NULL */
/* Why not all is kept, or NULL; borrowed. */
const char *packed_log_warning(const PackedLog *log);
/* Whether copies are kept. */
bool packed_log_keeps(const PackedLog *log);
/* Keeps the next piece, with its checksum, and what it needs. */
void packed_log_add(PackedLog *log, PackedPiece *piece, const void *kept, size_t kept_bytes);
/* Before the last piece: why the text ends before the file does; "" while nobody knows. */
void packed_log_set_damage(PackedLog *log, const char *damage);
const char *packed_log_damage(const PackedLog *log);
/* What was kept of piece `index`, decompressed; false when it is not there. Any thread. */
bool packed_log_read(const PackedLog *log, uint64_t index, const SeekBlock *block, void *bytes,
                     size_t length);

#endif
