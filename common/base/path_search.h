/* Path search: which files a pattern or a folder stands for. Links are followed; a folder that is
 * reached a second time (a link to one above it) counts once. What cannot be listed is an error
 * that names it, never a shorter list. Any thread. */
#ifndef TROUPE_BASE_PATH_SEARCH_H
#define TROUPE_BASE_PATH_SEARCH_H

#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

/* Appends the paths that match, sorted by their bytes: `*`, `?` and `[...]` as in a shell, and `**`
 * as a whole part of the pattern for any number of folders, none too. Names that begin with a dot
 * match only what begins with one, `**` none of them. ERR_NOT_FOUND: nothing matches. */
Status path_glob(const char *pattern, StringList *ret, Error *err);

/* Whether a path matches a pattern in which `**` stands for any number of folders. */
bool path_matches(const char *pattern, const char *path);

/* Appends the files below a folder, relative to it, at most `max` and one more, in any order.
 * Entries whose names begin with a dot are passed over; a link to what is not there counts as a
 * file, so that who wants it is told. Fails where a folder cannot be listed. */
Status path_list_files(const char *root, int max, StringList *ret, Error *err);

#endif
