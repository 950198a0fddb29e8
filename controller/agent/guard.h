/* AgentGuard: a second, tiny process that stands behind the agent and outlives it by a moment. It
 * is the one that was started; it forks the agent and waits. When the agent dies by whatever means,
 * the guard (a subreaper) is handed everything that the agent left (actors on their way into death,
 * strays that fled their groups), kills it, removes the socket files that they left, and ends as
 * the agent ended. When the guard itself is killed, the agent is told by its parent-death signal
 * and ends in order, some moments after it. So nothing stays behind unless both are killed at one
 * stroke; then the actors still die by their own parent-death signal. */
#ifndef TROUPE_CONTROLLER_AGENT_GUARD_H
#define TROUPE_CONTROLLER_AGENT_GUARD_H

#include <sys/types.h>

#include "base/error.h"

typedef struct AgentGuard AgentGuard; /* shared memory of the two */

/* With this and the number of the signal an embedded agent's guard exits when the agent was killed:
 * so its controller knows which of the two it was. A daemon's guard dies of the same signal. */
#define AGENT_KILLED_CODE 128

/* Splits this process, which must have one thread. Returns in the agent; the guard never returns.
 * `starter`: the process that started this one and with whose death the guard ends the agent; 0: a
 * daemon. It is told, not looked up: a parent that has died looks like one that is process 1. */
Status agent_guard_start(pid_t starter, AgentGuard **ret, Error *err);

pid_t agent_guard_pid(const AgentGuard *guard);

/* Notes an endpoint whose socket file must not outlive the agent; returns its slot, or -1 when all
 * ACTORS_MAX are taken. */
int agent_guard_add(AgentGuard *guard, const char *endpoint);
void agent_guard_remove(AgentGuard *guard, int slot); /* accepts -1 */

#endif
