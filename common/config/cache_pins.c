#include "config/cache_pins.h"

#include <stdlib.h>

#include "base/json.h"
#include "base/memory.h"
#include "config/pins.h"

/* None when there is no file, or none that can be read: cache_pins_keep tells of that. */
static Pins read_pins(const char *run_dir)
{
    Pins pins = pins_begin(run_dir, "memory.json");
    pins_read(&pins, NULL);
    return pins;
}

/* Of whatever the decision was made for. */
static char *pin_name(const JobConfig *config)
{
    return mem_printf("stage %s: %lld workers, %lld answers of %lld tokens, %lld x %lld ranks",
                      config->stage != NULL ? config->stage : "of the job",
                      (long long)config->rollout.num_workers,
                      (long long)config->rollout.concurrency, (long long)config->data.max_length,
                      (long long)config->train.tp_size, (long long)config->train.dp_size);
}

static char *tokens_pin_name(const JobConfig *config)
{
    return mem_printf("micro-batches: samples of %lld tokens, %lld x %lld ranks",
                      (long long)config->data.max_length, (long long)config->train.tp_size,
                      (long long)config->train.dp_size);
}

/* Takes the name. */
static int64_t find(const JobConfig *config, char *name)
{
    int64_t value = 0;
    Pins pins = read_pins(config->run_dir);
    if (json_int_or(pins.json, name, "memory.json", 1, 1000000000, &value, NULL) != OK) value = 0;
    free(name);
    pins_free(&pins);
    return value;
}

int64_t cache_pins_find(const JobConfig *config)
{
    return find(config, pin_name(config));
}

int64_t cache_pins_tokens(const JobConfig *config)
{
    return find(config, tokens_pin_name(config));
}

/* Takes the name. */
static void add(Pins *pins, char *name, int64_t value)
{
    pins_add(pins, name, cJSON_CreateNumber((double)value));
    free(name);
}

static Status refuse_damage(const Pins *pins, const Error *damage, Error *err)
{
    *err = *damage;
    return error_append(err,
                        "%s says how many tokens a micro-batch of this run has, on which its bits "
                        "depend. Put it right; or set train.max_tokens_per_gpu to what "
                        "config.effective.yaml beside it says, and remove it.",
                        pins->path);
}

Status cache_pins_keep(const JobStages *stages, const char *run_dir, Error *err)
{
    Pins pins = pins_begin(run_dir, "memory.json");
    Error damage = {0};
    Status status = pins_read(&pins, &damage);
    bool needed = false;
    for (int i = 0; i < stages->count; i++) {
        const JobConfig *config = stages->stage[i];
        needed = needed || config->tokens_decided;
        if (config->kv_cache_decided) add(&pins, pin_name(config), config->rollout.kv_cache_mb);
        if (config->tokens_decided)
            add(&pins, tokens_pin_name(config), config->train.max_tokens_per_gpu);
    }
    if (status != OK && needed)
        status = refuse_damage(&pins, &damage, err);
    else
        status = pins_write(&pins, err);
    pins_free(&pins);
    return status;
}
