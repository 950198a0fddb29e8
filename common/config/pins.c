#include "config/pins.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

Pins pins_begin(const char *run_dir, const char *name)
{
    return (Pins){.path = path_join(run_dir, name), .json = cJSON_CreateObject()};
}

void pins_free(Pins *pins)
{
    free(pins->path);
    cJSON_Delete(pins->json);
    *pins = (Pins){0};
}

Status pins_read(Pins *pins, Error *err)
{
    cJSON *json = NULL;
    Error why = {0};
    Status status = json_read(pins->path, CONFIG_BYTES_MAX, &json, &why);
    if (status == ERR_NOT_FOUND) return OK;
    if (status == OK && !cJSON_IsObject(json))
        status = error_set(&why, ERR_DATA, "%s: found %s, expected an object.", pins->path,
                           json_type_name(json));
    if (status != OK) {
        cJSON_Delete(json);
        if (err != NULL) *err = why;
        return status;
    }
    cJSON_Delete(pins->json);
    pins->json = json;
    return OK;
}

const cJSON *pins_find(const Pins *pins, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(pins->json, name);
}

void pins_add(Pins *pins, const char *name, cJSON *value)
{
    if (pins_find(pins, name) != NULL) {
        cJSON_Delete(value);
        return;
    }
    cJSON_AddItemToObject(pins->json, name, value);
    pins->more = true;
}

Status pins_write(const Pins *pins, Error *err)
{
    if (!pins->more) return OK;
    char *text = cJSON_Print(pins->json);
    Status status = file_write_atomic(pins->path, text, strlen(text), err);
    cJSON_free(text);
    return status;
}
