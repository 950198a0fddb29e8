/* What the job_*.c files share: the table of keys, and a JobConfig with the origins of its values.
 */
#ifndef TROUPE_CONFIG_JOB_INTERNAL_H
#define TROUPE_CONFIG_JOB_INTERNAL_H

#include "config/job.h"
#include "config/table.h"

#define JOB_NAME_LENGTH_MAX 40 /* characters */

extern const ConfigTable job_table;
extern const ConfigForeign job_foreign[]; /* job_foreign.c */
extern const int num_job_foreign;

/* Every JobConfig is the first member of one of these. */
typedef struct LoadedJob {
    JobConfig config;
    ConfigOrigin *origin;               /* [config_num_keys(&job_table)], in the arena */
    const char *where;                  /* names the job file in messages */
    const char *base_dir, *working_dir; /* where relative paths of the file and of --set start */
    const char *set_aside; /* data.train or data.sources, where --set gives the other; else NULL */
    Arena *arena;
} LoadedJob;

/* Defaults of the section `algorithm` that follow from other values of it. */
void job_derive_algorithm(LoadedJob *job);

/* model_path.c (model_path_checkpoint: job.h) */
bool model_path_is_run(const char *path); /* a run's folder, or its folder of checkpoints */
/* The end of an absent path, when it looks like OWNER/NAME on the Hugging Face hub, else NULL;
 * `existing` is the part of the path that is there. Borrowed. */
const char *model_path_hub_name(const char *path, const char *existing);

/* job_name.c: bytes of the character at `text` if it may stand in a job's name, which names
 * folders: letters and digits of any script, '.', '_' and '-'; else 0. */
int job_name_character(const char *text);
bool job_name_is_valid(const char *name);
/* The name of a job whose file is `path`: the file's without its ending. Where that may not be a
 * name, '-' stands for what may not be in one, and a digest tells it from others that then look
 * alike. Owned by the caller. */
char *job_name_from_file(const char *path);

/* ERR_INVALID with a message about two keys (the second may be NULL): the place is where the first
 * of them that was written stands, else the job file. */
Status job_refuse(const LoadedJob *job, const char *key, const char *other, Error *err,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* job_check_eval.c: evaluation sets, and which evaluation is the best. */
Status job_check_eval(const LoadedJob *job, Error *err);

/* source_set.c: what is trained on. */
Status job_check_sources(const LoadedJob *job, Error *err);

/* job_sampling.c: how answers are drawn and what ends them. */
Status job_check_sampling(const LoadedJob *job, Error *err);

/* Whether the values agree with each other. */
Status job_config_check(const LoadedJob *job, Error *err);

/* Where the value of a key comes from: "job.yaml:7", "--set train.lr=1", or NULL for a default.
 * Arena memory. */
const char *job_key_place(const LoadedJob *job, const char *path, Arena *arena);

#endif
