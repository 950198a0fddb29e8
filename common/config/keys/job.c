#include "config/keys/keys.h"

static const ConfigKey keys[] = {
    {.path = "name",
     .fixed = true,
     .type = KEY_STRING,
     .offset = AT(name),
     .derived = "the job file's name without its ending",
     .example = "my-first-run",
     .also = "run_name experiment_name job_name wandb_name",
     .meaning = "name of the job: letters and digits of any script, `.`, `_` and `-`, at most 40"},
    {.path = "run_dir",
     .fixed = true,
     .type = KEY_PATH,
     .offset = AT(run_dir),
     .output = true,
     .derived = "runs/<name> in the working directory",
     .example = "runs/my-first-run",
     .also = "output_dir output save_dir run_folder",
     .meaning = "folder of everything the run writes; the same folder again resumes"},
    {.path = "seed",
     .type = KEY_INT,
     .offset = AT(seed),
     .preset = "42",
     .max = SEED_MAX,
     .also = "random_seed",
     .meaning = "decides the order of the data and random initial weights"},
};

const ConfigSection job_section = {
    .name = "",
    .meaning = "the job as a whole",
    .key = keys,
    .num_keys = sizeof keys / sizeof *keys,
};
