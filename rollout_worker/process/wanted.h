/* Wanted: whether anybody still wants what a thread waits for: neither was the work given up nor is
 * the process to end, nor has what is waited for failed for so long that the run ends. Whoever
 * waits looks at it every now and then, and says by it what failed meanwhile and is tried again.
 * Plain data; the flags become true once, from any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_WANTED_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_WANTED_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"
#include "rollout_worker/process/trouble.h"

#define WANTED_SLICE_MS 50 /* how often who waits looks */

typedef struct Wanted {
    const atomic_bool *given_up, *ended; /* borrowed; NULL: never */
    Trouble *trouble;                    /* of what is waited for; borrowed, or NULL */
} Wanted;

bool wanted_is_over(const Wanted *wanted); /* NULL: it is wanted for ever */

/* OK, or ERR_CANCELLED when it is over: ERR_RESOURCE where that is for the trouble (trouble_check).
 */
Status wanted_check(const Wanted *wanted, Error *err);

/* Sleeps; fails as wanted_check as soon as it is over. */
Status wanted_pause(const Wanted *wanted, int64_t delay_ms, Error *err);

/* A try failed for which nobody will get an answer, as it is made again (NULL: nobody listens). */
void wanted_note_failure(const Wanted *wanted, const char *why);

#endif
