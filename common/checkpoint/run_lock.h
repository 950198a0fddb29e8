/* The lock of a run folder: <run>/lock, held with flock(2) by the one controller that may write
 * there, and telling in its text who that is. The kernel frees the lock when its holder dies, so
 * a dead run's is taken over without a question. */
#ifndef TROUPE_CHECKPOINT_RUN_LOCK_H
#define TROUPE_CHECKPOINT_RUN_LOCK_H

#include "base/error.h"

typedef struct RunLock RunLock;

/* Takes the lock of an existing folder. ERR_EXISTS: a living process holds it; the message names
 * pid, host and since when. *ret_note (owned; `ret_note` may be NULL) is NULL, or a sentence on
 * the dead run whose lock was taken over. */
Status run_lock_acquire(const char *run_folder, RunLock **ret, char **ret_note, Error *err);
void run_lock_release(RunLock *lock); /* accepts NULL */

#endif
