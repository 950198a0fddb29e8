#include "config/keys/keys.h"

static const ConfigSection *const sections[] = {
    &job_section,       &model_section, &data_section,       &rollout_section, &train_section,
    &algorithm_section, &eval_section,  &checkpoint_section, &cluster_section,
};

const ConfigTable job_table = {
    .section = sections,
    .num_sections = sizeof sections / sizeof *sections,
    .foreign = job_foreign,
    .num_foreign = &num_job_foreign,
};
