/* Metrics: metrics.jsonl, one object for each step and each evaluation, in ascending order of
 * steps. When a run goes back to a checkpoint, the lines of later steps are cut off, as those of
 * the ledger are: the steps are made again. A line that a kill cut off is removed when the file is
 * opened, and an evaluation made again in the place where it was made before replaces its line. The
 * end of one stage and the beginning of the next are two places at one step. However long the file
 * is, only its end is read.
 * Lines are on the disk with the checkpoint of their step (keeper.c flushes the file); a crash of
 * the machine loses those behind it that the system has not written yet, and may leave zeros for a
 * part of the last one, which go as a torn line does. Writing to it never fails the run: a line for
 * which the disk has no room waits for the next one or the end, and none is there in part. Loop
 * thread. */
#ifndef TROUPE_CONTROLLER_VIEW_METRICS_H
#define TROUPE_CONTROLLER_VIEW_METRICS_H

#include <stdint.h>

#include "base/error.h"

typedef struct Metrics Metrics;

Status metrics_open(const char *path, Metrics **ret, Error *err);
void metrics_close(Metrics *metrics); /* accepts NULL */

typedef enum { METRICS_STEP, METRICS_EVAL } MetricsKind;

/* One line: begin, the values, end. A value that is not finite is written as null. `stage` counts
 * from 1; 0: the job has none, and the line does not say (which counts as the first). */
void metrics_begin(Metrics *metrics, MetricsKind kind, int64_t step, int stage);
void metrics_put(Metrics *metrics, const char *name, double value);
void metrics_end(Metrics *metrics);

/* Cuts off what was said of steps after `step`. */
void metrics_rewind(Metrics *metrics, int64_t step);

#endif
