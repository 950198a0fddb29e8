/* A make-believe cluster for the controller's core: nodes with agents, actor processes, calls with
 * random latencies, a disk, and faults drawn from a seed. Time is virtual: hours of trouble take
 * milliseconds. The world keeps its own books (what every rank trained, what every agent lent, what
 * ledger and checkpoints say, when the run got on last) and checks them against the core at every
 * step; what does not fit is a violation. */
#ifndef TROUPE_TESTS_CONTROLLER_SIM_WORLD_H
#define TROUPE_TESTS_CONTROLLER_SIM_WORLD_H

#include "core/controller.h"

/* The data that the make-believe data source serves. */
#define SIM_RECORDS      96
#define SIM_SOURCES      3  /* of a job with data.sources */
#define SIM_EVAL_RECORDS 10 /* of data.eval; the other set has some less */

typedef struct SimFaults {
    int nodes;       /* machines with an agent each; 0 or 1: one, embedded */
    int hosts;       /* of which so many share no memory with the others; 0 or 1: all do */
    int kills;       /* actor processes killed */
    int agent_kills; /* agents killed with all their actors */
    int hangs;       /* actor processes stopped: alive, silent */
    int stuck;       /* actor processes whose working thread stops: they beat, and that is all */
    int controller_kills; /* the controller dies with everything; the same command is run again */
    int stops;            /* the same after a polite stop (Ctrl-C): commit, end, run again */
    bool impatient;       /* whoever stopped it asks again before it has ended */
    double lost_reply;    /* probability that a reply never comes (its caller times out) */
    double failed_save;   /* probability that the disk refuses a save, at its begin or its commit */
    double failed_append; /* probability that the disk refuses a line of the ledger */
    double late_commit;   /* probability that a commit takes up to ten seconds */
    double refused_grant; /* probability that somebody else takes a node's CPUs for a while */
    double deaf_read;     /* probability that a rollout worker does not notice that the data source
                             it reads from has died: it answers at the deadline only */
    double never_leaves;  /* probability that a process that is asked to leave does not */
    int64_t open_ms;      /* the data source reads its files for so long, and gets on with it */
    int bad_records;      /* so many of the training records are no conversation */
    int bad_eval_records; /* the same of the evaluation records */
    int64_t bad_position; /* of the training set: neither is what stands here; 0: it is one */
    RejectReason bad_as;  /* why these are rejected; REJECT_NONE: as REJECT_BAD_RECORD */
    const char *trouble;  /* what rollout workers say of their rewards; NULL: they have none */
    const JobConfig *later; /* the job as given after the first session; NULL: as before */
    const JobConfig *swap;  /* somebody asks for this stage at some moment; NULL: nobody does */
} SimFaults;

typedef struct SimResult {
    bool finished;       /* the run ended within the virtual time allowed */
    char violation[512]; /* the first thing that did not fit; "": none */
    Status status;
    char message[512];
    uint64_t weights; /* what training made of all batches in order: equal for equal runs */
    int64_t steps, end_ms;
    int64_t ledger_end; /* positions that the ledger tells of */
    CheckpointState saved;
    int leftover_processes;
    double leftover_cpu;                /* and GPUs: reserved and never given back */
    int deaths, restarts_of_controller; /* faults that really happened */
    int ended[STATUS_COUNT]; /* how sessions ended before the same command was given again */
    int64_t evaluations;
    int troubles_told;   /* in the log */
    char trouble[512];   /* the last of them */
    int64_t steps_begun; /* training steps that were asked of the ranks */
    int stages;          /* that were entered, counted again when a session goes back */
    int train_processes; /* that were started, in all sessions */
    int left;            /* processes that ended because they were asked to ... */
    int killed_amid;     /* ... and that were killed while the run went on */
    /* of generation: */
    int64_t most_ahead; /* groups that were leased beyond those the weights have learnt from */
    int64_t dropped, recomputed; /* groups that were too old, counted by each rank */
    int64_t received, met,
        abandoned; /* of weights: by workers of other hosts, groups, broken off */
} SimResult;

/* Runs a job to its end from a seed. A session that ends for want of disk, or past the budget of
 * restarts, with the message that this deserves, is followed by the same command. */
SimResult sim_run(const JobConfig *config, const SimFaults *faults, uint64_t seed);
/* The same with a job of several stages, [count]. */
SimResult sim_run_stages(const JobConfig *const *config, int count, const SimFaults *faults,
                         uint64_t seed);

#endif
