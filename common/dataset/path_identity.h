/* What stands for the contents of a path whose format is not known: of a file its size and a hash
 * of the 64 KiB that it begins and ends with, of a folder the names and sizes of what is directly
 * in it, of anything else the path itself. Two data sets that differ in the middle of a file alone
 * look the same. Any thread. */
#ifndef TROUPE_DATASET_PATH_IDENTITY_H
#define TROUPE_DATASET_PATH_IDENTITY_H

#include "base/str.h"

/* Appends a line, or several. */
void path_identity(const char *path, Str *text);

#endif
