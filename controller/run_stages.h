/* RunStages: the stages that a run goes through, in whatever session: those of its job file, and
 * those that people swapped in while it ran. A swap is written down in the run folder before it
 * comes about (swaps.jsonl names the step and a file below swaps/), so that the same command goes
 * on with it. Loop thread. */
#ifndef TROUPE_CONTROLLER_RUN_STAGES_H
#define TROUPE_CONTROLLER_RUN_STAGES_H

#include "core/controller.h"
#include "run_folder.h"

typedef struct RunStages {
    Stage *stage; /* [count]; what they point to lives until run_stages_close */
    int count;
    const RunFolder *folder;
    JobConfig **swapped; /* owned: every configuration that ever was swapped in */
    int num_swapped;
} RunStages;

/* The job's stages, borrowed, with the swaps of earlier sessions. ERR_DATA: swaps.jsonl, or a job
 * that it names, cannot be read; then nothing is to be closed. */
Status run_stages_open(const JobStages *job, const RunFolder *folder, RunStages *ret, Error *err);
void run_stages_close(RunStages *stages);

/* Makes a stage for this run of another job's configuration (text of job_config_text): what a run
 * has but once (model, layout, cluster, checkpoints) is the run's, whatever the text says of it.
 * ERR_INVALID: the run cannot take it, and *err says why. *ret is owned by the caller. Files, data
 * and memory were not looked at yet. */
Status run_stages_prepare(const JobConfig *now, const char *yaml, JobConfig **ret, Error *err);

/* Whether a run has room for another job: for its rollout workers, and the sizes of its samples,
 * which were planned when the run began. ERR_INVALID names what is asked for and what there is. */
Status run_stages_check_room(const JobConfig *now, const JobConfig *asked, Error *err);

/* Takes it over: from now on it is owned by the RunStages. */
void run_stages_keep(RunStages *stages, JobConfig *config);

/* Writes down that `config`, which run_stages_keep took, is the stage of that number (from 0),
 * after step last_step. Takes it into the list in any case; fails when the file cannot be written
 * (ERR_RESOURCE and what the file system says). */
Status run_stages_record(RunStages *stages, const JobConfig *config, int stage, int64_t last_step,
                         Error *err);

typedef struct StageUndone {
    char *name;    /* of the stage; owned */
    int64_t steps; /* that it had made, as the ledger has them: no checkpoint does */
} StageUndone;

/* Strikes the last swap off, of a run that is not going on: of one of which there is no checkpoint.
 * The run's own command then goes on where the stage before it was left. ERR_NOT_FOUND: nothing was
 * swapped in; ERR_INVALID: a checkpoint of it was committed; ERR_EXISTS: the run is going on. */
Status run_stages_undo(const RunFolder *folder, StageUndone *ret, Error *err);

#endif
