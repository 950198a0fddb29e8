/* Rollout: how a record becomes samples. A rollout function is a table of functions, found by the
 * enum that job.yaml's rollout.function became; docs/rollout-function.md tells how to write one.
 * What all of them share: samples are a pure function of (job, record, position, and where a policy
 * generates them the version of its weights), so a lease that runs again, here or elsewhere, gives
 * the same bytes; and nothing that a record contains can fail a worker: what cannot be used becomes
 * a rejected Sample that says why. */
#ifndef TROUPE_ROLLOUT_WORKER_ROLLOUT_H
#define TROUPE_ROLLOUT_WORKER_ROLLOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "config/job.h"
#include "model/weight_board.h"
#include "model/weight_line.h"
#include "rollout_worker/process/trouble.h"
#include "sample/sample.h"
#include "text/conversation.h"

/* One record of the data source; all borrowed. */
typedef struct RolloutRecord {
    int64_t position;
    const char *text; /* the line, any bytes; not NUL-terminated */
    size_t length;
    const char *source; /* "file.jsonl:123" */
    const char *at;     /* more closely: "byte 4711"; "" or NULL: not known */
    const char *error;  /* why there is no text, or "" */
    const char *set;    /* of an evaluation, its name; NULL: "train". Positions of two sets are not
                           related */
    const char *part;   /* of data.sources, its name; NULL: of data.train, or of an evaluation */
    const atomic_bool *given_up; /* becomes true when nobody wants its samples any more; NULL: it
                                    never does */
} RolloutRecord;

/* What a record becomes: one sample, or the samples of a group. Zero-initialise. */
typedef struct RolloutGroup {
    Sample *sample; /* [count], owned */
    int count, capacity;
} RolloutGroup;

/* Adds a sample of the record that is zeroed but for position and index; borrowed until the next.
 */
Sample *rollout_group_add(RolloutGroup *group, const RolloutRecord *record);
void rollout_group_clear(RolloutGroup *group);

/* How a sample came about, for people to look at. Zero-initialise; rollout_trace_clear. */
typedef struct RolloutTrace {
    const char *shape; /* of the record; NULL: it was not read so far. Not owned */
    /* All that was rendered, before any cut, with text and spans; length 0: it did not come so far.
     */
    TokenizedConversation conversation;
    char *label; /* what a reward is given to compare with; owned, NULL: nothing */
} RolloutTrace;

void rollout_trace_clear(RolloutTrace *trace);

/* Weights that the train ranks show, and how long it took to take them over. */
typedef struct RolloutWeights {
    int64_t version;
    const WeightBoardId *board; /* [num_boards] of each tensor-parallel rank of this process */
    int num_boards;             /* 0: they were received */
    const uint64_t *digest;     /* [num_digests] of the weights of the ranks in other processes */
    int num_digests;
    bool restart; /* the train ranks are new ones */
} RolloutWeights;

/* Weights that train ranks of another host send. */
typedef struct RolloutMove {
    WeightMove move;     /* but for its group */
    const CommId *group; /* [num_groups] of each tensor-parallel rank */
    int num_groups;
} RolloutMove;

typedef struct RolloutAdoption {
    double wait_s, pause_s; /* rollout.proto */
    uint64_t digest;
} RolloutAdoption;

/* What a rollout function does beside its threads: for heartbeats. */
typedef struct RolloutActivity {
    uint64_t progress;                /* must change ... */
    int working;                      /* ... while this is not 0 */
    const char *waiting_for;          /* a constant text, or "" */
    char trouble[TROUBLE_TEXT_BYTES]; /* of what it waits for (trouble_describe), or "" */
} RolloutActivity;

struct ChatText;
struct Policy;
struct RankGroupId;

typedef struct RolloutTable {
    const char *name;
    /* Loads what all threads share. `config` outlives it. */
    Status (*open)(const JobConfig *config, void **ret_shared, Error *err);
    void (*close)(void *shared); /* accepts NULL */
    /* What one thread keeps between records (caches). */
    void *(*open_thread)(const void *shared);
    void (*close_thread)(void *scratch);
    /* Adds the samples of a record to *ret, which is empty. May block. Fails for what is not the
     * record's fault, and then the lease fails with it: ERR_CANCELLED when the record was given up
     * or the function was told to end, ERR_UNAVAILABLE to be tried again, else the run ends. */
    Status (*run)(void *shared, void *scratch, const RolloutRecord *record, RolloutGroup *ret,
                  Error *err);
    /* What `run` makes of a record as far as it needs no weights, and how: for `controller data
     * inspect`. *ret is zeroed before. NULL: it cannot be looked at. */
    void (*explain)(void *shared, void *scratch, const RolloutRecord *record, Sample *ret,
                    RolloutTrace *ret_trace);

    /* What is odd about the model's text side, a line each; owned by the caller. NULL: nothing, and
     * as a function: it has none. */
    char *(*warnings)(const void *shared);

    /* The rest is of functions that generate; NULL in others. */

    /* How many threads call `run`. NULL: one per CPU. */
    int (*num_threads)(const JobConfig *config);
    /* Generate with these from now on. Blocks; called by one thread at a time, beside `run`. */
    Status (*adopt)(void *shared, const RolloutWeights *weights, RolloutAdoption *ret, Error *err);
    /* Receives weights for an adoption that is to come, beside `run`; *ret_digest is that of the
     * first rank's part. By the same thread. */
    Status (*receive)(void *shared, const RolloutMove *move, uint64_t *ret_digest, Error *err);
    /* Ends what is being received up to this move, and what is yet to be. Any thread. */
    void (*abandon)(void *shared, uint64_t move);
    /* Gives a GPU's memory back until the next `adopt`, and says how much. By the same thread. */
    Status (*rest)(void *shared, int64_t *ret_bytes, Error *err);
    /* Where each tensor-parallel rank is a process: rank 0 makes ids for their groups, and all join
     * them, before the first `adopt`. By the same thread. */
    Status (*make_group)(void *shared, struct RankGroupId *ret, Error *err);
    Status (*join)(void *shared, const struct RankGroupId *id, Error *err);
    /* Makes calls of `run` return soon, for good. Any thread. */
    void (*end)(void *shared);
    void (*describe)(const void *shared, RolloutActivity *ret);
    /* `lost` is called when what generates is lost for good and the process should end: once, on
     * any thread, before calls of `run` end with ERR_UNAVAILABLE. */
    void (*watch)(void *shared, void (*lost)(void *context, const Error *why), void *context);
    const char *(*memory_plan)(const void *shared); /* for people; borrowed */
    /* What it generates with, and how it reads chats; borrowed. */
    const struct Policy *(*policy)(const void *shared, const struct ChatText **ret_text);
    /* For a check before a run: fails when a program that `open` has started ends within a moment.
     */
    Status (*try_programs)(void *shared, Error *err);
} RolloutTable;

extern const RolloutTable rollout_generate;
extern const RolloutTable rollout_process;
extern const RolloutTable rollout_plugin_table; /* rollout_plugin is what a shared object exports */
extern const RolloutTable rollout_sft;

const RolloutTable *rollout_table(RolloutFunction function);

/* What a tensor-parallel rank other than 0 does that is a process of its own, whatever the rollout
 * function: it computes its part, and has no records. Opened by rollout_rank_open. */
extern const RolloutTable rollout_rank;
Status rollout_rank_open(const JobConfig *config, int tp_rank, void **ret_shared, Error *err);

/* Moves this process to the folder in which programs of the job start, and relative paths of their
 * commands begin: once, before a table is opened that may start some. */
Status rollout_enter_working_dir(const JobConfig *config, Error *err);

/* Makes *ret a rejected sample with this message (copied). */
void rollout_reject(Sample *ret, RejectReason reason, const char *message);
/* Adds to what is said of a record, that it is rejected or odd, where in the file it is, of which
 * the first line has but the number of the line. */
void rollout_locate(Sample *sample, const RolloutRecord *record);

#endif
