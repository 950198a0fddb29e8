/* Trouble: what a reward, the tools, or a rollout function of the user's fail at now, one try after
 * the other. Whoever waits for an answer is told by it why there is none, long before anything is
 * given up; and where it lasts too long the run ends. A try that goes well ends the trouble. Any
 * number of threads; all functions accept NULL, for which nothing is noted. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_TROUBLE_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_TROUBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define TROUBLE_TEXT_BYTES 384

typedef struct Trouble Trouble;

/* `what` names it in messages, by its key ("rollout.reward"); copied. failing_ms is
 * rollout.failing_s: from the first failed try to the last one, with none between that went well;
 * a quarter of it while none ever has. 0: for ever. */
Trouble *trouble_create(const char *what, int64_t failing_ms);
void trouble_destroy(Trouble *trouble);

void trouble_note(Trouble *trouble, const char *why); /* a try has failed */
void trouble_end(Trouble *trouble);                   /* one went well */

/* ERR_RESOURCE with the reason and what to do when it has lasted too long; err may be NULL. */
bool trouble_lasts(Trouble *trouble);
Status trouble_check(Trouble *trouble, Error *err);

/* "rollout.reward: <why> (12 tries in 34 s, none went well)". False, and "", when there is none: a
 * single try that failed may have been chance, and what failed five minutes ago and is not tried
 * any more is past. */
bool trouble_describe(Trouble *trouble, char *ret, size_t bytes);

#endif
