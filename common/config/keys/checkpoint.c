#include "base/limits.h"
#include "config/keys/keys.h"

static const KeyName resume_names[] = {{"auto", RESUME_AUTO}, {"never", RESUME_NEVER}, {NULL, 0}};

static const ConfigKey keys[] = {
    {.path = "checkpoint.interval",
     .fixed = true,
     .type = KEY_INT,
     .offset = AT(checkpoint.interval),
     .preset = "100",
     .max = STEPS_MAX,
     .also = "save_interval save_steps steps",
     .meaning = "steps between checkpoints; 0: only at the end"},
    {.path = "checkpoint.keep_last",
     .fixed = true,
     .type = KEY_INT,
     .offset = AT(checkpoint.keep_last),
     .preset = "2",
     .max = 1e6,
     .also = "save_total_limit",
     .meaning = "checkpoints that are kept, the newest ones; 0: all"},
    {.path = "checkpoint.keep_best",
     .type = KEY_INT,
     .offset = AT(checkpoint.keep_best),
     .preset = "0",
     .example = "1",
     .max = KEEP_BEST_MAX,
     .also = "load_best_model_at_end save_best keep_best_checkpoint",
     .meaning = "checkpoints that are kept besides, those of the best evaluations by "
                "eval.best_metric; checkpoints/best names the best"},
    {.path = "checkpoint.resume",
     .fixed = true,
     .type = KEY_ENUM,
     .offset = AT(checkpoint.resume),
     .preset = "auto",
     .names = resume_names,
     .meaning =
         "auto goes on from the newest whole checkpoint in run_dir; with never, a run_dir that "
         "has one is refused"},
};

const ConfigSection checkpoint_section = {
    .name = "checkpoint",
    .meaning = "what survives a kill; the end of a run always saves, before its evaluation",
    .key = keys,
    .num_keys = sizeof keys / sizeof *keys,
};
