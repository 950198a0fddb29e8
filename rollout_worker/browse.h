/* Browse: finds the answers that a run saved (rollout.save) and tells what became of each: from the
 * files of groups, the run's effective configuration and its ledger; of a run that goes on or is
 * over. Reads only. One thread. */
#ifndef TROUPE_ROLLOUT_WORKER_BROWSE_H
#define TROUPE_ROLLOUT_WORKER_BROWSE_H

#include <cjson/cJSON.h>

#include "config/job.h"
#include "sample/group.h"
#include "sample/sample.h"

typedef enum { BROWSE_IN_ORDER, BROWSE_BEST, BROWSE_WORST, BROWSE_RANDOM } BrowseOrder;

typedef struct BrowseOptions {
    const char *run;    /* folder */
    const char *stage;  /* name or number; NULL: the last one that saved answers */
    const char *folder; /* of the answers; NULL: the one that the run's job names */
    const char *set;    /* of an evaluation; NULL: training */
    int64_t step;       /* that consumed them, or whose weights were evaluated; -1: any, and of an
                           evaluation the newest */
    int64_t position;   /* -1: any */
    const char *prompt; /* a text that stands in it; NULL: any */
    BrowseOrder order;  /* best and worst by reward, of equals the earlier first */
    uint64_t seed;      /* of BROWSE_RANDOM */
    uint64_t count;     /* so many at most */
} BrowseOptions;

/* One answer; all borrowed. */
typedef struct BrowsedAnswer {
    const cJSON *json; /* as saved_group.h writes it */
    const char *stage; /* name or number; NULL: the run has but one, without a name */
    const Sample *sample;
    int group_size;
    int64_t step;         /* that consumed its position; 0: none yet, or it is of an evaluation */
    bool trained;         /* that step learnt from it */
    GroupVerdict verdict; /* of its group; of an evaluation always GROUP_KEPT */
    double advantage;     /* of each of its tokens; NAN: not known from rewards alone */
    double log_prob_mean; /* over its trained tokens; NAN: it has none */
} BrowsedAnswer;

typedef struct Browser Browser;

/* ERR_NOT_FOUND when there is no run, no answers in it, or none of that stage, set or step. */
Status browser_open(const BrowseOptions *options, Browser **ret, Error *err);
void browser_close(Browser *browser);                    /* accepts NULL */
const JobConfig *browser_config(const Browser *browser); /* of the stage */

/* The stage that is told of ("rl, stage 2 of 3 so far"); NULL: the run has but one, without a name.
 * Borrowed. */
const char *browser_stage(const Browser *browser);

/* Shows the chosen answers one after the other; *ret_shown counts them. */
Status browser_show(Browser *browser, void (*show)(void *context, const BrowsedAnswer *answer),
                    void *context, uint64_t *ret_shown, Error *err);

#endif
