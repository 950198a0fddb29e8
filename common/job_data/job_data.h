/* JobData: the data that a job names, opened as its run opens it. Whoever looks at a run's records
 * (data source, `data inspect`, `data audit`) sees the same ones at the same positions. */
#ifndef TROUPE_JOB_DATA_JOB_DATA_H
#define TROUPE_JOB_DATA_JOB_DATA_H

#include "config/eval_set.h"
#include "dataset/mixture.h"

/* What the job trains on, or with `eval` one of its evaluation sets (in the order of the files).
 * Texts are the configuration's. Returns how many sources there are, at least 1. Pure. */
int job_data_sources(const JobConfig *config, const EvalSet *eval,
                     MixtureSource ret[INTERLEAVE_SOURCES_MAX]);

typedef struct JobDataOptions {
    const JobConfig *config;
    const EvalSet *eval;   /* NULL: what is trained on */
    bool look_only;        /* nothing is written: an index that is there is used, none is kept */
    bool readers_in_order; /* readers of the user's do not shuffle, whatever the job says: records
                            * are counted, and positions mean nothing */
    uint64_t records_max;  /* of each source, as of DatasetOptions */
    FilePool *pool;        /* as of DatasetOptions */
    IndexFolder *folder;   /* as of DatasetOptions: that of the run, "index" */
    HubRoom *room;         /* that all sets of a process share; NULL: it is opened alone */
    ReadWatch *watch;      /* NULL: nobody watches */
} JobDataOptions;

/* The room that data.cache_gb allows, with what earlier sessions of the run have left; the caller's
 * to release. Of the run itself: whoever only looks drops nothing. */
HubRoom *job_data_room(const JobConfig *config);

/* As mixture_open, with indexes and the Hub's commits in the run's folder. Nothing is borrowed but
 * pool, folder, room and watch. */
Status job_data_open(const JobDataOptions *options, Mixture **ret, Error *err);
/* mixture_check_windows of one that was opened so. */
Status job_data_check_windows(const JobDataOptions *options, const Mixture *mixture, Error *err);

#endif
