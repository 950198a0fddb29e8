/* Strays: processes that an actor started and that fled its process group. When their parent ends,
 * the kernel hands them to the nearest subreaper: the agent, or the guard once the agent is dead.
 * Both kill them here. */
#ifndef TROUPE_CONTROLLER_AGENT_STRAYS_H
#define TROUPE_CONTROLLER_AGENT_STRAYS_H

#include <stdbool.h>

/* Kills and reaps every child of this process that `is_known` does not claim (NULL: none is). Never
 * waits: one that is not dead yet is met again at the next call. Returns how many there were. */
int agent_kill_strays(bool (*is_known)(const void *context, int pid), const void *context);

#endif
