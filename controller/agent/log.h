/* AgentLog: where an actor's output goes: a file that is rotated by size (name, name.1, name.2
 * ...), and its last bytes in memory for the death notice. A disk that is full or gone loses lines,
 * never the actor. */
#ifndef TROUPE_CONTROLLER_AGENT_LOG_H
#define TROUPE_CONTROLLER_AGENT_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct AgentLog AgentLog;

typedef struct AgentLogOptions {
    const char *path;  /* appended to */
    int64_t bytes_max; /* of one file */
    int files_max;     /* with the current one; the oldest is dropped */
    size_t tail_max;   /* bytes kept in memory */
} AgentLogOptions;

Status agent_log_open(const AgentLogOptions *options, AgentLog **ret, Error *err);
void agent_log_close(AgentLog *log); /* accepts NULL */
void agent_log_write(AgentLog *log, const char *bytes, size_t length);

/* The last lines, whole ones where the beginning was cut. Borrowed until the next write. */
const char *agent_log_tail(AgentLog *log);

#endif
