/* A make-believe cluster for the controller's core: agents, actor processes, calls with random
 * latencies, a disk, and faults drawn from a seed. Time is virtual: hours of trouble take
 * milliseconds. The world keeps its own books (what every rank trained, what every agent lent, what
 * the ledger says) and checks them against the core at every step. */
#ifndef TROUPE_TESTS_CONTROLLER_SIM_WORLD_H
#define TROUPE_TESTS_CONTROLLER_SIM_WORLD_H

#include "controller.h"

typedef struct SimFaults {
    int kills;            /* actor processes killed */
    int agent_kills;      /* agents killed with all their actors */
    int hangs;            /* actor processes stopped: alive, silent */
    int controller_kills; /* the controller dies with everything and the same command is run again
                           */
    int stops;            /* the same after a polite stop (Ctrl-C): commit, end, run again */
    double lost_reply;    /* probability that a reply never comes (its caller times out) */
    double failed_save;   /* probability that the disk refuses a save */
} SimFaults;

typedef struct SimResult {
    bool finished; /* the run ended within the virtual time allowed */
    Status status;
    char message[512];
    uint64_t weights; /* what training made of all batches in order: equal for equal runs */
    int64_t steps, end_ms;
    int leftover_processes;
    double leftover_cpu;                /* reserved and never given back */
    int deaths, restarts_of_controller; /* faults that really happened */
} SimResult;

/* Runs a job to its end from a seed. */
SimResult sim_run(const JobConfig *config, const SimFaults *faults, uint64_t seed);

#endif
