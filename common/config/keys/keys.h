/* The keys of job.yaml, a file for each section. A key is added here, to JobConfig (config/job.h)
 * and nowhere else: reading, checking, messages and the reference follow from the table. */
#ifndef TROUPE_CONFIG_KEYS_KEYS_H
#define TROUPE_CONFIG_KEYS_KEYS_H

#include <stddef.h>

#include "config/job_internal.h"

#define AT(field) offsetof(JobConfig, field)
#define STEPS_MAX 1e12
#define SEED_MAX  9007199254740992.0 /* whole numbers that every JSON reader keeps */

extern const ConfigSection job_section, model_section, data_section, rollout_section, train_section,
    algorithm_section, eval_section, checkpoint_section, cluster_section;

#endif
