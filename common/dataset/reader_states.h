/* ReaderStates: the states that a user's reader (user_reader.h) was in along its stream, kept in
 * the run's index folder so that any position is near one of them, whoever asks and whenever. A
 * file that is appended to, with a checksum for each entry: what a kill cut off is not there. It is
 * bounded: when it has grown to READER_STATES_MAX entries or READER_STATES_BYTES_MAX, every second
 * one goes and new ones come half as often. One thread at a time. */
#ifndef TROUPE_DATASET_READER_STATES_H
#define TROUPE_DATASET_READER_STATES_H

#include <stdint.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/str.h"

#define READER_STATES_MAX       2048
#define READER_STATES_BYTES_MAX (64u << 20)
#define READER_STATE_BYTES_MAX  (1u << 20)
#define READER_STATES_INTERVAL  1000 /* records between two, to begin with */

typedef struct ReaderStates ReaderStates;

/* Where a reader stands: before the record at `position`. */
typedef struct ReaderPoint {
    uint64_t position, epoch;
    uint64_t index; /* records of the epoch before it */
    uint64_t hash;  /* of these */
    /* Of the records right behind it, so that a reader which was put here can be told from one
     * that is elsewhere before any of its records is used; 0: the epoch was over. */
    uint64_t ahead, ahead_hash;
} ReaderPoint;

/* `folder` NULL: states are kept in memory alone; `read_only`: those that are there are used, and
 * none is written. The file belongs to the stream with this fingerprint. What is damaged is left
 * out, and what cannot be written is kept in memory: it costs time later, nothing else. */
ReaderStates *reader_states_open(const char *folder, bool read_only,
                                 const char fingerprint[DIGEST_HEX_BYTES]);
void reader_states_close(ReaderStates *states); /* accepts NULL */

/* Whether the next state is wanted at this position: far enough behind the last one. */
bool reader_states_want(const ReaderStates *states, uint64_t position);
void reader_states_add(ReaderStates *states, const ReaderPoint *point, const void *state,
                       size_t length);

/* The last one at or before `position`, or NULL; *ret_state (may be NULL) is what the reader said
 * there. Borrowed until the next add. */
const ReaderPoint *reader_states_find(const ReaderStates *states, uint64_t position,
                                      const Str **ret_state);

#endif
