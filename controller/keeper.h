/* Keeper: what outlives a run's processes: checkpoints and the ledger. Small writes happen at once;
 * the commit of a checkpoint (copying, flushing, renaming) runs on a thread of libuv's pool and
 * comes back as an event. */
#ifndef TROUPE_CONTROLLER_KEEPER_H
#define TROUPE_CONTROLLER_KEEPER_H

#include "checkpoint/manifest.h"
#include "core/event.h"
#include "net/loop.h"
#include "run_folder.h"

typedef struct Keeper Keeper;

typedef struct KeeperOptions {
    Loop *loop;
    const JobConfig *config;
    const RunFolder *folder;
    const char *config_yaml;
    const Manifest *begin; /* of the checkpoint that the run begins from, borrowed for the creation;
                              NULL: from nothing */
    /* EV_CHECKPOINT_*, EV_LEDGER_FAILED; never from within a call */
    void (*feed)(void *context, const Event *event);
    void *context;
} KeeperOptions;

/* Opens the ledger. */
Status keeper_create(const KeeperOptions *options, Keeper **ret, Error *err);
void keeper_destroy(Keeper *keeper); /* waits for a commit that is under way; accepts NULL */

/* What a checkpoint's manifest tells of where the run stood; but for its best evaluations, ... */
CheckpointState keeper_read_state(const Manifest *manifest);
/* ... which are taken over as far as the job still asks for them and compares by the same figure.
 */
/* What was trained of each of data.sources, under their names. */
void keeper_read_sources(const Manifest *manifest, const JobConfig *config, CheckpointState *ret);
BestList keeper_read_best(const Manifest *manifest, const JobConfig *config);

/* Whether a stage that began at this step needs the checkpoint with which it began for as long as
 * it lasts: that is its reference model. */
bool keeper_needs_start(const JobConfig *config, int64_t stage_begin);

/* From the next commit on the checkpoints are of another stage. Borrowed, as the options'. */
void keeper_set_config(Keeper *keeper, const JobConfig *config, const char *config_yaml);

/* A save is known by its number; what is said of another than the one begun last is ignored. */
void keeper_begin(Keeper *keeper, uint64_t save, int64_t step); /* -> EV_CHECKPOINT_BEGUN */
void keeper_add_files(Keeper *keeper, uint64_t save, const SavedFileInfo *file, int count);

typedef struct CommitOrder {
    uint64_t save;
    const char *folder;
    CheckpointState state;
    uint32_t generation;
    const char *data_fingerprint;
} CommitOrder;
void keeper_commit(Keeper *keeper, const CommitOrder *order); /* -> EV_CHECKPOINT_DONE */
void keeper_abandon(Keeper *keeper, uint64_t save, const char *folder);

/* The ledger: a step's consumed positions, and going back to the last committed checkpoint (never
 * while a commit is under way: it names the ledger's head). A failure comes as EV_LEDGER_FAILED;
 * after it nothing is appended and no checkpoint is committed, since what it would not say could
 * not be proven. */
void keeper_append(Keeper *keeper, const LedgerEntry *entry);
void keeper_rewind(Keeper *keeper);

#endif
