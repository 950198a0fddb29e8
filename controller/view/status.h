/* What `controller status` shows: the state of a run as JSON for programs and as a table for
 * people. */
#ifndef TROUPE_CONTROLLER_VIEW_STATUS_H
#define TROUPE_CONTROLLER_VIEW_STATUS_H

#include "core/controller.h"
#include "view/reporter.h"

/* One JSON object: job, phase, step, the last step's figures, what is waited for, and every actor
 * with state, reason, pid. Every key is always there: what there is none of (the pid of an actor
 * that is not started, the loss before the first step) is null. Owned by the caller. */
char *status_json(const JobConfig *config, const Controller *controller, const ReportView *last,
                  int64_t now_ms);

/* The same JSON as a table. Owned by the caller; ERR_DATA when it is not what status_json makes. */
Status status_table(const char *json, char **ret, Error *err);

#endif
