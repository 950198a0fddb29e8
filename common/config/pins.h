/* Pins: what a run chose when it began and its later sessions keep to, in a JSON object in a small
 * file of its folder: for each name what stands for it. What stands there once is left as it is. By
 * one thread. */
#ifndef TROUPE_CONFIG_PINS_H
#define TROUPE_CONFIG_PINS_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/error.h"

typedef struct Pins {
    char *path;
    cJSON *json; /* an object */
    bool more;   /* something was added */
} Pins;

/* Without any; freed with pins_free. */
Pins pins_begin(const char *run_dir, const char *name);
void pins_free(Pins *pins);

/* Takes those of the file over; without a file there are none. On failure there are none too. */
Status pins_read(Pins *pins, Error *err);

/* NULL: nothing stands for the name. Borrowed. */
const cJSON *pins_find(const Pins *pins, const char *name);

/* Takes `value`, which is dropped when something stands for the name already. */
void pins_add(Pins *pins, const char *name, cJSON *value);

/* Writes the file when something was added. The folder exists. */
Status pins_write(const Pins *pins, Error *err);

#endif
