/* What an inspection looks like to people: a record as the text that the model sees, with what is
 * trained of it in green or, in plain text, between "⟦" and "⟧"; and the figures of the first
 * records. Control characters of the data are shown as \xNN, never sent to a terminal. */
#ifndef TROUPE_ROLLOUT_WORKER_INSPECT_VIEW_H
#define TROUPE_ROLLOUT_WORKER_INSPECT_VIEW_H

#include "base/str.h"
#include "rollout_worker/inspect.h"

/* What the entries of the data became, where that is not plain. */
void inspect_view_entries(const Inspection *inspection, Str *out);

/* Which sources take turns, with which share, and how often each is gone through in an epoch and
 * in the run. */
void inspect_view_mixture(const Inspection *inspection, Str *out);
void inspect_view_record(const InspectOptions *options, const InspectedRecord *record, bool color,
                         Str *out);
void inspect_view_summary(const InspectOptions *options, const InspectSummary *summary, Str *out);
/* A line on what became of them, and for each reason of rejection how many and the first. */
void inspect_view_brief(const InspectOptions *options, const InspectSummary *summary, Str *out);

/* The same for programs, as one object of JSON on one line; `record` may be NULL. `summary` is of
 * each source that is looked at, or NULL. */
void inspect_view_json(const InspectOptions *options, const Inspection *inspection,
                       const InspectedRecord *record, const InspectSummary *summary, Str *out);

#endif
