/* The controller's core: a pure function of its state, an event and the time. Everything the
 * controller decides is decided here (placing, spawning, supervising, leasing, planning, stepping,
 * committing, recovering), nothing here reads a clock, opens a socket or touches a file. So a whole
 * cluster can be simulated from a seed (tests/controller/test_simulation.c). One thread. */
#ifndef TROUPE_CONTROLLER_CORE_CONTROLLER_H
#define TROUPE_CONTROLLER_CORE_CONTROLLER_H

#include "core/event.h"

typedef struct Controller Controller;

/* A run has stages, one after the other: each with a configuration, data and rollout actors of its
 * own. Train ranks and the placement group stay, and with them weights and optimizer state. */
typedef struct Stage {
    const JobConfig *config; /* borrowed for the controller's life */
    bool swapped;            /* another one came in its place ... */
    int64_t last_step;       /* ... after this step; else it ends as its configuration says */
} Stage;

typedef struct ControllerStart {
    const Stage *stage; /* [num_stages]: copied */
    int num_stages;
    uint64_t nonce; /* random: incarnations derive from it */
    int num_nodes;  /* agents that are configured (1 for the embedded one) */
    bool embedded_agent;
    const char *checkpoint_size; /* about what one takes, for messages ("7.2 GB"); NULL: unknown;
                                    borrowed */
    /* Where to begin: a committed checkpoint, or NULL and zeros. */
    const char *checkpoint;
    CheckpointState state;
    const char *data_fingerprint; /* of the checkpoint; NULL when there is none */
} ControllerStart;

/* Whether a run may begin so: ERR_EXISTS when the job wants no checkpoint (checkpoint.resume:
 * never) and there is one, which beginning anew would destroy. Before controller_create. */
Status controller_check_start(const ControllerStart *start, Error *err);

Controller *controller_create(const ControllerStart *start, int64_t now_ms, EffectList *effects);
void controller_destroy(Controller *controller);

/* Takes in one event and appends what is to be done to *effects. */
void controller_step(Controller *controller, const Event *event, int64_t now_ms,
                     EffectList *effects);

/* ---- looking in, for status, the shell's look-ups and tests ---- */

typedef enum {
    ACTOR_PENDING,  /* not started */
    ACTOR_STARTING, /* spawned, has not said hello */
    ACTOR_ALIVE,
    ACTOR_SUSPECT,    /* alive as far as the agent knows, but silent */
    ACTOR_RESTARTING, /* its process is gone or being killed; will be started again */
    ACTOR_LEAVING,    /* its process was asked to end: the stage that it was for is over */
    ACTOR_DEAD,       /* for good */
} ActorState;

const char *actor_state_name(ActorState state);

typedef struct ActorView {
    const char *name; /* "rollout-0" */
    Role role;
    int rank;
    ActorState state;
    const char *reason; /* of the last change of state */
    int node;
    uint64_t incarnation;
    int pid;
    const char *endpoint;
    const char *doing, *waiting_for, *trouble;
    int64_t since_ms, beat_ms, progress_ms; /* of the last change of state, beat, progress */
    int64_t rss_bytes;
    int restarts;
} ActorView;

int controller_num_actors(const Controller *controller);
ActorView controller_actor(const Controller *controller, int actor);
int controller_find_actor(const Controller *controller, const char *name); /* -1: none */

typedef struct NodeView {
    bool up;          /* its agent answers */
    const char *name; /* "" before it ever did */
    int pid;          /* of the agent; 0: none that is known */
    int guard_pid;    /* of the process that stands behind it (agent/guard.h) */
    double cpus;      /* that it offers ... */
    int gpus;         /* ... and these */
} NodeView;

int controller_num_nodes(const Controller *controller);
NodeView controller_node(const Controller *controller, int node);

typedef struct JobView {
    const char *phase;     /* "starting", "training", "evaluating", "saving", "ending" or "over" */
    const char *waits_for; /* what the job waits for now, and whom; "" when it works */
    int64_t waits_since_ms;
    int stage, num_stages;
    const char *stage_name; /* NULL: the job has no stages */
    int64_t stage_begin;    /* steps made before this stage */
    int64_t step;
    int64_t total_steps; /* made at the end of this stage; 0: not known yet */
    int64_t next_position, records;
    uint32_t generation;
    int samples_ready; /* for the next steps */
    int64_t consumed_samples, rejected_samples;
    RecordTally tally;            /* of the records that were consumed: why, and what was odd */
    const char *last_checkpoint;  /* or NULL */
    BestItem best;                /* evaluation whose checkpoint is kept; step 0: none */
    const char *data_fingerprint; /* or NULL */
    bool finished;
} JobView;

JobView controller_job(const Controller *controller);

/* A source of the mixture that is trained on. */
typedef struct SourceView {
    const char *name;
    double share, epoch; /* passes over it; NAN: it is not known how long one is */
    SourceTally tally;
} SourceView;

/* Fills ret[INTERLEAVE_SOURCES_MAX]; returns how many there are, 0 without a mixture. */
int sources_view(const Controller *controller, SourceView *ret);
uint32_t controller_generation(const Controller *controller);

#endif
