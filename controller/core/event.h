/* The vocabulary between the controller's core and its shell. The core is a pure function
 * (controller_step in controller.h): what happened goes in as an Event, what to do comes out as
 * Effects. The shell (shell.c) turns messages, deaths and timers into Events and carries Effects
 * out; the simulation in tests does the same against a make-believe cluster. Nothing here knows of
 * sockets, files or clocks.
 *
 * Pointers in an Event are borrowed for the call; pointers in an Effect are borrowed from the
 * controller and valid until its next step. Actors are named by their index in the actor table
 * together with the incarnation of the process that is meant: news of an earlier incarnation is
 * ignored. */
#ifndef TROUPE_CONTROLLER_CORE_EVENT_H
#define TROUPE_CONTROLLER_CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "comm/comm.h" /* an id alone, which is carried */
#include "config/job.h"
#include "dataset/interleave.h"
#include "sample/group.h"
#include "sample/sample.h"

typedef enum { ROLE_DATA_SOURCE, ROLE_ROLLOUT, ROLE_TRAIN, ROLE_COUNT } Role;
typedef enum {
    SET_TRAIN,
    SET_EVAL,
    SET_COUNT
} SetName; /* SET_EVAL: the one of evaluations that
              is looked at now */

const char *role_name(Role role); /* "data_source", "rollout", "train" */

typedef struct NodeResources {
    double cpu;
    int gpu;
    int64_t memory_bytes;
} NodeResources;

typedef struct BundleSpec {
    int index; /* bundle i belongs to actor i */
    NodeResources need;
    int gpu_of; /* 1 + the index of the bundle of this group whose GPUs it uses, too, and with which
                   it therefore shares a node; 0: it has those that it needs, if any */
    int beside; /* 1 + the index of another one whose node it shares, and nothing else; 0: none */
} BundleSpec;

/* ---- what train ranks are asked to work on ---- */

typedef struct PlannedSample {
    int64_t position;
    int32_t index;
    int holder; /* actor index of the rollout worker that holds it */
    int source; /* of a mixture, in the order of data.sources; else 0 */
    int32_t length, trained_tokens;
    /* reinforcement learning */
    bool truncated, right;
    float reward;
    int64_t weight_version; /* of the oldest weights in it */
    SampleWork work;
} PlannedSample;

typedef struct MicroBatchPlan {
    int first, count; /* in Plan.sample */
} MicroBatchPlan;

/* A position that is consumed and not trained. */
typedef struct PassedOver {
    int64_t position;
    const char *why; /* the name of a RejectReason or, where the record is not at fault, of a
                        GroupVerdict; static */
} PassedOver;

/* The work of one step, or of one piece of an evaluation. */
typedef struct Plan {
    uint64_t id;
    SetName set;
    int64_t step;           /* the step it makes (training) */
    int64_t end_position;   /* everything before it is consumed once the step is committed */
    int64_t first_position; /* where the step before it ended */
    int64_t trained_tokens; /* of all ranks */
    int rejected; /* positions in [first_position, end_position) that are not trained ... */
    int dropped[GROUP_VERDICT_COUNT]; /* ... and why, ... */
    PassedOver *passed;               /* [rejected]: ... each by itself, ascending */
    /* Over-sampled beyond it and too old for later steps, to be made again: groups that were
     * finished, and positions that were in work. */
    int recomputed, given_up;
    /* Samples of these positions that could not be judged; that tools or rollout function failed
     * at; attempts at any of them that were made again. */
    int unjudged, failed, retries;
    int64_t begun_ms, done_ms; /* when its first position was leased, and its last delivered */
    PlannedSample *sample;     /* grouped by data-parallel rank, then by micro-batch */
    int num_samples;
    int num_groups;              /* positions that these are of */
    int group_size;              /* samples of a position at most */
    MicroBatchPlan *micro_batch; /* grouped by data-parallel rank, then by update of the step */
    int num_micro_batches;
    int *rank_first; /* [dp_size + 1]: micro-batches of each data-parallel rank */
    int dp_size;
} Plan;

/* What a step of reinforcement learning says beside: sums over trained tokens but for the last
 * ones. Their meaning: PolicySums of train_worker/policy_loss.h. */
typedef struct PolicyFigures {
    double tokens, loss, policy_loss, kl_loss, entropy, ref_kl, old_kl, old_kl3, ratio;
    double clipped_low, clipped_high, clipped_dual, advantage, advantage_squared;
    double correction, corrected, rollout_tokens, rollout_difference, reward_kl;
    double value_loss, value_tokens, value_clipped;
    int64_t log_probs_compared, log_probs_differ;
    int64_t age, age_max, mixed_samples;
    double rollout_difference_max, ratio_min, ratio_max; /* over all tokens */
    double normaliser, critic_grad_norm;                 /* equal on all ranks ... */
    int groups, zero_variance_groups;                    /* ... as are these, of the batch */
    double passes_s, critic_s;                           /* of the slowest rank */
} PolicyFigures;

/* Of the samples of one source of a mixture. */
typedef struct SourceLoss {
    double loss_sum;
    int64_t trained_tokens;
} SourceLoss;

typedef struct StepResult {
    double loss_sum;
    int64_t trained_tokens, tokens, correct;
    double grad_norm;
    bool skipped;
    double lr;
    double forward_s, backward_s, comm_s, optimizer_s, flops;
    bool has_policy;
    PolicyFigures policy;
    SourceLoss source[INTERLEAVE_SOURCES_MAX]; /* supervised, in the order of data.sources */
} StepResult;

#define PASS_AT_MAX 11 /* pass@1, 2, 4 ... 1024 */

/* Of answers that were generated and judged; sums. */
typedef struct AnswerFigures {
    int64_t prompts, answers, right, truncated, unjudged, failed, refused;
    int64_t turns, tool_calls, tool_errors;
    double tool_s, judge_s;
    double reward, reward_squared;
    double part[REWARDS_MAX];     /* of a weighted sum: what each reward said ... */
    int64_t parts_of;             /* ... of so many answers */
    int64_t tokens;               /* generated */
    double pass[PASS_AT_MAX];     /* over prompts, of 2^i answers */
    int64_t pass_of[PASS_AT_MAX]; /* prompts that have so many answers */
} AnswerFigures;

/* What came of one set in an evaluation. */
typedef struct EvalFigures {
    const char *name; /* of the set: "eval" is data.eval */
    int64_t samples;
    const char *rewards;   /* of the set, JSON text as in the job; NULL: none */
    bool generated;        /* then `answers` says what came of it, ... */
    AnswerFigures answers; /* ... */
    StepResult result;     /* ... else this */
    double seconds;
} EvalFigures;

/* Where a train rank shows its weights (WeightBoardId of model/weight_board.h). */
typedef struct BoardId {
    char bytes[64];
} BoardId;

typedef struct SavedFileInfo {
    const char *name;
    int64_t bytes;
    const char *sha256;
    const char *const *tensor; /* names of the tensors in it */
    const int64_t *tensor_bytes;
    int num_tensors;
} SavedFileInfo;

/* Records of the training stream, counted whenever they come by. */
typedef struct RecordTally {
    int64_t rejected[REJECT_REASON_COUNT]; /* not trained; for no fault of theirs: groups that the
                                              filter passed over */
    int64_t noted[NOTE_COUNT];             /* trained, though odd */
} RecordTally;

/* Of a source of a mixture, since the beginning of the stage. */
typedef struct SourceTally {
    int64_t records;         /* of a pass; 0: not known */
    int64_t samples, tokens; /* that were trained */
    int64_t rejected;        /* positions that are not trained */
    int64_t bad_records;     /* distinct records that were no conversation */
} SourceTally;

typedef struct BestItem {
    int64_t step;
    double value;
} BestItem;

/* The best evaluations, the best first. */
typedef struct BestList {
    int count;
    BestItem item[KEEP_BEST_MAX];
} BestList;

/* What the run stood at when a checkpoint was made: the controller's part of it. */
typedef struct CheckpointState {
    int64_t step, next_position, consumed_samples, rejected_samples, trained_tokens;
    int64_t bad_records; /* distinct records of the training set that were no conversation */
    int64_t records;     /* of one epoch of the training set; 0: not known */
    RecordTally tally;
    SourceTally source[INTERLEAVE_SOURCES_MAX]; /* those of data.sources, in their order */
    int stage;           /* that it belongs to: positions and records are those of its data ... */
    int64_t stage_begin; /* ... and so many steps were made before it */
    int64_t evaluated;   /* step of the last evaluation; 0: none since the first step */
    BestList best;
} CheckpointState;

/* What a step took of a source of a mixture. */
typedef struct SourceStep {
    const char *name;
    int64_t samples, tokens, rejected; /* as in SourceTally */
    double epoch; /* passes over the source up to here; NAN: it is not known how long one is */
} SourceStep;

/* Where a run stands in its data, by slime's names. */
typedef struct DataPosition {
    int64_t epoch_id;              /* from 0 */
    int64_t consumed_count;        /* positions of this epoch */
    int64_t global_consumed_count; /* of all epochs: the position itself */
} DataPosition;

/* After the last position of an epoch it is the next one of which nothing is consumed. records 0 or
 * less: not known, all is one epoch. */
DataPosition data_position(int64_t position, int64_t records);

/* ---- events ---- */

typedef enum {
    EV_TICK,        /* time has passed; at least every 100 ms */
    EV_STOP,        /* a signal or `controller stop`: finish the step, commit, end */
    EV_AGENT_UP,    /* a node agent answered hello */
    EV_AGENT_LOST,  /* its connection or process is gone, with all its actors */
    EV_GROUP_REPLY, /* agent.prepare, commit or release was answered */
    EV_SPAWN_REPLY, /* agent.spawn was answered */
    EV_ACTOR_HELLO, /* an actor process is up */
    EV_ACTOR_BEAT,
    EV_ACTOR_EXITED,
    EV_REPLY,            /* an actor answered a call, or will not */
    EV_CHECKPOINT_BEGUN, /* the folder for a save is there (or could not be made) */
    EV_CHECKPOINT_DONE,  /* a save is committed (or failed) */
    EV_LEDGER_FAILED,    /* what was to be written down could not be: the run cannot go on */
    EV_SWAP,             /* people want another stage, now */
} EventKind;

typedef enum { GROUP_PREPARE, GROUP_COMMIT, GROUP_RELEASE } GroupCall;

typedef enum {
    CALL_OPEN_SET, /* data source */
    CALL_LEASE,    /* rollout workers */
    CALL_GIVE_UP,
    CALL_RELEASE_SAMPLES,
    CALL_GROUP, /* one whose ranks are processes: its rank 0, then all of them */
    CALL_JOIN,
    CALL_ADOPT,
    CALL_RECEIVE,
    CALL_REST,
    CALL_LEAVE,     /* both: to end by itself, what is in work being given up in order */
    CALL_ABANDON,   /* rollout workers and train ranks: a send of weights */
    CALL_BOOTSTRAP, /* train ranks, from here on */
    CALL_START,
    CALL_CONFIGURE,
    CALL_FETCH,
    CALL_STEP,
    CALL_EVALUATE,
    CALL_PUBLISH,
    CALL_MEET,
    CALL_SEND,
    CALL_SAVE,
    CALL_REST_RANK,
    CALL_KIND_COUNT,
} CallKind;

const char *call_kind_name(CallKind kind);

typedef struct Event {
    EventKind kind;
    int node;             /* agent events */
    int actor;            /* actor events */
    uint64_t incarnation; /* actor events */
    Status status;        /* of a reply, spawn, checkpoint */
    const char *message;  /* error text, exit reason */
    union {
        struct {
            const char *name;
            int pid, guard_pid;
            NodeResources total, free;
            const char *no_gpu; /* why there is none, or NULL */
            const char *host;   /* nodes of one host share memory between processes */
        } agent;
        struct {
            GroupCall call;
            uint64_t group;
            bool granted;
            const char *holders; /* when refused: who holds what, as text */
            NodeResources free;
        } group;
        struct {
            int pid;
            const char *endpoint;
        } hello;
        struct {
            uint64_t progress;
            int working; /* pieces of work in hand that only this process can finish */
            const char *doing, *waiting_for;
            const char *trouble, *notice; /* may be NULL */
            int64_t rss_bytes;
        } beat;
        struct {
            const char *stderr_tail;
        } exited;
        struct {
            CallKind call;
            uint64_t id; /* as in the effect */
            union {
                struct {
                    int64_t records;
                    const char *fingerprint;
                    const char *changes; /* of files since the known fingerprint; "": not told */
                    char *const *entry;  /* [num_entries] what entries of it became, a line each */
                    int num_entries;
                    const int64_t *source_records; /* [num_sources] of a pass; 0: not known */
                    int num_sources;               /* 1: there is no mixture; 0: not told */
                } open_set;
                struct {
                    const SampleMeta *meta;
                    const char *const *reject_message; /* [count], NULL entries; or of a note */
                    int count;
                } lease;
                struct {
                    const void *tensor_group_id, *data_group_id; /* COMM_ID_BYTES, or NULL */
                } bootstrap;
                struct {
                    int64_t step, parameters;
                    const char *memory_plan;
                } start;
                struct {
                    const int *lost_holder; /* actor indices */
                    int count;
                } fetch;
                StepResult step; /* CALL_STEP and CALL_EVALUATE */
                struct {
                    const BoardId *board;
                    uint64_t digest; /* of the weights on it */
                    double seconds;
                } publish;
                struct {
                    const void *group; /* COMM_ID_BYTES, or NULL */
                } meet;
                struct {
                    double wait_s, pause_s;
                    uint64_t digest;
                } adopt;
                struct {
                    const void *tensor_id, *plan_id; /* COMM_ID_BYTES */
                } group_ids;
                struct {
                    const SavedFileInfo *file;
                    int count;
                } save;
            };
        } reply;
        struct {
            uint64_t save;    /* as in the effect */
            const char *path; /* folder begun, or committed */
        } checkpoint;
        struct {
            const JobConfig *config; /* lives as long as the controller */
        } swap;
    };
} Event;

/* ---- effects ---- */

typedef enum {
    FX_START_AGENT, /* start (again) the embedded agent, or dial a configured one again */
    FX_GROUP,       /* agent.prepare, commit or release */
    FX_SPAWN,
    FX_KILL, /* SIGKILL to the actor's process group */
    FX_CALL, /* a call to an actor; answered by EV_REPLY exactly once */
    FX_CHECKPOINT_BEGIN,
    FX_CHECKPOINT_FILES, /* one rank's files have arrived: keep them for the manifest */
    FX_CHECKPOINT_COMMIT,
    FX_CHECKPOINT_ABANDON,
    FX_LEDGER_APPEND, /* a step is committed: write down what it consumed */
    FX_LEDGER_REWIND, /* the run goes back to a checkpoint */
    FX_STAGE,         /* from here on the job is that of this stage: what follows is meant so */
    FX_SWAPPED,       /* a stage was added by EV_SWAP */
    FX_REPORT_STEP,   /* a training step for the progress line and metrics */
    FX_REPORT_EVAL,
    FX_REPORT_ACTOR, /* an actor changed its state */
    FX_LOG,
    FX_EXIT, /* the run is over: stop the loop with this status */
} EffectKind;

/* What is written down of a committed step. */
typedef struct LedgerEntry {
    const Plan *plan;
    int stage;
    int64_t records;  /* of one epoch of its data */
    const char *data; /* its fingerprint */
} LedgerEntry;

typedef struct Effect {
    EffectKind kind;
    int node;
    int actor;
    uint64_t incarnation;
    union {
        struct {
            GroupCall call;
            uint64_t group;
            const BundleSpec *bundle;
            int num_bundles;
        } group;
        struct {
            uint64_t group;
            int bundle;
        } spawn;
        struct {
            CallKind call;
            uint64_t id;
            int timeout_ms;
            SetName set;
            const char *set_name; /* as on the wire: "train", "eval", "gsm8k" */
            union {
                struct {
                    const char *known; /* fingerprint of the set, or NULL */
                    bool count;        /* its number of records is needed */
                } open;
                struct {
                    int64_t first;
                    int count;
                    int data_source; /* actor index: where to read */
                } lease;
                struct {
                    int64_t below;
                } release;
                struct {
                    bool tensor_group, data_group;
                } bootstrap;
                struct {
                    const void *tensor_group_id, *data_group_id;
                    const char *checkpoint; /* or NULL */
                    int64_t stage_begin;    /* step of the checkpoint with which the stage began; 0:
                                               it begins the run */
                } start;
                struct {
                    const Plan *plan;
                    int dp_rank;
                } fetch;
                struct {
                    const Plan *plan;
                    int64_t first_step; /* the schedule of the learning rate begins behind it ... */
                    int64_t total_steps; /* ... and is so long */
                    bool by_rewards;     /* reinforcement learning */
                } step;
                struct {
                    int64_t version; /* the step that is made from these weights */
                } publish;
                struct {
                    int64_t version;
                    const BoardId *board;   /* [num_boards]: of each tensor-parallel rank there */
                    int num_boards;         /* 0: the weights were received */
                    const uint64_t *digest; /* [num_digests]: of those that are elsewhere */
                    int num_digests;
                    bool restart; /* of new train ranks: what is in work is given up */
                } adopt;
                struct {
                    const void *tensor_id, *plan_id; /* COMM_ID_BYTES */
                } join;
                struct {
                    int size; /* of the group that an id is wanted for */
                } meet;
                struct {
                    int64_t version;
                    uint64_t id;
                    const CommId *group;        /* [num_groups]: its own of a train rank, of each
                                                   tensor-parallel rank of a rollout worker */
                    int num_groups, rank, size; /* rank 0 sends */
                } move;
                struct {
                    uint64_t id; /* of this move, and all before it */
                } abandon;
                struct {
                    const char *folder;
                    int64_t step;
                } save;
            };
        } call;
        struct {
            uint64_t save;      /* which attempt: begin, files, commit, abandon */
            const char *folder; /* commit, abandon; NULL for begin */
            CheckpointState state;
            const SavedFileInfo *file;
            int num_files;
        } checkpoint;
        LedgerEntry ledger;
        struct {
            int stage;
        } stage;
        struct {
            int stage;         /* the new one */
            int64_t last_step; /* after which it comes */
        } swapped;
        struct {
            const Plan *plan;
            StepResult result;                /* summed over the data-parallel ranks */
            const AlgorithmConfig *algorithm; /* of the job, with result.has_policy */
            const char *rewards;              /* of the job, JSON text; NULL: none */
            bool only; /* nothing was trained: the plan's answers were generated and saved */
            int64_t step;
            int stage;
            int64_t records;          /* of one epoch of its data */
            const SourceStep *source; /* [num_sources] of a mixture */
            int num_sources;          /* 0: there is none */
            double seconds;           /* that the ranks took */
            double wait_s; /* in which they stood idle before it, but for what else the run does:
                              evaluations, checkpoints, starting */
        } step;
        struct {
            int64_t step;
            int stage;
            const EvalFigures *set; /* [num_sets] */
            int num_sets;
        } eval;
        struct {
            const char *state, *reason;
        } report;
        struct {
            int level; /* LogLevel */
            const char *event, *text;
        } log;
        struct {
            Status status;
            const char *message;
        } exit;
    };
} Effect;

/* A growing list; cleared by the shell when all are carried out. */
typedef struct EffectList {
    Effect *item;
    int count, capacity;
} EffectList;

Effect *effect_add(EffectList *list,
                   EffectKind kind); /* zeroed but for its kind; valid until the next add */
void effect_list_free(EffectList *list);

#endif
