#include "config/model_pins.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"

static char *pins_path(const char *run_dir)
{
    return path_join(run_dir, "models.json");
}

/* An object without members when there is none, or none that can be read: then checkpoints are
 * chosen anew. */
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

char *model_pins_find(const char *run_dir, const char *path)
{
    cJSON *pins = read_pins(run_dir);
    const char *checkpoint = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pins, path));
    char *found = mem_strdup(checkpoint);
    cJSON_Delete(pins);
    return found;
}

static bool add_pins(cJSON *pins, const JobConfig *config)
{
    bool more = false;
    for (int i = 0; i < config->num_pins; i++) {
        const ModelPin *pin = &config->pin[i];
        if (cJSON_GetObjectItemCaseSensitive(pins, pin->run) != NULL) continue;
        cJSON_AddStringToObject(pins, pin->run, pin->checkpoint);
        more = true;
    }
    return more;
}

Status model_pins_keep(const JobStages *stages, const char *run_dir, Error *err)
{
    cJSON *pins = read_pins(run_dir);
    bool more = false;
    Status status = OK;
    for (int i = 0; i < stages->count; i++)
        more = add_pins(pins, stages->stage[i]) || more;
    if (more) {
        char *text = cJSON_Print(pins), *path = pins_path(run_dir);
        status = file_write_atomic(path, text, strlen(text), err);
        free(path);
        cJSON_free(text);
    }
    cJSON_Delete(pins);
    return status;
}
