/* Two clocks, never mixed: the monotonic one for every deadline and duration, the wall clock only
 * for stamps that people read. Any thread. */
#ifndef TROUPE_BASE_CLOCK_H
#define TROUPE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_ns(void); /* monotonic, since an arbitrary start */
int64_t clock_ms(void); /* monotonic, since an arbitrary start */

#define CLOCK_STAMP_BYTES 32
/* UTC, ISO 8601 with milliseconds: 2026-01-31T23:59:59.123Z. Returns `buffer`. */
char *clock_stamp(char buffer[CLOCK_STAMP_BYTES]);

#endif
