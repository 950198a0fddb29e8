/* stages.jsonl in a run folder: the stages that a run has entered, a line for each, and the
 * configuration of each in a file beside it. For whoever looks at what a stage made when the run is
 * at another one, or over. Where the run goes back to a stage, those behind it are struck off. No
 * state; any thread. */
#ifndef TROUPE_CONFIG_STAGE_LIST_H
#define TROUPE_CONFIG_STAGE_LIST_H

#include "config/job.h"

typedef struct StageEntry {
    int number;            /* in the run, from 1 */
    char *name;            /* NULL: its job has no stages */
    int64_t steps_before;  /* of the run */
    int generating_before; /* stages that generate */
} StageEntry;

typedef struct StageList {
    StageEntry *entry; /* [count], their numbers ascend */
    int count;
} StageList;

/* Without the file there are none. ERR_DATA names file and line of what makes no sense. */
Status stage_list_read(const char *run_dir, StageList *ret, Error *err);
void stage_list_free(StageList *list);

/* The last stage of that name, or the one of that number; -1: there is none. */
int stage_list_find(const StageList *list, const char *name);

/* Writes down that the run is at this stage, whose effective configuration is `text`. The file
 * system's errors, and those of stage_list_read. */
Status stage_list_enter(const char *run_dir, const StageEntry *entry, const char *text, Error *err);

/* The configuration of a stage; owned by the caller. */
Status stage_list_config(const char *run_dir, int number, JobConfig **ret, Error *err);

#endif
