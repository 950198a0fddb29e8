/* Failures: what tools and rollout functions of the user's failed at in this worker. Whatever a
 * thread wants of them is tried several times with pauses between that double; what fails at the
 * last one is given up, and too much of that ends the run, because going on would train on what is
 * left by chance; it ends sooner while nothing has ever gone well. Any number of threads. */
#ifndef TROUPE_ROLLOUT_WORKER_GENERATE_FAILURES_H
#define TROUPE_ROLLOUT_WORKER_GENERATE_FAILURES_H

#include <stdint.h>

#include "config/job.h"
#include "rollout_worker/process/wanted.h"

typedef struct Failures Failures;

/* What they are of, as messages name it; constant. */
typedef struct FailuresOf {
    const char *what; /* "the rollout function" */
    const char *key;  /* "rollout.function" */
} FailuresOf;

/* The limits are the configuration's rollout.failures_max and rollout.failing_s. */
Failures *failures_create(FailuresOf of, const JobConfig *config);
void failures_destroy(Failures *failures); /* accepts NULL */

/* Whether a failure with this status is one of these: the program is gone, silent, or breaks its
 * protocol. */
bool failures_are_of(Status status);

Trouble *failures_trouble(const Failures *failures); /* what they are now; borrowed */

/* Notes that attempt number `attempt` (from 1) ended: with OK, or with the failure `why`. Sleeps
 * before the next one: *ret_again. Else it is given up. ERR_RESOURCE with the counts and what to do
 * when it has been too often or lasts too long; ERR_CANCELLED when nobody wants it any more. */
Status failures_note(Failures *failures, const Error *why, int attempt, const Wanted *wanted,
                     bool *ret_again, Error *err);
void failures_note_success(Failures *failures);

#endif
