/* Jobs, faults and what is expected of every run of the make-believe cluster, for its tests. */
#ifndef TROUPE_TESTS_CONTROLLER_SIM_JOBS_H
#define TROUPE_TESTS_CONTROLLER_SIM_JOBS_H

#include "sim_world.h"

#define BAD_RECORDS 4 /* that faults_of puts into each set */

extern const SimFaults no_faults;

JobConfig make_config(int workers, int tp, int dp);    /* supervised, 24 steps */
JobConfig make_rl_config(int workers, int tp, int dp); /* the same by rewards */
RowList three_sources(void); /* for data.sources; one of them does not say how long it is */
SimFaults faults_of(uint64_t seed);

/* Fails the test unless the run ended well, its books are right, and nothing of it is left. */
void assert_right(const SimResult *result, uint64_t seed);

#endif
