/* Skipped: how many records a run passed over, in words, where that is worth them: a person who
 * reads one line a minute must not find out after the training that half of the data was not in it.
 */
#ifndef TROUPE_CONTROLLER_VIEW_SKIPPED_H
#define TROUPE_CONTROLLER_VIEW_SKIPPED_H

#include "base/str.h"
#include "core/controller.h"

typedef struct Skipped {
    int64_t records;     /* not trained, counted whenever they come by */
    double share;        /* of the positions that were consumed */
    RejectReason mostly; /* REJECT_NONE when there are none */
    int64_t odd;         /* trained, though something about them was odd */
} Skipped;

Skipped skipped_count(const JobView *job);
bool skipped_is_much(const Skipped *skipped); /* more than one in a hundred */

/* "12.3 %, mostly too_long" */
void skipped_put_share(Str *text, double share, const char *mostly);

/* At the end of a run: into the log, when it is much, and what was odd. */
void skipped_log(const JobView *job);

#endif
