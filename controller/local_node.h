/* LocalNode: this machine as the embedded agent offers it to a job, and whether the job's placement
 * group could ever fit on it. The core itself decides that, so a job is told the same before its
 * start as at it. */
#ifndef TROUPE_CONTROLLER_LOCAL_NODE_H
#define TROUPE_CONTROLLER_LOCAL_NODE_H

#include "config/job.h"

/* As configured; else this machine's, or what the job needs if that is more: a laptop with two
 * cores runs the default job too, its processes taking turns. */
double local_node_cpus(const JobConfig *config);

/* What the job's processes reserve, all together. */
double local_node_cpus_needed(const JobConfig *config);

/* ERR_RESOURCE: it could not, and *err says what finds no place. */
Status local_node_check(const JobConfig *config, Error *err);

#endif
