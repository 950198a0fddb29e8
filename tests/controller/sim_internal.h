/* The inside of the make-believe cluster: sim_world.c (chance, time, faults, the books),
 * sim_cluster.c (nodes, processes, calls), sim_generation.c (weights on their way, answers to
 * prompts) and sim_disk.c (ledger and checkpoints). */
#ifndef TROUPE_TESTS_CONTROLLER_SIM_INTERNAL_H
#define TROUPE_TESTS_CONTROLLER_SIM_INTERNAL_H

#include "base/memory.h"
#include "sim_world.h"

#define STEPS_MAX     8192
#define POSITIONS_MAX 65536
#define NODES_HERE    4
#define SIM_SETS      3 /* train, eval, and one of eval.sets */
#define STAGES_MAX    8
#define PLANS_KEPT    2 /* of each set: one that runs and one that comes next */
#define UNWANTED_KEPT 16

/* Weights as a rank shows them, or as a rollout worker has them. */
typedef struct Shown {
    int64_t version; /* 0: none */
    uint64_t weights;
} Shown;

/* What an actor process of the make-believe cluster is. */
typedef struct Process {
    bool alive, hung, stuck;
    int actor, node;
    uint64_t incarnation;
    int64_t next_beat_ms, busy_until_ms;
    int held;        /* calls that it took and will never answer */
    int stage;       /* that it was started or configured for */
    uint64_t leaves; /* incarnation that said it would */
    uint64_t progress;
    /* rollout workers */
    uint64_t holds[SIM_SETS][POSITIONS_MAX / 64]; /* samples, by position */
    Shown adopted;
    int64_t adopting;    /* version; 0: none */
    uint64_t rank_group; /* of the ranks of one worker, that it has joined; 0: none */
    Shown ready;         /* of such a rank: what it goes over to with its worker */
    bool has_gpu;        /* memory of a GPU that it shares in turns */
    uint64_t reads_of;   /* incarnation of the rank 0 whose weights these are */
    bool receives;       /* over no board */
    Shown received;      /* and not adopted yet */
    int given_up;        /* times that it gave up what was in work */
    struct {
        int set;
        int64_t first;
        uint64_t order;        /* when */
    } unwanted[UNWANTED_KEPT]; /* leases that nobody wants any more */
    int num_unwanted;
    /* both, in a send of weights between hosts */
    bool moves; /* ... which `move` is */
    Effect move;
    uint64_t abandoned; /* all moves up to this one */
    uint64_t group;     /* that it has joined last */
    /* train ranks */
    int64_t sent; /* version */
    Shown board[2];
    int newest; /* of the board */
    int64_t step;
    uint64_t weights;
    struct {
        uint64_t id, hash;
        int64_t step;
    } plan[SIM_SETS][PLANS_KEPT];
    int plans[SIM_SETS];
} Process;

typedef struct Node {
    bool up;       /* its agent runs */
    bool dialled;  /* the controller wants to hear of it */
    double others; /* CPUs that another job holds */
    uint64_t group;
    double group_cpu;
    int group_gpu;
} Node;

typedef struct World World;

typedef struct Pending {
    struct Pending *next; /* of those that are not in use */
    int64_t at_ms;
    uint64_t order;
    int epoch;                                 /* of the controller that it is meant for */
    void (*run)(World *world, void *argument); /* NULL: an event for the controller */
    void *argument;
    Event event;
} Pending;

/* A save on its way from begin to commit. */
typedef struct Saving {
    uint64_t id; /* 0: none */
    uint64_t weights;
    int files; /* ranks whose files are listed */
} Saving;

typedef struct Landing {
    bool pending;
    uint64_t number; /* of this commit, ever */
    uint64_t save, weights, head;
    CheckpointState state;
} Landing;

struct World {
    const JobConfig *config; /* of the stage */
    Stage stage[STAGES_MAX];
    int num_stages, stage_now;
    int group_size[SIM_SETS]; /* answers to a prompt, in this stage; 1: it generates none */
    const SimFaults *faults;
    uint64_t seed, draws;
    int64_t now_ms;
    int64_t told_ms; /* when a step was told of last */
    Pending **heap, *idle;
    int heap_count, heap_capacity;
    uint64_t order;
    Arena *arena;
    Controller *controller;
    EffectList effects;
    int epoch; /* of the controller: raised when it is killed */
    bool stopping, over;
    Process *process; /* by actor index: the newest incarnation */
    int num_actors, first_train;
    int first_behind; /* ranks behind rollout workers from here to first_train */
    Node node[NODES_HERE];
    int num_nodes;
    struct {
        CheckpointState saved; /* the newest checkpoint */
        uint64_t saved_weights, saved_head;
        bool has_checkpoint;
        Saving saving;
        Landing landing;
        int64_t ledger_end[STEPS_MAX + 1]; /* positions consumed after each step ... */
        int ledger_stage[STEPS_MAX + 1];   /* ... of the data of this stage */
        int64_t trained[STEPS_MAX + 1];    /* samples, of all stages */
        uint64_t chain[STEPS_MAX + 1];
        int64_t ledger_steps;
        bool landed[STEPS_MAX + 1]; /* a checkpoint of that step did, ever */
        bool ledger_broken;         /* until the next session */
    } disk;
    int kills_left, agent_kills_left, hangs_left, stuck_left, controller_kills_left, stops_left;
    int64_t next_fault_ms, swap_ms; /* 0: no swap is to come */
    int causes;                     /* of restarts, in this session of the controller */
    int64_t moved_ms;               /* when the run got on, or was disturbed, last */
    SimResult result;
};

/* ---- sim_world.c ---- */
uint64_t draw(World *w);
int64_t draw_below(World *w, int64_t bound);
bool chance(World *w, double probability);
int64_t latency(World *w);
void push(World *w, int64_t delay_ms, const Event *event);
/* A stage that began behind `begin` steps has the checkpoint that it needs of its beginning. */
void check_start_of_stage(World *w, int64_t begin);
void push_run(World *w, int64_t delay_ms, void (*run)(World *w, void *argument), void *argument);
void violate(World *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void moved(World *w);          /* the run got on */
void disturbed(World *w);      /* something struck that costs time */
int sim_set(const Effect *fx); /* 0: train */
int64_t sim_records(int set);
SampleMeta sample_at(const World *w, int set, int64_t position);
int64_t steps_of_all(const World *w); /* of all stages */

/* ---- sim_cluster.c ---- */
void start_agent(World *w, int node);
void answer_group(World *w, const Effect *fx);
void spawn_process(World *w, const Effect *fx);
void answer_call(World *w, const Effect *fx);
void kill_process(World *w, Process *process, const char *how);
void kill_agent(World *w, int node);
void kill_everything(World *w); /* what happens when the controller dies */
double lent_cpu(const World *w);
bool is_train_rank(const World *w, int actor);

void answer(World *w, const Effect *fx, int64_t delay_ms, Event *event);

/* ---- sim_generation.c ---- */
bool generates(const World *w);
void note_group_sizes(World *w); /* of the stage that it is in */
/* The answers to the prompt of a position, which is no bad record: [group_size]. Those that were
 * begun with earlier weights have gone on with the new ones. */
void make_group(World *w, const Process *worker, int64_t begun_with, int set, SampleMeta *sample);
void answer_publish(World *w, const Effect *fx, Process *rank);
void answer_adopt(World *w, const Effect *fx, Process *worker);
void answer_meet(World *w, const Effect *fx, const Process *rank);
void answer_move(World *w, const Effect *fx, Process *process);
void answer_abandon(World *w, const Effect *fx, Process *process);
const char *host_name(const World *w, int node);
/* The ranks of a rollout worker that are processes of their own. */
void answer_group_ids(World *w, const Effect *fx, Process *worker);
void answer_join(World *w, const Effect *fx, Process *process);
/* All of its ranks are there, of one group, and compute with the same weights. */
void check_ranks(World *w, int worker);
/* A rank behind a worker rests when that one does. */
void check_rest(World *w, int actor);
/* The actor uses the GPU from here on: with turns nobody of the other kind may hold it. */
void take_gpu(World *w, Process *process);
void check_versions(World *w, const Plan *plan);
void check_lease(World *w, const Effect *fx, const Process *worker);

/* ---- sim_disk.c ---- */
void disk_effect(World *w, const Effect *fx);
void disk_controller_died(World *w);

#endif
