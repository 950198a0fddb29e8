/* OffsetTable: where things begin that stand one behind another (the records of a text, copies of
 * rows), as the table of a sidecar: 8.4 bytes each. Cut into chunks of 512 bytes with a checksum
 * each, of which one is read, and checked, for each look: a start reads nothing of it, what is
 * looked at takes no memory, and a damaged or torn table is found where it is damaged and gives
 * nothing wrong. With each offset goes a number that mostly grows by one, such as a line's.
 *
 * A writer belongs to one thread; reading is for any. */
#ifndef TROUPE_DATASET_OFFSET_TABLE_H
#define TROUPE_DATASET_OFFSET_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "dataset/sidecar.h"

#define OFFSETS_A_CHUNK 61
#define OFFSET_MAX      ((UINT64_C(1) << 48) - 1)

typedef struct OffsetChunk {
    uint64_t number;                 /* of the first */
    uint64_t entry[OFFSETS_A_CHUNK]; /* 48 bits of offset, and over them by how much more than one
                                      * the number has grown */
    uint64_t end;                    /* of the last */
    uint64_t check;
} OffsetChunk;

typedef struct OffsetWriter {
    SidecarWriter *sidecar; /* borrowed */
    OffsetChunk chunk;
    uint64_t count, number; /* of what was put; of the last */
} OffsetWriter;

/* Zero-initialise it but for the sidecar. Offsets and numbers ascend. False: the number has jumped
 * by more than the table holds, and the caller has to keep it. */
bool offset_writer_put(OffsetWriter *writer, uint64_t offset, uint64_t number);
/* Where the last one ends. */
void offset_writer_end(OffsetWriter *writer, uint64_t end);

typedef struct OffsetPlace {
    uint64_t begin, end; /* which is where the next one begins */
    uint64_t number;
    uint64_t jumped; /* the number is counted from that of this one, which has jumped; NO_JUMP */
} OffsetPlace;

#define NO_JUMP UINT64_MAX

/* Of a table that has `index`; false: it is damaged, or cannot be read. */
bool offset_table_find(const Sidecar *sidecar, uint64_t index, OffsetPlace *ret);

#endif
