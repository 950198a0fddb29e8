/* What the job_*.c files share: the table of keys, and a JobConfig with the origins of its values.
 */
#ifndef TROUPE_CONFIG_JOB_INTERNAL_H
#define TROUPE_CONFIG_JOB_INTERNAL_H

#include "config/job.h"
#include "config/table.h"

#define JOB_NAME_LENGTH_MAX 40
#define JOB_NAME_LETTERS    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

extern const ConfigTable job_table;
extern const ConfigForeign job_foreign[]; /* job_foreign.c */
extern const int num_job_foreign;

/* Every JobConfig is the first member of one of these. */
typedef struct LoadedJob {
    JobConfig config;
    ConfigOrigin *origin; /* [job_table.num_keys], in the arena */
    const char *where;    /* names the job file in messages */
    Arena *arena;
} LoadedJob;

/* Defaults of the section `algorithm` that follow from other values of it. */
void job_derive_algorithm(LoadedJob *job);

/* Whether the values agree with each other. */
Status job_config_check(const LoadedJob *job, Error *err);

/* Where the value of a key comes from: "job.yaml:7", "--set train.lr=1", or NULL for a default.
 * Arena memory. */
const char *job_key_place(const LoadedJob *job, const char *path, Arena *arena);

#endif
