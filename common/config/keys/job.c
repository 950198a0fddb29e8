#include "config/keys/keys.h"

static const KeyName device_names[] = {{"cpu", JOB_CPU}, {"cuda", JOB_CUDA}, {NULL, 0}};
static const ConfigForeign other_devices[] = {
    {"gpu nvidia cuda:0 auto", "NVIDIA's GPUs are device: cuda; which one is chosen by the node "
                               "agent, among those that CUDA_VISIBLE_DEVICES shows it"},
    {0}};

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
    {.path = "device",
     .fixed = true,
     .type = KEY_ENUM,
     .offset = AT(device),
     .preset = "cpu",
     .example = "cuda",
     .names = device_names,
     .foreign = other_devices,
     .also = "device_type accelerator",
     .meaning =
         "what the model is trained and generates on; cuda: a GPU for each train worker; see "
         "devices.md"},
};

const ConfigSection job_section = {
    .name = "",
    .meaning = "the job as a whole",
    .key = keys,
    .num_keys = sizeof keys / sizeof *keys,
};
