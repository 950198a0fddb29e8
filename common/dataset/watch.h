/* ReadWatch: how a long read of data files, or fetching them, is watched, and ended, from another
 * thread. */
#ifndef TROUPE_DATASET_WATCH_H
#define TROUPE_DATASET_WATCH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ReadWatch {
    _Atomic uint64_t progress;                /* raised by whoever reads */
    _Atomic uint64_t bytes_read, bytes_total; /* of files that are being indexed */
    _Atomic bool cancelled; /* set by whoever wants it to end: the read fails with ERR_CANCELLED */
    _Atomic int64_t fetched, to_fetch; /* bytes that came from the Hub, and that will have to */
} ReadWatch;

#endif
