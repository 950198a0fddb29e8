/* The log: one line per event, `level event key=value ...` on stderr for people (a value of several
 * lines stands indented below it), one JSON object per line in events.jsonl for programs. Libraries
 * return errors and do not log; the top of a loop logs once. The sink is process-wide (one of the
 * three permitted globals); log_event may be called by any thread. */
#ifndef TROUPE_BASE_LOG_H
#define TROUPE_BASE_LOG_H

#include <stdint.h>

#include "base/error.h"

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } LogLevel;

typedef enum { FIELD_STRING, FIELD_INT, FIELD_DOUBLE } FieldKind;

/* One key and its value; build with the F_ macros. The pointers are borrowed for the call. */
typedef struct LogField {
    const char *key;
    FieldKind kind;
    const char *string;
    int64_t integer;
    double real;
} LogField;

#define F_STR(key_, value_)  ((LogField){.key = key_, .kind = FIELD_STRING, .string = value_})
#define F_INT(key_, value_)  ((LogField){.key = key_, .kind = FIELD_INT, .integer = value_})
#define F_REAL(key_, value_) ((LogField){.key = key_, .kind = FIELD_DOUBLE, .real = value_})

/* Names this process in every line and opens the events file for appending (NULL: stderr only).
 * Lines below `level` are dropped from stderr; events.jsonl gets all. */
Status log_open(const char *actor, const char *events_path, LogLevel level, Error *err);
void log_close(void);

/* log_event(LOG_INFO, "actor_started", F_STR("actor", name), F_INT("pid", pid)); */
void log_write(LogLevel level, const char *event, const LogField *fields, int count);
#define log_event(level, event, ...)                                                               \
    log_write(level, event, (const LogField[]){__VA_ARGS__},                                       \
              (int)(sizeof((const LogField[]){__VA_ARGS__}) / sizeof(LogField)))

/* Called with each stderr line instead of writing it: the controller's progress line redraws itself
 * around log lines this way. NULL restores stderr. */
void log_set_writer(void (*writer)(void *context, const char *line), void *context);

#endif
