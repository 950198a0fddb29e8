#include "config/cache_pins.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"

static char *pins_path(const char *run_dir)
{
    return path_join(run_dir, "memory.json");
}

/* An object without members when there is none, or none that can be read: then it is decided anew,
 * which costs nothing but time, as no result depends on how much room there is. */
static cJSON *read_pins(const char *run_dir)
{
    cJSON *json = NULL;
    char *path = pins_path(run_dir);
    if (!path_exists(path) || json_read(path, CONFIG_BYTES_MAX, &json, NULL) != OK) json = NULL;
    free(path);
    if (cJSON_IsObject(json)) return json;
    cJSON_Delete(json);
    return cJSON_CreateObject();
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

int64_t cache_pins_find(const JobConfig *config)
{
    int64_t mb = 0;
    cJSON *pins = read_pins(config->run_dir);
    char *name = pin_name(config);
    if (json_int_or(pins, name, "memory.json", 1, 1000000000, &mb, NULL) != OK) mb = 0;
    free(name);
    cJSON_Delete(pins);
    return mb;
}

Status cache_pins_keep(const JobStages *stages, const char *run_dir, Error *err)
{
    cJSON *pins = read_pins(run_dir);
    bool more = false;
    Status status = OK;
    for (int i = 0; i < stages->count; i++) {
        const JobConfig *config = stages->stage[i];
        char *name = pin_name(config);
        if (config->kv_cache_decided && cJSON_GetObjectItemCaseSensitive(pins, name) == NULL) {
            cJSON_AddNumberToObject(pins, name, (double)config->rollout.kv_cache_mb);
            more = true;
        }
        free(name);
    }
    if (more) {
        char *text = cJSON_Print(pins), *path = pins_path(run_dir);
        status = file_write_atomic(path, text, strlen(text), err);
        free(path);
        cJSON_free(text);
    }
    cJSON_Delete(pins);
    return status;
}
