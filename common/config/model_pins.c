#include "config/model_pins.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "config/job_internal.h"

static char *pins_path(const char *run_dir)
{
    return path_join(run_dir, "models.json");
}

static Status explain(Error *err, const char *path)
{
    return error_append(err,
                        "%s says with which checkpoints the run in this folder began. Put it right "
                        "({\"RUN\": \"CHECKPOINT\"}); without the file the newest are taken, "
                        "whatever the run began with.",
                        path);
}

static Status check_pins(const cJSON *json, const char *path, Error *err)
{
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s: found %s, expected an object.", path,
                         json_type_name(json));
    for (const cJSON *pin = json->child; pin != NULL; pin = pin->next)
        if (!cJSON_IsString(pin))
            return error_set(err, ERR_DATA, "%s: %s is %s, expected the folder of a checkpoint.",
                             path, pin->string, json_type_name(pin));
    return OK;
}

/* An object without members when there is no file: then nothing was chosen yet. */
static Status read_pins(const char *run_dir, cJSON **ret, Error *err)
{
    cJSON *json = NULL;
    Error why = {0};
    char *path = pins_path(run_dir);
    Status status = json_read(path, CONFIG_BYTES_MAX, &json, &why);
    if (status == ERR_NOT_FOUND) {
        json = cJSON_CreateObject();
        status = OK;
    } else if (status == OK) {
        status = check_pins(json, path, &why);
    }
    if (status == OK) {
        *ret = json;
    } else {
        explain(&why, path);
        if (err != NULL) *err = why;
        cJSON_Delete(json);
    }
    free(path);
    return status;
}

Status model_pins_find(const char *run_dir, const char *path, char **ret, Error *err)
{
    cJSON *pins = NULL;
    TRY(read_pins(run_dir, &pins, err));
    *ret = mem_strdup(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pins, path)));
    cJSON_Delete(pins);
    return OK;
}

bool model_pins_are_lost(const JobConfig *config)
{
    if (config->num_pins == 0) return false;
    char *path = pins_path(config->run_dir), *checkpoint = NULL;
    if (!path_exists(path)) checkpoint = model_path_checkpoint(config->run_dir);
    bool lost = checkpoint != NULL;
    free(checkpoint);
    free(path);
    return lost;
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
    cJSON *pins = NULL;
    bool more = false;
    TRY(read_pins(run_dir, &pins, err));
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
