/* The inside of the controller's core, shared by its parts: supervise.c (actors and their deaths),
 * group.c (the placement group), gang.c (the train ranks as one), ranks.c (those of a rollout
 * worker), job.c (the step loop) with lease.c, evaluate.c, result.c and wait.c, stage.c (from one
 * stage to the next), push.c and send.c (weights for generation), turn.c (GPUs that training and
 * generation share), save.c (checkpoints) and best.c (which of them are kept). Not for anybody
 * else.
 */
#ifndef TROUPE_CONTROLLER_CORE_CORE_H
#define TROUPE_CONTROLLER_CORE_CORE_H

#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "core/controller.h"
#include "core/plan.h"
#include "core/stream.h"

#define REASON_MAX 256
#define HOST_MAX   128
/* Of a call that the loop thread of an actor answers. */
#define ABANDON_TIMEOUT_MS 30000
/* Of a call that is work: a fuse. Supervision sees death, silence and who does not get on. */
#define WORK_TIMEOUT_MS (24 * 3600 * 1000)

typedef struct RestartBudget {
    int64_t *time_ms; /* ring of the latest restarts, [restarts_max] */
    int64_t count;    /* ever */
} RestartBudget;

typedef struct ActorRecord {
    char name[ACTOR_NAME_MAX];
    Role role;
    int rank;    /* within its role */
    int tp_rank; /* of a rollout worker's ranks; 0: the worker itself */
    ActorState state;
    char reason[REASON_MAX];
    int node; /* -1 until placed */
    uint64_t incarnation;
    bool process; /* spawned and not known to be gone */
    int pid;
    char endpoint[ENDPOINT_MAX];
    int64_t since_ms, beat_ms, progress_ms, retry_ms;
    uint64_t progress;
    int working; /* as the last beat said */
    int owed;    /* answers to calls that are work, as far as nobody else can hold them up */
    char doing[DOING_BYTES], waiting_for[192], trouble[384];
    char notice[256]; /* told; an incarnation that says the same says nothing new */
    int64_t rss_bytes;
    int restarts;
    int64_t failed_ms; /* when a call failed as if it were gone; 0: none has */
    char failure[REASON_MAX];
    bool own_fault;         /* it was lost to code of the user's */
    int leases;             /* outstanding */
    int64_t lease_after_ms; /* the last one failed: not sooner than this */
    int64_t adopted;        /* version of the weights that it generates with; 0: none */
    int64_t adopting;       /* that it was told to; 0: none is out */
    uint64_t adopt_id;
    int64_t received; /* version that stands ready to be adopted, or was; 0: it reads a board */
    uint64_t send_id; /* of a send that it owes an answer to; 0: it does not */
    bool adopt_out;   /* a call to adopt is not answered, be its answer wanted any more or not */
    uint64_t digest;  /* of the weights that were adopted, as a rank behind another says it */
    bool awake;       /* with turns: it may hold a GPU's memory */
    uint64_t rest_id; /* it was told to give that back; 0: it was not */
} ActorRecord;

typedef struct NodeRecord {
    bool up;
    char name[64];
    char host[HOST_MAX];
    int pid, guard_pid; /* of its agent */
    NodeResources total, free;
    char no_gpu[256];         /* why it has none, or "" */
    bool prepared, committed; /* of the group that is being made */
    int pending;              /* group calls on their way */
    int failed_starts;        /* in a row */
    BundleSpec *bundle;       /* of this node in the group */
    int num_bundles;
} NodeRecord;

typedef enum {
    GROUP_NONE,
    GROUP_PREPARING,
    GROUP_COMMITTING,
    GROUP_READY,
    GROUP_GIVING_BACK
} GroupState;

typedef struct Lease {
    uint64_t id; /* 0: unused */
    SetName set;
    int worker;
    int64_t first;
    int count;
    int64_t version; /* of the weights that its worker had */
} Lease;

#define LEASES_PER_WORKER 2

typedef enum { RANKS_APART, RANKS_NAMING, RANKS_JOINING, RANKS_JOINED } RankGroupState;

/* The ranks of a rollout worker, where they are processes. */
typedef struct RankGroup {
    RankGroupState state;
    uint64_t call_id; /* of the call that is out to them */
    int answers;
    CommId tensor_id, plan_id;
} RankGroup;

typedef enum {
    GANG_DOWN,
    GANG_BOOTSTRAP,
    GANG_START,
    GANG_CONFIGURE, /* to another stage */
    GANG_READY
} GangState;

typedef enum {
    TURN_OF_TRAINING,
    TURN_TO_GENERATION, /* train ranks are told to rest */
    TURN_OF_GENERATION,
    TURN_TO_TRAINING, /* rollout workers are */
} TurnState;

typedef enum {
    SEND_NONE,
    SEND_MEETING, /* roots make ids */
    SEND_MOVING,
    SEND_ENDING, /* it failed: all that are in it come out */
} SendState;

typedef enum {
    PHASE_STARTING, /* until the gang is ready and the sets are open */
    PHASE_TRAINING,
    PHASE_EVALUATING,
    PHASE_SAVING,
    PHASE_ENDING, /* giving back the group */
    PHASE_OVER,
} JobPhase;

typedef enum {
    PLAN_SLOT_EMPTY,
    PLAN_SLOT_FETCHING,
    PLAN_SLOT_FETCHED,
    PLAN_SLOT_RUNNING
} PlanSlotState;

/* A plan on its way through the gang. */
typedef struct PlanSlot {
    PlanSlotState state;
    Plan plan;
    int answers;
    bool broken;       /* a holder was lost: make it anew */
    StepResult result; /* when all have answered */
    int64_t started_ms;
    int64_t waited_ms; /* before it, as Effect.step tells */
} PlanSlot;

/* A stream with the plan that runs and the one that is fetched meanwhile: one lane for training,
 * one for evaluation. */
typedef struct Lane {
    Stream stream;
    int64_t planned;  /* plans are made up to here */
    bool over;        /* no further plan can be made */
    int64_t usual_ms; /* that the ranks take for a plan, smoothed; 0: none is done yet */
    PlanSlot running, next;
    StepResult *of_rank; /* [num_train]: what those that answered said of the running plan */
} Lane;

/* A set of records, as the data source knows it. */
typedef struct DataSet {
    const char *name;
    bool asked;      /* the data source was asked to open it ... */
    bool told;       /* what its entries became */
    bool open;       /* ... and has */
    int64_t records; /* of one epoch; -1 until it was open */
} DataSet;

typedef enum { NOT_AT_A_RECORD, AT_TRAIN_RECORD, AT_EVAL_RECORD } FailureAt;

#define RECORDS_LOGGED 10

/* What was said of records; owned. */
typedef struct MessageList {
    char *message[RECORDS_LOGGED];
    int count;
    bool more; /* it was said that there are more */
} MessageList;

struct Controller {
    const JobConfig *config; /* of the stage: done.stage */
    Stage *stage;            /* [num_stages] */
    char **fingerprint;      /* [num_stages]: of their training sets, once known */
    int num_stages;
    bool embedded_agent;
    const char *checkpoint_size; /* or NULL */
    uint64_t nonce, counter;     /* ids and incarnations */
    uint32_t generation;
    int64_t now_ms;
    EffectList *fx;
    Arena *scratch; /* texts in effects: valid until the next step */

    ActorRecord *actor;
    int num_actors;
    /* actor 0 is the data source; then rollout workers, the ranks behind each, and train ranks */
    int first_rollout, first_follower, first_train;
    int end_rollout; /* rollout workers from here to first_follower are of other stages */
    int followers;   /* ranks of a rollout worker that are processes beside its own; 0: none are */
    RankGroup *rank_group; /* [rollout workers]; NULL: there are no such ranks */

    NodeRecord *node;
    int num_nodes;
    GroupState group_state;
    uint64_t group_id;
    int64_t group_since_ms, group_retry_ms;
    char group_wait[512];
    BundleSpec *bundle; /* [num_actors] */

    RestartBudget budget[ROLE_COUNT];

    struct {
        GangState state;
        int answers; /* to the collective call that is out */
        uint64_t call_id;
        CommId *tensor_id; /* [dp_size] */
        CommId *data_id;   /* [tp_size] */
        char memory_plan[1024];
        int64_t parameters;
    } gang;

    struct {
        int64_t version;    /* newest that all boards show; 0: none */
        int64_t publishing; /* 0: none is out */
        uint64_t call_id;
        int calls, answers;
        BoardId *board;   /* [num_train], by rank; of those that show one */
        uint64_t *digest; /* [num_train]: of the weights that a rank shows; 0: none */
    } push;

    struct {
        SendState state;
        int64_t version;
        uint64_t id;           /* of the calls that are out */
        uint64_t *incarnation; /* [num_actors]: of those that are in it; 0: it is not */
        int size;              /* of a group: the root, and those that receive */
        CommId *group;         /* [tp_size] */
        bool has_group;        /* these are joined, or about to be, by those that are in it */
        bool has_sent;         /* since the train ranks are there */
        bool lost;             /* somebody died */
        Error failure;         /* the first answer that was one; status OK: none */
        int failed_actor;
        int64_t since_ms; /* of the ending */
    } send;

    SourceTurns turns;                              /* of a mixture that is trained on */
    SourceStep source_step[INTERLEAVE_SOURCES_MAX]; /* of the step that was committed last */

    struct {
        TurnState state;
        uint64_t call_id; /* of the ranks' rest */
        int answers;
    } turn;

    DataSet *set; /* [num_sets]: that of training, then those of evaluations */
    int num_sets;
    Lane lane[SET_COUNT];
    Plan retired; /* of the step that was committed last: effects point to it */
    Lease *lease; /* [LEASES_PER_WORKER for each rollout worker] */

    JobPhase phase;
    int64_t step;
    int64_t total_steps;    /* made when the stage ends */
    int64_t schedule_steps; /* of the stage, as its configuration has them */
    int64_t next_position;  /* of the training stream: consumed below it */
    CheckpointState done;   /* what is behind us */
    CheckpointState saved;  /* as of the last committed checkpoint (zeros: the beginning) */
    char *checkpoint;       /* its path, or NULL */

    struct {
        int at;               /* the set that the lane is of: c->set[1 + at] */
        EvalFigures *figures; /* [num_sets - 1] of this evaluation */
        int64_t started_ms;   /* with that set */
        int64_t last_step;    /* of the last evaluation; -1: none */
        int64_t bad_records;  /* of this evaluation, or of the check before the first */
        bool checked;         /* every record was rolled out in this session */
    } eval;

    struct {
        char *folder; /* being written; NULL while it is being made */
        int answers;
        uint64_t id;           /* of the attempt; 0: none */
        bool committing;       /* the commit is out: its outcome decides where a restart begins */
        bool rewind_owed;      /* the run was rolled back meanwhile: once more when it is known */
        CheckpointState state; /* what is being committed */
        int64_t tried_step;    /* of the last attempt, whatever came of it */
        bool best_owed;        /* the evaluation of this step is one of the best: save it */
    } save;

    int stop_requests;
    struct {
        Status status;   /* OK: none */
        FailureAt where; /* at a record `remedy` is what its policy may be */
        char message[ERROR_MESSAGE_MAX];
        char remedy[REASON_MAX]; /* besides giving the same command again; "": none */
        char first[REASON_MAX];  /* what is to be done before that; "": nothing */
    } failure;                   /* ends the run once what is trained is committed */
    MessageList rejects_logged, notes_logged;
    int skipped_in_a_row;
    int64_t idle_since_ms; /* ranks have nothing else to do than to train since then */
    char waits_for[2 * REASON_MAX];
    int64_t trouble_logged_ms; /* 0: never */
    int64_t waits_since_ms;
    int64_t waits_logged_ms;
    bool waits_logged_whom; /* the last line said who waits for whom */
    int64_t ending_since_ms;
    Status exit_status;
    char exit_message[ERROR_MESSAGE_MAX];
};

/* ---- small services ---- */
uint64_t core_next_id(Controller *c);
void core_log(Controller *c, int level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Ends the run: gives everything back, then FX_EXIT with this status and message. */
void core_finish(Controller *c, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same once the step in work is done and committed: for whatever ends the data, not the
 * training. The first one counts. */
void core_finish_committed(Controller *c, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for what would only fail again: the end says what is to be done `first` ("put the data
 * back"), before the same command goes on. */
void core_finish_until(Controller *c, Status status, const char *first, const char *message);
/* No further step is to begin: a stop was asked for, or a failure waits for the commit. */
bool core_is_stopping(const Controller *c);
/* With that failure, saying what is committed. */
void core_finish_failed(Controller *c);
Effect *core_call(Controller *c, int actor, CallKind call, uint64_t id, int timeout_ms);
int core_num_train(const Controller *c);
/* The set that a lane is of now. */
DataSet *core_set(Controller *c, SetName set);

/* ---- supervise.c ---- */
void supervise_event(Controller *c, const Event *event);
void supervise_advance(Controller *c);
/* The agent of a node is gone with all processes on it, and the placement group with it: every
 * actor starts again. One cause: each role spends one restart. */
void supervise_node_lost(Controller *c, const char *reason);
/* The actor's process is gone, silent, stuck, or failed a call in a way that a new process may not:
 * kill what may be left, start it again (train ranks all together) or, past the budget, end the
 * run. */
void supervise_lost(Controller *c, int actor, const char *reason);
/* A call was answered with a failure: one that a fresh process may not have (the actor is as good
 * as gone) or one that ends the run with its message (a data source's, once what is trained is
 * committed). */
void supervise_reply_failed(Controller *c, const Event *event);
/* A call to it failed as if it were gone. Its death notice, which knows why, is usually on the way:
 * wait a moment for it. */
void supervise_call_failed(Controller *c, int actor, const char *message);
bool supervise_ready(const Controller *c, int actor); /* ALIVE or SUSPECT: may be called */
void supervise_restart_gang(Controller *c, const char *reason);
/* Keep account of what an actor owes an answer to: what "no progress" watches. */
void supervise_call_made(Controller *c, int actor, CallKind call);
void supervise_call_answered(Controller *c, int actor, CallKind call);
void supervise_kill_all(Controller *c);
bool supervise_all_gone(const Controller *c);
/* A new process in the actor's place, for no fault of its own; none where the stage wants none. The
 * old one is asked to leave, and killed when it does not. */
void supervise_replace(Controller *c, int actor, const char *reason);

/* ---- group.c ---- */
void group_event(Controller *c, const Event *event);
void group_advance(Controller *c);
void group_give_back(Controller *c);

/* ---- gang.c ---- */
void gang_reply(Controller *c, const Event *event);
void gang_advance(Controller *c);
void gang_configure(Controller *c); /* the ranks that are ready go on in another stage */
void gang_reset(Controller *c);     /* after a restart: nothing is out any more */
int gang_dp_rank(const Controller *c, int actor);
bool gang_is_retryable(Status status); /* a failure that a fresh gang may not have */

/* ---- ranks.c ---- */
/* The actor, or the rollout worker that it is a rank of. */
int ranks_leader(const Controller *c, int actor);
/* How many are behind a rollout worker in this stage, and the actor of each. */
int ranks_count(const Controller *c, int worker);
int ranks_follower(const Controller *c, int worker, int i);
bool ranks_are_joined(const Controller *c, int worker); /* also where there are none behind it */
bool ranks_adopt(const Controller *c, int worker);      /* one of them is taking weights over */
void ranks_reset(Controller *c, int worker);            /* its processes are new ones, or will be */
void ranks_advance(Controller *c);
void ranks_reply(Controller *c, const Event *event);
/* False when nobody is waited for. */
bool ranks_describe_wait(const Controller *c, char *text, size_t size);

/* ---- push.c ---- */
bool push_is_used(const Controller *c);   /* rollout workers generate */
bool push_is_all(const Controller *c);    /* ... and nothing is trained (rollout.only) */
bool push_is_newest(const Controller *c); /* the weights that there are now are on show */
void push_advance(Controller *c);
void push_reply(Controller *c, const Event *event);
void push_reset(Controller *c); /* the train ranks are new ones: their boards are not there yet */
/* Generates with the newest weights that there are: may be given leases. */
bool push_is_current(const Controller *c, int actor);
/* False when no weights are on their way. */
bool push_describe_wait(const Controller *c, char *text, size_t size);

/* The weights that the next work needs are on show, and none are on their way there. */
bool push_is_on_show(const Controller *c);

/* ---- send.c: weights to rollout workers of other hosts ---- */
/* The data-parallel index whose boards a rollout worker reads: that of the rank whose GPU it uses,
 * or the first one on its host; -1: there is none, so it receives. Of a group that is placed. */
int send_board_of(const Controller *c, int worker);
bool send_is_receiver(const Controller *c, int worker);
bool send_shows_board(const Controller *c, int rank); /* of an actor; somebody reads it */
/* Whether weights can reach all rollout workers where they are placed; else the run ends. */
bool send_check_hosts(Controller *c);
void send_advance(Controller *c);
void send_reply(Controller *c, const Event *event);
void send_reset(Controller *c); /* the train ranks are new ones */
/* Weights are being sent, or are to be before the next step changes them. */
bool send_holds_training(const Controller *c);
/* False when nobody is waited for. */
bool send_describe_wait(const Controller *c, char *text, size_t size);

/* ---- turn.c ---- */
bool turn_is_used(const Controller *c); /* training and generation take turns on GPUs */
void turn_reset(Controller *c);         /* the train ranks are new ones */
void turn_advance(Controller *c);
void turn_reply(Controller *c, const Event *event);
/* Whether it is the turn of training, or of generation, to use the GPUs; if not, it will be when
 * the others have ended and rest. Always true where there are no turns. */
bool turn_take(Controller *c, TurnState wanted);
/* False when nobody is waited for. */
bool turn_describe_wait(const Controller *c, char *text, size_t size);

/* ---- stage.c ---- */
void stage_take(Controller *c, const ControllerStart *start); /* at the beginning */
void stage_free(Controller *c);
/* The run is another job from here on; what rollout actors of the one before do is given up. */
void stage_enter(Controller *c, int stage);
bool stage_has_next(const Controller *c);
void stage_swap(Controller *c, const Event *event);
int64_t stage_step(const Controller *c); /* steps of this stage that are made */
/* Whether the stage has a use for the actor: it may have fewer rollout workers than others. */
bool stage_wants(const Controller *c, int actor);

/* ---- save.c ---- */
bool save_is_due(const Controller *c, bool at_end);
void save_begin(Controller *c);
void save_reply(Controller *c, const Event *event);
void save_event(Controller *c, const Event *event); /* EV_CHECKPOINT_BEGUN, EV_CHECKPOINT_DONE */
void save_abandon(
    Controller *c); /* unless its commit is out: then it comes about or not, by itself */
void save_ledger_failed(Controller *c, const Event *event);
/* What stands on disk and what is lost when the run ends now: "Committed: step 10 (PATH). Lost:
 * steps 11 to 14.\nThe same command goes on from step 10." */
void save_describe_end(const Controller *c, char *text, size_t size);
/* The ledger goes back to the last committed checkpoint, as soon as it is known which that is. */
void save_roll_back(Controller *c);

/* ---- best.c ---- */
bool best_is_used(const Controller *c);
void best_take(Controller *c);    /* an evaluation is over */
void best_unsaved(Controller *c); /* the checkpoint of this step did not come about */

/* ---- identity.c ---- */
/* Whether the training set that was opened is the one the run began with, or one that the job takes
 * in its place. If neither, the run ends with a message that names what changed. */
bool identity_accept(Controller *c, const Event *event);

/* ---- sources.c ---- */
void sources_take(Controller *c, const Event *event); /* the training set is open */
/* What a run of so many positions takes of each source: told, and false where that is more than it
 * may; then the run ends. */
bool sources_measure(Controller *c, int64_t positions);
/* Counts what [stream->base, end) of the training stream holds of each source: before it is
 * consumed. Returns how many sources a mixture has, else 0. */
int sources_consumed(Controller *c, const Stream *stream, int64_t end);

/* ---- records.c ---- */
/* What a lease brought that is not trained, by its policy: skipped, or the end of the run. */
void records_rejected(Controller *c, SetName set, const SampleMeta *meta, const char *message);
/* What is trained though something about it is odd; `message` may be NULL. */
void records_noted(Controller *c, const char *message);
/* Counts what [stream->base, end) of the training stream holds of both: before it is consumed. */
void records_consumed(Controller *c, const Stream *stream, int64_t end);
void records_forget_messages(MessageList *list);

/* ---- lease.c ---- */
int lease_slots(const Controller *c);         /* leases that may be out at a time */
void lease_ahead(Controller *c, SetName set); /* as far as the set may be leased now */
void lease_reply(Controller *c, const Event *event);
void lease_worker_lost(Controller *c, int actor); /* a rollout worker */
void lease_source_lost(Controller *c);
void lease_drop_set(Controller *c, SetName set);
/* Of what was over-sampled for a plan that has just been made: what later steps may not train. May
 * move the plan's end. */
void lease_let_go_of_stale(Controller *c, Plan *plan);
void lease_forget_all(Controller *c); /* with what the streams know of them */

/* ---- remainder.c: data.remainder, which is where steps end ----
 * A step takes the first accepted groups behind the step before it, a batch of them. With `wrap` it
 * does so wherever epochs end. Otherwise an epoch's end is a seam of the stream, and no step has
 * groups of both sides. What stands before a seam and is no batch makes with `pad` a step all the
 * same, the smaller one; with `drop` none, and is passed over. */
bool remainder_is_padded(const Controller *c);
/* Whether the length of an epoch allows it; else the run ends, and says why. */
bool remainder_check(Controller *c, int64_t records);
const char *remainder_fate(const Controller *c); /* for people: what becomes of it */
/* Groups that make a step where a seam follows. */
int64_t remainder_least(const Controller *c);
/* The end of the epoch that a position of the stream is of; INT64_MAX where that is no seam. */
int64_t remainder_seam(const Controller *c, const Stream *stream, int64_t position);
/* Where so many steps behind the lane's plans end if all is accepted that may be yet, each taking
 * `groups` of them, which are a batch or more. */
int64_t remainder_reach(const Controller *c, const Lane *lane, int64_t steps, int64_t groups);
/* With `drop`, before a plan is made: what stands between the plans and a seam and is known to be
 * too little for a batch is rejected. */
void remainder_drop(Controller *c, Lane *lane);
/* With `drop`, behind a plan that has just been made: such an end that it leaves. May move the
 * plan's end. */
void remainder_pass_over(Controller *c, Plan *plan);

/* ---- evaluate.c ---- */
bool evaluate_is_due(const Controller *c, bool at_end);
void evaluate_begin(Controller *c);
void evaluate_advance(Controller *c);
void evaluate_commit_piece(Controller *c); /* the running plan of the lane is answered */
/* The lane begins with another set, or with the same anew. */
void evaluate_enter(Controller *c, int at);
void evaluate_set_is_open(Controller *c); /* that of the lane */
/* Rolls the evaluation sets out once beside the first steps, so that a bad record in them ends the
 * run now and not after all the training. Its samples are let go at once. */
void evaluate_check_set(Controller *c);

/* ---- result.c ---- */
/* Sums over data-parallel ranks. */
void result_add(StepResult *sum, const StepResult *one);
/* What the ranks answered, as one, summed in their order, whoever answered first. Those of a
 * tensor-parallel group report the same numbers, so the first counts. */
StepResult result_of_ranks(const Controller *c, const StepResult *of_rank);

/* ---- job.c ---- */
void job_reply(Controller *c, const Event *event);
bool job_is_due(int64_t interval, int64_t step);
bool job_sets_are_open(const Controller *c);
int64_t job_groups_per_batch(const Controller *c); /* positions that make a batch */
int64_t job_samples_ready(const Controller *c);    /* for the next steps */
void job_advance(Controller *c);
void job_plan_ahead(Controller *c, SetName set);
void job_run_next(Controller *c, SetName set); /* the plan that is fetched */
void job_release(Controller *c, SetName set, int64_t below);
void job_roll_back(Controller *c); /* to the last committed checkpoint */
void lane_restart(Lane *lane, int64_t base);
void lane_renew(Controller *c, SetName set); /* for the sets of the stage */

static inline Lane *lane_of(Controller *c, SetName set)
{
    return &c->lane[set];
}

/* ---- wait.c ---- */
void job_describe_wait(Controller *c, char *text, size_t size); /* "" when nothing is waited for */

#endif
