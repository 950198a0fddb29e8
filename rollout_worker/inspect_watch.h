/* InspectWatch: says on stderr what a look at data waits for, since code of the user's, a large
 * index or the Hub may take any time, and ends it where a reader of the user's does not come back:
 * such code cannot be asked to. A thread of its own from start to stop. */
#ifndef TROUPE_ROLLOUT_WORKER_INSPECT_WATCH_H
#define TROUPE_ROLLOUT_WORKER_INSPECT_WATCH_H

#include "dataset/watch.h"
#include "rollout_worker/inspect.h"

typedef struct InspectWatch InspectWatch;

/* Of the set of `options`, whose `watch` is the one that this returns; both are borrowed. */
InspectWatch *inspect_watch_start(const InspectOptions *options);
ReadWatch *inspect_watch_of(InspectWatch *watch);
/* Before its first record is read. It must outlive the watch. */
void inspect_watch_opened(InspectWatch *watch, const Inspection *inspection);
void inspect_watch_stop(InspectWatch *watch); /* accepts NULL */

#endif
