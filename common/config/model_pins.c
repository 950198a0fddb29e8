#include "config/model_pins.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "config/job_internal.h"
#include "config/pins.h"

static Status explain(Error *err, const char *path)
{
    return error_append(err,
                        "%s says with which checkpoints the run in this folder began. Put it right "
                        "({\"RUN\": \"CHECKPOINT\"}); without the file the newest are taken, "
                        "whatever the run began with.",
                        path);
}

static Status check_pins(const Pins *pins, Error *err)
{
    for (const cJSON *pin = pins->json->child; pin != NULL; pin = pin->next)
        if (!cJSON_IsString(pin))
            return error_set(err, ERR_DATA, "%s: %s is %s, expected the folder of a checkpoint.",
                             pins->path, pin->string, json_type_name(pin));
    return OK;
}

static Pins begin_pins(const char *run_dir)
{
    return pins_begin(run_dir, "models.json");
}

/* None when there is no file: then nothing was chosen yet. */
static Status read_pins(Pins *pins, Error *err)
{
    Error why = {0};
    Status status = pins_read(pins, &why);
    if (status == OK) status = check_pins(pins, &why);
    if (status != OK) {
        explain(&why, pins->path);
        if (err != NULL) *err = why;
    }
    return status;
}

Status model_pins_find(const char *run_dir, const char *path, char **ret, Error *err)
{
    Pins pins = begin_pins(run_dir);
    Status status = read_pins(&pins, err);
    if (status == OK) *ret = mem_strdup(cJSON_GetStringValue(pins_find(&pins, path)));
    pins_free(&pins);
    return status;
}

bool model_pins_are_lost(const JobConfig *config)
{
    if (config->num_pins == 0) return false;
    Pins pins = begin_pins(config->run_dir);
    char *checkpoint = NULL;
    if (!path_exists(pins.path)) checkpoint = model_path_checkpoint(config->run_dir);
    bool lost = checkpoint != NULL;
    free(checkpoint);
    pins_free(&pins);
    return lost;
}

static void add_pins(Pins *pins, const JobConfig *config)
{
    for (int i = 0; i < config->num_pins; i++) {
        const ModelPin *pin = &config->pin[i];
        pins_add(pins, pin->run, cJSON_CreateString(pin->checkpoint));
    }
}

Status model_pins_keep(const JobStages *stages, const char *run_dir, Error *err)
{
    Pins pins = begin_pins(run_dir);
    Status status = read_pins(&pins, err);
    for (int i = 0; status == OK && i < stages->count; i++)
        add_pins(&pins, stages->stage[i]);
    if (status == OK) status = pins_write(&pins, err);
    pins_free(&pins);
    return status;
}
