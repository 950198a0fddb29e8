/* Look-alikes: data files that were named for JSONL and are something else: a table of another
 * program, an archive, a JSON document over many lines, half of a file. They are told by how their
 * text begins, so that a job hears what its file is, rather than that line 1 is no JSON. A file of
 * which any of the first lines is an object is JSONL, whatever else is in it, unless it begins as a
 * JSON list or with the first bytes of another format. Pure. */
#ifndef TROUPE_DATASET_LOOK_ALIKE_H
#define TROUPE_DATASET_LOOK_ALIKE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define LOOK_ALIKE_BYTES (64u << 10) /* of the text that are worth looking at */
#define LOOK_ALIKE_TAIL  8           /* of the file's end */

typedef struct LookAlike {
    const char *path; /* for the message; its ending helps where a text could be either */
    const char *text; /* [length] the beginning */
    size_t length;
    bool whole;       /* there is no more of it */
    const char *tail; /* [LOOK_ALIKE_TAIL] how the file ends; NULL: not known */
} LookAlike;

/* Whether a text that begins so has to be looked at: it does not begin with an object on one line.
 * 16 bytes are enough to tell. */
bool look_alike_is_odd(const char *head, size_t length);

/* ERR_UNSUPPORTED: it is surely something else, and *err says what, and what to do. */
Status look_alike_check(const LookAlike *look, Error *err);

#endif
