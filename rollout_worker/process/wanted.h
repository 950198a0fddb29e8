/* Wanted: whether anybody still wants what a thread waits for: neither was the work given up nor is
 * the process to end. Whoever waits looks at it every now and then. Plain data; the flags become
 * true once, from any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_WANTED_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_WANTED_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"

#define WANTED_SLICE_MS 50 /* how often who waits looks */

typedef struct Wanted {
    const atomic_bool *given_up, *ended; /* borrowed; NULL: never */
} Wanted;

bool wanted_is_over(const Wanted *wanted); /* NULL: it is wanted for ever */

/* OK, or ERR_CANCELLED when it is over. */
Status wanted_check(const Wanted *wanted, Error *err);

/* Sleeps; ERR_CANCELLED as soon as it is over. */
Status wanted_pause(const Wanted *wanted, int64_t delay_ms, Error *err);

#endif
