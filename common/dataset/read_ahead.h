/* ReadAhead: a file from its beginning to its end in pieces, read by a thread of its own while the
 * caller goes through those before. A pass over a file in memory then takes as long as reading it,
 * and on a disk the disk never waits. One caller. */
#ifndef TROUPE_DATASET_READ_AHEAD_H
#define TROUPE_DATASET_READ_AHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/file_pool.h"

typedef struct ReadAhead ReadAhead;

/* Whether a file of that size is worth a thread: it is not small, and this process has more than
 * one core. */
bool read_ahead_pays(uint64_t file_bytes);

/* The file is borrowed. */
ReadAhead *read_ahead_open(DataFile *file, uint64_t file_bytes, size_t piece_bytes);
/* The next piece, valid until the next call; of length 0 at the end. */
Status read_ahead_next(ReadAhead *ahead, const char **ret_bytes, size_t *ret_length, Error *err);
void read_ahead_close(ReadAhead *ahead); /* accepts NULL; at any time */

#endif
