/* ReadWatch: how a long read of data files, or fetching them, is watched, and ended, from another
 * thread. */
#ifndef TROUPE_DATASET_WATCH_H
#define TROUPE_DATASET_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READ_WAITS_BYTES 384

typedef struct ReadWatch {
    _Atomic uint64_t progress;                /* raised by whoever reads */
    _Atomic uint64_t bytes_read, bytes_total; /* of files that are being indexed */
    _Atomic bool cancelled; /* set by whoever wants it to end: the read fails with ERR_CANCELLED */
    _Atomic int64_t fetched, to_fetch; /* bytes that came from the Hub, and that will have to */
    atomic_bool busy;                  /* somebody is at ... */
    char waits_for[READ_WAITS_BYTES];  /* ... what somebody else has to do, which was waited for
                                        * for some seconds; "": nothing is */
} ReadWatch;

/* Any thread. With "": it is over. */
void read_watch_say(ReadWatch *watch, const char *waits_for);
/* False: nothing is waited for. */
bool read_watch_said(ReadWatch *watch, char *ret, size_t size);

#endif
