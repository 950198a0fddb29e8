/* The run folder: everything of a run in one place.
 *
 *   config.effective.yaml   every key with where its value came from
 *   events.jsonl            what happened; metrics.jsonl what was measured
 *   logs/<actor>.log        what each process printed
 *   checkpoints/step_N/     Hugging Face model folders with optimizer state and manifest
 *   ledger.jsonl            which samples each step consumed
 *   models.json             checkpoints that runs stand for in place of models
 *   status.json             of a run that is done: what `controller status` says of it
 *   stages.jsonl, stages/   the stages that it has entered, and the configuration of each
 *   lock                    held while a controller runs it
 *
 * Sockets live in sock/, a folder only the owner may enter; where the run folder's path is too long
 * for a socket's name, in a folder of their own below /tmp. */
#ifndef TROUPE_CONTROLLER_RUN_FOLDER_H
#define TROUPE_CONTROLLER_RUN_FOLDER_H

#include "checkpoint/run_lock.h"
#include "config/job.h"

typedef struct RunFolder {
    char *path; /* the real one: absolute, without symbolic links, the same for all its names */
    char *logs, *checkpoints, *sockets, *metrics, *events, *ledger, *status;
    char *endpoint; /* the controller's own inbox */
    RunLock *lock;  /* NULL when only looking */
    char *note;     /* on a dead run whose lock was taken over, or NULL */
} RunFolder;

/* Creates what is missing, takes the lock, and removes the status of an earlier end. `path` is any
 * name of the folder. ERR_EXISTS names the process that runs it already. */
Status run_folder_open(const char *path, RunFolder *ret, Error *err);

/* For `status` and `stop`: finds the names, creates and locks nothing. */
Status run_folder_look(const char *path, RunFolder *ret, Error *err);

/* The path of the checkpoint of a step, whether it is there or not. Owned by the caller. */
char *run_folder_checkpoint(const RunFolder *folder, int64_t step);

/* Gives the lock back and removes the sockets folder. */
void run_folder_close(RunFolder *folder);

#endif
