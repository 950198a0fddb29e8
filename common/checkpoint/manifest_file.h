/* What the files of common/checkpoint share; private to it. */
#ifndef TROUPE_CHECKPOINT_MANIFEST_FILE_H
#define TROUPE_CHECKPOINT_MANIFEST_FILE_H

#include "checkpoint/manifest.h"

#define PARTIAL_SUFFIX ".partial" /* an attempt that was not committed (yet) */
#define REMOVED_SUFFIX ".removed" /* on its way out */
#define LATEST_NAME    "latest"
#define BEST_NAME      "best"

/* ERR_INVALID for a name that could reach outside the folder or hide in it. */
Status manifest_check_name(const char *name, Error *err);

/* True for the final name of a checkpoint ("step_00000012"), whose step it gives. */
bool checkpoint_parse_name(const char *name, int64_t *ret_step);

/* Renames the folder out of the way and then removes it, so that a kill in between leaves
 * nothing that looks like a checkpoint. */
Status checkpoint_remove(const char *path, Error *err);

/* Writes the file `hint` in the root with a name; with NULL removes it. Failing to is of no
 * consequence. */
void checkpoint_write_hint(const char *root, const char *hint, const char *name);

#endif
